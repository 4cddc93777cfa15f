//! Trains the denoiser on latents.
//!
//! # Source
//! SyncDiff, section 3.2 and METHOD section 12.2: z_0 = E(I_t), E_m = E(mask(I_t)), E_i = E(I_r), E_p = E(I_{t-1});
//! uniform timesteps; mean squared error. The autoencoder is frozen, so its latents are computed once.
//! Counter-measures to the exposure gap (METHOD section 12.3) are settings.

mod estimate;
mod hear;
mod sheet;
mod student;

pub use estimate::{EstimateNets, EstimateTraining, EstimateWeighting};
pub use sheet::SheetDrawing;
pub use student::{STUDENT_SAMPLER, StudentStage, StudentTask, StudentTraining};

use crate::best::Measure;
use crate::error::TrainResult;
use crate::images::stored;
use crate::seeds::mix;
use crate::sheet::SampleSheet;
use crate::trainer::{Shard, StepLoss, Task};
use burn::module::Module;
use burn::tensor::{DType, Device, Tensor, TensorData};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use syncdiff_model::Precision;
use syncdiff_model::audio::{AudioEncoder, Conditioner};
use syncdiff_model::denoiser::PriorConfig;
use syncdiff_model::denoiser::{LatentDenoiser, VisualPriors};
use syncdiff_model::diffusion::{
    LossWeighting, NoiseKey, NoiseUse, Prediction, Schedule, diffusion_loss, normal_batch, uniform_timesteps,
};
use syncdiff_model::weights::{StoredTensor, TensorMap};

/// One clip as this task sees it.
#[derive(Clone, Debug)]
pub struct LatentClip {
    /// Latents of the frames, [frames, channels, side, side], f16 bits to halve the memory.
    pub frames: Vec<u16>,
    /// The same of the masked frames.
    pub masked: Vec<u16>,
    /// Encoded speech, [frames, dim]; empty where the encoder learns.
    pub speech: Vec<f32>,
    /// What the encoder hears, [frames, row], where it learns; else empty.
    pub rows: Vec<f32>,
    /// Frames by which the picture lags behind the sound.
    pub offset: isize,
    /// Whether the frame has a face.
    pub valid: Vec<bool>,
    /// Embeddings of the sound of five frames by the SyncNet of a loss, [frames - 4, 128]; empty without one.
    pub sounds: Vec<f32>,
}

/// What learns in this stage: the denoiser with its bottleneck, and the way from encoded speech to tokens.
#[derive(Module, Debug)]
pub struct DenoiserStage {
    /// U-Net and bottleneck.
    pub denoiser: LatentDenoiser,
    /// Window, positions and temporal filter.
    pub conditioner: Conditioner,
    /// The speech encoder, where layers of it learn too.
    pub audio: Option<AudioEncoder>,
}

impl DenoiserStage {
    /// The U-Net computes in this type.
    #[must_use]
    pub fn in_precision(self, precision: Precision) -> Self {
        Self { denoiser: self.denoiser.in_precision(precision), ..self }
    }
}

/// Settings of the denoiser's training.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DiffusionTraining {
    /// What is predicted.
    pub prediction: Prediction,
    /// How timesteps weigh.
    pub weighting: LossWeighting,
    /// Weight of latent positions outside the mask; those inside weigh 1. The paper has 1; pasting makes them matter
    /// less.
    pub outside_weight: f32,
    /// Extra weight of positions in the mouth's rectangle.
    pub mouth_weight: f32,
    /// Largest deviation of the noise added to the previous frame's latent (uniform from 0).
    pub pose_noise: f32,
    /// Share of samples whose previous frame is replaced by the identity frame, as at the start of a clip.
    pub pose_dropout: f64,
    /// Share of samples whose previous frame is another frame of the clip: its mouth says nothing of the target's.
    pub pose_shuffle: f64,
    /// Share of samples whose previous frame is the network's own estimate of it, in one step from noise: what it will
    /// meet when it generates.
    pub pose_own: f64,
    /// Share of samples without speech, so that generation can be guided (see `LipSyncConfig::guidance`).
    pub speech_dropout: f64,
    /// Least distance between target and identity frame, where the clip is long enough.
    pub identity_distance: usize,
    /// Copies of each training clip that look like other people and cameras ([`syncdiff_data::Look`]), from which samples
    /// are drawn as from the clip itself. Each costs its encoding once, and memory.
    #[serde(default)]
    pub varied_copies: usize,
    /// Losses on the pictures of one-step estimates; none where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub estimate: Option<EstimateTraining>,
}

