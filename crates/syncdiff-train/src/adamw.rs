//! AdamW on our kernel: each parameter and its moments pass through memory once a step.

use burn::optim::{AdamWState, AdaptiveMomentumState, LearningRate, ModuleOptimizer, Optimizer};
use burn::tensor::{Device, Tensor};
use syncdiff_model::nn::{AdamWStep, adamw};

const BETA_1: f32 = 0.9;
const BETA_2: f32 = 0.999;
const EPSILON: f32 = 1e-8;

/// Loshchilov and Hutter 2019. Its state is that of Burn's own, and so are its numbers.
#[derive(Clone)]
pub(crate) struct AdamW {
    weight_decay: f32,
}

impl AdamW {
    /// For a whole module.
    pub(crate) fn of_module(weight_decay: f64) -> ModuleOptimizer {
        ModuleOptimizer::from(Self { weight_decay: weight_decay as f32 })
    }
}

impl Optimizer for AdamW {
    type State<const D: usize> = AdamWState<D>;

    fn step<const D: usize>(
        &self,
        rate: LearningRate,
        value: Tensor<D>,
        gradient: Tensor<D>,
        state: Option<Self::State<D>>,
    ) -> (Tensor<D>, Option<Self::State<D>>) {
        let old = state.map(|state| state.momentum);
        let (time, moment_1, moment_2) = match old {
            Some(AdaptiveMomentumState { time, moment_1, moment_2, .. }) => (time + 1, moment_1, moment_2),
            None => (1, gradient.zeros_like(), gradient.zeros_like()),
        };
        let correction = |beta: f32| 1.0 - beta.powi(time as i32);
        let step = AdamWStep {
            beta_1: BETA_1,
            beta_2: BETA_2,
            epsilon: EPSILON,
            keep: (1.0 - rate * f64::from(self.weight_decay)) as f32,
            rate: rate as f32,
            correction_1: correction(BETA_1),
            correction_2: correction(BETA_2),
        };
        let [value, moment_1, moment_2] = adamw(value, moment_1, moment_2, gradient, step);
        (value, Some(AdamWState::new(AdaptiveMomentumState::new(time, moment_1, moment_2))))
    }

    fn to_device<const D: usize>(state: Self::State<D>, device: &Device) -> Self::State<D> {
        AdamWState::new(state.momentum.to_device(device))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::module::Module;
    use burn::nn::{Linear, LinearConfig};
    use burn::optim::{AdamWConfig, GradientsParams};

    /// Values after some steps are those of Burn's optimiser, to the bit.
    #[test]
    fn steps_are_those_of_burns_adamw() {
        let device = Device::flex().autodiff();
        device.seed(3);
        let start: Linear = LinearConfig::new(70, 33).init(&device);
        let x = Tensor::<2>::random([5, 70], burn::tensor::Distribution::Normal(0.0, 1.0), &device);
        let run = |mut optimizer: ModuleOptimizer| {
            let mut model = start.clone();
            for step in 1..=7 {
                let loss = model.forward(x.clone()).powi_scalar(2).mean();
                let gradients = GradientsParams::from_grads(loss.backward(), &model);
                model = optimizer.step(1e-2 / step as f64, model, gradients);
            }
            model.valid().weight.val().into_data()
        };
        let burns = AdamWConfig::new().with_epsilon(EPSILON).with_weight_decay(0.03).init();
        assert_eq!(run(AdamW::of_module(0.03)), run(burns));
    }
}
