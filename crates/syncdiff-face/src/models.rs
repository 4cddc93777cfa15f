//! Model files.
use crate::FaceError;
use std::path::Path;
/// PyPI package.
pub const WHEEL: &str = "mediapipe";
/// PyPI version.
pub const WHEEL_VERSION: &str = "0.10.14";
/// One model file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ModelFile { /// File name in the model folder.
 pub name: &'static str, /// Path inside of the wheel.
 pub wheel_member: &'static str, /// Bytes
 pub size: u64, /// Lower-case hex
 pub sha256: &'static str }
/// The three.
pub const MODEL_FILES: [ModelFile; 3] = [
    ModelFile { name: "face_detection_short_range.tflite", wheel_member: "mediapipe/modules/face_detection/face_detection_short_range.tflite", size: 229_714, sha256: "bbff11cebd1eb27a1e004cae0b0e63ec8c551cbf34a4451148b4908b8db3eca8" },
    ModelFile { name: "face_detection_full_range_sparse.tflite", wheel_member: "mediapipe/modules/face_detection/face_detection_full_range_sparse.tflite", size: 676_746, sha256: "2c3728e6da56f21e21a320433396fb06d40d9088f2247c05e5635a688d45dfe1" },
    ModelFile { name: "face_landmark.tflite", wheel_member: "mediapipe/modules/face_landmark/face_landmark.tflite", size: 1_242_398, sha256: "1055cb9d4a9ca8b8c688902a3a5194311138ba256bcc94e336d8373a5f30c814" },
];
impl ModelFile {
    /// Size and SHA-256 of some bytes.
    pub fn verify_bytes(&self, _path: &Path, _bytes: &[u8]) -> Result<(), FaceError> { unimplemented!() }
    /// The same of the file in `dir`
    pub fn verify(&self, _dir: &Path) -> Result<(), FaceError> { unimplemented!() }
}
/// The parsed models; cheap to clone and shared by threads.
#[derive(Clone)]
pub struct FaceModels;
impl FaceModels {
    /// Loads and checks.
    pub fn load(_dir: &Path) -> Result<Self, FaceError> { unimplemented!() }
}
