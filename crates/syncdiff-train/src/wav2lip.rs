//! Trains Wav2Lip at its small width, for comparison on the same data.
//!
//! # Source
//! Rudrabha/Wav2Lip `wav2lip_train.py`, `hq_wav2lip_train.py`: (1 - s - a) L1 + s sync + a adversarial over windows of
//! five frames, each with a reference frame of the same clip; the sync loss joins when the picture is there. Its
//! sync loss asks its own expert; ours asks [`OwnSyncNet`], frozen, and is 1 - cosine of the embeddings of lips and
//! sound. The critic learns in the same step, from faces that it cannot change.

use crate::best::Measure;
use crate::error::{TrainError, TrainResult};
use crate::images::{psnr, stored, to_tensor};
use crate::seeds::mix;
use crate::sheet::SampleSheet;
use crate::talk::{MAX_TRIES, TalkSource, TalkingClip, draw_clip};
use crate::trainer::{Shard, StepLoss, Task};
use burn::module::Module;
use burn::tensor::activation::softplus;
use burn::tensor::{DType, Device, Tensor, TensorData};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use std::ops::Range;
use syncdiff_data::{KeepMask, Look};
use syncdiff_model::audio::log_filterbank;
use syncdiff_model::baselines::wav2lip::FACE_SIZE;
use syncdiff_model::baselines::wav2lip_lite::{FaceCritic, FrameSounds, Wav2LipLite};
use syncdiff_model::nn::{Part, resample};
use syncdiff_model::scorers::OwnSyncNet;
use syncdiff_model::scorers::own_syncnet::{MOUTH_SIZE, WINDOW_FRAMES, mouths, padded, sound_bands, sound_windows};
use syncdiff_model::weights::TensorMap;

/// Held-out windows of five frames.
const VALID_WINDOWS: usize = 16;
/// Those of them that are on a sheet of pictures.
const SHEET_WINDOWS: usize = 6;

/// Settings of Wav2Lip's training.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wav2LipTraining {
    /// Share of the sync loss; 0.03 in the source.
    pub sync_weight: f64,
    /// Step at which the sync loss begins: before, there is no mouth to look at.
    pub sync_from: u64,
    /// Share of the adversarial loss; 0.07 in the source, 0 does without a critic.
    pub adversarial_weight: f64,
    /// Share of the samples whose frames all get one other look (face shape, colours, sharpness), 0 to 1.
    #[serde(default)]
    pub varied: f64,
}

impl Wav2LipTraining {
    pub(crate) fn check(&self) -> TrainResult<()> {
        if !(0.0..=1.0).contains(&self.varied) {
            let (value, allowed) = (self.varied.to_string(), "a share from 0 to 1".into());
            return Err(TrainError::Parameter { name: "wav2lip.varied", value, allowed });
        }
        let shares = [self.sync_weight, self.adversarial_weight];
        if shares.iter().all(|share| (0.0..1.0).contains(share)) && shares.iter().sum::<f64>() < 1.0 {
            return Ok(());
        }
        Err(TrainError::Parameter {
            name: "wav2lip.sync_weight and adversarial_weight",
            value: format!("{} and {}", shares[0], shares[1]),
            allowed: "shares from 0, together below 1".into(),
        })
    }
}

/// The generator, and its critic where there is an adversarial loss.
#[derive(Module, Debug)]
pub struct Wav2LipTrainee {
    /// The part that is kept.
    pub generator: Wav2LipLite,
    critic: Option<FaceCritic>,
}

impl Wav2LipTrainee {
    /// A generator with the critic that the settings ask for.
    pub fn new(generator: Wav2LipLite, settings: &Wav2LipTraining, device: &Device) -> Self {
        Self { generator, critic: (settings.adversarial_weight > 0.0).then(|| FaceCritic::new(device)) }
    }
}

/// The task of [`crate::train`].
pub struct Wav2LipTask<'a> {
    settings: Wav2LipTraining,
    batch_size: usize,
    seed: u64,
    device: Device,
    /// Frozen.
    syncnet: OwnSyncNet,
    /// 1 where the target is shown.
    keep: Vec<f32>,
    clips: &'a dyn TalkSource,
    valid: &'a dyn TalkSource,
}

