//! Encodes frames into a video file that appears only when it is whole.

use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::encode::{Target, encoder_args};
use crate::error::MediaError;
use crate::frame::Frame;
use crate::info::{Colour, MediaInfo};
use crate::nut::NutWriter;
use crate::plan::Plan;
use crate::probe::probe;
use crate::process::{Guarded, StderrLog, last_useful_line, status_text};
use crate::tools::Tools;
use crate::wav::{hidden_beside, put_in_place};

const STAGE: &str = "write video";
/// Frames that may wait in front of the encoder.
const QUEUED_FRAMES: usize = 2;
/// How long the encoder may take after the last frame: it also moves the index to the front.
const FINISH_LIMIT: Duration = Duration::from_secs(1800);

/// What becomes of an odd width or height, which H.264 with 4:2:0 colour cannot hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OddSize {
    /// Repeat the last column or row once: one pixel larger, plays everywhere.
    #[default]
    Pad,
    /// Keep the size and use 4:4:4 colour, which many players and browsers cannot show.
    Keep,
}

/// How the output is encoded.
#[derive(Clone, Debug)]
pub struct WriterOptions {
    /// Constant rate factor of x264, 0 (nearly lossless) to 51; 18 is hard to tell from the source.
    pub crf: u8,
    /// Preset of x264, from `ultrafast` to `veryslow`.
    pub preset: String,
    /// Odd sizes.
    pub odd_size: OddSize,
    /// Colour description; what players assume for the size if none is given.
    pub colour: Option<Colour>,
    /// May the sound be re-used as it is where it fits? Otherwise it is always encoded anew.
    pub copy_sound: bool,
    /// Longest wait for the encoder to take a frame.
    pub stall: Duration,
}

impl Default for WriterOptions {
    fn default() -> Self {
        WriterOptions {
            crf: 18,
            preset: "medium".into(),
            odd_size: OddSize::Pad,
            colour: None,
            copy_sound: true,
            stall: Duration::from_secs(120),
        }
    }
}

/// The sound of the output: the audio track of a probed file, aligned as [`crate::decode_speech`]
/// aligns it, cut or padded with silence to the plan's end.
///
/// It is copied bit by bit where that is exact: out of an mp4/mov or mkv into the same family,
/// starting with the first frame and ending within half a frame of the output's end. Otherwise it
/// is encoded at its own sample rate: as AAC, in mkv as FLAC.
#[derive(Clone, Debug)]
pub struct Sound(pub MediaInfo);

/// What was written.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Written {
    /// The finished file.
    pub path: PathBuf,
    /// Number of frames.
    pub num_frames: usize,
    /// Size of the file.
    pub bytes: u64,
    /// Stored width and height (differ from the frames for odd sizes).
    pub size: (usize, usize),
    /// Was the sound re-used as it is? None without sound.
    pub sound_copied: Option<bool>,
}

/// An encoder that takes the frames of a plan one by one.
///
/// The file is written under a hidden name in the folder of the output and renamed by
/// [`VideoWriter::finish`]. Dropped before, or after an error, it leaves nothing behind, and a file
/// that was there stays as it was.
pub struct VideoWriter {
    // Field order is drop order: the child dies before its file is deleted.
    child: Guarded,
    frames: Option<SyncSender<(i64, Vec<u8>)>>,
    taken: Receiver<()>,
    thread: Option<JoinHandle<std::io::Result<()>>>,
    log: StderrLog,
    partial: Option<tempfile::NamedTempFile>,
    tools: Tools,
    path: PathBuf,
    frame_size: (usize, usize),
    target: Target,
    plan: Plan,
    stall: Duration,
    num_pushed: usize,
    in_flight: usize,
    sound_copied: Option<bool>,
    sound_path: Option<PathBuf>,
}

