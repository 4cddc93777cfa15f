//! 1x1 convolution as matrix products, forward and backward.

use crate::gemm_call::{View, matmul_into};
use crate::matmul::{self, Sizes, Start};
use crate::simd::dispatch;
use rayon::prelude::*;

/// 1x1 convolution as a matrix product per image.
///
/// # Shapes
/// x: [batch, in, pixels], weight: [out, in], bias: [out] -> [batch, out, pixels]
pub(crate) fn forward(
    x: &[f32],
    weight: &[f32],
    bias: &[f32],
    in_channels: usize,
    out_channels: usize,
    pixels: usize,
) -> Vec<f32> {
    let sizes = Sizes { rows: out_channels, columns: pixels, inner: in_channels };
    matmul::multiply(weight, x, Start::Rows(bias), sizes)
}

/// Gradients of [`forward`]: (dx, dweight, dbias).
pub(crate) fn backward(
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

dispatch! {
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
