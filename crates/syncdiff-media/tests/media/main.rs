//! The crate against real files: made by ffmpeg's own sources, and clips of the shared data.

mod hostile;
mod read;
mod support;
mod wild;
mod write;
