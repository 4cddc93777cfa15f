//! Parts of pictures at another size, with gradients: two products with small matrices.

use burn::tensor::{DType, Device, Tensor, TensorData};

/// A part of a line of pixels, in parts of its length.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Part {
    /// Where it begins.
    pub start: f64,
    /// How long it is.
    pub length: f64,
}

impl Part {
    /// All of it.
    pub const WHOLE: Self = Self { start: 0.0, length: 1.0 };

    /// Weight of each of `from` pixels in each of `to`: a triangle as wide as a pixel of the coarser of the two, and
    /// the nearest pixel beyond the edges.
    ///
    /// # Shapes
    /// [to, from]
    fn weights(self, from: usize, to: usize) -> Vec<f32> {
        let step = from as f64 * self.length / to as f64;
        let reach = step.max(1.0);
        let mut weights = Vec::with_capacity(from * to);
        for pixel in 0..to {
            let centre = from as f64 * self.start + (pixel as f64 + 0.5) * step;
            let weight = |i: usize| (1.0 - (i as f64 + 0.5 - centre).abs() / reach).max(0.0);
            let sum: f64 = (0..from).map(weight).sum();
            weights.extend((0..from).map(|i| (weight(i) / sum) as f32));
        }
        weights
    }

    fn matrix(self, from: usize, to: usize, device: &Device) -> Tensor<4> {
        Tensor::from_data(TensorData::new(self.weights(from, to), [1, 1, to, from]), (device, DType::F32))
    }
}

/// A rectangle of pictures at another size; a triangle filter, which smooths where it makes smaller.
///
/// # Shapes
/// [batch, channels, height, width] -> [batch, channels, size[0], size[1]]
pub fn resample(x: Tensor<4>, rows: Part, columns: Part, size: [usize; 2]) -> Tensor<4> {
    let ([_, _, height, width], device) = (x.dims(), x.device());
    let rows = rows.matrix(height, size[0], &device);
    rows.matmul(x).matmul(columns.matrix(width, size[1], &device).swap_dims(2, 3))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(values: &[f32], columns: Part, to: usize) -> Vec<f32> {
        let x = Tensor::<1>::from_data(TensorData::new(values.to_vec(), [values.len()]), &Device::flex());
        let x = x.reshape([1, 1, 1, values.len()]);
        resample(x, Part::WHOLE, columns, [1, to]).into_data().try_into_vec().unwrap()
    }

    #[test]
    fn the_same_size_changes_nothing_and_a_part_is_cut_out() {
        let values: Vec<f32> = (0..8).map(|i| (i * i) as f32).collect();
        assert_eq!(row(&values, Part::WHOLE, 8), values);
        assert_eq!(row(&values, Part { start: 0.25, length: 0.5 }, 4), values[2..6]);
    }

    #[test]
    fn lines_stay_lines_and_halving_smooths() {
        let line: Vec<f32> = (0..8).map(|i| i as f32 + 0.5).collect();
        let twice = row(&line, Part { start: 0.25, length: 0.5 }, 8);
        for (i, value) in twice.iter().enumerate() {
            assert!((value - (2.25 + 0.5 * i as f32)).abs() < 1e-5, "{twice:?}");
        }
        // Weights 1/8, 3/8, 3/8, 1/8 around the centre.
        let peak = row(&[0.0, 0.0, 0.0, 8.0, 0.0, 0.0, 0.0, 0.0], Part::WHOLE, 4);
        assert!((peak[1] - 3.0).abs() < 1e-5 && (peak[2] - 1.0).abs() < 1e-5, "{peak:?}");
    }
}
