//! Tracker.
use crate::{FaceBox, FaceError, FaceModels, Mesh};
use syncdiff_media::Frame;
/// How faces are followed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TrackerOptions { /// Most faces at a time
 pub max_faces: usize, /// The detector looks for newcomers every so many frames
 pub detect_every: usize, /// Longest gap after which a face gets its old number back
 pub reidentify_frames: usize }
impl Default for TrackerOptions { fn default() -> Self { TrackerOptions { max_faces: 4, detect_every: 12, reidentify_frames: 25 } } }
/// One face in one frame.
#[derive(Clone, Debug, PartialEq)]
pub struct TrackedFace { /// Stable number
 pub track: u32, /// Box round the landmarks
 pub face_box: FaceBox, /// 468 landmarks in frame px, and presence
 pub mesh: Mesh }
/// All faces in one frame.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FacesInFrame { /// By track number
 pub faces: Vec<TrackedFace>, /// This frame begins a new shot
 pub cut: bool }
/// Follows faces through the frames of a clip, pushed in order.
pub struct Tracker;
impl Tracker {
    /// Builds.
    pub fn new(_models: &FaceModels, _options: TrackerOptions) -> Result<Self, FaceError> { unimplemented!() }
    /// The next frame.
    pub fn push(&mut self, _frame: &Frame) -> Result<FacesInFrame, FaceError> { unimplemented!() }
}
