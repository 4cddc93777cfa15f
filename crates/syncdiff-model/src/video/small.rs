//! A video front end that is small enough to be trained on two CPU cores.
//!
//! The published one is ResNet-18 on every frame ([`super::VideoFrontEnd`]): 11.6 million parameters, with batch norm,
//! which wants large batches. This one takes the same pictures and gives rows of the same width, and sees five frames
//! at once as well; its layers are those of our other small networks.

use burn::module::Module;
use burn::nn::{Linear, LinearConfig};
use burn::tensor::{Device, Tensor};

use crate::cost::{Cost, Meter};
use crate::nn::conv_norm::ConvShape;
use crate::nn::layer::{HALF, Layer, SAME};
use crate::nn::{Conv1x1, Part, linear, resample};
use crate::video::resnet::STEM_FRAMES;
use crate::weights::Remap;

/// Side of the pictures that the layers see: rows of whole vectors in all of them, and a mouth of a crop of 128 pixels
/// has no more.
const SIDE: usize = 64;
/// Output channels and convolution of each layer.
const LAYERS: [(usize, ConvShape); 6] = [(16, HALF), (32, HALF), (32, SAME), (64, HALF), (64, SAME), (64, SAME)];
/// Channels before the last linear map.
const NARROW: usize = 16;

/// Six layers of convolutions, a 1x1 convolution to few channels, a linear map of all that is left: 0.3 million
/// parameters at a width of 192.
#[derive(Module, Debug)]
pub struct SmallFrontEnd {
    layers: Vec<Layer>,
    narrow: Conv1x1,
    out: Linear,
}

impl SmallFrontEnd {
    /// Random weights from the device's generator, for an encoder of width `dim`.
    pub fn new(dim: usize, device: &Device) -> Self {
        let (mut input, mut size, mut layers) = (STEM_FRAMES, [SIDE; 2], Vec::new());
        for (output, shape) in LAYERS {
            layers.push(Layer::new(input, output, shape, device));
            (input, size) = (output, shape.output_size(size));
        }
        Self {
            layers,
            narrow: Conv1x1::new(input, NARROW, device),
            out: LinearConfig::new(NARROW * size[0] * size[1], dim).init(device),
        }
    }

    /// Names in a file.
    pub fn remap() -> Remap {
        Remap::identity().with_prefix("video.")
    }

    /// A row for every picture, which sees itself and two on both sides, zeros beyond the ends.
    ///
    /// # Shapes
    /// [batch, frames, 88, 88] of [`super::mouth_tensor`] -> [batch, frames, dim]
    pub fn forward(&self, mouths: Tensor<4>) -> Tensor<3> {
        let [batch, frames, ..] = mouths.dims();
        let mouths = resample(mouths, Part::WHOLE, Part::WHOLE, [SIDE; 2]);
        let margin = Tensor::zeros([batch, STEM_FRAMES / 2, SIDE, SIDE], &mouths.device());
        let padded = Tensor::cat(vec![margin.clone(), mouths, margin], 1);
        let shifted = (0..STEM_FRAMES).map(|k| padded.clone().narrow(1, k, frames).unsqueeze_dim::<5>(2)).collect();
        let x = Tensor::cat(shifted, 2).reshape([batch * frames, STEM_FRAMES, SIDE, SIDE]);
        let x = self.layers.iter().fold(x, |x, layer| layer.forward(x));
        let x: Tensor<2> = linear(&self.out, self.narrow.forward(x).flatten(1, 3));
        let dim = x.dims()[1];
        x.reshape([batch, frames, dim])
    }

    /// One picture of a mouth to a row of `dim`.
    pub fn cost(dim: usize) -> Cost {
        let (mut meter, mut input) = (Meter::new([SIDE; 2]), STEM_FRAMES);
        for (output, shape) in LAYERS {
            meter.conv(input, output, &shape);
            meter.norm(output);
            input = output;
        }
        let positions = meter.size[0] * meter.size[1];
        meter.cost + Cost::conv(input, NARROW, 1, positions) + Cost::linear(NARROW * positions, dim, 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::conv_norm::count_learned;
    use crate::video::MOUTH_SIDE;
    use burn::tensor::{DType, TensorData};

    fn mouths(batch: usize, frames: usize, device: &Device) -> Tensor<4> {
        let values =
            (0..batch * frames * MOUTH_SIDE.pow(2)).map(|i| ((i * 7919) % 1009) as f32 / 500.0 - 1.0).collect();
        let values: Vec<f32> = values;
        Tensor::from_data(TensorData::new(values, [batch, frames, MOUTH_SIDE, MOUTH_SIDE]), (device, DType::F32))
    }

    #[test]
    fn costs_are_those_of_the_layers() {
        for dim in [24, 192] {
            let net = SmallFrontEnd::new(dim, &Device::flex());
            assert_eq!(SmallFrontEnd::cost(dim).parameters, count_learned(&net) as u64);
        }
        assert!((250_000..350_000).contains(&SmallFrontEnd::cost(192).parameters));
        assert!((8_000_000..12_000_000).contains(&SmallFrontEnd::cost(192).macs));
    }

    #[test]
    fn a_row_sees_two_pictures_on_both_sides_and_no_other_clip() {
        let device = Device::flex();
        device.seed(4);
        let net = SmallFrontEnd::new(24, &device);
        let rows = net.forward(mouths(2, 8, &device));
        assert_eq!(rows.dims(), [2, 8, 24]);
        let changed =
            mouths(2, 8, &device).slice_assign([0..1, 3..4], Tensor::zeros([1, 1, MOUTH_SIDE, MOUTH_SIDE], &device));
        let moved = (net.forward(changed) - rows).abs().max_dim(2).into_data().try_into_vec::<f32>().unwrap();
        for (place, distance) in moved.iter().enumerate() {
            assert_eq!(*distance > 1e-6, (1..=5).contains(&place), "{place}: {distance}");
        }
    }
}
