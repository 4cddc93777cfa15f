//! Networks, diffusion maths and weights of syncdiff: tensors in, tensors out.
//!
//! This room reads no media, clock or environment; its only files are weights.

pub mod audio;
pub mod autoencoder;
pub mod baselines;
pub mod cost;
pub mod denoiser;
pub mod diffusion;
pub mod error;
pub mod generate;
pub mod lipsync;
pub mod nn;
pub mod official;
pub mod precision;
pub mod preset;
pub mod reader;
pub mod scorers;
pub mod unet;
pub mod video;
pub mod weights;

pub use error::{Fault, ModelError, ModelResult};
pub use generate::{FrameGenerator, FrameSampler, Speaker};
pub use lipsync::{LipSync, SpeechTokens};
pub use precision::Precision;
pub use preset::LipSyncConfig;
