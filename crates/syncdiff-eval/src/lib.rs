//! Numbers for generated videos: picture quality and lip movement against a reference.

mod compare;
mod eigen;
mod error;
mod frechet;
mod lips;
mod picture;
mod sheet;
mod words;

pub use compare::{CROP, ClipFigures, FaceSeries, MOST_LAG, Reference, compare, measure_faces, mouth, read_frames};
pub use error::{EvalError, EvalResult};
pub use frechet::{FeatureStatistics, frechet_distance};
pub use lips::{best_correlation, correlation, motion, paired, shifted};
pub use picture::{mse, psnr, psnr_u8wrap, ssim};
pub use sheet::{SheetRow, contact_sheet};
pub use words::EditCounts;
