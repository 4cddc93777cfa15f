//! Trains the speech encoder to foretell the shape of the lips, before it conditions the denoiser.
//!
//! AV-HuBERT is pre-trained on thousands of hours of audio-visual speech; a small encoder on an hour of it needs a
//! more direct teacher. The teacher is the face mesh: 40 lip landmarks and the inner-lip opening of every frame, with
//! the clip's mean removed (so that no identity is asked of the sound). The prediction head is dropped afterwards.

use crate::error::TrainResult;
use crate::seeds::mix;
use crate::trainer::{Shard, StepLoss, Task};
use burn::module::Module;
use burn::nn::{Linear, LinearConfig};
use burn::tensor::{DType, Device, Tensor, TensorData};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use syncdiff_model::audio::{
    AudioEncoder, AudioEncoderConfig, FEATURES_PER_ROW, SAMPLES_PER_ROW, log_filterbank, normalise, stack,
};

/// Values of a lip shape: x and y of 40 landmarks, then the opening.
pub const LIP_VALUES: usize = 81;

/// One clip as this task sees it.
#[derive(Clone, Debug)]
pub struct SpeechClip {
    /// 16 kHz mono.
    pub samples: Vec<i16>,
    /// Lip shape per model frame, centred on the clip's mean and scaled to about unit variance.
    pub shapes: Vec<[f32; LIP_VALUES]>,
    /// Whether the frame has a face.
    pub valid: Vec<bool>,
}

impl SpeechClip {
    /// Centres the shapes on their mean over valid frames and scales them: landmarks are in units of the crop's side
    /// (a mouth moves by about 0.02), the opening in eye distances (about 0.05).
    pub fn new(samples: Vec<i16>, mut shapes: Vec<[f32; LIP_VALUES]>, valid: Vec<bool>) -> Self {
        let count = valid.iter().filter(|v| **v).count().max(1) as f32;
        let mut mean = [0f32; LIP_VALUES];
        for (shape, _) in shapes.iter().zip(&valid).filter(|(_, valid)| **valid) {
            mean.iter_mut().zip(shape).for_each(|(m, s)| *m += s / count);
        }
        for shape in &mut shapes {
            for (i, (value, mean)) in shape.iter_mut().zip(mean).enumerate() {
                let scale = if i + 1 == LIP_VALUES { 20.0 } else { 50.0 };
                *value = ((*value - mean) * scale).clamp(-6.0, 6.0);
            }
        }
        Self { samples, shapes, valid }
    }
}

/// Encoder and prediction head.
#[derive(Module, Debug)]
pub struct LipReader {
    /// The part that is kept.
    pub audio: AudioEncoder,
    head: Linear,
}

impl LipReader {
    /// Random weights from the device's generator.
    ///
    /// # Errors
    /// When the sizes of the encoder do not fit each other.
    pub fn new(config: &AudioEncoderConfig, device: &Device) -> TrainResult<Self> {
        Ok(Self { audio: config.init(device)?, head: LinearConfig::new(config.dim, LIP_VALUES).init(device) })
    }
}

/// The task of [`crate::train`].
pub struct SpeechTask<'a> {
    /// Utterances per step.
    pub batch_size: usize,
    /// Seed of the run.
    pub seed: u64,
    /// Where tensors live.
    pub device: Device,
    /// Training clips.
    pub clips: &'a [SpeechClip],
    /// Held-out clips.
    pub valid: &'a [SpeechClip],
}

