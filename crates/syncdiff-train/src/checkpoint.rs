//! Full-state checkpoints: model, moving average, optimiser, position. Written to a temporary folder, flushed to disk,
//! then renamed, so that a folder under its final name is always whole.

use crate::best::Best;
use crate::error::{TrainError, TrainResult};
use crate::loss_scale::LossScale;
use burn::module::Module;
use burn::optim::ModuleOptimizer;
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::path::{Path, PathBuf};

/// Position of a run; everything else that is random is a function of the seed and the step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Position {
    /// Steps done.
    pub(crate) step: u64,
    /// Updates of the moving average done.
    pub(crate) ema_updates: u64,
    /// Wall-clock seconds of training so far, over all resumed parts.
    pub(crate) seconds: f64,
    /// The best checkpoint so far, this one included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) best: Option<Best>,
    /// Where gradients are f16.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) loss_scale: Option<LossScale>,
}

/// What a checkpoint restores.
pub(crate) struct Restored<M> {
    pub(crate) model: M,
    pub(crate) shadow: M,
    pub(crate) optimizer: ModuleOptimizer,
    pub(crate) position: Position,
}

/// Where they lie in the run folder.
const FOLDER: &str = "checkpoints";

/// Checkpoints of one run.
pub(crate) struct Checkpoints {
    folder: PathBuf,
    keep: usize,
}

impl Checkpoints {
    pub(crate) fn new(run: &Path, keep: usize) -> TrainResult<Self> {
        let folder = run.join(FOLDER);
        fs::create_dir_all(&folder).map_err(|e| TrainError::io(&folder, e))?;
        Ok(Self { folder, keep: keep.max(1) })
    }

    /// Whole checkpoints, oldest first.
    fn list(&self) -> TrainResult<Vec<PathBuf>> {
        let entries = fs::read_dir(&self.folder).map_err(|e| TrainError::io(&self.folder, e))?;
        let mut found: Vec<PathBuf> = entries
            .filter_map(|entry| entry.ok().map(|e| e.path()))
            .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("step-")))
            .collect();
        found.sort();
        Ok(found)
    }

    /// Saves, then removes what is older than the last `keep`, but for the best one.
    pub(crate) fn save<M: Module>(
        &self,
        model: &M,
        shadow: &M,
        optimizer: &ModuleOptimizer,
        position: &Position,
    ) -> TrainResult<()> {
        let partial = self.folder.join("partial");
        if partial.exists() {
            fs::remove_dir_all(&partial).map_err(|e| TrainError::io(&partial, e))?;
        }
        fs::create_dir(&partial).map_err(|e| TrainError::io(&partial, e))?;
        let save = |name: &str| partial.join(name);
        model.clone().save_file(save("model.bpk")).map_err(|e| TrainError::io(&partial, e))?;
        shadow.clone().save_file(save("ema.bpk")).map_err(|e| TrainError::io(&partial, e))?;
        optimizer.save(save("optimizer.bpk")).map_err(|e| TrainError::io(&partial, format!("{e:?}")))?;
        let text = toml::to_string(position).map_err(|e| TrainError::io(&partial, e))?;
        fs::write(save("position.toml"), text).map_err(|e| TrainError::io(&partial, e))?;
        for entry in fs::read_dir(&partial).map_err(|e| TrainError::io(&partial, e))?.flatten() {
            let path = entry.path();
            File::open(&path).and_then(|file| file.sync_all()).map_err(|e| TrainError::io(&path, e))?;
        }
        File::open(&partial).and_then(|dir| dir.sync_all()).map_err(|e| TrainError::io(&partial, e))?;
        let last = self.of_step(position.step);
        if last.exists() {
            fs::remove_dir_all(&last).map_err(|e| TrainError::io(&last, e))?;
        }
        fs::rename(&partial, &last).map_err(|e| TrainError::io(&last, e))?;
        File::open(&self.folder).and_then(|dir| dir.sync_all()).map_err(|e| TrainError::io(&self.folder, e))?;
        let all = self.list()?;
        let best = position.best.as_ref().map(|best| self.of_step(best.step));
        let old = &all[..all.len().saturating_sub(self.keep)];
        for old in old.iter().filter(|old| Some(*old) != best.as_ref()) {
            fs::remove_dir_all(old).map_err(|e| TrainError::io(old, e))?;
        }
        Ok(())
    }

    /// The checkpoint of a step, none for the beginning of a run.
    pub(crate) fn at<M: Module>(
        &self,
        step: u64,
        model: &M,
        optimizer: impl Fn() -> ModuleOptimizer,
    ) -> TrainResult<Option<Restored<M>>> {
        if step == 0 { Ok(None) } else { load(&self.of_step(step), model, optimizer()).map(Some) }
    }

    fn of_step(&self, step: u64) -> PathBuf {
        self.folder.join(format!("step-{step:010}"))
    }

    /// The newest checkpoint that loads; a damaged one is passed over for the one before it.
    pub(crate) fn latest<M: Module>(
        &self,
        model: &M,
        optimizer: impl Fn() -> ModuleOptimizer,
    ) -> TrainResult<Option<Restored<M>>> {
        let mut last_error = None;
        for folder in self.list()?.into_iter().rev() {
            match load(&folder, model, optimizer()) {
                Ok(restored) => return Ok(Some(restored)),
                Err(error) => last_error = Some(error),
            }
        }
        last_error.map_or(Ok(None), Err)
    }
}

/// Whether a run folder, which need not exist, has a whole checkpoint.
pub(crate) fn holds_checkpoint(run: &Path) -> TrainResult<bool> {
    let checkpoints = Checkpoints { folder: run.join(FOLDER), keep: 1 };
    Ok(checkpoints.folder.is_dir() && !checkpoints.list()?.is_empty())
}

fn load<M: Module>(folder: &Path, model: &M, optimizer: ModuleOptimizer) -> TrainResult<Restored<M>> {
    let text = fs::read_to_string(folder.join("position.toml")).map_err(|e| TrainError::io(folder, e))?;
    let position = toml::from_str(&text).map_err(|e| TrainError::io(folder, e))?;
    let shadow = model.valid();
    Ok(Restored {
        model: model.clone().try_load_file(folder.join("model.bpk")).map_err(|e| TrainError::io(folder, e))?,
        shadow: shadow.try_load_file(folder.join("ema.bpk")).map_err(|e| TrainError::io(folder, e))?,
        optimizer: optimizer
            .load(folder.join("optimizer.bpk"))
            .map_err(|e| TrainError::io(folder, format!("{e:?}")))?,
        position,
    })
}
