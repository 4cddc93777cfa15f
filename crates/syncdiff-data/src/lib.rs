//! Clips on disk to aligned, indexed training samples.
//!
//! The flow: [`read_inputs`] lists the clips of LRS2, LRS3, a table or a folder; [`prepare`] turns each into aligned
//! crops, geometry, landmarks and speech on the 25 fps time line, packs them into shards, and writes a report with a
//! verdict for every clip; [`synthesize`] draws clips of its own instead; [`Dataset`] opens the result; a [`Sampler`]
//! says which frames make training sample `i` of a step; [`Look`], [`ColourJitter`] and the functions of [`augment`] vary
//! them; [`LatentStore`] keeps what frozen networks make of a clip.
//!
//! Everything handed out is plain slices: this crate knows no tensors, no training and no
//! evaluation.

// What a prepared clip is made of, for those who learn from it: its picture type, its masks, its lip landmarks.
pub use syncdiff_face::lips::LIP_POINTS;
pub use syncdiff_face::{FaceError, KeepMask, KeepMaskKind};
pub use syncdiff_media::{Frame, write_png};

mod atomic;
pub mod augment;
mod clip;
mod container;
mod dataset;
mod error;
mod index;
mod latents;
mod layout;
mod look;
mod manifest;
mod mirror;
mod prepare;
mod rng;
mod sample;
mod shard;
mod synthetic;

pub use augment::{ColourJitter, JitterRanges};
pub use clip::{CLIP_FORMAT, Clip, ClipArrays, ClipMeta};
pub use dataset::{ClipFilter, Dataset};
pub use error::{DataError, Fault};
pub use index::{ClipEntry, ClipQuality, ClipSync, INDEX_FILE};
pub use latents::{LatentKey, LatentStore, LatentType, Latents};
pub use layout::{Inputs, Layout, read_inputs, read_transcript, split_of_speaker};
pub use look::{Look, seed_of_clip};
pub use manifest::{ClipSource, read_manifest};
pub use mirror::MIRRORED_LANDMARK;
pub use prepare::{
    ClipReport, DEFAULT_SHARD_BYTES, PrepareOptions, PrepareReport, Progress, ProgressFn, QualityLimits, REPORT_FILE,
    SUMMARY_FILE, Summary, SyncJudge, Verdict, prepare, repack,
};
pub use rng::Draws;
pub use sample::{Balance, Sample, SampleOptions, SampleSpec, Sampler};
pub use synthetic::{SyntheticClip, SyntheticOptions, Voice, synthesize, synthesize_media};
