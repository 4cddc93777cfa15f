//! What a network costs: learned values, and multiply-accumulates of one pass, from its configuration alone.
//!
//! A multiply-accumulate is one product added to a sum, two floating-point operations. Those of convolutions, linear
//! maps and both products of attention are counted; norms, activations, sums and resampling are not. A pass counts
//! everything that its definition computes, also what the program keeps from one step of a sampler to the next.
//!
//! [`diffusion`] and [`speech`] walk through configurations, the networks of `scorers` and `baselines` through their
//! own tables of layers with a [`Meter`]; [`architectures`] lists them all. Tests hold every count of parameters
//! against the network itself.

pub mod architectures;
pub mod diffusion;
pub mod speech;

use std::iter::Sum;
use std::ops::{Add, AddAssign};

use crate::nn::conv_norm::ConvShape;

/// Learned values, and multiply-accumulates of one pass.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// Learned values; running statistics are none.
    pub parameters: u64,
    /// Multiply-accumulates.
    pub macs: u64,
}

impl Cost {
    /// Values that multiply nothing: slopes, positions, scales.
    pub const fn values(count: usize) -> Self {
        Self { parameters: count as u64, macs: 0 }
    }

    /// A norm with scale and shift.
    pub const fn norm(channels: usize) -> Self {
        Self::values(2 * channels)
    }

    /// A linear map of `rows` rows, with bias.
    pub const fn linear(input: usize, output: usize, rows: usize) -> Self {
        let plain = Self::plain_linear(input, output, rows);
        Self { parameters: plain.parameters + output as u64, ..plain }
    }

    /// A linear map of `rows` rows, without bias.
    pub const fn plain_linear(input: usize, output: usize, rows: usize) -> Self {
        let weights = (input * output) as u64;
        Self { parameters: weights, macs: weights * rows as u64 }
    }

    /// A convolution with bias; `kernel` counts all its positions, `positions` those of its output.
    pub const fn conv(input: usize, output: usize, kernel: usize, positions: usize) -> Self {
        Self::linear(input * kernel, output, positions)
    }

    /// Both products of an attention whose heads have `dim` channels together.
    pub const fn attention(queries: usize, keys: usize, dim: usize) -> Self {
        Self { parameters: 0, macs: 2 * (queries * keys * dim) as u64 }
    }

    /// The same weights, passed through several times.
    pub const fn times(self, passes: usize) -> Self {
        Self { macs: self.macs * passes as u64, ..self }
    }
}

impl Add for Cost {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { parameters: self.parameters + other.parameters, macs: self.macs + other.macs }
    }
}

impl AddAssign for Cost {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl Sum for Cost {
    fn sum<I: Iterator<Item = Self>>(parts: I) -> Self {
        parts.fold(Self::default(), Add::add)
    }
}

/// A walk through layers over pictures: keeps the size of the picture and adds up.
#[derive(Clone, Copy, Debug)]
pub struct Meter {
    /// Rows and columns.
    pub size: [usize; 2],
    /// So far.
    pub cost: Cost,
}

impl Meter {
    /// Before the first layer.
    pub const fn new(size: [usize; 2]) -> Self {
        Self { size, cost: Cost { parameters: 0, macs: 0 } }
    }

    /// A convolution with bias. A transposed one multiplies at the positions of its input.
    pub fn conv(&mut self, input: usize, output: usize, shape: &ConvShape) {
        let before = self.size;
        self.size = shape.output_size(before);
        let [rows, columns] = if shape.output_padding.is_some() { before } else { self.size };
        let [height, width] = shape.kernel;
        self.cost += Cost::conv(input, output, height * width, rows * columns);
    }

    /// A norm after a convolution.
    pub fn norm(&mut self, channels: usize) {
        self.cost += Cost::norm(channels);
    }

    /// A pooling.
    pub fn pool(&mut self, kernel: [usize; 2], stride: [usize; 2], padding: [usize; 2]) {
        self.size = ConvShape { kernel, stride, padding, output_padding: None }.output_size(self.size);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_cases_counted_by_hand() {
        // 3 -> 5, with 5 biases, on 7 rows: 105 products.
        assert_eq!(Cost::linear(3, 5, 7), Cost { parameters: 20, macs: 105 });
        assert_eq!(Cost::plain_linear(3, 5, 7), Cost { parameters: 15, macs: 105 });
        // 2 -> 4 channels, 3x3, on 4x4 positions: 72 weights at each.
        assert_eq!(Cost::conv(2, 4, 9, 16), Cost { parameters: 76, macs: 1152 });
        // 6 queries, 5 keys, 8 channels: 240 products for the weights and 240 for the sum.
        assert_eq!(Cost::attention(6, 5, 8), Cost { parameters: 0, macs: 480 });
        assert_eq!(Cost::linear(1, 1, 1).times(4) + Cost::norm(3), Cost { parameters: 8, macs: 4 });
    }

    #[test]
    fn sizes_of_pictures() {
        let mut meter = Meter::new([5, 8]);
        meter.conv(1, 2, &ConvShape::strided(3, [1, 2], 1));
        assert_eq!((meter.size, meter.cost), ([5, 4], Cost { parameters: 20, macs: 360 }));
        meter.pool([2, 2], [2, 2], [0, 0]);
        assert_eq!(meter.size, [2, 2]);
        meter.conv(2, 1, &ConvShape::transposed(3, 2, 1, 1));
        assert_eq!((meter.size, meter.cost), ([4, 4], Cost { parameters: 20 + 19, macs: 360 + 72 }));
    }
}
