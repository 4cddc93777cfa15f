//! The adversary that a first stage is trained against: a discriminator of patches, and its losses.
//!
//! # Source
//! taming-transformers `NLayerDiscriminator` (3 layers) and `VQLPIPSWithDiscriminator`; after Isola et al. 2017.

use burn::module::{Initializer, Module, Param};
use burn::tensor::activation::{leaky_relu, relu};
use burn::tensor::module::{batch_norm_train, conv2d};
use burn::tensor::ops::ConvOptions;
use burn::tensor::{Device, Tensor};

use crate::cost::{Cost, Meter};
use crate::nn::conv_norm::ConvShape;
use crate::weights::Remap;

const KERNEL: usize = 4;
/// Slope of the leaky ReLU below zero.
const LEAK: f64 = 0.2;
/// Added to variances by the norms.
const EPS: f64 = 1e-5;
/// The source's weight of the adversarial term.
pub const ADVERSARIAL_WEIGHT: f64 = 0.75;

/// 4x4 convolution, padded by one.
#[derive(Module, Debug)]
struct Conv4 {
    /// [out, in, 4, 4]
    weight: Param<Tensor<4>>,
    /// [out]
    bias: Option<Param<Tensor<1>>>,
    #[module(skip)]
    stride: usize,
}

impl Conv4 {
    fn new(input: usize, output: usize, stride: usize, bias: bool, device: &Device) -> Self {
        let weight = Initializer::Normal { mean: 0.0, std: 0.02 };
        let bound = 1.0 / ((input * KERNEL * KERNEL) as f64).sqrt();
        let uniform = Initializer::Uniform { min: -bound, max: bound };
        Self {
            weight: weight.init([output, input, KERNEL, KERNEL], device),
            bias: bias.then(|| uniform.init([output], device)),
            stride,
        }
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let options = ConvOptions::new([self.stride; 2], [1, 1], [1, 1], 1);
        conv2d(x, self.weight.val(), self.bias.as_ref().map(Param::val), options)
    }
}

/// Normalises each channel by the statistics of the batch, always: the adversary is never used outside of training, so
/// that it keeps no running statistics, which two threads would write in an undefined order.
#[derive(Module, Debug)]
struct OwnBatchNorm {
    /// [channels]
    weight: Param<Tensor<1>>,
    /// [channels]
    bias: Param<Tensor<1>>,
}

impl OwnBatchNorm {
    fn new(channels: usize, device: &Device) -> Self {
        let around_one = Initializer::Normal { mean: 1.0, std: 0.02 };
        Self { weight: around_one.init([channels], device), bias: Initializer::Zeros.init([channels], device) }
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        batch_norm_train(x, self.weight.val(), self.bias.val(), EPS).output
    }
}

/// Says of every patch of a picture how real it looks: 2,765,633 parameters at width 64.
#[derive(Module, Debug)]
pub struct PatchDiscriminator {
    first: Conv4,
    convs: Vec<Conv4>,
    norms: Vec<OwnBatchNorm>,
    last: Conv4,
}

impl PatchDiscriminator {
    /// `width` is that of the first layer, 64 in the source.
    pub fn new(in_channels: usize, width: usize, device: &Device) -> Self {
        let conv = |i: usize| Conv4::new(width << i, width << (i + 1), if i < 2 { 2 } else { 1 }, false, device);
        Self {
            first: Conv4::new(in_channels, width, 2, true, device),
            convs: (0..3).map(conv).collect(),
            norms: (0..3).map(|i| OwnBatchNorm::new(width << (i + 1), device)).collect(),
            last: Conv4::new(8 * width, 1, 1, true, device),
        }
    }

