//! Gradients of a module's parameters under their names on disk.
#![allow(dead_code)]

use std::collections::BTreeMap;

use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{Gradients, Tensor};
use syncdiff_model::weights::{Remap, module_tensors};

use super::common::find::Tolerance;

/// Puts each parameter's gradient in the parameter's place; a parameter without one becomes NaN.
struct Swap<'a>(&'a Gradients);

impl ModuleMapper for Swap<'_> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let gradient = param.val().grad(self.0);
        param.map(|value| match gradient {
            Some(gradient) => Tensor::from_data(gradient.into_data(), &value.device()),
            None => value.detach().zeros_like() / 0.0,
        })
    }
}

/// name on disk -> (values, shape), in PyTorch's layout; parameters without a gradient are left out.
pub(crate) fn gradients_by_name<M: Module>(
    module: &M,
    grads: &Gradients,
    remap: &Remap,
) -> BTreeMap<String, (Vec<f32>, Vec<usize>)> {
    let swapped = module.clone().map(&mut Swap(grads));
    module_tensors(&swapped, remap)
        .into_iter()
        .map(|(name, tensor)| (name, (tensor.to_f32().unwrap(), tensor.shape().to_vec())))
        .filter(|(_, (values, _))| values.iter().all(|v| !v.is_nan()))
        .collect()
}

/// Every `|actual - expected| <= abs + rel * largest expected`.
#[track_caller]
pub(crate) fn assert_gradient(what: &str, actual: &[f32], expected: &[f32], allowed: Tolerance) {
    let (abs, rel) = (allowed.abs as f32, allowed.rel as f32);
    let largest = expected.iter().fold(0.0f32, |most, value| most.max(value.abs()));
    for (i, (a, e)) in actual.iter().zip(expected).enumerate() {
        assert!((a - e).abs() <= abs + rel * largest, "{what}[{i}]: {a}, expected {e} (largest {largest})");
    }
}
