//! Trains the speech encoder to foretell the shape of the lips, before it conditions the denoiser.
//!
//! AV-HuBERT is pre-trained on thousands of hours of audio-visual speech; a small encoder on an hour of it needs a
//! more direct teacher. The teacher is the face mesh: 40 lip landmarks and the inner-lip opening of every frame, with
//! the clip's mean removed (so that no identity is asked of the sound). The prediction head is dropped afterwards.
//!
//! Sound and picture of a clip may be a frame or two apart ([`offset`]); the encoder learns from them as they belong
//! together, and says afterwards how far apart they were.

mod augment;
mod offset;

pub use augment::SpeechAugmentation;
pub use offset::{ClipOffset, read_offsets, write_offsets};

use crate::best::Measure;
use crate::error::TrainResult;
use crate::images::stored;
use crate::seeds::mix;
use crate::trainer::{Shard, StepLoss, Task};
use burn::module::Module;
use burn::nn::{Linear, LinearConfig};
use burn::tensor::{DType, Device, Tensor, TensorData};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::ops::Range;
use syncdiff_model::audio::{
    AudioEncoder, AudioEncoderConfig, FEATURES_PER_ROW, Moonshine, SAMPLES_PER_ROW, moonshine,
};
use syncdiff_model::weights::TensorMap;

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

    /// The lips that go with the sound of frame `t` where the picture lags by `frames`; `None` outside the clip and
    /// without a face.
    fn at(&self, t: usize, frames: isize) -> Option<&[f32; LIP_VALUES]> {
        let t = t.checked_add_signed(frames)?;
        self.valid.get(t).is_some_and(|v| *v).then(|| &self.shapes[t])
    }
}

/// Weight of the opening beside the mean over all values of a lip shape.
const OPENING_WEIGHT: f64 = 0.25;

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

/// Settings of the speech encoder's training.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SpeechTraining {
    /// Largest distance, in frames, at which the lips that belong to a sound are looked for; 0 trusts every clip.
    pub offset_frames: usize,
    /// Step at which the search begins: before, the encoder has nothing to search with.
    pub offset_from: u64,
    /// Changes of the sound.
    pub augment: SpeechAugmentation,
}

/// The task of [`crate::train`].
pub struct SpeechTask<'a> {
    /// Settings.
    pub settings: SpeechTraining,
    /// Utterances per step.
    pub batch_size: usize,
    /// Seed of the run.
    pub seed: u64,
    /// Where tensors live.
    pub device: Device,
    /// What hears the sound before the encoder, frozen; none where that is the filter bank.
    pub moonshine: Option<Moonshine>,
    /// Training clips.
    pub clips: &'a [SpeechClip],
    /// Held-out clips.
    pub valid: &'a [SpeechClip],
}

/// The sound of one batch on the device.
struct Sounds {
    /// [batch, time, features]
    rows: Tensor<3>,
    lengths: Vec<usize>,
    time: usize,
}

fn num_rows(clip: &SpeechClip) -> usize {
    clip.shapes.len().min(clip.samples.len() / SAMPLES_PER_ROW).max(1)
}

impl SpeechTask<'_> {
    fn sounds(&self, clips: &[Cow<'_, SpeechClip>], mut random: Option<&mut ChaCha8Rng>, device: &Device) -> Sounds {
        let lengths: Vec<usize> = clips.iter().map(|clip| num_rows(clip)).collect();
        let time = *lengths.iter().max().expect("at least one clip");
        let width = self.moonshine.as_ref().map_or(FEATURES_PER_ROW, |_| moonshine::ROW_WIDTH);
        let mut rows = Vec::with_capacity(clips.len() * time * width);
        for (clip, &length) in clips.iter().zip(&lengths) {
            let samples = &clip.samples[..(length * SAMPLES_PER_ROW).min(clip.samples.len())];
            let augment = &self.settings.augment;
            let mut part = match (&self.moonshine, random.as_deref_mut()) {
                (Some(net), Some(random)) => self.heard(net, &augment.waveform(samples, random), length),
                (Some(net), None) => self.heard(net, samples, length),
                (None, Some(random)) => augment.features(samples, length, random),
                (None, None) => augment::plain_features(samples, length),
            };
            part.resize(time * width, 0.0);
            rows.extend(part);
        }
        let rows = TensorData::new(rows, [clips.len(), time, width]);
        Sounds { rows: Tensor::from_data(rows, (device, DType::F32)), lengths, time }
    }

    fn heard(&self, net: &Moonshine, samples: &[i16], frames: usize) -> Vec<f32> {
        let rows = net.rows(samples, frames, &self.device.clone().inner());
        rows.into_data().convert::<f32>().try_into_vec().expect("converted to f32")
    }

    /// Some clips of a step, and how they sound.
    fn batch(&self, step: u64, samples: Range<usize>) -> (Vec<Cow<'_, SpeechClip>>, Sounds) {
        let mut random = ChaCha8Rng::seed_from_u64(mix(self.seed, step, 0));
        let clips: Vec<Cow<'_, SpeechClip>> = (0..samples.end)
            .map(|_| {
                let clip = &self.clips[random.random_range(0..self.clips.len())];
                self.settings.augment.change_speed(clip, &mut random)
            })
            .skip(samples.start)
            .collect();
        let sounds = self.sounds(&clips, Some(&mut random), &self.device);
        (clips, sounds)
    }

    /// Foretold lip shapes, [batch, time, [`LIP_VALUES`]].
    fn predict(model: &LipReader, sounds: &Sounds) -> Tensor<3> {
        model.head.forward(model.audio.forward(sounds.rows.clone(), Some(&sounds.lengths)))
    }

    /// Foretold lip shapes of a whole clip as it is.
    fn predict_one(&self, model: &LipReader, clip: &SpeechClip) -> Vec<[f32; LIP_VALUES]> {
        let sounds = self.sounds(&[Cow::Borrowed(clip)], None, &self.device.clone().inner());
        shapes_of(Self::predict(model, &sounds)).remove(0)
    }

    /// How far each training clip's picture is from its sound, as a trained encoder hears it.
    pub fn offsets(&self, model: &LipReader) -> Vec<ClipOffset> {
        let offset = |clip| offset::find(&self.predict_one(model, clip), clip, self.settings.offset_frames);
        self.clips.iter().map(offset).collect()
    }
}

