//! Layers shared by the networks: convolutions, normalisation and attention over the kernels of `syncdiff-kernels`.

mod conv;
pub mod conv_norm;
mod norm;
mod resample;

pub use conv::{Conv1x1, Conv3};
pub use norm::{GroupNorm, layer_norm};
pub use resample::{Part, resample};
pub use syncdiff_kernels::attention as attend;
