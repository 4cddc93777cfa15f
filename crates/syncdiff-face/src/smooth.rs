//! Smooth.
use crate::{Affine, FaceBox};
use std::ops::Range;
/// How alignment is smoothed over time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SmoothOptions { /// Standard deviation of the two-sided kernel, frames
 pub sigma_frames: f64, /// Gaps up to this many frames are bridged; 0 = none
 pub bridge_frames: usize }
impl Default for SmoothOptions { fn default() -> Self { SmoothOptions { sigma_frames: 1.5, bridge_frames: 3 } } }
/// The smoothed alignment of one track over all frames of the clip.
#[derive(Clone, Debug)]
pub struct Alignment;
impl Alignment {
    /// Frames of the clip.
    pub fn num_frames(&self) -> usize { unimplemented!() }
    /// Map from frame px to crop px for a crop of `size`, `None` in a gap or outside the clip.
    pub fn crop_from_frame(&self, _frame: usize, _size: usize) -> Option<Affine> { unimplemented!() }
    /// Smoothed face box in frame px.
    pub fn face_box(&self, _frame: usize) -> Option<FaceBox> { unimplemented!() }
    /// Frame ranges without this face, in order.
    pub fn gaps(&self) -> Vec<Range<usize>> { unimplemented!() }
    /// Frame ranges with this face and without a cut inside, in order.
    pub fn segments(&self) -> Vec<Range<usize>> { unimplemented!() }
    /// Weight of the generated face: 0 in a gap, rising to 1 within `fade_frames` from the edge of a gap (not at the clip's ends or cuts).
    pub fn opacity(&self, _frame: usize, _fade_frames: usize) -> f32 { unimplemented!() }
}
