//! Two clips side by side, frame by frame, within the memory of a few frames.

use std::path::Path;

use serde::{Deserialize, Serialize};
use syncdiff_media::{Frame, FrameReader, MediaError, MediaInfo, ReadOptions, TimedFrame, Tools, VideoInfo, probe};

use crate::error::EvalResult;

/// Frame rates that differ by less than this part are one rate, and frames belong together by their number.
const SAME_RATE: f64 = 1e-3;
/// Time stamps that differ by less belong together, in seconds.
const SAME_MOMENT_SECS: f64 = 1e-4;

/// What one clip of a pair is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ClipFacts {
    /// Number of frames that could be decoded.
    pub frames: usize,
    /// Mean frame rate as the header tells.
    pub rate: String,
    /// Length of the picture in seconds.
    pub secs: f64,
    /// Width of the frames in pixels.
    pub width: usize,
    /// Height of the frames in pixels.
    pub height: usize,
    /// Has it sound?
    pub sound: bool,
}

/// One of the two clips while it is read.
struct Side {
    reader: FrameReader,
    video: VideoInfo,
    sound: bool,
    first_pts: Option<i64>,
    last_secs: f64,
    frames: usize,
}

impl Side {
    fn open(tools: &Tools, path: &Path) -> EvalResult<Self> {
        let info: MediaInfo = probe(tools, path)?;
        let reader = FrameReader::open(tools, &info, &ReadOptions::default())?;
        let Some(video) = info.video else { return Err(MediaError::NoVideo { path: path.to_path_buf() }.into()) };
        let sound = info.audio.is_some();
        Ok(Side { reader, video, sound, first_pts: None, last_secs: 0.0, frames: 0 })
    }

    fn rate(&self) -> f64 {
        self.video.average_rate.to_f64()
    }

    /// The next frame, with its time after the first one in seconds.
    fn next(&mut self) -> EvalResult<Option<(f64, TimedFrame)>> {
        let Some(timed) = self.reader.next().transpose()? else { return Ok(None) };
        let ticks = timed.pts - *self.first_pts.get_or_insert(timed.pts);
        self.last_secs = ticks as f64 * self.video.time_base.to_f64();
        self.frames += 1;
        Ok(Some((self.last_secs, timed)))
    }

    fn facts(&self) -> ClipFacts {
        ClipFacts {
            frames: self.frames,
            rate: self.video.average_rate.to_string(),
            secs: self.last_secs + 1.0 / self.rate().max(f64::MIN_POSITIVE),
            width: self.video.width,
            height: self.video.height,
            sound: self.sound,
        }
    }
}

/// Reads a generated clip and its reference together.
///
/// At one frame rate, frames belong together by their number; at two, a generated frame belongs to the one that the
/// reference shows at its time. The pair ends with the shorter clip; what is left of the longer one is counted.
pub struct PairReader {
    generated: Side,
    reference: Side,
    by_time: bool,
    /// The pair that is shown now.
    now: Option<(f64, Frame)>,
    truth: Option<TimedFrame>,
    /// The reference's frame after `truth`, at different rates.
    ahead: Option<(f64, TimedFrame)>,
    pairs: usize,
}

impl PairReader {
    /// Opens both clips.
    ///
    /// # Errors
    /// A clip that cannot be read or has no picture.
    pub fn open(tools: &Tools, generated: &Path, reference: &Path) -> EvalResult<Self> {
        let (generated, reference) = (Side::open(tools, generated)?, Side::open(tools, reference)?);
        let by_time = (generated.rate() / reference.rate() - 1.0).abs() > SAME_RATE;
        Ok(PairReader { generated, reference, by_time, now: None, truth: None, ahead: None, pairs: 0 })
    }

    /// Goes to the next pair; false after the last one, when both clips were read to their ends.
    ///
    /// # Errors
    /// A clip that cannot be decoded.
    pub fn advance(&mut self) -> EvalResult<bool> {
        let Some((secs, timed)) = self.generated.next()? else { return self.end() };
        if self.by_time {
            if self.pairs == 0 {
                self.truth = self.reference.next()?.map(|(_, first)| first);
                self.ahead = self.reference.next()?;
            }
            while self.ahead.as_ref().is_some_and(|(at, _)| *at <= secs + SAME_MOMENT_SECS) {
                self.truth = self.ahead.take().map(|(_, frame)| frame);
                self.ahead = self.reference.next()?;
            }
            // The last frame is shown for its own length only.
            if self.ahead.is_none() && secs >= self.reference.facts().secs - SAME_MOMENT_SECS {
                return self.end();
            }
        } else {
            self.truth = self.reference.next()?.map(|(_, frame)| frame);
        }
        if self.truth.is_none() {
            return self.end();
        }
        self.now = Some((secs, timed.frame));
        self.pairs += 1;
        Ok(true)
    }

    fn end(&mut self) -> EvalResult<bool> {
        self.now = None;
        while self.generated.next()?.is_some() {}
        while self.reference.next()?.is_some() {}
        Ok(false)
    }

    /// The pair shown now: the generated frame and its time in seconds, the reference's frame and its number; none
    /// before the first and after the last.
    pub fn pair(&self) -> Option<(&Frame, f64, &Frame, usize)> {
        let ((secs, generated), truth) = (self.now.as_ref()?, self.truth.as_ref()?);
        Some((generated, *secs, &truth.frame, truth.index))
    }

    /// How many pairs were shown.
    pub fn num_pairs(&self) -> usize {
        self.pairs
    }

    /// What the clips are: generated, reference. Counts are complete after the last pair.
    pub fn facts(&self) -> [ClipFacts; 2] {
        [self.generated.facts(), self.reference.facts()]
    }

    /// What is unequal about the clips, in words.
    pub fn remarks(&self) -> Vec<String> {
        let [generated, reference] = self.facts();
        let mut remarks = Vec::new();
        if self.by_time {
            let (ours, theirs) = (&generated.rate, &reference.rate);
            remarks.push(format!("{ours} frames a second against {theirs}: frames were paired by their time"));
        }
        let size = |facts: &ClipFacts| format!("{}x{}", facts.width, facts.height);
        if size(&generated) != size(&reference) {
            let (ours, theirs) = (size(&generated), size(&reference));
            remarks.push(format!("frames of {ours} against {theirs}: the generated ones were resized"));
        }
        if !self.by_time && generated.frames != reference.frames {
            let (ours, theirs) = (generated.frames, reference.frames);
            remarks.push(format!("{ours} frames against {theirs}: the first {} were scored", self.pairs));
        }
        let apart = (generated.secs - reference.secs).abs();
        if apart > 1.5 / self.reference.rate().max(1.0) {
            remarks
                .push(format!("{:.2} s against {:.2} s: the common part was scored", generated.secs, reference.secs));
        }
        remarks
    }
}