impl VideoWriter {
    /// Starts the encoder for the frames of a plan, each of `size` (width, height).
    ///
    /// # Errors
    /// [`MediaError::Parameter`] for an unknown extension (mp4, m4v, mov and mkv are known), size
    /// or option; [`MediaError::Io`] if the folder is missing or may not be written;
    /// [`MediaError::NoAudio`] if the sound's file has none.
    pub fn create(
        tools: &Tools,
        path: &Path,
        size: (usize, usize),
        plan: &Plan,
        sound: Option<&Sound>,
        options: &WriterOptions,
    ) -> Result<Self, MediaError> {
        let target = Target::new(path, size, plan, options)?;
        if path.symlink_metadata().is_ok() && !path.is_file() {
            let source = std::io::Error::other("it exists and is not a plain file");
            return Err(MediaError::io(STAGE, path, source));
        }
        let partial = hidden_beside(path, STAGE)?;
        let (args, sound_copied) = encoder_args(tools, &target, plan, sound, options, partial.path())?;
        let mut child = tools.spawn_ffmpeg("warning", &args, Stdio::piped())?;
        let log = StderrLog::follow(&mut child.child, |_| {});
        let stdin = child
            .child
            .stdin
            .take()
            .ok_or_else(|| MediaError::Internal { stage: STAGE, detail: "the child has no input pipe".into() })?;
        let (frames, queue) = mpsc::sync_channel(QUEUED_FRAMES);
        let (acknowledge, taken) = mpsc::channel();
        let (stored, base) = (target.stored, target.base);
        let rate = plan.average_rate();
        let thread = std::thread::spawn(move || {
            feed(stdin, queue, &acknowledge, |pipe| NutWriter::new(pipe, stored, base, rate))
        });
        Ok(VideoWriter {
            child,
            frames: Some(frames),
            taken,
            thread: Some(thread),
            log,
            partial: Some(partial),
            tools: tools.clone(),
            path: path.to_path_buf(),
            frame_size: size,
            target,
            plan: plan.clone(),
            stall: options.stall,
            num_pushed: 0,
            in_flight: 0,
            sound_copied,
            sound_path: sound.map(|sound| sound.0.path.clone()),
        })
    }

    /// Adds the next frame of the plan with its planned time stamp.
    ///
    /// # Errors
    /// [`MediaError::Internal`] for a frame of another size, time or beyond the plan;
    /// [`MediaError::DiskFull`], [`MediaError::ToolFailed`] or [`MediaError::Timeout`] if the
    /// encoder ended or stands still.
    pub fn push(&mut self, frame: &Frame, pts: i64) -> Result<(), MediaError> {
        let size = (frame.width, frame.height);
        let Some(planned) = self.plan.get(self.num_pushed) else {
            return Err(internal(format!("more than the {} planned frames", self.plan.len())));
        };
        if pts != planned.pts {
            return Err(internal(format!("frame {} at {pts}, not {}", self.num_pushed, planned.pts)));
        }
        if size != self.frame_size {
            return Err(internal(format!("a {size:?} frame in a {:?} video", self.frame_size)));
        }
        while self.in_flight >= QUEUED_FRAMES {
            match self.taken.recv_timeout(self.stall) {
                Ok(()) => self.in_flight -= 1,
                Err(RecvTimeoutError::Disconnected) => return Err(self.failure()),
                Err(RecvTimeoutError::Timeout) => {
                    return Err(MediaError::Timeout {
                        stage: STAGE,
                        program: self.tools.ffmpeg.clone(),
                        secs: self.stall.as_secs(),
                    });
                }
            }
        }
        let item = (self.target.ticks(planned.pts), self.target.stored_bytes(frame));
        match &self.frames {
            Some(frames) if frames.send(item).is_ok() => {}
            _ => return Err(self.failure()),
        }
        self.in_flight += 1;
        self.num_pushed += 1;
        Ok(())
    }

