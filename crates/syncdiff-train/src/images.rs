//! Pictures of a training batch.

use burn::tensor::{Device, Tensor};
use syncdiff_model::generate::rgb_to_tensor;
use syncdiff_model::weights::StoredTensor;

/// RGB bytes of equal square pictures to a batch.
///
/// # Shapes
/// each [side, side, 3] row-major -> [pictures, 3, side, side] in [-1, 1]
pub(crate) fn to_tensor(pictures: &[Vec<u8>], side: usize, device: &Device) -> Tensor<4> {
    let one = |picture: &Vec<u8>| {
        assert_eq!(picture.len(), 3 * side * side, "picture size");
        rgb_to_tensor(picture, side, device)
    };
    Tensor::cat(pictures.iter().map(one).collect(), 0)
}

/// A tensor as it is written to a file.
pub(crate) fn stored<const D: usize>(tensor: Tensor<D>) -> StoredTensor {
    let shape = tensor.dims();
    let values: Vec<f32> = tensor.into_data().convert::<f32>().try_into_vec().expect("converted to f32");
    StoredTensor::from_f32(&shape, &values)
}

/// A square window of a square picture, optionally mirrored.
pub(crate) fn window(picture: &[u8], side: usize, top: usize, left: usize, size: usize, mirror: bool) -> Vec<u8> {
    let mut out = Vec::with_capacity(size * size * 3);
    for row in top..top + size {
        let line = &picture[(row * side + left) * 3..(row * side + left + size) * 3];
        if mirror {
            out.extend(line.chunks_exact(3).rev().flatten());
        } else {
            out.extend_from_slice(line);
        }
    }
    out
}

/// Peak signal-to-noise ratio of two tensors in [-1, 1], in dB.
pub(crate) fn psnr(a: Tensor<4>, b: Tensor<4>) -> f32 {
    let mse = (a.clamp(-1.0, 1.0) - b).powi_scalar(2).mean().into_scalar::<f32>();
    10.0 * (4.0 / mse.max(1e-10)).log10()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn window_cuts_and_mirrors() {
        let picture: Vec<u8> = (0..4 * 4 * 3).map(|i| i as u8).collect();
        assert_eq!(window(&picture, 4, 1, 2, 1, false), [18, 19, 20]);
        assert_eq!(window(&picture, 4, 0, 0, 2, true)[..6], [3, 4, 5, 0, 1, 2]);
    }
}
