//! The layer that our own small networks are made of.

use burn::module::Module;
use burn::tensor::{Device, Tensor};

use crate::cost::Meter;
use crate::nn::GroupNorm;
use crate::nn::conv_norm::{Conv, ConvShape};

/// Groups of the normalisation.
pub(crate) const NORM_GROUPS: usize = 8;
/// Added to its variance.
pub(crate) const NORM_EPS: f64 = 1e-5;
/// A 3x3 convolution that keeps the size.
pub(crate) const SAME: ConvShape = ConvShape::square(3, 1, 1);
/// A 3x3 convolution that halves it.
pub(crate) const HALF: ConvShape = ConvShape::square(3, 2, 1);

/// Convolution, group norm, SiLU; the input is added where a convolution of [`SAME`] keeps its channels.
#[derive(Module, Debug)]
pub(crate) struct Layer {
    conv: Conv,
    norm: GroupNorm,
    #[module(skip)]
    residual: bool,
}

impl Layer {
    /// PyTorch's default initialisation.
    pub(crate) fn new(input: usize, output: usize, shape: ConvShape, device: &Device) -> Self {
        Self {
            conv: Conv::new(input, output, shape, device),
            norm: GroupNorm::new(NORM_GROUPS, output, NORM_EPS, device),
            residual: input == output && shape == SAME,
        }
    }

    /// Output channels.
    pub(crate) fn channels(&self) -> usize {
        self.norm.weight.dims()[0]
    }

    /// Adds what this layer costs.
    pub(crate) fn measure(&self, meter: &mut Meter) {
        self.conv.measure(meter);
        meter.norm(self.channels());
    }

    /// # Shapes
    /// [batch, in, height, width] -> [batch, out, height', width']
    pub(crate) fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let y = self.norm.forward_silu(self.conv.forward(x.clone()));
        if self.residual { x + y } else { y }
    }
}
