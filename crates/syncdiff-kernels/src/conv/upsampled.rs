//! Nearest up-sampling by 2 and the 3x3 convolution behind it, without the enlarged image.
//!
//! Of the nine taps of an output pixel several fall on the same source pixel. For each of the four parities of output
//! rows and columns the weights that meet there are added first, which leaves a 2x2 kernel over the small image: 16
//! products per source pixel and pair of channels instead of 36. The input gradient is a 4x4 kernel of stride 2 over the
//! output gradient, and the weight gradient 16 correlations of the two, added up to nine.

use super::padded::{Padded, Source};
use super::{Job, correlations};
use crate::pointwise::channel_sums;
use crate::simd::{self, dispatch};
use rayon::prelude::*;

/// Rows (and columns) of the 3x3 kernel that meet the source pixel before or at, and at or behind, an output pixel's
/// own, for even and odd outputs.
const FORWARD: [[&[usize]; 2]; 2] = [[&[0], &[1, 2]], [&[0, 1], &[2]]];
/// Rows of the 3x3 kernel that join a source pixel r and the output row 2 r - 1 + u.
const BACKWARD: [&[usize]; 4] = [&[2], &[1, 2], &[0, 1], &[0]];

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
        self.width.is_multiple_of(super::tile::lanes(simd::level()))
    }
}

/// Sum of the weights of one pair of channels over rows and columns of the kernel.
fn sum(weight: &[f32; 9], rows: &[usize], cols: &[usize]) -> f32 {
    rows.iter().map(|kh| cols.iter().map(|kw| weight[kh * 3 + kw]).sum::<f32>()).sum()
}

dispatch! {
    /// `to = a[0], b[0], a[1], b[1], ..`.
    fn interleave(a: &[f32], b: &[f32], to: &mut [f32]) {
        for ((to, &a), &b) in to.as_chunks_mut::<2>().0.iter_mut().zip(a).zip(b) {
            *to = [a, b];
        }
    }
}

/// # Shapes
/// x: [batch, in, height, width], weight: [out, in, 3, 3], bias: [out] -> [batch, out, 2 height, 2 width]
pub(crate) fn forward(x: &[f32], weight: &[f32], bias: &[f32], s: UpsampledShape) -> Vec<f32> {
    let layout = Padded::new(s.height, s.width, 1, 3);
    let pairs = weight.as_chunks::<9>().0;
    let parities = [(0, 0), (0, 1), (1, 0), (1, 1)];
    let weights = parities.map(|(row, col)| {
        let mut sums = Vec::with_capacity(4 * pairs.len());
        for weight in pairs {
            for rows in FORWARD[row] {
                sums.extend(FORWARD[col].map(|cols| sum(weight, rows, cols)));
            }
        }
        sums
    });
    let taps = |(row, col): (usize, usize)| {
        vec![layout.tap(row, col), layout.tap(row, col + 1), layout.tap(row + 1, col), layout.tap(row + 1, col + 1)]
    };
    let job = Job {
        level: simd::level(),
        source: Source { channels: s.in_channels, height: s.height, width: s.width, dilation: 1, begin: 1 },
        stride: 1,
        kernel: 3,
        out_channels: s.out_channels,
        out_height: s.height,
        out_width: s.width,
        bias: Some(bias),
        kernels: weights.iter().zip(parities).map(|(weights, parity)| (&weights[..], taps(parity))).collect(),
    };
    let by_parity = job.run(x);
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

fn gradient_source(s: UpsampledShape) -> Source {
    Source { channels: s.out_channels, height: 2 * s.height, width: 2 * s.width, dilation: 1, begin: 1 }
}

/// Gradient with respect to the small image.
pub(crate) fn backward_input(dy: &[f32], weight: &[f32], s: UpsampledShape) -> Vec<f32> {
    let mut sums = vec![0f32; 16 * s.in_channels * s.out_channels];
    for (pair, weight) in weight.as_chunks::<9>().0.iter().enumerate() {
        let (o, i) = (pair / s.in_channels, pair % s.in_channels);
        let to = &mut sums[(i * s.out_channels + o) * 16..][..16];
        for (tap, to) in to.iter_mut().enumerate() {
            *to = sum(weight, BACKWARD[tap / 4], BACKWARD[tap % 4]);
        }
    }
    let job = Job {
        level: simd::level(),
        source: gradient_source(s),
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
    // The small image takes the place of an output gradient, the output gradient that of an input.
    let by_tap = correlations(dy, gradient_source(s), x, s.in_channels, [s.height, s.width], 2, 4);
    let pairs = s.in_channels * s.out_channels;
    let mut weight_grad = vec![0f32; 9 * pairs];
    for (tap, of_tap) in by_tap.chunks_exact(pairs).enumerate() {
        for (kh, kw) in BACKWARD[tap / 4].iter().flat_map(|kh| BACKWARD[tap % 4].iter().map(move |kw| (kh, kw))) {
            for (pair, &value) in of_tap.iter().enumerate() {
                let (i, o) = (pair / s.out_channels, pair % s.out_channels);
                weight_grad[(o * s.in_channels + i) * 9 + kh * 3 + kw] += value;
            }
        }
    }
    (weight_grad, channel_sums(dy, s.out_channels, 4 * s.height * s.width))
}