/// Five frames of a clip, and five others of it.
struct Window {
    clip: TalkingClip,
    start: usize,
    reference: usize,
    /// Of all ten.
    look: Look,
}

/// What a step learns from; all of five frames to a window.
struct Batch {
    /// [frames, 3, 96, 96] in [0, 1]
    target: Tensor<4>,
    /// [frames, 6, 96, 96] in [0, 1]
    faces: Tensor<4>,
    /// [frames, 1, 80, 16]
    mel: Tensor<4>,
    /// [windows, 1, 20, 32]
    sounds: Tensor<4>,
}

impl<'a> Wav2LipTask<'a> {
    /// `batch_size` counts windows of five frames; `device` differentiates, and `syncnet` lies on it.
    ///
    /// # Errors
    /// [`TrainError::Parameter`] for settings out of range.
    pub fn new(
        settings: Wav2LipTraining,
        batch_size: usize,
        seed: u64,
        device: Device,
        syncnet: OwnSyncNet,
        clips: &'a dyn TalkSource,
        valid: &'a dyn TalkSource,
    ) -> TrainResult<Self> {
        settings.check()?;
        let keep = KeepMask::aligned_fixed(FACE_SIZE).keep.iter().map(|v| if *v == 0 { 0.0 } else { 1.0 }).collect();
        Ok(Self { settings, batch_size, seed, device, syncnet: syncnet.no_grad(), keep, clips, valid })
    }

    fn draw(&self, step: u64, index: u64) -> TrainResult<Window> {
        let mut random = ChaCha8Rng::seed_from_u64(mix(self.seed, step, index));
        let drawn = draw_clip(self.clips, WINDOW_FRAMES, 1, &mut random)?;
        let (clip, starts) = drawn.ok_or_else(|| TrainError::Parameter {
            name: "data",
            value: format!("{MAX_TRIES} clips without five frames of a face in a row"),
            allowed: "longer clips".into(),
        })?;
        let mut any = || starts[random.random_range(0..starts.len())];
        let (start, reference) = (any(), any());
        Ok(Window { clip, start, reference, look: Look::draw(self.settings.varied, self.seed, step, index) })
    }

    fn gather(&self, windows: &[Window], device: &Device) -> Batch {
        let (mut mel, mut sounds) = (Vec::new(), Vec::new());
        let pictures = |first: &dyn Fn(&Window) -> usize| {
            let frames = windows.iter().map(|window| {
                let clip = &window.clip.clip;
                let frames = first(window)..first(window) + WINDOW_FRAMES;
                to_tensor(
                    &frames.map(|frame| window.look.of_frame(clip, frame)).collect::<Vec<_>>(),
                    clip.crop_size(),
                    device,
                )
            });
            let all = Tensor::cat(frames.collect(), 0);
            resample(all, Part::WHOLE, Part::WHOLE, [FACE_SIZE; 2]) * 0.5 + 0.5
        };
        for window in windows {
            let (clip, heard) = (&window.clip.clip, window.clip.heard(window.start).expect("windows are chosen so"));
            mel.push(FrameSounds::new(clip.speech()).chunks(heard..heard + WINDOW_FRAMES, device));
            let bands = sound_bands(log_filterbank(&padded(clip.speech())), clip.num_frames());
            sounds.push(sound_windows(&bands, [heard], device));
        }
        let target = pictures(&|window| window.start);
        let keep = TensorData::new(self.keep.clone(), [1, 1, FACE_SIZE, FACE_SIZE]);
        let shown = target.clone() * Tensor::<4>::from_data(keep, (device, DType::F32));
        let faces = Tensor::cat(vec![shown, pictures(&|window| window.reference)], 1);
        Batch { target, faces, mel: Tensor::cat(mel, 0), sounds: Tensor::cat(sounds, 0) }
    }

