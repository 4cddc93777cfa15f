//! Wav2Lip's front end: mel spectrogram of 16 kHz speech at 80 columns a second, and which columns go with which frame.
//!
//! Computed in `f64` and stored as `f32`.
//!
//! # Source
//! Wav2Lip `audio.py`, `hparams.py` (whose figures these are), `wav2lip_train.py`, `inference.py`; librosa's `stft` and
//! `filters.mel` (Slaney).

use std::f64::consts::PI;

use rustfft::FftPlanner;
use rustfft::num_complex::Complex;

use crate::audio::filterbank::SAMPLE_RATE_HZ;

/// Mel bands.
pub const NUM_MELS: usize = 80;
/// Columns a second.
pub const COLUMNS_PER_SECOND: usize = 80;
/// Columns that the networks see at a time: 0.2 s.
pub const CHUNK_COLUMNS: usize = 16;
/// Video frames of a chunk of the sync expert.
pub const CHUNK_FRAMES: usize = 5;

const FFT_LEN: usize = 800;
const FFT_BINS: usize = FFT_LEN / 2 + 1;
const HOP: usize = SAMPLE_RATE_HZ / COLUMNS_PER_SECOND;
const PRE_EMPHASIS: f64 = 0.97;
const LOWEST_HZ: f64 = 55.0;
const HIGHEST_HZ: f64 = 7600.0;
const MIN_LEVEL_DB: f64 = -100.0;
const REFERENCE_LEVEL_DB: f64 = 20.0;
const MAX_VALUE: f64 = 4.0;
/// Frame rate of Wav2Lip's training data.
const TRAINING_FPS: f64 = 25.0;

/// What lies beyond the ends of the signal; the first and the last four columns depend on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Edges {
    /// The signal mirrored at its first and last sample: librosa 0.7, which Wav2Lip was trained with.
    Reflect,
    /// Zeros: librosa from 0.10 on.
    Zeros,
}

/// A mel spectrogram, values -4 to 4.
#[derive(Clone, Debug, PartialEq)]
pub struct MelSpectrogram {
    columns: Vec<[f32; NUM_MELS]>,
}

impl MelSpectrogram {
    /// Of 16 kHz mono samples in -1 to 1: one column more than there are whole 12.5 ms.
    pub fn new(samples: &[f32], edges: Edges) -> Self {
        let emphasised = |i: usize| {
            let before = if i == 0 { 0.0 } else { f64::from(samples[i - 1]) };
            f64::from(samples[i]) - PRE_EMPHASIS * before
        };
        let signal: Vec<f64> = (0..samples.len()).map(emphasised).collect();
        let at = |i: isize| match usize::try_from(i) {
            Ok(i) if i < signal.len() => signal[i],
            _ if edges == Edges::Zeros || signal.is_empty() => 0.0,
            _ => signal[mirrored(i, signal.len())],
        };
        let window: Vec<f64> = (0..FFT_LEN).map(|i| 0.5 - 0.5 * (2.0 * PI * i as f64 / FFT_LEN as f64).cos()).collect();
        let filters = mel_filters();
        let fft = FftPlanner::new().plan_fft_forward(FFT_LEN);
        let mut scratch = vec![Complex::default(); fft.get_inplace_scratch_len()];
        let mut buffer = vec![Complex::default(); FFT_LEN];
        let column = |column: usize| {
            let start = (column * HOP) as isize - (FFT_LEN / 2) as isize;
            for (i, (slot, weight)) in buffer.iter_mut().zip(&window).enumerate() {
                *slot = Complex::new(at(start + i as isize) * weight, 0.0);
            }
            fft.process_with_scratch(&mut buffer, &mut scratch);
            let magnitude: Vec<f64> = buffer[..FFT_BINS].iter().map(|value| value.norm()).collect();
            std::array::from_fn(|band| {
                normalised(filters[band].iter().zip(&magnitude).map(|(weight, value)| weight * value).sum())
            })
        };
        Self { columns: (0..=samples.len() / HOP).map(column).collect() }
    }

    /// The columns, 80 a second.
    pub fn columns(&self) -> &[[f32; NUM_MELS]] {
        &self.columns
    }

    /// The chunk that begins at column `start`, band by band; `None` when it does not lie within the spectrogram.
    ///
    /// # Shapes
    /// [80, 16] row-major
    pub fn chunk(&self, start: usize) -> Option<Vec<f32>> {
        let columns = self.columns.get(start..start.checked_add(CHUNK_COLUMNS)?)?;
        Some((0..NUM_MELS).flat_map(|band| columns.iter().map(move |column| column[band])).collect())
    }
}

/// Amplitude to decibels, shifted, then -100 to 0 dB onto -4 to 4.
fn normalised(amplitude: f64) -> f32 {
    let lowest = 10f64.powf(MIN_LEVEL_DB / 20.0);
    let db = 20.0 * amplitude.max(lowest).log10() - REFERENCE_LEVEL_DB;
    let value = 2.0 * MAX_VALUE * ((db - MIN_LEVEL_DB) / -MIN_LEVEL_DB) - MAX_VALUE;
    value.clamp(-MAX_VALUE, MAX_VALUE) as f32
}

/// Index of a signal that is mirrored at its ends without repeating them, as often as needed.
fn mirrored(i: isize, len: usize) -> usize {
    if len == 1 {
        return 0;
    }
    let period = 2 * (len as isize - 1);
    let i = i.rem_euclid(period);
    i.min(period - i) as usize
}

