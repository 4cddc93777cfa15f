//! A frame on its way: seen, asked for, drawn.

use std::collections::VecDeque;

use burn::tensor::Tensor;

use super::settle;
use crate::denoiser::BoundContext;

/// A masked crop and its moment of the speech, encoded.
#[derive(Clone, Debug)]
pub struct Seen {
    pub(super) masked: Tensor<4>,
    pub(super) context: BoundContext,
    pub(super) model_frame: usize,
}

/// A drawn frame on its way to a picture.
#[derive(Clone, Debug)]
pub struct Drawn(pub(super) Form);

#[derive(Clone, Debug)]
pub(super) enum Form {
    Latent(Tensor<4>),
    Picture(Tensor<4>),
}

impl Drawn {
    pub(super) fn of_latent(latent: Tensor<4>) -> Self {
        Self(Form::Latent(latent))
    }

    pub(super) fn of_picture(picture: Tensor<4>) -> Self {
        Self(Form::Picture(picture))
    }
}

/// What it takes to draw a frame; of [`FrameGenerator::ask`](super::FrameGenerator::ask).
#[derive(Clone, Debug)]
pub struct FrameTask {
    pub(super) seen: Seen,
    pub(super) identity: Tensor<4>,
    /// The latest first.
    pub(super) previous: VecDeque<Tensor<4>>,
}

/// A drawn frame, and what it hands to the next of its clip.
#[derive(Clone, Debug)]
pub struct DrawnFrame {
    pub(super) drawn: Drawn,
    pub(super) pose: Tensor<4>,
}

impl DrawnFrame {
    /// Waits until the device has drawn it.
    pub fn settle(&self) {
        settle(&self.pose);
    }
}
