//! One ffmpeg child that decodes pictures, and the thread that takes them from its pipe.

use std::io::{self, BufReader};
use std::process::Stdio;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::error::{MediaError, Warning};
use crate::info::{MAX_SIDE_PX, Matrix, MediaInfo, MediaKind, VideoInfo};
use crate::nut::NutReader;
use crate::picture::over_black;
use crate::process::{Guarded, StderrLog, clean_line, is_frame_record, last_useful_line, status_text};
use crate::time::{Rational, Rounding, Time, rescale};
use crate::tools::{Args, Tools};

/// Added to every time stamp on its way through the pipe, which cannot carry negative ones.
const PTS_SHIFT: i64 = 1 << 36;
/// Most warnings that are kept of one clip.
const MAX_WARNINGS: usize = 64;
/// Side of the pictures of a pass that only wants time stamps.
const TINY_SIDE_PX: usize = 16;

/// What is wanted of each frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Want {
    /// The whole picture as RGB.
    Picture,
    /// Only its time stamp.
    TimeStamp,
}

/// A frame as it left the decoder.
pub(crate) struct Decoded {
    /// In ticks of the stream's time base.
    pub(crate) pts: i64,
    /// RGB bytes; of no use where only the time stamp was wanted.
    pub(crate) data: Vec<u8>,
}

/// Where decoding starts instead of at the first frame.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seek {
    /// A key frame is looked for before this moment, counted from the start of the file.
    pub(crate) moment: Time,
    /// Frames before this time stamp are decoded, but not converted and not handed out.
    pub(crate) first_pts: i64,
}

/// A running decoder.
pub(crate) struct Decoder {
    child: Guarded,
    frames: Receiver<io::Result<Decoded>>,
    log: StderrLog,
    notes: Arc<Mutex<Notes>>,
    tools: Tools,
    stall: Duration,
    last_pts: Option<i64>,
}

/// How a decoder ended.
pub(crate) struct End {
    pub(crate) success: bool,
    pub(crate) status: String,
    pub(crate) detail: String,
}

impl Decoder {
    /// Starts ffmpeg on the picture stream.
    pub(crate) fn start(
        tools: &Tools,
        info: &MediaInfo,
        video: &VideoInfo,
        want: Want,
        seek: Option<Seek>,
        prefetch: usize,
        stall: Duration,
    ) -> Result<Self, MediaError> {
        let mut args = Args::default();
        // Turning is done by our own filter, which also knows Exif.
        args.add(["-noautorotate", "-copyts"]);
        args.add(["-max_pixels".to_owned(), (MAX_SIDE_PX * MAX_SIDE_PX).to_string()]);
        if let Some(seek) = seek {
            args.add(["-noaccurate_seek", "-ss"]);
            args.add([secs_text(seek.moment)]);
        }
        args.input(info.container, &info.path);
        args.add(["-map".to_owned(), format!("0:{}", video.stream)]);
        if info.kind == MediaKind::Still {
            args.add(["-frames:v", "1"]);
        }
        let (format, width, height, pixel) = match want {
            Want::TimeStamp => ("gray", TINY_SIDE_PX, TINY_SIDE_PX, 1),
            Want::Picture if video.has_alpha => ("rgba", video.width, video.height, 4),
            Want::Picture => ("rgb24", video.width, video.height, 3),
        };
        args.add(["-vf".to_owned(), filters(video, want, format, seek)]);
        args.add(tools.passthrough()?);
        args.add(["-enc_time_base".to_owned(), video.time_base.to_string()]);
        args.add(["-c:v", "rawvideo", "-pix_fmt", format, "-avoid_negative_ts", "disabled"]);
        args.add(["-f", "nut", "pipe:1"]);

        let mut child = tools.spawn_ffmpeg("info", &args, Stdio::null())?;
        let notes = Arc::new(Mutex::new(Notes::default()));
        let log = {
            let notes = Arc::clone(&notes);
            StderrLog::follow(&mut child.child, move |line| {
                if let Ok(mut notes) = notes.lock() {
                    notes.line(line);
                }
            })
        };
        let pipe = child
            .child
            .stdout
            .take()
            .ok_or_else(|| MediaError::Internal { stage: "decode", detail: "the child has no output pipe".into() })?;
        let (sender, frames) = mpsc::sync_channel(prefetch.clamp(1, 64));
        let base = video.time_base;
        std::thread::spawn(move || {
            let send = |frame| sender.send(frame).is_ok();
            let mut reader = match NutReader::new(BufReader::with_capacity(64 << 10, pipe)) {
                Ok(reader) => reader,
                // Nothing at all was decoded: the child's messages tell why.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return,
                Err(error) => {
                    send(Err(error));
                    return;
                }
            };
            let mut more = true;
            while more {
                let mut data = vec![0; width * height * pixel];
                more = match reader.frame(&mut data) {
                    Ok(None) => false,
                    Ok(Some(pts)) => {
                        let pts = rescale(pts, reader.time_base(), base, Rounding::Nearest);
                        let data = if pixel == 4 { flatten(&data) } else { data };
                        send(Ok(Decoded { pts: pts - PTS_SHIFT, data }))
                    }
                    Err(error) => {
                        send(Err(error));
                        false
                    }
                };
            }
        });
        let tools = tools.clone();
        Ok(Decoder { child, frames, log, notes, tools, stall, last_pts: None })
    }

