//! Grey pictures as the video front end wants them: the centre, brought to the deviation it was trained with.

use burn::tensor::{DType, Device, Tensor, TensorData};

use crate::error::{ModelError, ModelResult};

/// Side of a mouth picture in pixels.
pub const MOUTH_SIDE: usize = 88;
/// Mean of grey values in 0 to 1 over the training data of AV-HuBERT.
const MEAN: f64 = 0.421;
/// Their deviation.
const DEVIATION: f64 = 0.165;

/// Cuts the centre 88 x 88 pixels out of each frame and normalises them: (grey / 255 - 0.421) / 0.165.
///
/// AV-HuBERT's own pictures are 96 x 96 round an aligned mouth; readers of LRS2 take the raw frame of 160 x 160.
///
/// # Shapes
/// grey [frames, height, width] bytes, row-major -> [1, frames, 88, 88]
///
/// # Errors
/// [`ModelError::Parameter`] for frames that are too small, none at all, or another number of bytes.
///
/// # Source
/// av_hubert `utils.py` (`CenterCrop`, which rounds half to even, and `Normalize`).
pub fn mouth_tensor(
    grey: &[u8],
    frames: usize,
    height: usize,
    width: usize,
    device: &Device,
) -> ModelResult<Tensor<4>> {
    let fault =
        |name: &str, value: usize, allowed: String| Err(ModelError::parameter("mouth pictures", name, value, allowed));
    for (name, value) in [("height", height), ("width", width)] {
        if value < MOUTH_SIDE {
            return fault(name, value, format!("must be {MOUTH_SIDE} or more"));
        }
    }
    if frames == 0 {
        return fault("frames", frames, "must be 1 or more".into());
    }
    if Some(grey.len()) != frames.checked_mul(height).and_then(|rows| rows.checked_mul(width)) {
        return fault("bytes", grey.len(), format!("{frames} frames of {width} x {height} pixels have one byte each"));
    }
    let before = |size: usize| ((size - MOUTH_SIDE) as f64 / 2.0).round_ties_even() as usize;
    let (top, left) = (before(height), before(width));
    let mut values = Vec::with_capacity(frames * MOUTH_SIDE * MOUTH_SIDE);
    for frame in grey.chunks_exact(height * width) {
        for row in frame.chunks_exact(width).skip(top).take(MOUTH_SIDE) {
            let pixels = &row[left..left + MOUTH_SIDE];
            values.extend(pixels.iter().map(|pixel| ((f64::from(*pixel) / 255.0 - MEAN) / DEVIATION) as f32));
        }
    }
    let data = TensorData::new(values, [1, frames, MOUTH_SIDE, MOUTH_SIDE]);
    Ok(Tensor::from_data(data, (device, DType::F32)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_centre_is_cut_out_with_half_pixels_to_even() {
        let device = Device::default();
        // Of 91 columns (91 - 88) / 2 = 1.5 are left out, rounded to 2; of 89 rows 0.5, rounded to 0.
        let (height, width) = (89, 91);
        let grey: Vec<u8> = (0..height * width).map(|i| if i == 2 { 255 } else { 0 }).collect();
        let values = mouth_tensor(&grey, 1, height, width, &device).unwrap().into_data().try_to_vec::<f32>().unwrap();
        assert!((values[0] - 0.579 / 0.165).abs() < 1e-5);
        assert!(values[1..].iter().all(|value| (value + 0.421 / 0.165).abs() < 1e-5));
    }

    #[test]
    fn misfit_pictures_are_refused() {
        for (bytes, frames, height, width) in [(88 * 87, 1, 88, 87), (0, 0, 88, 88), (88 * 88, 2, 88, 88)] {
            let result = mouth_tensor(&vec![0; bytes], frames, height, width, &Device::default());
            assert!(matches!(result, Err(ModelError::Parameter { .. })), "{bytes} {frames} {height} {width}");
        }
    }
}
