//! Losses, trainers, checkpoints and resume.
//!
//! One loop ([`train`]) serves every model; a [`Task`] says what a step's loss is. Everything random is a function of
//! the seed and the step, so that a resumed run repeats an uninterrupted one.

mod adamw;
mod autoencoder;
mod best;
mod checkpoint;
mod diffusion;
mod error;
mod events;
mod exchange;
mod gradients;
mod images;
mod loss_scale;
mod options;
mod pretrain;
mod reader;
pub mod run;
mod seeds;
mod sheet;
mod speech;
mod syncnet;
mod talk;
mod trainer;
mod wav2lip;

pub use autoencoder::{AutoencoderTask, AutoencoderTrainee, AutoencoderTraining, FrameSource};
pub use best::{Best, Measure};
pub use diffusion::{
    DenoiserStage, DiffusionTask, DiffusionTraining, EstimateNets, EstimateTraining, EstimateWeighting, LatentClip,
    STUDENT_SAMPLER, SheetDrawing, Sizes, StudentStage, StudentTask, StudentTraining, position_weights,
};
pub use error::{TrainError, TrainResult};
pub use exchange::{Partners, Share};
pub use options::TrainOptions;
pub use pretrain::{PretrainTask, PretrainTraining, Pretrainee, SoundClusters};
pub use reader::{ReaderTask, ReaderTraining};
pub use sheet::SampleSheet;
pub use speech::{
    ClipOffset, LIP_VALUES, LipReader, SpeechAugmentation, SpeechClip, SpeechTask, SpeechTraining, read_offsets,
    write_offsets,
};
pub use syncnet::{SyncNetTask, SyncNetTrainee, SyncNetTraining};
pub use talk::{TalkSource, TalkingClip};
pub use trainer::{Clock, Shard, Stats, StepLoss, Task, Trained, train, train_together};
pub use wav2lip::{Wav2LipTask, Wav2LipTrainee, Wav2LipTraining};