fn shapes_of(predicted: Tensor<3>) -> Vec<Vec<[f32; LIP_VALUES]>> {
    let [_, time, _] = predicted.dims();
    let values = predicted.into_data().convert::<f32>().try_into_vec::<f32>().expect("converted to f32");
    let (shapes, _) = values.as_chunks::<LIP_VALUES>();
    shapes.chunks(time).map(<[_]>::to_vec).collect()
}

impl Task<LipReader> for SpeechTask<'_> {
    fn loss(&self, model: &LipReader, step: u64, shard: Shard) -> TrainResult<StepLoss> {
        // Dropout draws from the device's generator, whose state cannot be saved: it starts anew at every part.
        self.device.seed(mix(self.seed, step, 1 + shard.index as u64));
        let (clips, sounds) = self.batch(step, shard.range(self.batch_size));
        let predicted = Self::predict(model, &sounds);
        let offsets = if step < self.settings.offset_from || self.settings.offset_frames == 0 {
            vec![0; clips.len()]
        } else {
            let shapes = shapes_of(predicted.clone().inner());
            let find = |(shapes, clip): (&Vec<_>, &Cow<'_, SpeechClip>)| {
                offset::find(shapes, clip, self.settings.offset_frames).frames
            };
            shapes.iter().zip(&clips).map(find).collect()
        };
        let (mut shapes, mut weights) = (Vec::new(), Vec::new());
        for (clip, (&length, &frames)) in clips.iter().zip(sounds.lengths.iter().zip(&offsets)) {
            for t in 0..sounds.time {
                let seen = (t < length).then(|| clip.at(t, frames)).flatten();
                weights.push(if seen.is_some() { 1.0f32 } else { 0.0 });
                shapes.extend(seen.copied().unwrap_or([0.0; LIP_VALUES]));
            }
        }
        let (batch, time) = (clips.len(), sounds.time);
        let on_device = |values, width| {
            Tensor::<3>::from_data(TensorData::new(values, [batch, time, width]), (&self.device, DType::F32))
        };
        let (shapes, weights) = (on_device(shapes, LIP_VALUES), on_device(weights, 1));
        let error = (predicted - shapes).powi_scalar(2) * weights.clone();
        // The opening is one value among 81, and the one that a viewer judges sync by.
        let opening = error.clone().narrow(2, LIP_VALUES - 1, 1).sum();
        let loss = (error.sum() / LIP_VALUES as f64 + opening * OPENING_WEIGHT) / weights.sum();
        Ok(StepLoss { loss, parts: Vec::new() })
    }

    fn batch_of(&self, step: u64) -> TrainResult<TensorMap> {
        let (_, sounds) = self.batch(step, 0..self.batch_size);
        Ok([("sounds".to_owned(), stored(sounds.rows))].into())
    }

    /// Mean over clips of the correlation over time between predicted and true opening; and the same with each clip's
    /// picture moved to where it fits its sound best.
    fn validate(&self, shadow: &LipReader) -> TrainResult<Vec<(&'static str, f32)>> {
        let (mut plain, mut aligned, mut count) = (0.0, 0.0, 0);
        for clip in self.valid {
            let predicted = self.predict_one(shadow, clip);
            let at = |frames: isize| {
                let pairs: Vec<(f32, f32)> = predicted
                    .iter()
                    .enumerate()
                    .filter_map(|(t, a)| Some((a[LIP_VALUES - 1], clip.at(t, frames)?[LIP_VALUES - 1])))
                    .collect();
                correlation(&pairs)
            };
            let offset = offset::find(&predicted, clip, self.settings.offset_frames);
            if let (Some(r), Some(best)) = (at(0), at(offset.frames)) {
                plain += r;
                aligned += best;
                count += 1;
            }
        }
        let count = count.max(1) as f32;
        Ok(vec![("opening_correlation", plain / count), ("aligned_correlation", aligned / count)])
    }

    fn best_by(&self) -> Option<Measure> {
        Some(Measure::Highest("aligned_correlation"))
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
}
