//! Matrix product of pixels and convolution weights, with bias, residual and activation in the
//! same pass.
//!
//! The rows of the left matrix are pixels and are read in place; the weights are packed once into
//! panels of two vectors. A tile of 6 pixels x 2 vectors keeps 12 sums in registers, which suits
//! the 16 registers of AVX2.

use super::model::Clamp;
use pulp::{Simd, WithSimd};

/// What follows a product or a sum.
#[derive(Clone, Copy)]
pub(super) enum Activation<'a> {
    None,
    Clamp(Clamp),
    /// One slope for each (padded) channel.
    Prelu(&'a [f32]),
}

/// Applies the activation to one vector of channels, number `column`.
#[inline(always)]
pub(super) fn activate<S: Simd>(simd: S, x: S::f32s, activation: Activation<'_>, column: usize) -> S::f32s {
    match activation {
        Activation::None => x,
        Activation::Clamp(c) => simd.min_f32s(simd.max_f32s(x, simd.splat_f32s(c.low)), simd.splat_f32s(c.high)),
        Activation::Prelu(slopes) => {
            let zero = simd.splat_f32s(0.0);
            let slope = S::as_simd_f32s(slopes).0[column];
            simd.mul_add_e_f32s(simd.min_f32s(x, zero), slope, simd.max_f32s(x, zero))
        }
    }
}

/// Values added to the product before the activation: `lanes_per_pixel` padded channels each,
/// perhaps fewer than the product has (the rest counts as 0).
#[derive(Clone, Copy)]
pub(super) struct Residual<'a> {
    pub(super) data: &'a [f32],
    pub(super) channels: usize,
}

/// Weights in the order in which the tiles read them.
#[derive(Debug)]
pub(super) struct Packed {
    data: Vec<f32>,
    bias: Vec<f32>,
    depth: usize,
    /// Output channels, a multiple of the vector length.
    pub(super) channels: usize,
}

impl Packed {
    /// Packs `weights[out][depth]` for vectors of `lanes`.
    pub(super) fn new(weights: &[f32], bias: &[f32], depth: usize, lanes: usize) -> Self {
        let num_out = bias.len();
        let channels = num_out.next_multiple_of(lanes);
        let mut data = Vec::with_capacity(channels * depth);
        let mut column = 0;
        while column < channels {
            let width = (2 * lanes).min(channels - column);
            for k in 0..depth {
                data.extend((column..column + width).map(|c| if c < num_out { weights[c * depth + k] } else { 0.0 }));
            }
            column += width;
        }
        let mut bias = bias.to_vec();
        bias.resize(channels, 0.0);
        Packed { data, bias, depth, channels }
    }
}

/// `out[pixel][c] = activation(bias[c] + sum_k pixels[pixel][k] weights[c][k] + residual)`.
pub(super) struct Product<'a> {
    pub(super) pixels: &'a [f32],
    /// Distance of two pixels in `pixels`.
    pub(super) pixel_stride: usize,
    pub(super) weights: &'a Packed,
    pub(super) residual: Option<Residual<'a>>,
    pub(super) activation: Activation<'a>,
    /// Whole pixels of `weights.channels` each.
    pub(super) out: &'a mut [f32],
}

struct Tile<'a, S: Simd> {
    rows: &'a [f32],
    stride: usize,
    depth: usize,
    panel: &'a [S::f32s],
    bias: &'a [S::f32s],
    residual: Option<(&'a [S::f32s], usize)>,
    activation: Activation<'a>,
    column: usize,
    num_columns: usize,
}

