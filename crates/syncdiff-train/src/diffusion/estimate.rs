//! Losses on pictures: the clean latents that the denoiser's answer stands for, decoded, heard and looked at.
//!
//! Windows of five frames are noised alike, their clean latents estimated in one step and decoded by the frozen first
//! stage; a frozen SyncNet compares their mouths with the sound, LPIPS compares them with those of the true latents.
//! Estimates from much noise are means over many mouths. Either such timesteps count little ([`EstimateWeighting`]), or
//! LPIPS is to make something else than a blur of those means, which a sampler of few steps ends with.
//!
//! # Source
//! METHOD section 12.4; LatentSync (Li et al. 2024), whose second stage has such a loss with weight 0.05.

use super::{DenoiserStage, DiffusionTask, Pick};
use crate::error::{TrainError, TrainResult};
use crate::seeds::mix;
use crate::trainer::{Shard, StepLoss};
use burn::module::Module;
use burn::tensor::{DType, Device, Tensor, TensorData};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use syncdiff_model::autoencoder::Autoencoder;
use syncdiff_model::scorers::own_syncnet::{EMBEDDING_DIM, WINDOW_FRAMES, lip_windows, mouths};
use syncdiff_model::scorers::{Lpips, OwnSyncNet};

/// Signal-to-noise ratio from which a loss has its full weight.
const FULL_SNR: f64 = 5.0;
/// Windows that are tried before the data counts as too short.
const MAX_TRIES: usize = 1000;

/// How timesteps weigh against each other in the losses on pictures.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EstimateWeighting {
    /// By their signal: min(SNR, 5) / 5.
    #[default]
    Signal,
    /// All alike.
    Even,
}

/// Settings of the losses on pictures.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EstimateTraining {
    /// Weight of the sync loss, 1 - cosine of mouth and sound; 0 does without a SyncNet.
    pub sync_weight: f64,
    /// Weight of LPIPS (AlexNet) of the mouth, 64 x 64 pixels; 0 does without it.
    pub lpips_weight: f64,
    /// Timesteps are drawn below this one.
    pub timesteps_below: usize,
    /// How they weigh.
    #[serde(default)]
    pub weighting: EstimateWeighting,
    /// Windows of five frames in each part of a step's batch.
    pub windows: usize,
    /// Step at which these losses begin.
    pub from: u64,
}

/// The frozen networks that look at the pictures.
pub struct EstimateNets {
    autoencoder: Autoencoder,
    syncnet: Option<OwnSyncNet>,
    lpips: Option<Lpips>,
}

impl EstimateNets {
    /// All on the device that differentiates; a weight without its network is refused.
    ///
    /// # Errors
    /// [`TrainError::Parameter`].
    pub fn new(
        settings: &EstimateTraining,
        autoencoder: Autoencoder,
        syncnet: Option<OwnSyncNet>,
        lpips: Option<Lpips>,
    ) -> TrainResult<Self> {
        let refused = |name, value: String, allowed: &str| {
            Err(TrainError::Parameter { name, value, allowed: allowed.to_owned() })
        };
        if settings.windows == 0 || settings.timesteps_below == 0 {
            let value = format!("{} and {}", settings.windows, settings.timesteps_below);
            return refused("diffusion.estimate.windows and timesteps_below", value, "at least 1");
        }
        if (settings.sync_weight > 0.0) != syncnet.is_some() {
            let value = settings.sync_weight.to_string();
            return refused("diffusion.estimate.sync_weight", value, "above 0 with --syncnet, 0 without");
        }
        if (settings.lpips_weight > 0.0) != lpips.is_some() {
            let value = settings.lpips_weight.to_string();
            return refused("diffusion.estimate.lpips_weight", value, "above 0 with --lpips, 0 without");
        }
        Ok(Self {
            autoencoder: autoencoder.no_grad(),
            syncnet: syncnet.map(Module::no_grad),
            lpips: lpips.map(Module::no_grad),
        })
    }
}

/// Five frames in a row.
struct Window<'a> {
    picks: Vec<Pick<'a>>,
    /// Embedding of their sound.
    sound: &'a [f32],
}

