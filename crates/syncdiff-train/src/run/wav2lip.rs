//! Wav2Lip's run.

use super::{Report, RunInputs};
use crate::error::TrainResult;
use crate::wav2lip::{Wav2LipTask, Wav2LipTrainee};
use std::path::{Path, PathBuf};
use syncdiff_model::baselines::{AboutWav2Lip, Wav2LipLite};
use syncdiff_model::scorers::OwnSyncNet;
use syncdiff_model::weights::sha256_of_file;

/// Name of the result in the run folder.
pub const WAV2LIP_FILE: &str = "wav2lip.safetensors";

/// What [`wav2lip`] reads beside the data.
#[derive(Clone, Copy, Debug)]
pub struct Wav2LipFiles<'a> {
    /// Result of [`super::syncnet`], for the sync loss: not the one that will judge.
    pub syncnet: &'a Path,
    /// How far picture and sound of each clip are apart, a table of [`super::speech`]; clips that it lacks are not
    /// moved.
    pub offsets: Option<&'a Path>,
    /// Weights to start from.
    pub init_from: Option<&'a Path>,
}

/// Trains Wav2Lip at its small width. Writes [`WAV2LIP_FILE`] (f16), which names its seed, data, terms and the SyncNet
/// of its loss, into the run folder and returns its path.
///
/// # Errors
/// Data or settings that cannot be used, a loss that is not finite, a folder that cannot be written.
pub fn wav2lip(inputs: &RunInputs<'_>, files: &Wav2LipFiles<'_>, report: Report<'_>) -> TrainResult<PathBuf> {
    let config = inputs.config;
    let settings = config.part("wav2lip", &config.wav2lip)?.clone();
    settings.check()?;
    let partners = inputs.begin_in_f32()?;
    let (clips, valid) = (inputs.talks("train", files.offsets)?, inputs.talks("valid", files.offsets)?);
    let device = inputs.differentiating();
    let generator = match files.init_from {
        Some(path) => Wav2LipLite::load(path, &device)?,
        None => Wav2LipLite::new(&device),
    };
    let model = Wav2LipTrainee::new(generator, &settings, &device);
    let syncnet = OwnSyncNet::load(files.syncnet, &device)?;
    let (batch_size, seed) = (config.options.batch_size, config.options.seed);
    let task = Wav2LipTask::new(settings, batch_size, seed, device, syncnet, &clips, &valid)?;
    let path = inputs.folder.join(WAV2LIP_FILE);
    let Some(trained) = inputs.train(&task, model, partners, report)? else { return Ok(path) };
    let (data, licence) = clips.described();
    let syncnet = sha256_of_file(files.syncnet)?;
    trained.shadow.generator.save(&path, &AboutWav2Lip { seed, steps: trained.step, data, licence, syncnet })?;
    Ok(path)
}
