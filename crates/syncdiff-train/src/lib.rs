//! Losses, trainers, checkpoints and resume.
//!
//! One loop ([`train`]) serves every model; a [`Task`] says what a step's loss is. Everything random is a function of
//! the seed and the step, so that a resumed run repeats an uninterrupted one.

mod autoencoder;
mod checkpoint;
mod error;
mod gradients;
mod images;
mod options;
mod trainer;

pub use autoencoder::{AutoencoderTask, AutoencoderTraining, FrameSource};
pub use error::{TrainError, TrainResult};
pub use options::TrainOptions;
pub use trainer::{Clock, Stats, StepLoss, Task, Trained, train};
