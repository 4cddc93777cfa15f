//! Group normalisation, alone or followed by SiLU in the same pass, and layer normalisation.

use burn::module::{Initializer, Module, Param};
use burn::nn::LayerNorm;
use burn::tensor::{Device, Tensor};
use syncdiff_kernels::{self as kernels, group_norm};

/// Group normalisation with affine parameters.
#[derive(Module, Debug)]
pub struct GroupNorm {
    /// [channels]
    pub weight: Param<Tensor<1>>,
    /// [channels]
    pub bias: Param<Tensor<1>>,
    #[module(skip)]
    groups: usize,
    #[module(skip)]
    eps: f64,
}

impl GroupNorm {
    /// `groups` must divide `channels`.
    pub fn new(groups: usize, channels: usize, eps: f64, device: &Device) -> Self {
        assert_eq!(channels % groups, 0, "group norm: {groups} groups do not divide {channels} channels");
        Self {
            weight: Initializer::Ones.init([channels], device),
            bias: Initializer::Zeros.init([channels], device),
            groups,
            eps,
        }
    }

    /// Normalisation only.
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        group_norm(x, self.weight.val(), self.bias.val(), self.groups, self.eps, false)
    }

    /// Normalisation, then SiLU.
    pub fn forward_silu(&self, x: Tensor<4>) -> Tensor<4> {
        group_norm(x, self.weight.val(), self.bias.val(), self.groups, self.eps, true)
    }
}

/// Layer normalisation over the last axis in one pass, forward and backward, with PyTorch's epsilon.
///
/// # Shapes
/// [.., dim] -> same
///
/// # Panics
/// If the layer has no bias.
pub fn layer_norm<const D: usize>(norm: &LayerNorm, x: Tensor<D>) -> Tensor<D> {
    let beta = norm.beta.as_ref().expect("a layer normalisation with bias");
    kernels::layer_norm(x, norm.gamma.val(), beta.val(), 1e-5)
}
