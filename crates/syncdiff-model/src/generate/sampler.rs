//! A model and a way of sampling: frames of any clips, several at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use burn::tensor::Tensor;

use super::frame::{Drawn, DrawnFrame, FrameTask};
use super::{Lap, Phase, Sampling, settle};
use crate::denoiser::{BoundContext, Guidance, TimeTable, VisualPriors};
use crate::diffusion::{NoisePolicy, start_noise};
use crate::error::ModelResult;
use crate::lipsync::LipSync;
use crate::preset::{PoseFeedback, check_guidance};
use crate::unet::repeated;

/// A model that knows how to sample: all that is the same for every clip.
pub struct FrameSampler {
    model: Arc<LipSync>,
    sampling: Sampling,
    guidance: Option<Guidance>,
    times: TimeTable,
    /// Where sampling starts, if that is the same for all frames.
    noise: Option<Tensor<4>>,
    /// Most images that the U-Net takes at once.
    most: AtomicUsize,
    /// So many frames at once were sampled to the end.
    settled: AtomicUsize,
}

impl FrameSampler {
    /// Gives a model a way of sampling.
    ///
    /// # Errors
    /// [`ModelError::Parameter`](crate::ModelError::Parameter) for a sampling that cannot run.
    pub fn new(model: Arc<LipSync>, sampling: &Sampling) -> ModelResult<Self> {
        sampling.sampler.check(&model.schedule)?;
        check_guidance(sampling.guidance)?;
        let config = model.config();
        let mute = || model.speech.conditioner.mute_tokens(config.unet.context_dim, model.device());
        let guidance = model.denoiser.guidance(sampling.guidance, mute);
        let noise = (config.noise == NoisePolicy::PerClip).then(|| first_noise(&model, sampling.seed, &[0]));
        Ok(Self {
            model,
            sampling: *sampling,
            guidance,
            times: TimeTable::default(),
            noise,
            most: AtomicUsize::new(usize::MAX),
            settled: AtomicUsize::new(0),
        })
    }

    /// The model.
    pub fn model(&self) -> &LipSync {
        &self.model
    }

    /// What guidance compares the answers with.
    pub(super) fn guidance(&self) -> Option<&Guidance> {
        self.guidance.as_ref()
    }

    /// From now on no more than so many images are given to the U-Net at once. With guidance a frame is two images;
    /// at 1 they are asked for one after the other.
    pub fn at_most(&self, images: usize) {
        self.most.store(images.max(1), Ordering::Relaxed);
    }

    /// How many images [`FrameSampler::draw`] would give to the U-Net at once for so many frames.
    pub fn images_at_once(&self, frames: usize) -> usize {
        self.most.load(Ordering::Relaxed).min(frames * self.images_of_a_frame())
    }

    /// From now on draws with half as many images at once as were tried. False where there is nothing left to halve.
    pub fn halve(&self, tried: usize) -> bool {
        // Somebody else may have found out meanwhile.
        self.most.fetch_min((tried / 2).max(1), Ordering::Relaxed) < tried || tried > 1
    }

    fn images_of_a_frame(&self) -> usize {
        1 + usize::from(self.guidance.is_some())
    }

    /// Draws one frame of each of some clips, as one batch where memory allows; a frame does not depend on the others,
    /// up to rounding. Calls `lap` after each phase.
    ///
    /// # Errors
    /// As [`Sampler::sample`](crate::diffusion::Sampler::sample).
    pub fn draw(&self, tasks: &[FrameTask], lap: Lap<'_>) -> ModelResult<Vec<DrawnFrame>> {
        let (most, of_a_frame) = (self.most.load(Ordering::Relaxed), self.images_of_a_frame());
        let mut drawn = Vec::with_capacity(tasks.len());
        for tasks in tasks.chunks((most / of_a_frame).max(1)) {
            drawn.extend(self.draw_at_once(tasks, most < of_a_frame, lap)?);
        }
        Ok(drawn)
    }

    fn draw_at_once(&self, tasks: &[FrameTask], apart: bool, lap: Lap<'_>) -> ModelResult<Vec<DrawnFrame>> {
        let Self { model, sampling, times, .. } = self;
        let (config, batch) = (model.config(), tasks.len());
        let priors = VisualPriors {
            masked: stack(tasks.iter().map(|task| &task.seen.masked)),
            identity: stack(tasks.iter().map(|task| &task.identity)),
            pose: (0..config.priors.pose_frames).map(|i| stack(tasks.iter().map(|task| &task.previous[i]))).collect(),
        };
        let context = match tasks {
            [task] => task.seen.context.clone(),
            tasks => BoundContext::stack(&tasks.iter().map(|task| &task.seen.context).collect::<Vec<_>>()),
        };
        let denoiser = model.denoiser.bind_prepared(&priors, context.apart(apart), times, config.prediction);
        let frames = tasks.iter().map(|task| task.seen.model_frame);
        let noise = match &self.noise {
            Some(noise) => repeated(noise.clone(), batch),
            None => first_noise(model, sampling.seed, &frames.clone().map(|frame| frame as u64).collect::<Vec<_>>()),
        };
        lap(Phase::Condition);
        // Noise that a sampler adds on its way flickers as well, unless it is that of the clip.
        let index = |frame: usize| if config.noise == NoisePolicy::PerClip { 0 } else { frame as u64 };
        let indices: Vec<u64> = frames.map(index).collect();
        let latents = sampling.sampler.sample(&denoiser, &model.schedule, noise, sampling.seed, &indices)?;
        let to_settle = self.settled.load(Ordering::Relaxed) < batch;
        if to_settle {
            settle(&latents);
        }
        lap(Phase::Denoise);
        let decoded = (config.priors.pose_frames > 0 && sampling.feedback == PoseFeedback::Decoded).then(|| {
            let pictures = model.autoencoder.decode(latents.clone());
            let poses = model.autoencoder.encode(pictures.clone().clamp(-1.0, 1.0));
            if to_settle {
                settle(&poses);
            }
            lap(Phase::FeedBack);
            (pictures, poses)
        });
        self.settled.fetch_max(batch, Ordering::Relaxed);
        let of = |all: &Tensor<4>, i: usize| if batch == 1 { all.clone() } else { all.clone().narrow(0, i, 1) };
        let drawn = |i: usize| match &decoded {
            Some((pictures, poses)) => DrawnFrame { drawn: Drawn::of_picture(of(pictures, i)), pose: of(poses, i) },
            None => DrawnFrame { drawn: Drawn::of_latent(of(&latents, i)), pose: of(&latents, i) },
        };
        Ok((0..batch).map(drawn).collect())
    }
}

/// Noise that sampling of some frames starts from.
fn first_noise(model: &LipSync, seed: u64, frames: &[u64]) -> Tensor<4> {
    let (config, size) = (model.config(), model.config().latent_size());
    let shape = [config.autoencoder.z_channels, size, size];
    start_noise(seed, config.noise, frames, shape, model.device())
}

/// One batch of several; a single one is left as it is.
fn stack<'a>(parts: impl IntoIterator<Item = &'a Tensor<4>>) -> Tensor<4> {
    let mut parts: Vec<Tensor<4>> = parts.into_iter().cloned().collect();
    match parts.len() {
        1 => parts.remove(0),
        _ => Tensor::cat(parts, 0),
    }
}