    /// The next frame; none at the end. Time stamps rise strictly: one that does not is moved to
    /// the next free tick, as players do.
    pub(crate) fn next(&mut self) -> Result<Option<Decoded>, MediaError> {
        match self.frames.recv_timeout(self.stall) {
            Ok(Ok(mut frame)) => {
                if let Some(last) = self.last_pts {
                    frame.pts = frame.pts.max(last + 1);
                }
                self.last_pts = Some(frame.pts);
                Ok(Some(frame))
            }
            Ok(Err(error)) => {
                // A pipe that ends inside a frame means that the child died: the caller sees how.
                if error.kind() == io::ErrorKind::UnexpectedEof {
                    return Ok(None);
                }
                Err(MediaError::Internal { stage: "decode", detail: error.to_string() })
            }
            Err(RecvTimeoutError::Disconnected) => Ok(None),
            Err(RecvTimeoutError::Timeout) => Err(MediaError::Timeout {
                stage: "decode",
                program: self.tools.ffmpeg.clone(),
                secs: self.stall.as_secs(),
            }),
        }
    }

    /// Waits for the child after its last frame.
    pub(crate) fn end(&mut self) -> End {
        let status = self.child.wait_for(self.stall);
        End {
            success: status.is_some_and(|status| status.success()),
            status: status.map_or("it did not end".into(), status_text),
            detail: last_useful_line(&self.log.text()),
        }
    }

    /// The warnings so far.
    pub(crate) fn warnings(&self) -> Vec<Warning> {
        let Ok(notes) = self.notes.lock() else { return Vec::new() };
        let mut warnings = notes.warnings.clone();
        if notes.left_out > 0 {
            warnings.push(Warning::More { count: notes.left_out });
        }
        warnings
    }
}

/// Decimal seconds with microseconds, rounded down.
pub(crate) fn secs_text(time: Time) -> String {
    let micros = time.on(Rational::new(1, 1_000_000), Rounding::Down);
    let sign = if micros < 0 { "-" } else { "" };
    format!("{sign}{}.{:06}", micros.abs() / 1_000_000, micros.abs() % 1_000_000)
}

/// The filter chain from a decoded picture to the wanted one.
fn filters(video: &VideoInfo, want: Want, format: &str, seek: Option<Seek>) -> String {
    // `showinfo` comes first: its line follows the decoder's complaints about the same frame, which
    // is how a complaint finds its frame number.
    let mut chain = "showinfo=checksum=0".to_owned();
    if let Some(seek) = seek {
        chain += &format!(",select='gte(pts,{})'", seek.first_pts);
    }
    chain += &format!(",setpts=PTS+{PTS_SHIFT}");
    match want {
        Want::TimeStamp => {
            let side = TINY_SIDE_PX;
            chain += &format!(",crop='min({side},iw)':'min({side},ih)':0:0,scale={side}:{side},format={format}");
        }
        Want::Picture => {
            let (width, height) =
                if video.orientation.swaps_sides() { (video.height, video.width) } else { (video.width, video.height) };
            let matrix = match video.colour.matrix {
                Matrix::Bt601 => "bt601",
                Matrix::Bt709 => "bt709",
                Matrix::Bt2020 => "bt2020",
            };
            chain += &format!(
                ",scale={width}:{height}:flags=bicubic+accurate_rnd+full_chroma_int\
                 +full_chroma_inp:in_color_matrix={matrix},format={format}"
            );
            if let Some(filter) = video.orientation.filter() {
                chain += &format!(",{filter}");
            }
        }
    }
    chain
}

