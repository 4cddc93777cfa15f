//! What surrounds DeepSpeech 0.1.0 in the paper's "DS" ablation: its input, and the windows of its output.
//!
//! ```text
//! contexts = deep_speech::contexts(&samples)                  [50 a second, 494], the network's input
//! logits   = DeepSpeech (TensorFlow 1, not part of syncdiff)  [50 a second, 29]
//! windows  = deep_speech::logit_windows(logits, num_frames)   [frames, 16, 29], one to a video frame at 25 fps
//! rows     = AudioNet::forward(windows)                       [frames, 128]
//! ```
//!
//! # Source
//! VOCA and AD-NeRF (`deepspeech_features.py`); DiffTalk takes AD-NeRF's.

use burn::tensor::Tensor;

use crate::audio::audio_net::NUM_LOGIT_ROWS;
use crate::audio::filterbank::{NUM_BANDS, mfcc};
use crate::audio::window::windows;

/// Cepstra on each side of a row.
const CONTEXT: usize = 9;
/// Cepstra in one row.
const ROW_LEN: usize = 2 * CONTEXT + 1;
/// Length of a row: 19 cepstra of 26 coefficients.
pub const FEATURES_PER_CONTEXT: usize = ROW_LEN * NUM_BANDS;
/// Cepstra come at 100 Hz; every second one is used.
const STRIDE: usize = 2;
/// Logits come at 50 Hz, video frames at 25.
const LOGITS_PER_FRAME: usize = 2;

/// DeepSpeech's input: every second cepstrum with the nine before and after it (zeros outside the utterance), made to
/// mean 0 and deviation 1 over the whole utterance. A constant utterance, which has no deviation, becomes zero.
///
/// # Shapes
/// 16 kHz mono samples, as integers -> [50 a second, 494]
pub fn contexts(samples: &[i16]) -> Vec<[f32; FEATURES_PER_CONTEXT]> {
    let cepstra: Vec<[f32; NUM_BANDS]> = mfcc(samples).into_iter().step_by(STRIDE).collect();
    let mut rows = vec![[0.0; FEATURES_PER_CONTEXT]; cepstra.len()];
    for (t, row) in rows.iter_mut().enumerate() {
        for (k, slot) in row.chunks_exact_mut(NUM_BANDS).enumerate() {
            if let Some(cepstrum) = (t + k).checked_sub(CONTEXT).and_then(|t| cepstra.get(t)) {
                slot.copy_from_slice(cepstrum);
            }
        }
    }
    standardise(rows.as_flattened_mut());
    rows
}

/// Population mean and deviation, in `f64`.
fn standardise(values: &mut [f32]) {
    let count = values.len() as f64;
    let mean = values.iter().map(|value| f64::from(*value)).sum::<f64>() / count;
    let variance = values.iter().map(|value| (f64::from(*value) - mean).powi(2)).sum::<f64>() / count;
    let scale = if variance > 0.0 { 1.0 / variance.sqrt() } else { 0.0 };
    values.iter_mut().for_each(|value| *value = ((f64::from(*value) - mean) * scale) as f32);
}

/// For each video frame the 16 logit rows round it, 320 ms; rows outside the utterance are zero.
///
/// # Shapes
/// logits [50 a second, 29] -> [num_frames, 16, 29]
pub fn logit_windows(logits: Tensor<2>, num_frames: usize) -> Tensor<3> {
    let centres: Vec<usize> = (0..num_frames).map(|frame| frame * LOGITS_PER_FRAME).collect();
    windows(logits, &centres, NUM_LOGIT_ROWS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audio::AudioNet;
    use crate::audio::audio_net::NUM_CHARACTERS;
    use crate::audio::filterbank::tests::oracle_signal;
    use burn::tensor::{Device, Int};

    /// Computed with python_speech_features 0.6 and numpy as VOCA does, on the signal of METHOD 22 A.
    #[test]
    fn contexts_are_those_of_the_source() {
        let rows = contexts(&oracle_signal());
        assert_eq!(rows.len(), 50);
        let close = |got: &[f32], want: &[f32]| {
            for (got, want) in got.iter().zip(want) {
                assert!((got - want).abs() < 2e-5, "{got} {want}");
            }
        };
        close(&rows[0][..2], &[0.048_470_91; 2]);
        close(&rows[0][234..240], &[1.237_905, 0.989_982, -0.784_495, -1.233_36, -0.363_249, -0.089_351]);
        close(&rows[25][..6], &[1.238_595, 1.509_878, -0.597_292, -0.946_868, 0.160_092, 0.403_606]);
        close(&rows[25][254..260], &[0.295_797, 0.170_241, 0.050_592, 0.058_16, 0.043_358, -0.008_005]);
        close(&rows[25][488..], &[0.347_798, 0.179_766, 0.049_538, 0.058_346, 0.040_747, -0.020_02]);
        close(&rows[49][488..], &[0.048_470_91; 6]);
    }

    #[test]
    fn any_utterance_has_finite_contexts() {
        for samples in [0, 1, 400, 1000] {
            let rows = contexts(&vec![0; samples]);
            assert!(!rows.is_empty() && rows.as_flattened().iter().all(|value| value.is_finite()), "{samples}");
        }
    }

    #[test]
    fn a_frame_sees_eight_logit_rows_before_its_time_and_eight_from_it_on() {
        let device = Device::default();
        let rows = Tensor::<1, Int>::arange(1..21, &device).float().reshape([20, 1]);
        let logits = rows.repeat_dim(1, NUM_CHARACTERS);
        let windows = logit_windows(logits, 10);
        let of_frame = |frame: usize| -> Vec<f32> {
            windows.clone().slice([frame..frame + 1, 0..16, 3..4]).into_data().try_to_vec().unwrap()
        };
        let expected = |frame: usize| -> Vec<f32> {
            (0..16)
                .map(|k| (2 * frame + k) as f32 - 7.0)
                .map(|row| if (1.0..=20.0).contains(&row) { row } else { 0.0 })
                .collect()
        };
        for frame in 0..10 {
            assert_eq!(of_frame(frame), expected(frame), "frame {frame}");
        }
        assert_eq!(AudioNet::new(128, &device).forward(windows).dims(), [10, 128]);
    }
}
