//! The model files: which they are, whether they are whole, and the networks in them.

use crate::FaceError;
use crate::tflite::{Interpreter, Model, NetworkCost};
use sha2::{Digest, Sha256};
use std::path::Path;

/// Name of the PyPI package that carries the models (Apache-2.0).
pub const WHEEL: &str = "mediapipe";

/// The version of [`WHEEL`] whose files are known here.
pub const WHEEL_VERSION: &str = "0.10.14";

/// One model file and what it must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ModelFile {
    /// File name in the model folder.
    pub name: &'static str,
    /// Path inside the wheel, which is a zip archive.
    pub wheel_member: &'static str,
    /// Length in bytes.
    pub size: u64,
    /// Lower-case hexadecimal digest.
    pub sha256: &'static str,
}

/// The files that [`FaceModels::load`] wants in its folder: short-range detector, full-range
/// detector, face mesh.
pub const MODEL_FILES: [ModelFile; 3] = [
    ModelFile {
        name: "face_detection_short_range.tflite",
        wheel_member: "mediapipe/modules/face_detection/face_detection_short_range.tflite",
        size: 229_714,
        sha256: "bbff11cebd1eb27a1e004cae0b0e63ec8c551cbf34a4451148b4908b8db3eca8",
    },
    ModelFile {
        name: "face_detection_full_range_sparse.tflite",
        wheel_member: "mediapipe/modules/face_detection/face_detection_full_range_sparse.tflite",
        size: 676_746,
        sha256: "2c3728e6da56f21e21a320433396fb06d40d9088f2247c05e5635a688d45dfe1",
    },
    ModelFile {
        name: "face_landmark.tflite",
        wheel_member: "mediapipe/modules/face_landmark/face_landmark.tflite",
        size: 1_242_398,
        sha256: "1055cb9d4a9ca8b8c688902a3a5194311138ba256bcc94e336d8373a5f30c814",
    },
];

impl ModelFile {
    /// Checks length and digest of the bytes; `path` is used in the message.
    ///
    /// # Errors
    /// [`FaceError::ModelMismatch`].
    pub fn verify_bytes(&self, path: &Path, bytes: &[u8]) -> Result<(), FaceError> {
        let mismatch = |detail| Err(FaceError::ModelMismatch { path: path.to_owned(), detail });
        if bytes.len() as u64 != self.size {
            return mismatch(format!("{} bytes instead of {}", bytes.len(), self.size));
        }
        let mut found = String::with_capacity(64);
        for byte in Sha256::digest(bytes) {
            found.push_str(&format!("{byte:02x}"));
        }
        if found != self.sha256 {
            return mismatch(format!("SHA-256 {found} instead of {}", self.sha256));
        }
        Ok(())
    }

    /// Checks the file in the folder `dir`.
    ///
    /// # Errors
    /// As [`FaceModels::load`].
    pub fn verify(&self, dir: &Path) -> Result<(), FaceError> {
        self.read(dir).map(|_| ())
    }

    fn read(&self, dir: &Path) -> Result<Vec<u8>, FaceError> {
        let path = dir.join(self.name);
        let bytes = std::fs::read(&path).map_err(|source| {
            if source.kind() == std::io::ErrorKind::NotFound {
                FaceError::ModelMissing { path: path.clone() }
            } else {
                FaceError::Read { path: path.clone(), source }
            }
        })?;
        self.verify_bytes(&path, &bytes)?;
        Ok(bytes)
    }

    fn model(&self, dir: &Path) -> Result<Model, FaceError> {
        Model::parse(self.name, &self.read(dir)?)
    }

    /// What the network in the folder `dir` costs, and the height and width of the picture that it is shown.
    ///
    /// # Errors
    /// As [`FaceModels::load`].
    pub fn cost(&self, dir: &Path) -> Result<(NetworkCost, [usize; 2]), FaceError> {
        let model = self.model(dir)?;
        let side = |axis: usize| model.input_shape().get(axis).copied().unwrap_or(0);
        Ok((model.cost(), [side(1), side(2)]))
    }

    fn network(&self, dir: &Path) -> Result<Interpreter, FaceError> {
        Interpreter::new(&self.model(dir)?)
    }
}

/// The three networks with their packed weights; a clone shares the weights.
#[derive(Clone, Debug)]
pub struct FaceModels {
    pub(crate) short_range: Interpreter,
    pub(crate) full_range: Interpreter,
    pub(crate) mesh: Interpreter,
}

impl FaceModels {
    /// Loads the files of [`MODEL_FILES`] from the folder `dir` after checking their digests.
    ///
    /// # Errors
    /// [`FaceError::ModelMissing`], [`FaceError::ModelMismatch`] and [`FaceError::BadModel`] (all
    /// of fault `Weights`), [`FaceError::Read`] if a file that is there cannot be read.
    pub fn load(dir: &Path) -> Result<Self, FaceError> {
        let [short_range, full_range, mesh] = &MODEL_FILES;
        Ok(FaceModels {
            short_range: short_range.network(dir)?,
            full_range: full_range.network(dir)?,
            mesh: mesh.network(dir)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Fault;

    #[test]
    fn a_missing_file_names_the_remedy() {
        let error = FaceModels::load(Path::new("no-such-folder")).unwrap_err();
        assert_eq!(error.fault(), Fault::Weights);
        assert!(error.to_string().contains("syncdiff models pull"), "{error}");
    }

    #[test]
    fn another_file_is_refused() {
        let error = MODEL_FILES[0].verify_bytes(Path::new("x.tflite"), b"TFL3").unwrap_err();
        assert!(error.to_string().contains("4 bytes instead of 229714"), "{error}");
        let error = MODEL_FILES[0].verify_bytes(Path::new("x"), &vec![0; 229_714]).unwrap_err();
        assert!(error.to_string().contains("SHA-256"), "{error}");
    }
}
