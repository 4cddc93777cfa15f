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

/// How the mouths of one clip are cut: all alike, as cameras do.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct View {
    /// Move of the window in its own pixels.
    pub(crate) shift: [f32; 2],
    /// Size of the window relative to the normal one.
    pub(crate) zoom: f32,
    /// Left is right.
    pub(crate) mirrored: bool,
}

impl View {
    /// As it is.
    pub(crate) const PLAIN: Self = Self { shift: [0.0; 2], zoom: 1.0, mirrored: false };
}

/// A square part of an aligned crop, in parts of its side.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Area {
    pub(crate) left: f64,
    pub(crate) top: f64,
    pub(crate) side: f64,
}

impl Area {
    /// This part of a crop, bilinear: RGB, [size, size, 3].
    pub(crate) fn cut(&self, crop: &[u8], side: usize, size: usize, view: View) -> Vec<u8> {
        let step = (side as f64 * self.side / size as f64) as f32;
        let half = size as f32 / 2.0;
        // Pixel centres lie at integers.
        let line = |from: f64, shift: f32| -> Vec<(usize, usize, f32)> {
            let centre = (side as f64 * (from + self.side / 2.0)) as f32 - 0.5;
            let last = (side - 1) as f32;
            let at = |i: usize| {
                let x = (centre + ((i as f32 + 0.5 - half) * view.zoom + shift) * step).clamp(0.0, last);
                (x as usize, (x as usize + 1).min(side - 1), x.fract())
            };
            (0..size).map(at).collect()
        };
        let (mut columns, lines) = (line(self.left, view.shift[0]), line(self.top, view.shift[1]));
        if view.mirrored {
            columns.reverse();
        }
        let mut out = Vec::with_capacity(size * size * 3);
        for (top, bottom, down) in lines {
            for (left, right, across) in &columns {
                for c in 0..3 {
                    let at = |y: usize, x: usize| f32::from(crop[(y * side + x) * 3 + c]);
                    let upper = at(top, *left) * (1.0 - across) + at(top, *right) * across;
                    let lower = at(bottom, *left) * (1.0 - across) + at(bottom, *right) * across;
                    out.push((upper * (1.0 - down) + lower * down + 0.5) as u8);
                }
            }
        }
        out
    }
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
