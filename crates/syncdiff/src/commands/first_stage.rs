//! The autoencoder alone in a frame: what the denoiser can reach at best.

use burn::tensor::Device;
use syncdiff::Outcome;
use syncdiff::render::FEATHER;
use syncdiff_eval::CROP;
use syncdiff_face::{Affine, KeepMask, PasteMask, Tone, paste_back, warp};
use syncdiff_media::Frame;
use syncdiff_model::autoencoder::Autoencoder;
use syncdiff_model::generate::{rgb_to_tensor, tensor_to_rgb};

/// An autoencoder, and where its pictures go.
pub(super) struct FirstStage<'a> {
    autoencoder: &'a Autoencoder,
    device: &'a Device,
    crop_size: usize,
    mask: PasteMask,
}

impl<'a> FirstStage<'a> {
    /// `autoencoder`, for crops of `crop_size` pixels, lies on `device`.
    pub(super) fn new(autoencoder: &'a Autoencoder, crop_size: usize, device: &'a Device) -> Self {
        let mask = PasteMask::from_keep(&KeepMask::aligned_fixed(crop_size), FEATHER);
        FirstStage { autoencoder, device, crop_size, mask }
    }

    /// Cuts the aligned face out, encodes and decodes it, and pastes its mouth back. `to_measure` leads from the frame to
    /// the crop of [`CROP`] pixels in which faces are measured.
    ///
    /// # Errors
    /// As [`paste_back`].
    pub(super) fn redraw(&self, frame: &mut Frame, to_measure: &Affine) -> Outcome<()> {
        let size = self.crop_size;
        let scale = size as f64 / CROP as f64;
        let to_model = Affine { m: to_measure.m.map(|row| row.map(|value| value * scale)) };
        let seen = rgb_to_tensor(&warp(frame, &to_model, size).data, size, self.device);
        let data = tensor_to_rgb(self.autoencoder.decode(self.autoencoder.encode(seen)));
        let decoded = Frame { width: size, height: size, data };
        paste_back(frame, &decoded, &to_model, &self.mask, Tone::AsDrawn, 1.0)?;
        Ok(())
    }
}
