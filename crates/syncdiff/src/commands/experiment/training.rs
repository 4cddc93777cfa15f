//! The weights of a row: taken where they are finished, else trained.

use std::path::{Path, PathBuf};

use syncdiff::{Error, Outcome};
use syncdiff_model::weights::folder::TENSORS;
use syncdiff_train::run::{
    self, DiffusionFiles, MODEL_FOLDER, ModelChanges, RunConfig, RunInputs, WAV2LIP_FILE, Wav2LipFiles,
};
use syncdiff_train::{Stats, TrainError, TrainResult};

use super::args::Budget;
use super::plan::Variant;
use super::{Lab, train};
use crate::folders;
use crate::terminal::say;

const STAGE: &str = "experiment";
/// The configuration of Wav2Lip's training.
const WAV2LIP: &str = include_str!("../../../../../configs/lite/wav2lip.toml");
/// Steps that are timed where the budget is in hours; the first ones, which also warm up, do not count.
const TIMED_STEPS: u64 = 8;
const UNTIMED_STEPS: u64 = 3;
/// A number of steps that no timing reaches.
const ENDLESS: u64 = 1_000_000;

/// Weights, and where they come from in words.
pub(super) struct Trained {
    pub(super) weights: PathBuf,
    pub(super) how: String,
}

/// Which trainer.
#[derive(Clone, Copy)]
enum Trainer<'a> {
    Diffusion { autoencoder: &'a Path, speech: &'a Path },
    Wav2Lip { syncnet: &'a Path },
}

