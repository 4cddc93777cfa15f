//! Paste.
use crate::{Affine, FaceError, KeepMask};
use syncdiff_media::Frame;
/// Feathered weights in the crop: 0 at and outside the hidden region's edge, 1 well inside.
#[derive(Clone, Debug, PartialEq)]
pub struct PasteMask { size: usize, weight: Vec<f32> }
impl PasteMask {
    /// `feather` = width of the ramp as a part of the crop side (0.04 is a good value).
    pub fn from_keep(_keep: &KeepMask, _feather: f64) -> Self { unimplemented!() }
    /// Side of the crop in pixels.
    pub fn size(&self) -> usize { self.size }
    /// Row-major weights in [0, 1].
    pub fn weight(&self) -> &[f32] { &self.weight }
}
/// Colour correction at the seam, smoothed over time.
#[derive(Clone, Debug, Default)]
pub struct ColourMatch;
impl ColourMatch {
    /// Fresh
    pub fn new() -> Self { ColourMatch }
    /// Forget (after a cut or a gap).
    pub fn reset(&mut self) {}
}
/// The half-open pixel rectangle that [`paste_back`] may have changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Touched { /// left
 pub x0: usize, /// top
 pub y0: usize, /// right
 pub x1: usize, /// bottom
 pub y1: usize }
/// Puts a generated crop into the frame.
pub fn paste_back(_frame: &mut Frame, _generated: &Frame, _crop_from_frame: &Affine, _mask: &PasteMask, _colour: Option<&mut ColourMatch>, _opacity: f32) -> Result<Touched, FaceError> { unimplemented!() }
/// Exactly the pixels with weight > 0, row-major over the frame.
pub fn touched_pixels(_width: usize, _height: usize, _crop_from_frame: &Affine, _mask: &PasteMask) -> Result<Vec<bool>, FaceError> { unimplemented!() }
