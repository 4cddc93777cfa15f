//! One error for the whole program: what failed, whose fault it is, and the exit code that says so.

use std::any::Any;
use std::path::{Path, PathBuf};

use syncdiff_data::DataError;
use syncdiff_eval::EvalError;
use syncdiff_face::FaceError;
use syncdiff_media::MediaError;
use syncdiff_model::ModelError;
use syncdiff_train::TrainError;

/// Result of the pipeline.
pub type Outcome<T> = Result<T, Error>;

/// The words of a panic, where it has any.
pub fn panic_text(panic: &(dyn Any + Send)) -> Option<&str> {
    panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied())
}

/// Everything that can end a command early.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// From the room of files, frames and sound.
    #[error(transparent)]
    Media(#[from] MediaError),
    /// From the room of faces.
    #[error(transparent)]
    Face(#[from] FaceError),
    /// From the room of networks.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// From the room of figures.
    #[error(transparent)]
    Eval(#[from] EvalError),
    /// From the room of training data.
    #[error(transparent)]
    Data(#[from] DataError),
    /// From the room of training.
    #[error(transparent)]
    Train(#[from] TrainError),
    /// An argument that cannot be served.
    #[error("arguments: {what}; {remedy}")]
    Usage {
        /// The argument, its value, and why it does not fit.
        what: String,
        /// What to do.
        remedy: String,
    },
    /// An input that can be read but not used.
    #[error("{stage}: {path:?}: {what}; {remedy}")]
    Input {
        /// What was being done.
        stage: &'static str,
        /// The file.
        path: PathBuf,
        /// The value found and the allowed range.
        what: String,
        /// What to do.
        remedy: &'static str,
    },
    /// No frame of the clip shows a face.
    #[error(
        "faces: {path:?}: no face was found in any of its {frames} frames; give a clip in which a face is seen from \
         the front or half side, at least 40 pixels wide"
    )]
    NoFace {
        /// The clip.
        path: PathBuf,
        /// How many frames were looked at.
        frames: usize,
    },
    /// Weights or face models that are not there.
    #[error("{stage}: {what}; {remedy}")]
    Weights {
        /// What was being done.
        stage: &'static str,
        /// What is missing or wrong, and where.
        what: String,
        /// What to do.
        remedy: String,
    },
    /// The machine has less free memory than the model needs.
    #[error(
        "memory: {path:?} needs about {needed_mib} MiB, {free_mib} MiB are free; close other programs, or choose a \
         smaller preset such as lite"
    )]
    Memory {
        /// Folder of the weights.
        path: PathBuf,
        /// What the model needs.
        needed_mib: u64,
        /// What is free.
        free_mib: u64,
    },
    /// A back end found no memory, even for one picture at a time.
    #[error(
        "memory: {detail}; close other programs that use this device, give --batch 1, or choose a smaller preset such \
         as lite or --device cpu"
    )]
    OutOfMemory {
        /// The back end's own words.
        detail: String,
    },
    /// The operating system refused.
    #[error("{stage}: {path:?}: {source}; {remedy}")]
    Io {
        /// What was being done.
        stage: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
        /// What to do.
        remedy: String,
    },
    /// The user asked to stop.
    #[error("cancelled: stopped on request; nothing was written")]
    Cancelled,
    /// A defect of the program.
    #[error("{stage}: internal error: {detail}; please report this with the command line")]
    Internal {
        /// What was being done.
        stage: &'static str,
        /// What did not hold.
        detail: String,
    },
}

impl Error {
    /// The exit code that the command line promises: 1 internal, 2 usage, 3 bad input media, 4 no face, 5 weights,
    /// 6 out of memory, 7 I/O or disk, 8 cancelled.
    pub fn exit_code(&self) -> u8 {
        match self {
            Error::Media(error) => error.fault().exit_code(),
            Error::Face(error) => error.fault().exit_code(),
            Error::Model(error) => model_exit_code(error),
            Error::Eval(error) => match error {
                EvalError::Media(error) => error.fault().exit_code(),
                EvalError::Face(error) => error.fault().exit_code(),
                EvalError::Model(error) => model_exit_code(error),
                EvalError::Unequal { .. } => 3,
                EvalError::Stopped => 8,
            },
            Error::Data(error) => error.fault().exit_code(),
            Error::Train(error) => match error {
                TrainError::Data(error) => error.fault().exit_code(),
                TrainError::Model(error) => model_exit_code(error),
                TrainError::Parameter { .. } => 2,
                TrainError::Stopped { .. } => 8,
                TrainError::NotFinite { .. } => 1,
                TrainError::Io { .. } | TrainError::Partner { .. } => 7,
            },
            Error::Usage { .. } => 2,
            Error::Input { .. } => 3,
            Error::NoFace { .. } => 4,
            Error::Weights { .. } => 5,
            Error::Memory { .. } | Error::OutOfMemory { .. } => 6,
            Error::Io { .. } => 7,
            Error::Cancelled => 8,
            Error::Internal { .. } => 1,
        }
    }

    /// An argument that cannot be served.
    pub fn usage(what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Error::Usage { what: what.into(), remedy: remedy.into() }
    }

    /// A panic, which is a defect of the program.
    pub fn of_panic(stage: &'static str, panic: &(dyn Any + Send)) -> Self {
        let detail = panic_text(panic).unwrap_or("it stopped without a message").to_owned();
        Error::Internal { stage, detail }
    }

    /// A refused file operation.
    pub fn io(stage: &'static str, path: &Path, source: std::io::Error) -> Self {
        let remedy = match source.kind() {
            std::io::ErrorKind::StorageFull => "free some space on that disk and run again",
            std::io::ErrorKind::NotFound => "check the spelling of the path and that its folder exists",
            _ => "check that the folder exists and may be written",
        };
        Error::Io { stage, path: path.to_path_buf(), source, remedy: remedy.to_owned() }
    }
}

fn model_exit_code(error: &ModelError) -> u8 {
    use syncdiff_model::Fault;
    match error.fault() {
        Fault::Weights => 5,
        // A value too large stands in a weights file more often than in an argument.
        Fault::Limit => 5,
        Fault::Parameter => 2,
        Fault::Io => 7,
        Fault::Internal => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_the_exit_code_that_the_manual_promises() {
        let media = MediaError::NoAudio { path: "a.mp4".into() };
        let face = FaceError::ModelMissing { path: "x".into() };
        let full = std::io::Error::from(std::io::ErrorKind::StorageFull);
        let cases: [(Error, u8); 7] = [
            (media.into(), 3),
            (face.into(), 5),
            (Error::usage("a", "b"), 2),
            (Error::NoFace { path: "a".into(), frames: 3 }, 4),
            (Error::io("write", Path::new("a"), full), 7),
            (Error::Cancelled, 8),
            (Error::Internal { stage: "x", detail: "y".into() }, 1),
        ];
        for (error, code) in cases {
            assert_eq!(error.exit_code(), code, "{error}");
        }
    }
}
