//! Gradients of layers whose weights are bf16, as products of 16-bit values again: the gradients of their results are
//! rounded on the way into a product, and sums are f32, as are the gradients that leave.

use super::layers::{conv1x1, conv3x3, linear};
use super::pairs::round;
use crate::conv::{Conv3x3, ConvShape};
use crate::linear::transposed;
use rayon::prelude::*;

/// Gradient of a 3x3 convolution that keeps the size, with respect to its input: the convolution with channels
/// exchanged and taps in opposite order.
///
/// # Shapes
/// dy: [batch, out, height, width], weights: [3, 3, out, in] -> [batch, in, height, width]
pub(crate) fn conv3x3_input(dy: &[f32], weights: &[u16], s: ConvShape) -> Vec<f32> {
    debug_assert_eq!(s.kind, Conv3x3::SAME);
    let of_tap = s.in_channels * s.out_channels;
    let mut flipped = Vec::with_capacity(weights.len());
    for tap in weights.chunks_exact(of_tap).rev() {
        flipped.extend(exchanged(tap, s.in_channels));
    }
    let exchanged = ConvShape { in_channels: s.out_channels, out_channels: s.in_channels, ..s };
    conv3x3(dy, &flipped, &vec![0.0; s.in_channels], exchanged)
}

/// Gradients of a 1x1 convolution with respect to its input and its weights.
///
/// # Shapes
/// x: [batch, in, pixels], weights: [out, in], dy: [batch, out, pixels] -> x, [out, in]
pub(crate) fn conv1x1_input_and_weights(
    x: &[f32],
    weights: &[u16],
    dy: &[f32],
    channels: usize,
    pixels: usize,
) -> (Vec<f32>, Vec<f32>) {
    let out = weights.len() / channels;
    let dx = conv1x1(dy, &exchanged(weights, channels), &vec![0.0; channels], out, pixels);
    let mut sum = vec![0.0; weights.len()];
    for (x, dy) in x.chunks_exact(channels * pixels).zip(dy.chunks_exact(out * pixels)) {
        add(&mut sum, &linear(dy, &rounded(x), &vec![0.0; channels]));
    }
    (dx, sum)
}

/// Gradients of a linear layer with respect to its input and its weights.
///
/// # Shapes
/// x: [tokens, in], weights: [in, out], dy: [tokens, out] -> [tokens, in], [in, out]
pub(crate) fn linear_input_and_weights(x: &[f32], weights: &[u16], dy: &[f32], out: usize) -> (Vec<f32>, Vec<f32>) {
    let channels = weights.len() / out;
    let dx = linear(dy, weights, &vec![0.0; channels]);
    let dw = linear(&transposed(x, channels), &rounded(&transposed(dy, out)), &vec![0.0; out]);
    (dx, dw)
}

fn rounded(values: &[f32]) -> Vec<u16> {
    values.par_iter().with_min_len(1 << 14).map(|value| round(*value) as u16).collect()
}

fn add(sum: &mut [f32], values: &[f32]) {
    sum.iter_mut().zip(values).for_each(|(sum, value)| *sum += value);
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
