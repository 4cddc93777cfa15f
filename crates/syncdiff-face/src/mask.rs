//! Masks.
use crate::{Affine, FaceBox, FaceError};
use syncdiff_media::Frame;
/// Kind of mask.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KeepMaskKind { /// `face_box_lower_half` (paper)
 FaceBoxLowerHalf, /// `aligned_fixed`
 #[default] AlignedFixed }
/// Name of the default.
pub const DEFAULT_KEEP_MASK: &str = "aligned_fixed";
impl std::str::FromStr for KeepMaskKind { type Err = FaceError; fn from_str(_: &str) -> Result<Self, FaceError> { unimplemented!() } }
impl std::fmt::Display for KeepMaskKind { fn fmt(&self, _: &mut std::fmt::Formatter<'_>) -> std::fmt::Result { unimplemented!() } }
/// 1 where pixels of the crop are kept, 0 where they are hidden; `size * size`, row-major.
#[derive(Clone, Debug, PartialEq)]
pub struct KeepMask { /// Side
 pub size: usize, /// 0 or 1
 pub keep: Vec<u8> }
impl KeepMask {
    /// The fixed shape.
    pub fn aligned_fixed(_size: usize) -> Self { unimplemented!() }
    /// Lower half of the box.
    pub fn face_box_lower_half(_face_box: &FaceBox, _crop_from_frame: &Affine, _size: usize) -> Self { unimplemented!() }
    /// By kind
    pub fn of_kind(_kind: KeepMaskKind, _face_box: &FaceBox, _crop_from_frame: &Affine, _size: usize) -> Self { unimplemented!() }
    /// Sets hidden pixels to 0.
    pub fn apply(&self, _crop: &mut Frame) -> Result<(), FaceError> { unimplemented!() }
}
