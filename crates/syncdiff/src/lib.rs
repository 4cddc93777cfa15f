//! The pipeline of syncdiff: rooms put in a row, from a clip and a speech to a clip that speaks.
//!
//! [`pipeline::generate`] is the whole program on one page. Around it: [`tracking`] is its first pass (faces of every
//! frame, a few tens of bytes each), [`cast`] says who speaks in which shot, [`render`] its second (frames in, frames
//! out, on three threads within bounded memory), [`timeline`] and [`silence`] say which mouth goes where, [`report`]
//! tells what was done. An [`engine`] holds the networks, read once for however many clips, and where several are made
//! at once, [`together`] draws their mouths as one batch. [`scan`] is the first pass alone. [`cache`] keeps what was found out for later runs.
//! [`device`] is the only place that knows back ends, [`memory`] says what happens when one has no memory left.
//!
//! ```no_run
//! use syncdiff::device::DeviceChoice;
//! use syncdiff::progress::Watch;
//! use syncdiff::{Engine, GenerateSettings, ModelSettings, generate};
//! use syncdiff_media::Tools;
//!
//! let engine = Engine::new(&ModelSettings::new("models/lite".into(), "models/face".into(), DeviceChoice::Auto))?;
//! for name in ["a", "b"] {
//!     let file = |ending: &str| format!("{name}{ending}").into();
//!     let clip = GenerateSettings::new(file(".mp4"), file(".wav"), file(".out.mp4"));
//!     println!("{} frames", generate(&engine, &Tools::default(), &clip, &mut Watch::silent())?.output.frames);
//! }
//! # Ok::<(), syncdiff::Error>(())
//! ```
//!
//! Nothing here prints, exits or reads the environment; the binary does.

pub mod cache;
pub mod cast;
pub mod clock;
pub mod device;
pub mod engine;
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
pub(crate) mod together;
pub mod tracking;
pub mod wav2lip;

pub use engine::Engine;
pub use error::{Error, Outcome};
pub use pipeline::generate;
pub use settings::{GenerateSettings, ModelSettings};

/// Version of the program.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Commit that the program was built from, with `+changes` behind it where its sources differed; none where the build
/// did not know.
pub const COMMIT: Option<&str> = option_env!("SYNCDIFF_COMMIT");
