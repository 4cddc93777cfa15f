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

/// Amplitudes of signal and noise of a latent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Level {
    /// a of x_t = a x_0 + s noise.
    pub signal: f64,
    /// s of it.
    pub noise: f64,
}

impl Level {
    /// The clean latent.
    pub const CLEAN: Self = Self { signal: 1.0, noise: 0.0 };

    /// That of a timestep.
    pub fn of(schedule: &Schedule, timestep: usize) -> Self {
        Self { signal: schedule.signal(timestep), noise: schedule.noise(timestep) }
    }

    /// Half the logarithm of the signal-to-noise ratio.
    fn lambda(self) -> f64 {
        (self.signal / self.noise).ln()
    }
}

/// Goes through falling noise `levels`; the last one is where it arrives. `clean(x, i)` estimates x_0 from the latent
/// at `levels[i]`. The first step is of first order, the last one too with `first_order_end` or when it arrives at the
/// clean latent.
///
/// # Shapes
/// `start` [batch, channels, height, width], of `levels[0]` -> the same
///
/// # Source
/// LuChengTHU/dpm-solver `multistep_dpm_solver_second_update` ("dpmsolver++").
pub fn solve(
    levels: &[Level],
    first_order_end: bool,
    start: Tensor<4>,
    clean: &mut dyn FnMut(&Tensor<4>, usize) -> Tensor<4>,
) -> Tensor<4> {
    let mut x = start;
    let mut previous: Option<(Tensor<4>, f64)> = None; // last x_0, and the lambda it was asked at
    for (i, pair) in levels.windows(2).enumerate() {
        let (here, next) = (pair[0], pair[1]);
        let x_0 = clean(&x, i);
        if next == Level::CLEAN {
            return x_0; // the first-order step towards zero noise
        }
        let h = next.lambda() - here.lambda();
        let first_order = first_order_end && i + 2 == levels.len();
        let data = match previous.take().filter(|_| !first_order) {
            None => x_0.clone(),
            Some((x_0_before, lambda_before)) => {
                let half_slope = h / (2.0 * (here.lambda() - lambda_before)); // 1 / (2 r)
                x_0.clone() * (1.0 + half_slope) - x_0_before * half_slope
            }
        };
        x = x * (next.noise / here.noise) - data * (next.signal * (-h).exp_m1());
        previous = Some((x_0, here.lambda()));
    }
    x
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
    let mut levels: Vec<Level> = timesteps.iter().map(|t| Level::of(schedule, *t)).collect();
    levels.push(match end {
        End::Clean => Level::CLEAN,
        End::FirstTimestep => Level::of(schedule, 0),
    });
    let first_order_end = timesteps.len() < FEW_STEPS;
    Ok(solve(&levels, first_order_end, start, &mut |x, i| ask(denoiser, schedule, x, timesteps[i]).0))
}
