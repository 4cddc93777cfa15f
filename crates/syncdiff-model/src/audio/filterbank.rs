//! The front end: log filter-bank energies of speech, four 10 ms frames to a row, one row to a video frame at 25 fps.
//!
//! Everything up to the logarithm is computed in `f64`, as the reference does, and stored as `f32`.
//!
//! # Source
//! python_speech_features 0.6 (`logfbank`, `mfcc` with their defaults at 16 kHz); stacking and row normalisation of
//! AV-HuBERT's `hubert_dataset.py`.

use std::f64::consts::PI;
use std::sync::Arc;

use burn::tensor::{DType, Device, Tensor, TensorData};
use rustfft::num_complex::Complex;
use rustfft::{Fft, FftPlanner};

/// Speech is 16 kHz mono.
pub const SAMPLE_RATE_HZ: usize = 16_000;
/// Bands of the filter bank.
pub const NUM_BANDS: usize = 26;
/// Filter-bank frames (10 ms each) in one row.
pub const FRAMES_PER_ROW: usize = 4;
/// Length of a row.
pub const FEATURES_PER_ROW: usize = NUM_BANDS * FRAMES_PER_ROW;
/// Samples that one row, and one video frame at 25 fps, stands for.
pub const SAMPLES_PER_ROW: usize = FRAMES_PER_ROW * FRAME_STEP;
/// Coefficients of a cepstrum, for SyncNet.
pub const NUM_CEPSTRA: usize = 13;

const FRAME_LEN: usize = 400;
const FRAME_STEP: usize = 160;
const FFT_LEN: usize = 512;
const FFT_BINS: usize = FFT_LEN / 2 + 1;
const PRE_EMPHASIS: f64 = 0.97;
const LIFTER: f64 = 22.0;
const ROW_NORM_EPS: f64 = 1e-5;

/// Filter-bank energies (natural logarithm) of one 10 ms frame.
pub type Bands = [f32; NUM_BANDS];
/// The features of one video frame.
pub type SpeechRow = [f32; FEATURES_PER_ROW];

/// The rows of an utterance, fitted to `num_frames` video frames: filter bank, stacking, row normalisation.
///
/// # Shapes
/// 16 kHz mono samples, as integers -> [num_frames, 104]
pub fn speech_rows(samples: &[i16], num_frames: usize) -> Vec<SpeechRow> {
    let mut rows = stack(&log_filterbank(samples));
    rows.iter_mut().for_each(normalise);
    fit(rows, num_frames)
}

/// Rows on a device.
///
/// # Shapes
/// [rows, 104]
pub fn rows_to_tensor(rows: &[SpeechRow], device: &Device) -> Tensor<2> {
    let values = rows.as_flattened().to_vec();
    Tensor::from_data(TensorData::new(values, [rows.len(), FEATURES_PER_ROW]), (device, DType::F32))
}

/// Log filter-bank energies, one frame of 25 ms every 10 ms; the tail is padded with zeros.
pub fn log_filterbank(samples: &[i16]) -> Vec<Bands> {
    let banks = FilterBank::new();
    power_frames(samples).map(|frame| banks.log_energies(&frame.power).map(|value| value as f32)).collect()
}

/// Mel-frequency cepstra, `N` (up to 26) to a 10 ms frame, the first replaced by the logarithm of the frame's energy.
///
/// # Source
/// python_speech_features `mfcc` with `numcep = N` (13 by default), lifter 22, orthonormal DCT-II.
pub fn mfcc<const N: usize>(samples: &[i16]) -> Vec<[f32; N]> {
    const { assert!(N >= 1 && N <= NUM_BANDS) };
    let banks = FilterBank::new();
    let cepstrum = |frame: PowerFrame| {
        let bands = banks.log_energies(&frame.power);
        let mut cepstra = [0.0; N];
        cepstra[0] = positive(frame.power.iter().sum()).ln() as f32;
        for (k, value) in cepstra.iter_mut().enumerate().skip(1) {
            let angle = PI * k as f64 / NUM_BANDS as f64;
            let sum: f64 = bands.iter().enumerate().map(|(n, band)| band * (angle * (n as f64 + 0.5)).cos()).sum();
            let lift = 1.0 + LIFTER / 2.0 * (PI * k as f64 / LIFTER).sin();
            *value = (sum * (2.0 / NUM_BANDS as f64).sqrt() * lift) as f32;
        }
        cepstra
    };
    power_frames(samples).map(cepstrum).collect()
}

