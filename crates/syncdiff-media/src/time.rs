//! Exact time: integer ticks on a rational base, and the two fixed time lines of the model.
//!
//! A tick value `t` on base `num/den` means `t * num / den` seconds. Every conversion states its
//! rounding; floating seconds exist for display only.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

/// Frames a second on the model's time line.
pub const MODEL_RATE: i64 = 25;
/// Samples a second of the speech copy.
pub const SPEECH_RATE: i64 = 16_000;
/// Speech samples in one model frame.
pub const SAMPLES_PER_MODEL_FRAME: i64 = SPEECH_RATE / MODEL_RATE;

/// A fraction with a positive denominator: a frame rate, a time base, an aspect ratio.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub struct Rational {
    /// Numerator.
    pub num: i64,
    /// Denominator, above zero.
    pub den: i64,
}

impl Rational {
    /// The time base of the speech copy.
    pub const SPEECH_BASE: Rational = Rational { num: 1, den: SPEECH_RATE };
    /// The time base of the model's time line.
    pub const MODEL_BASE: Rational = Rational { num: 1, den: MODEL_RATE };

    /// A fraction as given, not reduced.
    ///
    /// # Panics
    /// If `den` is not above zero.
    pub const fn new(num: i64, den: i64) -> Self {
        assert!(den > 0, "the denominator must be above zero");
        Rational { num, den }
    }

    /// The same value in lowest terms.
    pub fn reduced(self) -> Self {
        let divisor = gcd(self.num.unsigned_abs(), self.den.unsigned_abs()).max(1) as i64;
        Rational { num: self.num / divisor, den: self.den / divisor }
    }

    /// One over this value: frame rate to frame duration and back.
    ///
    /// # Panics
    /// If the value is not above zero.
    pub fn recip(self) -> Self {
        Rational::new(self.den, self.num)
    }

    /// Is the value above zero?
    pub fn is_positive(self) -> bool {
        self.num > 0
    }

    /// The value as a float, for display.
    pub fn to_f64(self) -> f64 {
        self.num as f64 / self.den as f64
    }

    /// Compares the values exactly (`2/4` equals `1/2` here, other than with `==`).
    pub fn cmp_value(self, other: Rational) -> Ordering {
        let left = i128::from(self.num) * i128::from(other.den);
        let right = i128::from(other.num) * i128::from(self.den);
        left.cmp(&right)
    }
}

impl fmt::Display for Rational {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.num, self.den)
    }
}

impl FromStr for Rational {
    type Err = String;

    /// Reads `25`, `30000/1001`, `4:3` or a decimal such as `29.97` (taken as written: 2997/100).
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is not a rate such as 25, 29.97 or 30000/1001");
        let positive = |part: &str| part.trim().parse::<i64>().map_err(|_| wrong());
        let (num, den) = if let Some((num, den)) = text.split_once(['/', ':']) {
            (positive(num)?, positive(den)?)
        } else if let Some((whole, part)) = text.split_once('.') {
            if part.len() > 9 || !part.bytes().all(|b| b.is_ascii_digit()) {
                return Err(wrong());
            }
            (positive(&format!("{whole}{part}"))?, 10_i64.pow(part.len() as u32))
        } else {
            (positive(text)?, 1)
        };
        if den <= 0 {
            return Err(wrong());
        }
        Ok(Rational { num, den })
    }
}

/// What to do with the part of a tick that is left over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rounding {
    /// Towards minus infinity.
    Down,
    /// To the nearest tick; a half goes up.
    Nearest,
    /// Towards plus infinity.
    Up,
}

/// A moment or a length: ticks on a base.
#[derive(Clone, Copy, Debug, serde::Serialize, serde::Deserialize)]
pub struct Time {
    /// Number of ticks.
    pub ticks: i64,
    /// Seconds of one tick.
    pub base: Rational,
}

impl Time {
    /// Ticks on a base.
    pub const fn new(ticks: i64, base: Rational) -> Self {
        Time { ticks, base }
    }

    /// A number of speech samples at 16 kHz.
    pub const fn from_samples(samples: i64) -> Self {
        Time { ticks: samples, base: Rational::SPEECH_BASE }
    }

    /// The ticks on another base.
    pub fn on(self, base: Rational, rounding: Rounding) -> i64 {
        rescale(self.ticks, self.base, base, rounding)
    }

    /// Seconds as a float, for display.
    pub fn secs(self) -> f64 {
        self.ticks as f64 * self.base.to_f64()
    }

    /// Whole milliseconds, nearest, for display.
    pub fn millis(self) -> i64 {
        self.on(Rational::new(1, 1000), Rounding::Nearest)
    }
}

