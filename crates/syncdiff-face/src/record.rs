//! Record.
use crate::{Affine, FaceBox, FaceError, Mesh};
/// What is kept of one face in one frame: 44 bytes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FaceRecord { /// Frame pixel under the middle of the template's rigid points
 pub centre: [f32; 2], /// Frame pixels for the side of the crop
 pub side_px: f32, /// Radians, how far the face is turned in the frame
 pub angle: f32, /// Box round all landmarks
 pub face_box: FaceBox, /// Inner-lip opening over eye distance
 pub lip_opening: f32, /// Outer eye corners, px
 pub eye_distance_px: f32, /// Logit
 pub presence: f32 }
impl FaceRecord {
    /// From a mesh
    pub fn from_mesh(_mesh: &Mesh) -> Result<Self, FaceError> { unimplemented!() }
    /// The unsmoothed map.
    pub fn crop_from_frame(&self, _size: usize) -> Affine { unimplemented!() }
}
