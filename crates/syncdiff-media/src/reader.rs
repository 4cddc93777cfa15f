//! Streams the pictures of a clip with exact time stamps, from its start or from any frame.

use std::ops::Range;
use std::time::Duration;

use crate::decode::{Decoder, Seek, Want};
use crate::error::{MediaError, Warning};
use crate::frame::Frame;
use crate::index::{FrameIndex, index_of_pass};
use crate::info::{MediaInfo, MediaKind, VideoInfo};
use crate::time::{Rational, Rounding, Time};
use crate::tools::Tools;

/// How frames are read.
#[derive(Clone, Copy, Debug)]
pub struct ReadOptions {
    /// How often a still picture is shown, in frames a second (1 to 240).
    pub still_rate: Rational,
    /// Frames decoded ahead of the caller, 1 to 64; they bound the memory.
    pub prefetch: usize,
    /// Longest wait for one frame.
    pub stall: Duration,
}

impl Default for ReadOptions {
    /// Stills at 25 frames a second, two frames ahead, 60 s.
    fn default() -> Self {
        ReadOptions { still_rate: Rational::new(25, 1), prefetch: 2, stall: Duration::from_secs(60) }
    }
}

/// A decoded frame.
#[derive(Clone, Debug)]
pub struct TimedFrame {
    /// Index of the frame in the clip.
    pub index: usize,
    /// Time stamp in ticks of the stream's time base, as in the file.
    pub pts: i64,
    /// The picture: square pixels, upright, transparency on black.
    pub frame: Frame,
}

/// An iterator over the frames of a clip or a part of it. Memory is that of the frames decoded
/// ahead, whatever the length. A still picture yields its one frame.
///
/// After an error the iterator ends.
pub struct FrameReader {
    tools: Tools,
    info: MediaInfo,
    video: VideoInfo,
    options: ReadOptions,
    want: Want,
    decoder: Option<Decoder>,
    /// Time stamps handed out so far (whole clip) or expected (range).
    pts: Vec<i64>,
    warnings: Vec<Warning>,
    range: Option<RangeState>,
    num_read: usize,
}

struct RangeState {
    first: usize,
    /// How many starts were tried.
    tries: usize,
}

/// How long before the wanted frame a key frame is looked for, by try; then from the start.
const SEEK_MARGINS_SECS: [i64; 2] = [1, 10];

impl FrameReader {
    /// From the first frame to the last.
    ///
    /// # Errors
    /// [`MediaError::NoVideo`], or ffmpeg cannot be started.
    pub fn open(tools: &Tools, info: &MediaInfo, options: &ReadOptions) -> Result<Self, MediaError> {
        Self::start(tools, info, options, Want::Picture)
    }

    fn start(tools: &Tools, info: &MediaInfo, options: &ReadOptions, want: Want) -> Result<Self, MediaError> {
        let mut reader = Self::new(tools, info, options, want)?;
        reader.restart(None)?;
        Ok(reader)
    }

    fn new(tools: &Tools, info: &MediaInfo, options: &ReadOptions, want: Want) -> Result<Self, MediaError> {
        let no_video = || MediaError::NoVideo { path: info.path.clone() };
        Ok(FrameReader {
            tools: tools.clone(),
            info: info.clone(),
            video: info.video.clone().ok_or_else(no_video)?,
            options: *options,
            want,
            decoder: None,
            pts: Vec::new(),
            warnings: Vec::new(),
            range: None,
            num_read: 0,
        })
    }

    /// A range of frame indices. The frames are the same as those of a whole reading, which is
    /// checked by their time stamps; decoding starts at an earlier key frame where the format has
    /// an index (mp4/mov, mkv/webm, avi), else at the start.
    ///
    /// # Errors
    /// [`MediaError::Parameter`] for a range outside the clip, and as [`FrameReader::open`].
    pub fn open_range(
        tools: &Tools,
        info: &MediaInfo,
        index: &FrameIndex,
        range: Range<usize>,
        options: &ReadOptions,
    ) -> Result<Self, MediaError> {
        if range.start >= range.end || range.end > index.len() {
            return Err(MediaError::Parameter {
                stage: "read frames",
                detail: format!("frames {range:?} of a clip of {} frames", index.len()),
            });
        }
        let mut reader = Self::new(tools, info, options, Want::Picture)?;
        reader.pts = range.clone().map(|frame| index.pts(frame)).collect();
        reader.range = Some(RangeState { first: range.start, tries: 0 });
        if range.start == 0 {
            reader.range = Some(RangeState { first: 0, tries: SEEK_MARGINS_SECS.len() });
        }
        reader.seek()?;
        Ok(reader)
    }

    /// What went wrong so far without ending the work; complete after the last frame. Ranges do
    /// not repeat the warnings of the whole reading.
    pub fn warnings(&self) -> Vec<Warning> {
        if self.range.is_some() {
            return Vec::new();
        }
        let mut all = self.decoder.as_ref().map(Decoder::warnings).unwrap_or_default();
        all.extend(self.warnings.iter().cloned());
        all
    }

    /// The time stamps and the warnings of the whole clip; reads what is left of it first.
    ///
    /// # Errors
    /// As the iterator; [`MediaError::Parameter`] for a reader of a range.
    pub fn into_index(mut self) -> Result<(FrameIndex, Vec<Warning>), MediaError> {
        if self.range.is_some() {
            return Err(MediaError::Parameter {
                stage: "index",
                detail: "a range of frames has no index of the whole clip".into(),
            });
        }
        while self.step()?.is_some() {}
        let warnings = self.warnings.clone();
        if self.info.kind == MediaKind::Still {
            return Ok((FrameIndex::still(self.options.still_rate)?, warnings));
        }
        Ok((index_of_pass(&self.video, self.pts)?, warnings))
    }

