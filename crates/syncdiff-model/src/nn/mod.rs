//! Layers shared by the networks: convolutions and normalisation over the kernels of `syncdiff-kernels`,
//! and multi-head attention.

mod attention;
mod conv;
pub mod conv_norm;
mod norm;

pub use attention::attend;
pub use conv::{Conv1x1, Conv3, upsample_nearest_2x};
pub use norm::GroupNorm;
