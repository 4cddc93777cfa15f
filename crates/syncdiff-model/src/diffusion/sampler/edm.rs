//! Euler and Heun steps on the probability-flow equation (Karras et al. 2022, "EDM").
//!
//! The equation is solved for the variance-exploding latent x_ve = x_t / a, whose noise level is sigma = s / a:
//! dx_ve / dsigma = (x_ve - x_0) / sigma.

use burn::tensor::Tensor;

use crate::diffusion::denoiser::Denoiser;
use crate::diffusion::sampler::ask;
use crate::diffusion::schedule::Schedule;
use crate::error::{ModelError, ModelResult};

/// How strongly the noise levels crowd towards the clean end.
const RHO: f64 = 7.0;

/// Order of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Euler: one evaluation a step.
    First,
    /// Heun: two evaluations a step, one in the last.
    Second,
}

/// `num_steps` noise levels, noisiest first; the final 0 is not among them.
///
/// (sigma_max^(1/7) + i / (num_steps - 1) (sigma_min^(1/7) - sigma_max^(1/7)))^7; a single one is `sigma_max`.
pub fn karras_sigmas(num_steps: usize, sigma_min: f64, sigma_max: f64) -> Vec<f64> {
    let (low, high) = (sigma_min.powf(1.0 / RHO), sigma_max.powf(1.0 / RHO));
    let last = num_steps.saturating_sub(1).max(1) as f64;
    (0..num_steps).map(|i| (high + i as f64 / last * (low - high)).powf(RHO)).collect()
}

/// The timesteps whose noise levels are nearest to [`karras_sigmas`] over the whole schedule, noisiest first.
///
/// Where two levels fall on one timestep it is visited once, so many steps may become fewer.
///
/// # Errors
/// [`ModelError::Parameter`] unless 1 <= `num_steps` <= the number of timesteps.
pub fn karras_timesteps(schedule: &Schedule, num_steps: usize) -> ModelResult<Vec<usize>> {
    let most = schedule.num_timesteps();
    if num_steps == 0 || num_steps > most {
        let allowed = format!("euler and heun take 1 to {most}");
        return Err(ModelError::parameter("sampler", "steps", num_steps, allowed));
    }
    let sigmas = karras_sigmas(num_steps, schedule.sigma(0), schedule.sigma(most - 1));
    let mut timesteps: Vec<usize> = sigmas.into_iter().map(|sigma| schedule.nearest_timestep(sigma)).collect();
    timesteps.dedup();
    Ok(timesteps)
}

/// Solves the equation over falling noise levels and on to the clean latent. `clean(x_ve, i)` estimates x_0 from the
/// variance-exploding latent at `sigmas[i]`.
///
/// # Shapes
/// `start` [batch, channels, height, width], of noise level `sigmas[0]` -> the same
///
/// # Source
/// NVlabs/edm `edm_sampler` without churn; diffusers `EulerDiscreteScheduler` and `HeunDiscreteScheduler`.
pub fn solve(
    sigmas: &[f64],
    order: Order,
    start: Tensor<4>,
    clean: &mut dyn FnMut(&Tensor<4>, usize) -> Tensor<4>,
) -> Tensor<4> {
    let mut x = start;
    for (i, &sigma) in sigmas.iter().enumerate() {
        let x_0 = clean(&x, i);
        let Some(&next) = sigmas.get(i + 1) else { return x_0 };
        let slope = (x.clone() - x_0) / sigma;
        let euler = x.clone() + slope.clone() * (next - sigma);
        x = match order {
            Order::First => euler,
            Order::Second => {
                let slope_there = (euler.clone() - clean(&euler, i + 1)) / next;
                x + (slope + slope_there) * (0.5 * (next - sigma))
            }
        };
    }
    x
}

/// Samples with Euler or Heun steps on [`karras_timesteps`]; deterministic.
///
/// # Shapes
/// `start` [batch, channels, height, width], unit normal -> the same
///
/// # Errors
/// As [`karras_timesteps`].
///
/// # Source
/// As [`solve`], with the grid clamped to the schedule and rounded to its noise levels, as `round_sigma` of NVlabs/edm
/// does for networks with discrete ones.
pub fn edm(
    denoiser: &dyn Denoiser,
    schedule: &Schedule,
    start: Tensor<4>,
    num_steps: usize,
    order: Order,
) -> ModelResult<Tensor<4>> {
    let timesteps = karras_timesteps(schedule, num_steps)?;
    let sigmas: Vec<f64> = timesteps.iter().map(|t| schedule.sigma(*t)).collect();
    let start = start * sigmas[0];
    Ok(solve(&sigmas, order, start, &mut |x, i| {
        let x_t = x.clone() * schedule.signal(timesteps[i]);
        ask(denoiser, schedule, &x_t, timesteps[i]).0
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::Device;

    #[test]
    fn the_grid_spans_the_schedule() {
        let schedule = Schedule::paper();
        for num_steps in [1, 2, 8, 18, 1000] {
            let timesteps = karras_timesteps(&schedule, num_steps).unwrap();
            assert_eq!(timesteps[0], 999);
            assert!(timesteps.is_sorted_by(|a, b| a > b), "{timesteps:?}");
            assert!(num_steps == 1 || *timesteps.last().unwrap() == 0);
        }
        assert_eq!(karras_timesteps(&schedule, 8).unwrap().len(), 8);
        for num_steps in [0, 1001] {
            assert!(matches!(karras_timesteps(&schedule, num_steps), Err(ModelError::Parameter { .. })));
        }
    }

    /// For data that are all one point the slope is constant and both orders arrive at the point exactly.
    #[test]
    fn a_single_point_is_found() {
        struct Point;
        impl Denoiser for Point {
            fn denoise(&self, x_t: Tensor<4>, _: &[usize]) -> Tensor<4> {
                x_t.zeros_like() + 0.3
            }
            fn prediction(&self) -> crate::diffusion::Prediction {
                crate::diffusion::Prediction::X0
            }
        }
        let start = Tensor::<4>::ones([1, 1, 1, 2], &Device::default());
        for order in [Order::First, Order::Second] {
            let end = edm(&Point, &Schedule::paper(), start.clone(), 6, order).unwrap();
            assert!((end - 0.3).abs().max().into_scalar::<f32>() < 1e-6);
        }
    }

    /// On normal data of deviation 0.5 the exact end is known: twice the steps halve Euler's error, and bring Heun's
    /// to a quarter or less.
    #[test]
    fn heun_is_of_second_order() {
        let error = |order, num_steps| {
            let sigmas = karras_sigmas(num_steps, 0.0388, 83.8);
            let mut clean = |x: &Tensor<4>, i: usize| x.clone() * (0.25 / (0.25 + sigmas[i] * sigmas[i]));
            let start = Tensor::<4>::ones([1, 1, 1, 1], &Device::default()) * sigmas[0];
            let end = f64::from(solve(&sigmas, order, start, &mut clean).into_scalar::<f32>());
            let exact = sigmas[0] * 0.5 / (0.25 + sigmas[0] * sigmas[0]).sqrt();
            (end - exact).abs()
        };
        let gain = |order| error(order, 12) / error(order, 24);
        assert!((1.8..2.2).contains(&gain(Order::First)), "{}", gain(Order::First));
        assert!(gain(Order::Second) > 4.0, "{}", gain(Order::Second));
        assert!(error(Order::Second, 24) < 0.25 * error(Order::First, 24));
    }
}
