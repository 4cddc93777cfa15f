//! Trains our SyncNet: which mouth goes with which sound.
//!
//! # Source
//! Chung and Zisserman, "Out of time" (2016), learn from pairs; a network that meets one pair at a time soon answers
//! "one half" to everything, at a loss of ln 2. Here every window of a step chooses its sound among all of the step
//! (InfoNCE in both directions, learned temperature: van den Oord et al. 2018, Radford et al. 2021), and a second time
//! among those of its own clip only. There voice, face and room say nothing: windows of a clip are some frames apart
//! and differ in what is said.

mod examples;
mod held_out;

pub(crate) use held_out::held_out_figures;

use crate::best::Measure;
use crate::error::{TrainError, TrainResult};
use crate::images::stored;
use crate::seeds::mix;
use crate::speech::SpeechAugmentation;
use crate::talk::TalkSource;
use crate::trainer::{Shard, StepLoss, Task};
use burn::module::{Initializer, Module, Param};
use burn::tensor::activation::log_softmax;
use burn::tensor::{DType, Device, Tensor, TensorData};
use serde::{Deserialize, Serialize};
use std::ops::Range;
use syncdiff_model::scorers::OwnSyncNet;
use syncdiff_model::scorers::own_syncnet::{EMBEDDING_DIM, MOUTH_SIZE, WINDOW_FRAMES, sound_windows};
use syncdiff_model::weights::TensorMap;

/// What similarities are multiplied by at first: 1 / 0.07.
const FIRST_SCALE: f64 = 14.3;
/// Largest factor of similarities.
const MAX_SCALE: f64 = 100.0;

/// Settings of the SyncNet's training.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SyncNetTraining {
    /// Windows of each clip of a step.
    pub windows_per_clip: usize,
    /// Least distance of two windows of a clip, in frames.
    pub least_distance: usize,
    /// Share of the loss whose negatives come from the same clip only.
    pub clip_weight: f64,
    /// Largest move of the mouth's window, in pixels of the window.
    pub shift: f32,
    /// Largest relative change of its size.
    pub zoom: f32,
    /// Strength of the change of colours; 1 is what cameras and lamps do.
    pub colour: f64,
    /// Changes of the sound; its speed must be 0, since the pictures keep theirs.
    pub augment: SpeechAugmentation,
}

impl SyncNetTraining {
    pub(crate) fn check(&self) -> TrainResult<()> {
        let refused = |name, value: String, allowed: &str| {
            Err(TrainError::Parameter { name, value, allowed: allowed.to_owned() })
        };
        if self.windows_per_clip < 2 || self.least_distance == 0 {
            let value = format!("{} and {}", self.windows_per_clip, self.least_distance);
            return refused("syncnet.windows_per_clip and least_distance", value, "at least 2 windows, 1 frame apart");
        }
        if !(0.0..=1.0).contains(&self.clip_weight) {
            return refused("syncnet.clip_weight", self.clip_weight.to_string(), "0 to 1");
        }
        if self.augment.speed != 0.0 {
            let value = self.augment.speed.to_string();
            return refused("syncnet.augment.speed", value, "0: the pictures keep their pace");
        }
        Ok(())
    }
}

/// The network and the factor of its similarities.
#[derive(Module, Debug)]
pub struct SyncNetTrainee {
    /// The part that is kept.
    pub net: OwnSyncNet,
    log_scale: Param<Tensor<1>>,
}

impl SyncNetTrainee {
    /// A network with the first factor.
    pub fn new(net: OwnSyncNet, device: &Device) -> Self {
        Self { net, log_scale: Initializer::Constant { value: FIRST_SCALE.ln() }.init([1], device) }
    }

    /// What similarities are multiplied by: one over the temperature.
    pub(crate) fn scale(&self) -> Tensor<1> {
        self.log_scale.val().clamp_max(MAX_SCALE.ln()).exp()
    }
}

/// The task of [`crate::train`].
pub struct SyncNetTask<'a> {
    settings: SyncNetTraining,
    batch_size: usize,
    seed: u64,
    device: Device,
    clips: &'a dyn TalkSource,
    valid: &'a dyn TalkSource,
}

impl<'a> SyncNetTask<'a> {
    /// `batch_size` counts clips.
    ///
    /// # Errors
    /// [`TrainError::Parameter`] for settings out of range.
    pub fn new(
        settings: SyncNetTraining,
        batch_size: usize,
        seed: u64,
        device: Device,
        clips: &'a dyn TalkSource,
        valid: &'a dyn TalkSource,
    ) -> TrainResult<Self> {
        settings.check()?;
        Ok(Self { settings, batch_size, seed, device, clips, valid })
    }

    /// Windows of lips and of sound of some clips of a step, clip by clip.
    ///
    /// # Shapes
    /// [windows, 15, 64, 64] and [windows, 1, 20, 32]
    fn batch(&self, step: u64, clips: Range<usize>) -> TrainResult<(Tensor<4>, Tensor<4>)> {
        let (mut pixels, mut sounds) = (Vec::new(), Vec::new());
        for index in clips {
            let example = examples::draw(self.clips, &self.settings, mix(self.seed, step, index as u64))?;
            example.extend_pixels(&mut pixels);
            sounds.push(sound_windows(&example.bands, example.heard(), &self.device));
        }
        let shape = [pixels.len() / (3 * WINDOW_FRAMES * MOUTH_SIZE.pow(2)), 3 * WINDOW_FRAMES, MOUTH_SIZE, MOUTH_SIZE];
        let lips = Tensor::from_data(TensorData::new(pixels, shape), (&self.device, DType::F32));
        Ok((lips, Tensor::cat(sounds, 0)))
    }
}