impl DiffusionTraining {
    /// Without what has no meaning for these priors: all that is done to the previous frame, where none is seen.
    pub fn for_priors(self, priors: &PriorConfig) -> Self {
        if priors.pose_frames > 0 {
            return self;
        }
        Self { pose_noise: 0.0, pose_dropout: 0.0, pose_shuffle: 0.0, pose_own: 0.0, ..self }
    }

    /// How held-out samples are drawn: as the first frame of a clip, with the identity frame for the previous one, and
    /// never without speech.
    fn at_the_start(self) -> Self {
        Self { pose_dropout: 1.0, pose_shuffle: 0.0, pose_own: 0.0, pose_noise: 0.0, speech_dropout: 0.0, ..self }
    }
}

/// The task of [`crate::train`].
pub struct DiffusionTask<'a> {
    /// Settings.
    pub settings: DiffusionTraining,
    /// Samples per step.
    pub batch_size: usize,
    /// Seed of the run.
    pub seed: u64,
    /// Where tensors live.
    pub device: Device,
    /// Channels and side of a latent, width of the encoded speech, rows of a window.
    pub sizes: Sizes,
    /// Weight of each latent position, [side * side], from [`position_weights`].
    pub weights: Vec<f32>,
    /// Training clips.
    pub clips: &'a [LatentClip],
    /// Held-out clips.
    pub valid: &'a [LatentClip],
    /// Noise schedule.
    pub schedule: Schedule,
    /// Networks of the losses on pictures, where the settings have such.
    pub estimate: Option<EstimateNets>,
    /// How the sheet of a checkpoint is drawn; none is where absent.
    pub drawing: Option<SheetDrawing>,
}

/// Sizes shared by every sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Latent channels.
    pub channels: usize,
    /// Latent side.
    pub side: usize,
    /// Width of the encoded speech.
    pub speech: usize,
    /// Width of what the encoder hears.
    pub row: usize,
    /// Rows of encoded speech around a frame.
    pub window: usize,
    /// Previous frames that the denoiser sees.
    pub previous_frames: usize,
}

/// Loss weight of each latent position: `outside` where the mask keeps pixels, 1 where it hides them, `1 + mouth` in
/// the rectangle where an aligned mouth lies.
///
/// # Shapes
/// hidden: [side * side], share of each latent position that is masked -> [side * side]
pub fn position_weights(hidden: &[f32], side: usize, settings: &DiffusionTraining) -> Vec<f32> {
    let at = |i: usize| ((i % side) as f32 + 0.5, (i / side) as f32 + 0.5);
    let unit = side as f32;
    hidden
        .iter()
        .enumerate()
        .map(|(i, &hidden)| {
            let (x, y) = at(i);
            // In the alignment's template the lips lie around (0.5, 0.66), 0.35 wide with room to open.
            let mouth = (x / unit - 0.5).abs() < 0.22 && (0.52..0.86).contains(&(y / unit));
            let base = settings.outside_weight + (1.0 - settings.outside_weight) * hidden;
            base + if mouth { settings.mouth_weight } else { 0.0 }
        })
        .collect()
}

/// Which frames make a sample.
#[derive(Clone, Copy)]
struct Pick<'a> {
    clip: &'a LatentClip,
    target: usize,
    identity: usize,
    /// The latest previous frame; those before it come before it.
    previous: usize,
    /// The identity frame stands in for all previous ones, as at the start of a clip.
    dropped: bool,
    pose_sigma: f32,
    /// The previous frame is the network's own.
    own_pose: bool,
    /// Without speech.
    mute: bool,
}

impl Pick<'_> {
    /// The previous frame before `back` others. The identity frame stands in where the clip has none, as it does when
    /// generation begins.
    fn previous_frame(&self, back: usize) -> usize {
        let found = if self.dropped { None } else { self.previous.checked_sub(back) };
        found.filter(|frame| self.clip.valid[*frame]).unwrap_or(self.identity)
    }

    /// Rows of speech that the target frame hears; none where the clip has none, or shall not be heard.
    fn heard(&self, window: usize) -> impl Iterator<Item = Option<usize>> + '_ {
        let frames = self.clip.valid.len();
        let first = self.target as isize - self.clip.offset - (window / 2) as isize;
        (0..window as isize).map(move |row| usize::try_from(first + row).ok().filter(|at| *at < frames && !self.mute))
    }
}

/// One batch on the device.
struct Batch {
    target: Tensor<4>,
    priors: VisualPriors,
    windows: Tensor<3>,
}

