//! Global gradient norm and clipping.

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
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

/// Multiplies all gradients.
pub(crate) fn scale<M: Module>(model: &M, gradients: &mut GradientsParams, factor: f64) {
    model.visit(&mut Scale { gradients, factor });
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
        scale(model, gradients, factor);
    }
    norm
}

struct Leaves;

impl ModuleMapper for Leaves {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        param.map(|value| if value.is_require_grad() { value.detach().require_grad() } else { value })
    }
}

/// The same parameters as leaves of a graph of their own, so that two threads can differentiate at once.
pub(crate) fn own_leaves<M: Module>(model: &M) -> M {
    model.clone().map(&mut Leaves)
}

/// Lays values out in the order of their indices. A gradient may lie transposed, one that came through a file does not;
/// what is added up after this, such as the norm, must not depend on it.
struct Straighten<'a>(&'a mut GradientsParams);

impl ModuleVisitor for Straighten<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(gradient) = self.0.remove::<D>(param.id) {
            let dims = gradient.dims();
            self.0.register(param.id, gradient.reshape([dims.iter().product::<usize>()]).reshape(dims));
        }
    }
}

struct Sum<'a> {
    parts: &'a mut [GradientsParams],
    sum: GradientsParams,
}

impl ModuleVisitor for Sum<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        // In the order of the parts: the sum does not depend on which thread, or process, was first.
        let sum = self.parts.iter_mut().filter_map(|part| part.remove::<D>(param.id)).reduce(|a, b| a + b);
        if let Some(sum) = sum {
            self.sum.register(param.id, sum);
        }
    }
}

/// Gradients of equal parts of a batch, added up as they come.
#[derive(Default)]
pub(crate) struct Accumulated {
    sum: Option<GradientsParams>,
    count: usize,
}

impl Accumulated {
    /// Adds a part; parts come in their order.
    pub(crate) fn add<M: Module>(&mut self, model: &M, part: GradientsParams) {
        self.count += 1;
        let mut parts: Vec<_> = self.sum.take().into_iter().chain([part]).collect();
        let mut visitor = Sum { parts: &mut parts, sum: GradientsParams::new() };
        model.visit(&mut visitor);
        self.sum = Some(visitor.sum);
    }

    /// The mean of all parts.
    pub(crate) fn mean<M: Module>(self, model: &M) -> GradientsParams {
        let mut sum = self.sum.unwrap_or_default();
        if self.count > 1 {
            model.visit(&mut Straighten(&mut sum));
            scale(model, &mut sum, 1.0 / self.count as f64);
        }
        sum
    }
}