/// Mean over rows and columns of the negative logarithm of the diagonal's share: how badly each lip finds its sound
/// and each sound its lip.
///
/// # Shapes
/// [groups, n, n] -> [1]
fn both_ways(similarities: Tensor<3>) -> Tensor<1> {
    let [groups, n, _] = similarities.dims();
    let diagonal = Tensor::<2>::eye(n, &similarities.device()).unsqueeze::<3>();
    let shares = log_softmax(similarities.clone(), 2) + log_softmax(similarities, 1);
    (shares * diagonal).sum() / (-2.0 * (groups * n) as f64)
}

impl Task<SyncNetTrainee> for SyncNetTask<'_> {
    fn num_shards(&self) -> usize {
        Shard::count_for(self.batch_size)
    }

    fn loss(&self, model: &SyncNetTrainee, step: u64, shard: Shard) -> TrainResult<StepLoss> {
        let (lips, sounds) = self.batch(step, shard.range(self.batch_size))?;
        let n = lips.dims()[0];
        let per_clip = self.settings.windows_per_clip;
        let lips = model.net.forward_lips(lips);
        let sounds = model.net.forward_speech(sounds) * model.scale().unsqueeze::<2>();
        let among = |windows: usize| {
            let grouped = |x: &Tensor<2>| x.clone().reshape([n / windows, windows, EMBEDDING_DIM]);
            both_ways(grouped(&lips).matmul(grouped(&sounds).swap_dims(1, 2)))
        };
        let (batch, clip) = (among(n), among(per_clip));
        let parts = vec![
            ("among_batch", batch.clone().into_scalar::<f32>()),
            ("among_clip", clip.clone().into_scalar::<f32>()),
            ("scale", model.scale().into_scalar::<f32>()),
        ];
        let share = self.settings.clip_weight;
        Ok(StepLoss { loss: batch * (1.0 - share) + clip * share, parts })
    }

    fn batch_of(&self, step: u64) -> TrainResult<TensorMap> {
        let (lips, sounds) = self.batch(step, 0..self.batch_size)?;
        Ok([("lips", stored(lips)), ("sounds", stored(sounds))].map(|(name, t)| (name.to_owned(), t)).into())
    }

    /// On held-out clips: the mean loss among windows of a clip, and how often the right sound is found among those
    /// moved by -10 to 10 frames, a hit being at most one frame off. `accuracy` is of single windows where picture and
    /// sound are taken as the table of offsets says, `aligned` where each clip is first moved by up to three frames to
    /// where it fits best on the whole, `of_clips` of whole clips.
    fn validate(&self, shadow: &SyncNetTrainee) -> TrainResult<Vec<(&'static str, f32)>> {
        held_out_figures(shadow, self.valid, &self.device.clone().inner())
    }

    fn best_by(&self) -> Option<Measure> {
        Some(Measure::Highest("accuracy"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chance_is_the_logarithm_of_the_number_and_a_clear_answer_costs_nothing() {
        let device = Device::flex();
        let even = both_ways(Tensor::zeros([3, 8, 8], &device)).into_scalar::<f32>();
        assert!((even - 8f32.ln()).abs() < 1e-5, "{even}");
        let clear = Tensor::<2>::eye(8, &device).unsqueeze::<3>() * 100.0;
        assert!(both_ways(clear.clone()).into_scalar::<f32>() < 1e-5);
        // Wrong one way only: sound 0 is liked by all lips.
        let mut rows = vec![0f32; 64];
        (0..8).for_each(|i| rows[i * 8 + i] = 10.0);
        (1..8).for_each(|i| rows[i * 8] = 20.0);
        let one = Tensor::<3>::from_data(TensorData::new(rows, [1, 8, 8]), (&device, DType::F32));
        let loss = both_ways(one).into_scalar::<f32>();
        // Seven lips of eight lose 10, and sound 0 loses 10 + ln 7.
        let expected = (7.0 * 10.0 + 10.0 + 7f32.ln()) / 16.0;
        assert!((loss - expected).abs() < 0.01, "{loss} {expected}");
    }

    #[test]
    fn settings_out_of_range_are_named() {
        let good = SyncNetTraining {
            windows_per_clip: 4,
            least_distance: 3,
            clip_weight: 0.5,
            shift: 0.0,
            zoom: 0.0,
            colour: 0.0,
            augment: SpeechAugmentation::NONE,
        };
        assert!(good.check().is_ok());
        let faster = SpeechAugmentation { speed: 0.1, ..SpeechAugmentation::NONE };
        for (bad, name) in [
            (SyncNetTraining { windows_per_clip: 1, ..good.clone() }, "windows_per_clip"),
            (SyncNetTraining { clip_weight: 1.5, ..good.clone() }, "clip_weight"),
            (SyncNetTraining { augment: faster, ..good.clone() }, "speed"),
        ] {
            assert!(bad.check().unwrap_err().to_string().contains(name));
        }
    }
}
