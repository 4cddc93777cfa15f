//! The convolution that tells an audio encoder where in the utterance a row stands.

use burn::module::{Initializer, Module, Param};
use burn::tensor::activation::gelu;
use burn::tensor::module::conv1d;
use burn::tensor::ops::ConvOptions;
use burn::tensor::{Device, Tensor};

/// Grouped convolution over time with weight normalisation per kernel position, then GELU.
///
/// weight = g v / |v|, with the norm over both channel axes for each kernel position.
///
/// # Source
/// fairseq `TransformerEncoder.pos_conv` (`weight_norm(dim=2)`, `SamePad`).
#[derive(Module, Debug)]
pub struct PositionalConv {
    /// Lengths, [1, 1, kernel].
    pub weight_g: Param<Tensor<3>>,
    /// Directions, [dim, dim / groups, kernel].
    pub weight_v: Param<Tensor<3>>,
    /// [dim]
    pub bias: Param<Tensor<1>>,
    #[module(skip)]
    groups: usize,
}

impl PositionalConv {
    /// Normal weights with variance 4 / (kernel x dim), as in the source; no bias at first.
    pub fn new(dim: usize, kernel: usize, groups: usize, device: &Device) -> Self {
        let std = (4.0 / (kernel * dim) as f64).sqrt();
        let weight_v: Param<Tensor<3>> =
            Initializer::Normal { mean: 0.0, std }.init([dim, dim / groups, kernel], device);
        let weight_g = Param::from_tensor(norm_per_position(weight_v.val()).detach());
        Self { weight_g, weight_v, bias: Initializer::Zeros.init([dim], device), groups }
    }

    /// The position code of every row, to be added to it.
    ///
    /// # Shapes
    /// [batch, time, dim] -> [batch, time, dim]
    pub fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let [_, time, _] = x.dims();
        let direction = self.weight_v.val();
        let [_, _, kernel] = direction.dims();
        let weight = direction.clone() * (self.weight_g.val() / norm_per_position(direction));
        // An even kernel gives one output too many; the source drops the last.
        let options = ConvOptions::new([1], [kernel / 2], [1], self.groups);
        let y = conv1d(x.swap_dims(1, 2), weight, Some(self.bias.val()), options); // [batch, dim, time or time + 1]
        gelu(y.narrow(2, 0, time)).swap_dims(1, 2)
    }
}

/// Euclidean norm over the channel axes: [out, in, kernel] -> [1, 1, kernel].
fn norm_per_position(weight: Tensor<3>) -> Tensor<3> {
    (weight.clone() * weight).sum_dim(0).sum_dim(1).sqrt()
}
