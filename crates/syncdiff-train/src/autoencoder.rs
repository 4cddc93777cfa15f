//! Trains the first stage on frames.
//!
//! # Source
//! METHOD of latent-diffusion's VQ-f4: mean |x - x'| + codebook loss. Instead of LPIPS and a discriminator, which need
//! weights and compute that a small machine lacks, the L1 term is also taken on horizontal and vertical differences,
//! which keeps edges (lip line, teeth) sharp.

use crate::best::Measure;
use crate::error::TrainResult;
use crate::images::{psnr, stored, to_tensor, window};
use crate::seeds::mix;
use crate::sheet::SampleSheet;
use crate::trainer::{Shard, StepLoss, Task};
use burn::tensor::{Device, Tensor};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use std::ops::Range;
use syncdiff_model::autoencoder::Autoencoder;
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

/// Settings of the autoencoder's training.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AutoencoderTraining {
    /// Side of the random windows cut from the frames.
    pub window: usize,
    /// Step at which quantisation begins; the codebook then starts from latents of the data. Starting with it loses
    /// most codes at once.
    pub quantize_from: u64,
    /// Weight of the L1 term on differences of neighbouring pixels.
    pub edge_weight: f64,
    /// Weight of the codebook loss.
    pub codebook_weight: f64,
}

/// The task of [`crate::train`].
pub struct AutoencoderTask<'a> {
    /// Settings.
    pub settings: AutoencoderTraining,
    /// Samples per step.
    pub batch_size: usize,
    /// Seed of the run.
    pub seed: u64,
    /// Where tensors live.
    pub device: Device,
    /// Training frames.
    pub frames: &'a dyn FrameSource,
    /// Held-out frames.
    pub valid: &'a dyn FrameSource,
}

impl AutoencoderTask<'_> {
    fn batch(&self, step: u64, samples: Range<usize>, size: usize) -> TrainResult<Tensor<4>> {
        let side = self.frames.side();
        let pictures = samples.map(|index| {
            let seed = mix(self.seed, step, index as u64);
            let mut random = ChaCha8Rng::seed_from_u64(seed);
            let frame = self.frames.frame(seed)?;
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
}

/// Mean absolute difference, and the same of horizontal and vertical neighbour differences.
fn reconstruction(x: Tensor<4>, y: Tensor<4>) -> (Tensor<1>, Tensor<1>) {
    let error = y - x;
    let [.., height, width] = error.dims();
    let across = error.clone().narrow(3, 1, width - 1) - error.clone().narrow(3, 0, width - 1);
    let down = error.clone().narrow(2, 1, height - 1) - error.clone().narrow(2, 0, height - 1);
    (error.abs().mean(), across.abs().mean() + down.abs().mean())
}

impl Task<Autoencoder> for AutoencoderTask<'_> {
    fn before_step(&self, mut model: Autoencoder, step: u64) -> TrainResult<Autoencoder> {
        if step != self.settings.quantize_from {
            return Ok(model);
        }
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
        model.quantize = model.quantize.with_codebook(codebook);
        Ok(model)
    }

    fn num_shards(&self) -> usize {
        Shard::count_for(self.batch_size)
    }

    fn loss(&self, model: &Autoencoder, step: u64, shard: Shard) -> TrainResult<StepLoss> {
        let x = self.batch(step, shard.range(self.batch_size), self.settings.window)?;
        let z = model.encode(x.clone());
        let (y, codebook_loss) = if step < self.settings.quantize_from {
            // A gentle pull to unit scale, so that the codebook's start is well spread.
            (model.decode_quantized(z.clone()), z.powi_scalar(2).mean() * 1e-3)
        } else {
            let quantized = model.quantize.quantize_for_training(z);
            (model.decode_quantized(quantized.z), quantized.loss * self.settings.codebook_weight)
        };
        let (l1, edges) = reconstruction(x, y);
        let parts = vec![
            ("l1", l1.clone().into_scalar::<f32>()),
            ("edges", edges.clone().into_scalar::<f32>()),
            ("codebook", codebook_loss.clone().into_scalar::<f32>()),
        ];
        Ok(StepLoss { loss: l1 + edges * self.settings.edge_weight + codebook_loss, parts })
    }

    fn batch_of(&self, step: u64) -> TrainResult<TensorMap> {
        let pictures = self.batch(step, 0..self.batch_size, self.settings.window)?;
        Ok([("pictures".to_owned(), stored(pictures))].into())
    }

    fn validate(&self, shadow: &Autoencoder) -> TrainResult<Vec<(&'static str, f32)>> {
        let x = self.held_out()?;
        let z = shadow.encode(x.clone());
        let spread = z.clone().powi_scalar(2).mean().into_scalar::<f32>().sqrt();
        Ok(vec![
            ("psnr", psnr(shadow.decode(z.clone()), x.clone())),
            ("psnr_not_quantised", psnr(shadow.decode_quantized(z), x)),
            ("latent_rms", spread),
        ])
    }

    fn sheet(&self, shadow: &Autoencoder) -> TrainResult<Option<SampleSheet>> {
        let truth = self.held_out()?;
        Ok(Some(SampleSheet { drawn: shadow.decode(shadow.encode(truth.clone())), truth }))
    }

    fn best_by(&self) -> Option<Measure> {
        Some(Measure::Highest("psnr"))
    }
}