impl Lab<'_> {
    /// The weights folder of a variant.
    pub(super) fn variant(&self, variant: &Variant, folder: &Path) -> Outcome<Trained> {
        let none = ModelChanges::default();
        let changes = variant.changes.over(self.base.model.as_ref().unwrap_or(&none));
        let config = RunConfig { model: Some(changes), ..self.base.clone() };
        // A model that cannot be made says so before anything is read.
        config.model()?;
        let (autoencoder, speech) = (self.part(&self.args.autoencoder)?, self.part(&self.args.speech)?);
        let trainer = Trainer::Diffusion { autoencoder: &autoencoder, speech: &speech };
        self.trained(&config, folder, MODEL_FOLDER, trainer)
    }

    /// The weights of Wav2Lip.
    pub(super) fn wav2lip(&self, folder: &Path) -> Outcome<Trained> {
        let config = RunConfig { data: self.base.data.clone(), ..RunConfig::from_toml(WAV2LIP)? };
        if folder.join(WAV2LIP_FILE).is_file() {
            return self.finished(&config, folder, WAV2LIP_FILE);
        }
        let Some(syncnet) = self.args.syncnet.as_deref() else {
            return Err(Error::usage(
                "Wav2Lip needs a SyncNet for its loss, which must not be the judge",
                "give --syncnet with a result of `train syncnet` of another seed, or --outputs Wav2Lip=DIR",
            ));
        };
        self.trained(&config, folder, WAV2LIP_FILE, Trainer::Wav2Lip { syncnet })
    }

    /// A file that all rows start from: the one given, else what the preset's weights hold.
    pub(super) fn part(&self, given: &Option<PathBuf>) -> Outcome<PathBuf> {
        match given {
            Some(file) => Ok(file.clone()),
            None => Ok(folders::require_preset(&self.base.preset)?.join(TENSORS)),
        }
    }

    fn trained(&self, config: &RunConfig, folder: &Path, result: &str, trainer: Trainer<'_>) -> Outcome<Trained> {
        if folder.join(result).exists() {
            return self.finished(config, folder, result);
        }
        let Some(budget) = self.args.budget.filter(|_| !self.args.eval_only) else {
            let what = format!("{folder:?} has no finished weights, and --eval-only trains none");
            return Err(Error::usage(what, "run the same command without --eval-only"));
        };
        let mut config = config.clone();
        config.options.steps = match (budget, begun(folder)?) {
            (Budget::Steps(steps), _) => steps,
            (Budget::Hours(_), Some(begun)) => begun.options.steps,
            (Budget::Hours(hours), None) => {
                let secs = self.secs_a_step(&config, folder, trainer)?;
                let steps = (hours * 3600.0 / secs).max(1.0) as u64;
                say(&format!("{secs:.2} s a step: {steps} steps in {hours} h"));
                steps
            }
        };
        let mut last = 0.0;
        let mut report = |stats: &Stats| {
            say(&train::line(stats));
            last = stats.seconds;
            self.cancel.check().is_ok()
        };
        let weights = self.run(&config, folder, trainer, &mut report).map_err(stopped)?;
        Ok(Trained { weights, how: format!("trained: {} steps, {last:.0} s", config.options.steps) })
    }

    /// Weights of an earlier run, if they are those of this row.
    fn finished(&self, config: &RunConfig, folder: &Path, result: &str) -> Outcome<Trained> {
        let Some(before) = begun(folder)? else {
            let what = format!("{folder:?} has weights, but no configuration that says how they were trained");
            return Err(Error::usage(what, "name another --out"));
        };
        let steps = before.options.steps;
        let mut wanted = config.clone();
        wanted.options.steps = steps;
        if before != wanted {
            let what = format!("{folder:?} holds weights of another configuration");
            return Err(Error::usage(what, "name another --out, or the --config of the earlier run"));
        }
        match self.args.budget {
            Some(Budget::Steps(budget)) if budget != steps && !self.args.eval_only => Err(Error::usage(
                format!("{folder:?} holds weights of {steps} steps, the budget is {budget}"),
                "name another --out, or take them with --eval-only",
            )),
            _ => Ok(Trained { weights: folder.join(result), how: format!("trained before: {steps} steps") }),
        }
    }

    /// Seconds of a training step here and now, from a run of a few that leaves nothing but the latents.
    fn secs_a_step(&self, config: &RunConfig, folder: &Path, trainer: Trainer<'_>) -> Outcome<f64> {
        let mut config = config.clone();
        let options = &mut config.options;
        (options.steps, options.log_every, options.checkpoint_every) = (ENDLESS, 1, ENDLESS);
        let place = folder.with_extension("timing");
        let mut times = Vec::new();
        let mut report = |stats: &Stats| {
            times.push(stats.seconds);
            stats.step < TIMED_STEPS && self.cancel.check().is_ok()
        };
        let ended = self.run(&config, &place, trainer, &mut report);
        // Only room is lost if it stays.
        let _ = std::fs::remove_dir_all(&place);
        self.cancel.check()?;
        match (ended, &times[..]) {
            (Err(TrainError::Stopped { .. }), [.., last]) if times.len() as u64 >= TIMED_STEPS => {
                let from = times[UNTIMED_STEPS as usize - 1];
                Ok(((*last - from) / (TIMED_STEPS - UNTIMED_STEPS) as f64).max(1e-6))
            }
            (Err(error), _) => Err(error.into()),
            (Ok(_), _) => Err(Error::Internal { stage: STAGE, detail: "the timed run did not stop".into() }),
        }
    }

    fn run(
        &self,
        config: &RunConfig,
        folder: &Path,
        trainer: Trainer<'_>,
        report: &mut dyn FnMut(&Stats) -> bool,
    ) -> TrainResult<PathBuf> {
        let clock = || self.started.elapsed().as_secs_f64();
        let inputs = RunInputs {
            config,
            data: &self.data,
            folder,
            device: &self.device,
            clock: &clock,
            share: None,
            resume: false,
        };
        let offsets = self.args.offsets.as_deref();
        match trainer {
            Trainer::Diffusion { autoencoder, speech } => {
                let latents = self.args.out.join("latents");
                let files = DiffusionFiles {
                    autoencoder,
                    speech,
                    offsets,
                    latents: &latents,
                    init_from: None,
                    syncnet: None,
                    lpips: None,
                };
                run::diffusion(&inputs, &files, &self.licence(), report)
            }
            Trainer::Wav2Lip { syncnet } => {
                run::wav2lip(&inputs, &Wav2LipFiles { syncnet, offsets, init_from: None }, report)
            }
        }
    }

    /// Terms of what is learnt from, which are those of the weights.
    fn licence(&self) -> String {
        let mut terms: Vec<&str> = self.data.clips().iter().map(|clip| &clip.licence[..]).collect();
        terms.sort_unstable();
        terms.dedup();
        terms.retain(|terms| !terms.is_empty());
        if terms.is_empty() { "unspecified".into() } else { terms.join("; ") }
    }
}

/// The configuration of the run in a folder, none where no run has begun.
fn begun(folder: &Path) -> Outcome<Option<RunConfig>> {
    let path = folder.join("config.toml");
    match std::fs::read_to_string(&path) {
        Ok(text) => RunConfig::from_toml(&text).map(Some).map_err(|error| {
            let what = format!("{path:?} is no configuration of this version: {error}");
            Error::usage(what, "name another --out, or finish it with the version that began it")
        }),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(TrainError::Io { path, reason: error.to_string() }.into()),
    }
}

/// A run that was asked to stop is no fault of its row.
fn stopped(error: TrainError) -> Error {
    match error {
        TrainError::Stopped { .. } => Error::Cancelled,
        error => error.into(),
    }
}
