//! stub
use std::{ops::Range, time::Duration};
use crate::{Frame, FrameIndex, MediaError, MediaInfo, Rational, Tools, Warning};
/// How frames are read.
#[derive(Clone, Copy, Debug)]
pub struct ReadOptions {
    /// How often a still picture is shown, in frames a second.
    pub still_rate: Rational,
    /// Frames decoded ahead of the caller.
    pub prefetch: usize,
    /// Longest wait for one frame.
    pub stall: Duration,
}
impl Default for ReadOptions {
    fn default() -> Self {
        ReadOptions { still_rate: Rational::new(25, 1), prefetch: 2, stall: Duration::from_secs(30) }
    }
}
/// A decoded frame.
#[derive(Debug)]
pub struct TimedFrame {
    /// Index of the frame in the clip.
    pub index: usize,
    /// Time stamp in ticks of the stream's time base, as in the file.
    pub pts: i64,
    /// The picture.
    pub frame: Frame,
}
/// Streams the frames of a clip.
pub struct FrameReader;
impl FrameReader {
    /// From the first frame to the last.
    pub fn open(_tools: &Tools, _info: &MediaInfo, _options: &ReadOptions) -> Result<Self, MediaError> { unimplemented!() }
    /// A range of frame indices.
    pub fn open_range(_tools: &Tools, _info: &MediaInfo, _index: &FrameIndex, _range: Range<usize>, _options: &ReadOptions) -> Result<Self, MediaError> { unimplemented!() }
    /// What went wrong so far without ending the work.
    pub fn warnings(&self) -> Vec<Warning> { unimplemented!() }
    /// The index, after the last frame was read.
    pub fn into_index(self) -> Result<(FrameIndex, Vec<Warning>), MediaError> { unimplemented!() }
}
impl Iterator for FrameReader {
    type Item = Result<TimedFrame, MediaError>;
    fn next(&mut self) -> Option<Self::Item> { unimplemented!() }
}
/// Reads only the time stamps.
pub fn scan_index(_tools: &Tools, _info: &MediaInfo, _options: &ReadOptions) -> Result<(FrameIndex, Vec<Warning>), MediaError> { unimplemented!() }