/// Features of an utterance under augmentation: white noise at a random level, and a random smooth equaliser on the
/// log bands (another microphone). `None` leaves the sound alone.
fn features(samples: &[i16], frames: usize, random: Option<&mut ChaCha8Rng>) -> Vec<f32> {
    let mut bands;
    match random {
        None => bands = log_filterbank(samples),
        Some(random) => {
            let power = samples.iter().map(|s| f64::from(*s).powi(2)).sum::<f64>() / samples.len().max(1) as f64;
            let noise_rms = (power.sqrt() * 10f64.powf(-random.random_range(5.0..35.0) / 20.0)) as f32;
            let noisy: Vec<i16> = if random.random_bool(0.6) {
                // The sum of two uniform numbers is close enough to a normal one; its deviation is 0.41.
                let mut noise = || (random.random::<f32>() + random.random::<f32>() - 1.0) * noise_rms / 0.41;
                samples.iter().map(|s| (f32::from(*s) + noise()).clamp(-32768.0, 32767.0) as i16).collect()
            } else {
                samples.to_vec()
            };
            bands = log_filterbank(&noisy);
            let (tilt, bend, phase) = (
                random.random_range(-1.5..1.5f32),
                random.random_range(-1.0..1.0f32),
                random.random_range(0.0..6.3f32),
            );
            for frame in &mut bands {
                for (i, band) in frame.iter_mut().enumerate() {
                    let x = i as f32 / 25.0;
                    *band += tilt * (x - 0.5) + bend * (6.3 * x + phase).sin();
                }
            }
        }
    }
    let mut rows = stack(&bands);
    rows.iter_mut().for_each(normalise);
    rows.resize(frames, [0.0; FEATURES_PER_ROW]);
    rows.into_iter().flatten().collect()
}

/// One batch on the device.
struct Batch {
    rows: Tensor<3>,
    lengths: Vec<usize>,
    shapes: Tensor<3>,
    /// 1 where a frame counts.
    weights: Tensor<3>,
}

impl SpeechTask<'_> {
    fn batch(&self, clips: &[&SpeechClip], mut random: Option<&mut ChaCha8Rng>, device: &Device) -> Batch {
        let lengths: Vec<usize> =
            clips.iter().map(|clip| clip.shapes.len().min(clip.samples.len() / SAMPLES_PER_ROW).max(1)).collect();
        let time = *lengths.iter().max().expect("at least one clip");
        let (mut rows, mut shapes, mut weights) = (Vec::new(), Vec::new(), Vec::new());
        for (clip, &length) in clips.iter().zip(&lengths) {
            let mut part = features(
                &clip.samples[..(length * SAMPLES_PER_ROW).min(clip.samples.len())],
                length,
                random.as_deref_mut(),
            );
            part.resize(time * FEATURES_PER_ROW, 0.0);
            rows.extend(part);
            for t in 0..time {
                let inside = t < length && clip.valid[t];
                weights.push(if inside { 1.0f32 } else { 0.0 });
                shapes.extend(if inside { clip.shapes[t] } else { [0.0; LIP_VALUES] });
            }
        }
        let batch = clips.len();
        Batch {
            rows: Tensor::from_data(TensorData::new(rows, [batch, time, FEATURES_PER_ROW]), (device, DType::F32)),
            shapes: Tensor::from_data(TensorData::new(shapes, [batch, time, LIP_VALUES]), (device, DType::F32)),
            weights: Tensor::from_data(TensorData::new(weights, [batch, time, 1]), (device, DType::F32)),
            lengths,
        }
    }
}

