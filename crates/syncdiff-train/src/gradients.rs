//! Global gradient norm and clipping.

use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::Tensor;

struct SquareSum<'a> {
    gradients: &'a GradientsParams,
    sum: f64,
}

impl ModuleVisitor for SquareSum<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(gradient) = self.gradients.get::<D>(param.id) {
            self.sum += f64::from(gradient.powi_scalar(2).sum().into_scalar::<f32>());
        }
    }
}

struct Scale<'a> {
    gradients: &'a mut GradientsParams,
    factor: f64,
}

impl ModuleVisitor for Scale<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(gradient) = self.gradients.remove::<D>(param.id) {
            self.gradients.register(param.id, gradient * self.factor);
        }
    }
}

/// Scales the gradients so that their global norm is at most `limit`; returns the norm before.
///
/// # Source
/// `torch.nn.utils.clip_grad_norm_`: factor = min(1, limit / (norm + 1e-6)).
pub(crate) fn clip_global_norm<M: Module>(model: &M, gradients: &mut GradientsParams, limit: f64) -> f64 {
    let mut squares = SquareSum { gradients, sum: 0.0 };
    model.visit(&mut squares);
    let norm = squares.sum.sqrt();
    let factor = limit / (norm + 1e-6);
    if factor < 1.0 {
        model.visit(&mut Scale { gradients, factor });
    }
    norm
}
