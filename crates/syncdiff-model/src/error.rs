//! The crate's one error type, split by whose fault the failure is, so that the binary can pick an exit code
//! and the user can see what to do next.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use syncdiff_checkpoint::CheckpointError;

/// Result of this crate.
pub type ModelResult<T> = Result<T, ModelError>;

/// Whose fault a [`ModelError`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fault {
    /// A weights file or folder is absent, damaged, or made for another model.
    Weights,
    /// A value that the caller chose is out of range or does not fit another.
    Parameter,
    /// A value is valid but larger than the program is willing to handle.
    Limit,
    /// The operating system refused a read or a write.
    Io,
    /// A defect of the program itself.
    Internal,
}

/// What went wrong in a network, in the diffusion maths or with weights.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// One weights file or folder cannot be used.
    #[error("weights: {path}: {reason}. {remedy}")]
    Weights {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
        /// What the user can do.
        remedy: String,
    },
    /// The tensors of a file and the parameters of the model differ; every difference is listed.
    #[error("weights: {}", describe_mismatch(.source_name, .missing, .extra, .misshapen))]
    WeightsMismatch {
        /// Where the tensors came from: a path, or a word for a map in memory.
        source_name: String,
        /// Names that the model needs and the file lacks.
        missing: Vec<String>,
        /// Names that the file holds and the model does not know.
        extra: Vec<String>,
        /// `name: file has [..], model needs [..]` (or an element type that cannot be read as a number).
        misshapen: Vec<String>,
    },
    /// A checkpoint of another project cannot be read.
    #[error("import: {0}")]
    Checkpoint(#[from] CheckpointError),
    /// A chosen value is out of range.
    #[error("{stage}: {name} = {value}, but {allowed}")]
    Parameter {
        /// Part of the program.
        stage: &'static str,
        /// Name of the value, as in the configuration.
        name: String,
        /// The value itself.
        value: String,
        /// What would be allowed, and how to get there.
        allowed: String,
    },
    /// A valid value is too large.
    #[error("{stage}: {name} is {value}, more than the limit of {limit}. {remedy}")]
    Limit {
        /// Part of the program.
        stage: &'static str,
        /// What is counted, with its unit.
        name: String,
        /// The value found.
        value: String,
        /// The largest value handled.
        limit: String,
        /// What the user can do.
        remedy: String,
    },
    /// The operating system refused.
    #[error("weights: cannot {action} {path}: {source}")]
    Io {
        /// What was tried: `read`, `write`, ..
        action: &'static str,
        /// On which file or folder.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// A defect of the program.
    #[error("{stage}: internal error: {reason} (please report this)")]
    Internal {
        /// Part of the program.
        stage: &'static str,
        /// What did not hold.
        reason: String,
    },
}

impl ModelError {
    /// Whose fault this is.
    pub fn fault(&self) -> Fault {
        match self {
            Self::Weights { .. } | Self::WeightsMismatch { .. } => Fault::Weights,
            Self::Checkpoint(CheckpointError::Io { .. }) => Fault::Io,
            Self::Checkpoint(CheckpointError::Refused { .. }) => Fault::Limit,
            Self::Checkpoint(_) => Fault::Weights,
            Self::Parameter { .. } => Fault::Parameter,
            Self::Limit { .. } => Fault::Limit,
            Self::Io { .. } => Fault::Io,
            Self::Internal { .. } => Fault::Internal,
        }
    }

    pub(crate) fn weights(path: &Path, reason: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::Weights { path: path.to_path_buf(), reason: reason.into(), remedy: remedy.into() }
    }

    pub(crate) fn parameter(
        stage: &'static str,
        name: impl Into<String>,
        value: impl ToString,
        allowed: impl Into<String>,
    ) -> Self {
        Self::Parameter { stage, name: name.into(), value: value.to_string(), allowed: allowed.into() }
    }

    pub(crate) fn io(action: &'static str, path: &Path, source: std::io::Error) -> Self {
        Self::Io { action, path: path.to_path_buf(), source }
    }

    pub(crate) fn internal(stage: &'static str, reason: impl Into<String>) -> Self {
        Self::Internal { stage, reason: reason.into() }
    }
}

/// Counts and remedy first, then every name on a line of its own.
fn describe_mismatch(source_name: &str, missing: &[String], extra: &[String], misshapen: &[String]) -> String {
    let kinds = [("missing", missing), ("extra", extra), ("misshapen", misshapen)];
    let kinds = kinds.into_iter().filter(|(_, names)| !names.is_empty());
    let counts: Vec<String> = kinds.clone().map(|(label, names)| format!("{} {label}", names.len())).collect();
    let mut text = format!(
        "{source_name} does not fit the network ({} tensors): use weights that belong to this preset, configuration \
         or layout",
        counts.join(", ")
    );
    for (label, names) in kinds {
        for name in names {
            let _ = write!(text, "\n  {label}: {}", name.escape_debug());
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mismatch_lists_everything_once_and_is_the_weights_fault() {
        let error = ModelError::WeightsMismatch {
            source_name: "model.safetensors".into(),
            missing: (0..30).map(|i| format!("m{i}")).collect(),
            extra: vec!["e".into()],
            misshapen: vec!["s: file has [1], model needs [2]".into()],
        };
        let text = error.to_string();
        assert_eq!(error.fault(), Fault::Weights);
        for part in ["30 missing", "missing: m29", "extra: e", "misshapen: s: file has [1], model needs [2]", "preset"]
        {
            assert!(text.contains(part), "{part:?} not in {text:?}");
        }
    }
}
