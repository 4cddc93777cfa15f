//! Whole training runs: a configuration, a folder of prepared data and a run folder in, weights out.
//!
//! The chain is [`autoencoder`], [`speech`], [`diffusion`]: the third needs the results of the first two. [`student`]
//! distils the result into one that needs few steps. [`pretrain`] may come before [`speech`]. [`syncnet`] makes judges,
//! and networks for a loss; [`wav2lip`] makes what the model is compared with; [`reader`] makes what reads words off
//! its lips. A run folder holds `config.toml`, `stats.jsonl`, `checkpoints/` and, when the last step is done, the
//! weights. Starting a run in a folder that has checkpoints goes on where they stop; `samples/` shows held-out pictures.

mod autoencoder;
mod config;
mod diffusion;
mod encoder;
mod plan;
mod pretrain;
mod reader;
mod speech;
mod student;
mod syncnet;
mod talks;
mod variant;
mod wav2lip;

pub use autoencoder::{AUTOENCODER_FILE, AutoencoderFiles, autoencoder};
pub use config::{DataSettings, RunConfig};
pub use diffusion::{DiffusionFiles, MODEL_FOLDER, diffusion};
pub use plan::{RunPlan, Stage, plan};
pub use pretrain::{CLUSTERS_FILE, PRETRAIN_FILE, PretrainFiles, pretrain};
pub use reader::{READER_FILE, reader};
pub use speech::{OFFSETS_FILE, SPEECH_FILE, SpeechFiles, speech};
pub use student::{StudentFiles, student};
pub use syncnet::{SYNCNET_FILE, SyncNetFiles, syncnet};
pub use variant::{FeaturesName, MaskName, ModelChanges, PriorsName};
pub use wav2lip::{WAV2LIP_FILE, Wav2LipFiles, wav2lip};

use crate::checkpoint::holds_checkpoint;
use crate::error::{TrainError, TrainResult};
use crate::exchange::{Partners, Share};
use crate::options::only_f32;
use crate::trainer::{Clock, Stats, Task, Trained, train_together};
use burn::module::Module;
use burn::tensor::Device;
use std::collections::BTreeMap;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;
use syncdiff_data::Dataset;
use talks::PreparedTalks;

/// What every run is given.
pub struct RunInputs<'a> {
    /// The stage's configuration.
    pub config: &'a RunConfig,
    /// Prepared data.
    pub data: &'a Dataset,
    /// Run folder; created when absent.
    pub folder: &'a Path,
    /// Where to train, without automatic differentiation (it is added here).
    pub device: &'a Device,
    /// Monotonic seconds.
    pub clock: Clock<'a>,
    /// This process's share of a run over several; `None` for a run of one. It is no part of the configuration: the
    /// weights do not depend on it.
    pub share: Option<Share>,
    /// Refuse to begin anew: the run folder must hold a checkpoint to go on from.
    pub resume: bool,
}

impl<'a> RunInputs<'a> {
    /// As [`RunInputs::begin`], for networks that compute in f32 only.
    fn begin_in_f32(&self) -> TrainResult<Option<Partners<'a>>> {
        only_f32(self.config.options.precision)?;
        self.begin()
    }

    /// Creates the run folder and writes the configuration into it, whose settings were checked; a folder of another
    /// configuration is refused (only the number of steps may grow). Then joins the other processes of the run, if
    /// there are any.
    fn begin(&self) -> TrainResult<Option<Partners<'a>>> {
        if self.resume && !holds_checkpoint(self.folder)? {
            return Err(TrainError::Parameter {
                name: "resume",
                value: self.folder.display().to_string(),
                allowed: "holds no checkpoint to go on from; name the run folder that does, or leave --resume out to \
                          begin anew"
                    .into(),
            });
        }
        self.config.options.precision.check_learning(self.device)?;
        fs::create_dir_all(self.folder).map_err(|e| TrainError::io(self.folder, e))?;
        if self.leads() {
            self.claim()?;
        }
        let join = |share| Partners::join(self.folder, share, self.identity()?, self.config.options.steps, self.clock);
        self.share.map(join).transpose()
    }

    /// Whether this process writes log, checkpoints and results.
    fn leads(&self) -> bool {
        self.share.is_none_or(|share| share.rank == 0)
    }

    /// What processes of one run have in common.
    fn identity(&self) -> TrainResult<BTreeMap<String, String>> {
        let mut clips = DefaultHasher::new();
        for clip in self.data.clips() {
            (&clip.clip, &clip.split, &clip.content).hash(&mut clips);
        }
        let parts = [
            ("version of the program", env!("CARGO_PKG_VERSION").to_owned()),
            ("configuration", self.config.to_toml()?),
            ("set of prepared clips", format!("{:016x}", clips.finish())),
        ];
        Ok(parts.map(|(name, value)| (name.to_owned(), value)).into())
    }

    fn claim(&self) -> TrainResult<()> {
        let path = self.folder.join("config.toml");
        if path.exists() {
            let text = fs::read_to_string(&path).map_err(|e| TrainError::io(&path, e))?;
            let mut before = RunConfig::from_toml(&text)?;
            before.options.steps = self.config.options.steps;
            if before != *self.config {
                return Err(TrainError::Parameter {
                    name: "config",
                    value: path.display().to_string(),
                    allowed: "the run folder belongs to another configuration; choose a new folder".into(),
                });
            }
        }
        fs::write(&path, self.config.to_toml()?).map_err(|e| TrainError::io(&path, e))
    }

    /// The device with automatic differentiation, its generator at the run's seed.
    fn differentiating(&self) -> Device {
        let device = self.device.clone().autodiff();
        let device = match self.config.options.checkpoint_activations {
            true => device.gradient_checkpointing(),
            false => device,
        };
        device.seed(self.config.options.seed);
        device
    }

    /// The split's clips with their sound, moved by a table of offsets.
    fn talks(&self, split: &str, offsets: Option<&Path>) -> TrainResult<PreparedTalks<'a>> {
        PreparedTalks::new(self.data, self.config.data.choose(self.data, split)?, offsets)
    }

    /// Trains to the last step; `None` for a process whose rank is not 0, and which has no result to write.
    fn train<M: Module + Sync + 'static>(
        &self,
        task: &impl Task<M>,
        model: M,
        mut partners: Option<Partners<'_>>,
        report: Report<'_>,
    ) -> TrainResult<Option<Trained<M>>> {
        let options = &self.config.options;
        let trained = train_together(task, model, options, self.folder, self.clock, partners.as_mut(), report)?;
        // Results are written by a whole run only.
        if trained.step < options.steps {
            return Err(TrainError::Stopped { step: trained.step, steps: options.steps });
        }
        Ok(self.leads().then_some(trained))
    }
}

/// Called with every line of the log; `false` ends the run after a checkpoint.
pub type Report<'a> = &'a mut dyn FnMut(&Stats) -> bool;
