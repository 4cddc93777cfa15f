//! The layers as products: what their steps and columns are.

use super::pairs;
use super::product::{MAX_INNER, Product, SIDE, Step, Store, Vector};
use super::unit::{self, Unit};
use crate::conv::ConvShape;
use crate::conv::padded::{Padded, Source};
use crate::conv::tile::OutPtr;
use crate::conv::upsampled::{self, UpsampledShape};
use rayon::prelude::*;
use std::borrow::Cow;

/// Rows of the left side for the steps of one product.
struct Left<'a> {
    /// [taps, rows, inner]
    weights: Cow<'a, [u16]>,
    row_stride: usize,
    /// Values of a step.
    inner: usize,
    steps: Vec<Step>,
}

impl<'a> Left<'a> {
    /// # Shapes
    /// weights: [taps, rows, channels]; taps: places of their pairs, whose planes are `plane` apart
    fn new(weights: &'a [u16], channels: usize, taps: &[usize], plane: usize) -> Self {
        let inner = inner(channels);
        let row_stride = channels.next_multiple_of(inner);
        let of_tap = weights.len() / taps.len() / channels * row_stride;
        let weights = if row_stride == channels { Cow::Borrowed(weights) } else { widened(weights, channels, row_stride) };
        let steps = taps.iter().enumerate().flat_map(|(tap, &from)| {
            (0..row_stride / inner)
                .map(move |k| Step { weights: tap * of_tap + k * inner, pairs: from + k * inner / 2 * plane })
        });
        Self { weights, row_stride, inner, steps: steps.collect() }
    }
}

/// Values of a step: as many as a tile takes, or all of them.
fn inner(channels: usize) -> usize {
    MAX_INNER.min(channels.next_multiple_of(2))
}

/// Planes of pairs that `channels` take, with those of zeros that fill the last step.
fn planes(channels: usize) -> usize {
    channels.next_multiple_of(inner(channels)) / 2
}

/// Rows of `from` values, each filled with zeros to `to`.
fn widened(rows: &[u16], from: usize, to: usize) -> Cow<'static, [u16]> {
    let mut wide = vec![0u16; rows.len() / from * to];
    for (row, wide) in rows.chunks_exact(from).zip(wide.chunks_exact_mut(to)) {
        wide[..from].copy_from_slice(row);
    }
    Cow::Owned(wide)
}

/// Products over the same pairs, whose outputs lie behind each other.
struct Job<'a> {
    unit: Unit,
    lefts: Vec<Left<'a>>,
    bias: &'a [f32],
    /// Between rows of pairs.
    plane: usize,
    lanes: usize,
    store: Store,
    vectors: Vec<Vector>,
    /// Values of one output.
    output: usize,
}

