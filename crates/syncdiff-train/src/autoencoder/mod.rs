//! Trains the first stage on frames.
//!
//! # Source
//! METHOD section 4.5, latent-diffusion's VQ-f4: mean |x - x'| + LPIPS + codebook loss + an adversarial loss. A small
//! machine can do without LPIPS and the adversary: the L1 term is also taken on horizontal and vertical differences,
//! which keeps edges (lip line, teeth) sharp.

mod adversary;

use crate::best::Measure;
use crate::error::{TrainError, TrainResult};
use crate::images::{psnr, stored, to_tensor, window};
use crate::seeds::mix;
use crate::sheet::SampleSheet;
use crate::trainer::{Shard, StepLoss, Task};
use adversary::Drawn;
use burn::module::Module;
use burn::tensor::{DType, Device, Tensor};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use std::ops::Range;
use syncdiff_data::Look;
use syncdiff_model::Precision;
use syncdiff_model::autoencoder::{Autoencoder, PatchDiscriminator};
use syncdiff_model::cost::Cost;
use syncdiff_model::scorers::{Lpips, LpipsTrunk};
use syncdiff_model::weights::TensorMap;

/// Frames to learn from.
pub trait FrameSource: Sync {
    /// Side of the square frames in pixels.
    fn side(&self) -> usize;

    /// A frame chosen by the seed: RGB bytes, [side, side, 3].
    ///
    /// # Errors
    /// When the data cannot be read.
    fn frame(&self, seed: u64) -> TrainResult<Vec<u8>>;
}

/// Width of the critic's first layer, that of the source.
const CRITIC_WIDTH: usize = 64;
/// Least side of pictures that LPIPS and the critic have something to say of, in pixels.
const LEAST_SEEN: usize = 32;

/// Settings of the autoencoder's training.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AutoencoderTraining {
    /// Side of the random windows cut from the frames, in pixels.
    pub window: usize,
    /// Step at which quantisation begins; the codebook then starts from latents of the data. Starting with it loses
    /// most codes at once.
    pub quantize_from: u64,
    /// Weight of the L1 term on differences of neighbouring pixels; 0 in the source.
    pub edge_weight: f64,
    /// Weight of the codebook loss; 1 in the source.
    pub codebook_weight: f64,
    /// Weight of LPIPS; 1 in the source, 0 does without its network.
    #[serde(default)]
    pub lpips_weight: f64,
    /// Whose features LPIPS compares; `vgg` in the source, `alex` costs a twentieth.
    #[serde(default)]
    pub lpips_trunk: LpipsTrunk,
    /// Weight of the adversarial loss, as a share of the reconstruction's gradient at the decoder's last layer; 0.75 in
    /// the source, 0 does without a critic.
    #[serde(default)]
    pub adversarial_weight: f64,
    /// Step at which the adversarial loss begins and the critic begins to learn; 0 in the source.
    #[serde(default)]
    pub adversarial_from: u64,
    /// Share of the windows whose frame gets another look (face shape, colours, sharpness), 0 to 1.
    #[serde(default)]
    pub varied: f64,
}

impl AutoencoderTraining {
    pub(crate) fn check(&self, has_lpips: bool) -> TrainResult<()> {
        let refused = |name, value: String, allowed: &str| {
            Err(TrainError::Parameter { name, value, allowed: allowed.to_owned() })
        };
        let looking = [self.lpips_weight, self.adversarial_weight];
        if looking.iter().any(|weight| !(0.0..f64::INFINITY).contains(weight)) {
            let value = format!("{} and {}", looking[0], looking[1]);
            return refused("autoencoder.lpips_weight and adversarial_weight", value, "from 0");
        }
        if (self.lpips_weight > 0.0) != has_lpips {
            let value = self.lpips_weight.to_string();
            return refused("autoencoder.lpips_weight", value, "above 0 with --lpips, 0 without");
        }
        if looking != [0.0; 2] && self.window < LEAST_SEEN {
            let allowed = format!("at least {LEAST_SEEN} with lpips_weight or adversarial_weight");
            return refused("autoencoder.window", self.window.to_string(), &allowed);
        }
        if !(0.0..=1.0).contains(&self.varied) {
            return refused("autoencoder.varied", self.varied.to_string(), "a share from 0 to 1");
        }
        Ok(())
    }

    /// Beside the autoencoder's own: what LPIPS and the critic cost for one window, and the critic's parameters.
    pub(crate) fn cost_of_lookers(&self) -> Cost {
        let (mut cost, side) = (Cost::default(), self.window);
        if self.lpips_weight > 0.0 {
            cost += Cost { parameters: 0, ..Lpips::cost(self.lpips_trunk, side, side) };
        }
        if self.adversarial_weight > 0.0 {
            // The true window and the drawn one, and the drawn one again by a critic that does not learn from it.
            cost += PatchDiscriminator::cost(3, CRITIC_WIDTH, side).times(3);
        }
        cost
    }
}

/// The autoencoder, and its critic where there is an adversarial loss.
#[derive(Module, Debug)]
pub struct AutoencoderTrainee {
    /// The part that is kept.
    pub autoencoder: Autoencoder,
    critic: Option<PatchDiscriminator>,
}

