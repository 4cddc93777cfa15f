//! What can go wrong between a file and its frames, sorted by whose fault it is.

use std::path::{Path, PathBuf};

/// Whose fault an error is; the binary turns it into its exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fault {
    /// The input file is not what it should be (exit code 3).
    Input,
    /// A parameter or an output name that cannot be served (exit code 2).
    Usage,
    /// Disk, permission, or another operating-system failure (exit code 7).
    Io,
    /// A missing or misbehaving program, or a defect of our own (exit code 1).
    Internal,
}

impl Fault {
    /// The exit code that the command line promises for this fault.
    pub fn exit_code(self) -> u8 {
        match self {
            Fault::Input => 3,
            Fault::Usage => 2,
            Fault::Io => 7,
            Fault::Internal => 1,
        }
    }
}

/// An error of this crate. Every message names the stage, the file, the cause and the remedy.
#[derive(Debug, thiserror::Error)]
pub enum MediaError {
    /// The input path does not exist.
    #[error("open: no such file: {path:?}; check the spelling of the path")]
    NoSuchFile {
        /// The path as given.
        path: PathBuf,
    },
    /// The input path is a directory or another thing that is not a plain file.
    #[error("open: {path:?} is not a plain file; give a video, sound or picture file")]
    NotAFile {
        /// The path as given.
        path: PathBuf,
    },
    /// The input file has zero bytes.
    #[error("open: {path:?} is empty (0 bytes); copy or download it again")]
    EmptyFile {
        /// The path as given.
        path: PathBuf,
    },
    /// The first bytes are those of no format that is read here.
    #[error(
        "open: {path:?} is not a media file that can be read ({detail}); accepted are mp4/mov, \
         mkv/webm, avi, mpeg, flv, gif, wav, mp3, flac, ogg, aac, png, jpeg, webp, bmp and tiff"
    )]
    NotMedia {
        /// The path as given.
        path: PathBuf,
        /// What was seen instead.
        detail: String,
    },
    /// A list of other files or addresses; following it could read files that were not named.
    #[error(
        "open: {path:?} is a playlist ({kind}) and playlists are refused, because they name \
         other files; give the media file itself"
    )]
    Playlist {
        /// The path as given.
        path: PathBuf,
        /// The kind of list.
        kind: &'static str,
    },
    /// The format was recognised, but the content is broken or cut off.
    #[error(
        "{stage}: {path:?} is damaged or truncated ({detail}); copy or download it again, or \
         repair it with `ffmpeg -i FILE -c copy FIXED.mkv`"
    )]
    Damaged {
        /// What was being done.
        stage: &'static str,
        /// The path as given.
        path: PathBuf,
        /// The last useful line of the tool's messages.
        detail: String,
    },
    /// There is no picture in the file.
    #[error("probe: {path:?} has no video or picture; give a file that shows the face")]
    NoVideo {
        /// The path as given.
        path: PathBuf,
    },
    /// There is no sound in the file.
    #[error("probe: {path:?} has no audio track; give a file with speech")]
    NoAudio {
        /// The path as given.
        path: PathBuf,
    },
    /// The picture or the clip is larger than what is accepted.
    #[error("probe: {path:?}: {what} is {value}, above the limit of {limit}; {remedy}")]
    Limit {
        /// The path as given.
        path: PathBuf,
        /// What is too large.
        what: &'static str,
        /// The value found.
        value: String,
        /// The largest accepted value.
        limit: String,
        /// What to do.
        remedy: &'static str,
    },
    /// A codec or layout that the installed ffmpeg cannot decode, or that has no meaning here.
    #[error("{stage}: {path:?}: {detail}")]
    Unsupported {
        /// What was being done.
        stage: &'static str,
        /// The path as given.
        path: PathBuf,
        /// What is not supported, and the remedy.
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
    /// ffmpeg or ffprobe is not installed, or the given path is wrong.
    #[error(
        "start: the program {program:?} was not found; install it (Debian or Ubuntu: \
         `sudo apt-get install ffmpeg`; macOS: `brew install ffmpeg`) or give its path"
    )]
    ToolMissing {
        /// The program as given.
        program: PathBuf,
    },
    /// A child process ended with an error that is not the input's fault.
    #[error("{stage}: {program:?} failed ({status}): {detail}")]
    ToolFailed {
        /// What was being done.
        stage: &'static str,
        /// The program.
        program: PathBuf,
        /// Exit status, as text.
        status: String,
        /// The last useful line of its messages.
        detail: String,
    },
    /// A child process gave no sign of life for too long and was ended.
    #[error(
        "{stage}: {program:?} gave no output for {secs} s and was stopped; the file may be \
         damaged or the machine overloaded"
    )]
    Timeout {
        /// What was being done.
        stage: &'static str,
        /// The program.
        program: PathBuf,
        /// How long it was waited for.
        secs: u64,
    },
    /// The disk that holds the output is full.
    #[error("write: no space left on the disk of {path:?}; free some space and run again")]
    DiskFull {
        /// The output path.
        path: PathBuf,
    },
    /// An operating-system failure on a file.
    #[error("{stage}: {path:?}: {source}; check that the folder exists and may be written")]
    Io {
        /// What was being done.
        stage: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// A state that must not occur.
    #[error("{stage}: internal error: {detail}")]
    Internal {
        /// What was being done.
        stage: &'static str,
        /// What was found.
        detail: String,
    },
}