    /// Fixed held-out windows, whose reference begins the clip.
    fn held_out(&self) -> TrainResult<Vec<Window>> {
        let mut windows = Vec::new();
        for index in 0..self.valid.num_clips().min(VALID_WINDOWS) {
            let clip = self.valid.clip(index * self.valid.num_clips() / self.valid.num_clips().min(VALID_WINDOWS))?;
            let starts = clip.starts(WINDOW_FRAMES);
            if let Some(first) = starts.first() {
                let (start, reference) = (starts[starts.len() / 2], *first);
                windows.push(Window { clip, start, reference, look: Look::PLAIN });
            }
        }
        Ok(windows)
    }

    fn windows(&self, step: u64, samples: Range<usize>) -> TrainResult<Vec<Window>> {
        samples.map(|index| self.draw(step, index as u64)).collect()
    }
}

/// 1 - cosine of lips and sound, mean over windows of five faces in [0, 1].
fn sync_loss(syncnet: &OwnSyncNet, faces: Tensor<4>, sounds: Tensor<4>) -> TrainResult<Tensor<1>> {
    let mouths = mouths(faces * 2.0 - 1.0)?;
    let windows = mouths.dims()[0] / WINDOW_FRAMES;
    // Five frames one after the other are the channels of a window.
    let lips = syncnet.forward_lips(mouths.reshape([windows, 3 * WINDOW_FRAMES, MOUTH_SIZE, MOUTH_SIZE]));
    let agreement = (lips * syncnet.forward_speech(sounds)).sum() / windows as f64;
    Ok(-agreement + 1.0)
}