impl AutoencoderTrainee {
    /// An autoencoder of RGB pictures with the critic that the settings ask for.
    pub fn new(autoencoder: Autoencoder, settings: &AutoencoderTraining, device: &Device) -> Self {
        let judged = settings.adversarial_weight > 0.0;
        Self { autoencoder, critic: judged.then(|| PatchDiscriminator::new(3, CRITIC_WIDTH, device)) }
    }
}

/// The task of [`crate::train`].
pub struct AutoencoderTask<'a> {
    settings: AutoencoderTraining,
    batch_size: usize,
    seed: u64,
    device: Device,
    /// Frozen.
    lpips: Option<Lpips>,
    frames: &'a dyn FrameSource,
    valid: &'a dyn FrameSource,
}

impl<'a> AutoencoderTask<'a> {
    /// `batch_size` counts windows; `device` differentiates, and `lpips` lies on it. A weight without its network is
    /// refused, and a network without its weight.
    ///
    /// # Errors
    /// [`TrainError::Parameter`].
    pub fn new(
        settings: AutoencoderTraining,
        batch_size: usize,
        seed: u64,
        device: Device,
        lpips: Option<Lpips>,
        frames: &'a dyn FrameSource,
        valid: &'a dyn FrameSource,
    ) -> TrainResult<Self> {
        settings.check(lpips.is_some())?;
        Ok(Self { settings, batch_size, seed, device, lpips: lpips.map(Module::no_grad), frames, valid })
    }

    fn batch(&self, step: u64, samples: Range<usize>, size: usize) -> TrainResult<Tensor<4>> {
        let side = self.frames.side();
        let pictures = samples.map(|index| {
            let seed = mix(self.seed, step, index as u64);
            let mut random = ChaCha8Rng::seed_from_u64(seed);
            let mut frame = self.frames.frame(seed)?;
            Look::draw(self.settings.varied, self.seed, step, index as u64).apply(&mut frame, side);
            let (top, left) = (random.random_range(0..=side - size), random.random_range(0..=side - size));
            Ok(window(&frame, side, top, left, size, random.random()))
        });
        Ok(to_tensor(&pictures.collect::<TrainResult<Vec<_>>>()?, size, &self.device))
    }

    /// The held-out frames of every checkpoint, whole.
    fn held_out(&self) -> TrainResult<Tensor<4>> {
        let frames = (0..8).map(|i| self.valid.frame(mix(1, 0, i))).collect::<TrainResult<Vec<_>>>()?;
        Ok(to_tensor(&frames, self.valid.side(), &self.device.clone().inner()))
    }

    /// How far drawn pictures `y` are from true ones, and the parts of it: L1, edges, LPIPS.
    fn reconstruction(&self, x: Tensor<4>, y: Tensor<4>) -> StepLoss {
        let (l1, edges) = differences(x.clone(), y.clone());
        let mut parts = vec![("l1", l1.clone().into_scalar::<f32>()), ("edges", edges.clone().into_scalar::<f32>())];
        let mut loss = l1 + edges * self.settings.edge_weight;
        if let Some(lpips) = &self.lpips {
            let distance = lpips.forward(y, x).mean();
            parts.push(("lpips", distance.clone().into_scalar::<f32>()));
            loss = loss + distance * self.settings.lpips_weight;
        }
        StepLoss { loss, parts }
    }
}

/// Mean absolute difference, and the same of horizontal and vertical neighbour differences.
fn differences(x: Tensor<4>, y: Tensor<4>) -> (Tensor<1>, Tensor<1>) {
    let error = y - x;
    let [.., height, width] = error.dims();
    let across = error.clone().narrow(3, 1, width - 1) - error.clone().narrow(3, 0, width - 1);
    let down = error.clone().narrow(2, 1, height - 1) - error.clone().narrow(2, 0, height - 1);
    (error.abs().mean(), across.abs().mean() + down.abs().mean())
}