/// Four frames to a row; missing frames of the last row are zero.
pub fn stack(frames: &[Bands]) -> Vec<SpeechRow> {
    let row = |frames: &[Bands]| {
        let mut row = [0.0; FEATURES_PER_ROW];
        row[..frames.len() * NUM_BANDS].copy_from_slice(frames.as_flattened());
        row
    };
    frames.chunks(FRAMES_PER_ROW).map(row).collect()
}

/// Layer norm of one row, without affine parameters. A row of equal values, such as digital silence, becomes zero.
///
/// # Source
/// The original normalises in `f32`; its rounding leaves up to 1e-3 in rows of equal values, here they are exact.
pub fn normalise(row: &mut SpeechRow) {
    if row.iter().all(|value| *value == row[0]) {
        *row = [0.0; FEATURES_PER_ROW];
        return;
    }
    let len = FEATURES_PER_ROW as f64;
    let mean = row.iter().map(|value| f64::from(*value)).sum::<f64>() / len;
    let variance = row.iter().map(|value| (f64::from(*value) - mean).powi(2)).sum::<f64>() / len;
    let scale = 1.0 / (variance + ROW_NORM_EPS).sqrt();
    row.iter_mut().for_each(|value| *value = ((f64::from(*value) - mean) * scale) as f32);
}

/// Cuts rows off the end, or adds zero rows there.
pub fn fit(mut rows: Vec<SpeechRow>, num_frames: usize) -> Vec<SpeechRow> {
    rows.resize(num_frames, [0.0; FEATURES_PER_ROW]);
    rows
}

struct PowerFrame {
    power: [f64; FFT_BINS],
}

/// Power spectra of the pre-emphasised signal.
fn power_frames(samples: &[i16]) -> impl Iterator<Item = PowerFrame> + '_ {
    let fft: Arc<dyn Fft<f64>> = FftPlanner::new().plan_fft_forward(FFT_LEN);
    let mut scratch = vec![Complex::default(); fft.get_inplace_scratch_len()];
    let mut buffer = vec![Complex::default(); FFT_LEN];
    let count = 1 + samples.len().saturating_sub(FRAME_LEN).div_ceil(FRAME_STEP);
    (0..count).map(move |frame| {
        buffer.fill(Complex::default());
        let start = frame * FRAME_STEP;
        let end = samples.len().min(start + FRAME_LEN);
        for (slot, i) in buffer.iter_mut().zip(start..end) {
            let before = if i == 0 { 0.0 } else { f64::from(samples[i - 1]) };
            slot.re = f64::from(samples[i]) - PRE_EMPHASIS * before;
        }
        fft.process_with_scratch(&mut buffer, &mut scratch);
        PowerFrame { power: std::array::from_fn(|bin| buffer[bin].norm_sqr() / FFT_LEN as f64) }
    })
}

/// Triangular filters, evenly spaced in mel from 0 to 8 kHz: per filter its first bin and its weights.
struct FilterBank {
    filters: Vec<(usize, Vec<f64>)>,
}

impl FilterBank {
    fn new() -> Self {
        let mel = |hz: f64| 2595.0 * (1.0 + hz / 700.0).log10();
        let hz = |mel: f64| 700.0 * (10f64.powf(mel / 2595.0) - 1.0);
        let highest = mel(SAMPLE_RATE_HZ as f64 / 2.0);
        let edge = |i: usize| {
            let hz = hz(highest * i as f64 / (NUM_BANDS + 1) as f64);
            ((FFT_LEN + 1) as f64 * hz / SAMPLE_RATE_HZ as f64).floor() as usize
        };
        let edges: Vec<usize> = (0..NUM_BANDS + 2).map(edge).collect();
        let filter = |edges: &[usize]| {
            let (low, middle, high) = (edges[0], edges[1], edges[2]);
            let rising = (low..middle).map(|i| (i - low) as f64 / (middle - low) as f64);
            let falling = (middle..high).map(|i| (high - i) as f64 / (high - middle) as f64);
            (low, rising.chain(falling).collect())
        };
        Self { filters: edges.windows(3).map(filter).collect() }
    }

    fn log_energies(&self, power: &[f64; FFT_BINS]) -> [f64; NUM_BANDS] {
        std::array::from_fn(|band| {
            let (low, weights) = &self.filters[band];
            positive(weights.iter().zip(&power[*low..]).map(|(weight, power)| weight * power).sum()).ln()
        })
    }
}

