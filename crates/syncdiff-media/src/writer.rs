//! stub
use std::{path::{Path, PathBuf}, time::Duration};
use crate::{Colour, Frame, MediaError, MediaInfo, Plan, Tools};
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
    /// Constant rate factor of x264, 0 (lossless) to 51; 18 is hard to tell from the source.
    pub crf: u8,
    /// Preset of x264, from `ultrafast` to `veryslow`.
    pub preset: String,
    /// Odd sizes.
    pub odd_size: OddSize,
    /// Colour description; by the picture's size if none is given.
    pub colour: Option<Colour>,
    /// May the sound be re-used as it is where it fits? Otherwise it is always encoded anew.
    pub copy_sound: bool,
    /// Longest wait for the encoder to take a frame.
    pub stall: Duration,
}
impl Default for WriterOptions {
    fn default() -> Self {
        WriterOptions { crf: 18, preset: "medium".into(), odd_size: OddSize::Pad, colour: None, copy_sound: true, stall: Duration::from_secs(60) }
    }
}
/// The sound of the output: the audio track of a probed file, aligned as [`crate::decode_speech`]
/// aligns it, cut or padded with silence to the plan's end.
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
    /// Stored size (differs from the frames for odd sizes).
    pub size: (usize, usize),
    /// Was the sound re-used as it is? None without sound.
    pub sound_copied: Option<bool>,
}
/// Encodes frames into a file that appears only when it is whole.
pub struct VideoWriter;
impl VideoWriter {
    /// Starts the encoder for the frames of a plan.
    pub fn create(_tools: &Tools, _path: &Path, _size: (usize, usize), _plan: &Plan, _sound: Option<&Sound>, _options: &WriterOptions) -> Result<Self, MediaError> { unimplemented!() }
    /// Adds the next frame; time stamps rise strictly and start at 0, in ticks of the plan's base.
    pub fn push(&mut self, _frame: &Frame, _pts: i64) -> Result<(), MediaError> { unimplemented!() }
    /// Ends the stream, waits for the encoder, and puts the file in place.
    pub fn finish(self) -> Result<Written, MediaError> { unimplemented!() }
}
