//! One clip: its speech, its face, its frames in order.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use burn::tensor::Tensor;

use super::frame::{Drawn, DrawnFrame, Form, FrameTask, Seen};
use super::pixels::{rgb_to_tensor, tensor_to_rgb};
use super::sampler::FrameSampler;
use super::{Lap, Phase, Sampling, settle};
use crate::denoiser::BoundContext;
use crate::error::{ModelError, ModelResult};
use crate::lipsync::{LipSync, SpeechTokens};

/// A model that has listened to a speech and knows how to sample: all that is constant over a clip.
pub struct Speaker {
    sampler: Arc<FrameSampler>,
    speech: SpeechTokens,
    /// So many crops at once were encoded to the end.
    encoded: AtomicUsize,
}

/// Generates the crops of one face in one clip.
pub struct FrameGenerator<'a> {
    speaker: &'a Speaker,
    identity: Tensor<4>,
    previous: VecDeque<Tensor<4>>,
}

impl LipSync {
    /// Gives the model a speech and a way of sampling. For several clips, make one [`FrameSampler`].
    ///
    /// # Errors
    /// [`ModelError::Parameter`] for a sampling that cannot run.
    pub fn speaker(self: &Arc<Self>, speech: SpeechTokens, sampling: &Sampling) -> ModelResult<Speaker> {
        Ok(Arc::new(FrameSampler::new(Arc::clone(self), sampling)?).speaker(speech))
    }

    /// RGB bytes to a picture in [-1, 1].
    fn crop_to_tensor(&self, rgb: &[u8]) -> ModelResult<Tensor<4>> {
        let side = self.config().crop_size;
        if rgb.len() != side * side * 3 {
            let allowed = format!("a crop of {side} x {side} has {} bytes", side * side * 3);
            return Err(ModelError::parameter("generate", "crop bytes", rgb.len(), allowed));
        }
        Ok(rgb_to_tensor(rgb, side, self.device()))
    }
}

impl FrameSampler {
    /// Gives it a speech.
    pub fn speaker(self: &Arc<Self>, speech: SpeechTokens) -> Speaker {
        Speaker { sampler: Arc::clone(self), speech, encoded: AtomicUsize::new(0) }
    }
}

impl Speaker {
    /// What draws its frames, alone or with those of others.
    pub fn sampler(&self) -> &FrameSampler {
        &self.sampler
    }

    /// Encodes masked crops, each with its model frame; several at once cost less than one by one. Calls `lap`
    /// after each phase.
    ///
    /// # Shapes
    /// crops: [crop_size, crop_size, 3] bytes, row-major RGB
    ///
    /// # Errors
    /// [`ModelError::Parameter`] for a crop of another size or a frame beyond the speech.
    pub fn look(&self, masked_rgb_crops: &[(&[u8], usize)], lap: Lap<'_>) -> ModelResult<Vec<Seen>> {
        let model = self.sampler.model();
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
            context: BoundContext::new(contexts.of_image(i), self.sampler.guidance()),
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
    pub fn start(&self, identity_rgb_crop: &[u8]) -> ModelResult<FrameGenerator<'_>> {
        let model = self.sampler.model();
        let identity = model.autoencoder.encode(model.crop_to_tensor(identity_rgb_crop)?);
        let mut generator = FrameGenerator { speaker: self, identity, previous: VecDeque::new() };
        generator.restart();
        Ok(generator)
    }

    /// The picture of a drawn frame.
    ///
    /// # Shapes
    /// -> [crop_size, crop_size, 3] bytes, row-major RGB
    pub fn picture(&self, drawn: Drawn) -> Vec<u8> {
        tensor_to_rgb(match drawn.0 {
            Form::Latent(latent) => self.sampler.model().autoencoder.decode(latent),
            Form::Picture(picture) => picture,
        })
    }
}

impl FrameGenerator<'_> {
    /// Forgets the previous frames (after a cut, or a gap without a face): the identity frame stands in for them.
    pub fn restart(&mut self) {
        let count = self.speaker.sampler.model().config().priors.pose_frames;
        self.previous = std::iter::repeat_n(self.identity.clone(), count).collect();
    }

    /// What the next frame takes to be drawn.
    pub fn ask(&self, seen: Seen) -> FrameTask {
        FrameTask { seen, identity: self.identity.clone(), previous: self.previous.clone() }
    }

    /// Takes the frame that was asked for; the next one will know it.
    pub fn take(&mut self, frame: DrawnFrame) -> Drawn {
        if self.previous.pop_back().is_some() {
            self.previous.push_front(frame.pose);
        }
        frame.drawn
    }

    /// Draws the next frame: samples its latent, knowing the frames before. Calls `lap` after each phase.
    ///
    /// # Errors
    /// As [`FrameSampler::draw`].
    pub fn draw(&mut self, seen: Seen, lap: Lap<'_>) -> ModelResult<Drawn> {
        let mut drawn = self.speaker.sampler.draw(&[self.ask(seen)], lap)?;
        Ok(self.take(drawn.remove(0)))
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