/// Draws a sample; every frame of the data is as likely as any other.
fn pick<'a>(clips: &'a [LatentClip], settings: &DiffusionTraining, random: &mut ChaCha8Rng) -> Pick<'a> {
    let longest = clips.iter().map(|clip| clip.valid.len()).max().expect("checked before: there are clips");
    loop {
        let clip = &clips[random.random_range(0..clips.len())];
        let frames = clip.valid.len();
        if frames <= random.random_range(0..longest) {
            continue;
        }
        let target = random.random_range(1..frames);
        if !clip.valid[target] || !clip.valid[target - 1] {
            continue;
        }
        // A frame far enough away; a short clip gets the farthest tries.
        let identity = (0..16)
            .map(|_| random.random_range(0..frames))
            .filter(|&r| clip.valid[r])
            .find(|r| r.abs_diff(target) >= settings.identity_distance)
            .unwrap_or(0);
        if !clip.valid[identity] {
            continue;
        }
        let draw: f64 = random.random();
        let shuffle_to = settings.pose_dropout + settings.pose_shuffle;
        let dropped = draw < settings.pose_dropout;
        let previous = if dropped {
            identity
        } else if draw < shuffle_to {
            (0..8).map(|_| random.random_range(0..frames)).find(|&r| clip.valid[r]).unwrap_or(target - 1)
        } else {
            target - 1
        };
        return Pick {
            clip,
            target,
            identity,
            previous,
            dropped,
            pose_sigma: random.random::<f32>() * settings.pose_noise,
            own_pose: (shuffle_to..shuffle_to + settings.pose_own).contains(&draw),
            mute: random.random_bool(settings.speech_dropout),
        };
    }
}

