//! Sheets of held-out pictures in the run folder: how a model gets on, for the eye.

use crate::error::{TrainError, TrainResult};
use burn::tensor::Tensor;
use std::fs;
use std::path::Path;
use syncdiff_data::{Frame, write_png};
use syncdiff_model::generate::tensor_to_rgb;

/// Where they lie in the run folder.
const FOLDER: &str = "samples";

/// Fixed held-out pictures and what the model makes of them: the same ones at each checkpoint.
pub struct SampleSheet {
    /// What is true, [pictures, 3, side, side] in [-1, 1].
    pub truth: Tensor<4>,
    /// What the model makes, of the same shape.
    pub drawn: Tensor<4>,
}

impl SampleSheet {
    /// One picture: the true ones in a row, and below each what the model makes of it.
    ///
    /// # Shapes
    /// -> RGB, [2 side, pictures side, 3]
    fn frame(&self) -> Frame {
        let [width, height] = self.size();
        let side = height / 2;
        let mut data = vec![0; width * height * 3];
        for (row, pictures) in [&self.truth, &self.drawn].into_iter().enumerate() {
            for (column, picture) in pictures.clone().split(1, 0).into_iter().enumerate() {
                for (y, line) in tensor_to_rgb(picture).chunks_exact(3 * side).enumerate() {
                    let from = ((row * side + y) * width + column * side) * 3;
                    data[from..from + line.len()].copy_from_slice(line);
                }
            }
        }
        Frame { width, height, data }
    }

    /// Width and height of the sheet in pixels.
    pub(crate) fn size(&self) -> [usize; 2] {
        let [count, _, side, _] = self.truth.dims();
        [count * side, 2 * side]
    }

    /// Writes the sheet of a step into the run folder, and returns the bytes of the file.
    pub(crate) fn write(&self, run: &Path, step: u64) -> TrainResult<Vec<u8>> {
        let folder = run.join(FOLDER);
        fs::create_dir_all(&folder).map_err(|e| TrainError::io(&folder, e))?;
        let path = folder.join(format!("step-{step:06}.png"));
        write_png(&path, &self.frame()).map_err(|e| TrainError::io(&path, e))?;
        fs::read(&path).map_err(|e| TrainError::io(&path, e))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::Device;

    #[test]
    fn true_pictures_lie_above_what_is_made_of_them() {
        let device = Device::flex();
        let of = |values: [f32; 2]| {
            let each = values.map(|value| Tensor::<4>::full([1, 3, 4, 4], value, &device));
            Tensor::cat(each.to_vec(), 0)
        };
        let frame = SampleSheet { truth: of([-1.0, 1.0]), drawn: of([0.2, -0.6]) }.frame();
        assert_eq!((frame.width, frame.height), (8, 8));
        let at = |x: usize, y: usize| frame.data[(y * 8 + x) * 3];
        assert_eq!([at(0, 0), at(3, 3), at(4, 0), at(7, 3)], [0, 0, 255, 255]);
        assert_eq!([at(0, 4), at(3, 7), at(4, 4), at(7, 7)], [153, 153, 51, 51]);
    }
}
