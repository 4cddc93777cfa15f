//! Picture metrics on RGB bytes.
//!
//! # Source
//! METHOD section 16: scikit-image's `structural_similarity` (gaussian weights, sigma 1.5, no sample covariance,
//! data range 255) and `peak_signal_noise_ratio`; `psnr_u8wrap` repeats the 8-bit arithmetic of TalkLip's script,
//! which the paper's table very likely carries; it is never to be reported alone.

use crate::error::{EvalError, EvalResult};
use syncdiff_media::Frame;

const RADIUS: usize = 5;
const SIGMA: f64 = 1.5;
const C1: f64 = (0.01 * 255.0) * (0.01 * 255.0);
const C2: f64 = (0.03 * 255.0) * (0.03 * 255.0);

fn same_size(a: &Frame, b: &Frame) -> EvalResult<()> {
    if (a.width, a.height) == (b.width, b.height) {
        return Ok(());
    }
    let detail = format!("{}x{} against {}x{}", a.width, a.height, b.width, b.height);
    Err(EvalError::Unequal { what: "picture sizes", detail })
}

/// Mean squared difference over all pixels and channels.
///
/// # Errors
/// Pictures of different sizes.
pub fn mse(a: &Frame, b: &Frame) -> EvalResult<f64> {
    same_size(a, b)?;
    let sum: f64 = a.data.iter().zip(&b.data).map(|(x, y)| (f64::from(*x) - f64::from(*y)).powi(2)).sum();
    Ok(sum / a.data.len() as f64)
}

/// Peak signal-to-noise ratio in dB; infinite for equal pictures.
///
/// # Errors
/// Pictures of different sizes.
pub fn psnr(a: &Frame, b: &Frame) -> EvalResult<f64> {
    Ok(10.0 * (255.0 * 255.0 / mse(a, b)?).log10())
}

/// The same with differences and squares wrapped to 8 bits; 100 where the wrapped error is zero.
///
/// # Errors
/// Pictures of different sizes.
pub fn psnr_u8wrap(a: &Frame, b: &Frame) -> EvalResult<f64> {
    same_size(a, b)?;
    let wrapped = |(x, y): (&u8, &u8)| {
        let d = x.wrapping_sub(*y);
        f64::from(d.wrapping_mul(d))
    };
    let mse = a.data.iter().zip(&b.data).map(wrapped).sum::<f64>() / a.data.len() as f64;
    Ok(if mse == 0.0 { 100.0 } else { 10.0 * (255.0 * 255.0 / mse).log10() })
}

/// Mean structural similarity: per channel, borders of five pixels left out, then the mean.
///
/// # Errors
/// Pictures of different sizes, or smaller than 11 x 11.
pub fn ssim(a: &Frame, b: &Frame) -> EvalResult<f64> {
    same_size(a, b)?;
    let (width, height) = (a.width, a.height);
    if width <= 2 * RADIUS || height <= 2 * RADIUS {
        let detail = format!("{width}x{height}, need at least 11x11");
        return Err(EvalError::Unequal { what: "picture size", detail });
    }
    let kernel = gaussian();
    let mut total = 0.0;
    for channel in 0..3 {
        let plane = |f: &Frame| f.data.iter().skip(channel).step_by(3).map(|v| f64::from(*v)).collect::<Vec<_>>();
        let (x, y) = (plane(a), plane(b));
        let filtered = |f: &dyn Fn(usize) -> f64| {
            let values: Vec<f64> = (0..width * height).map(f).collect();
            blur(&values, width, height, &kernel)
        };
        let (mx, my) = (filtered(&|i| x[i]), filtered(&|i| y[i]));
        let (xx, yy, xy) = (filtered(&|i| x[i] * x[i]), filtered(&|i| y[i] * y[i]), filtered(&|i| x[i] * y[i]));
        let mut sum = 0.0;
        for row in RADIUS..height - RADIUS {
            for col in RADIUS..width - RADIUS {
                let i = row * width + col;
                let (vx, vy, cov) = (xx[i] - mx[i] * mx[i], yy[i] - my[i] * my[i], xy[i] - mx[i] * my[i]);
                sum += ((2.0 * mx[i] * my[i] + C1) * (2.0 * cov + C2))
                    / ((mx[i] * mx[i] + my[i] * my[i] + C1) * (vx + vy + C2));
            }
        }
        total += sum / ((height - 2 * RADIUS) * (width - 2 * RADIUS)) as f64;
    }
    Ok(total / 3.0)
}

fn gaussian() -> [f64; 2 * RADIUS + 1] {
    let mut kernel = [0.0; 2 * RADIUS + 1];
    for (i, k) in kernel.iter_mut().enumerate() {
        let d = i as f64 - RADIUS as f64;
        *k = (-0.5 * d * d / (SIGMA * SIGMA)).exp();
    }
    let sum: f64 = kernel.iter().sum();
    kernel.map(|k| k / sum)
}

/// Index of a mirrored border that repeats the edge pixel (`reflect` of scipy.ndimage).
fn reflect(i: isize, n: usize) -> usize {
    let n = n as isize;
    let i = if i < 0 { -i - 1 } else { i };
    (if i >= n { 2 * n - 1 - i } else { i }) as usize
}

fn blur(values: &[f64], width: usize, height: usize, kernel: &[f64]) -> Vec<f64> {
    let tap = |i: usize, k: usize, n: usize| reflect(i as isize + k as isize - RADIUS as isize, n);
    let mut down = vec![0.0; values.len()];
    for row in 0..height {
        for col in 0..width {
            down[row * width + col] =
                kernel.iter().enumerate().map(|(k, w)| w * values[tap(row, k, height) * width + col]).sum();
        }
    }
    let mut out = vec![0.0; values.len()];
    for row in 0..height {
        for col in 0..width {
            out[row * width + col] =
                kernel.iter().enumerate().map(|(k, w)| w * down[row * width + tap(col, k, width)]).sum();
        }
    }
    out
}
