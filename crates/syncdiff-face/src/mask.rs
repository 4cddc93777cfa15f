//! Which pixels of a crop the model sees: everything but the region of the mouth.

use crate::{Affine, FaceBox, FaceError};
use std::fmt;
use std::str::FromStr;
use syncdiff_media::Frame;

/// How the hidden region is made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum KeepMaskKind {
    /// The lower half of the detected face box, as in the paper. It follows the box, so its outline
    /// tells a little about the mouth.
    FaceBoxLowerHalf,
    /// A fixed shape on the aligned face, which tells nothing about the mouth.
    #[default]
    AlignedFixed,
}

/// Name of the default kind.
pub const DEFAULT_KEEP_MASK: &str = "aligned_fixed";

impl FromStr for KeepMaskKind {
    type Err = FaceError;

    fn from_str(value: &str) -> Result<Self, FaceError> {
        match value {
            "face_box_lower_half" => Ok(KeepMaskKind::FaceBoxLowerHalf),
            DEFAULT_KEEP_MASK => Ok(KeepMaskKind::AlignedFixed),
            _ => Err(FaceError::Parameter {
                stage: "keep mask",
                detail: format!("{value:?} is not one of aligned_fixed, face_box_lower_half"),
            }),
        }
    }
}

impl fmt::Display for KeepMaskKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            KeepMaskKind::FaceBoxLowerHalf => "face_box_lower_half",
            KeepMaskKind::AlignedFixed => DEFAULT_KEEP_MASK,
        })
    }
}

/// The fixed shape in unit crop coordinates: from below the eyes to below the chin, also when the
/// mouth is wide open. On the 64-cell grid, so that sizes that are multiples of 64 cut no pixel.
const HALF_WIDTH: f64 = 23.0 / 64.0;
const TOP: f64 = 30.0 / 64.0;
const BOTTOM: f64 = 63.0 / 64.0;
/// Radius of the rounded upper corners.
const CORNER: f64 = 0.18;

/// `across` is the distance from the middle line.
fn in_fixed_shape(across: f64, v: f64) -> bool {
    if across > HALF_WIDTH || !(TOP..BOTTOM).contains(&v) {
        return false;
    }
    let dx = (across - (HALF_WIDTH - CORNER)).max(0.0);
    let dy = (TOP + CORNER - v).max(0.0);
    dx.hypot(dy) <= CORNER
}

/// 1 where pixels of a crop are kept, 0 where they are hidden from the model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeepMask {
    /// Side of the crop in pixels.
    pub size: usize,
    /// `size * size` values of 0 or 1, row-major.
    pub keep: Vec<u8>,
}

impl KeepMask {
    fn hiding(size: usize, hidden: impl Fn(f64, f64) -> bool) -> Self {
        let mut keep = Vec::with_capacity(size * size);
        for y in 0..size {
            keep.extend((0..size).map(|x| u8::from(!hidden(x as f64, y as f64))));
        }
        KeepMask { size, keep }
    }

    /// The fixed shape for aligned crops of `size` pixels.
    pub fn aligned_fixed(size: usize) -> Self {
        let side = size as f64;
        KeepMask::hiding(size, |x, y| in_fixed_shape((2.0 * x + 1.0 - side).abs() / (2.0 * side), (y + 0.5) / side))
    }

    /// Hides the lower half of a face box given in frame pixels.
    pub fn face_box_lower_half(face_box: &FaceBox, crop_from_frame: &Affine, size: usize) -> Self {
        let Some(frame_from_crop) = crop_from_frame.invert() else {
            return KeepMask::hiding(size, |_, _| false);
        };
        let lower = FaceBox { y0: face_box.centre()[1], ..*face_box };
        KeepMask::hiding(size, |x, y| {
            let [fx, fy] = frame_from_crop.apply([x, y]);
            lower.contains(fx as f32, fy as f32)
        })
    }

    /// The mask of the given kind; the fixed shape needs neither box nor map.
    pub fn of_kind(kind: KeepMaskKind, face_box: &FaceBox, crop_from_frame: &Affine, size: usize) -> Self {
        match kind {
            KeepMaskKind::AlignedFixed => KeepMask::aligned_fixed(size),
            KeepMaskKind::FaceBoxLowerHalf => KeepMask::face_box_lower_half(face_box, crop_from_frame, size),
        }
    }

    /// Sets hidden pixels to 0, which is -1 for the model.
    ///
    /// # Errors
    /// [`FaceError::Internal`] if the crop has another size.
    pub fn apply(&self, crop: &mut Frame) -> Result<(), FaceError> {
        if (crop.width, crop.height) != (self.size, self.size) {
            return Err(FaceError::Internal {
                stage: "keep mask",
                detail: format!("a crop of {}x{} for a mask of {}", crop.width, crop.height, self.size),
            });
        }
        for (pixel, &keep) in crop.data.as_chunks_mut::<3>().0.iter_mut().zip(&self.keep) {
            *pixel = pixel.map(|v| v * keep);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fixed_shape_hides_the_mouth_and_keeps_the_eyes() {
        for size in [64, 96, 128, 256] {
            let mask = KeepMask::aligned_fixed(size);
            let at = |u: f64, v: f64| mask.keep[(v * size as f64) as usize * size + (u * size as f64) as usize];
            for (u, v) in [(0.5, 0.62), (0.35, 0.62), (0.65, 0.62), (0.5, 0.95), (0.2, 0.9)] {
                assert_eq!(at(u, v), 0, "{u} {v} at {size}");
            }
            for (u, v) in [(0.275, 0.27), (0.725, 0.3), (0.5, 0.42), (0.1, 0.8), (0.16, 0.49)] {
                assert_eq!(at(u, v), 1, "{u} {v} at {size}");
            }
            for row in mask.keep.chunks(size) {
                assert!(row.iter().eq(row.iter().rev()), "not symmetric at {size}");
            }
        }
    }

    #[test]
    fn the_lower_half_follows_box_and_map() {
        let face_box = FaceBox { x0: 10.0, y0: 20.0, x1: 29.0, y1: 59.0 };
        let mask = KeepMask::face_box_lower_half(&face_box, &Affine::IDENTITY, 64);
        assert_eq!([mask.keep[45 * 64 + 20], mask.keep[30 * 64 + 20], mask.keep[45 * 64 + 40]], [0, 1, 1]);
        assert_eq!(mask.keep.iter().filter(|&&k| k == 0).count(), 20 * 20);
    }

    #[test]
    fn hidden_pixels_become_black() {
        let mut crop = Frame::filled(64, 64, [9; 3]);
        KeepMask::aligned_fixed(64).apply(&mut crop).unwrap();
        assert_eq!((crop.pixel(32, 40), crop.pixel(32, 10)), ([0; 3], [9; 3]));
        assert!(KeepMask::aligned_fixed(32).apply(&mut crop).is_err());
    }

    #[test]
    fn names_are_read_and_written() {
        for name in ["aligned_fixed", "face_box_lower_half"] {
            assert_eq!(name.parse::<KeepMaskKind>().unwrap().to_string(), name);
        }
        assert!("mouth".parse::<KeepMaskKind>().is_err());
    }
}
