//! Reads the source in the order of a plan, forwards by streaming and backwards in windows.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use crate::error::MediaError;
use crate::frame::Frame;
use crate::index::FrameIndex;
use crate::info::MediaInfo;
use crate::plan::Plan;
use crate::reader::{FrameReader, ReadOptions};
use crate::tools::Tools;

/// Bytes that one window of pictures may take unless told otherwise.
const WINDOW_BYTES: usize = 64 << 20;
/// A window has at least so many frames, since each costs a new start of the decoder.
const MIN_WINDOW_FRAMES: usize = 4;

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

/// An iterator over the output frames of a plan. Memory is that of one window, whatever the length
/// of the clip. After an error the iterator ends.
pub struct SourceWalk {
    tools: Tools,
    info: MediaInfo,
    index: FrameIndex,
    plan: Plan,
    options: ReadOptions,
    window_bytes: usize,
    next: usize,
    end: usize,
    run: Option<ActiveRun>,
    /// All frames of a clip that fits into one window and is shown more than once.
    held: HashMap<usize, Arc<Frame>>,
}

/// The rest of a run in one direction.
struct ActiveRun {
    /// Output frames of the run that are still to come.
    left: usize,
    backwards: bool,
    reader: Option<FrameReader>,
    /// Frames of a backwards window, the next one last.
    window: Vec<Arc<Frame>>,
}

impl SourceWalk {
    /// Walks the output frames of a range (`0..plan.len()` for all).
    ///
    /// # Errors
    /// [`MediaError::Parameter`] for a range outside the plan.
    pub fn new(
        tools: &Tools,
        info: &MediaInfo,
        index: &FrameIndex,
        plan: &Plan,
        outputs: Range<usize>,
        options: &ReadOptions,
    ) -> Result<Self, MediaError> {
        if outputs.start > outputs.end || outputs.end > plan.len() {
            return Err(MediaError::Parameter {
                stage: "walk",
                detail: format!("frames {outputs:?} of an output of {} frames", plan.len()),
            });
        }
        Ok(SourceWalk {
            tools: tools.clone(),
            info: info.clone(),
            index: index.clone(),
            plan: plan.clone(),
            options: *options,
            window_bytes: WINDOW_BYTES,
            next: outputs.start,
            end: outputs.end,
            run: None,
            held: HashMap::new(),
        })
    }

    /// Sets the bytes that one window may take (64 MiB at first). Larger windows make walking
    /// backwards faster.
    pub fn with_window_bytes(mut self, bytes: usize) -> Self {
        self.window_bytes = bytes;
        self
    }

    /// How many frames one window holds.
    fn window_frames(&self) -> usize {
        let frame_bytes = self.info.video.as_ref().map_or(1, |v| v.width * v.height * 3).max(1);
        (self.window_bytes / frame_bytes).max(MIN_WINDOW_FRAMES)
    }

    /// Does the whole clip fit into a window, and is it shown more than once?
    fn holds_all(&self) -> bool {
        self.index.len() <= self.window_frames() && self.plan.len() > self.index.len()
    }

    fn read(&self, sources: Range<usize>) -> Result<FrameReader, MediaError> {
        FrameReader::open_range(&self.tools, &self.info, &self.index, sources, &self.options)
    }

    fn step(&mut self) -> Result<Option<WalkedFrame>, MediaError> {
        if self.next >= self.end {
            self.run = None;
            return Ok(None);
        }
        let Some(planned) = self.plan.get(self.next) else { return Ok(None) };
        let frame = match self.held.get(&planned.source) {
            Some(frame) => {
                self.run = None;
                Arc::clone(frame)
            }
            None => self.fetch(planned.source)?,
        };
        if self.holds_all() {
            self.held.insert(planned.source, Arc::clone(&frame));
        }
        self.next += 1;
        let (output, source, pts) = (planned.output, planned.source, planned.pts);
        Ok(Some(WalkedFrame { output, source, pts, frame }))
    }

    fn fetch(&mut self, source: usize) -> Result<Arc<Frame>, MediaError> {
        let mut run = match self.run.take() {
            Some(run) if run.left > 0 => run,
            _ => {
                let run = self.plan.run_at(self.next);
                let left = run.len.min(self.end - self.next);
                let reader = match run.backwards {
                    true => None,
                    false => Some(self.read(source..source + left)?),
                };
                ActiveRun { left, backwards: run.backwards, reader, window: Vec::new() }
            }
        };
        if run.backwards && run.window.is_empty() {
            let count = run.left.min(self.window_frames());
            for frame in self.read(source + 1 - count..source + 1)? {
                run.window.push(Arc::new(frame?.frame));
            }
        }
        let frame = match &mut run.reader {
            Some(reader) => reader.next().transpose()?.map(|frame| Arc::new(frame.frame)),
            None => run.window.pop(),
        };
        run.left -= 1;
        self.run = Some(run);
        frame.ok_or_else(|| MediaError::Internal {
            stage: "walk",
            detail: format!("source frame {source} of {:?} was not read", self.info.path),
        })
    }
}

impl Iterator for SourceWalk {
    type Item = Result<WalkedFrame, MediaError>;

    fn next(&mut self) -> Option<Self::Item> {
        let step = self.step().transpose();
        if let Some(Err(_)) = &step {
            self.next = self.end;
            self.run = None;
        }
        step
    }
}
