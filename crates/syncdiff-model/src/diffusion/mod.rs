//! Diffusion maths: the noise schedule, what a denoiser predicts, the training loss, and the samplers.
//!
//! A sampler sees the [`Denoiser`] trait only, never a network; a denoiser never sees a sampler. All noise comes from
//! [`noise`], keyed by an explicit seed, so that one sample does not depend on the size of its batch.

pub mod denoiser;
pub mod distill;
pub mod ema;
pub mod loss;
pub mod noise;
pub mod prediction;
pub mod sampler;
pub mod scalings;
pub mod schedule;

pub use denoiser::Denoiser;
pub use distill::{LcmStep, pseudo_huber, pseudo_huber_elements};
pub use ema::Ema;
pub use loss::{DiffusionLoss, LossWeighting, diffusion_loss};
pub use noise::{NoiseKey, NoisePolicy, NoiseUse, normal_batch, start_noise, uniform_timesteps};
pub use prediction::Prediction;
pub use sampler::{Sampler, SamplerKind, Spacing};
pub use scalings::{LcmBoundary, Scalings};
pub use schedule::Schedule;
