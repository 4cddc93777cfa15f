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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diffusion::{NoisePolicy, Prediction, start_noise};
    use burn::tensor::{Device, Int};

    /// Knows the clean latent.
    struct Perfect {
        x_0: Tensor<4>,
        form: Prediction,
    }

    impl Denoiser for Perfect {
        fn denoise(&self, x_t: Tensor<4>, timesteps: &[usize]) -> Tensor<4> {
            let schedule = Schedule::paper();
            let (signal, noise) = (schedule.signal(timesteps[0]), schedule.noise(timesteps[0]));
            let eps = (x_t - self.x_0.clone() * signal) / noise;
            self.form.target(&schedule, self.x_0.clone(), eps, timesteps)
        }
        fn prediction(&self) -> Prediction {
            self.form
        }
    }

    #[test]
    fn timesteps_of_few_steps() {
        assert_eq!(lcm_timesteps(1, 1000).unwrap(), [999]);
        assert_eq!(lcm_timesteps(2, 1000).unwrap(), [999, 499]);
        assert_eq!(lcm_timesteps(4, 1000).unwrap(), [999, 759, 499, 259]);
    }

    #[test]
    fn a_perfect_denoiser_finds_the_truth_in_any_number_of_steps() {
        let (schedule, device) = (Schedule::paper(), Device::default());
        let x_0 = (Tensor::<1, Int>::arange(0..24, &device).float() * 0.9).sin().reshape([1, 3, 2, 4]);
        let noise = |frame: u64| start_noise(3, NoisePolicy::PerFrame, &[frame], [3, 2, 4], &device);
        for form in [Prediction::X0, Prediction::V] {
            let perfect = Perfect { x_0: x_0.clone(), form };
            for num_steps in [1, 2, 4, 50] {
                let found = lcm(&perfect, &schedule, noise(0), num_steps, &mut |step| noise(1 + step as u64)).unwrap();
                // Of x_t itself 7e-6 is left at timestep 19, where 50 steps end.
                let error = (found - x_0.clone()).abs().max().into_scalar::<f32>();
                assert!(error < 5e-5, "{form:?} {num_steps}: {error}");
            }
        }
    }
}
