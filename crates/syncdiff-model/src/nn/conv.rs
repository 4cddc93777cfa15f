//! Convolutions with PyTorch's parameter layout and default initialisation.

use burn::module::{Initializer, Module, Param};
use burn::tensor::{Device, Tensor};
use syncdiff_kernels::{Conv3x3, conv1x1, conv3x3, conv3x3_upsampled};

/// PyTorch's default: uniform in +-1/sqrt(fan in), for weights and biases alike. Drawn at first use, so that a network
/// whose weights are loaded, or whose parameters are only counted, never draws them.
fn uniform<const D: usize>(shape: [usize; D], fan_in: usize, device: &Device) -> Param<Tensor<D>> {
    let bound = 1.0 / (fan_in as f64).sqrt();
    Initializer::Uniform { min: -bound, max: bound }.init(shape, device)
}

fn zeros<const D: usize>(shape: [usize; D], device: &Device) -> Param<Tensor<D>> {
    Initializer::Zeros.init(shape, device)
}

/// 3x3 convolution with bias.
#[derive(Module, Debug)]
pub struct Conv3 {
    /// [out, in, 3, 3]
    pub weight: Param<Tensor<4>>,
    /// [out]
    pub bias: Param<Tensor<1>>,
    #[module(skip)]
    down: Option<bool>,
}

impl Conv3 {
    /// Stride 1, padding 1.
    pub fn new(in_channels: usize, out_channels: usize, device: &Device) -> Self {
        let fan_in = in_channels * 9;
        Self {
            weight: uniform([out_channels, in_channels, 3, 3], fan_in, device),
            bias: uniform([out_channels], fan_in, device),
            down: None,
        }
    }

    /// Stride 2. `symmetric`: padding 1 on all sides (U-Net); otherwise one zero row and column at the bottom and right
    /// (autoencoder).
    pub fn down(channels: usize, symmetric: bool, device: &Device) -> Self {
        Self { down: Some(symmetric), ..Self::new(channels, channels, device) }
    }

    /// All zeros: the initialisation of the last layer of a residual branch.
    pub fn zeros(in_channels: usize, out_channels: usize, device: &Device) -> Self {
        Self {
            weight: zeros([out_channels, in_channels, 3, 3], device),
            bias: zeros([out_channels], device),
            down: None,
        }
    }

    /// # Shapes
    /// [batch, in, height, width] -> [batch, out, height, width], or half the size when strided
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let kind = match self.down {
            None => Conv3x3::SAME,
            Some(true) => Conv3x3::DOWN,
            Some(false) => Conv3x3::DOWN_ASYMMETRIC,
        };
        conv3x3(x, self.weight.val(), self.bias.val(), kind)
    }

    /// Nearest-neighbour up-sampling by 2, then this convolution, without the enlarged image.
    ///
    /// # Shapes
    /// [batch, in, height, width] -> [batch, out, 2 height, 2 width]
    ///
    /// # Panics
    /// If the convolution is strided.
    pub fn forward_upsampled(&self, x: Tensor<4>) -> Tensor<4> {
        assert!(self.down.is_none(), "a strided convolution behind up-sampling has no use");
        conv3x3_upsampled(x, self.weight.val(), self.bias.val())
    }
}

/// 1x1 convolution with bias.
#[derive(Module, Debug)]
pub struct Conv1x1 {
    /// [out, in, 1, 1]
    pub weight: Param<Tensor<4>>,
    /// [out]
    pub bias: Param<Tensor<1>>,
}

impl Conv1x1 {
    /// PyTorch's default initialisation.
    pub fn new(in_channels: usize, out_channels: usize, device: &Device) -> Self {
        Self {
            weight: uniform([out_channels, in_channels, 1, 1], in_channels, device),
            bias: uniform([out_channels], in_channels, device),
        }
    }

    /// All zeros.
    pub fn zeros(in_channels: usize, out_channels: usize, device: &Device) -> Self {
        Self { weight: zeros([out_channels, in_channels, 1, 1], device), bias: zeros([out_channels], device) }
    }

    /// # Shapes
    /// [batch, in, height, width] -> [batch, out, height, width]
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        conv1x1(x, self.weight.val(), self.bias.val())
    }
}
