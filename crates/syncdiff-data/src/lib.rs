//! Clips on disk to aligned, indexed training samples.
//!
//! The flow: [`read_manifest`] or [`scan_folder`] lists the clips; [`prepare`] turns each into one
//! file of aligned crops, geometry, landmarks and speech on the 25 fps time line, and writes a
//! report with a verdict for every clip; [`Dataset`] opens the result; a [`Sampler`] says which
//! frames make training sample `i` of a step; [`ColourJitter`] and the functions of [`augment`]
//! vary them; [`LatentStore`] keeps what a frozen autoencoder makes of the crops.
//!
//! Everything handed out is plain slices: this crate knows no tensors, no training and no
//! evaluation.

// What a prepared clip is made of, for those who learn from it: its picture type, its masks, its lip landmarks.
pub use syncdiff_face::lips::LIP_POINTS;
pub use syncdiff_face::{KeepMask, KeepMaskKind};
pub use syncdiff_media::Frame;

mod atomic;
pub mod augment;
mod clip;
mod container;
mod dataset;
mod error;
mod index;
mod latents;
mod manifest;
mod mirror;
mod prepare;
mod rng;
mod sample;

pub use augment::{ColourJitter, JitterRanges};
pub use clip::{CLIP_FORMAT, Clip, ClipArrays, ClipMeta};
pub use dataset::{ClipFilter, Dataset};
pub use error::{DataError, Fault};
pub use index::{ClipEntry, INDEX_FILE};
pub use latents::{LatentKey, LatentStore, LatentType, Latents};
pub use manifest::{ClipSource, read_manifest, scan_folder};
pub use mirror::MIRRORED_LANDMARK;
pub use prepare::{ClipReport, PrepareOptions, PrepareReport, Progress, REPORT_FILE, Verdict, prepare};
pub use rng::Draws;
pub use sample::{Balance, Sample, SampleOptions, SampleSpec, Sampler};
