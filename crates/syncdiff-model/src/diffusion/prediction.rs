//! What a denoiser predicts, and the exact conversions between the three forms.
//!
//! With a and s of [`Schedule`]: x_t = a x_0 + s noise, v = a noise - s x_0; hence x_0 = (x_t - s noise) / a
//! = a x_t - s v, and noise = (x_t - a x_0) / s = a v + s x_t.

use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

use crate::diffusion::schedule::Schedule;

/// Target of a denoiser.
///
/// `Epsilon` is the paper's; at the noisiest step it multiplies errors of x_0 by 84, so models for few steps predict
/// `X0` or `V`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Prediction {
    /// The noise.
    #[default]
    Epsilon,
    /// The clean latent.
    X0,
    /// The velocity a noise - s x_0.
    V,
}

impl Prediction {
    /// What the network should have said.
    ///
    /// # Shapes
    /// [batch, channels, height, width], one timestep per batch element
    pub fn target(self, schedule: &Schedule, x_0: Tensor<4>, noise: Tensor<4>, timesteps: &[usize]) -> Tensor<4> {
        match self {
            Self::Epsilon => noise,
            Self::X0 => x_0,
            Self::V => {
                let (a, s) = levels(schedule, timesteps, &x_0);
                noise * a - x_0 * s
            }
        }
    }

    /// The clean latent that a prediction stands for.
    pub fn to_x0(self, schedule: &Schedule, predicted: Tensor<4>, x_t: Tensor<4>, timesteps: &[usize]) -> Tensor<4> {
        if self == Self::X0 {
            return predicted;
        }
        let (a, s) = levels(schedule, timesteps, &x_t);
        match self {
            Self::Epsilon => (x_t - predicted * s) / a,
            _ => x_t * a - predicted * s,
        }
    }

    /// The noise that a prediction stands for.
    pub fn to_epsilon(
        self,
        schedule: &Schedule,
        predicted: Tensor<4>,
        x_t: Tensor<4>,
        timesteps: &[usize],
    ) -> Tensor<4> {
        if self == Self::Epsilon {
            return predicted;
        }
        let (a, s) = levels(schedule, timesteps, &x_t);
        match self {
            Self::X0 => (x_t - predicted * a) / s,
            _ => predicted * a + x_t * s,
        }
    }
}

fn levels(schedule: &Schedule, timesteps: &[usize], like: &Tensor<4>) -> (Tensor<4>, Tensor<4>) {
    (
        schedule.per_sample(timesteps, like, |schedule, t| schedule.signal(t)),
        schedule.per_sample(timesteps, like, |schedule, t| schedule.noise(t)),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::{Device, TensorData};

    #[test]
    fn every_form_leads_back_to_the_clean_latent_and_the_noise() {
        let device = Device::default();
        let schedule = Schedule::paper();
        let tensor = |values: [f32; 4]| Tensor::<4>::from_data(TensorData::new(values.to_vec(), [2, 1, 1, 2]), &device);
        let (x_0, noise) = (tensor([0.3, -1.0, 0.7, 0.1]), tensor([1.2, -0.4, 0.2, -2.0]));
        // At 999 the noise form multiplies the rounding of x_t by 84.
        for (timesteps, tolerance) in [([0, 300], 1e-5), ([20, 999], 1e-4)] {
            let x_t = schedule.q_sample(x_0.clone(), noise.clone(), &timesteps);
            for form in [Prediction::Epsilon, Prediction::X0, Prediction::V] {
                let said = form.target(&schedule, x_0.clone(), noise.clone(), &timesteps);
                let clean = form.to_x0(&schedule, said.clone(), x_t.clone(), &timesteps);
                let eps = form.to_epsilon(&schedule, said, x_t.clone(), &timesteps);
                for (got, want) in [(clean, &x_0), (eps, &noise)] {
                    let error = (got - want.clone()).abs().max().into_scalar::<f32>();
                    assert!(error < tolerance, "{form:?} {timesteps:?}: {error}");
                }
            }
        }
    }
}
