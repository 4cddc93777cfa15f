//! Nearest up-sampling by 2 and the 3x3 convolution behind it, without the enlarged image.
//!
//! Of the nine taps of an output pixel several fall on the same source pixel. For each of the four parities of output
//! rows and columns the weights that meet there are added first, which leaves a 2x2 kernel over the small image: 16
//! products per source pixel and pair of channels instead of 36. The input gradient is a 4x4 kernel of stride 2 over
//! the output gradient, and the weight gradient 16 correlations over the small image, each added to the one to four
//! weights that met.

use super::padded::{Padded, Source};
use super::{Job, correlations};
use crate::pointwise::channel_sums;
use crate::simd::{self, dispatch};
use rayon::prelude::*;

/// Rows (or columns) of the 3x3 kernel that meet in each sum of [`folded`]: of an even output row those before the
/// source pixel and those at it, of an odd one those at it and those behind.
pub(crate) const MEET: [&[usize]; 4] = [&[0], &[1, 2], &[0, 1], &[2]];
/// The sums of [`MEET`] that join a source pixel r and the output rows 2 r - 1 to 2 r + 2.
const BACKWARD: [usize; 4] = [3, 1, 2, 0];
pub(crate) const PARITIES: [(usize, usize); 4] = [(0, 0), (0, 1), (1, 0), (1, 1)];

/// Dimensions of one call.
#[derive(Clone, Copy, Debug)]
pub(crate) struct UpsampledShape {
    pub(crate) batch: usize,
    pub(crate) in_channels: usize,
    pub(crate) out_channels: usize,
    /// Of the small image.
    pub(crate) height: usize,
    pub(crate) width: usize,
}

impl UpsampledShape {
    /// Whether the direct kernels apply: rows of whole vectors.
    pub(crate) fn is_direct(&self) -> bool {
        self.width.is_multiple_of(simd::level().run_of(self.width))
    }
}

/// The weights of one pair of channels, summed over the rows and the columns of [`MEET`].
fn folded(weight: &[f32; 9]) -> [[f32; 4]; 4] {
    let meet = |a: f32, b: f32, c: f32| [a, b + c, a + b, c];
    let [above, here, below] = [0, 1, 2].map(|row| meet(weight[row * 3], weight[row * 3 + 1], weight[row * 3 + 2]));
    let add = |a: [f32; 4], b: [f32; 4]| std::array::from_fn(|i| a[i] + b[i]);
    [above, add(here, below), add(above, here), below]
}

dispatch! {
    /// `to = a[0], b[0], a[1], b[1], ..`.
    fn interleave(a: &[f32], b: &[f32], to: &mut [f32]) {
        for ((to, &a), &b) in to.as_chunks_mut::<2>().0.iter_mut().zip(a).zip(b) {
            *to = [a, b];
        }
    }
}

/// The taps of one parity of output pixels.
fn taps(layout: Padded, (row, col): (usize, usize)) -> Vec<usize> {
    PARITIES.map(|(kh, kw)| layout.tap(row + kh, col + kw)).to_vec()
}

/// # Shapes
/// x: [batch, in, height, width], weight: [out, in, 3, 3], bias: [out] -> [batch, out, 2 height, 2 width]
pub(crate) fn forward(x: &[f32], weight: &[f32], bias: &[f32], s: UpsampledShape) -> Vec<f32> {
    let layout = Padded::new(s.height, s.width, 1, 3);
    let pairs = weight.as_chunks::<9>().0;
    let mut weights = [(); 4].map(|()| vec![[0f32; 4]; pairs.len()]);
    for (pair, weight) in pairs.iter().enumerate() {
        let sums = folded(weight);
        for ((row, col), weights) in PARITIES.into_iter().zip(&mut weights) {
            let [above, below] = [sums[2 * row], sums[2 * row + 1]];
            weights[pair] = [above[2 * col], above[2 * col + 1], below[2 * col], below[2 * col + 1]];
        }
    }
    let job = Job {
        level: simd::level(),
        source: Source { channels: s.in_channels, height: s.height, width: s.width, dilation: 1, begin: 1 },
        stride: 1,
        kernel: 3,
        out_channels: s.out_channels,
        out_height: s.height,
        out_width: s.width,
        bias: Some(bias),
        kernels: weights.iter().zip(PARITIES).map(|(w, parity)| (w.as_flattened(), taps(layout, parity))).collect(),
    };
    interleaved(&job.run(x), s)
}

