//! Pre-trains the speech encoder with masked multimodal cluster prediction, at small size.
//!
//! Every frame belongs to a cluster of sounds ([`SoundClusters`]). Spans of the sound and spans of the sight are
//! hidden, and sometimes one of the two is missing altogether; the network guesses the clusters of the frames of which
//! anything was hidden, from what is left. To guess a hidden sound it has to know what sounds come after each other, and
//! what the lips do with each.
//!
//! # What is hidden, and how
//! The input, as in AV-HuBERT: hidden rows of sound are replaced by one learned row, hidden spans of sight by a span of
//! the same clip from elsewhere. So a network cannot tell by looking whether it is shown the truth. Which modality is
//! missing is drawn for each clip; AV-HuBERT draws it for a whole batch, which with batches as small as ours would make
//! one step a lesson of lip-reading and the next one of hearing.
//!
//! # Source
//! Shi et al. 2022 (AV-HuBERT), section 3 and `conf/pretrain/base_lrs3_iter*.yaml`; Hsu et al. 2021 (HuBERT). Width of
//! the guess, temperature and masks are AV-HuBERT's. Embeddings of clusters begin as normal numbers (nearly at right
//! angles), not as positive ones.

mod clusters;
mod examples;
mod kmeans;
mod mask;
mod net;

pub use clusters::SoundClusters;
pub use net::Pretrainee;

use crate::best::Measure;
use crate::error::{TrainError, TrainResult};
use crate::images::stored;
use crate::seeds::mix;
use crate::speech::SpeechAugmentation;
use crate::talk::TalkSource;
use crate::trainer::{Shard, StepLoss, Task};
use burn::tensor::activation::log_softmax;
use burn::tensor::{DType, Device, Tensor, TensorData};
use examples::{Batch, Example};
use serde::{Deserialize, Serialize};
use std::ops::Range;
use syncdiff_model::weights::TensorMap;

/// Settings of the pre-training.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PretrainTraining {
    /// Clusters of sounds.
    pub clusters: usize,
    /// Layer, counted from 1, of the network of `--clusters-from` whose rows are clustered; without it nothing is made
    /// of this.
    pub cluster_layer: usize,
    /// Most frames of a clip; of a longer one a random piece is taken.
    pub max_frames: usize,
    /// Frames of sound in hidden spans, were the spans not to overlap, as a share of all.
    pub audio_mask: f64,
    /// Frames of a hidden span of sound.
    pub audio_span: usize,
    /// As `audio_mask`, of sight.
    pub video_mask: f64,
    /// Frames of a hidden span of sight.
    pub video_span: usize,
    /// Share of clips that are only heard or only seen.
    pub modality_dropout: f64,
    /// Share of these that are only seen.
    pub audio_dropout: f64,
    /// Weight of the loss over frames of which nothing is hidden.
    #[serde(default)]
    pub unmasked_weight: f64,
    /// Largest move of the mouth's window, in pixels of the window.
    pub shift: f32,
    /// Changes of the sound, of which the clusters know nothing; its speed must be 0, since the pictures keep theirs.
    pub augment: SpeechAugmentation,
}

impl PretrainTraining {
    /// Finds settings out of range.
    ///
    /// # Errors
    /// [`TrainError::Parameter`].
    pub(crate) fn check(&self) -> TrainResult<()> {
        let refused = |name, value: String, allowed: &str| {
            Err(TrainError::Parameter { name, value, allowed: allowed.to_owned() })
        };
        for (name, value) in [
            ("pretrain.clusters", self.clusters),
            ("pretrain.cluster_layer", self.cluster_layer),
            ("pretrain.max_frames", self.max_frames),
            ("pretrain.audio_span", self.audio_span),
            ("pretrain.video_span", self.video_span),
        ] {
            if value == 0 {
                return refused(name, value.to_string(), "1 or more");
            }
        }
        for (name, value) in [
            ("pretrain.audio_mask", self.audio_mask),
            ("pretrain.video_mask", self.video_mask),
            ("pretrain.modality_dropout", self.modality_dropout),
            ("pretrain.audio_dropout", self.audio_dropout),
        ] {
            if !(0.0..=1.0).contains(&value) {
                return refused(name, value.to_string(), "0 to 1");
            }
        }
        if self.audio_mask + self.video_mask == 0.0 {
            return refused("pretrain.audio_mask and video_mask", "0 and 0".into(), "something has to be hidden");
        }
        if !(self.unmasked_weight >= 0.0 && self.unmasked_weight.is_finite()) {
            return refused("pretrain.unmasked_weight", self.unmasked_weight.to_string(), "0 or more");
        }
        if self.augment.speed != 0.0 {
            let value = self.augment.speed.to_string();
            return refused("pretrain.augment.speed", value, "0: the pictures keep their pace");
        }
        Ok(())
    }
}

