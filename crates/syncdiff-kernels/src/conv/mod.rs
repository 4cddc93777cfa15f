//! 3x3 convolution, stride 1 or 2, NCHW f32: forward, input gradient, weight gradient; and the same after nearest
//! up-sampling by 2.
//!
//! Where the size is kept and there are pixels and channels enough, in Winograd's form ([`winograd`]); else directly.
//! No im2col: the input is copied once into a zero-bordered buffer in which every tap of eight (or sixteen)
//! neighbouring output pixels is one plain vector load. A register tile holds the accumulators of some output channels
//! x two or three vectors and reads the weights where they lie: nothing is packed. With stride 2 the columns are split
//! by parity during that copy, so that loads stay contiguous. The input gradient is the same kernel on the dilated
//! output gradient with transposed, flipped weights; the weight gradient is one matrix product over pixels per image
//! and tap.

mod padded;
pub(crate) mod tile;
pub(crate) mod upsampled;
pub(crate) mod winograd;

use crate::gemm_call::{View, matmul_into};
use crate::pointwise::channel_sums;
use crate::simd::{self, Level};
use padded::{Padded, Source};
use rayon::prelude::*;
use tile::{Image, OutPtr, tile_size};

/// Geometry of a 3x3 convolution: stride 1 or 2, with `pad_begin` zeros before the first row and column
/// (1 = symmetric; 0 = the right/bottom padding of the VQ encoder's down-sampling).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conv3x3 {
    /// 1 or 2.
    pub stride: usize,
    /// 0 or 1.
    pub pad_begin: usize,
}

impl Conv3x3 {
    /// Stride 1, padding 1 on all sides: the size is kept.
    pub const SAME: Self = Self { stride: 1, pad_begin: 1 };
    /// Stride 2, padding 1 on all sides (latent-diffusion U-Net `Downsample`).
    pub const DOWN: Self = Self { stride: 2, pad_begin: 1 };
    /// Stride 2, one zero row and column at the bottom and right (latent-diffusion autoencoder `Downsample`).
    pub const DOWN_ASYMMETRIC: Self = Self { stride: 2, pad_begin: 0 };

    /// Zeros after the last row and column, for even sizes when the stride is 2.
    pub(crate) fn pad_end(self) -> usize {
        1
    }

    pub(crate) fn out_size(self, size: usize) -> usize {
        (size + self.pad_begin + self.pad_end() - 3) / self.stride + 1
    }
}

/// Dimensions of one convolution call.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ConvShape {
    pub(crate) batch: usize,
    pub(crate) in_channels: usize,
    pub(crate) out_channels: usize,
    pub(crate) height: usize,
    pub(crate) width: usize,
    pub(crate) kind: Conv3x3,
}

impl ConvShape {
    pub(crate) fn out_height(&self) -> usize {
        self.kind.out_size(self.height)
    }
    pub(crate) fn out_width(&self) -> usize {
        self.kind.out_size(self.width)
    }
    /// Whether the direct kernels apply: rows of whole vectors on both sides, even sizes when strided.
    pub(crate) fn is_direct(&self) -> bool {
        let (level, rows) = (simd::level(), [self.width, self.out_width()]);
        let even = self.kind.stride == 1 || (self.height.is_multiple_of(2) && self.width.is_multiple_of(2));
        even && rows.iter().all(|row| row.is_multiple_of(level.run_of(*row)))
    }
}

/// Several kernels over the same source; the outputs of one image lie behind each other.
struct Job<'a> {
    level: Level,
    source: Source,
    stride: usize,
    /// Side of the window.
    kernel: usize,
    out_channels: usize,
    out_height: usize,
    out_width: usize,
    bias: Option<&'a [f32]>,
    /// Weights [out, in, taps] and offsets of the taps of each kernel.
    kernels: Vec<(&'a [f32], Vec<usize>)>,
}

