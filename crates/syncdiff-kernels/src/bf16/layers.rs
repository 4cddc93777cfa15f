//! The layers as products: what their steps and columns are.

use super::lines::Lines;
use super::pairs::{self, STRIP};
use super::product::{MAX_INNER, Product, SIDE, Step, Store, Vector};
use super::unit::{self, Unit};
use super::window::Window;
use crate::conv::ConvShape;
use crate::conv::tile::OutPtr;
use crate::conv::upsampled::{self, MEET, PARITIES, UpsampledShape};
use rayon::prelude::*;

/// Rows of the left side for the steps of one product.
pub(super) struct Left<'a> {
    /// [taps, rows, inner]
    weights: &'a [u16],
    /// The same with rows that are filled with zeros to whole steps, where they are not whole already.
    filled: Option<Lines>,
    row_stride: usize,
    /// Values of a step.
    inner: usize,
    steps: Vec<Step>,
}

impl<'a> Left<'a> {
    /// # Shapes
    /// weights: [taps, rows, channels]; taps: places of their pairs, those of the next step being `of_step` further
    fn new(weights: &'a [u16], channels: usize, taps: &[usize], of_step: usize) -> Self {
        let inner = inner(channels);
        let row_stride = channels.next_multiple_of(inner);
        let of_tap = weights.len() / taps.len() / channels * row_stride;
        let filled = (row_stride != channels).then(|| filled(weights, channels, row_stride));
        let steps = taps.iter().enumerate().flat_map(|(tap, &from)| {
            (0..row_stride / inner).map(move |k| Step { weights: tap * of_tap + k * inner, pairs: from + k * of_step })
        });
        Self { weights, filled, row_stride, inner, steps: steps.collect() }
    }

    /// Rows in whole steps, whose places are told.
    pub(super) fn of_steps(weights: &'a [u16], row_stride: usize, steps: Vec<Step>) -> Self {
        Self { weights, filled: None, row_stride, inner: MAX_INNER, steps }
    }

    fn weights(&self) -> &[u16] {
        self.filled.as_ref().map_or(self.weights, Lines::values)
    }
}

/// Values of a step: as many as a tile takes, or all of them.
fn inner(channels: usize) -> usize {
    MAX_INNER.min(channels.next_multiple_of(2))
}

/// Pairs of `channels`, with those of zeros that fill the last step.
fn pairs_of(channels: usize) -> usize {
    channels.next_multiple_of(inner(channels)) / 2
}

/// Rows of `from` values, each filled with zeros to `to`.
fn filled(rows: &[u16], from: usize, to: usize) -> Lines {
    let mut filled = Lines::new::<u16>(rows.len() / from * to);
    for (row, filled) in rows.chunks_exact(from).zip(filled.values_mut::<u16>().chunks_exact_mut(to)) {
        filled[..from].copy_from_slice(row);
    }
    filled
}

/// Products over the same pairs, whose outputs lie behind each other.
pub(super) struct Job<'a> {
    pub(super) unit: Unit,
    pub(super) lefts: Vec<Left<'a>>,
    /// A value for each row.
    pub(super) bias: &'a [f32],
    /// Between rows of pairs.
    pub(super) pair_stride: usize,
    pub(super) store: Store,
    pub(super) vectors: Vec<Vector>,
    /// Values of one output.
    pub(super) output: usize,
}

impl Job<'_> {
    /// # Shapes
    /// pairs: [images, ..] -> [images, lefts, output]
    pub(super) fn run(&self, pairs: &Lines, images: usize) -> Vec<f32> {
        if images == 0 || self.vectors.is_empty() {
            return Vec::new();
        }
        let pairs = pairs.values::<u32>();
        let of_image = pairs.len() / images;
        let rows = self.bias.len();
        let outputs = images * self.lefts.len();
        let wanted = (4 * rayon::current_num_threads()).div_ceil(outputs);
        // Tasks share out the rows or the columns: whichever is more, as each task reads all of the other side. Rows
        // only in whole pairs of tiles.
        let pairs_of_tiles = if rows.is_multiple_of(2 * SIDE) { rows / (2 * SIDE) } else { 1 };
        let by_rows = rows > STRIP * self.vectors.len() && pairs_of_tiles > 1;
        let first = |of: usize| of.min(wanted);
        let (parts, chunks) = if by_rows {
            let parts = first(pairs_of_tiles);
            (parts, wanted.div_ceil(parts))
        } else {
            let chunks = first(self.vectors.len().div_ceil(2));
            (wanted.div_ceil(chunks).min(pairs_of_tiles), chunks)
        };
        let per_part = if parts > 1 { pairs_of_tiles.div_ceil(parts) * 2 * SIDE } else { rows };
        let per_task = self.vectors.len().div_ceil(chunks).next_multiple_of(2);
        let (parts, chunks) = (rows.div_ceil(per_part), self.vectors.len().div_ceil(per_task));
        let mut out = Vec::<f32>::with_capacity(outputs * self.output);
        let to = OutPtr(out.as_mut_ptr());
        (0..outputs * chunks * parts).into_par_iter().for_each(|index| {
            let (output, chunk, part) = (index / (chunks * parts), index / parts % chunks, index % parts);
            let (image, left) = (output / self.lefts.len(), &self.lefts[output % self.lefts.len()]);
            let product = Product {
                unit: self.unit,
                weights: left.weights(),
                row_stride: left.row_stride,
                inner: left.inner,
                steps: &left.steps,
                pair_stride: self.pair_stride,
                bias: self.bias,
                store: self.store,
            };
            let vectors = &self.vectors[chunk * per_task..((chunk + 1) * per_task).min(self.vectors.len())];
            let rows = part * per_part..((part + 1) * per_part).min(rows);
            // SAFETY: `out` has room for all outputs; these columns of these rows of this output are this task's alone.
            unsafe { product.run(&pairs[image * of_image..][..of_image], vectors, rows, to.add(output * self.output)) };
        });
        // SAFETY: the tasks cover all rows and columns of all outputs.
        unsafe { out.set_len(outputs * self.output) };
        out
    }
}

