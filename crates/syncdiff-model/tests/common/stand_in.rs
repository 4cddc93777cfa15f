//! The stand-in network of the golden data: cheap, smooth, and not linear.
#![allow(dead_code)]

use std::cell::RefCell;

use burn::tensor::{DType, Device, Tensor};
use syncdiff_model::diffusion::{Denoiser, Prediction, Schedule};

use super::common::{Golden, values};

/// eps = s (x - a mu) / (a^2 / 4 + s^2) + 0.05 sin(3 x + 0.5) at one noise level, in the precision of `x`.
pub(crate) fn stand_in(mu: &Tensor<4>, x: Tensor<4>, sigma: f64) -> Tensor<4> {
    let norm = (1.0 + sigma * sigma).sqrt();
    let (mut a, mut s) = (1.0 / norm, sigma / norm);
    if x.dtype() == DType::F32 {
        (a, s) = (f64::from(a as f32), f64::from(s as f32));
    }
    (x.clone() - mu.clone() * a) * s / (0.25 * a * a + s * s) + (x * 3.0 + 0.5).sin() * 0.05
}

/// What a stand-in was asked and answered, call by call.
#[derive(Default)]
pub(crate) struct Trace {
    pub(crate) timesteps: Vec<i64>,
    pub(crate) sigmas: Vec<f64>,
    pub(crate) asked: Vec<Vec<f32>>,
    pub(crate) clean: Vec<Vec<f32>>,
}

/// The stand-in as a denoiser in any form of prediction.
pub(crate) struct StandIn<'a> {
    pub(crate) mu: Tensor<4>,
    schedule: &'a Schedule,
    form: Prediction,
    pub(crate) trace: RefCell<Trace>,
}

impl<'a> StandIn<'a> {
    pub(crate) fn new(golden: &Golden, schedule: &'a Schedule, form: Prediction) -> Self {
        let mu = golden.tensor::<3>("in.mu", &Device::default()).unsqueeze::<4>();
        Self { mu, schedule, form, trace: RefCell::default() }
    }

    /// The same with another mean, as student and target network have; in f64.
    pub(crate) fn scaled(golden: &Golden, schedule: &'a Schedule, factor: f64) -> Self {
        let mu = golden.tensor_f64::<3>("in.mu", &Device::default()).unsqueeze::<4>() * factor;
        Self { mu, ..Self::new(golden, schedule, Prediction::Epsilon) }
    }
}

impl Denoiser for StandIn<'_> {
    fn denoise(&self, x: Tensor<4>, timesteps: &[usize]) -> Tensor<4> {
        assert_eq!(timesteps.len(), x.dims()[0]);
        let each = timesteps.iter().zip(x.clone().split(1, 0));
        let eps = Tensor::cat(each.map(|(t, x)| stand_in(&self.mu, x, self.schedule.sigma(*t))).collect(), 0);
        let clean = Prediction::Epsilon.to_x0(self.schedule, eps.clone(), x.clone(), timesteps);
        let mut trace = self.trace.borrow_mut();
        trace.timesteps.push(timesteps[0] as i64);
        trace.sigmas.push(self.schedule.sigma(timesteps[0]));
        trace.asked.push(values(x));
        trace.clean.push(values(clean.clone()));
        match self.form {
            Prediction::Epsilon => eps,
            Prediction::X0 => clean,
            Prediction::V => self.form.target(self.schedule, clean, eps, timesteps),
        }
    }

    fn prediction(&self) -> Prediction {
        self.form
    }
}
