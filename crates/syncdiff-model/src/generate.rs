//! Generation: one frame after the other, each feeding the next.
//!
//! A frame takes three steps, which may run at the same time for different frames: [`Speaker::look`] ahead (encode the
//! masked crops, several at once), [`FrameGenerator::draw`] in strict order (sample the latent, knowing the last one),
//! [`Speaker::picture`] behind (decode). What is constant over a clip is kept by the [`Speaker`].
//!
//! # Source
//! SyncDiff, section 3.3; METHOD section 13.

use crate::denoiser::{BoundContext, Guidance, TimeTable, VisualPriors};
use crate::diffusion::{NoisePolicy, Sampler, start_noise};
use crate::error::{ModelError, ModelResult};
use crate::lipsync::{LipSync, SpeechTokens};
use crate::preset::{LipSyncConfig, PoseFeedback, check_guidance};
use burn::tensor::{DType, Device, Tensor, TensorData};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

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

/// A model that has listened to a speech and knows how to sample: all that is constant over a clip.
pub struct Speaker<'a> {
    model: &'a LipSync,
    speech: SpeechTokens,
    sampling: Sampling,
    guidance: Option<Guidance>,
    /// With guidance: the answers with and without speech are asked for one after the other.
    apart: AtomicBool,
    /// So many crops at once were encoded to the end.
    encoded: AtomicUsize,
    /// A latent was sampled to the end.
    sampled: AtomicBool,
    times: TimeTable,
    /// Where sampling starts, if that is the same for all frames.
    noise: Option<Tensor<4>>,
}

/// A masked crop and its moment of the speech, encoded.
#[derive(Clone, Debug)]
pub struct Seen {
    masked: Tensor<4>,
    context: BoundContext,
    model_frame: usize,
}

/// A drawn frame on its way to a picture.
#[derive(Clone, Debug)]
pub struct Drawn(Form);

#[derive(Clone, Debug)]
enum Form {
    Latent(Tensor<4>),
    Picture(Tensor<4>),
}

/// Generates the crops of one face in one clip.
pub struct FrameGenerator<'a> {
    speaker: &'a Speaker<'a>,
    identity: Tensor<4>,
    previous: VecDeque<Tensor<4>>,
}

