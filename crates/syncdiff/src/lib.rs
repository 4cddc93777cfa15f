//! The pipeline of syncdiff: rooms put in a row, from a clip and a speech to a clip that speaks.
//!
//! [`pipeline::generate`] is the whole program on one page. Around it: [`tracking`] is its first pass (faces of every
//! frame, a few tens of bytes each), [`cast`] says who speaks in which shot, [`render`] its second (frames in, frames
//! out, on three threads within bounded memory), [`timeline`] and [`silence`] say which mouth goes where, [`report`]
//! tells what was done. [`scan`] is the first pass alone. [`cache`] keeps what was found out for later runs.
//! [`device`] is the only place that knows back ends, [`memory`] says what happens when one has no memory left.
//!
//! Nothing here prints, exits or reads the environment; the binary does.

pub mod cache;
pub mod cast;
pub mod clock;
pub mod device;
pub mod error;
pub mod files;
pub mod memory;
pub mod mouth;
pub mod network;
pub mod pipeline;
pub mod preview;
pub mod progress;
pub mod render;
pub mod report;
pub mod scan;
pub mod settings;
pub mod silence;
pub mod sink;
pub mod source;
pub mod timeline;
pub mod tracking;
pub mod wav2lip;

pub use error::{Error, Outcome};
pub use pipeline::generate;
pub use settings::GenerateSettings;

/// Version of the program.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Commit that the program was built from, with `+changes` behind it where its sources differed; none where the build
/// did not know.
pub const COMMIT: Option<&str> = option_env!("SYNCDIFF_COMMIT");