    fn restart(&mut self, seek: Option<Seek>) -> Result<(), MediaError> {
        // The old child ends first, so that never two run.
        self.decoder = None;
        self.decoder = Some(Decoder::start(
            &self.tools,
            &self.info,
            &self.video,
            self.want,
            seek,
            self.options.prefetch,
            self.options.stall,
        )?);
        Ok(())
    }

    /// Starts or starts again for the next wanted frame of a range.
    fn seek(&mut self) -> Result<(), MediaError> {
        let Some(range) = &mut self.range else { return Ok(()) };
        let indexed = matches!(self.info.container, "mov" | "matroska" | "avi");
        let margin = SEEK_MARGINS_SECS.get(range.tries).filter(|_| indexed);
        range.tries = if margin.is_some() { range.tries + 1 } else { usize::MAX };
        let seek = margin.and_then(|margin| {
            // ffmpeg counts from the start of the file, which may lie before the first frame.
            let nanos = Rational::new(1, 1_000_000_000);
            let moment = Time::new(self.pts[self.num_read], self.video.time_base);
            let start = self.info.start.map_or(0, |start| start.on(nanos, Rounding::Up));
            let ticks = moment.on(nanos, Rounding::Down) - start - margin * nanos.den;
            let first_pts = self.pts[self.num_read];
            (ticks > 0).then_some(Seek { moment: Time::new(ticks, nanos), first_pts })
        });
        if seek.is_none()
            && let Some(range) = &mut self.range
        {
            range.tries = usize::MAX;
        }
        self.restart(seek)
    }

    fn step(&mut self) -> Result<Option<TimedFrame>, MediaError> {
        if self.range.is_some() { self.step_in_range() } else { self.step_through() }
    }

    fn step_through(&mut self) -> Result<Option<TimedFrame>, MediaError> {
        let Some(decoder) = &mut self.decoder else { return Ok(None) };
        if let Some(frame) = decoder.next()? {
            let pts = if self.info.kind == MediaKind::Still { 0 } else { frame.pts };
            self.pts.push(pts);
            self.num_read += 1;
            return self.picture(self.num_read - 1, pts, frame.data).map(Some);
        }
        let end = decoder.end();
        self.warnings = decoder.warnings();
        self.decoder = None;
        let Some(last) = self.pts.last().copied() else {
            return Err(MediaError::Damaged {
                stage: "decode",
                path: self.info.path.clone(),
                detail: format!("no frame could be decoded: {}", end.detail),
            });
        };
        let frames = self.num_read as u64;
        if !end.success {
            let detail = format!("{}: {}", end.status, end.detail);
            self.warnings.push(Warning::LostData { frame: frames, detail });
        }
        if let (Some(duration), MediaKind::Video) = (self.video.duration, self.info.kind) {
            let index = index_of_pass(&self.video, self.pts.clone())?;
            let promised = Time::new(self.video.start + duration - self.pts[0], index.time_base());
            // The index has taken the promised end if it is near the last frame.
            let slack = 2 * index.duration_of(self.pts.len() - 1);
            if self.video.start + duration - last > slack && promised > index.duration() {
                self.warnings.push(Warning::EarlyEnd {
                    frames,
                    end_ms: index.duration().millis(),
                    promised_ms: promised.millis(),
                });
            }
        }
        Ok(None)
    }

    fn step_in_range(&mut self) -> Result<Option<TimedFrame>, MediaError> {
        let Some(wanted) = self.pts.get(self.num_read).copied() else {
            self.decoder = None;
            return Ok(None);
        };
        loop {
            let Some(decoder) = &mut self.decoder else { return Ok(None) };
            match decoder.next()? {
                Some(frame) if frame.pts < wanted && self.info.kind == MediaKind::Video => {}
                Some(frame) if frame.pts == wanted || self.info.kind == MediaKind::Still => {
                    let first = self.range.as_ref().map_or(0, |range| range.first);
                    self.num_read += 1;
                    return self.picture(first + self.num_read - 1, wanted, frame.data).map(Some);
                }
                // The seek went too far, or the frames differ after it: start earlier.
                _ if self.range.as_ref().is_some_and(|range| range.tries != usize::MAX) => {
                    self.seek()?;
                }
                _ => {
                    return Err(MediaError::Damaged {
                        stage: "decode",
                        path: self.info.path.clone(),
                        detail: format!(
                            "frame {} at tick {wanted} was not found again; did the file change?",
                            self.range.as_ref().map_or(0, |range| range.first) + self.num_read
                        ),
                    });
                }
            }
        }
    }

    fn picture(&self, index: usize, pts: i64, data: Vec<u8>) -> Result<TimedFrame, MediaError> {
        let frame = match self.want {
            Want::Picture => Frame::from_rgb(self.video.width, self.video.height, data)?,
            Want::TimeStamp => Frame { width: 0, height: 0, data: Vec::new() },
        };
        Ok(TimedFrame { index, pts, frame })
    }
}

impl Iterator for FrameReader {
    type Item = Result<TimedFrame, MediaError>;

    fn next(&mut self) -> Option<Self::Item> {
        let step = self.step().transpose();
        if let Some(Err(_)) = &step {
            self.decoder = None;
        }
        step
    }
}

/// Decodes the clip once for the time stamps and damage of all its frames, without the pictures.
///
/// # Errors
/// As [`FrameReader`].
pub fn scan_index(
    tools: &Tools,
    info: &MediaInfo,
    options: &ReadOptions,
) -> Result<(FrameIndex, Vec<Warning>), MediaError> {
    FrameReader::start(tools, info, options, Want::TimeStamp)?.into_index()
}
