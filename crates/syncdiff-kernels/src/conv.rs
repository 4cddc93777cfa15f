//! Direct 3x3 convolution, stride 1 or 2, NCHW f32: forward, input gradient, weight gradient.
//!
//! No im2col: the input is copied once into a zero-bordered buffer in which every tap of eight (or sixteen)
//! neighbouring output pixels is one plain vector load. A register tile holds `O` output channels x 3 vectors of
//! accumulators. With stride 2 the columns are split by parity during that copy, so that loads stay contiguous.
//! The input gradient is the same kernel on the dilated output gradient with transposed, flipped weights; the weight
//! gradient is nine matrix products over pixels per image.

use crate::gemm_call::{View, matmul_into};
use crate::simd::{self, Lanes, Level, Portable4};
use rayon::prelude::*;

/// Vectors per register tile.
const TILE: usize = 3;

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
        let lanes = lanes();
        let even = self.kind.stride == 1 || (self.height.is_multiple_of(2) && self.width.is_multiple_of(2));
        even && self.width.is_multiple_of(lanes) && self.out_width().is_multiple_of(lanes)
    }
}

fn lanes() -> usize {
    match simd::level() {
        #[cfg(target_arch = "x86_64")]
        // 16 lanes would exclude 8-pixel rows, where the lowest level of a U-Net works; those rows run with 8 lanes.
        Level::Avx512 | Level::Avx2 => 8,
        Level::Portable => 4,
    }
}

/// The zero-bordered copy of one image: `[channel][row][phase][col]`, phase = column parity when the stride is 2.
#[derive(Clone, Copy, Debug)]
struct Padded {
    rows: usize,
    phases: usize,
    cols: usize,
}

impl Padded {
    fn new(out_height: usize, out_width: usize, stride: usize) -> Self {
        Self {
            rows: stride * (out_height - 1) + 3,
            phases: stride,
            cols: (stride * (out_width - 1) + 3).div_ceil(stride),
        }
    }
    fn row_stride(&self) -> usize {
        self.phases * self.cols
    }
    fn plane(&self) -> usize {
        self.rows * self.row_stride()
    }
    /// Offset of tap (kh, kw) relative to an output pixel's own offset.
    fn tap(&self, kh: usize, kw: usize) -> usize {
        kh * self.row_stride() + (kw % self.phases) * self.cols + kw / self.phases
    }

    /// Fills `to` with `from` ([channels, height, width]); source pixel (y, x) lands at padded
    /// (begin + dilation * y, begin + dilation * x). Pixels that fall outside are dropped (they meet no tap).
    fn fill(&self, from: &[f32], to: &mut [f32], height: usize, width: usize, dilation: usize, begin: usize) {
        for (source, padded) in from.chunks(height * width).zip(to.chunks_mut(self.plane())) {
            padded.fill(0.0);
            for (y, row) in source.chunks(width).enumerate() {
                let at = begin + dilation * y;
                if at >= self.rows {
                    break;
                }
                let out = &mut padded[at * self.row_stride()..(at + 1) * self.row_stride()];
                if self.phases == 1 && dilation == 1 {
                    let n = width.min(self.cols - begin);
                    out[begin..begin + n].copy_from_slice(&row[..n]);
                } else {
                    for (x, &value) in row.iter().enumerate() {
                        let col = begin + dilation * x;
                        let slot = (col % self.phases) * self.cols + col / self.phases;
                        if col / self.phases < self.cols {
                            out[slot] = value;
                        }
                    }
                }
            }
        }
    }
}

/// Weights packed for the register tile: `[out block][in channel][tap][O]`, zero-filled to whole blocks.
struct Packed {
    data: Vec<f32>,
    block: usize,
    in_channels: usize,
    out_channels: usize,
}

impl Packed {
    fn new(in_channels: usize, out_channels: usize, at: impl Fn(usize, usize, usize) -> f32) -> Self {
        let block = out_block();
        let blocks = out_channels.div_ceil(block);
        let mut data = vec![0f32; blocks * in_channels * 9 * block];
        for o in 0..out_channels {
            for i in 0..in_channels {
                for k in 0..9 {
                    data[(((o / block) * in_channels + i) * 9 + k) * block + o % block] = at(o, i, k);
                }
            }
        }
        Self { data, block, in_channels, out_channels }
    }

