//! Files to frames, samples and time, and back, through ffmpeg child processes.
//!
//! The flow: [`probe`] tells what a file is; [`FrameReader`] streams its pictures with exact time
//! stamps and leaves a [`FrameIndex`]; [`decode_speech`] gives the 16 kHz copy that the model hears;
//! [`Plan`] says which source frame every output frame shows, and when; [`SourceWalk`] reads the
//! source in that order within bounded memory; [`VideoWriter`] encodes the result beside the
//! original sound and puts it in place only when it is whole.
//!
//! Frames are `u8` RGB, height x width x channel. Time is integer ticks on a rational base. This is
//! the only crate that starts processes; it knows no tensors and no faces.

mod decode;
mod encode;
mod error;
mod frame;
mod index;
mod info;
mod nut;
mod picture;
mod plan;
mod probe;
pub mod process;
mod reader;
mod sniff;
mod speech;
pub mod time;
mod tools;
mod walk;
mod wav;
mod writer;

pub use error::{Fault, MediaError, Warning};
pub use frame::Frame;
pub use index::FrameIndex;
pub use info::{AudioInfo, Colour, MAX_SIDE_PX, Matrix, MediaInfo, MediaKind, Orientation, VideoInfo};
pub use picture::{read_png, write_png};
pub use plan::{LengthPolicy, MAX_OUTPUT_HOURS, Plan, PlannedFrame};
pub use probe::probe;
pub use reader::{FrameReader, ReadOptions, TimedFrame, scan_index};
pub use speech::{Speech, decode_speech};
pub use time::{Rational, Time};
pub use tools::{ToolVersions, Tools};
pub use walk::{SourceWalk, WalkedFrame};
pub use wav::{read_wav, wav_bytes, write_wav};
pub use writer::{OddSize, Sound, VideoWriter, WriterOptions, Written};