impl LipSync {
    /// Gives the model a speech and a way of sampling.
    ///
    /// # Errors
    /// [`ModelError::Parameter`] for a sampling that cannot run.
    pub fn speaker(&self, speech: SpeechTokens, sampling: &Sampling) -> ModelResult<Speaker<'_>> {
        sampling.sampler.check(&self.schedule)?;
        check_guidance(sampling.guidance)?;
        let mute = || self.speech.conditioner.mute_tokens(speech.rows());
        let guidance = self.denoiser.guidance(sampling.guidance, mute);
        let noise = (self.config().noise == NoisePolicy::PerClip).then(|| self.start_noise(sampling.seed, 0));
        Ok(Speaker {
            model: self,
            speech,
            sampling: *sampling,
            guidance,
            apart: AtomicBool::new(false),
            encoded: AtomicUsize::new(0),
            sampled: AtomicBool::new(false),
            times: TimeTable::default(),
            noise,
        })
    }

    fn start_noise(&self, seed: u64, model_frame: usize) -> Tensor<4> {
        let (config, size) = (self.config(), self.config().latent_size());
        let shape = [config.autoencoder.z_channels, size, size];
        start_noise(seed, config.noise, &[model_frame as u64], shape, self.device())
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

impl<'a> Speaker<'a> {
    /// Encodes masked crops, each with its model frame; several at once cost less than one by one. Calls `lap`
    /// after each phase.
    ///
    /// # Shapes
    /// crops: [crop_size, crop_size, 3] bytes, row-major RGB
    ///
    /// # Errors
    /// [`ModelError::Parameter`] for a crop of another size or a frame beyond the speech.
    pub fn look(&self, masked_rgb_crops: &[(&[u8], usize)], lap: Lap<'_>) -> ModelResult<Vec<Seen>> {
        let model = self.model;
        let mut crops = Vec::with_capacity(masked_rgb_crops.len());
        for (rgb, model_frame) in masked_rgb_crops {
            if *model_frame >= self.speech.num_frames() {
                let allowed = format!("the speech was encoded for {} frames", self.speech.num_frames());
                return Err(ModelError::parameter("generate", "model_frame", model_frame, allowed));
            }
            crops.push(model.crop_to_tensor(rgb)?);
        }
        if crops.is_empty() {
            return Ok(Vec::new());
        }
        let masked = model.autoencoder.encode(Tensor::cat(crops, 0));
        if self.encoded.load(Ordering::Relaxed) < masked_rgb_crops.len() {
            settle(&masked);
            self.encoded.fetch_max(masked_rgb_crops.len(), Ordering::Relaxed);
        }
        lap(Phase::Encode);
        let frames: Vec<usize> = masked_rgb_crops.iter().map(|(_, model_frame)| *model_frame).collect();
        let window = model.config().conditioning.window;
        let tokens = self.speech.tokens(&model.speech.conditioner, window, &frames);
        let contexts = model.denoiser.prepare_context(tokens);
        let seen = |(i, model_frame): (usize, usize)| Seen {
            masked: masked.clone().narrow(0, i, 1),
            context: BoundContext::new(contexts.of_image(i), self.guidance.as_ref()),
            model_frame,
        };
        let seen = frames.into_iter().enumerate().map(seen).collect();
        lap(Phase::Condition);
        Ok(seen)
    }

    /// Starts a clip. `identity_rgb_crop` is the aligned, unmasked first frame.
    ///
    /// # Shapes
    /// [crop_size, crop_size, 3] bytes, row-major RGB
    ///
    /// # Errors
    /// [`ModelError::Parameter`] for a crop of another size.
    pub fn start(&'a self, identity_rgb_crop: &[u8]) -> ModelResult<FrameGenerator<'a>> {
        let identity = self.model.autoencoder.encode(self.model.crop_to_tensor(identity_rgb_crop)?);
        let mut generator = FrameGenerator { speaker: self, identity, previous: VecDeque::new() };
        generator.restart();
        Ok(generator)
    }

    /// From now on draws with half as much at once: what guidance asks with and without speech, which is one batch
    /// otherwise, is asked one after the other. False where there is nothing left to halve.
    pub fn halve(&self) -> bool {
        self.guidance.is_some() && !self.apart.swap(true, Ordering::Relaxed)
    }

    /// The picture of a drawn frame.
    ///
    /// # Shapes
    /// -> [crop_size, crop_size, 3] bytes, row-major RGB
    pub fn picture(&self, drawn: Drawn) -> Vec<u8> {
        tensor_to_rgb(match drawn.0 {
            Form::Latent(latent) => self.model.autoencoder.decode(latent),
            Form::Picture(picture) => picture,
        })
    }
}

impl FrameGenerator<'_> {
    /// As [`Speaker::halve`].
    pub fn halve(&self) -> bool {
        self.speaker.halve()
    }

    /// Forgets the previous frames (after a cut, or a gap without a face): the identity frame stands in for them.
    pub fn restart(&mut self) {
        let count = self.speaker.model.config().priors.pose_frames;
        self.previous = std::iter::repeat_n(self.identity.clone(), count).collect();
    }

    /// Draws the next frame: samples its latent, knowing the frames before. Calls `lap` after each phase.
    ///
    /// # Errors
    /// As [`Sampler::sample`].
    pub fn draw(&mut self, seen: Seen, lap: Lap<'_>) -> ModelResult<Drawn> {
        let Speaker { model, sampling, apart, sampled, times, noise, .. } = self.speaker;
        let Sampling { sampler, feedback, seed, .. } = sampling;
        let (config, Seen { masked, context, model_frame }) = (model.config(), seen);
        let priors =
            VisualPriors { masked, identity: self.identity.clone(), pose: self.previous.iter().cloned().collect() };
        let context = context.apart(apart.load(Ordering::Relaxed));
        let denoiser = model.denoiser.bind_prepared(&priors, context, times, config.prediction);
        let noise = noise.clone().unwrap_or_else(|| model.start_noise(*seed, model_frame));
        lap(Phase::Condition);
        // Noise that a sampler adds on its way flickers as well, unless it is that of the clip.
        let index = if config.noise == NoisePolicy::PerClip { 0 } else { model_frame as u64 };
        let latent = sampler.sample(&denoiser, &model.schedule, noise, *seed, &[index])?;
        if !sampled.load(Ordering::Relaxed) {
            settle(&latent);
            sampled.store(true, Ordering::Relaxed);
        }
        lap(Phase::Denoise);
        if config.priors.pose_frames == 0 {
            return Ok(Drawn(Form::Latent(latent)));
        }
        let (pose, drawn) = match feedback {
            PoseFeedback::Latent => (latent.clone(), Form::Latent(latent)),
            PoseFeedback::Decoded => {
                let picture = model.autoencoder.decode(latent);
                let pose = model.autoencoder.encode(picture.clone().clamp(-1.0, 1.0));
                lap(Phase::FeedBack);
                (pose, Form::Picture(picture))
            }
        };
        self.previous.pop_back();
        self.previous.push_front(pose);
        Ok(Drawn(drawn))
    }

    /// Looks, draws and decodes one frame.
    ///
    /// # Shapes
    /// masked crop and result: [crop_size, crop_size, 3] bytes, row-major RGB
    ///
    /// # Errors
    /// As [`Speaker::look`] and [`FrameGenerator::draw`].
    pub fn next(&mut self, masked_rgb_crop: &[u8], model_frame: usize) -> ModelResult<Vec<u8>> {
        let seen = self.speaker.look(&[(masked_rgb_crop, model_frame)], &mut |_| {})?;
        let mut picture = Vec::new();
        for seen in seen {
            picture = self.speaker.picture(self.draw(seen, &mut |_| {})?);
        }
        Ok(picture)
    }
}

/// Waits for a result. A device that works on while the program goes ahead tells only then that it could not do it, as
/// for want of memory: by a panic in its own words. Done once for each size, so that the wait costs nothing.
fn settle(result: &Tensor<4>) {
    let _ = result.to_data();
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