/// The task of [`crate::train`].
pub struct PretrainTask<'a> {
    settings: PretrainTraining,
    batch_size: usize,
    seed: u64,
    device: Device,
    clips: &'a dyn TalkSource,
    valid: &'a dyn TalkSource,
    clusters: SoundClusters,
}

impl<'a> PretrainTask<'a> {
    /// `batch_size` counts clips; `clusters` are those of the same clips.
    ///
    /// # Errors
    /// [`TrainError::Parameter`] for settings out of range.
    pub fn new(
        settings: PretrainTraining,
        batch_size: usize,
        seed: u64,
        device: Device,
        (clips, valid): (&'a dyn TalkSource, &'a dyn TalkSource),
        clusters: SoundClusters,
    ) -> TrainResult<Self> {
        settings.check()?;
        Ok(Self { settings, batch_size, seed, device, clips, valid, clusters })
    }

    /// Some clips of a step.
    fn examples(&self, step: u64, clips: Range<usize>) -> TrainResult<Vec<Example>> {
        let draw = |index: usize| {
            let seed = mix(self.seed, step, index as u64);
            Example::draw(self.clips, &self.clusters.train, &self.settings, seed)
        };
        clips.map(draw).collect()
    }

    /// What every frame counts in the loss: the mean over hidden frames, and with its weight the mean over the others.
    /// Row by row of the batch, with the cluster that is right.
    fn weights(&self, examples: &[Example], time: usize) -> Vec<Option<(u16, f32)>> {
        let asked = |hidden: bool| {
            let frames = |e: &Example| (0..e.len()).filter(|t| e.is_asked(*t) && e.is_hidden(*t) == hidden).count();
            examples.iter().map(frames).sum::<usize>().max(1) as f32
        };
        let (hidden, open) = (1.0 / asked(true), self.settings.unmasked_weight as f32 / asked(false));
        let weight = |example: &Example, t: usize| {
            let counts = t < example.len() && example.is_asked(t);
            counts.then(|| (example.labels[t], if example.is_hidden(t) { hidden } else { open }))
        };
        let weight = &weight;
        examples.iter().flat_map(|example| (0..time).map(move |t| weight(example, t))).collect()
    }
}

/// The likeliest cluster of each row.
fn likeliest(guesses: Tensor<2>) -> Vec<u16> {
    let [_, clusters] = guesses.dims();
    let values: Vec<f32> = guesses.into_data().convert::<f32>().try_into_vec().expect("converted to f32");
    let best = |row: &[f32]| (0..clusters).max_by(|a, b| row[*a].total_cmp(&row[*b])).unwrap_or(0) as u16;
    values.chunks_exact(clusters).map(best).collect()
}