impl Job<'_> {
    /// # Shapes
    /// pairs: [images, rows of pairs, plane] -> [images, lefts, output]
    fn run(&self, pairs: &[u32], images: usize) -> Vec<f32> {
        let of_image = pairs.len() / images;
        let rows = self.bias.len();
        let outputs = images * self.lefts.len();
        let wanted = (4 * rayon::current_num_threads()).div_ceil(outputs);
        let per_task = self.vectors.len().div_ceil(wanted).next_multiple_of(2);
        let chunks = self.vectors.len().div_ceil(per_task);
        // Rows are shared out too where there are not columns enough for all threads.
        let parts = if rows.is_multiple_of(2 * SIDE) { wanted.div_ceil(chunks).min(rows / (2 * SIDE)) } else { 1 };
        let per_part = if parts > 1 { (rows / (2 * SIDE)).div_ceil(parts) * 2 * SIDE } else { rows };
        let parts = rows.div_ceil(per_part);
        let mut out = Vec::<f32>::with_capacity(outputs * self.output);
        let to = OutPtr(out.as_mut_ptr());
        (0..outputs * chunks * parts).into_par_iter().for_each(|index| {
            let (output, chunk, part) = (index / (chunks * parts), index / parts % chunks, index % parts);
            let (image, left) = (output / self.lefts.len(), &self.lefts[output % self.lefts.len()]);
            let product = Product {
                unit: self.unit,
                weights: &left.weights,
                row_stride: left.row_stride,
                inner: left.inner,
                steps: &left.steps,
                pair_stride: self.plane,
                bias: self.bias,
                lanes: self.lanes,
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

/// Columns of a vector in rows of so many pixels.
///
/// # Panics
/// If they are no multiple of 8.
fn lanes(width: usize) -> usize {
    assert!(width.is_multiple_of(SIDE / 2), "a product for whole vectors, not for a width of {width}");
    if width.is_multiple_of(SIDE) { SIDE } else { SIDE / 2 }
}

/// Images, their pixels as pairs in a zero-bordered plane, and several kernels over them.
struct Window<'a> {
    source: Source,
    layout: Padded,
    stride: usize,
    out_size: [usize; 2],
    bias: &'a [f32],
    /// Weights [taps, out, in] and offsets of the taps.
    kernels: &'a [(Cow<'a, [u16]>, Vec<usize>)],
}

impl Window<'_> {
    /// # Shapes
    /// x: [images, channels, height, width] -> [images, kernels, out, out height, out width]
    fn run(&self, x: &[f32]) -> Vec<f32> {
        let Source { channels, height, width, .. } = self.source;
        let [out_height, out_width] = self.out_size;
        let (plane, planes) = (self.layout.plane(), planes(channels));
        let images = x.len() / self.source.len();
        let mut pairs = vec![0u32; images * planes * plane];
        let used = channels.div_ceil(2);
        pairs.par_chunks_exact_mut(plane).enumerate().with_min_len(4).for_each_init(Vec::new, |row, (index, to)| {
            let (image, pair) = (index / planes, index % planes);
            if pair >= used {
                return;
            }
            let of_pair = &x[image * self.source.len() + 2 * pair * height * width..];
            let (even, odd) = of_pair.split_at(height * width);
            row.resize(width, 0);
            for y in 0..height {
                let even = &even[y * width..][..width];
                if 2 * pair + 1 < channels {
                    pairs::join(even, &odd[y * width..][..width], row);
                } else {
                    pairs::join_zero(even, row);
                }
                self.layout.lay(row, y, to, self.source);
            }
        });
        let lanes = lanes(out_width);
        let places = (0..out_height).flat_map(|row| (0..out_width).step_by(lanes).map(move |col| (row, col)));
        let vectors = places.map(|(row, col)| Vector {
            // With stride 2 the parity split makes column c of the output column c of its phase.
            from: self.stride * row * self.layout.row_stride() + col,
            to: row * out_width + col,
            count: lanes,
        });
        let job = Job {
            unit: unit::chosen(),
            lefts: self.kernels.iter().map(|(weights, taps)| Left::new(weights, channels, taps, plane)).collect(),
            bias: self.bias,
            plane,
            lanes,
            store: Store::Rows(out_height * out_width),
            vectors: vectors.collect(),
            output: self.bias.len() * out_height * out_width,
        };
        job.run(&pairs, images)
    }
}

/// Whether a window's rows are whole vectors, and its size even when strided.
pub(crate) fn fits(s: &ConvShape) -> bool {
    let even = s.kind.stride == 1 || (s.height.is_multiple_of(2) && s.width.is_multiple_of(2));
    even && s.out_width().is_multiple_of(SIDE / 2)
}

/// # Shapes
/// x: [batch, in, height, width], weights: [3, 3, out, in], bias: [out] -> [batch, out, out height, out width]
pub(crate) fn conv3x3(x: &[f32], weights: &[u16], bias: &[f32], s: ConvShape) -> Vec<f32> {
    let source =
        Source { channels: s.in_channels, height: s.height, width: s.width, dilation: 1, begin: s.kind.pad_begin };
    let layout = Padded::new(s.out_height(), s.out_width(), s.kind.stride, 3);
    let kernels = [(Cow::Borrowed(weights), layout.taps(3))];
    let out_size = [s.out_height(), s.out_width()];
    Window { source, layout, stride: s.kind.stride, out_size, bias, kernels: &kernels }.run(x)
}

