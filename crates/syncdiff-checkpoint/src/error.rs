//! The crate's errors, split by whose fault the failure is.
//!
//! Inside the crate a [`Problem`] says what is wrong; at the border it becomes a [`CheckpointError`], which also
//! names the file.

use std::path::{Path, PathBuf};

/// Result of this crate.
pub type CheckpointResult<T> = Result<T, CheckpointError>;

/// Why a file could not be read as a checkpoint.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// The file is something else.
    #[error(
        "{}: not a checkpoint: {reason}; give a file that torch.save wrote (.pt, .pth, .ckpt, .model) or a \
         .safetensors file",
        path.display()
    )]
    NotACheckpoint {
        /// The file.
        path: PathBuf,
        /// What it looks like instead.
        reason: String,
    },
    /// The file is a checkpoint, but cut short or inconsistent.
    #[error("{}: damaged checkpoint: {reason}; copy or download the file again", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What does not hold.
        reason: String,
    },
    /// The file asks for more than any honest checkpoint does.
    #[error(
        "{}: refused: {budget} is {found}, more than the limit of {limit}; no honest checkpoint needs so much, do not \
         use files of this source",
        path.display()
    )]
    Refused {
        /// The file.
        path: PathBuf,
        /// What is counted, with its unit.
        budget: &'static str,
        /// The amount that the file asks for (where counting stops at the limit, the first amount beyond it).
        found: u64,
        /// The largest amount served.
        limit: u64,
    },
    /// The file is sound and uses something that this reader lacks.
    #[error("{}: not supported: {feature}; save it again with torch.save(model.state_dict(), ...)", path.display())]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// What it uses.
        feature: String,
    },
    /// A name that the caller asked for is not there.
    #[error("{}: no {what} called {name:?}; `syncdiff models import FILE --list` shows what is there", path.display())]
    Absent {
        /// The file.
        path: PathBuf,
        /// `tensor` or `mapping`.
        what: &'static str,
        /// The name.
        name: String,
    },
    /// The operating system refused.
    #[error("{}: cannot read: {source}; check the path and its rights", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
}

/// What is wrong, before it is known with which file.
#[derive(Debug)]
pub(crate) enum Problem {
    NotACheckpoint(String),
    Damaged(String),
    Refused { budget: &'static str, found: u64, limit: u64 },
    Unsupported(String),
    Absent { what: &'static str, name: String },
    Io(std::io::Error),
}

/// Result inside the crate.
pub(crate) type Outcome<T> = Result<T, Problem>;

impl Problem {
    pub(crate) fn damaged(reason: impl Into<String>) -> Self {
        Self::Damaged(reason.into())
    }

    pub(crate) fn at(self, path: &Path) -> CheckpointError {
        let path = path.to_path_buf();
        match self {
            Self::NotACheckpoint(reason) => CheckpointError::NotACheckpoint { path, reason },
            Self::Damaged(reason) => CheckpointError::Damaged { path, reason: shortened(reason) },
            Self::Refused { budget, found, limit } => CheckpointError::Refused { path, budget, found, limit },
            Self::Unsupported(feature) => CheckpointError::Unsupported { path, feature: shortened(feature) },
            Self::Absent { what, name } => CheckpointError::Absent { path, what, name: shortened(name) },
            Self::Io(source) => CheckpointError::Io { path, source },
        }
    }
}

/// Fails when `found` is beyond `limit`.
pub(crate) fn within(budget: &'static str, found: u64, limit: u64) -> Outcome<()> {
    if found > limit { Err(Problem::Refused { budget, found, limit }) } else { Ok(()) }
}

/// A message with names out of the file, which may be megabytes long.
fn shortened(text: String) -> String {
    const LONGEST: usize = 400;
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}