impl Task<Pretrainee> for PretrainTask<'_> {
    fn loss(&self, model: &Pretrainee, step: u64, shard: Shard) -> TrainResult<StepLoss> {
        // Dropout draws from the device's generator, whose state cannot be saved: it starts anew at every part, with a
        // seed that is no clip's.
        self.device.seed(mix(self.seed, step, u64::MAX - shard.index as u64));
        let examples = self.examples(step, shard.range(self.batch_size))?;
        let batch = Batch::of(&examples, &self.device)?;
        let (sound, sight) = model.halves(&batch);
        let guesses = model.guess(sound * batch.hears, sight * batch.sees, &batch.lengths);
        let time = batch.time;
        let weights = self.weights(&examples, time);
        let (mut right, mut asked) = (0, 0);
        let hidden = examples.iter().flat_map(|e| (0..time).map(move |t| t < e.len() && e.is_hidden(t)));
        for ((weight, guess), hidden) in weights.iter().zip(likeliest(guesses.clone().inner())).zip(hidden) {
            if let (Some((label, _)), true) = (weight, hidden) {
                (right, asked) = (right + u32::from(*label == guess), asked + 1);
            }
        }
        let [rows, clusters] = guesses.dims();
        let mut targets = vec![0f32; rows * clusters];
        for (row, weight) in weights.into_iter().enumerate() {
            if let Some((label, weight)) = weight {
                targets[row * clusters + usize::from(label)] = weight;
            }
        }
        let targets = Tensor::<2>::from_data(TensorData::new(targets, [rows, clusters]), (&self.device, DType::F32));
        let parts = if asked > 0 { vec![("accuracy", right as f32 / asked as f32)] } else { Vec::new() };
        Ok(StepLoss { loss: (log_softmax(guesses, 1) * targets).sum().neg(), parts })
    }

    fn batch_of(&self, step: u64) -> TrainResult<TensorMap> {
        let batch = Batch::of(&self.examples(step, 0..self.batch_size)?, &self.device)?;
        let tensors =
            [("rows", stored(batch.rows)), ("hidden", stored(batch.hidden)), ("mouths", stored(batch.mouths))];
        Ok(tensors.map(|(name, tensor)| (name.to_owned(), tensor)).into())
    }

    /// How often the cluster of a frame is guessed where anything of it was hidden and the face is there, on held-out
    /// clips with the same things hidden each time: with sound and sight (`accuracy`), with one alone (`by_sound`,
    /// `by_sight`), and by always naming the cluster that most training frames belong to (`baseline`).
    fn validate(&self, shadow: &Pretrainee) -> TrainResult<Vec<(&'static str, f32)>> {
        let device = self.device.clone().inner();
        let most_frequent = self.clusters.most_frequent();
        let (mut hits, mut asked) = ([0u32; 4], 0u32);
        for (index, labels) in self.clusters.valid.iter().enumerate() {
            // Not of the run's seed: figures of all runs are of the same frames.
            let example = Example::held_out(&self.valid.clip(index)?, labels, &self.settings, mix(0, 0, index as u64));
            let examples = [example];
            let batch = Batch::of(&examples, &device)?;
            let (sound, sight) = shadow.halves(&batch);
            let [deaf, blind] = [sound.zeros_like(), sight.zeros_like()];
            let guesses = [(sound.clone(), sight.clone()), (sound, blind), (deaf, sight)]
                .map(|(sound, sight)| likeliest(shadow.guess(sound, sight, &batch.lengths)));
            let [example] = examples;
            for t in (0..example.len()).filter(|t| example.is_hidden(*t) && example.is_seen(*t)) {
                asked += 1;
                let named = [guesses[0][t], guesses[1][t], guesses[2][t], most_frequent];
                for (hits, named) in hits.iter_mut().zip(named) {
                    *hits += u32::from(named == example.labels[t]);
                }
            }
        }
        let names = ["accuracy", "by_sound", "by_sight", "baseline"];
        Ok(names.into_iter().zip(hits.map(|hits| hits as f32 / asked.max(1) as f32)).collect())
    }

    fn best_by(&self) -> Option<Measure> {
        Some(Measure::Highest("accuracy"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_out_of_range_are_named() {
        let good = PretrainTraining {
            clusters: 10,
            cluster_layer: 1,
            max_frames: 50,
            audio_mask: 0.8,
            audio_span: 10,
            video_mask: 0.3,
            video_span: 5,
            modality_dropout: 0.5,
            audio_dropout: 0.5,
            unmasked_weight: 0.0,
            shift: 4.0,
            augment: SpeechAugmentation::NONE,
        };
        assert!(good.check().is_ok());
        let faster = SpeechAugmentation { speed: 0.1, ..SpeechAugmentation::NONE };
        for (bad, name) in [
            (PretrainTraining { clusters: 0, ..good.clone() }, "clusters"),
            (PretrainTraining { audio_span: 0, ..good.clone() }, "audio_span"),
            (PretrainTraining { video_mask: 1.5, ..good.clone() }, "video_mask"),
            (PretrainTraining { audio_mask: 0.0, video_mask: 0.0, ..good.clone() }, "audio_mask"),
            (PretrainTraining { unmasked_weight: f64::NAN, ..good.clone() }, "unmasked_weight"),
            (PretrainTraining { augment: faster, ..good.clone() }, "speed"),
        ] {
            assert!(bad.check().unwrap_err().to_string().contains(name));
        }
    }

    #[test]
    fn the_likeliest_cluster_is_that_of_the_largest_value() {
        let rows = Tensor::<2>::from_data([[0.1, 0.9, -1.0], [5.0, 4.0, 3.0]], &Device::flex());
        assert_eq!(likeliest(rows), [1, 0]);
    }
}