impl Job<'_> {
    fn layout(&self) -> Padded {
        Padded::new(self.out_height, self.out_width, self.stride, self.kernel)
    }

    fn image<'b>(&'b self, kernel: usize, padded: &'b [f32]) -> Image<'b> {
        let (weights, taps) = &self.kernels[kernel];
        Image {
            level: self.level,
            padded,
            layout: self.layout(),
            stride: self.stride,
            out_height: self.out_height,
            out_width: self.out_width,
            in_channels: self.source.channels,
            out_channels: self.out_channels,
            weights,
            taps,
            bias: self.bias,
        }
    }

    /// Pads and convolves, in parallel over images, or over ranges of pixels or channels when there are fewer images
    /// than threads.
    ///
    /// # Shapes
    /// x: [batch, channels, height, width] -> [batch, kernels, out channels, out height, out width]
    fn run(&self, x: &[f32]) -> Vec<f32> {
        let one = self.out_channels * self.out_height * self.out_width;
        let per_image = self.kernels.len() * one;
        let layout = self.layout();
        let images = x.len() / self.source.len();
        let mut out = Vec::<f32>::with_capacity(images * per_image);
        let start = OutPtr(out.as_mut_ptr());
        // SAFETY: the index is that of an output below `images * kernels`.
        let output = |index: usize| unsafe { start.add(index * one) };
        let fill = |x: &[f32], padded: &mut Vec<f32>| {
            padded.resize(self.source.channels * layout.plane(), 0.0);
            layout.fill(x, padded, self.source);
        };
        let threads = rayon::current_num_threads();
        if images >= threads {
            x.par_chunks_exact(self.source.len()).enumerate().for_each_init(Vec::new, |padded, (image, x)| {
                fill(x, padded);
                for kernel in 0..self.kernels.len() {
                    let view = self.image(kernel, padded);
                    // SAFETY: only this thread has the outputs of this image.
                    unsafe {
                        view.run(0..view.vectors(), 0..self.out_channels, output(image * self.kernels.len() + kernel))
                    };
                }
            });
        } else {
            let mut padded = Vec::new();
            for (image, x) in x.chunks_exact(self.source.len()).enumerate() {
                fill(x, &mut padded);
                let vectors = self.image(0, &padded).vectors();
                let (block, tile) = tile_size(self.level);
                let wanted = (4 * threads).div_ceil(self.kernels.len());
                // Whole tiles per task; four tasks per thread even out the load. A small image stays whole, and its
                // channels are shared out, so that each weight is read once.
                let by_channels =
                    vectors < wanted * tile && self.out_channels.div_ceil(block) >= vectors.div_ceil(tile);
                let (per_task, channels) = if by_channels {
                    (vectors, self.out_channels.div_ceil(wanted).next_multiple_of(block))
                } else {
                    (vectors.div_ceil(wanted).next_multiple_of(tile), self.out_channels)
                };
                let (tasks, parts) = (vectors.div_ceil(per_task), self.out_channels.div_ceil(channels));
                (0..tasks * parts * self.kernels.len()).into_par_iter().for_each(|index| {
                    let (kernel, task, part) = (index / (tasks * parts), index / parts % tasks, index % parts);
                    let vectors = task * per_task..((task + 1) * per_task).min(vectors);
                    let channels = part * channels..((part + 1) * channels).min(self.out_channels);
                    let output = output(image * self.kernels.len() + kernel);
                    // SAFETY: the ranges of the tasks of an output are disjoint.
                    unsafe { self.image(kernel, &padded).run(vectors, channels, output) };
                });
            }
        }
        // SAFETY: every vector of every output of every image was written.
        unsafe { out.set_len(images * per_image) };
        out
    }
}

/// `y[n, o, p] = bias[o] + sum w[o, i, k] * x[n, i, stride * p + k - pad]`.
pub(crate) fn forward(x: &[f32], weight: &[f32], bias: Option<&[f32]>, s: ConvShape) -> Vec<f32> {
    let level = simd::level();
    if s.kind == Conv3x3::SAME && winograd::pays(level, s.in_channels, s.out_channels, s.height, s.width) {
        return winograd::convolve(level, x, weight, bias, [s.in_channels, s.out_channels, s.height, s.width]);
    }
    direct(level, x, weight, bias, s)
}

fn direct(level: Level, x: &[f32], weight: &[f32], bias: Option<&[f32]>, s: ConvShape) -> Vec<f32> {
    let source =
        Source { channels: s.in_channels, height: s.height, width: s.width, dilation: 1, begin: s.kind.pad_begin };
    let layout = Padded::new(s.out_height(), s.out_width(), s.kind.stride, 3);
    let job = Job {
        level,
        source,
        stride: s.kind.stride,
        kernel: 3,
        out_channels: s.out_channels,
        out_height: s.out_height(),
        out_width: s.out_width(),
        bias,
        kernels: vec![(weight, layout.taps(3))],
    };
    job.run(x)
}

/// Gradient with respect to the input.
pub(crate) fn backward_input(dy: &[f32], weight: &[f32], s: ConvShape) -> Vec<f32> {
    // Channels exchanged, taps flipped.
    let mut flipped = vec![0f32; weight.len()];
    for (o, of_output) in weight.chunks_exact(9 * s.in_channels).enumerate() {
        for (i, from) in of_output.as_chunks::<9>().0.iter().enumerate() {
            let to = &mut flipped[(i * s.out_channels + o) * 9..][..9];
            to.copy_from_slice(from);
            to.reverse();
        }
    }
    let level = simd::level();
    if s.kind == Conv3x3::SAME && winograd::pays(level, s.out_channels, s.in_channels, s.height, s.width) {
        return winograd::convolve(level, dy, &flipped, None, [s.out_channels, s.in_channels, s.height, s.width]);
    }
    let source = Source {
        channels: s.out_channels,
        height: s.out_height(),
        width: s.out_width(),
        dilation: s.kind.stride,
        begin: 2 - s.kind.pad_begin,
    };
    let job = Job {
        level,
        source,
        stride: 1,
        kernel: 3,
        out_channels: s.in_channels,
        out_height: s.height,
        out_width: s.width,
        bias: None,
        kernels: vec![(&flipped[..], Padded::new(s.height, s.width, 1, 3).taps(3))],
    };
    job.run(dy)
}

