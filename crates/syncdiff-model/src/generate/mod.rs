//! Generation: one frame after the other, each feeding the next.
//!
//! A frame takes three steps, which may run at the same time for different frames: [`Speaker::look`] ahead (encode the
//! masked crops, several at once), [`FrameGenerator::draw`] in strict order (sample the latent, knowing the last one),
//! [`Speaker::picture`] behind (decode). What is constant over a clip is kept by the [`Speaker`], what is constant over
//! all clips by the [`FrameSampler`], which draws frames of several clips as one batch: [`FrameGenerator::ask`] says
//! what a frame takes, [`FrameSampler::draw`] draws, [`FrameGenerator::take`] feeds the result on.
//!
//! # Source
//! SyncDiff, section 3.3; METHOD section 13.

mod frame;
mod pixels;
mod sampler;
mod speaker;

pub use frame::{Drawn, DrawnFrame, FrameTask, Seen};
pub use pixels::{rgb_to_tensor, tensor_to_rgb};
pub use sampler::FrameSampler;
pub use speaker::{FrameGenerator, Speaker};

use crate::diffusion::Sampler;
use crate::preset::{LipSyncConfig, PoseFeedback};
use burn::tensor::Tensor;

/// Seconds are not known here: a caller that wants timings passes a clock.
pub type Lap<'a> = &'a mut dyn FnMut(Phase);

/// What has just been done; reported through [`Speaker::look`] and [`FrameGenerator::draw`]. A device that works on
/// while the program goes ahead has only been asked to do it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Crops encoded.
    Encode,
    /// What the denoiser is told was put together.
    Condition,
    /// Latent sampled.
    Denoise,
    /// Frame decoded and encoded again, to be fed back.
    FeedBack,
}

/// How frames are drawn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// From noise to a latent.
    pub sampler: Sampler,
    /// Weight of the speech; see [`LipSyncConfig::NO_GUIDANCE`].
    pub guidance: f32,
    /// What a frame hands to the next.
    pub feedback: PoseFeedback,
    /// Of all noise.
    pub seed: u64,
}

impl LipSyncConfig {
    /// The model's own way, under a seed.
    pub fn sampling(&self, seed: u64) -> Sampling {
        Sampling { sampler: self.sampler, guidance: self.guidance, feedback: self.feedback, seed }
    }
}

/// Waits for a result. A device that works on while the program goes ahead tells only then that it could not do it, as
/// for want of memory: by a panic in its own words. Done once for each size, so that the wait costs nothing.
fn settle(result: &Tensor<4>) {
    let _ = result.to_data();
}
