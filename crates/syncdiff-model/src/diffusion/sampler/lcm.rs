//! Multi-step sampling of a latent consistency model (Luo et al. 2023): predict the clean latent, add fresh noise for
//! the next timestep, predict again.

use burn::tensor::Tensor;

use crate::diffusion::denoiser::Denoiser;
use crate::diffusion::sampler::ask;
use crate::diffusion::scalings::LcmBoundary;
use crate::diffusion::schedule::Schedule;
use crate::error::{ModelError, ModelResult};

/// Timesteps that the distillation trains on.
pub const LCM_GRID: usize = 50;

/// The timesteps of `num_steps` steps, noisiest first; 4 of 1000 are 999, 759, 499, 259.
///
/// # Errors
/// [`ModelError::Parameter`] unless 1 <= `num_steps` <= [`LCM_GRID`] and the grid divides the timesteps.
///
/// # Source
/// diffusers `LCMScheduler.set_timesteps` with `original_inference_steps` 50.
pub fn lcm_timesteps(num_steps: usize, num_timesteps: usize) -> ModelResult<Vec<usize>> {
    if !num_timesteps.is_multiple_of(LCM_GRID) {
        let allowed = format!("a consistency model needs a multiple of {LCM_GRID}");
        return Err(ModelError::parameter("sampler", "num_timesteps", num_timesteps, allowed));
    }
    if num_steps == 0 || num_steps > LCM_GRID {
        return Err(ModelError::parameter("sampler", "steps", num_steps, format!("lcm takes 1 to {LCM_GRID}")));
    }
    let stride = num_timesteps / LCM_GRID;
    Ok((0..num_steps).map(|k| (LCM_GRID - k * LCM_GRID / num_steps) * stride - 1).collect())
}

/// Samples a consistency model. `noise(step)` gives unit normal noise of the latents' shape for all steps but the last.
///
/// # Shapes
/// `start` [batch, channels, height, width] -> the same
///
/// # Errors
/// As [`lcm_timesteps`].
pub fn lcm(
    denoiser: &dyn Denoiser,
    schedule: &Schedule,
    start: Tensor<4>,
    num_steps: usize,
    noise: &mut dyn FnMut(usize) -> Tensor<4>,
) -> ModelResult<Tensor<4>> {
    let timesteps = lcm_timesteps(num_steps, schedule.num_timesteps())?;
    let mut x = start;
    for (i, timestep) in timesteps.iter().enumerate() {
        let (x_0, _) = ask(denoiser, schedule, &x, *timestep);
        let (c_skip, c_out) = LcmBoundary::PUBLISHED.at(*timestep);
        x = x_0 * c_out + x * c_skip;
        if let Some(next) = timesteps.get(i + 1) {
            x = x * schedule.signal(*next) + noise(i) * schedule.noise(*next);
        }
    }
    Ok(x)
}