impl<S: Simd> Tile<'_, S> {
    #[inline(always)]
    fn run<const M: usize, const N: usize>(&self, simd: S, first: usize, out: &mut [S::f32s]) {
        let depth = self.depth;
        let mut rows: [&[f32]; M] = [&[]; M];
        for (r, row) in rows.iter_mut().enumerate() {
            *row = &self.rows[(first + r) * self.stride..][..depth];
        }
        let panel = &self.panel.as_chunks::<N>().0[..depth];
        let mut sums = [[simd.splat_f32s(0.0); N]; M];
        for sum in &mut sums {
            sum.copy_from_slice(&self.bias[..N]);
        }
        for k in 0..depth {
            let weights = panel[k];
            for r in 0..M {
                let x = simd.splat_f32s(rows[r][k]);
                for n in 0..N {
                    sums[r][n] = simd.mul_add_e_f32s(x, weights[n], sums[r][n]);
                }
            }
        }
        for r in 0..M {
            let to = &mut out[(first + r) * self.num_columns + self.column..][..N];
            for n in 0..N {
                let mut x = sums[r][n];
                if let Some((data, columns)) = self.residual
                    && self.column + n < columns
                {
                    x = simd.add_f32s(x, data[(first + r) * columns + self.column + n]);
                }
                to[n] = activate(simd, x, self.activation, self.column + n);
            }
        }
    }

    #[inline(always)]
    fn all<const N: usize>(&self, simd: S, num_pixels: usize, out: &mut [S::f32s]) {
        let mut first = 0;
        while first + 6 <= num_pixels {
            self.run::<6, N>(simd, first, out);
            first += 6;
        }
        while first + 2 <= num_pixels {
            self.run::<2, N>(simd, first, out);
            first += 2;
        }
        if first < num_pixels {
            self.run::<1, N>(simd, first, out);
        }
    }
}

impl WithSimd for Product<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let lanes = S::F32_LANES;
        let depth = self.weights.depth;
        let num_columns = self.weights.channels / lanes;
        let bias = S::as_simd_f32s(&self.weights.bias).0;
        let panels = S::as_simd_f32s(&self.weights.data).0;
        let out = S::as_mut_simd_f32s(self.out).0;
        let num_pixels = out.len() / num_columns;
        let residual = self.residual.map(|r| (S::as_simd_f32s(r.data).0, r.channels / lanes));
        let mut column = 0;
        while column < num_columns {
            let width = (num_columns - column).min(2);
            let tile = Tile::<S> {
                rows: self.pixels,
                stride: self.pixel_stride,
                depth,
                panel: &panels[column * depth..][..width * depth],
                bias: &bias[column..],
                residual,
                activation: self.activation,
                column,
                num_columns,
            };
            if width == 2 {
                tile.all::<2>(simd, num_pixels, out);
            } else {
                tile.all::<1>(simd, num_pixels, out);
            }
            column += width;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equals_the_plain_product() {
        struct Lanes;
        impl WithSimd for Lanes {
            type Output = usize;
            fn with_simd<S: Simd>(self, _: S) -> usize {
                S::F32_LANES
            }
        }
        let arch = pulp::Arch::new();
        let lanes = arch.dispatch(Lanes);
        for (pixels, depth, outs) in [(1, 5, 3), (7, 16, 24), (13, 27, 50), (9, 1, 1)] {
            let value = |i: usize| ((i * 37 + 11) % 101) as f32 / 50.0 - 1.0;
            let stride = depth + 2;
            let x: Vec<f32> = (0..pixels * stride).map(value).collect();
            let w: Vec<f32> = (0..outs * depth).map(|i| value(i + 7)).collect();
            let bias: Vec<f32> = (0..outs).map(|i| value(i + 3)).collect();
            let packed = Packed::new(&w, &bias, depth, lanes);
            let columns = packed.channels;
            let residual: Vec<f32> = (0..pixels * lanes).map(value).collect();
            let slopes = vec![0.25; columns];
            let mut out = vec![9.0; pixels * columns];
            arch.dispatch(Product {
                pixels: &x,
                pixel_stride: stride,
                weights: &packed,
                residual: Some(Residual { data: &residual, channels: lanes }),
                activation: Activation::Prelu(&slopes),
                out: &mut out,
            });
            for p in 0..pixels {
                for c in 0..outs {
                    let mut want: f32 = (0..depth).map(|k| x[p * stride + k] * w[c * depth + k]).sum::<f32>() + bias[c];
                    if c < lanes {
                        want += residual[p * lanes + c];
                    }
                    let want = if want < 0.0 { want * 0.25 } else { want };
                    assert!((out[p * columns + c] - want).abs() < 1e-5);
                }
            }
        }
    }
}
