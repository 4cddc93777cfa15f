//! Numbers for generated videos, whatever system made them.
//!
//! ```text
//! faces  = measure_faces(reference)                 boxes, alignments, lips of every frame of the truth, once
//! pairs  = PairReader(generated, reference)         both clips frame by frame, never held whole
//! scored = score_clip(..)                           every figure of METRICS that was asked for, or why it is absent
//! row    = Row                                      one clip: figures, lengths, remarks; JSON and CSV
//! means  = summarise(rows)                          means over clips with bootstrap intervals
//! ```
//!
//! Networks that judge come in from outside as [`Instruments`]; one that is not there is a figure that is absent, with
//! the reason.

mod bootstrap;
mod clip;
mod eigen;
mod error;
mod faces;
mod figures;
mod frechet;
mod inputs;
mod judge;
mod lips;
mod listen;
mod metrics;
mod pairs;
mod paper;
mod perceptual;
mod picture;
mod plot;
mod read;
mod region;
mod row;
mod sheet;
mod summary;
mod words;

pub use bootstrap::{Interval, bootstrap};
pub use clip::{score_clip, truth_of};
pub use error::{EvalError, EvalResult};
pub use faces::{FaceSeries, Lips, measure_faces, read_frames};
pub use frechet::{FeatureStatistics, frechet_distance};
pub use inputs::{ClipInputs, Instruments, Maybe, Scored, Wanted};
pub use judge::{Judge, OwnJudge, SyncNetV2};
pub use lips::{MOST_LAG, best_correlation, correlation, deviation, motion, paired, shifted};
pub use listen::{Listener, Protocol};
pub use metrics::{Better, Group, METRICS, Metric, metric};
pub use pairs::{ClipFacts, PairReader};
pub use paper::{PAPER_COLUMNS, PAPER_TABLES, PaperColumn, PaperRow, PaperTable, VARIANCE_COLUMNS, paper_tables};
pub use perceptual::{LpipsMean, SMALLEST_LPIPS_SIDE};
pub use picture::{EQUAL_DB, mse, psnr, psnr_u8wrap, ssim};
pub use plot::{distribution, escape, speakers};
pub use read::{MouthReader, MouthWindow, Mouths, OwnReader, Reader};
pub use region::{CROP, PAPER_SIDE, Region, mouth, paper_crop, resized_bilinear};
pub use row::{Row, rounded};
pub use sheet::{SheetRow, contact_sheet};
pub use summary::{Mean, Summary, markdown, summarise};
pub use words::EditCounts;
