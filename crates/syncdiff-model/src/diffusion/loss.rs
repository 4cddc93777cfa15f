//! The training loss.

use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

use crate::diffusion::prediction::Prediction;
use crate::diffusion::schedule::Schedule;

/// How the timesteps weigh against each other.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LossWeighting {
    /// All alike (the paper).
    #[default]
    Uniform,
    /// min(SNR, gamma) in the x_0 form, expressed in the form predicted (Hang et al. 2023, "min-SNR").
    MinSnr {
        /// Largest weight; 5 in the source.
        gamma: f64,
    },
}

impl LossWeighting {
    /// The weight of one timestep.
    pub fn weight(self, schedule: &Schedule, prediction: Prediction, timestep: usize) -> f64 {
        let Self::MinSnr { gamma } = self else { return 1.0 };
        let snr = schedule.snr(timestep);
        match prediction {
            Prediction::Epsilon => snr.min(gamma) / snr,
            Prediction::X0 => snr.min(gamma),
            Prediction::V => snr.min(gamma) / (snr + 1.0),
        }
    }
}

/// The loss of a batch.
#[derive(Debug, Clone)]
pub struct DiffusionLoss {
    /// Mean over all elements: what is minimised. [1]
    pub mean: Tensor<1>,
    /// Mean over each sample's own elements, for logs by timestep. [batch]
    pub per_sample: Tensor<1>,
}

/// Mean over all elements of weight x (predicted - target)^2.
///
/// With `LossWeighting::Uniform` and no element weight this is the paper's loss. The weights are not normalised: a
/// weight of 1 everywhere changes nothing.
///
/// # Shapes
/// `predicted`, `x_0`, `noise` [batch, channels, height, width]; `element_weight` the same or broadcastable to it
///
/// # Source
/// Paper, equation 3; latent-diffusion `DDPM.p_losses` without its inert terms.
pub fn diffusion_loss(
    schedule: &Schedule,
    prediction: Prediction,
    weighting: LossWeighting,
    predicted: Tensor<4>,
    x_0: Tensor<4>,
    noise: Tensor<4>,
    timesteps: &[usize],
    element_weight: Option<Tensor<4>>,
) -> DiffusionLoss {
    let [batch, channels, height, width] = predicted.dims();
    let error = predicted - prediction.target(schedule, x_0, noise, timesteps);
    let mut squared = error.clone() * error;
    if weighting != LossWeighting::Uniform {
        let weights = schedule.per_sample(timesteps, &squared, |s, t| weighting.weight(s, prediction, t));
        squared = squared * weights;
    }
    if let Some(weight) = element_weight {
        squared = squared * weight;
    }
    let per_sample = squared.reshape([batch, channels * height * width]).mean_dim(1).reshape([batch]);
    DiffusionLoss { mean: per_sample.clone().mean(), per_sample }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::Device;

    fn loss(prediction: Prediction, weighting: LossWeighting, element_weight: Option<Tensor<4>>) -> f32 {
        let device = Device::default();
        let ones = Tensor::<4>::ones([2, 1, 2, 2], &device);
        let (x_0, noise) = (ones.clone() * 0.5, ones.clone() * -1.0);
        let schedule = Schedule::paper();
        let target = prediction.target(&schedule, x_0.clone(), noise.clone(), &[10, 900]);
        let predicted = target + 2.0;
        diffusion_loss(&schedule, prediction, weighting, predicted, x_0, noise, &[10, 900], element_weight)
            .mean
            .into_scalar::<f32>()
    }

    #[test]
    fn an_error_of_two_costs_four_in_every_form() {
        for prediction in [Prediction::Epsilon, Prediction::X0, Prediction::V] {
            assert!((loss(prediction, LossWeighting::Uniform, None) - 4.0).abs() < 1e-5);
        }
    }

    #[test]
    fn element_weights_are_not_normalised() {
        let weight = Tensor::<4>::ones([1, 1, 2, 2], &Device::default()) * 3.0;
        assert!((loss(Prediction::Epsilon, LossWeighting::Uniform, Some(weight)) - 12.0).abs() < 1e-5);
    }

    #[test]
    fn min_snr_weights_agree_between_the_forms() {
        let schedule = Schedule::paper();
        let weighting = LossWeighting::MinSnr { gamma: 5.0 };
        for t in [0, 50, 300, 999] {
            // (eps error)^2 = SNR (x0 error)^2, and (v error)^2 = (SNR + 1) (x0 error)^2 at s^2 + a^2 = 1.
            let x_0 = weighting.weight(&schedule, Prediction::X0, t);
            let snr = schedule.snr(t);
            assert!((weighting.weight(&schedule, Prediction::Epsilon, t) * snr - x_0).abs() < 1e-12);
            assert!((weighting.weight(&schedule, Prediction::V, t) * (snr + 1.0) - x_0).abs() < 1e-12);
            assert!(x_0 <= 5.0);
        }
        let by_hand: f64 =
            [10, 900].into_iter().map(|t| 2.0 * weighting.weight(&schedule, Prediction::Epsilon, t)).sum();
        assert!((f64::from(loss(Prediction::Epsilon, weighting, None)) - by_hand).abs() < 1e-5);
    }
}
