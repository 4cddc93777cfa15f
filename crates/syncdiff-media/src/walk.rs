//! stub
use std::{ops::Range, sync::Arc};
use crate::{Frame, FrameIndex, MediaError, MediaInfo, Plan, ReadOptions, Tools};
/// One output frame with the source picture that it shows.
#[derive(Clone, Debug)]
pub struct WalkedFrame {
    /// Index in the output.
    pub output: usize,
    /// Index of the source frame.
    pub source: usize,
    /// Time stamp in the output, ticks of the plan's time base.
    pub pts: i64,
    /// The source picture.
    pub frame: Arc<Frame>,
}
/// Reads the source in plan order within bounded memory.
pub struct SourceWalk;
impl SourceWalk {
    /// Walks the output frames of a range (`0..plan.len()` for all).
    pub fn new(_tools: &Tools, _info: &MediaInfo, _index: &FrameIndex, _plan: &Plan, _outputs: Range<usize>, _options: &ReadOptions) -> Result<Self, MediaError> { unimplemented!() }
    /// Sets the bytes that one window of a backwards walk may take (default 64 MiB).
    pub fn with_window_bytes(self, _bytes: usize) -> Self { self }
}
impl Iterator for SourceWalk {
    type Item = Result<WalkedFrame, MediaError>;
    fn next(&mut self) -> Option<Self::Item> { unimplemented!() }
}