impl<'a> DiffusionTask<'a> {
    /// Losses on pictures for one part of a step's batch: their weighted sum, and each for the log. `None` where the
    /// settings ask for none, or not yet.
    pub(super) fn estimate_loss(
        &self,
        model: &DenoiserStage,
        step: u64,
        shard: Shard,
    ) -> TrainResult<Option<StepLoss>> {
        let (Some(settings), Some(nets)) = (&self.settings.estimate, &self.estimate) else { return Ok(None) };
        if step < settings.from {
            return Ok(None);
        }
        let seed = mix(self.seed, step, 1000 + shard.index as u64);
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let (mut sum, mut parts) = (Tensor::<1>::zeros([1], &self.device), Vec::new());
        let (mut syncs, mut differences) = (0.0, 0.0);
        for number in 0..settings.windows as u64 {
            let window = self.draw_window(&mut random, nets.syncnet.is_some())?;
            let below = settings.timesteps_below.min(self.schedule.num_timesteps());
            let timestep = random.random_range(0..below);
            let signal = match settings.weighting {
                EstimateWeighting::Signal => self.schedule.snr(timestep).min(FULL_SNR) / FULL_SNR,
                EstimateWeighting::Even => 1.0,
            };
            let share = signal / settings.windows as f64;
            let (drawn, truth) = self.pictures(model, nets, &window, timestep, mix(seed, number, 0));
            let drawn = mouths(drawn)?;
            if let Some(syncnet) = &nets.syncnet {
                let sound = embedding(window.sound, &self.device);
                let cosine = (syncnet.forward_lips(lip_windows(drawn.clone())) * sound).sum();
                let loss = -cosine + 1.0;
                syncs += loss.clone().into_scalar::<f32>() / settings.windows as f32;
                sum = sum + loss * (settings.sync_weight * share);
            }
            if let Some(lpips) = &nets.lpips {
                let loss = lpips.forward(drawn, mouths(truth)?).mean();
                differences += loss.clone().into_scalar::<f32>() / settings.windows as f32;
                sum = sum + loss * (settings.lpips_weight * share);
            }
        }
        if nets.syncnet.is_some() {
            parts.push(("estimate_sync", syncs));
        }
        if nets.lpips.is_some() {
            parts.push(("estimate_lpips", differences));
        }
        Ok(Some(StepLoss { loss: sum, parts }))
    }

    /// The one-step estimates of a window, and what the true latents look like.
    fn pictures(
        &self,
        model: &DenoiserStage,
        nets: &EstimateNets,
        window: &Window<'_>,
        timestep: usize,
        seed: u64,
    ) -> (Tensor<4>, Tensor<4>) {
        let batch = self.batch(model, &window.picks, seed >> 8, &self.device);
        let timesteps = vec![timestep; window.picks.len()];
        let noise = self.noise(window.picks.len(), seed, 0, 3, &self.device);
        let z = self.schedule.q_sample(batch.target.clone(), noise, &timesteps);
        let condition = model.denoiser.condition(&batch.priors);
        let tokens = model.conditioner.forward(batch.windows);
        let predicted = model.denoiser.forward(z.clone(), condition, &timesteps, tokens);
        let estimate = self.settings.prediction.to_x0(&self.schedule, predicted, z, &timesteps);
        // Not through the codebook, which would stop the gradient.
        (nets.autoencoder.decode_quantized(estimate), nets.autoencoder.decode_quantized(batch.target))
    }

    /// Five frames with a face in a row, whose previous frames are true or, as often as in the other loss, the identity
    /// frame.
    fn draw_window(&self, random: &mut ChaCha8Rng, heard: bool) -> TrainResult<Window<'a>> {
        let settings = &self.settings;
        let useless = (settings.pose_dropout + settings.pose_shuffle + settings.pose_own).min(1.0);
        for _ in 0..MAX_TRIES {
            let clip = &self.clips[random.random_range(0..self.clips.len())];
            let frames = clip.valid.len();
            if frames <= WINDOW_FRAMES {
                continue;
            }
            let start = random.random_range(1..=frames - WINDOW_FRAMES);
            let identity = random.random_range(0..frames);
            let dropped = random.random_bool(useless);
            if !clip.valid[identity] || !clip.valid[start - 1..start + WINDOW_FRAMES].iter().all(|valid| *valid) {
                continue;
            }
            let sound = if heard {
                let at = start.checked_add_signed(-clip.offset).map(|at| at * EMBEDDING_DIM);
                match at.and_then(|at| clip.sounds.get(at..at + EMBEDDING_DIM)) {
                    Some(sound) => sound,
                    None => continue,
                }
            } else {
                &[]
            };
            let pose_sigma = random.random::<f32>() * settings.pose_noise;
            let pick = |target: usize| Pick {
                clip,
                target,
                identity,
                previous: if dropped { identity } else { target - 1 },
                dropped,
                pose_sigma,
                own_pose: false,
                mute: false,
            };
            return Ok(Window { picks: (start..start + WINDOW_FRAMES).map(pick).collect(), sound });
        }
        Err(TrainError::Parameter {
            name: "diffusion.estimate",
            value: format!("{MAX_TRIES} windows without {WINDOW_FRAMES} frames of a face in a row"),
            allowed: "longer clips".into(),
        })
    }
}

fn embedding(values: &[f32], device: &Device) -> Tensor<2> {
    Tensor::from_data(TensorData::new(values.to_vec(), [1, EMBEDDING_DIM]), (device, DType::F32))
}
