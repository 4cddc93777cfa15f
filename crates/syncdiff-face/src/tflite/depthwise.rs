//! Depthwise convolution over rows of padded channels.

use super::gemm::{Activation, activate};
use pulp::{Simd, WithSimd};

/// Size, padding and stride of a window that moves over an image.
#[derive(Clone, Copy, Debug)]
pub(super) struct Geometry {
    /// Height and width of the input.
    pub(super) input: [usize; 2],
    /// Height and width of the output.
    pub(super) output: [usize; 2],
    /// Height and width of the window.
    pub(super) kernel: [usize; 2],
    pub(super) stride: [usize; 2],
    /// Rows above and columns left of the input that count as 0.
    pub(super) before: [usize; 2],
}

impl Geometry {
    /// Input row or column (`axis` 0 or 1) under tap `tap` of output place `place`, if inside.
    #[inline(always)]
    pub(super) fn source(&self, axis: usize, place: usize, tap: usize) -> Option<usize> {
        (place * self.stride[axis] + tap).checked_sub(self.before[axis]).filter(|&at| at < self.input[axis])
    }

    /// Output columns whose whole window lies inside the input.
    fn inner_columns(&self) -> std::ops::Range<usize> {
        let (stride, before) = (self.stride[1], self.before[1]);
        let first = before.div_ceil(stride).min(self.output[1]);
        let room = (self.input[1] + before).checked_sub(self.kernel[1]);
        let end = room.map_or(first, |r| (r / stride + 1).clamp(first, self.output[1]));
        first..end
    }
}

/// `out[y][x][c] = activation(bias[c] + sum over the window of input * weights[tap][c])`.
pub(super) struct Depthwise<'a> {
    pub(super) input: &'a [f32],
    pub(super) geometry: Geometry,
    /// `kernel height x kernel width x padded channels`.
    pub(super) weights: &'a [f32],
    /// Padded channels.
    pub(super) bias: &'a [f32],
    pub(super) activation: Activation<'a>,
    pub(super) out: &'a mut [f32],
}

impl WithSimd for Depthwise<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let g = self.geometry;
        let bias = S::as_simd_f32s(self.bias).0;
        let weights = S::as_simd_f32s(self.weights).0;
        let input = S::as_simd_f32s(self.input).0;
        let out = S::as_mut_simd_f32s(self.out).0;
        let columns = bias.len();
        let inner = g.inner_columns();
        for y in 0..g.output[0] {
            let row = &mut out[y * g.output[1] * columns..][..g.output[1] * columns];
            let taps_y: [Option<usize>; 3] = [0, 1, 2].map(|k| g.source(0, y, k));
            let whole = g.kernel == [3, 3] && taps_y.iter().all(Option::is_some);
            let fast = if whole { inner.clone() } else { 0..0 };
            if whole && !fast.is_empty() {
                let start = taps_y[0].unwrap_or(0);
                let x0 = fast.start * g.stride[1] - g.before[1];
                let rows = [0, 1, 2]
                    .map(|k| &input[((start + k) * g.input[1] + x0) * columns..(start + k + 1) * g.input[1] * columns]);
                let to = &mut row[fast.start * columns..fast.end * columns];
                inside(simd, rows, weights, bias, self.activation, g.stride[1] * columns, to);
            }
            for x in (0..fast.start).chain(fast.end..g.output[1]) {
                for c in 0..columns {
                    let mut sum = bias[c];
                    for ky in 0..g.kernel[0] {
                        let Some(sy) = g.source(0, y, ky) else { continue };
                        for kx in 0..g.kernel[1] {
                            let Some(sx) = g.source(1, x, kx) else { continue };
                            sum = simd.mul_add_e_f32s(
                                input[(sy * g.input[1] + sx) * columns + c],
                                weights[(ky * g.kernel[1] + kx) * columns + c],
                                sum,
                            );
                        }
                    }
                    row[x * columns + c] = activate(simd, sum, self.activation, c);
                }
            }
        }
    }
}

/// A run of output columns whose 3x3 windows lie inside the input; the nine weights of a vector of
/// channels stay in registers along the run.
#[inline(always)]
fn inside<S: Simd>(
    simd: S,
    rows: [&[S::f32s]; 3],
    weights: &[S::f32s],
    bias: &[S::f32s],
    activation: Activation<'_>,
    step: usize,
    out: &mut [S::f32s],
) {
    let columns = bias.len();
    for c in 0..columns {
        let mut w = [simd.splat_f32s(0.0); 9];
        for (k, w) in w.iter_mut().enumerate() {
            *w = weights[k * columns + c];
        }
        let (offset, mut at) = (bias[c], c);
        for to in out[c..].iter_mut().step_by(columns) {
            let mut sums = [offset, simd.splat_f32s(0.0), simd.splat_f32s(0.0)];
            for ky in 0..3 {
                let row = rows[ky];
                for kx in 0..3 {
                    let x = row[at + kx * columns];
                    sums[ky] = simd.mul_add_e_f32s(x, w[ky * 3 + kx], sums[ky]);
                }
            }
            let sum = simd.add_f32s(simd.add_f32s(sums[0], sums[1]), sums[2]);
            *to = activate(simd, sum, activation, c);
            at += step;
        }
    }
}