impl Task<LipReader> for SpeechTask<'_> {
    fn loss(&self, model: &LipReader, step: u64, _whole: Shard) -> TrainResult<StepLoss> {
        let mut random = ChaCha8Rng::seed_from_u64(mix(self.seed, step, 0));
        // Dropout draws from the device's generator, whose state cannot be saved: it starts anew at every step.
        self.device.seed(mix(self.seed, step, 1));
        let clips: Vec<_> =
            (0..self.batch_size).map(|_| &self.clips[random.random_range(0..self.clips.len())]).collect();
        let batch = self.batch(&clips, Some(&mut random), &self.device);
        let predicted = model.head.forward(model.audio.forward(batch.rows, Some(&batch.lengths)));
        let error = (predicted - batch.shapes).powi_scalar(2) * batch.weights.clone();
        // The opening is one value among 81, and the one that a viewer judges sync by.
        let opening = error.clone().narrow(2, LIP_VALUES - 1, 1).sum();
        let count = batch.weights.sum();
        let loss = (error.sum() / LIP_VALUES as f64 + opening * 0.25) / count;
        Ok(StepLoss { loss, parts: Vec::new() })
    }

    /// Mean over clips of the correlation over time between predicted and true opening.
    fn validate(&self, shadow: &LipReader) -> TrainResult<Vec<(&'static str, f32)>> {
        let device = self.device.clone().inner();
        let (mut sum, mut count) = (0.0, 0);
        for clip in self.valid {
            let batch = self.batch(&[clip], None, &device);
            let predicted = shadow.head.forward(shadow.audio.forward(batch.rows, Some(&batch.lengths)));
            let opening = predicted.narrow(2, LIP_VALUES - 1, 1).into_data().convert::<f32>();
            let opening = opening.try_into_vec::<f32>().expect("converted to f32");
            let pairs: Vec<(f32, f32)> = opening
                .iter()
                .zip(clip.shapes.iter().zip(&clip.valid))
                .filter(|(_, (_, valid))| **valid)
                .map(|(a, (shape, _))| (*a, shape[LIP_VALUES - 1]))
                .collect();
            if let Some(r) = correlation(&pairs) {
                sum += r;
                count += 1;
            }
        }
        Ok(vec![("opening_correlation", sum / count.max(1) as f32)])
    }
}

/// Pearson's correlation; `None` when one side is constant.
pub(crate) fn correlation(pairs: &[(f32, f32)]) -> Option<f32> {
    let n = pairs.len() as f64;
    if pairs.len() < 3 {
        return None;
    }
    let (ma, mb) = pairs.iter().fold((0.0, 0.0), |(a, b), (x, y)| (a + f64::from(*x) / n, b + f64::from(*y) / n));
    let (mut aa, mut bb, mut ab) = (0.0, 0.0, 0.0);
    for (x, y) in pairs {
        let (x, y) = (f64::from(*x) - ma, f64::from(*y) - mb);
        aa += x * x;
        bb += y * y;
        ab += x * y;
    }
    (aa > 1e-12 && bb > 1e-12).then(|| (ab / (aa * bb).sqrt()) as f32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn correlation_of_a_line_and_of_a_constant() {
        assert!((correlation(&[(0.0, 1.0), (1.0, 3.0), (2.0, 5.0)]).unwrap() - 1.0).abs() < 1e-6);
        assert!(correlation(&[(0.0, 1.0), (1.0, 1.0), (2.0, 1.0)]).is_none());
    }

    #[test]
    fn shapes_are_centred_on_valid_frames() {
        let mut shapes = vec![[0.5f32; LIP_VALUES]; 3];
        shapes[1] = [0.52; LIP_VALUES];
        shapes[2] = [9.0; LIP_VALUES];
        let clip = SpeechClip::new(vec![0; 1920], shapes, vec![true, true, false]);
        assert!((clip.shapes[0][0] + 0.5).abs() < 1e-4 && (clip.shapes[1][0] - 0.5).abs() < 1e-4);
        assert_eq!(clip.shapes[2][0], 6.0);
    }

    #[test]
    fn augmentation_keeps_the_number_of_rows() {
        let samples: Vec<i16> = (0..6400).map(|i| ((i as f32 * 0.2).sin() * 4000.0) as i16).collect();
        let mut random = ChaCha8Rng::seed_from_u64(1);
        assert_eq!(features(&samples, 10, None).len(), 10 * FEATURES_PER_ROW);
        let changed = features(&samples, 10, Some(&mut random));
        assert_eq!(changed.len(), 10 * FEATURES_PER_ROW);
        assert!(changed.iter().all(|v| v.is_finite()));
    }
}
