//! What can go wrong with data on disk, sorted by whose fault it is.

use std::path::{Path, PathBuf};

use syncdiff_face::FaceError;
use syncdiff_media::MediaError;

/// Whose fault an error is; the binary turns it into its exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fault {
    /// A file is not what it should be (exit code 3).
    Input,
    /// A parameter that cannot be served (exit code 2).
    Usage,
    /// No face that fits (exit code 4).
    NoFace,
    /// Model files that are missing or wrong (exit code 5).
    Weights,
    /// Disk, permission, or another operating-system failure (exit code 7).
    Io,
    /// The caller asked to stop (exit code 8).
    Cancelled,
    /// A missing or misbehaving program, or a defect of our own (exit code 1).
    Internal,
}

impl Fault {
    /// The exit code that the command line promises for this fault.
    pub fn exit_code(self) -> u8 {
        match self {
            Fault::Input => 3,
            Fault::Usage => 2,
            Fault::NoFace => 4,
            Fault::Weights => 5,
            Fault::Io => 7,
            Fault::Cancelled => 8,
            Fault::Internal => 1,
        }
    }
}

/// An error of this crate. Every message names the stage, the file, the cause and the remedy.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DataError {
    /// A list of clips that cannot be understood.
    #[error("manifest: {path:?}, line {line}: {detail}")]
    Manifest {
        /// The list.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// What is wrong, and the remedy.
        detail: String,
    },
    /// A folder without a single video, or a manifest without a clip.
    #[error("inputs: {path:?} lists no clip; {remedy}")]
    NoClips {
        /// The folder or list.
        path: PathBuf,
        /// What to do.
        remedy: &'static str,
    },
    /// A prepared file that is cut off, foreign or of another version.
    #[error("{stage}: {path:?}: {detail}; delete it and run `syncdiff prepare` again")]
    BadFile {
        /// What was being done.
        stage: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        detail: String,
    },
    /// A value outside its range, or an impossible request.
    #[error("{stage}: {detail}")]
    Parameter {
        /// What was being done.
        stage: &'static str,
        /// Name, value, allowed range.
        detail: String,
    },
    /// The disk that holds the output is full.
    #[error("write: no space left on the disk of {path:?}; free some space and run again")]
    DiskFull {
        /// The output path.
        path: PathBuf,
    },
    /// An operating-system failure on a file.
    #[error("{stage}: {path:?}: {source}; check that it exists and may be read or written")]
    Io {
        /// What was being done.
        stage: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// The progress callback asked to stop; what is finished stays and is skipped next time.
    #[error("prepare: stopped on request after {finished} of {total} clips; run again to continue")]
    Cancelled {
        /// Clips that have their verdict.
        finished: usize,
        /// Clips asked for.
        total: usize,
    },
    /// Reading a media file failed in a way that is not the file's fault.
    #[error(transparent)]
    Media(#[from] MediaError),
    /// The face models cannot be used.
    #[error(transparent)]
    Face(#[from] FaceError),
    /// A state that must not occur.
    #[error("{stage}: internal error: {detail}; this is a defect of syncdiff")]
    Internal {
        /// What was being done.
        stage: &'static str,
        /// What was found.
        detail: String,
    },
}

impl DataError {
    /// Whose fault this error is.
    pub fn fault(&self) -> Fault {
        match self {
            DataError::Manifest { .. } | DataError::NoClips { .. } | DataError::BadFile { .. } => Fault::Input,
            DataError::Parameter { .. } => Fault::Usage,
            DataError::DiskFull { .. } | DataError::Io { .. } => Fault::Io,
            DataError::Cancelled { .. } => Fault::Cancelled,
            DataError::Internal { .. } => Fault::Internal,
            DataError::Media(error) => match error.fault() {
                syncdiff_media::Fault::Input => Fault::Input,
                syncdiff_media::Fault::Usage => Fault::Usage,
                syncdiff_media::Fault::Io => Fault::Io,
                syncdiff_media::Fault::Internal => Fault::Internal,
            },
            DataError::Face(error) => match error.fault() {
                syncdiff_face::Fault::Usage => Fault::Usage,
                syncdiff_face::Fault::NoFace => Fault::NoFace,
                syncdiff_face::Fault::Weights => Fault::Weights,
                syncdiff_face::Fault::Io => Fault::Io,
                syncdiff_face::Fault::Internal => Fault::Internal,
            },
        }
    }

    /// Wraps an operating-system error; a full disk keeps its own variant.
    pub(crate) fn io(stage: &'static str, path: &Path, source: std::io::Error) -> Self {
        let path = path.to_path_buf();
        match source.kind() {
            std::io::ErrorKind::StorageFull => DataError::DiskFull { path },
            _ => DataError::Io { stage, path, source },
        }
    }

    /// A prepared file that is not what it should be.
    pub(crate) fn bad_file(stage: &'static str, path: &Path, detail: impl Into<String>) -> Self {
        DataError::BadFile { stage, path: path.to_path_buf(), detail: detail.into() }
    }
}