/// After nearest up-sampling by 2, as in [`crate::conv::upsampled`].
///
/// # Shapes
/// x: [batch, in, height, width], weights: [3, 3, out, in], bias: [out] -> [batch, out, 2 height, 2 width]
pub(crate) fn conv3x3_upsampled(x: &[f32], weights: &[u16], bias: &[f32], s: UpsampledShape) -> Vec<f32> {
    let source = Source { channels: s.in_channels, height: s.height, width: s.width, dilation: 1, begin: 1 };
    let layout = Padded::new(s.height, s.width, 1, 3);
    let kernels = upsampled::PARITIES.map(|(row, col)| {
        let mut sums = vec![0u16; weights.len() / 9 * 4];
        let meeting = |row: usize, second: usize| upsampled::MEET[2 * row + second];
        sums.par_chunks_exact_mut(weights.len() / 9).enumerate().for_each(|(tap, to)| {
            let (rows, columns) = (meeting(row, tap / 2), meeting(col, tap % 2));
            let met = rows.iter().flat_map(|row| columns.iter().map(move |col| 3 * row + col));
            let met: Vec<&[u16]> = met.map(|tap| &weights[tap * to.len()..][..to.len()]).collect();
            for (index, to) in to.iter_mut().enumerate() {
                let sum: f32 = met.iter().map(|of_tap| pairs::widen(of_tap[index])).sum();
                *to = pairs::round(sum) as u16;
            }
        });
        (Cow::Owned(sums), upsampled::taps(layout, (row, col)))
    });
    let out_size = [s.height, s.width];
    let by_parity = Window { source, layout, stride: 1, out_size, bias, kernels: &kernels }.run(x);
    upsampled::interleaved(&by_parity, s)
}

/// # Shapes
/// x: [batch, in, pixels], weights: [out, in], bias: [out] -> [batch, out, pixels]
pub(crate) fn conv1x1(x: &[f32], weights: &[u16], bias: &[f32], channels: usize, pixels: usize) -> Vec<f32> {
    let (plane, planes) = (pixels.next_multiple_of(SIDE), planes(channels));
    let images = x.len() / (channels * pixels);
    let mut pairs = vec![0u32; images * planes * plane];
    let planes_of_x = pairs.par_chunks_exact_mut(planes * plane).zip(x.par_chunks_exact(channels * pixels));
    planes_of_x.for_each(|(to, x)| {
        to.par_chunks_mut(8 * plane).zip(x.par_chunks(16 * pixels)).for_each(|(to, x)| {
            pairs::of_planes(x, pixels, plane, to);
        });
    });
    let vectors = (0..pixels).step_by(SIDE);
    let job = Job {
        unit: unit::chosen(),
        lefts: vec![Left::new(weights, channels, &[0], plane)],
        bias,
        plane,
        lanes: SIDE,
        store: Store::Rows(pixels),
        vectors: vectors.map(|from| Vector { from, to: from, count: SIDE.min(pixels - from) }).collect(),
        output: bias.len() * pixels,
    };
    job.run(&pairs, images)
}

/// # Shapes
/// x: [tokens, in], weights: [out, in], bias: [out] -> [tokens, out]
pub(crate) fn linear(x: &[f32], weights: &[u16], bias: &[f32]) -> Vec<f32> {
    let (rows, channels) = (bias.len(), weights.len() / bias.len());
    let tokens = x.len() / channels;
    let plane = tokens.next_multiple_of(SIDE);
    let mut pairs = vec![0u32; planes(channels) * plane];
    pairs::of_tokens(x, channels, plane, &mut pairs);
    let vectors = (0..tokens).step_by(SIDE);
    let job = Job {
        unit: unit::chosen(),
        lefts: vec![Left::new(weights, channels, &[0], plane)],
        bias,
        plane,
        lanes: SIDE,
        store: Store::Columns(rows),
        vectors: vectors.map(|from| Vector { from, to: from * rows, count: SIDE.min(tokens - from) }).collect(),
        output: tokens * rows,
    };
    job.run(&pairs, 1)
}
