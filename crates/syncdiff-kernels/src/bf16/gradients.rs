//! Gradients of layers whose weights are bf16, as products of 16-bit values again: the gradients of their results are
//! rounded on the way into a product, and sums are f32, as are the gradients that leave.
//!
//! With respect to inputs they are the same layers, channels exchanged. With respect to weights they are products over
//! pixels (or tokens): rows of the left side are channels of the result, columns those of the input. All images lie in
//! one row behind each other, so that all of a batch is one sum. A tap of a window is a distance in that row, since each
//! image's rows are as far apart there as in the input with its border; the gradient is zero in between.

use super::layers::{Job, Left, conv1x1, conv3x3, linear};
use super::lines::Lines;
use super::pairs::{self, STRIP};
use super::product::{MAX_INNER, SIDE, Step, Store, Vector};
use super::unit;
use crate::conv::{Conv3x3, ConvShape};
use crate::square::transposed;
use rayon::prelude::*;

/// Side of the window.
const KERNEL: usize = 3;

/// Gradients of a 3x3 convolution that keeps the size, with respect to its input and its weights. The first is the
/// convolution with channels exchanged and taps in opposite order.
///
/// # Shapes
/// x: [batch, in, height, width], weights: [3, 3, out, in], dy: [batch, out, height, width] -> as x, [3, 3, out, in]
pub(crate) fn conv3x3_gradients(
    x: &[f32],
    weights: &[u16],
    dy: &[f32],
    s: ConvShape,
    wants_dx: bool,
) -> (Vec<f32>, Vec<f32>) {
    debug_assert_eq!(s.kind, Conv3x3::SAME);
    let dx = if wants_dx {
        let of_tap = s.in_channels * s.out_channels;
        let mut flipped = Vec::with_capacity(weights.len());
        for tap in weights.chunks_exact(of_tap).rev() {
            flipped.extend(exchanged(tap, s.in_channels));
        }
        let exchanged = ConvShape { in_channels: s.out_channels, out_channels: s.in_channels, ..s };
        conv3x3(dy, &flipped, &vec![0.0; s.in_channels], exchanged)
    } else {
        Vec::new()
    };
    let stride = s.width + KERNEL - 1;
    let plane = Plane { height: s.height, width: s.width, stride, len: (s.height + KERNEL - 1) * stride };
    let taps: Vec<usize> = (0..KERNEL * KERNEL).map(|tap| tap / KERNEL * stride + tap % KERNEL).collect();
    (dx, plane.correlations(x, s.in_channels, stride + 1, dy, s.out_channels, &taps))
}

/// Gradients of a 1x1 convolution with respect to its input and its weights.
///
/// # Shapes
/// x: [batch, in, pixels], weights: [out, in], dy: [batch, out, pixels] -> as x, [out, in]
pub(crate) fn conv1x1_gradients(
    x: &[f32],
    weights: &[u16],
    dy: &[f32],
    channels: usize,
    pixels: usize,
) -> (Vec<f32>, Vec<f32>) {
    let out = weights.len() / channels;
    let dx = conv1x1(dy, &exchanged(weights, channels), &vec![0.0; channels], out, pixels);
    let plane = Plane { height: 1, width: pixels, stride: pixels, len: pixels };
    (dx, plane.correlations(x, channels, 0, dy, out, &[0]))
}

/// Gradients of a linear layer with respect to its input and its weights.
///
/// # Shapes
/// x: [tokens, in], weights: [in, out], dy: [tokens, out] -> [tokens, in], [in, out]
pub(crate) fn linear_gradients(x: &[f32], weights: &[u16], dy: &[f32], out: usize) -> (Vec<f32>, Vec<f32>) {
    let channels = weights.len() / out;
    let dx = linear(dy, weights, &vec![0.0; channels]);
    let inner = whole(x.len() / channels);
    let mut pairs = Lines::new::<u32>(out.div_ceil(STRIP) * inner / 2 * STRIP);
    pairs::of_planes(dy, out, inner / 2, pairs.values_mut());
    (dx, sums(&turned(x, channels, inner), channels, &pairs, inner / 2, out, &[0]))
}

/// So many values and zeros that they are whole steps, an odd number of them: rows a power of two apart would share a
/// few places of the cache.
fn whole(values: usize) -> usize {
    (values.div_ceil(MAX_INNER) | 1) * MAX_INNER
}

/// How the pixels of an image lie in the row of all images.
#[derive(Clone, Copy)]
struct Plane {
    height: usize,
    width: usize,
    /// Between rows of the image.
    stride: usize,
    /// Between images.
    len: usize,
}

