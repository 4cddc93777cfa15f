//! Mesh.
use crate::{FaceError, FaceModels, Detection};
use syncdiff_media::Frame;
/// Points of a mesh.
pub const NUM_LANDMARKS: usize = 468;
/// A turned square that the mesh network looks at.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Roi { /// Centre, frame pixels
 pub centre: [f64; 2], /// Side, frame pixels
 pub side: f64, /// Radians
 pub angle: f64 }
impl Roi {
    /// From a detection
    pub fn from_detection(_d: &Detection) -> Roi { unimplemented!() }
    /// From the landmarks of the last frame.
    pub fn from_mesh(_m: &Mesh) -> Roi { unimplemented!() }
}
/// 468 landmarks of one face.
#[derive(Clone, Debug, PartialEq)]
pub struct Mesh { /// x, y in frame pixels, z in the same unit (smaller is nearer).
 pub points: Vec<[f32; 3]>, /// Logit that a face is there.
 pub presence: f32 }
/// The mesh network with its buffers.
pub struct MeshNet;
impl MeshNet {
    /// Builds
    pub fn new(_models: &FaceModels) -> Result<Self, FaceError> { unimplemented!() }
    /// Landmarks of the face in the region.
    pub fn run(&mut self, _frame: &Frame, _roi: &Roi) -> Result<Mesh, FaceError> { unimplemented!() }
}
