//! Layers shared by the networks: convolutions, linear layers, normalisation and attention over the kernels of `syncdiff-kernels`.

mod conv;
pub mod conv_norm;
pub(crate) mod layer;
mod linear;
mod norm;
mod resample;

pub use conv::{Conv1x1, Conv3};
pub use linear::linear;
pub use norm::{GroupNorm, layer_norm};
pub use resample::{Part, resample};
pub use syncdiff_kernels::{AdamWStep, adamw, attention as attend, in_pool};
