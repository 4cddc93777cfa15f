//! Detector.
use crate::{FaceBox, FaceError, FaceModels};
use syncdiff_media::Frame;
/// Which detector network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DetectorKind { /// 128
 ShortRange, /// 192
 FullRange }
/// One detected face.
#[derive(Clone, Debug, PartialEq)]
pub struct Detection { /// Box in frame pixels
 pub face_box: FaceBox, /// Six key points in frame pixels: right eye, left eye, nose tip, mouth, right ear, left ear.
 pub keypoints: [[f32; 2]; 6], /// In [0, 1].
 pub score: f32 }
/// A detector network with its buffers.
pub struct Detector;
impl Detector {
    /// Builds.
    pub fn new(_models: &FaceModels, _kind: DetectorKind) -> Result<Self, FaceError> { unimplemented!() }
    /// All faces, best first.
    pub fn detect(&mut self, _frame: &Frame) -> Result<Vec<Detection>, FaceError> { unimplemented!() }
}
