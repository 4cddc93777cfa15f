//! DPM-Solver++(2M) (Lu et al. 2022): a second-order multi-step solver on the predicted clean latent.

use burn::tensor::Tensor;

use crate::diffusion::denoiser::Denoiser;
use crate::diffusion::sampler::{Spacing, ask};
use crate::diffusion::schedule::Schedule;
use crate::error::ModelResult;

/// Below this number of steps the last one is of first order, even when it does not end at the clean latent.
///
/// # Source
/// diffusers `DPMSolverMultistepScheduler` (`lower_order_final`); the authors' repository has 10.
const FEW_STEPS: usize = 15;

/// Where the last step arrives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// At the clean latent.
    Clean,
    /// At the noise level of timestep 0.
    FirstTimestep,
}

/// Samples with DPM-Solver++(2M); deterministic.
///
/// # Shapes
/// `start` [batch, channels, height, width] -> the same
///
/// # Errors
/// As [`Spacing::timesteps`].
///
/// # Source
/// diffusers `DPMSolverMultistepScheduler` (order 2, "midpoint").
pub fn dpm_plus_plus_2m(
    denoiser: &dyn Denoiser,
    schedule: &Schedule,
    start: Tensor<4>,
    num_steps: usize,
    spacing: Spacing,
    end: End,
) -> ModelResult<Tensor<4>> {
    let timesteps = spacing.timesteps(num_steps, schedule.num_timesteps())?;
    let level = |t: usize| (schedule.signal(t), schedule.noise(t), schedule.lambda(t));
    let mut x = start;
    let mut previous: Option<(Tensor<4>, f64)> = None; // last x_0, and the lambda it was asked at
    for (i, timestep) in timesteps.iter().enumerate() {
        let (x_0, _) = ask(denoiser, schedule, &x, *timestep);
        let last = i + 1 == timesteps.len();
        if last && end == End::Clean {
            return Ok(x_0); // the first-order step towards zero noise
        }
        let next = if last { 0 } else { timesteps[i + 1] };
        let ((_, sigma_s, lambda_s), (signal_t, sigma_t, lambda_t)) = (level(*timestep), level(next));
        let h = lambda_t - lambda_s;
        let first_order = last && timesteps.len() < FEW_STEPS;
        let data = match previous.take().filter(|_| !first_order) {
            None => x_0.clone(),
            Some((x_0_before, lambda_before)) => {
                let half_slope = h / (2.0 * (lambda_s - lambda_before)); // 1 / (2 r)
                x_0.clone() * (1.0 + half_slope) - x_0_before * half_slope
            }
        };
        x = x * (sigma_t / sigma_s) - data * (signal_t * (-h).exp_m1());
        previous = Some((x_0, lambda_s));
    }
    Ok(x)
}
