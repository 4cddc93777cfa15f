//! The operators that are neither products nor depthwise: sums, pooling, resizing, moving.

use super::depthwise::Geometry;
use super::gemm::{Activation, activate};
use pulp::{Simd, WithSimd};

/// `out = activation(a + b)`, or `activation(a)` without `b`.
pub(super) struct Elementwise<'a> {
    pub(super) a: &'a [f32],
    pub(super) b: Option<&'a [f32]>,
    /// Padded channels of one pixel.
    pub(super) channels: usize,
    pub(super) activation: Activation<'a>,
    pub(super) out: &'a mut [f32],
}

impl WithSimd for Elementwise<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let columns = self.channels / S::F32_LANES;
        let a = S::as_simd_f32s(self.a).0;
        let b = self.b.map_or(a, |b| S::as_simd_f32s(b).0);
        let out = S::as_mut_simd_f32s(self.out).0;
        let sum = self.b.is_some();
        for ((to, a), b) in out.chunks_exact_mut(columns).zip(a.chunks_exact(columns)).zip(b.chunks_exact(columns)) {
            for (c, ((to, a), b)) in to.iter_mut().zip(a).zip(b).enumerate() {
                let x = if sum { simd.add_f32s(*a, *b) } else { *a };
                *to = activate(simd, x, self.activation, c);
            }
        }
    }
}

/// Largest value of each window; places outside the input do not count.
pub(super) struct MaxPool<'a> {
    pub(super) input: &'a [f32],
    pub(super) geometry: Geometry,
    /// Padded channels of one pixel.
    pub(super) channels: usize,
    pub(super) out: &'a mut [f32],
}

impl WithSimd for MaxPool<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let g = self.geometry;
        let columns = self.channels / S::F32_LANES;
        let input = S::as_simd_f32s(self.input).0;
        let out = S::as_mut_simd_f32s(self.out).0;
        for (place, to) in out.chunks_exact_mut(columns).enumerate() {
            let (y, x) = (place / g.output[1], place % g.output[1]);
            to.fill(simd.splat_f32s(f32::NEG_INFINITY));
            for ky in 0..g.kernel[0] {
                let Some(sy) = g.source(0, y, ky) else { continue };
                for kx in 0..g.kernel[1] {
                    let Some(sx) = g.source(1, x, kx) else { continue };
                    let from = &input[(sy * g.input[1] + sx) * columns..][..columns];
                    for (to, from) in to.iter_mut().zip(from) {
                        *to = simd.max_f32s(*to, *from);
                    }
                }
            }
        }
    }
}

/// For each output place the two input places and the weight of the second.
fn taps(input: usize, output: usize, align: bool, half: bool) -> Vec<(usize, usize, f32)> {
    let scale =
        if align && output > 1 { (input - 1) as f32 / (output - 1) as f32 } else { input as f32 / output as f32 };
    (0..output)
        .map(|i| {
            let at = if half { (i as f32 + 0.5) * scale - 0.5 } else { i as f32 * scale };
            let lower = (at.floor().max(0.0) as usize).min(input - 1);
            let upper = (at.ceil().max(0.0) as usize).min(input - 1);
            (lower, upper, at - lower as f32)
        })
        .collect()
}

/// Height, width and padded channels of an image.
pub(super) type Size = (usize, usize, usize);

/// Bilinear resizing as TFLite does it.
pub(super) fn resize(
    input: &[f32],
    (ih, iw, channels): Size,
    out: &mut [f32],
    (oh, ow): (usize, usize),
    align_corners: bool,
    half_pixel: bool,
) {
    let rows = taps(ih, oh, align_corners, half_pixel);
    let columns = taps(iw, ow, align_corners, half_pixel);
    let pixel = |y: usize, x: usize| &input[(y * iw + x) * channels..][..channels];
    for (place, to) in out.chunks_exact_mut(channels).take(oh * ow).enumerate() {
        let (y0, y1, fy) = rows[place / ow];
        let (x0, x1, fx) = columns[place % ow];
        let (a, b, c, d) = (pixel(y0, x0), pixel(y0, x1), pixel(y1, x0), pixel(y1, x1));
        let weights = [(1. - fy) * (1. - fx), (1. - fy) * fx, fy * (1. - fx), fy * fx];
        for ((((to, a), b), c), d) in to.iter_mut().zip(a).zip(b).zip(c).zip(d) {
            *to = a * weights[0] + b * weights[1] + c * weights[2] + d * weights[3];
        }
    }
}