impl MediaError {
    /// Whose fault this error is.
    pub fn fault(&self) -> Fault {
        use MediaError::*;
        match self {
            NoSuchFile { .. }
            | NotAFile { .. }
            | EmptyFile { .. }
            | NotMedia { .. }
            | Playlist { .. }
            | Damaged { .. }
            | NoVideo { .. }
            | NoAudio { .. }
            | Limit { .. }
            | Unsupported { .. } => Fault::Input,
            Parameter { .. } => Fault::Usage,
            DiskFull { .. } | Io { .. } => Fault::Io,
            ToolMissing { .. } | ToolFailed { .. } | Timeout { .. } | Internal { .. } => Fault::Internal,
        }
    }

    /// Wraps an operating-system error; a full disk keeps its own variant.
    pub(crate) fn io(stage: &'static str, path: &Path, source: std::io::Error) -> Self {
        let path = path.to_path_buf();
        if source.kind() == std::io::ErrorKind::StorageFull {
            return MediaError::DiskFull { path };
        }
        MediaError::Io { stage, path, source }
    }
}

/// Something that went wrong in the input without ending the work; it belongs in the report.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Warning {
    /// A frame was decoded with errors: parts of its picture are guessed.
    DamagedFrame {
        /// Index of the frame in the clip.
        frame: u64,
        /// The decoder's words.
        detail: String,
    },
    /// A piece of the stream could not be decoded at all; no frame came of it.
    LostData {
        /// Index of the next frame that was decoded.
        frame: u64,
        /// The decoder's words.
        detail: String,
    },
    /// The file promises more than it holds.
    EarlyEnd {
        /// How many frames were read.
        frames: u64,
        /// Where the picture ends, in milliseconds after the first frame.
        end_ms: i64,
        /// Where the header says that it ends, in milliseconds after the first frame.
        promised_ms: i64,
    },
    /// The sound ends earlier than the header promises.
    SoundEarlyEnd {
        /// Length of the decoded sound in milliseconds.
        end_ms: i64,
        /// Length promised by the header in milliseconds.
        promised_ms: i64,
    },
    /// More warnings were seen than are kept.
    More {
        /// How many were left out.
        count: u64,
    },
}

impl std::fmt::Display for Warning {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Warning::DamagedFrame { frame, detail } => {
                write!(f, "frame {frame} is damaged: {detail}")
            }
            Warning::LostData { frame, detail } => {
                write!(f, "data lost before frame {frame}: {detail}")
            }
            Warning::EarlyEnd { frames, end_ms, promised_ms } => write!(
                f,
                "the picture ends after {frames} frames at {end_ms} ms, but the header promises \
                 {promised_ms} ms"
            ),
            Warning::SoundEarlyEnd { end_ms, promised_ms } => {
                write!(f, "the sound ends at {end_ms} ms, but the header promises {promised_ms} ms")
            }
            Warning::More { count } => write!(f, "{count} more warnings were left out"),
        }
    }
}