/// RGBA to RGB on black.
fn flatten(rgba: &[u8]) -> Vec<u8> {
    let mut rgb = Vec::with_capacity(rgba.len() / 4 * 3);
    for pixel in rgba.chunks_exact(4) {
        rgb.extend(pixel[..3].iter().map(|value| over_black(*value, pixel[3])));
    }
    rgb
}

/// What ffmpeg's messages tell of damage.
#[derive(Default)]
struct Notes {
    /// Frames that were decoded so far.
    frames: u64,
    warnings: Vec<Warning>,
    left_out: u64,
    /// The decoder's last complaint: the cause of the next damaged frame.
    complaint: String,
}

impl Notes {
    fn line(&mut self, line: &str) {
        if is_frame_record(line) {
            if line.contains("] n:") && line.contains(" pts:") {
                self.frames += 1;
            }
            return;
        }
        let lower = line.to_lowercase();
        if lower.contains("corrupt decoded frame") {
            let detail = self.take_complaint("decoded with errors");
            self.warn(Warning::DamagedFrame { frame: self.frames, detail });
        } else if lower.contains("error while decoding stream")
            || lower.contains("error submitting packet to decoder")
            || lower.contains("decoding error")
        {
            let detail = self.take_complaint(&clean_line(line));
            self.warn(Warning::LostData { frame: self.frames, detail });
        } else if ["error", "invalid", "conceal", "corrupt", "missing", "partial file", "damaged"]
            .iter()
            .any(|word| lower.contains(word))
        {
            self.complaint = clean_line(line);
        }
    }

    fn take_complaint(&mut self, otherwise: &str) -> String {
        let complaint = std::mem::take(&mut self.complaint);
        if complaint.is_empty() { otherwise.to_owned() } else { complaint }
    }

    fn warn(&mut self, warning: Warning) {
        if self.warnings.len() < MAX_WARNINGS {
            self.warnings.push(warning);
        } else {
            self.left_out += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn complaints_find_their_frame() {
        let mut notes = Notes::default();
        for line in [
            "[Parsed_showinfo_0 @ 0x1] config in time_base: 1/25, frame_rate: 25/1",
            "[Parsed_showinfo_0 @ 0x1] n:   0 pts:      0 pts_time:0",
            "[h264 @ 0x2] error while decoding MB 3 4, bytestream -7",
            "file:a.mp4: corrupt decoded frame in stream 0",
            "[Parsed_showinfo_0 @ 0x1] n:   1 pts:      1 pts_time:0.04",
            "Error while decoding stream #0:0: Invalid data found when processing input",
        ] {
            notes.line(line);
        }
        let detail = "h264: error while decoding MB 3 4, bytestream -7".to_owned();
        assert_eq!(notes.warnings[0], Warning::DamagedFrame { frame: 1, detail });
        assert!(matches!(notes.warnings[1], Warning::LostData { frame: 2, .. }));
    }

    #[test]
    fn seconds_for_the_command_line() {
        let micro = Rational::new(1, 1_000_000);
        assert_eq!(secs_text(Time::new(-40_000, micro)), "-0.040000");
        assert_eq!(secs_text(Time::new(12_000_001, micro)), "12.000001");
    }

    #[test]
    fn transparency_shows_black() {
        assert_eq!(flatten(&[200, 100, 50, 255, 200, 100, 50, 0, 255, 0, 0, 128]), [200, 100, 50, 0, 0, 0, 128, 0, 0]);
    }
}
