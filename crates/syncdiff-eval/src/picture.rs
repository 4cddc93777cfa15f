//! Picture metrics on RGB bytes.
//!
//! # Source
//! METHOD section 16: scikit-image's `structural_similarity` (gaussian weights, sigma 1.5, no sample covariance,
//! data range 255) and `peak_signal_noise_ratio`; `psnr_u8wrap` repeats the 8-bit arithmetic of TalkLip's script,
//! which the paper's table very likely carries; it is never to be reported alone.

use crate::error::{EvalError, EvalResult};
use syncdiff_media::Frame;

const RADIUS: usize = 5;
const TAPS: usize = 2 * RADIUS + 1;
const SIGMA: f64 = 1.5;
const C1: f64 = (0.01 * 255.0) * (0.01 * 255.0);
const C2: f64 = (0.03 * 255.0) * (0.03 * 255.0);
/// What a frame counts in means of decibels where the pictures are equal: TalkLip's script says so.
pub const EQUAL_DB: f64 = 100.0;

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
    let square = |(x, y): (&u8, &u8)| u64::from(x.abs_diff(*y)).pow(2);
    let sum: u64 = a.data.iter().zip(&b.data).map(square).sum();
    Ok(sum as f64 / a.data.len() as f64)
}

/// Peak signal-to-noise ratio in dB; infinite for equal pictures.
///
/// # Errors
/// Pictures of different sizes.
pub fn psnr(a: &Frame, b: &Frame) -> EvalResult<f64> {
    Ok(10.0 * (255.0 * 255.0 / mse(a, b)?).log10())
}

/// The same with differences and squares wrapped to 8 bits; [`EQUAL_DB`] where the wrapped error is zero.
///
/// # Errors
/// Pictures of different sizes.
pub fn psnr_u8wrap(a: &Frame, b: &Frame) -> EvalResult<f64> {
    same_size(a, b)?;
    let wrapped = |(x, y): (&u8, &u8)| {
        let d = x.wrapping_sub(*y);
        u64::from(d.wrapping_mul(d))
    };
    let mse = a.data.iter().zip(&b.data).map(wrapped).sum::<u64>() as f64 / a.data.len() as f64;
    Ok(if mse == 0.0 { EQUAL_DB } else { 10.0 * (255.0 * 255.0 / mse).log10() })
}

/// Mean structural similarity: per channel, borders of five pixels left out, then the mean.
///
/// What the original mirrors at its borders lies in the part that is left out, so nothing is mirrored here.
///
/// # Errors
/// Pictures of different sizes, or smaller than 11 x 11.
pub fn ssim(a: &Frame, b: &Frame) -> EvalResult<f64> {
    same_size(a, b)?;
    let (width, height) = (a.width, a.height);
    if width < TAPS || height < TAPS {
        let detail = format!("{width}x{height}, need at least 11x11");
        return Err(EvalError::Unequal { what: "picture size", detail });
    }
    let kernel = gaussian();
    let mut moments = Moments::new(width, &kernel);
    let mut total = 0.0;
    for channel in 0..3 {
        for row in 0..height + 1 - TAPS {
            total += moments.row(a, b, channel, row);
        }
    }
    Ok(total / (3 * (height + 1 - TAPS) * (width + 1 - TAPS)) as f64)
}

/// Weighted means round the pixels of one row: of x, y, x², y² and xy.
struct Moments<'a> {
    kernel: &'a [f64; TAPS],
    /// Summed over the rows, per column.
    down: [Vec<f64>; 5],
    /// Summed over the columns as well, per pixel inside the borders.
    both: [Vec<f64>; 5],
}

impl<'a> Moments<'a> {
    fn new(width: usize, kernel: &'a [f64; TAPS]) -> Self {
        let rows = |len: usize| std::array::from_fn(|_| vec![0.0; len]);
        Moments { kernel, down: rows(width), both: rows(width + 1 - TAPS) }
    }

    /// Sum of the similarities of the row `top` + 5, inside the borders.
    fn row(&mut self, a: &Frame, b: &Frame, channel: usize, top: usize) -> f64 {
        self.down.iter_mut().for_each(|sums| sums.fill(0.0));
        let [dx, dy, dxx, dyy, dxy] = &mut self.down;
        for (k, weight) in self.kernel.iter().enumerate() {
            let pixels = a.row(top + k).as_chunks::<3>().0.iter().zip(b.row(top + k).as_chunks::<3>().0);
            for (i, (x, y)) in pixels.enumerate() {
                let (x, y) = (f64::from(x[channel]), f64::from(y[channel]));
                let (wx, wy) = (weight * x, weight * y);
                dx[i] += wx;
                dy[i] += wy;
                dxx[i] += wx * x;
                dyy[i] += wy * y;
                dxy[i] += wx * y;
            }
        }
        for (down, both) in self.down.iter().zip(&mut self.both) {
            both.fill(0.0);
            for (k, weight) in self.kernel.iter().enumerate() {
                both.iter_mut().zip(&down[k..]).for_each(|(sum, value)| *sum += weight * value);
            }
        }
        let [mx, my, xx, yy, xy] = &self.both;
        (0..mx.len())
            .map(|i| {
                let (vx, vy, cov) = (xx[i] - mx[i] * mx[i], yy[i] - my[i] * my[i], xy[i] - mx[i] * my[i]);
                ((2.0 * mx[i] * my[i] + C1) * (2.0 * cov + C2))
                    / ((mx[i] * mx[i] + my[i] * my[i] + C1) * (vx + vy + C2))
            })
            .sum()
    }
}

fn gaussian() -> [f64; TAPS] {
    let mut kernel = [0.0; TAPS];
    for (i, k) in kernel.iter_mut().enumerate() {
        let d = i as f64 - RADIUS as f64;
        *k = (-0.5 * d * d / (SIGMA * SIGMA)).exp();
    }
    let sum: f64 = kernel.iter().sum();
    kernel.map(|k| k / sum)
}
