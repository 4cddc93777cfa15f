//! Detect, track, align and mask faces, and paste them back: one geometry, both directions.
//!
//! The flow: [`FaceModels`] are read from disk; a [`Tracker`] is shown the frames of a clip in order
//! and says for each which faces it holds; a [`TrackTable`] keeps a few tens of bytes per frame and
//! face; a [`FaceChoice`] picks one track; its [`Alignment`], smoothed over time, gives for each
//! frame the map `crop_from_frame`; [`warp`] cuts the aligned crop, a [`KeepMask`] hides the mouth,
//! and [`paste_back`] puts a generated crop into the frame, leaving every pixel outside the
//! feathered region as it was.
//!
//! Pixel centres lie at integer coordinates. Frames are `u8` RGB. This crate knows no audio, no
//! tensors and no codec.

mod affine;
mod align;
mod choice;
mod colour;
mod cut;
mod detect;
mod error;
pub mod lips;
mod mask;
mod mesh;
mod models;
mod outline;
mod paste;
mod record;
mod sample;
mod search;
mod skin;
mod smooth;
mod table;
pub mod tflite;
mod tracker;
mod warp;

pub use affine::{Affine, FaceBox, Point};
pub use align::{RIGID_POINTS, TEMPLATE, unit_from_frame};
pub use choice::FaceChoice;
pub use colour::ColourMatch;
pub use cut::CutDetector;
pub use detect::{Detection, Detector, DetectorKind};
pub use error::{FaceError, Fault};
pub use mask::{DEFAULT_KEEP_MASK, KeepMask, KeepMaskKind};
pub use mesh::{Mesh, MeshNet, NUM_LANDMARKS, Roi};
pub use models::{FaceModels, MODEL_FILES, ModelFile, WHEEL, WHEEL_VERSION};
pub use outline::{NUM_RAYS, ORIGIN, Outline, OutlineMask};
pub use paste::{PasteMask, Tone, Touched, paste_back, touched_pixels};
pub use record::FaceRecord;
pub use skin::SkinMatch;
pub use smooth::{Alignment, SmoothOptions};
pub use table::{Track, TrackTable};
pub use tracker::{FacesInFrame, TrackedFace, Tracker, TrackerOptions};
pub use warp::warp;

#[cfg(test)]
mod golden;
#[cfg(test)]
mod paste_tests;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tracker_tests;
