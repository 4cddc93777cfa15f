//! The run of the speech encoder's pre-training.

use super::talks::PreparedTalks;
use super::{Report, RunInputs};
use crate::error::{TrainError, TrainResult};
use crate::pretrain::{PretrainTask, PretrainTraining, Pretrainee, SoundClusters};
use std::path::{Path, PathBuf};
use syncdiff_model::audio::AudioEncoderConfig;
use syncdiff_model::weights::{Storage, folder::save_safetensors, open_safetensors};

/// Name of the result in the run folder.
pub const PRETRAIN_FILE: &str = "pretrain.safetensors";
/// Name of the clusters, and of the labels of all clips.
pub const CLUSTERS_FILE: &str = "clusters.safetensors";
/// Held-out clips that are looked at.
const VALID_CLIPS: usize = 64;

/// What [`pretrain`] reads beside the data.
#[derive(Clone, Copy, Debug, Default)]
pub struct PretrainFiles<'a> {
    /// An earlier result, whose hidden rows are clustered; without it, cepstra are.
    pub clusters_from: Option<&'a Path>,
    /// How far picture and sound of each clip are apart, a table of [`super::speech`]; clips that it lacks are not
    /// moved.
    pub offsets: Option<&'a Path>,
    /// Weights to start from.
    pub init_from: Option<&'a Path>,
}

/// Pre-trains the speech encoder of a model without Moonshine. Clusters are made once, at the start, and kept in
/// [`CLUSTERS_FILE`], which a resumed run reads. Writes [`PRETRAIN_FILE`] (f32) into the run folder and returns its
/// path.
///
/// # Errors
/// Data or settings that cannot be used, a loss that is not finite, a folder that cannot be written.
pub fn pretrain(inputs: &RunInputs<'_>, files: &PretrainFiles<'_>, report: Report<'_>) -> TrainResult<PathBuf> {
    let config = inputs.config;
    let audio = config.model()?.hearing(0).audio;
    let settings = config.part("pretrain", &config.pretrain)?.clone();
    settings.check()?;
    let partners = inputs.begin_in_f32()?;
    let clips = inputs.talks("train", files.offsets)?;
    let valid = inputs.talks("valid", files.offsets)?.at_most(VALID_CLIPS);
    let clusters = clusters(inputs, &settings, &audio, files.clusters_from, (&clips, &valid))?;
    let device = inputs.differentiating();
    let mut model = Pretrainee::new(&audio, clusters.count, &device)?;
    if let Some(path) = files.init_from {
        model = model.with_weights(&open_safetensors(path)?, &path.display().to_string())?;
    }
    let (batch_size, seed) = (config.options.batch_size, config.options.seed);
    let task = PretrainTask::new(settings, batch_size, seed, device, (&clips, &valid), clusters)?;
    let path = inputs.folder.join(PRETRAIN_FILE);
    let Some(trained) = inputs.train(&task, model, partners, report)? else { return Ok(path) };
    save_safetensors(&trained.shadow.tensors(), Storage::F32, &path)?;
    Ok(path)
}

/// Those of the run folder; where it has none, new ones, which rank 0 writes there. Other processes that do not find
/// them yet come to the same.
fn clusters(
    inputs: &RunInputs<'_>,
    settings: &PretrainTraining,
    audio: &AudioEncoderConfig,
    from: Option<&Path>,
    (clips, valid): (&PreparedTalks<'_>, &PreparedTalks<'_>),
) -> TrainResult<SoundClusters> {
    let path = inputs.folder.join(CLUSTERS_FILE);
    if path.exists() {
        let found = SoundClusters::load(&path)?;
        let lengths = |labels: &[Vec<u16>]| labels.iter().map(Vec::len).collect::<Vec<_>>();
        let fit = found.count == settings.clusters
            && lengths(&found.train) == clips.lengths()
            && lengths(&found.valid) == valid.lengths();
        if !fit {
            return Err(TrainError::io(&path, "these are clusters of other clips; choose a new run folder"));
        }
        return Ok(found);
    }
    let (count, seed) = (settings.clusters, inputs.config.options.seed);
    let found = match from {
        None => SoundClusters::of_cepstra(count, seed, clips, valid)?,
        Some(file) => {
            let (tensors, name) = (open_safetensors(file)?, file.display().to_string());
            // Of its head nothing is asked.
            let net = Pretrainee::new(audio, 1, inputs.device)?.with_weights(&tensors, &name)?;
            SoundClusters::of_layer(count, seed, clips, valid, (&net, settings.cluster_layer), inputs.device)?
        }
    };
    if inputs.leads() {
        found.save(&path)?;
    }
    Ok(found)
}
