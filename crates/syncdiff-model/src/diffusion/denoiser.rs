//! The one thing a sampler knows about a network.

use burn::tensor::Tensor;

use crate::diffusion::prediction::Prediction;

/// A network with its conditioning already bound, as samplers see it.
pub trait Denoiser {
    /// Predicts from noisy latents what [`Denoiser::prediction`] names.
    ///
    /// # Shapes
    /// `x_t` [batch, channels, height, width] and one timestep per batch element -> the shape of `x_t`
    fn denoise(&self, x_t: Tensor<4>, timesteps: &[usize]) -> Tensor<4>;

    /// What the network was trained to predict.
    fn prediction(&self) -> Prediction {
        Prediction::Epsilon
    }
}

impl<D: Denoiser + ?Sized> Denoiser for &D {
    fn denoise(&self, x_t: Tensor<4>, timesteps: &[usize]) -> Tensor<4> {
        (**self).denoise(x_t, timesteps)
    }

    fn prediction(&self) -> Prediction {
        (**self).prediction()
    }
}