impl DiffusionTask<'_> {
    /// Samples of a step, and the generator that drew them.
    fn draw(&self, step: u64) -> (Vec<Pick<'_>>, ChaCha8Rng) {
        let mut random = ChaCha8Rng::seed_from_u64(mix(self.seed, step, 0));
        ((0..self.batch_size).map(|_| pick(self.clips, &self.settings, &mut random)).collect(), random)
    }

    /// Noise of neighbouring samples; `step` tells apart what it is for.
    ///
    /// # Shapes
    /// -> [count, channels, side, side]
    fn noise(&self, count: usize, seed: u64, first: u64, step: u64, device: &Device) -> Tensor<4> {
        let Sizes { channels, side, .. } = self.sizes;
        let key = |i| NoiseKey { seed, noise_use: NoiseUse::Training, index: first + i, step };
        normal_batch(&(0..count as u64).map(key).collect::<Vec<_>>(), [channels, side, side], device)
    }

    /// The weights of the positions, as a batch of one.
    ///
    /// # Shapes
    /// -> [1, 1, side, side]
    fn weights_on(&self, device: &Device) -> Tensor<4> {
        let side = self.sizes.side;
        Tensor::from_data(TensorData::new(self.weights.clone(), [1, 1, side, side]), (device, DType::F32))
    }

    fn gather(&self, picks: &[Pick<'_>], first: u64, device: &Device) -> Batch {
        let Sizes { channels, side, speech, window, previous_frames, .. } = self.sizes;
        let len = channels * side * side;
        let latents = |choose: &dyn Fn(&Pick<'_>) -> (usize, bool)| {
            let mut values = Vec::with_capacity(picks.len() * len);
            for pick in picks {
                let (frame, masked) = choose(pick);
                let from = if masked { &pick.clip.masked } else { &pick.clip.frames };
                values.extend(
                    from[frame * len..(frame + 1) * len].iter().map(|&bits| half::f16::from_bits(bits).to_f32()),
                );
            }
            Tensor::<4>::from_data(TensorData::new(values, [picks.len(), channels, side, side]), (device, DType::F32))
        };
        let mut windows = Vec::with_capacity(picks.len() * window * speech);
        for pick in picks {
            for row in pick.heard(window) {
                match row.filter(|_| !pick.clip.speech.is_empty()) {
                    Some(at) => windows.extend_from_slice(&pick.clip.speech[at * speech..(at + 1) * speech]),
                    None => windows.extend(std::iter::repeat_n(0f32, speech)),
                }
            }
        }
        let sigma: Vec<f32> = picks.iter().map(|pick| pick.pose_sigma).collect();
        let sigma = Tensor::<4>::from_data(TensorData::new(sigma, [picks.len(), 1, 1, 1]), (device, DType::F32));
        let noise = |back: usize| {
            // Steps 2 and 3 are those of other noise.
            let step = if back == 0 { 1 } else { 3 + back as u64 };
            self.noise(picks.len(), !self.seed, first, step, device)
        };
        let pose =
            |back: usize| latents(&|pick: &Pick<'_>| (pick.previous_frame(back), false)) + noise(back) * sigma.clone();
        Batch {
            target: latents(&|pick| (pick.target, false)),
            priors: VisualPriors {
                masked: latents(&|pick| (pick.target, true)),
                identity: latents(&|pick| (pick.identity, false)),
                pose: (0..previous_frames).map(pose).collect(),
            },
            windows: Tensor::from_data(TensorData::new(windows, [picks.len(), window, speech]), (device, DType::F32)),
        }
    }

    /// Replaces the latest previous frames that are to be the network's own by its estimate from noise in one step,
    /// made as the first frame of a clip is: with the identity frame as its previous frame.
    fn estimate_poses(&self, model: &DenoiserStage, picks: &[Pick<'_>], batch: &mut Batch, seed: u64, first: u64) {
        let Sizes { channels, side, .. } = self.sizes;
        let own: Vec<usize> = (0..picks.len()).filter(|&i| picks[i].own_pose).collect();
        if own.is_empty() || batch.priors.pose.is_empty() {
            return;
        }
        let plain = self.device.clone().inner();
        let model = model.valid();
        let before = |&i: &usize| Pick {
            target: picks[i].target - 1,
            previous: picks[i].identity,
            dropped: true,
            pose_sigma: 0.0,
            mute: false,
            ..picks[i]
        };
        let earlier = self.batch(&model, &own.iter().map(before).collect::<Vec<_>>(), first, &plain);
        let keys: Vec<NoiseKey> = own
            .iter()
            .map(|&i| NoiseKey { seed, noise_use: NoiseUse::Training, index: first + i as u64, step: 2 })
            .collect();
        // From pure noise to half noise: all that the estimate may owe to its true frame is a hint of it.
        let half = self.schedule.num_timesteps() / 2;
        let timesteps: Vec<usize> = keys.iter().map(|key| half + key.uniform_below(half)).collect();
        let z = self.schedule.q_sample(earlier.target, normal_batch(&keys, [channels, side, side], &plain), &timesteps);
        let condition = model.denoiser.condition(&earlier.priors);
        let tokens = model.conditioner.forward(earlier.windows);
        let predicted = model.denoiser.forward(z.clone(), condition, &timesteps, tokens);
        let estimate = self.settings.prediction.to_x0(&self.schedule, predicted, z, &timesteps);
        let device = batch.target.device();
        let mut poses: Vec<Tensor<4>> = batch.priors.pose[0].clone().split(1, 0);
        for (estimate, i) in estimate.split(1, 0).into_iter().zip(own) {
            poses[i] = Tensor::from_data(estimate.into_data(), (&device, DType::F32));
        }
        batch.priors.pose[0] = Tensor::cat(poses, 0);
    }

    /// Weighted loss of a batch, and of each sample alone.
    fn batch_loss(
        &self,
        model: &DenoiserStage,
        batch: Batch,
        timesteps: &[usize],
        seed: u64,
        first: u64,
    ) -> (Tensor<1>, Vec<f32>) {
        let device = batch.target.device();
        let noise = self.noise(timesteps.len(), seed, first, 0, &device);
        let z = self.schedule.q_sample(batch.target.clone(), noise.clone(), timesteps);
        let condition = model.denoiser.condition(&batch.priors);
        let predicted = model.denoiser.forward(z, condition, timesteps, model.conditioner.forward(batch.windows));
        let s = &self.settings;
        let loss = diffusion_loss(
            &self.schedule,
            s.prediction,
            s.weighting,
            predicted,
            batch.target,
            noise,
            timesteps,
            Some(self.weights_on(&device)),
        );
        let each = loss.per_sample.into_data().convert::<f32>().try_into_vec().expect("converted to f32");
        (loss.mean, each)
    }
}

/// Timestep bands of the log.
const BANDS: [(&str, usize); 3] = [("t_below_250", 250), ("t_below_600", 600), ("t_below_1000", 1000)];

fn by_band(timesteps: &[usize], losses: &[f32]) -> Vec<(&'static str, f32)> {
    let mut from = 0;
    let mut parts = Vec::new();
    for (name, to) in BANDS {
        let inside: Vec<f32> =
            timesteps.iter().zip(losses).filter(|(t, _)| (from..to).contains(*t)).map(|(_, loss)| *loss).collect();
        if !inside.is_empty() {
            parts.push((name, inside.iter().sum::<f32>() / inside.len() as f32));
        }
        from = to;
    }
    parts
}

impl Task<DenoiserStage> for DiffusionTask<'_> {
    fn num_shards(&self) -> usize {
        Shard::count_for(self.batch_size)
    }

    fn in_precision(&self, model: DenoiserStage, precision: Precision) -> TrainResult<DenoiserStage> {
        Ok(model.in_precision(precision))
    }

    fn loss(&self, model: &DenoiserStage, step: u64, shard: Shard) -> TrainResult<StepLoss> {
        let (picks, _) = self.draw(step);
        let range = shard.range(self.batch_size);
        let first = step * self.batch_size as u64 + range.start as u64;
        let numbers: Vec<u64> = (first..first + range.len() as u64).collect();
        let mut batch = self.batch(model, &picks[range.clone()], first, &self.device);
        self.estimate_poses(model, &picks[range], &mut batch, self.seed, first);
        let timesteps = uniform_timesteps(self.seed, &numbers, self.schedule.num_timesteps());
        let (mut loss, each) = self.batch_loss(model, batch, &timesteps, self.seed, first);
        let mut parts = by_band(&timesteps, &each);
        if let Some(estimate) = self.estimate_loss(model, step, shard)? {
            loss = loss + estimate.loss;
            parts.extend(estimate.parts);
        }
        Ok(StepLoss { loss, parts })
    }

    fn batch_of(&self, step: u64) -> TrainResult<TensorMap> {
        let (picks, _) = self.draw(step);
        let first = step * self.batch_size as u64;
        let Batch { target, priors, windows } = self.gather(&picks, first, &self.device);
        let numbers: Vec<u64> = (first..first + self.batch_size as u64).collect();
        let timesteps = uniform_timesteps(self.seed, &numbers, self.schedule.num_timesteps());
        let timesteps: Vec<f32> = timesteps.iter().map(|t| *t as f32).collect();
        let latents = [("target", target), ("masked", priors.masked), ("identity", priors.identity)];
        let mut named: TensorMap = latents.map(|(name, tensor)| (name.to_owned(), stored(tensor))).into();
        if !priors.pose.is_empty() {
            named.insert("pose".into(), stored(Tensor::cat(priors.pose, 1)));
        }
        named.insert("windows".into(), stored(windows));
        named.insert("timesteps".into(), StoredTensor::from_f32(&[timesteps.len()], &timesteps));
        Ok(named)
    }

    /// The loss on fixed held-out samples with fixed noise, timesteps spread evenly and the identity frame in place of
    /// the previous one; and over the noisier timesteps, where the shape of the mouth is decided, the same with the
    /// speech of another sample: the difference is what the network makes of the sound.
    fn validate(&self, shadow: &DenoiserStage) -> TrainResult<Vec<(&'static str, f32)>> {
        let device = self.device.clone().inner();
        let (count, size) = (96, 16);
        let settings = self.settings.clone().at_the_start();
        let mut random = ChaCha8Rng::seed_from_u64(7);
        let (mut all, mut right, mut wrong) = (Vec::new(), Vec::new(), Vec::new());
        for part in 0..count / size {
            let picks: Vec<_> = (0..size).map(|_| pick(self.valid, &settings, &mut random)).collect();
            let timesteps: Vec<usize> =
                (0..size).map(|i| (i * (count / size) + part) * self.schedule.num_timesteps() / count).collect();
            let first = (part * size) as u64;
            let batch = self.batch(shadow, &picks, 0, &device);
            let rolled = {
                let windows = batch.windows.clone();
                Tensor::cat(vec![windows.clone().narrow(0, 1, size - 1), windows.narrow(0, 0, 1)], 0)
            };
            let other = Batch { target: batch.target.clone(), priors: batch.priors.clone(), windows: rolled };
            let own = self.batch_loss(shadow, batch, &timesteps, 7, first).1;
            let other = self.batch_loss(shadow, other, &timesteps, 7, first).1;
            let noisy = |losses: &[f32]| -> Vec<f32> {
                let is_noisy = |t: usize| t >= self.schedule.num_timesteps() / 2;
                timesteps.iter().zip(losses).filter(|(t, _)| is_noisy(**t)).map(|(_, loss)| *loss).collect()
            };
            right.extend(noisy(&own));
            wrong.extend(noisy(&other));
            all.extend(own);
        }
        let mean = |losses: &[f32]| losses.iter().sum::<f32>() / losses.len() as f32;
        Ok(vec![("loss", mean(&all)), ("noisy_loss", mean(&right)), ("noisy_loss_wrong_speech", mean(&wrong))])
    }

    fn sheet(&self, shadow: &DenoiserStage) -> TrainResult<Option<SampleSheet>> {
        self.drawn_sheet(shadow)
    }

    fn best_by(&self) -> Option<Measure> {
        Some(Measure::Lowest("noisy_loss"))
    }
}