    /// Ends the stream, waits for the encoder, checks the file and puts it in place.
    ///
    /// # Errors
    /// [`MediaError::Internal`] if frames of the plan are missing, and as [`VideoWriter::push`].
    pub fn finish(mut self) -> Result<Written, MediaError> {
        if self.num_pushed != self.plan.len() {
            return Err(internal(format!("{} of {} planned frames were given", self.num_pushed, self.plan.len())));
        }
        self.frames = None;
        while self.in_flight > 0 {
            match self.taken.recv_timeout(self.stall) {
                Ok(()) => self.in_flight -= 1,
                Err(_) => return Err(self.failure()),
            }
        }
        if let Some(thread) = self.thread.take()
            && !matches!(thread.join(), Ok(Ok(())))
        {
            return Err(self.failure());
        }
        match self.child.wait_for(FINISH_LIMIT) {
            Some(status) if status.success() => {}
            Some(_) => return Err(self.failure()),
            None => {
                return Err(MediaError::Timeout {
                    stage: STAGE,
                    program: self.tools.ffmpeg.clone(),
                    secs: FINISH_LIMIT.as_secs(),
                });
            }
        }
        let Some(partial) = self.partial.take() else { return Err(internal("no file".into())) };
        let bytes = partial.path().metadata().map_err(|e| MediaError::io(STAGE, &self.path, e))?;
        self.check_result(partial.path())?;
        put_in_place(partial, &self.path, STAGE)?;
        Ok(Written {
            path: self.path.clone(),
            num_frames: self.num_pushed,
            bytes: bytes.len(),
            size: self.target.stored,
            sound_copied: self.sound_copied,
        })
    }

    /// Reads the header of the finished file: an encoder that ended well may still have lost frames
    /// on a failing disk.
    fn check_result(&self, partial: &Path) -> Result<(), MediaError> {
        let failed = |detail: String| MediaError::ToolFailed {
            stage: STAGE,
            program: self.tools.ffmpeg.clone(),
            status: "exit code 0".into(),
            detail,
        };
        let info =
            probe(&self.tools, partial).map_err(|error| failed(format!("the result cannot be read: {error}")))?;
        let found = info.video.and_then(|video| video.num_frames);
        match found {
            Some(found) if found != self.num_pushed as u64 => {
                Err(failed(format!("the result holds {found} of {} frames", self.num_pushed)))
            }
            _ if self.sound_copied.is_some() && info.audio.is_none() => Err(failed("the result has no sound".into())),
            _ => Ok(()),
        }
    }

    /// Why the encoder ended.
    fn failure(&mut self) -> MediaError {
        self.frames = None;
        let status = self.child.wait_for(Duration::from_secs(5));
        let stderr = self.log.text();
        let line = last_useful_line(&stderr);
        if stderr.contains("No space left on device") {
            return MediaError::DiskFull { path: self.path.clone() };
        }
        for (words, kind) in [
            ("Permission denied", std::io::ErrorKind::PermissionDenied),
            ("Read-only file system", std::io::ErrorKind::ReadOnlyFilesystem),
            ("Input/output error", std::io::ErrorKind::Other),
            ("Disk quota exceeded", std::io::ErrorKind::QuotaExceeded),
            ("File too large", std::io::ErrorKind::FileTooLarge),
        ] {
            if stderr.contains(words) {
                return MediaError::io(STAGE, &self.path, std::io::Error::new(kind, line));
            }
        }
        let sound = match &self.sound_path {
            Some(sound) => format!(" (with sound of {sound:?})"),
            None => String::new(),
        };
        MediaError::ToolFailed {
            stage: STAGE,
            program: self.tools.ffmpeg.clone(),
            status: status.map_or("it did not end".into(), status_text),
            detail: format!("{line}{sound}, after {} frames", self.num_pushed),
        }
    }
}

fn internal(detail: String) -> MediaError {
    MediaError::Internal { stage: STAGE, detail }
}

/// Writes queued frames to the child until the queue is closed.
fn feed(
    stdin: ChildStdin,
    queue: Receiver<(i64, Vec<u8>)>,
    taken: &mpsc::Sender<()>,
    start: impl FnOnce(BufWriter<ChildStdin>) -> std::io::Result<NutWriter<BufWriter<ChildStdin>>>,
) -> std::io::Result<()> {
    let mut writer = start(BufWriter::with_capacity(64 << 10, stdin))?;
    for (pts, data) in queue {
        writer.frame(pts, &data)?;
        // Nobody listens any more once the writer is being dropped.
        let _ = taken.send(());
    }
    writer.into_inner().flush()
}