impl Plane {
    /// What every tap of every pair of channels contributes: `sum over n, p of dy[n, o, p] * x[n, i, p + tap - begin]`.
    ///
    /// # Shapes
    /// x: [batch, in, height, width], dy: [batch, out, height, width] -> [taps, out, in]
    fn correlations(
        &self,
        x: &[f32],
        in_channels: usize,
        begin: usize,
        dy: &[f32],
        out_channels: usize,
        taps: &[usize],
    ) -> Vec<f32> {
        let batch = x.len() / (in_channels * self.height * self.width);
        let inner = whole(batch * self.len);
        let mut rows = Lines::new::<u16>(out_channels * inner);
        rows.values_mut::<u16>().par_chunks_exact_mut(inner).enumerate().for_each(|(channel, row)| {
            self.lay(dy, out_channels, channel, |at, from| pairs::round_row(from, &mut row[at..]));
        });
        let parities = if taps.iter().any(|tap| tap % 2 == 1) { 2 } else { 1 };
        let of_row = (inner + taps.iter().max().expect("a tap")).div_ceil(2);
        let strips = in_channels.div_ceil(STRIP);
        let of_strip = of_row * STRIP;
        let mut pairs = Lines::new::<u32>(parities * strips * of_strip);
        let buffers = || (vec![0f32; 2 * of_row + 1], vec![0u32; STRIP * of_row]);
        for (parity, pairs) in pairs.values_mut::<u32>().chunks_exact_mut(strips * of_strip).enumerate() {
            let strips = pairs.par_chunks_exact_mut(of_strip).enumerate();
            strips.for_each_init(buffers, |(row, joined), (strip, to)| {
                let channels = strip * STRIP..((strip + 1) * STRIP).min(in_channels);
                let count = channels.len();
                for (channel, joined) in channels.zip(joined.chunks_exact_mut(of_row)) {
                    // What lies between the rows stays zero.
                    self.lay(x, in_channels, channel, |at, from| {
                        row[begin + at..][..from.len()].copy_from_slice(from);
                    });
                    pairs::join_row(&row[parity..][..2 * of_row], joined);
                }
                pairs::turn(&joined[..count * of_row], of_row, to);
            });
        }
        let places: Vec<usize> = taps.iter().map(|tap| tap % 2 * strips * of_strip + tap / 2 * STRIP).collect();
        sums(&rows, out_channels, &pairs, of_row, in_channels, &places)
    }

    /// Gives each row of a channel of each image, and its place.
    fn lay(&self, from: &[f32], channels: usize, channel: usize, mut row: impl FnMut(usize, &[f32])) {
        let of_channel = self.height * self.width;
        for (image, from) in from.chunks_exact(channels * of_channel).enumerate() {
            let from = &from[channel * of_channel..][..of_channel];
            for (line, from) in from.chunks_exact(self.width).enumerate() {
                row(image * self.len + line * self.stride, from);
            }
        }
    }
}

/// Products of rows of values with columns of pairs, one for each place where the pairs begin.
///
/// # Shapes
/// rows: [num_rows, inner], pairs: [.., strips of columns, of_row, STRIP] -> [places, num_rows, columns]
fn sums(rows: &Lines, num_rows: usize, pairs: &Lines, of_row: usize, columns: usize, places: &[usize]) -> Vec<f32> {
    let inner = rows.values::<u16>().len() / num_rows;
    let left = |place: &usize| {
        let step = |k: usize| Step { weights: k * MAX_INNER, pairs: place + k * MAX_INNER / 2 * STRIP };
        Left::of_steps(rows.values(), inner, (0..inner / MAX_INNER).map(step).collect())
    };
    let vector = |first: usize| Vector { from: first * of_row, to: first, count: STRIP.min(columns - first) };
    let job = Job {
        unit: unit::chosen(),
        lefts: places.iter().map(left).collect(),
        bias: &vec![0.0; num_rows],
        pair_stride: STRIP,
        store: Store::Rows(columns),
        vectors: (0..columns).step_by(STRIP).map(vector).collect(),
        output: num_rows * columns,
    };
    job.run(pairs, 1)
}

/// Rounded, with rows and columns exchanged, and zeros behind each row.
///
/// # Shapes
/// x: [tokens, channels] -> [channels, inner]
fn turned(x: &[f32], channels: usize, inner: usize) -> Lines {
    let mut lines = Lines::new::<u16>(channels * inner);
    lines.values_mut::<u16>().par_chunks_mut(SIDE * inner).enumerate().for_each(|(strip, to)| {
        let first = strip * SIDE;
        let count = to.len() / inner;
        for (block, tokens) in x.chunks(SIDE * channels).enumerate() {
            let mut square = [0f32; SIDE * SIDE];
            for (square, token) in square.as_chunks_mut::<SIDE>().0.iter_mut().zip(tokens.chunks_exact(channels)) {
                square[..count].copy_from_slice(&token[first..][..count]);
            }
            let square = transposed(&square);
            for (channel, values) in square.as_chunks::<SIDE>().0.iter().take(count).enumerate() {
                pairs::round_row(values, &mut to[channel * inner + block * SIDE..][..SIDE]);
            }
        }
    });
    lines
}

/// Rows and columns exchanged.
///
/// # Shapes
/// [rows, columns] -> [columns, rows]
fn exchanged(from: &[u16], columns: usize) -> Vec<u16> {
    let rows = from.len() / columns;
    let mut to = vec![0; from.len()];
    for (row, from) in from.chunks_exact(columns).enumerate() {
        for (column, &value) in from.iter().enumerate() {
            to[column * rows + row] = value;
        }
    }
    to
}
