//! DDIM (Song et al. 2021), as latent-diffusion's `DDIMSampler` and diffusers' `DDIMScheduler` run it.

use burn::tensor::Tensor;

use crate::diffusion::denoiser::Denoiser;
use crate::diffusion::sampler::{Spacing, ask};
use crate::diffusion::schedule::Schedule;
use crate::error::ModelResult;

/// One step of DDIM in numbers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DdimStep {
    /// Where the denoiser is asked.
    pub timestep: usize,
    /// alphas_cumprod there.
    pub alpha: f64,
    /// alphas_cumprod after the step.
    pub alpha_prev: f64,
    /// Amplitude of the fresh noise.
    pub sigma: f64,
}

/// All steps in running order, noisiest first.
///
/// # Errors
/// As [`Spacing::timesteps`].
pub fn ddim_steps(schedule: &Schedule, num_steps: usize, spacing: Spacing, eta: f64) -> ModelResult<Vec<DdimStep>> {
    let timesteps = spacing.timesteps(num_steps, schedule.num_timesteps())?;
    let cumprod = schedule.alphas_cumprod();
    let end = if spacing.ends_clean() { 1.0 } else { cumprod[0] };
    let step = |(i, timestep): (usize, &usize)| {
        let alpha = cumprod[*timestep];
        let alpha_prev = timesteps.get(i + 1).map_or(end, |next| cumprod[*next]);
        let sigma = eta * ((1.0 - alpha_prev) / (1.0 - alpha) * (1.0 - alpha / alpha_prev)).sqrt();
        DdimStep { timestep: *timestep, alpha, alpha_prev, sigma }
    };
    Ok(timesteps.iter().enumerate().map(step).collect())
}

impl DdimStep {
    /// From x_t to the next latent: sqrt(alpha_prev) x_0 + sqrt(1 - alpha_prev - sigma^2) eps + sigma noise.
    ///
    /// `noise` is asked for only when sigma is not 0.
    pub fn advance(&self, x_0: Tensor<4>, eps: Tensor<4>, noise: impl FnOnce() -> Tensor<4>) -> Tensor<4> {
        // At eta 1 the difference is 0 up to rounding, which may fall below it.
        let direction = (1.0 - self.alpha_prev - self.sigma * self.sigma).max(0.0).sqrt();
        let x = x_0 * self.alpha_prev.sqrt() + eps * direction;
        if self.sigma == 0.0 { x } else { x + noise() * self.sigma }
    }
}

/// Samples with DDIM. `noise(step)` gives unit normal noise of the latents' shape; it is called only for eta > 0.
///
/// # Shapes
/// `start` [batch, channels, height, width] -> the same
///
/// # Errors
/// As [`Spacing::timesteps`].
///
/// # Source
/// latent-diffusion `ldm/models/diffusion/ddim.py` with [`Spacing::Ldm`]: even the last step adds noise at eta 1.
/// Unlike it, alphas_cumprod is kept in `f64` (the original rounds it to `f32`). With [`Spacing::Trailing`] the steps
/// follow our grid; diffusers leaves it where the steps do not divide the timesteps.
pub fn ddim(
    denoiser: &dyn Denoiser,
    schedule: &Schedule,
    start: Tensor<4>,
    num_steps: usize,
    spacing: Spacing,
    eta: f64,
    noise: &mut dyn FnMut(usize) -> Tensor<4>,
) -> ModelResult<Tensor<4>> {
    let mut x = start;
    for (i, step) in ddim_steps(schedule, num_steps, spacing, eta)?.iter().enumerate() {
        let (x_0, eps) = ask(denoiser, schedule, &x, step.timestep);
        x = step.advance(x_0, eps, || noise(i));
    }
    Ok(x)
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::Device;

    struct Constant;
    impl Denoiser for Constant {
        fn denoise(&self, x_t: Tensor<4>, _: &[usize]) -> Tensor<4> {
            x_t.ones_like() * 0.3
        }
    }

    #[test]
    fn scalar_oracle_of_the_method() {
        // METHOD 22 D: S = 200, eta 0, z = 0.7, eps = 0.3.
        let schedule = Schedule::paper();
        let steps = ddim_steps(&schedule, 200, Spacing::Ldm, 0.0).unwrap();
        let z = Tensor::<4>::ones([1, 1, 1, 1], &Device::default()) * 0.7;
        for (step, clean, next) in [(steps[0], 32.558635, 0.720033), (steps[199], 0.684583, 0.695688)] {
            let (x_0, eps) = ask(&Constant, &schedule, &z, step.timestep);
            let got = x_0.clone().into_scalar::<f32>();
            assert!((got - clean).abs() < clean * 2e-6, "{got} {clean}");
            let got = step.advance(x_0, eps, || unreachable!("eta is 0")).into_scalar::<f32>();
            assert!((got - next).abs() < 2e-6, "{got} {next}");
        }
    }
}