impl Task<AutoencoderTrainee> for AutoencoderTask<'_> {
    fn before_step(&self, mut trainee: AutoencoderTrainee, step: u64) -> TrainResult<AutoencoderTrainee> {
        if step != self.settings.quantize_from {
            return Ok(trainee);
        }
        let model = &mut trainee.autoencoder;
        // As many latents of the data as there are codes, spread evenly over the batch.
        let codes = model.quantize.codebook().dims()[0];
        let x = self.batch(u64::MAX, 0..16, self.settings.window)?;
        let z = model.encode(x.detach()).detach();
        let [batch, dim, height, width] = z.dims();
        let positions = batch * height * width;
        let rows: Vec<f32> =
            z.permute([0, 2, 3, 1]).into_data().convert::<f32>().try_into_vec().expect("converted to f32");
        let mut random = ChaCha8Rng::seed_from_u64(self.seed);
        let picked: Vec<f32> = (0..codes)
            .flat_map(|code| {
                let row = if codes <= positions { code * positions / codes } else { random.random_range(0..positions) };
                // Equal rows would never separate.
                let jitter = [random.random::<f32>(), random.random(), random.random()];
                (0..dim).map(|d| rows[row * dim + d] + 1e-3 * (jitter[d % 3] - 0.5)).collect::<Vec<_>>()
            })
            .collect();
        let codebook = Tensor::from_data(burn::tensor::TensorData::new(picked, [codes, dim]), &self.device);
        model.quantize = model.quantize.clone().with_codebook(codebook);
        Ok(trainee)
    }

    fn num_shards(&self) -> usize {
        Shard::count_for(self.batch_size)
    }

    /// The critic and LPIPS stay f32.
    fn in_precision(&self, trainee: AutoencoderTrainee, precision: Precision) -> TrainResult<AutoencoderTrainee> {
        Ok(AutoencoderTrainee { autoencoder: trainee.autoencoder.learning_in(precision), ..trainee })
    }

    fn loss(&self, trainee: &AutoencoderTrainee, step: u64, shard: Shard) -> TrainResult<StepLoss> {
        let x = self.batch(step, shard.range(self.batch_size), self.settings.window)?;
        let model = &trainee.autoencoder;
        let decode = |z: Tensor<4>| {
            let (features, last_layer) = (model.decode_features(z).cast(DType::F32), model.decoder.last_layer());
            Drawn { pictures: last_layer.forward(features.clone()), features, last_layer }
        };
        let z = model.encode(x.clone());
        let (drawn, codebook_loss) = if step < self.settings.quantize_from {
            // A gentle pull to unit scale, so that the codebook's start is well spread.
            (decode(z.clone()), z.powi_scalar(2).mean() * 1e-3)
        } else {
            let quantized = model.quantize.quantize_for_training(z);
            (decode(quantized.z), quantized.loss * self.settings.codebook_weight)
        };
        let codebook = ("codebook", codebook_loss.clone().into_scalar::<f32>());
        let critic = trainee.critic.as_ref().filter(|_| step >= self.settings.adversarial_from);
        let StepLoss { loss, mut parts } = match critic {
            None => self.reconstruction(x, drawn.pictures),
            Some(critic) => {
                let mut parts = Vec::new();
                let against = drawn.against(critic, self.settings.adversarial_weight, x.clone(), |pictures| {
                    let reconstruction = self.reconstruction(x, pictures);
                    parts = reconstruction.parts;
                    reconstruction.loss
                });
                parts.extend(against.parts);
                StepLoss { loss: against.loss, parts }
            }
        };
        parts.push(codebook);
        Ok(StepLoss { loss: loss + codebook_loss, parts })
    }

    fn batch_of(&self, step: u64) -> TrainResult<TensorMap> {
        let pictures = self.batch(step, 0..self.batch_size, self.settings.window)?;
        Ok([("pictures".to_owned(), stored(pictures))].into())
    }

    fn validate(&self, shadow: &AutoencoderTrainee) -> TrainResult<Vec<(&'static str, f32)>> {
        let shadow = &shadow.autoencoder;
        let x = self.held_out()?;
        let z = shadow.encode(x.clone());
        let spread = z.clone().powi_scalar(2).mean().into_scalar::<f32>().sqrt();
        let drawn = shadow.decode(z.clone());
        let mut figures = vec![
            ("psnr", psnr(drawn.clone(), x.clone())),
            ("psnr_not_quantised", psnr(shadow.decode_quantized(z), x.clone())),
            ("latent_rms", spread),
        ];
        if let Some(lpips) = &self.lpips {
            let distance = lpips.valid().forward(drawn.clamp(-1.0, 1.0), x).mean();
            figures.push(("lpips", distance.into_scalar::<f32>()));
        }
        Ok(figures)
    }

    fn sheet(&self, shadow: &AutoencoderTrainee) -> TrainResult<Option<SampleSheet>> {
        let (truth, model) = (self.held_out()?, &shadow.autoencoder);
        Ok(Some(SampleSheet { drawn: model.decode(model.encode(truth.clone())), truth }))
    }

    fn best_by(&self) -> Option<Measure> {
        Some(Measure::Highest("psnr"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A configuration from before there were other losses asks for none of them.
    #[test]
    fn only_losses_that_are_asked_for_cost_something() {
        let text = "window = 64\nquantize_from = 300\nedge_weight = 0.5\ncodebook_weight = 1.0";
        let old: AutoencoderTraining = toml::from_str(text).unwrap();
        assert_eq!((old.lpips_weight, old.adversarial_weight, old.varied), (0.0, 0.0, 0.0));
        assert_eq!(old.cost_of_lookers(), Cost::default());
        let lpips = AutoencoderTraining { lpips_weight: 1.0, ..old.clone() }.cost_of_lookers();
        assert!(lpips.parameters == 0 && lpips.macs > 2 * old.window.pow(2) as u64 * 64 * 64 * 9);
        let critic = AutoencoderTraining { adversarial_weight: 0.75, ..old }.cost_of_lookers();
        assert_eq!(critic, PatchDiscriminator::cost(3, 64, 64).times(3));
    }
}