impl Window {
    /// Several kernels over the same images: weights [taps, out, in] and places of the taps of each.
    ///
    /// # Shapes
    /// x: [images, channels, height, width] -> [images, kernels, out, out height, out width]
    fn run(&self, x: &[f32], kernels: &[(&[u16], Vec<usize>)], bias: &[f32]) -> Vec<f32> {
        let Self { channels, height, width, out_height, out_width, .. } = *self;
        let job = Job {
            unit: unit::chosen(),
            lefts: kernels.iter().map(|(weights, taps)| Left::new(weights, channels, taps, self.of_step())).collect(),
            bias,
            pair_stride: self.pair_stride(),
            store: Store::Rows(out_height * out_width),
            vectors: self.vectors(),
            output: bias.len() * out_height * out_width,
        };
        job.run(&self.fill(x), x.len() / (channels * height * width))
    }
}

/// # Shapes
/// x: [batch, in, height, width], weights: [3, 3, out, in], bias: [out] -> [batch, out, out height, out width]
pub(crate) fn conv3x3(x: &[f32], weights: &[u16], bias: &[f32], s: ConvShape) -> Vec<f32> {
    let window = Window {
        channels: s.in_channels,
        pairs: inner(s.in_channels) / 2,
        height: s.height,
        width: s.width,
        begin: s.kind.pad_begin,
        stride: s.kind.stride,
        out_height: s.out_height(),
        out_width: s.out_width(),
    };
    window.run(x, &[(weights, window.taps())], bias)
}

/// After nearest up-sampling by 2, as in [`crate::conv::upsampled`]; sums of weights that meet are rounded once more.
///
/// # Shapes
/// x: [batch, in, height, width], weights: [3, 3, out, in], bias: [out] -> [batch, out, 2 height, 2 width]
pub(crate) fn conv3x3_upsampled(x: &[f32], weights: &[u16], bias: &[f32], s: UpsampledShape) -> Vec<f32> {
    let UpsampledShape { in_channels: channels, height, width, .. } = s;
    let pairs = inner(channels) / 2;
    let window = Window { channels, pairs, height, width, begin: 1, stride: 1, out_height: height, out_width: width };
    let of_tap = weights.len() / 9;
    let sums = PARITIES.map(|(row, col)| {
        let mut sums = Lines::new::<u16>(4 * of_tap);
        sums.values_mut().par_chunks_exact_mut(of_tap).enumerate().for_each(|(tap, to)| {
            let (rows, columns) = (MEET[2 * row + tap / 2], MEET[2 * col + tap % 2]);
            let met = rows.iter().flat_map(|row| columns.iter().map(move |col| 3 * row + col));
            let met: Vec<&[u16]> = met.map(|tap| &weights[tap * of_tap..][..of_tap]).collect();
            pairs::sum(&met, to);
        });
        sums
    });
    let taps = PARITIES.map(|(row, col)| PARITIES.map(|(kh, kw)| window.tap(row + kh, col + kw)).to_vec());
    let kernels: Vec<_> = sums.iter().zip(taps).map(|(sums, taps)| (sums.values(), taps)).collect();
    upsampled::interleaved(&window.run(x, &kernels, bias), s)
}

/// A product whose columns lie in strips.
fn of_strips(
    weights: &[u16],
    bias: &[f32],
    channels: usize,
    columns: usize,
    store: Store,
    pairs: &Lines,
    images: usize,
) -> Vec<f32> {
    let between = match store {
        Store::Rows(_) => 1,
        Store::Columns(stride) => stride,
    };
    let vectors = (0..columns).step_by(STRIP).map(|first| Vector {
        from: first * pairs_of(channels),
        to: first * between,
        count: STRIP.min(columns - first),
    });
    let job = Job {
        unit: unit::chosen(),
        lefts: vec![Left::new(weights, channels, &[0], inner(channels) / 2 * STRIP)],
        bias,
        pair_stride: STRIP,
        store,
        vectors: vectors.collect(),
        output: bias.len() * columns,
    };
    job.run(pairs, images)
}

/// # Shapes
/// x: [batch, in, pixels], weights: [out, in], bias: [out] -> [batch, out, pixels]
pub(crate) fn conv1x1(x: &[f32], weights: &[u16], bias: &[f32], channels: usize, pixels: usize) -> Vec<f32> {
    let images = x.len() / (channels * pixels);
    let of_image = pairs_of(channels) * pixels.next_multiple_of(STRIP);
    let mut pairs = Lines::new::<u32>(images * of_image);
    for (to, x) in pairs.values_mut().chunks_exact_mut(of_image).zip(x.chunks_exact(channels * pixels)) {
        pairs::of_planes(x, pixels, pairs_of(channels), to);
    }
    of_strips(weights, bias, channels, pixels, Store::Rows(pixels), &pairs, images)
}

/// # Shapes
/// x: [tokens, in], weights: [out, in], bias: [out] -> [tokens, out]
pub(crate) fn linear(x: &[f32], weights: &[u16], bias: &[f32]) -> Vec<f32> {
    let channels = weights.len() / bias.len();
    let tokens = x.len() / channels;
    let mut pairs = Lines::new::<u32>(pairs_of(channels) * tokens.next_multiple_of(STRIP));
    pairs::of_tokens(x, channels, pairs_of(channels), pairs.values_mut());
    of_strips(weights, bias, channels, tokens, Store::Columns(bias.len()), &pairs, 1)
}