    /// For the forward pass; `weight` is [out, in, 3, 3].
    fn forward(weight: &[f32], in_channels: usize, out_channels: usize) -> Self {
        Self::new(in_channels, out_channels, |o, i, k| weight[(o * in_channels + i) * 9 + k])
    }

    /// For the input gradient: channels exchanged, taps flipped.
    fn transposed(weight: &[f32], in_channels: usize, out_channels: usize) -> Self {
        Self::new(out_channels, in_channels, |i, o, k| weight[(o * in_channels + i) * 9 + 8 - k])
    }
}

fn out_block() -> usize {
    match simd::level() {
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 => 8,
        _ => 4,
    }
}

/// One image's convolution task.
struct Image<'a> {
    padded: &'a [f32],
    layout: Padded,
    stride: usize,
    out_height: usize,
    out_width: usize,
    weights: &'a Packed,
    bias: Option<&'a [f32]>,
}

/// Writes a pointer's worth of output; shared between tasks that own disjoint pixel ranges.
#[derive(Clone, Copy)]
struct OutPtr(*mut f32);
// SAFETY: every task writes a disjoint set of pixels of the buffer behind the pointer (see `run`).
unsafe impl Send for OutPtr {}
// SAFETY: as above.
unsafe impl Sync for OutPtr {}

/// `V` vectors x `O` output channels.
///
/// # Safety
/// `offsets` are valid for the padded layout, `out + o * pixels + out_offsets[v]` is writable for every real output
/// channel of the block, and the instruction set of `L` is available.
#[inline(always)]
unsafe fn tile<L: Lanes, const O: usize, const V: usize>(
    image: &Image<'_>,
    block: usize,
    offsets: &[usize],
    out: *mut f32,
    out_offsets: &[usize],
) {
    let pixels = image.out_height * image.out_width;
    let first = block * O;
    let mut acc = [[L::splat(0.0); V]; O];
    if let Some(bias) = image.bias {
        for o in 0..O {
            let b = if first + o < bias.len() { bias[first + o] } else { 0.0 };
            acc[o] = [L::splat(b); V];
        }
    }
    let in_channels = image.weights.in_channels;
    let plane = image.layout.plane();
    let row_stride = image.layout.row_stride();
    let taps: [usize; 3] = std::array::from_fn(|kw| image.layout.tap(0, kw));
    // SAFETY: block < number of blocks, so the packed weights of `in_channels * 9 * O` values are in bounds.
    let mut w = unsafe { image.weights.data.as_ptr().add(block * in_channels * 9 * O) };
    for i in 0..in_channels {
        // SAFETY: channel i's plane is in bounds of the padded buffer; offsets stay inside one plane by construction.
        unsafe {
            let base = image.padded.as_ptr().add(i * plane);
            for kh in 0..3 {
                for kw in 0..3 {
                    let tap = base.add(kh * row_stride + taps[kw]);
                    let x: [L; V] = std::array::from_fn(|v| L::load(tap.add(offsets[v])));
                    for o in 0..O {
                        let c = L::splat(*w.add(o));
                        for v in 0..V {
                            acc[o][v] = c.mul_add(x[v], acc[o][v]);
                        }
                    }
                    w = w.add(O);
                }
            }
        }
    }
    for o in 0..O {
        if first + o < image.weights.out_channels {
            for v in 0..V {
                // SAFETY: promised by the caller.
                unsafe { acc[o][v].store(out.add((first + o) * pixels + out_offsets[v])) };
            }
        }
    }
}