/// An energy of exactly zero has no logarithm; the reference puts the smallest step of `f64` there.
fn positive(energy: f64) -> f64 {
    if energy == 0.0 { f64::EPSILON } else { energy }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// METHOD 22 A.
    pub(crate) fn oracle_signal() -> Vec<i16> {
        let tone = |n: f64, hz: f64| (2.0 * PI * hz * n / 16_000.0).sin();
        let sample = |n: usize| 8000.0 * tone(n as f64, 440.0) + 4000.0 * tone(n as f64, 1234.5);
        (0..16_000).map(|n| sample(n).round_ties_even() as i16).collect()
    }

    fn assert_begins(row: &[f32], want: &[f32], tolerance: f32) {
        for (got, want) in row.iter().zip(want) {
            assert!((got - want).abs() <= tolerance, "{got} {want}");
        }
    }

    #[test]
    fn log_filterbank_oracle() {
        let bands = log_filterbank(&oracle_signal());
        assert_eq!(bands.len(), 99);
        let mean = bands.as_flattened().iter().map(|value| f64::from(*value)).sum::<f64>() / (99.0 * 26.0);
        assert!((mean - 13.300819).abs() < 1e-6, "{mean}");
        assert_begins(&bands[0], &[12.46119, 12.49445, 13.72032, 15.09723, 18.51874, 18.02561], 1e-5);
        assert_begins(&bands[50], &[10.52445, 11.41073, 13.15418, 14.96071, 18.52189, 18.04864], 1e-5);
        assert_begins(&bands[50][25..], &[12.13874], 1e-5);
    }

    #[test]
    fn rows_oracle() {
        let rows = speech_rows(&oracle_signal(), 25);
        assert_eq!(rows.len(), 25);
        assert_begins(&rows[0], &[-0.45107, -0.43765, 0.05676, 0.61210], 1e-5);
        assert_begins(&rows[10], &[-0.03349, -0.16253, 0.24245, 0.71642], 1e-5);
    }

    #[test]
    fn cepstrum_oracle() {
        let cepstra = mfcc::<NUM_CEPSTRA>(&oracle_signal());
        assert_eq!(cepstra.len(), 99);
        let first = [
            20.1110, 15.9191, -14.0838, -21.6733, -6.9614, -2.3303, -22.7858, -41.7665, -24.0322, 18.9447, 43.9170,
            28.4049, -2.1052,
        ];
        let later = [
            20.1172, 12.6285, -18.0414, -26.6284, -13.0158, -8.5518, -28.0090, -45.6659, -27.1152, 15.9340, 41.1352,
            26.0546, -3.8333,
        ];
        assert_begins(&cepstra[0], &first, 1e-4);
        assert_begins(&cepstra[50], &later, 1e-4);
    }

    #[test]
    fn filters_have_the_stated_widths() {
        let widths = [3, 4, 5, 5, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 16, 18, 19, 21, 24, 26, 29, 32, 35, 39, 42, 46];
        let banks = FilterBank::new();
        let nonzero = banks.filters.iter().map(|(_, weights)| weights.iter().filter(|weight| **weight != 0.0).count());
        assert!(nonzero.eq(widths));
    }

    #[test]
    fn digital_silence_is_exactly_zero() {
        let bands = log_filterbank(&[0; 400]);
        assert_eq!(bands.len(), 1);
        assert_begins(&bands[0], &[-36.04365; 26], 1e-5);
        // 98 frames would be 25 rows with a partly empty last one, which is not constant; 96 make 24 full rows.
        assert_eq!(log_filterbank(&[0; 15_600]).len(), 96);
        assert!(speech_rows(&[0; 15_600], 30).as_flattened().iter().all(|value| *value == 0.0));
    }

    #[test]
    fn any_length_gives_the_wanted_number_of_rows() {
        for samples in [0, 1, 399, 400, 401, 641, 5000] {
            assert_eq!(speech_rows(&vec![100; samples], 7).len(), 7);
        }
        let expected = |samples: usize| if samples <= 400 { 1 } else { 1 + (samples - 400).div_ceil(160) };
        for samples in [0, 1, 400, 401, 560, 561, 16_000] {
            assert_eq!(log_filterbank(&vec![1; samples]).len(), expected(samples));
        }
        assert_eq!(speech_rows(&[5; 6400], 20)[11..], [[0.0; FEATURES_PER_ROW]; 9]);
    }
}
