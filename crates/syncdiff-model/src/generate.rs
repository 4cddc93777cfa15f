//! Generation: one frame after the other, each feeding the next.
//!
//! # Source
//! SyncDiff, section 3.3; METHOD section 13.

use crate::denoiser::VisualPriors;
use crate::diffusion::{Sampler, start_noise};
use crate::error::{ModelError, ModelResult};
use crate::lipsync::{LipSync, SpeechTokens};
use crate::preset::{LipSyncConfig, PoseFeedback, check_guidance};
use burn::tensor::{DType, Device, Tensor, TensorData};
use std::collections::VecDeque;

/// Seconds are not known here: a caller that wants timings passes a clock.
pub type Lap<'a> = &'a mut dyn FnMut(Phase);

/// What has just been done; reported through [`FrameGenerator::next_timed`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Masked frame encoded (and the generated frame, where it is fed back decoded).
    Encode,
    /// Latent sampled.
    Denoise,
    /// Latent decoded.
    Decode,
}

/// How frames are drawn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// From noise to a latent.
    pub sampler: Sampler,
    /// Weight of the speech; see [`LipSyncConfig::NO_GUIDANCE`].
    pub guidance: f32,
    /// Of all noise.
    pub seed: u64,
}

impl LipSyncConfig {
    /// The model's own way, under a seed.
    pub fn sampling(&self, seed: u64) -> Sampling {
        Sampling { sampler: self.sampler, guidance: self.guidance, seed }
    }
}

/// Generates the crops of one face in one clip.
pub struct FrameGenerator<'a> {
    model: &'a LipSync,
    sampling: Sampling,
    identity: Tensor<4>,
    previous: VecDeque<Tensor<4>>,
}

impl LipSync {
    /// Starts a clip. `identity_rgb_crop` is the aligned, unmasked first frame.
    ///
    /// # Shapes
    /// [crop_size, crop_size, 3] bytes, row-major RGB
    ///
    /// # Errors
    /// [`ModelError::Parameter`] for a crop of another size or a sampling that cannot run.
    pub fn generator(&self, identity_rgb_crop: &[u8], sampling: &Sampling) -> ModelResult<FrameGenerator<'_>> {
        sampling.sampler.check(&self.schedule)?;
        check_guidance(sampling.guidance)?;
        let identity = self.autoencoder.encode(self.crop_to_tensor(identity_rgb_crop)?);
        let mut generator = FrameGenerator { model: self, sampling: *sampling, identity, previous: VecDeque::new() };
        generator.restart();
        Ok(generator)
    }

    /// RGB bytes to a picture in [-1, 1].
    pub(crate) fn crop_to_tensor(&self, rgb: &[u8]) -> ModelResult<Tensor<4>> {
        let side = self.config().crop_size;
        if rgb.len() != side * side * 3 {
            let allowed = format!("a crop of {side} x {side} has {} bytes", side * side * 3);
            return Err(ModelError::parameter("generate", "crop bytes", rgb.len(), allowed));
        }
        Ok(rgb_to_tensor(rgb, side, self.device()))
    }
}

/// One square RGB picture as a tensor.
///
/// # Shapes
/// [side, side, 3] bytes -> [1, 3, side, side] in [-1, 1]
pub fn rgb_to_tensor(rgb: &[u8], side: usize, device: &Device) -> Tensor<4> {
    let plane = side * side;
    let mut values = vec![0f32; 3 * plane];
    for (i, pixel) in rgb.chunks_exact(3).enumerate() {
        for (c, &byte) in pixel.iter().enumerate() {
            values[c * plane + i] = f32::from(byte) / 127.5 - 1.0;
        }
    }
    Tensor::from_data(TensorData::new(values, [1, 3, side, side]), (device, DType::F32))
}

/// The inverse of [`rgb_to_tensor`], rounded and clamped.
///
/// # Shapes
/// [1, 3, side, side] -> [side, side, 3] bytes
pub fn tensor_to_rgb(picture: Tensor<4>) -> Vec<u8> {
    let [_, _, height, width] = picture.dims();
    let plane = height * width;
    let values: Vec<f32> = picture.into_data().convert::<f32>().try_into_vec().expect("converted to f32");
    let mut rgb = vec![0u8; 3 * plane];
    for (i, pixel) in rgb.chunks_exact_mut(3).enumerate() {
        for (c, byte) in pixel.iter_mut().enumerate() {
            *byte = ((values[c * plane + i] + 1.0) * 127.5).round().clamp(0.0, 255.0) as u8;
        }
    }
    rgb
}

impl FrameGenerator<'_> {
    /// Forgets the previous frames (after a cut, or a gap without a face): the identity frame stands in for them.
    pub fn restart(&mut self) {
        let count = self.model.config().priors.pose_frames;
        self.previous = std::iter::repeat_n(self.identity.clone(), count).collect();
    }

    /// Generates the crop of one model frame.
    ///
    /// # Shapes
    /// masked crop and result: [crop_size, crop_size, 3] bytes, row-major RGB
    ///
    /// # Errors
    /// [`ModelError::Parameter`] for a crop of another size or a frame beyond the speech.
    pub fn next(&mut self, masked_rgb_crop: &[u8], speech: &SpeechTokens, model_frame: usize) -> ModelResult<Vec<u8>> {
        self.next_timed(masked_rgb_crop, speech, model_frame, &mut |_| {})
    }

    /// [`FrameGenerator::next`] that calls `lap` after each phase.
    ///
    /// # Errors
    /// As [`FrameGenerator::next`].
    pub fn next_timed(
        &mut self,
        masked_rgb_crop: &[u8],
        speech: &SpeechTokens,
        model_frame: usize,
        lap: Lap<'_>,
    ) -> ModelResult<Vec<u8>> {
        let model = self.model;
        let config = model.config();
        if model_frame >= speech.num_frames() {
            let allowed = format!("the speech was encoded for {} frames", speech.num_frames());
            return Err(ModelError::parameter("generate", "model_frame", model_frame, allowed));
        }
        let masked = model.autoencoder.encode(model.crop_to_tensor(masked_rgb_crop)?);
        lap(Phase::Encode);
        let priors =
            VisualPriors { masked, identity: self.identity.clone(), pose: self.previous.iter().cloned().collect() };
        let Sampling { sampler, guidance, seed } = self.sampling;
        let conditioner = &model.speech.conditioner;
        let context = conditioner.tokens_of_frames(speech.rows().clone(), &[model_frame]);
        let size = config.latent_size();
        let frame = [model_frame as u64];
        let noise =
            start_noise(seed, config.noise, &frame, [config.autoencoder.z_channels, size, size], model.device());
        let denoiser = model
            .denoiser
            .bind(&priors, context, config.prediction)
            .guided(guidance, conditioner.mute_tokens(speech.rows()));
        let latent = sampler.sample(&denoiser, &model.schedule, noise, seed, &frame)?;
        lap(Phase::Denoise);
        let picture = model.autoencoder.decode(latent.clone());
        let rgb = tensor_to_rgb(picture.clone());
        lap(Phase::Decode);
        if config.priors.pose_frames > 0 {
            let pose = match config.feedback {
                PoseFeedback::Latent => latent,
                PoseFeedback::Decoded => model.autoencoder.encode(picture.clamp(-1.0, 1.0)),
            };
            lap(Phase::Encode);
            self.previous.pop_back();
            self.previous.push_front(pose);
        }
        Ok(rgb)
    }
}