/// The outputs of the four parities, put together.
///
/// # Shapes
/// [batch, parities, out, height, width] -> [batch, out, 2 height, 2 width]
pub(crate) fn interleaved(by_parity: &[f32], s: UpsampledShape) -> Vec<f32> {
    let small = s.height * s.width;
    let one = s.out_channels * small;
    let mut y = vec![0f32; 4 * s.batch * one];
    y.par_chunks_exact_mut(4 * small).enumerate().for_each(|(plane, y)| {
        let (image, channel) = (plane / s.out_channels, plane % s.out_channels);
        let planes: [&[f32]; 4] =
            std::array::from_fn(|parity| &by_parity[(image * 4 + parity) * one + channel * small..][..small]);
        for (row, y) in y.chunks_exact_mut(2 * s.width).enumerate() {
            let from = row / 2 * s.width;
            let [even, odd] = [0, 1].map(|col| &planes[row % 2 * 2 + col][from..from + s.width]);
            interleave(even, odd, y);
        }
    });
    y
}

/// Gradient with respect to the small image.
pub(crate) fn backward_input(dy: &[f32], weight: &[f32], s: UpsampledShape) -> Vec<f32> {
    let mut sums = vec![0f32; 16 * s.in_channels * s.out_channels];
    for (pair, weight) in weight.as_chunks::<9>().0.iter().enumerate() {
        let (o, i) = (pair / s.in_channels, pair % s.in_channels);
        let to = &mut sums[(i * s.out_channels + o) * 16..][..16];
        let folded = folded(weight);
        for (to, row) in to.as_chunks_mut::<4>().0.iter_mut().zip(BACKWARD) {
            *to = BACKWARD.map(|col| folded[row][col]);
        }
    }
    let job = Job {
        level: simd::level(),
        source: Source { channels: s.out_channels, height: 2 * s.height, width: 2 * s.width, dilation: 1, begin: 1 },
        stride: 2,
        kernel: 4,
        out_channels: s.in_channels,
        out_height: s.height,
        out_width: s.width,
        bias: None,
        kernels: vec![(&sums[..], Padded::new(s.height, s.width, 2, 4).taps(4))],
    };
    job.run(dy)
}

/// Gradients with respect to weight [out, in, 3, 3] and bias [out].
pub(crate) fn backward_weight(x: &[f32], dy: &[f32], s: UpsampledShape) -> (Vec<f32>, Vec<f32>) {
    let source = Source { channels: s.in_channels, height: s.height, width: s.width, dilation: 1, begin: 1 };
    let layout = Padded::new(s.height, s.width, 1, 3);
    let mut weight_grad = vec![[0f32; 9]; s.in_channels * s.out_channels];
    let mut of_parity = vec![0f32; dy.len() / 4];
    for (row, col) in PARITIES {
        let rows = dy.par_chunks_exact(4 * s.width).zip(of_parity.par_chunks_exact_mut(s.width)).with_min_len(64);
        rows.for_each(|(pair_of_rows, to)| {
            let from = pair_of_rows[row * 2 * s.width..][..2 * s.width].as_chunks::<2>().0;
            for (to, pair) in to.iter_mut().zip(from) {
                *to = pair[col];
            }
        });
        let taps = taps(layout, (row, col));
        let by_tap = correlations(x, source, &of_parity, s.out_channels, [s.height, s.width], 1, &taps);
        // Every weight meets others in one tap of each parity.
        let tap_of: [usize; 9] = std::array::from_fn(|k| {
            let second = |parity: usize, k: usize| usize::from(!MEET[2 * parity].contains(&k));
            2 * second(row, k / 3) + second(col, k % 3)
        });
        let pairs = weight_grad.len();
        for (pair, weight_grad) in weight_grad.iter_mut().enumerate() {
            let values: [f32; 4] = std::array::from_fn(|tap| by_tap[tap * pairs + pair]);
            for (k, weight_grad) in weight_grad.iter_mut().enumerate() {
                *weight_grad += values[tap_of[k]];
            }
        }
    }
    (weight_grad.into_flattened(), channel_sums(dy, s.out_channels, 4 * s.height * s.width))
}
