//! Flat loops: sigmoid, SiLU and GEGLU, forward and backward, vectorised by the compiler under `target_feature`.

use crate::simd::dispatch;

/// `exp(x)` for |x| up to the f32 range, relative error below 2e-7: range reduction by ln 2 and a degree-6 polynomial.
/// Branch-free, so that loops over it vectorise.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    const LOG2_E: f32 = std::f32::consts::LOG2_E;
    // ln 2 in two parts, so that n * LN2_HI is exact.
    const LN2_HI: f32 = 0.693_359_4;
    const LN2_LO: f32 = -2.121_944_4e-4;
    // Adding and subtracting 1.5 * 2^23 rounds to the nearest integer.
    const ROUND: f32 = 12_582_912.0;
    let x = x.clamp(-87.0, 88.0);
    let shifted = x * LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = (x - n * LN2_HI) - n * LN2_LO;
    let p = 1.0 / 720.0;
    let p = p * r + 1.0 / 120.0;
    let p = p * r + 1.0 / 24.0;
    let p = p * r + 1.0 / 6.0;
    let p = p * r + 0.5;
    let p = p * r + 1.0;
    let p = p * r + 1.0;
    // The low bits of `shifted` hold n; moved into the exponent field they make 2^n.
    let scale = f32::from_bits((shifted.to_bits() << 23).wrapping_add(127 << 23));
    p * scale
}

#[inline(always)]
pub(crate) fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// Error function, absolute error below 2e-7 (Abramowitz and Stegun 7.1.26 with the f32 exponential above).
#[inline(always)]
fn erf(x: f32) -> f32 {
    let a = x.abs();
    let t = 1.0 / (1.0 + 0.327_591_1 * a);
    let p = 1.061_405_4;
    let p = p * t - 1.453_152;
    let p = p * t + 1.421_413_8;
    let p = p * t - 0.284_496_74;
    let p = p * t + 0.254_829_6;
    let y = 1.0 - p * t * exp(-a * a);
    y.copysign(x)
}

/// Exact (error-function) GELU and its derivative.
#[inline(always)]
fn gelu_with_slope(x: f32) -> (f32, f32) {
    const INV_SQRT_2: f32 = std::f32::consts::FRAC_1_SQRT_2;
    const INV_SQRT_2PI: f32 = 0.398_942_3;
    let cdf = 0.5 * (1.0 + erf(x * INV_SQRT_2));
    (x * cdf, cdf + x * INV_SQRT_2PI * exp(-0.5 * x * x))
}

dispatch! {
    /// `y = x * sigmoid(x)`.
    fn silu_forward(x: &[f32], y: &mut [f32]) {
        for (y, &x) in y.iter_mut().zip(x) {
            *y = x * sigmoid(x);
        }
    }
}

dispatch! {
    /// `dx = dy * silu'(x)`.
    fn silu_backward(x: &[f32], dy: &[f32], dx: &mut [f32]) {
        for ((dx, &x), &dy) in dx.iter_mut().zip(x).zip(dy) {
            let s = sigmoid(x);
            *dx = dy * s * (1.0 + x * (1.0 - s));
        }
    }
}

dispatch! {
    /// One row: `y = value * gelu(gate)`.
    fn geglu_forward_row(value: &[f32], gate: &[f32], y: &mut [f32]) {
        for ((y, &a), &g) in y.iter_mut().zip(value).zip(gate) {
            *y = a * gelu_with_slope(g).0;
        }
    }
}

dispatch! {
    /// One row of the GEGLU gradient with respect to both halves.
    fn geglu_backward_row(value: &[f32], gate: &[f32], dy: &[f32], dvalue: &mut [f32], dgate: &mut [f32]) {
        for ((((da, dg), &a), &g), &dy) in dvalue.iter_mut().zip(dgate.iter_mut()).zip(value).zip(gate).zip(dy) {
            let (gelu, slope) = gelu_with_slope(g);
            *da = dy * gelu;
            *dg = dy * a * slope;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_matches_std() {
        for i in -860..880 {
            let x = i as f32 * 0.1;
            let (ours, std) = (exp(x) as f64, (x as f64).exp());
            assert!((ours - std).abs() <= 4e-7 * std, "exp({x}) = {ours}, std {std}");
        }
    }

    #[test]
    fn gelu_slope_matches_finite_difference() {
        for i in -60..60 {
            let x = i as f32 * 0.1;
            let h = 1e-2f32;
            let slope = (gelu_with_slope(x + h).0 as f64 - gelu_with_slope(x - h).0 as f64) / (2.0 * h as f64);
            assert!((slope - gelu_with_slope(x).1 as f64).abs() < 2e-4, "x = {x}");
        }
    }
}