/// All output channels of the pixel vectors `from..to`.
///
/// # Safety
/// As [`tile`]; no other thread writes these pixels.
#[inline(always)]
unsafe fn span<L: Lanes, const O: usize>(image: &Image<'_>, from: usize, to: usize, out: *mut f32) {
    let per_row = image.out_width / L::N;
    let blocks = image.weights.out_channels.div_ceil(O);
    let place = |vector: usize| {
        let (row, col) = (vector / per_row, vector % per_row * L::N);
        // With stride 2 the parity split makes column c of the output column c of its phase.
        (image.stride * row * image.layout.row_stride() + col, row * image.out_width + col)
    };
    let mut offsets = [0usize; TILE];
    let mut out_offsets = [0usize; TILE];
    for block in 0..blocks {
        let mut vector = from;
        while vector < to {
            let n = TILE.min(to - vector);
            for v in 0..n {
                (offsets[v], out_offsets[v]) = place(vector + v);
            }
            // SAFETY: vectors below `out_height * per_row` address pixels inside the image; forwarded from the caller.
            unsafe {
                match n {
                    3 => tile::<L, O, 3>(image, block, &offsets, out, &out_offsets),
                    2 => tile::<L, O, 2>(image, block, &offsets, out, &out_offsets),
                    _ => tile::<L, O, 1>(image, block, &offsets, out, &out_offsets),
                }
            }
            vector += n;
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn span_avx2(image: &Image<'_>, from: usize, to: usize, out: *mut f32) {
    // SAFETY: forwarded; the instruction set is enabled here.
    unsafe { span::<simd::x86::F32x8, 4>(image, from, to, out) }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
unsafe fn span_avx512(image: &Image<'_>, from: usize, to: usize, out: *mut f32) {
    // SAFETY: forwarded; the instruction set is enabled here.
    unsafe { span::<simd::x86::F32x16, 8>(image, from, to, out) }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx2,fma")]
unsafe fn span_avx512_narrow(image: &Image<'_>, from: usize, to: usize, out: *mut f32) {
    // SAFETY: forwarded; the instruction set is enabled here. The packing has blocks of 8 output channels.
    unsafe { span::<simd::x86::F32x8, 8>(image, from, to, out) }
}

impl Image<'_> {
    fn vectors(&self) -> usize {
        self.out_height * self.out_width / self.lanes()
    }

    fn lanes(&self) -> usize {
        match simd::level() {
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 if self.out_width.is_multiple_of(16) => 16,
            _ => lanes(),
        }
    }

    /// Convolves the pixel vectors `from..to` into `out` ([out_channels, out_height, out_width]).
    fn run(&self, from: usize, to: usize, out: OutPtr) {
        debug_assert!(to <= self.vectors());
        assert_eq!(self.weights.block, out_block());
        match simd::level() {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: AVX-512F was detected; spans are disjoint and in range.
            Level::Avx512 if self.lanes() == 16 => unsafe { span_avx512(self, from, to, out.0) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: AVX-512F implies AVX2 and FMA on every processor; spans are disjoint and in range.
            Level::Avx512 => unsafe { span_avx512_narrow(self, from, to, out.0) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: AVX2 and FMA were detected; spans are disjoint and in range.
            Level::Avx2 => unsafe { span_avx2(self, from, to, out.0) },
            // SAFETY: portable lanes need no instruction set; spans are disjoint and in range.
            Level::Portable => unsafe { span::<Portable4, 4>(self, from, to, out.0) },
        }
    }
}

/// How a source image is laid into the padded buffer before the kernel runs over it.
#[derive(Clone, Copy)]
struct Source {
    channels: usize,
    height: usize,
    width: usize,
    dilation: usize,
    begin: usize,
}

/// The common driver of forward and input gradient: pad, then run the kernel, in parallel over images (or over
/// pixel ranges when there are fewer images than threads).
fn convolve(
    x: &[f32],
    source: Source,
    weights: &Packed,
    bias: Option<&[f32]>,
    batch: usize,
    out_height: usize,
    out_width: usize,
    stride: usize,
) -> Vec<f32> {
    let layout = Padded::new(out_height, out_width, stride);
    let out_len = weights.out_channels * out_height * out_width;
    let in_len = source.channels * source.height * source.width;
    let mut out = vec![0f32; batch * out_len];
    let threads = rayon::current_num_threads();
    let fill = |x: &[f32], padded: &mut Vec<f32>| {
        padded.resize(source.channels * layout.plane(), 0.0);
        layout.fill(x, padded, source.height, source.width, source.dilation, source.begin);
    };
    if batch >= threads {
        x.par_chunks(in_len).zip(out.par_chunks_mut(out_len)).for_each_init(Vec::new, |padded, (x, out)| {
            fill(x, padded);
            let image = Image { padded, layout, stride, out_height, out_width, weights, bias };
            image.run(0, image.vectors(), OutPtr(out.as_mut_ptr()));
        });
        return out;
    }
    let mut padded = Vec::new();
    for (x, out) in x.chunks(in_len).zip(out.chunks_mut(out_len)) {
        fill(x, &mut padded);
        let image = Image { padded: &padded, layout, stride, out_height, out_width, weights, bias };
        let vectors = image.vectors();
        // Whole tiles per task; four tasks per thread even out the load.
        let per_task = vectors.div_ceil(threads * 4).next_multiple_of(TILE);
        let out = OutPtr(out.as_mut_ptr());
        (0..vectors.div_ceil(per_task)).into_par_iter().for_each(|task| {
            image.run(task * per_task, ((task + 1) * per_task).min(vectors), out);
        });
    }
    out
}

/// `y[n, o, p] = bias[o] + sum w[o, i, k] * x[n, i, stride * p + k - pad]`.
pub(crate) fn forward(x: &[f32], weight: &[f32], bias: Option<&[f32]>, s: ConvShape) -> Vec<f32> {
    let weights = Packed::forward(weight, s.in_channels, s.out_channels);
    let source =
        Source { channels: s.in_channels, height: s.height, width: s.width, dilation: 1, begin: s.kind.pad_begin };
    convolve(x, source, &weights, bias, s.batch, s.out_height(), s.out_width(), s.kind.stride)
}

/// Gradient with respect to the input.
pub(crate) fn backward_input(dy: &[f32], weight: &[f32], s: ConvShape) -> Vec<f32> {
    let weights = Packed::transposed(weight, s.in_channels, s.out_channels);
    let source = Source {
        channels: s.out_channels,
        height: s.out_height(),
        width: s.out_width(),
        dilation: s.kind.stride,
        begin: 2 - s.kind.pad_begin,
    };
    convolve(dy, source, &weights, None, s.batch, s.height, s.width, 1)
}

/// Gradients with respect to weight [out, in, 3, 3] and bias [out].
pub(crate) fn backward_weight(x: &[f32], dy: &[f32], s: ConvShape) -> (Vec<f32>, Vec<f32>) {
    let (out_height, out_width, stride) = (s.out_height(), s.out_width(), s.kind.stride);
    let layout = Padded::new(out_height, out_width, stride);
    let in_len = s.in_channels * s.height * s.width;
    let pixels = out_height * out_width;
    // Row r of dy lies at the offset its tap (0, 0) has in the padded input; the gap columns are zero and add nothing.
    let dy_row = stride * layout.row_stride();
    let reduce = (out_height - 1) * dy_row + out_width;
    let grad_len = 9 * s.out_channels * s.in_channels;
    // A fixed number of partial sums, so that the result does not depend on scheduling.
    let parts = rayon::current_num_threads().min(s.batch).max(1);
    let per_part = s.batch.div_ceil(parts);
    let mut partial = vec![0f32; parts * grad_len];
    partial.par_chunks_mut(grad_len).enumerate().for_each(|(part, grad)| {
        let mut padded = vec![0f32; s.in_channels * layout.plane()];
        let mut dy_padded = vec![0f32; s.out_channels * reduce];
        for n in (part * per_part)..((part + 1) * per_part).min(s.batch) {
            layout.fill(&x[n * in_len..(n + 1) * in_len], &mut padded, s.height, s.width, 1, s.kind.pad_begin);
            let dy = &dy[n * s.out_channels * pixels..(n + 1) * s.out_channels * pixels];
            for (from, to) in dy.chunks(pixels).zip(dy_padded.chunks_mut(reduce)) {
                for (row, from) in from.chunks(out_width).enumerate() {
                    to[row * dy_row..row * dy_row + out_width].copy_from_slice(from);
                }
            }
            for k in 0..9 {
                let a = View { data: &dy_padded, row_stride: reduce, col_stride: 1 };
                let b = View { data: &padded[layout.tap(k / 3, k % 3)..], row_stride: 1, col_stride: layout.plane() };
                let to = &mut grad[k * s.out_channels * s.in_channels..(k + 1) * s.out_channels * s.in_channels];
                matmul_into(to, s.in_channels, a, b, s.out_channels, s.in_channels, reduce, true);
            }
        }
    });
    let mut weight_grad = vec![0f32; grad_len];
    for part in partial.chunks(grad_len) {
        for k in 0..9 {
            for oi in 0..s.out_channels * s.in_channels {
                weight_grad[oi * 9 + k] += part[k * s.out_channels * s.in_channels + oi];
            }
        }
    }
    (weight_grad, channel_sums(dy, s.out_channels, pixels))
}

/// Sum over images and pixels of each channel.
pub(crate) fn channel_sums(dy: &[f32], channels: usize, pixels: usize) -> Vec<f32> {
    let mut sums = vec![0f32; channels];
    for image in dy.chunks(channels * pixels) {
        for (sum, plane) in sums.iter_mut().zip(image.chunks(pixels)) {
            *sum += plane_sum(plane);
        }
    }
    sums
}

simd::dispatch! {
    fn plane_sum(plane: &[f32]) -> f32 {
        let mut parts = [0f32; 16];
        let (chunks, rest) = plane.as_chunks::<16>();
        for chunk in chunks {
            for (p, &v) in parts.iter_mut().zip(chunk) {
                *p += v;
            }
        }
        parts.iter().sum::<f32>() + rest.iter().sum::<f32>()
    }
}

/// 1x1 convolution as a matrix product per image.
///
/// # Shapes
/// x: [batch, in, pixels], weight: [out, in] -> [batch, out, pixels]
pub(crate) fn pointwise_forward(
    x: &[f32],
    weight: &[f32],
    bias: Option<&[f32]>,
    in_channels: usize,
    out_channels: usize,
    pixels: usize,
) -> Vec<f32> {
    let mut y = vec![0f32; x.len() / in_channels * out_channels];
    x.par_chunks(in_channels * pixels).zip(y.par_chunks_mut(out_channels * pixels)).for_each(|(x, y)| {
        let a = View { data: weight, row_stride: in_channels, col_stride: 1 };
        let b = View { data: x, row_stride: pixels, col_stride: 1 };
        if let Some(bias) = bias {
            for (row, &bias) in y.chunks_mut(pixels).zip(bias) {
                row.fill(bias);
            }
        }
        matmul_into(y, pixels, a, b, out_channels, pixels, in_channels, bias.is_some());
    });
    y
}

/// Gradients of [`pointwise_forward`]: (dx, dweight, dbias).
pub(crate) fn pointwise_backward(
    x: &[f32],
    weight: &[f32],
    dy: &[f32],
    in_channels: usize,
    out_channels: usize,
    pixels: usize,
) -> (Vec<f32>, Vec<f32>, Vec<f32>) {
    let batch = x.len() / (in_channels * pixels);
    let mut dx = vec![0f32; x.len()];
    dy.par_chunks(out_channels * pixels).zip(dx.par_chunks_mut(in_channels * pixels)).for_each(|(dy, dx)| {
        let a = View { data: weight, row_stride: 1, col_stride: in_channels };
        let b = View { data: dy, row_stride: pixels, col_stride: 1 };
        matmul_into(dx, pixels, a, b, in_channels, pixels, out_channels, false);
    });
    let grad_len = out_channels * in_channels;
    let parts = rayon::current_num_threads().min(batch).max(1);
    let per_part = batch.div_ceil(parts);
    let mut partial = vec![0f32; parts * grad_len];
    partial.par_chunks_mut(grad_len).enumerate().for_each(|(part, grad)| {
        for n in (part * per_part)..((part + 1) * per_part).min(batch) {
            let a = View { data: &dy[n * out_channels * pixels..], row_stride: pixels, col_stride: 1 };
            let b = View { data: &x[n * in_channels * pixels..], row_stride: 1, col_stride: pixels };
            matmul_into(grad, in_channels, a, b, out_channels, in_channels, pixels, true);
        }
    });
    let mut dweight = vec![0f32; grad_len];
    for part in partial.chunks(grad_len) {
        for (sum, &value) in dweight.iter_mut().zip(part) {
            *sum += value;
        }
    }
    (dx, dweight, channel_sums(dy, out_channels, pixels))
}