impl PartialEq for Time {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Time {}

impl PartialOrd for Time {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Time {
    /// Exact for bases with parts below 2^31; larger bases are reduced first.
    fn cmp(&self, other: &Self) -> Ordering {
        let (a, b) = (self.base.reduced(), other.base.reduced());
        let left = i128::from(self.ticks) * (i128::from(a.num) * i128::from(b.den));
        let right = i128::from(other.ticks) * (i128::from(b.num) * i128::from(a.den));
        left.cmp(&right)
    }
}

/// Converts ticks from one base to another, exactly but for the stated rounding.
///
/// The product is formed in 128 bits; a result outside `i64` is held at its ends.
pub fn rescale(ticks: i64, from: Rational, to: Rational, rounding: Rounding) -> i64 {
    let (from, to) = (from.reduced(), to.reduced());
    let ratio_num = i128::from(from.num) * i128::from(to.den);
    let ratio_den = i128::from(from.den) * i128::from(to.num);
    if ratio_den == 0 {
        return 0;
    }
    let Some(numerator) = i128::from(ticks).checked_mul(ratio_num) else {
        return if (ticks < 0) == (ratio_num < 0) { i64::MAX } else { i64::MIN };
    };
    let floor = numerator.div_euclid(ratio_den);
    let rest = numerator.rem_euclid(ratio_den);
    let value = match rounding {
        Rounding::Down => floor,
        Rounding::Nearest => floor + i128::from(rest >= ratio_den - rest),
        Rounding::Up => floor + i128::from(rest > 0),
    };
    value.clamp(i128::from(i64::MIN), i128::from(i64::MAX)) as i64
}

/// The model frame (25 fps) whose moment is nearest to `pts`; a half goes to the later frame.
///
/// `pts` counts from the start of the clip, on `base`. Never below zero.
pub fn model_frame_at(pts: i64, base: Rational) -> i64 {
    rescale(pts, base, Rational::MODEL_BASE, Rounding::Nearest).max(0)
}

/// How many model frames cover a length; the last may reach beyond its end.
pub fn num_model_frames(length: Time) -> i64 {
    length.on(Rational::MODEL_BASE, Rounding::Up).max(0)
}

/// First speech sample of a model frame.
pub fn sample_of_model_frame(model_frame: i64) -> i64 {
    model_frame * SAMPLES_PER_MODEL_FRAME
}

fn gcd(mut a: u64, mut b: u64) -> u64 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn rates_are_read_as_written() {
        assert_eq!("25".parse(), Ok(Rational::new(25, 1)));
        assert_eq!("30000/1001".parse(), Ok(Rational::new(30000, 1001)));
        assert_eq!("29.97".parse(), Ok(Rational::new(2997, 100)));
        assert_eq!("4:3".parse(), Ok(Rational::new(4, 3)));
        for wrong in ["", "x", "1/0", "1/-2", "1.2.3", "0x10", "1e3"] {
            assert!(wrong.parse::<Rational>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn rounding_is_as_stated_on_both_sides_of_zero() {
        let (half, one) = (Rational::new(1, 2), Rational::new(1, 1));
        for (ticks, down, nearest, up) in [(3, 1, 2, 2), (2, 1, 1, 1), (-3, -2, -1, -1)] {
            assert_eq!(rescale(ticks, half, one, Rounding::Down), down);
            assert_eq!(rescale(ticks, half, one, Rounding::Nearest), nearest);
            assert_eq!(rescale(ticks, half, one, Rounding::Up), up);
        }
        assert_eq!(rescale(i64::MAX, one, Rational::new(1, 1000), Rounding::Down), i64::MAX);
    }

    #[test]
    fn model_frames_of_common_rates() {
        let ntsc = Rational::new(1001, 30000);
        assert_eq!(model_frame_at(0, ntsc), 0);
        assert_eq!(model_frame_at(30, ntsc), 25); // 1.001 s = 25.025 frames
        let fifty = Rational::new(1, 50);
        assert_eq!((0..5).map(|i| model_frame_at(i, fifty)).collect::<Vec<_>>(), [0, 1, 1, 2, 2]);
        assert_eq!(num_model_frames(Time::from_samples(640)), 1);
        assert_eq!(num_model_frames(Time::from_samples(641)), 2);
        assert_eq!(sample_of_model_frame(25), 16_000);
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
        #[test]
        fn there_and_back_on_a_finer_base_is_exact(
            ticks in -1_000_000_000i64..1_000_000_000, num in 1i64..2000, den in 1i64..100_000, factor in 1i64..64,
        ) {
            let coarse = Rational::new(num, den);
            let fine = Rational::new(num, den * factor);
            let there = rescale(ticks, coarse, fine, Rounding::Down);
            prop_assert_eq!(there, ticks * factor);
            prop_assert_eq!(rescale(there, fine, coarse, Rounding::Down), ticks);
            prop_assert_eq!(Time::new(ticks, coarse), Time::new(there, fine));
        }
    }
}
