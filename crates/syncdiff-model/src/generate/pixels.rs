//! Pictures as bytes and as tensors.

use burn::tensor::{DType, Device, Tensor, TensorData};

/// One square RGB picture as a tensor.
///
/// # Shapes
/// [side, side, 3] bytes -> [1, 3, side, side] in [-1, 1]
pub fn rgb_to_tensor(rgb: &[u8], side: usize, device: &Device) -> Tensor<4> {
    let plane = side * side;
    let mut values = vec![0f32; 3 * plane];
    for (i, pixel) in rgb.chunks_exact(3).enumerate() {
        for (c, &byte) in pixel.iter().enumerate() {
            values[c * plane + i] = f32::from(byte) / 127.5 - 1.0;
        }
    }
    Tensor::from_data(TensorData::new(values, [1, 3, side, side]), (device, DType::F32))
}

/// The inverse of [`rgb_to_tensor`], rounded and clamped.
///
/// # Shapes
/// [1, 3, side, side] -> [side, side, 3] bytes
pub fn tensor_to_rgb(picture: Tensor<4>) -> Vec<u8> {
    let [_, _, height, width] = picture.dims();
    let plane = height * width;
    let values: Vec<f32> = picture.into_data().convert::<f32>().try_into_vec().expect("converted to f32");
    let mut rgb = vec![0u8; 3 * plane];
    for (i, pixel) in rgb.chunks_exact_mut(3).enumerate() {
        for (c, byte) in pixel.iter_mut().enumerate() {
            *byte = ((values[c * plane + i] + 1.0) * 127.5).round().clamp(0.0, 255.0) as u8;
        }
    }
    rgb
}
