//! Convolutions of any kernel, stride and direction, alone or followed by a batch normalisation with fixed
//! statistics: what the scorers and baselines are made of.

use burn::module::{Initializer, Module, Param};
use burn::nn::{BatchNorm, BatchNormConfig};
use burn::tensor::module::{conv_transpose2d, conv2d};
use burn::tensor::ops::{ConvOptions, ConvTransposeOptions};
use burn::tensor::{Device, Tensor};
use syncdiff_kernels::{Conv3x3, conv1x1, conv3x3};

use crate::cost::Meter;
use crate::weights::{Remap, module_shapes};

/// Kernel size, stride and zero padding of a convolution; first rows, then columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConvShape {
    /// Kernel.
    pub kernel: [usize; 2],
    /// Stride.
    pub stride: [usize; 2],
    /// Zeros on both sides.
    pub padding: [usize; 2],
    /// `Some` for a transposed convolution, with the rows and columns that are added at the end of its output.
    pub output_padding: Option<[usize; 2]>,
}

impl ConvShape {
    /// A square kernel.
    pub const fn square(kernel: usize, stride: usize, padding: usize) -> Self {
        Self { kernel: [kernel; 2], stride: [stride; 2], padding: [padding; 2], output_padding: None }
    }

    /// A square kernel with another stride for rows and columns.
    pub const fn strided(kernel: usize, stride: [usize; 2], padding: usize) -> Self {
        Self { stride, ..Self::square(kernel, 1, padding) }
    }

    /// A transposed convolution with a square kernel.
    pub const fn transposed(kernel: usize, stride: usize, padding: usize, output_padding: usize) -> Self {
        Self { output_padding: Some([output_padding; 2]), ..Self::square(kernel, stride, padding) }
    }

    /// Rows and columns of the output for an input of `size`.
    pub fn output_size(&self, size: [usize; 2]) -> [usize; 2] {
        let Self { kernel, stride, padding, output_padding } = *self;
        std::array::from_fn(|i| match output_padding {
            Some(more) => (size[i] - 1) * stride[i] + kernel[i] + more[i] - 2 * padding[i],
            None => (size[i] + 2 * padding[i] - kernel[i]) / stride[i] + 1,
        })
    }

    /// Convolves; 3x3 and 1x1 kernels take the fast way where there is one.
    ///
    /// # Shapes
    /// x: [batch, in, height, width]; weight: [out, in, rows, columns], transposed [in, out, rows, columns];
    /// bias: [out]
    pub fn apply(&self, x: Tensor<4>, weight: Tensor<4>, bias: Tensor<1>) -> Tensor<4> {
        let Self { kernel, stride, padding, output_padding } = *self;
        if let Some(output_padding) = output_padding {
            let options = ConvTransposeOptions::new(stride, padding, output_padding, [1, 1], 1);
            return conv_transpose2d(x, weight, Some(bias), options);
        }
        match (kernel, stride, padding) {
            ([3, 3], [1, 1], [1, 1]) => conv3x3(x, weight, bias, Conv3x3::SAME),
            ([3, 3], [2, 2], [1, 1]) => conv3x3(x, weight, bias, Conv3x3::DOWN),
            ([1, 1], [1, 1], [0, 0]) => conv1x1(x, weight, bias),
            _ => conv2d(x, weight, Some(bias), ConvOptions::new(stride, padding, [1, 1], 1)),
        }
    }
}

/// Convolution with bias.
#[derive(Module, Debug)]
pub struct Conv {
    /// [out, in, rows, columns], transposed [in, out, rows, columns]
    pub weight: Param<Tensor<4>>,
    /// [out]
    pub bias: Param<Tensor<1>>,
    #[module(skip)]
    shape: ConvShape,
    /// In and out.
    #[module(skip)]
    channels: [usize; 2],
}

impl Conv {
    /// PyTorch's default initialisation.
    pub fn new(input: usize, output: usize, shape: ConvShape, device: &Device) -> Self {
        let [rows, columns] = shape.kernel;
        // PyTorch takes the second axis of the weight for the fan-in of a transposed convolution as well.
        let (first, second) = if shape.output_padding.is_some() { (input, output) } else { (output, input) };
        let bound = 1.0 / ((second * rows * columns) as f64).sqrt();
        let uniform = Initializer::Uniform { min: -bound, max: bound };
        Self {
            weight: uniform.init([first, second, rows, columns], device),
            bias: uniform.init([output], device),
            shape,
            channels: [input, output],
        }
    }

    /// Adds what this layer costs.
    pub fn measure(&self, meter: &mut Meter) {
        meter.conv(self.channels[0], self.channels[1], &self.shape);
    }

    /// # Shapes
    /// [batch, in, height, width] -> [batch, out, height', width']
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        self.shape.apply(x, self.weight.val(), self.bias.val())
    }
}

