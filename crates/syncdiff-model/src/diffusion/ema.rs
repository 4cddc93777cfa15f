//! A slowly moving average of a network's parameters, used for sampling and validation.

use std::any::Any;
use std::collections::VecDeque;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::Tensor;

/// Counts the updates of a shadow and moves it.
///
/// The decay of update n (from 1) is min(max_decay, (1 + n) / (10 + n)): the first is 2/11.
///
/// # Source
/// latent-diffusion `LitEma`, which raises its counter before it uses it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ema {
    max_decay: f64,
    num_updates: u64,
}

impl Ema {
    /// `max_decay` is 0.9999 in the source. A run that goes on passes the number of updates done so far.
    pub fn new(max_decay: f64, num_updates: u64) -> Self {
        Self { max_decay, num_updates }
    }

    /// The same decay for every update: the target of a distillation follows its student evenly from the start.
    pub fn constant(decay: f64) -> Self {
        // So many updates that only the largest decay counts.
        Self { max_decay: decay, num_updates: 1 << 60 }
    }

    /// Updates done so far.
    pub fn num_updates(&self) -> u64 {
        self.num_updates
    }

    /// The decay that the next update will use.
    pub fn next_decay(&self) -> f64 {
        let n = (self.num_updates + 1) as f64;
        self.max_decay.min((1.0 + n) / (10.0 + n))
    }

    /// A shadow that starts at the model's values, outside of automatic differentiation.
    pub fn shadow_of<M: Module>(model: &M) -> M {
        model.valid()
    }

    /// Moves every float parameter of `shadow` towards `model`: shadow - (1 - decay) (shadow - model).
    ///
    /// # Panics
    /// When the two modules differ in structure.
    pub fn update<M: Module>(&mut self, shadow: M, model: &M) -> M {
        let decay = self.next_decay();
        self.num_updates += 1;
        let mut current = Current { tensors: VecDeque::new() };
        model.valid().visit(&mut current);
        let mut mover = Mover { tensors: current.tensors, step: 1.0 - decay };
        let shadow = shadow.map(&mut mover);
        assert!(mover.tensors.is_empty(), "the shadow has fewer parameters than the model");
        shadow
    }
}

/// The model's tensors in the order of a walk; their rank is erased because a walk meets every rank.
struct Current {
    tensors: VecDeque<Box<dyn Any>>,
}

impl ModuleVisitor for Current {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.tensors.push_back(Box::new(param.val()));
    }
}

struct Mover {
    tensors: VecDeque<Box<dyn Any>>,
    step: f64,
}

impl ModuleMapper for Mover {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let current = self.tensors.pop_front().and_then(|tensor| tensor.downcast::<Tensor<D>>().ok());
        let current = *current.expect("shadow and model are of the same structure");
        let step = self.step;
        param.map(|shadow| shadow.clone() - (shadow - current) * step)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::nn::{Linear, LinearConfig};
    use burn::tensor::Device;

    #[test]
    fn decays_follow_the_source() {
        let mut ema = Ema::new(0.9999, 0);
        let mut decays = Vec::new();
        for _ in 0..3 {
            decays.push(ema.next_decay());
            ema.num_updates += 1;
        }
        assert_eq!(decays, [2.0 / 11.0, 3.0 / 12.0, 4.0 / 13.0]);
        assert_eq!(Ema::new(0.9999, 10_000_000).next_decay(), 0.9999);
        assert_eq!(Ema::constant(0.95).next_decay(), 0.95);
    }

    #[test]
    fn the_shadow_moves_by_one_minus_decay() {
        let device = Device::default().autodiff();
        let model: Linear = LinearConfig::new(2, 2).init(&device);
        let mut shadow = Ema::shadow_of(&model);
        shadow.weight = shadow.weight.map(|weight| weight.zeros_like());
        let mut ema = Ema::new(0.9999, 0);
        let shadow = ema.update(shadow, &model);
        let want = model.weight.val().inner() * (9.0 / 11.0);
        assert!((shadow.weight.val() - want).abs().max().into_scalar::<f32>() < 1e-6);
        assert_eq!(shadow.bias.unwrap().val().into_data(), model.bias.unwrap().val().inner().into_data());
        assert_eq!(ema.num_updates(), 1);
    }
}
