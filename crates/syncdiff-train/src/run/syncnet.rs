//! The SyncNet's run.

use super::{Report, RunInputs};
use crate::error::TrainResult;
use crate::syncnet::{SyncNetTask, SyncNetTrainee};
use std::path::{Path, PathBuf};
use syncdiff_model::scorers::{AboutSyncNet, OwnSyncNet};

/// Name of the result in the run folder.
pub const SYNCNET_FILE: &str = "syncnet.safetensors";
/// Held-out clips that are looked at.
const VALID_CLIPS: usize = 64;

/// What [`syncnet`] reads beside the data.
#[derive(Clone, Copy, Debug, Default)]
pub struct SyncNetFiles<'a> {
    /// How far picture and sound of each clip are apart, a table of [`super::speech`]; clips that it lacks are not
    /// moved.
    pub offsets: Option<&'a Path>,
    /// Weights to start from.
    pub init_from: Option<&'a Path>,
}

/// Trains our SyncNet. Writes [`SYNCNET_FILE`] (f16), which names its seed, data and terms, into the run folder and
/// returns its path.
///
/// # Errors
/// Data or settings that cannot be used, a loss that is not finite, a folder that cannot be written.
pub fn syncnet(inputs: &RunInputs<'_>, files: &SyncNetFiles<'_>, report: Report<'_>) -> TrainResult<PathBuf> {
    let config = inputs.config;
    let settings = config.part("syncnet", &config.syncnet)?.clone();
    settings.check()?;
    let partners = inputs.begin_in_f32()?;
    let clips = inputs.talks("train", files.offsets)?;
    let valid = inputs.talks("valid", files.offsets)?.at_most(VALID_CLIPS);
    let device = inputs.differentiating();
    let net = match files.init_from {
        Some(path) => OwnSyncNet::load(path, &device)?,
        None => OwnSyncNet::new(&device),
    };
    let model = SyncNetTrainee::new(net, &device);
    let (batch_size, seed) = (config.options.batch_size, config.options.seed);
    let task = SyncNetTask::new(settings, batch_size, seed, device, &clips, &valid)?;
    let path = inputs.folder.join(SYNCNET_FILE);
    let Some(trained) = inputs.train(&task, model, partners, report)? else { return Ok(path) };
    let (data, licence) = clips.described();
    trained.shadow.net.save(&path, &AboutSyncNet { seed, steps: trained.step, data, licence })?;
    Ok(path)
}
