//! What can go wrong with models, parameters and pictures of faces, sorted by whose fault it is.

use std::path::PathBuf;

/// Whose fault an error is; the binary turns it into its exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fault {
    /// A parameter that cannot be served (exit code 2).
    Usage,
    /// The clip holds no face that fits the request (exit code 4).
    NoFace,
    /// Model files that are missing or are not what they should be (exit code 5).
    Weights,
    /// A failure of the operating system (exit code 7).
    Io,
    /// A defect of our own (exit code 1).
    Internal,
}

impl Fault {
    /// The exit code that the command line promises for this fault.
    pub fn exit_code(self) -> u8 {
        match self {
            Fault::Usage => 2,
            Fault::NoFace => 4,
            Fault::Weights => 5,
            Fault::Io => 7,
            Fault::Internal => 1,
        }
    }
}

/// Every error of this crate. Messages name stage, file or frame, value, cause and remedy.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FaceError {
    /// A face model is not on disk.
    #[error("face models: {path} is missing; run `syncdiff models pull` to fetch the face models")]
    ModelMissing {
        /// The file looked for.
        path: PathBuf,
    },
    /// A face model on disk is not the file we know.
    #[error("face models: {path} is not the expected file ({detail}); delete it and run `syncdiff models pull`")]
    ModelMismatch {
        /// The file.
        path: PathBuf,
        /// Expected and found size or digest.
        detail: String,
    },
    /// The bytes of a model are damaged or use something we do not run.
    #[error("face models: {model}: {detail}; delete the file and run `syncdiff models pull`")]
    BadModel {
        /// Name of the model.
        model: String,
        /// What is wrong and where.
        detail: String,
    },
    /// The operating system refused.
    #[error("face models: cannot read {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Cause.
        source: std::io::Error,
    },
    /// A face choice that cannot be parsed.
    #[error("face choice: {value:?}: {detail}; write largest, left, right, center, id:N or point:FRAME,X,Y")]
    BadChoice {
        /// What was given.
        value: String,
        /// What is wrong with it.
        detail: String,
    },
    /// A well-formed choice that no track fits.
    #[error("face choice: {choice}: {detail}")]
    NoSuchFace {
        /// The choice.
        choice: String,
        /// Why nothing fits, and what there is.
        detail: String,
    },
    /// A parameter out of range.
    #[error("{stage}: {detail}")]
    Parameter {
        /// Where.
        stage: &'static str,
        /// Value and allowed range.
        detail: String,
    },
    /// A mistake in the calling code or in this crate.
    #[error("{stage}: {detail}; this is a defect of syncdiff")]
    Internal {
        /// Where.
        stage: &'static str,
        /// What.
        detail: String,
    },
}

impl FaceError {
    /// Whose fault this is.
    pub fn fault(&self) -> Fault {
        match self {
            FaceError::ModelMissing { .. } | FaceError::ModelMismatch { .. } | FaceError::BadModel { .. } => {
                Fault::Weights
            }
            FaceError::Read { .. } => Fault::Io,
            FaceError::BadChoice { .. } | FaceError::Parameter { .. } => Fault::Usage,
            FaceError::NoSuchFace { .. } => Fault::NoFace,
            FaceError::Internal { .. } => Fault::Internal,
        }
    }
}
