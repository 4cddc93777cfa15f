//! The speech encoder's run.

use super::{Report, RunInputs};
use crate::error::{TrainError, TrainResult};
use crate::speech::{LIP_VALUES, LipReader, SpeechClip, SpeechTask, SpeechTraining, write_offsets};
use burn::tensor::Device;
use std::path::{Path, PathBuf};
use syncdiff_data::{Clip, Dataset, LIP_POINTS};
use syncdiff_model::LipSyncConfig;
use syncdiff_model::audio::{AudioEncoder, Moonshine};
use syncdiff_model::lipsync::SpeechEncoder;
use syncdiff_model::weights::{Remap, Storage, folder::save_safetensors, load_into, module_tensors, open_safetensors};

/// Name of the result in the run folder.
pub const SPEECH_FILE: &str = "speech.safetensors";
/// Name of the table of how far picture and sound of the training clips are apart.
pub const OFFSETS_FILE: &str = "offsets.tsv";

/// Where the published file keeps the recogniser's encoder.
const PUBLISHED_PREFIX: &str = "model.encoder.";

/// What `speech` reads beside the data.
pub struct SpeechFiles<'a> {
    /// Weights of Moonshine, where the model hears through it.
    pub moonshine: Option<&'a Path>,
    /// Weights to start from.
    pub init_from: Option<&'a Path>,
}

/// Trains the speech encoder on the lip shapes of the face mesh. Writes [`SPEECH_FILE`] (f32) and [`OFFSETS_FILE`]
/// into the run folder and returns the path of the first.
///
/// # Errors
/// Data or settings that cannot be used, a loss that is not finite, a folder that cannot be written.
pub fn speech(inputs: &RunInputs<'_>, files: &SpeechFiles<'_>, report: Report<'_>) -> TrainResult<PathBuf> {
    let config = inputs.config;
    let model_config = config.model()?;
    let settings = config.part("speech", &config.speech)?.clone();
    let moonshine = frozen(&model_config, &settings, files.moonshine, inputs.device)?;
    let partners = inputs.begin_in_f32()?;
    let chosen = config.data.choose(inputs.data, "train")?;
    let clips = load(inputs.data, &chosen)?;
    let valid = load(inputs.data, &config.data.choose(inputs.data, "valid")?)?;
    let device = inputs.differentiating();
    let mut model = LipReader::new(&model_config.audio, &device)?;
    if let Some(path) = files.init_from {
        model.audio = load_into(model.audio, &open_safetensors(path)?, &names())?;
    }
    let task = SpeechTask {
        settings,
        batch_size: config.options.batch_size,
        seed: config.options.seed,
        device,
        moonshine,
        clips: &clips,
        valid: &valid,
    };
    let path = inputs.folder.join(SPEECH_FILE);
    let Some(trained) = inputs.train(&task, model, partners, report)? else { return Ok(path) };
    let names_of = chosen.iter().map(|&clip| inputs.data.clips()[clip].clip.as_str());
    let offsets: Vec<_> = names_of.zip(task.offsets(&trained.shadow)).collect();
    write_offsets(&inputs.folder.join(OFFSETS_FILE), &offsets)?;
    let mut tensors = module_tensors(&trained.shadow.audio, &names());
    if let Some(net) = &task.moonshine {
        tensors.extend(module_tensors(net, &SpeechEncoder::moonshine_names(model_config.moonshine_layers)));
    }
    save_safetensors(&tensors, Storage::F32, &path)?;
    Ok(path)
}

/// The layers that do not learn, where the model has such.
fn frozen(
    config: &LipSyncConfig,
    settings: &SpeechTraining,
    file: Option<&Path>,
    device: &Device,
) -> TrainResult<Option<Moonshine>> {
    let refused =
        |name, value: String, allowed: &str| Err(TrainError::Parameter { name, value, allowed: allowed.into() });
    match (config.moonshine_layers, file) {
        (0, None) => Ok(None),
        (0, Some(path)) => refused(
            "moonshine",
            path.display().to_string(),
            "a model with moonshine_layers; this one hears the filter bank",
        ),
        (_, None) => refused(
            "moonshine",
            "absent".into(),
            "--moonshine FILE: the recogniser's weights, or any file of ours that holds its layers, such as \
             models/lite/model.safetensors. `[model] moonshine_layers = 0` hears the filter bank instead",
        ),
        (_, Some(_)) if settings.augment.warp != 0.0 => {
            refused("speech.augment.warp", settings.augment.warp.to_string(), "0 with Moonshine, which has no bands")
        }
        (layers, Some(path)) => moonshine(path, layers, device).map(Some),
    }
}

/// Moonshine's layers from a file of ours, or from the published one.
pub(super) fn moonshine(path: &Path, layers: usize, device: &Device) -> TrainResult<Moonshine> {
    let weights = open_safetensors(path)?;
    let published = Moonshine::remap(layers).with_prefix(PUBLISHED_PREFIX);
    let ours = SpeechEncoder::moonshine_names(layers);
    let is_published = weights.keys().any(|name| name.starts_with(PUBLISHED_PREFIX));
    Ok(load_into(Moonshine::new(layers, device)?, &weights, if is_published { &published } else { &ours })?)
}

pub(super) fn names() -> Remap {
    AudioEncoder::remap().with_prefix("audio.")
}

fn load(data: &Dataset, clips: &[usize]) -> TrainResult<Vec<SpeechClip>> {
    clips.iter().map(|&clip| Ok(speech_clip(&*data.load(clip)?))).collect()
}

fn speech_clip(clip: &Clip) -> SpeechClip {
    let side = clip.crop_size() as f32;
    let shapes = (0..clip.num_frames()).map(|frame| {
        let landmarks = clip.landmarks(frame);
        let mut shape = [0f32; LIP_VALUES];
        for (slot, point) in shape.chunks_exact_mut(2).zip(LIP_POINTS) {
            slot[0] = landmarks[2 * point] / side;
            slot[1] = landmarks[2 * point + 1] / side;
        }
        shape[LIP_VALUES - 1] = clip.opening()[frame];
        shape
    });
    let valid = clip.valid().iter().map(|v| *v != 0).collect();
    SpeechClip::new(clip.speech().to_vec(), shapes.collect(), valid)
}