/// Gradients with respect to weight [out, in, 3, 3] and bias [out].
pub(crate) fn backward_weight(x: &[f32], dy: &[f32], s: ConvShape) -> (Vec<f32>, Vec<f32>) {
    let source =
        Source { channels: s.in_channels, height: s.height, width: s.width, dilation: 1, begin: s.kind.pad_begin };
    let size = [s.out_height(), s.out_width()];
    let taps = Padded::new(size[0], size[1], s.kind.stride, 3).taps(3);
    let by_tap = correlations(x, source, dy, s.out_channels, size, s.kind.stride, &taps);
    (of_taps(&by_tap), bias_gradient(dy, s))
}

/// Gradient with respect to the bias.
pub(crate) fn bias_gradient(dy: &[f32], s: ConvShape) -> Vec<f32> {
    channel_sums(dy, s.out_channels, s.out_height() * s.out_width())
}

/// # Shapes
/// [3, 3, out, in] -> [out, in, 3, 3]
pub(crate) fn of_taps(by_tap: &[f32]) -> Vec<f32> {
    let mut weights = vec![0f32; by_tap.len()];
    for (k, of_tap) in by_tap.chunks_exact(by_tap.len() / 9).enumerate() {
        for (to, &value) in weights[k..].iter_mut().step_by(9).zip(of_tap) {
            *to = value;
        }
    }
    weights
}

/// What every tap of every pair of channels contributes: `sum over n, p of dy[n, o, p] * x[n, i, stride * p + k -
/// begin]`.
///
/// # Shapes
/// x: of `source` per image, dy: [batch, out, out height, out width], taps: offsets in the padded image of a 3x3 window
/// -> [taps, out, in]
fn correlations(
    x: &[f32],
    source: Source,
    dy: &[f32],
    out_channels: usize,
    [out_height, out_width]: [usize; 2],
    stride: usize,
    taps: &[usize],
) -> Vec<f32> {
    let layout = Padded::new(out_height, out_width, stride, 3);
    let pixels = out_height * out_width;
    // Row r of dy lies at the offset its tap (0, 0) has in the padded input; the gap columns are zero and add nothing.
    let dy_row = stride * layout.row_stride();
    let reduce = (out_height - 1) * dy_row + out_width;
    let pairs = out_channels * source.channels;
    let grad_len = taps.len() * pairs;
    let batch = x.len() / source.len();
    // A fixed number of partial sums, so that the result does not depend on scheduling.
    let parts = rayon::current_num_threads().min(batch).max(1);
    let per_part = batch.div_ceil(parts);
    let mut partial = vec![0f32; parts * grad_len];
    partial.par_chunks_exact_mut(grad_len).enumerate().for_each(|(part, grad)| {
        let mut padded = vec![0f32; source.channels * layout.plane()];
        let mut dy_padded = vec![0f32; out_channels * reduce];
        for n in (part * per_part)..((part + 1) * per_part).min(batch) {
            layout.fill(&x[n * source.len()..(n + 1) * source.len()], &mut padded, source);
            let dy = &dy[n * out_channels * pixels..(n + 1) * out_channels * pixels];
            for (from, to) in dy.chunks_exact(pixels).zip(dy_padded.chunks_exact_mut(reduce)) {
                for (row, from) in from.chunks_exact(out_width).enumerate() {
                    to[row * dy_row..row * dy_row + out_width].copy_from_slice(from);
                }
            }
            for (&tap, to) in taps.iter().zip(grad.chunks_exact_mut(pairs)) {
                let a = View { data: &dy_padded, row_stride: reduce, col_stride: 1 };
                let b = View { data: &padded[tap..], row_stride: 1, col_stride: layout.plane() };
                matmul_into(to, source.channels, a, b, out_channels, source.channels, reduce, true);
            }
        }
    });
    let mut parts = partial.chunks_exact(grad_len);
    let mut sum = parts.next().map(<[f32]>::to_vec).unwrap_or_default();
    for part in parts {
        for (sum, &value) in sum.iter_mut().zip(part) {
            *sum += value;
        }
    }
    sum
}