impl Task<Wav2LipTrainee> for Wav2LipTask<'_> {
    fn num_shards(&self) -> usize {
        Shard::count_for(self.batch_size)
    }

    fn loss(&self, model: &Wav2LipTrainee, step: u64, shard: Shard) -> TrainResult<StepLoss> {
        let batch = self.gather(&self.windows(step, shard.range(self.batch_size))?, &self.device);
        let drawn = model.generator.forward(batch.mel, batch.faces);
        let Wav2LipTraining { sync_weight, sync_from, adversarial_weight, .. } = self.settings;
        let sync_weight = if step < sync_from { 0.0 } else { sync_weight };
        let l1 = (drawn.clone() - batch.target.clone()).abs().mean();
        let mut parts = vec![("l1", l1.clone().into_scalar::<f32>())];
        let mut loss = l1 * (1.0 - sync_weight - adversarial_weight);
        if sync_weight > 0.0 {
            let sync = sync_loss(&self.syncnet, drawn.clone(), batch.sounds)?;
            parts.push(("sync", sync.clone().into_scalar::<f32>()));
            loss = loss + sync * sync_weight;
        }
        if let Some(critic) = &model.critic {
            // The logarithm of the probability of the right answer, from its logit.
            let wrong = |x: Tensor<4>| softplus(x, 1.0).mean();
            let doubt = wrong(-critic.clone().no_grad().forward(drawn.clone()));
            let critic = wrong(-critic.forward(batch.target)) + wrong(critic.forward(drawn.detach()));
            parts.push(("adversarial", doubt.clone().into_scalar::<f32>()));
            parts.push(("critic", critic.clone().into_scalar::<f32>()));
            loss = loss + doubt * adversarial_weight + critic;
        }
        Ok(StepLoss { loss, parts })
    }

    fn batch_of(&self, step: u64) -> TrainResult<TensorMap> {
        let device = self.device.clone().inner();
        let batch = self.gather(&self.windows(step, 0..self.batch_size)?, &device);
        let named = [("target", batch.target), ("faces", batch.faces), ("mel", batch.mel), ("sounds", batch.sounds)];
        Ok(named.into_iter().map(|(name, tensor)| (name.to_owned(), stored(tensor))).collect())
    }

    /// On fixed held-out windows, whose reference begins the clip: L1, PSNR, and the sync loss of drawn and of true
    /// faces.
    fn validate(&self, shadow: &Wav2LipTrainee) -> TrainResult<Vec<(&'static str, f32)>> {
        let (windows, device) = (self.held_out()?, self.device.clone().inner());
        if windows.is_empty() {
            return Ok(Vec::new());
        }
        let syncnet = self.syncnet.valid();
        let (mut l1, mut ratio, mut sync, mut truth) = (0.0, 0.0, 0.0, 0.0);
        let share = 1.0 / windows.len() as f32;
        for window in windows.chunks(1) {
            let batch = self.gather(window, &device);
            let drawn = shadow.generator.forward(batch.mel, batch.faces);
            l1 += share * (drawn.clone() - batch.target.clone()).abs().mean().into_scalar::<f32>();
            ratio += share * psnr(drawn.clone() * 2.0 - 1.0, batch.target.clone() * 2.0 - 1.0);
            sync += share * sync_loss(&syncnet, drawn, batch.sounds.clone())?.into_scalar::<f32>();
            truth += share * sync_loss(&syncnet, batch.target, batch.sounds)?.into_scalar::<f32>();
        }
        Ok(vec![("l1", l1), ("psnr", ratio), ("sync", sync), ("sync_of_truth", truth)])
    }

    /// The middle frame of the first held-out windows.
    fn sheet(&self, shadow: &Wav2LipTrainee) -> TrainResult<Option<SampleSheet>> {
        let (mut windows, device) = (self.held_out()?, self.device.clone().inner());
        windows.truncate(SHEET_WINDOWS);
        if windows.is_empty() {
            return Ok(None);
        }
        let batch = self.gather(&windows, &device);
        let drawn = shadow.generator.forward(batch.mel, batch.faces);
        let middle = |faces: Tensor<4>| {
            let each = (0..windows.len()).map(|i| faces.clone().narrow(0, i * WINDOW_FRAMES + WINDOW_FRAMES / 2, 1));
            Tensor::cat(each.collect(), 0) * 2.0 - 1.0
        };
        Ok(Some(SampleSheet { truth: middle(batch.target), drawn: middle(drawn) }))
    }

    fn best_by(&self) -> Option<Measure> {
        Some(Measure::Highest("psnr"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_must_leave_something_for_the_picture() {
        let of = |sync_weight, adversarial_weight| Wav2LipTraining {
            sync_weight,
            sync_from: 0,
            adversarial_weight,
            varied: 0.0,
        };
        assert!(of(0.03, 0.07).check().is_ok() && of(0.0, 0.0).check().is_ok());
        for bad in [of(0.6, 0.5), of(-0.1, 0.0), of(0.0, f64::NAN)] {
            assert!(bad.check().unwrap_err().to_string().contains("wav2lip.sync_weight"));
        }
        let varied = Wav2LipTraining { varied: 1.5, ..of(0.0, 0.0) };
        assert!(varied.check().unwrap_err().to_string().contains("wav2lip.varied = 1.5"));
    }

    #[test]
    fn the_sync_loss_of_windows_is_the_mean_of_each_alone() {
        let device = Device::flex();
        device.seed(2);
        let net = OwnSyncNet::new(&device);
        let random = burn::tensor::Distribution::Default;
        let faces = Tensor::<4>::random([10, 3, FACE_SIZE, FACE_SIZE], random, &device);
        let sounds = Tensor::<4>::random([2, 1, 20, 32], random, &device);
        let both = sync_loss(&net, faces.clone(), sounds.clone()).unwrap().into_scalar::<f32>();
        let each = [0, 1].map(|i| {
            let (faces, sounds) = (faces.clone().narrow(0, 5 * i, 5), sounds.clone().narrow(0, i, 1));
            // By the way that whole clips are embedded.
            let lips = net.lips(faces.clone() * 2.0 - 1.0).unwrap();
            let cosine = (lips * net.forward_speech(sounds.clone())).sum().into_scalar::<f32>();
            let loss = sync_loss(&net, faces, sounds).unwrap().into_scalar::<f32>();
            assert!((loss - (1.0 - cosine)).abs() < 1e-5);
            loss
        });
        assert!((both - (each[0] + each[1]) / 2.0).abs() < 1e-5);
    }
}
