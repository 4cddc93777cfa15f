//! Warp.
use crate::Affine;
use syncdiff_media::Frame;
/// Cuts the aligned crop of `size` x `size` pixels: bilinear, area-averaged when the face is larger than the crop, edge pixels repeated outside.
pub fn warp(_frame: &Frame, _crop_from_frame: &Affine, _size: usize) -> Frame { unimplemented!() }
