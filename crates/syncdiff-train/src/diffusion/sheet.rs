//! Held-out samples drawn from noise, as pictures.

use super::{Batch, DenoiserStage, DiffusionTask, pick};
use crate::error::TrainResult;
use crate::sheet::SampleSheet;
use burn::tensor::Tensor;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use syncdiff_model::autoencoder::Autoencoder;
use syncdiff_model::denoiser::{BoundContext, TimeTable};
use syncdiff_model::diffusion::{Denoiser, Prediction, Sampler};

/// Samples on a sheet.
const SAMPLES: usize = 6;
/// Most steps in which they are drawn.
const MOST_STEPS: usize = 8;
/// Seed of the samples and of their noise: not of the run, whose sheets shall be like those of others.
const SEED: u64 = 7;

/// How the sheet of a checkpoint is drawn.
pub struct SheetDrawing {
    autoencoder: Autoencoder,
    sampler: Sampler,
    guidance: f32,
}

impl SheetDrawing {
    /// By this sampler, but in eight steps at most. The first stage lies outside of automatic differentiation; a
    /// guidance of 1 is none.
    pub fn new(autoencoder: Autoencoder, sampler: Sampler, guidance: f32) -> Self {
        let num_steps = sampler.num_steps.min(MOST_STEPS);
        Self { autoencoder, sampler: Sampler { num_steps, ..sampler }, guidance }
    }
}

/// Lets `ask` ask a network as it generates, with guidance.
pub(super) fn with_guidance<R>(
    stage: &DenoiserStage,
    batch: &Batch,
    (guidance, prediction): (f32, Prediction),
    ask: impl FnOnce(&dyn Denoiser) -> R,
) -> R {
    let DenoiserStage { denoiser, conditioner, .. } = stage;
    let [_, window, width] = batch.windows.dims();
    // No speech is zero rows, as `speech_dropout` shows it.
    let mute = || conditioner.forward(Tensor::zeros([1, window, width], &batch.windows.device()));
    let guidance = denoiser.guidance(guidance, mute);
    let context = denoiser.prepare_context(conditioner.forward(batch.windows.clone()));
    let times = TimeTable::default();
    let context = BoundContext::new(context, guidance.as_ref());
    ask(&denoiser.bind_prepared(&batch.priors, context, &times, prediction))
}

impl DiffusionTask<'_> {
    /// Fixed held-out samples, each as the first frame of a clip: the true one as the first stage decodes it, and the one
    /// that the network draws from noise. `None` where nothing is said of how to draw.
    pub(super) fn drawn_sheet(&self, model: &DenoiserStage) -> TrainResult<Option<SampleSheet>> {
        let Some(SheetDrawing { autoencoder, sampler, guidance }) = &self.drawing else { return Ok(None) };
        let device = self.device.clone().inner();
        let settings = self.settings.clone().at_the_start();
        let mut random = ChaCha8Rng::seed_from_u64(SEED);
        let picks: Vec<_> = (0..SAMPLES).map(|_| pick(self.valid, &settings, &mut random)).collect();
        let batch = self.batch(model, &picks, 0, &device);
        let start = self.noise(SAMPLES, SEED, 0, 0, &device);
        let frames: Vec<u64> = (0..SAMPLES as u64).collect();
        let drawn = with_guidance(model, &batch, (*guidance, self.settings.prediction), |denoiser| {
            sampler.sample(denoiser, &self.schedule, start, SEED, &frames)
        })?;
        Ok(Some(SampleSheet { truth: autoencoder.decode(batch.target), drawn: autoencoder.decode(drawn) }))
    }
}
