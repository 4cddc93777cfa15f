//! What can go wrong in training, split by whose fault it is.

use std::path::{Path, PathBuf};
use syncdiff_model::ModelError;

/// Result of this crate.
pub type TrainResult<T> = Result<T, TrainError>;

/// What went wrong in training.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// The prepared data cannot be used.
    #[error("train: {0}")]
    Data(#[from] syncdiff_data::DataError),
    /// A network or its weights cannot be used.
    #[error("train: {0}")]
    Model(#[from] ModelError),
    /// A setting is out of range or does not fit the run.
    #[error("train: {name} = {value}: {allowed}")]
    Parameter {
        /// Name as in the configuration.
        name: &'static str,
        /// The value given.
        value: String,
        /// What would be allowed.
        allowed: String,
    },
    /// The loss or the gradients are not finite; the last good checkpoint stays.
    #[error(
        "train: step {step}: {what} is {value}. The checkpoints before this step are kept; look at its batch in {batch}, \
         or lower the learning rate"
    )]
    NotFinite {
        /// Step at which it happened.
        step: u64,
        /// "loss" or "gradient norm".
        what: &'static str,
        /// The value.
        value: f32,
        /// Where the step's batch was written.
        batch: PathBuf,
    },
    /// The run was asked to stop; its checkpoint is written.
    #[error("train: stopped at step {step} of {steps}; the same command goes on from there")]
    Stopped {
        /// Steps done.
        step: u64,
        /// Steps of the whole run.
        steps: u64,
    },
    /// Another process of the same run has ended, or is silent.
    #[error(
        "train: {at}: rank {rank} of {processes} {reason}; waited {seconds:.0} s for {path}. The checkpoints are kept: \
         start all {processes} processes again with the same arguments and they go on from the newest (--patience sets \
         how long a silence may last)"
    )]
    Partner {
        /// The other process.
        rank: usize,
        /// Processes of the run.
        processes: usize,
        /// What is known of it.
        reason: String,
        /// What this process was doing: "step 12", "before the first step".
        at: String,
        /// What was waited for.
        path: PathBuf,
        /// Seconds of waiting.
        seconds: f64,
    },
    /// A file of the run folder cannot be written or read.
    #[error("train: {path}: {reason}")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The operating system's or the reader's words.
        reason: String,
    },
}

impl TrainError {
    pub(crate) fn io(path: &Path, reason: impl std::fmt::Display) -> Self {
        Self::Io { path: path.to_path_buf(), reason: reason.to_string() }
    }
}