/// Convolution, then batch normalisation with its running statistics, in one pass: the normalisation is folded into
/// the kernel. These networks score and compare; they are not trained here.
#[derive(Module, Debug)]
pub struct ConvNorm {
    conv: Conv,
    norm: BatchNorm,
}

impl ConvNorm {
    /// PyTorch's default initialisation.
    pub fn new(input: usize, output: usize, shape: ConvShape, device: &Device) -> Self {
        Self { conv: Conv::new(input, output, shape, device), norm: batch_norm(output, device) }
    }

    /// Adds what this layer costs.
    pub fn measure(&self, meter: &mut Meter) {
        self.conv.measure(meter);
        meter.norm(self.conv.channels[1]);
    }

    /// # Shapes
    /// [batch, in, height, width] -> [batch, out, height', width']
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let (scale, shift) = scale_and_shift(&self.norm);
        let axes = if self.conv.shape.output_padding.is_some() { [1, -1, 1, 1] } else { [-1, 1, 1, 1] };
        let weight = self.conv.weight.val() * scale.clone().reshape(axes);
        self.conv.shape.apply(x, weight, self.conv.bias.val() * scale + shift)
    }
}

/// A batch normalisation with PyTorch's epsilon.
pub fn batch_norm(channels: usize, device: &Device) -> BatchNorm {
    BatchNormConfig::new(channels).with_epsilon(1e-5).init(device)
}

/// What a batch normalisation does with its running statistics: `scale * x + shift`.
///
/// # Shapes
/// both [channels]
pub fn scale_and_shift(norm: &BatchNorm) -> (Tensor<1>, Tensor<1>) {
    let scale = norm.gamma.val() / (norm.running_var.value() + norm.epsilon).sqrt();
    let shift = norm.beta.val() - norm.running_mean.value() * scale.clone();
    (scale, shift)
}

/// Number of learned values of a network: all floats but the running statistics of batch normalisations.
pub fn count_learned<M: Module>(module: &M) -> usize {
    let shapes = module_shapes(module, &Remap::identity());
    let learned = shapes.iter().filter(|(name, _)| !name.rsplit('.').next().unwrap_or("").starts_with("running_"));
    learned.map(|(_, shape)| shape.iter().product::<usize>()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::weights::{StoredTensor, TensorMap, load_into};

    fn close(actual: Tensor<4>, expected: &[f32]) {
        let actual = actual.into_data().try_to_vec::<f32>().unwrap();
        assert_eq!(actual.len(), expected.len());
        for (a, e) in actual.iter().zip(expected) {
            assert!((a - e).abs() < 1e-5, "{actual:?} {expected:?}");
        }
    }

    fn tensors(weight: &[usize], values: &[f32]) -> TensorMap {
        let vector = |value: f32| StoredTensor::from_f32(&[1], &[value]);
        TensorMap::from([
            ("conv.weight".to_owned(), StoredTensor::from_f32(weight, values)),
            ("conv.bias".to_owned(), vector(0.5)),
            ("norm.weight".to_owned(), vector(3.0)),
            ("norm.bias".to_owned(), vector(-1.0)),
            ("norm.running_mean".to_owned(), vector(2.0)),
            ("norm.running_var".to_owned(), vector(4.0 - 1e-5)),
        ])
    }

    #[test]
    fn the_normalisation_is_folded_in_with_its_running_statistics() {
        let device = Device::default();
        let block = ConvNorm::new(1, 1, ConvShape::strided(2, [1, 2], 0), &device);
        assert_eq!(count_learned(&block), 4 + 1 + 2);
        let block = load_into(block, &tensors(&[1, 1, 2, 2], &[1.0, 2.0, 3.0, 4.0]), &Remap::identity()).unwrap();
        let x = Tensor::from_data([[[[1.0, 0.0, 0.0, 1.0], [0.0, 1.0, 1.0, 0.0]]]], &device);
        // (1 + 4 + 0.5 - 2) / 2 * 3 - 1 and (2 + 3 + 0.5 - 2) / 2 * 3 - 1
        close(block.forward(x), &[4.25, 4.25]);
    }

    #[test]
    fn a_transposed_block_scales_its_second_axis() {
        let device = Device::default();
        let block = ConvNorm::new(2, 1, ConvShape::transposed(1, 2, 0, 1), &device);
        let block = load_into(block, &tensors(&[2, 1, 1, 1], &[1.0, 10.0]), &Remap::identity()).unwrap();
        let x = Tensor::from_data([[[[1.0]], [[2.0]]]], &device);
        let empty = (0.5 - 2.0) / 2.0 * 3.0 - 1.0;
        close(block.forward(x), &[(21.5 - 2.0) / 2.0 * 3.0 - 1.0, empty, empty, empty]);
    }
}
