//! What can go wrong in evaluation.

use syncdiff_face::FaceError;
use syncdiff_media::MediaError;
use syncdiff_model::ModelError;

/// Result of this crate.
pub type EvalResult<T> = Result<T, EvalError>;

/// What went wrong in evaluation.
#[derive(Debug, thiserror::Error)]
pub enum EvalError {
    /// A video cannot be read or a picture not written.
    #[error("eval: {0}")]
    Media(#[from] MediaError),
    /// The face models cannot be used.
    #[error("eval: {0}")]
    Face(#[from] FaceError),
    /// A network that judges cannot be used.
    #[error("eval: {0}")]
    Model(#[from] ModelError),
    /// Two pictures or clips cannot be compared.
    #[error("eval: {what}: {detail}")]
    Unequal {
        /// What is compared.
        what: &'static str,
        /// The sizes or counts.
        detail: String,
    },
    /// The caller asked to stop.
    #[error("eval: stopped on request")]
    Stopped,
}
