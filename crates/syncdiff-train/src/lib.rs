//! Losses, trainers, checkpoints and resume.
//!
//! One loop ([`train`]) serves every model; a [`Task`] says what a step's loss is. Everything random is a function of
//! the seed and the step, so that a resumed run repeats an uninterrupted one.

mod autoencoder;
mod checkpoint;
mod diffusion;
mod error;
mod gradients;
mod images;
mod options;
pub mod run;
mod seeds;
mod speech;
mod trainer;

pub use autoencoder::{AutoencoderTask, AutoencoderTraining, FrameSource};
pub use diffusion::{DenoiserStage, DiffusionTask, DiffusionTraining, LatentClip, Sizes, position_weights};
pub use error::{TrainError, TrainResult};
pub use options::TrainOptions;
pub use speech::{
    ClipOffset, LIP_VALUES, LipReader, SpeechAugmentation, SpeechClip, SpeechTask, SpeechTraining, read_offsets,
    write_offsets,
};
pub use trainer::{Clock, Shard, Stats, StepLoss, Task, Trained, train};