/// Slaney's mel filters with equal areas: a row for each band.
pub fn mel_filters() -> Vec<[f64; FFT_BINS]> {
    let (lowest, highest) = (mel_of_hz(LOWEST_HZ), mel_of_hz(HIGHEST_HZ));
    let edge = |i: usize| hz_of_mel(lowest + (highest - lowest) * i as f64 / (NUM_MELS + 1) as f64);
    let filter = |band: usize| {
        let [low, middle, high] = [edge(band), edge(band + 1), edge(band + 2)];
        std::array::from_fn(|bin| {
            let hz = bin as f64 * SAMPLE_RATE_HZ as f64 / FFT_LEN as f64;
            let rising = (hz - low) / (middle - low);
            let falling = (high - hz) / (high - middle);
            rising.min(falling).max(0.0) * 2.0 / (high - low)
        })
    };
    (0..NUM_MELS).map(filter).collect()
}

/// Slaney's mel scale: linear up to 1 kHz, logarithmic above.
const HZ_PER_MEL: f64 = 200.0 / 3.0;
const BEND_HZ: f64 = 1000.0;
const BEND_MEL: f64 = BEND_HZ / HZ_PER_MEL;
/// 27 mel for a factor of 6.4.
fn log_step() -> f64 {
    6.4f64.ln() / 27.0
}

fn mel_of_hz(hz: f64) -> f64 {
    if hz < BEND_HZ { hz / HZ_PER_MEL } else { BEND_MEL + (hz / BEND_HZ).ln() / log_step() }
}

fn hz_of_mel(mel: f64) -> f64 {
    if mel < BEND_MEL { mel * HZ_PER_MEL } else { BEND_HZ * (log_step() * (mel - BEND_MEL)).exp() }
}

/// First column of the chunk that the sync expert sees with frames `frame .. frame + 5`, at 25 fps.
pub fn sync_chunk_start(frame: usize) -> usize {
    (COLUMNS_PER_SECOND as f64 * (frame as f64 / TRAINING_FPS)) as usize
}

/// First columns of the chunks of frames `frame .. frame + 5` in the training of the generator, at 25 fps: each
/// starts one frame early. `None` for frame 0, which has no frame before it.
pub fn training_chunk_starts(frame: usize) -> Option<[usize; CHUNK_FRAMES]> {
    let before = frame.checked_sub(1)?;
    Some(std::array::from_fn(|k| sync_chunk_start(before + k)))
}

/// First columns of the chunks in generation, one for each frame that the sound lasts for; the last chunk is the last
/// that fits, whatever its frame. Empty when there are fewer than 16 columns or the frame rate is not positive.
pub fn inference_chunk_starts(num_columns: usize, fps: f64) -> Vec<usize> {
    let Some(last) = num_columns.checked_sub(CHUNK_COLUMNS) else { return Vec::new() };
    let columns_per_frame = COLUMNS_PER_SECOND as f64 / fps;
    if !columns_per_frame.is_finite() || columns_per_frame <= 0.0 {
        return Vec::new();
    }
    let starts = (0..).map(|frame| (f64::from(frame) * columns_per_frame) as usize);
    starts.take_while(|start| *start <= last).chain([last]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_is_the_lowest_value_and_a_tone_stands_out_in_its_band() {
        let silent = MelSpectrogram::new(&[0.0; 1600], Edges::Reflect);
        assert_eq!(silent.columns().len(), 9);
        assert!(silent.columns().iter().flatten().all(|value| *value == -4.0));
        let tone: Vec<f32> = (0..8000).map(|i| (2.0 * PI * 440.0 * f64::from(i) / 16_000.0).sin() as f32).collect();
        let mel = MelSpectrogram::new(&tone, Edges::Zeros);
        let middle = mel.columns()[20];
        let loudest = (0..NUM_MELS).max_by(|a, b| middle[*a].total_cmp(&middle[*b])).unwrap();
        let filters = mel_filters();
        // Bin 22 is 440 Hz.
        assert!(filters[loudest][22] > 0.0, "band {loudest}");
    }

    #[test]
    fn short_signals_are_mirrored_as_often_as_needed() {
        assert_eq!([-1, -2, -3, -4, 3, 4, 5].map(|i| mirrored(i, 3)), [1, 2, 1, 0, 1, 0, 1]);
        for len in [0, 1, 2, 199, 200] {
            let mel = MelSpectrogram::new(&vec![0.5; len], Edges::Reflect);
            assert_eq!(mel.columns().len(), 1 + len / 200);
            assert!(mel.columns().iter().flatten().all(|value| value.is_finite()));
        }
    }

    #[test]
    fn chunks_hold_their_columns_band_by_band() {
        let columns = (0..20).map(|column| std::array::from_fn(|band| (100 * band + column) as f32)).collect();
        let mel = MelSpectrogram { columns };
        let chunk = mel.chunk(4).unwrap();
        assert_eq!(chunk.len(), 80 * 16);
        assert_eq!(chunk[16 * 3 + 2], 306.0);
        assert!(mel.chunk(5).is_none() && mel.chunk(usize::MAX).is_none());
    }

    #[test]
    fn too_short_a_sound_has_no_chunk() {
        assert!(inference_chunk_starts(15, 25.0).is_empty());
        assert!(inference_chunk_starts(100, 0.0).is_empty());
        assert_eq!(inference_chunk_starts(16, 25.0), [0, 0]);
    }
}
