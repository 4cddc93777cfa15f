//! Numbers for generated videos: picture quality and lip movement against a reference.

mod compare;
mod error;
mod lips;
mod picture;
mod sheet;

pub use compare::{CROP, ClipFigures, FaceSeries, Reference, compare, measure_faces, mouth, read_frames};
pub use error::{EvalError, EvalResult};
pub use lips::{correlation, motion, shifted};
pub use picture::{mse, psnr, psnr_u8wrap, ssim};
pub use sheet::{SheetRow, contact_sheet};