    /// One picture of `size` x `size` pixels; arguments as for [`Self::new`].
    pub fn cost(in_channels: usize, width: usize, size: usize) -> Cost {
        let mut meter = Meter::new([size; 2]);
        meter.conv(in_channels, width, &ConvShape::square(KERNEL, 2, 1));
        for i in 0..3 {
            meter.conv(width << i, width << (i + 1), &ConvShape::square(KERNEL, if i < 2 { 2 } else { 1 }, 1));
            // A norm in place of the bias.
            meter.norm(width << (i + 1));
            meter.cost.parameters -= (width << (i + 1)) as u64;
        }
        meter.conv(8 * width, 1, &ConvShape::square(KERNEL, 1, 1));
        meter.cost
    }

    /// Names in the source.
    pub fn remap() -> Remap {
        Remap::table(&[
            ("first", "main.0"),
            ("convs.0", "main.2"),
            ("norms.0", "main.3"),
            ("convs.1", "main.5"),
            ("norms.1", "main.6"),
            ("convs.2", "main.8"),
            ("norms.2", "main.9"),
            ("last", "main.11"),
        ])
        .ignoring(&[
            "main.3.num_batches_tracked",
            "main.3.running_mean",
            "main.3.running_var",
            "main.6.num_batches_tracked",
            "main.6.running_mean",
            "main.6.running_var",
            "main.9.num_batches_tracked",
            "main.9.running_mean",
            "main.9.running_var",
        ])
    }

    /// The norms use the statistics of the batch.
    ///
    /// # Shapes
    /// [batch, channels, height, width] of at least 24 x 24 -> [batch, 1, height / 8 - 2, width / 8 - 2]
    pub fn forward(&self, picture: Tensor<4>) -> Tensor<4> {
        let mut x = leaky_relu(self.first.forward(picture), LEAK);
        for (conv, norm) in self.convs.iter().zip(&self.norms) {
            x = leaky_relu(norm.forward(conv.forward(x)), LEAK);
        }
        self.last.forward(x)
    }
}

/// What the discriminator minimises: half the mean of relu(1 - real) and relu(1 + fake).
pub fn hinge_loss(real: Tensor<4>, fake: Tensor<4>) -> Tensor<1> {
    (relu(1.0 - real).mean() + relu(fake + 1.0).mean()) * 0.5
}

/// What the autoencoder minimises of the adversary's judgement.
pub fn deception_loss(fake: Tensor<4>) -> Tensor<1> {
    fake.mean().neg()
}

/// Factor on [`deception_loss`] that makes its gradient at the decoder's last weights `weight` times as large as that of
/// the reconstruction; `weight` is [`ADVERSARIAL_WEIGHT`] in the source. The other arguments are the two gradient norms.
pub fn adaptive_weight(reconstruction: f64, deception: f64, weight: f64) -> f64 {
    (reconstruction / (deception + 1e-4)).clamp(0.0, 1e4) * weight
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn published_number_of_parameters() {
        let discriminator = PatchDiscriminator::new(3, 64, &Device::default());
        let shapes = crate::weights::module_shapes(&discriminator, &PatchDiscriminator::remap());
        assert_eq!(shapes.values().map(|shape| shape.iter().product::<usize>()).sum::<usize>(), 2_765_633);
        let cost = PatchDiscriminator::cost(3, 64, 256);
        assert_eq!(cost.parameters, 2_765_633);
        // Sides 128, 64, 32, 31 and 30.
        let cells = [3 * 64 * 128 * 128, 64 * 128 * 64 * 64, 128 * 256 * 32 * 32, 256 * 512 * 31 * 31, 512 * 30 * 30];
        assert_eq!(cost.macs, 16 * cells.iter().sum::<u64>());
    }

    #[test]
    fn adaptive_weights() {
        assert!((adaptive_weight(2.0, 1.0, ADVERSARIAL_WEIGHT) - 1.5).abs() < 1e-3);
        assert_eq!(adaptive_weight(2.0, 0.0, ADVERSARIAL_WEIGHT), 7500.0);
        assert_eq!(adaptive_weight(0.0, 1.0, ADVERSARIAL_WEIGHT), 0.0);
    }
}