/// Blocks of channels become blocks of pixels. `channels` counts the output's, without padding.
pub(super) fn depth_to_space(
    input: &[f32],
    (_, iw, in_stride): Size,
    out: &mut [f32],
    (ow, channels, out_stride): Size,
    block: usize,
) {
    for (place, to) in out.chunks_exact_mut(out_stride).enumerate() {
        let (y, x) = (place / ow, place % ow);
        let from = ((y / block) * iw + x / block) * in_stride + ((y % block) * block + x % block) * channels;
        to.fill(0.0);
        to[..channels].copy_from_slice(&input[from..from + channels]);
    }
}

/// Copies an image into a larger one of 0s; more channels are filled with 0 as well.
pub(super) fn pad(
    input: &[f32],
    (ih, iw, in_stride): Size,
    out: &mut [f32],
    (_, ow, out_stride): Size,
    before: [usize; 2],
) {
    out.fill(0.0);
    for y in 0..ih {
        for x in 0..iw {
            let to = ((y + before[0]) * ow + x + before[1]) * out_stride;
            out[to..to + in_stride].copy_from_slice(&input[(y * iw + x) * in_stride..][..in_stride]);
        }
    }
}

/// One output row of a convolution unfolded: for each column the window's values, tap by tap.
pub(super) fn unfold_row(input: &[f32], (channels, stride): (usize, usize), g: &Geometry, y: usize, out: &mut [f32]) {
    let depth = g.kernel[0] * g.kernel[1] * channels;
    for (x, to) in out.chunks_exact_mut(depth).take(g.output[1]).enumerate() {
        for (ky, to) in to.chunks_exact_mut(g.kernel[1] * channels).enumerate() {
            let (first, last) = (g.source(1, x, 0), g.source(1, x, g.kernel[1] - 1));
            match (g.source(0, y, ky), first, last) {
                (None, ..) => to.fill(0.0),
                (Some(sy), Some(sx), Some(_)) if stride == channels => {
                    let from = (sy * g.input[1] + sx) * stride;
                    to.copy_from_slice(&input[from..from + to.len()]);
                }
                (Some(sy), ..) => {
                    for (kx, to) in to.chunks_exact_mut(channels).enumerate() {
                        match g.source(1, x, kx) {
                            None => to.fill(0.0),
                            Some(sx) => {
                                let from = (sy * g.input[1] + sx) * stride;
                                to.copy_from_slice(&input[from..from + channels]);
                            }
                        }
                    }
                }
            }
        }
    }
}

/// The values of an image without its padding.
pub(super) fn compact(input: &[f32], channels: usize, stride: usize, out: &mut [f32]) {
    for (to, from) in out.chunks_exact_mut(channels).zip(input.chunks_exact(stride)) {
        to.copy_from_slice(&from[..channels]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_pixel_resizing_repeats_the_edge() {
        let mut out = [0.0; 4];
        resize(&[0.0, 4.0], (1, 2, 1), &mut out, (1, 4), false, true);
        assert_eq!(out, [0.0, 1.0, 3.0, 4.0]);
        resize(&[0.0, 4.0], (1, 2, 1), &mut out, (1, 4), false, false);
        assert_eq!(out, [0.0, 2.0, 4.0, 4.0]);
    }

    #[test]
    fn depth_becomes_space() {
        let mut out = [9.0; 8];
        depth_to_space(&[1., 2., 3., 4.], (1, 1, 4), &mut out, (2, 1, 2), 2);
        assert_eq!(out, [1., 0., 2., 0., 3., 0., 4., 0.]);
    }
}
