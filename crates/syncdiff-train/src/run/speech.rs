//! The speech encoder's run.

use super::{Report, RunInputs};
use crate::error::TrainResult;
use crate::speech::{LIP_VALUES, LipReader, SpeechClip, SpeechTask, write_offsets};
use std::path::{Path, PathBuf};
use syncdiff_data::{Clip, Dataset, LIP_POINTS};
use syncdiff_model::audio::AudioEncoder;
use syncdiff_model::weights::{Remap, Storage, folder::save_safetensors, load_into, module_tensors, open_safetensors};

/// Name of the result in the run folder.
pub const SPEECH_FILE: &str = "speech.safetensors";
/// Name of the table of how far picture and sound of the training clips are apart.
pub const OFFSETS_FILE: &str = "offsets.tsv";

/// Trains the speech encoder on the lip shapes of the face mesh. Writes [`SPEECH_FILE`] (f32) and [`OFFSETS_FILE`]
/// into the run folder and returns the path of the first.
///
/// # Errors
/// Data or settings that cannot be used, a loss that is not finite, a folder that cannot be written.
pub fn speech(inputs: &RunInputs<'_>, init_from: Option<&Path>, report: Report<'_>) -> TrainResult<PathBuf> {
    let config = inputs.config;
    let model_config = config.model()?;
    let settings = config.part("speech", &config.speech)?.clone();
    let partners = inputs.begin()?;
    let chosen = config.data.choose(inputs.data, "train")?;
    let clips = load(inputs.data, &chosen)?;
    let valid = load(inputs.data, &config.data.choose(inputs.data, "valid")?)?;
    let device = inputs.differentiating();
    let mut model = LipReader::new(&model_config.audio, &device)?;
    if let Some(path) = init_from {
        model.audio = load_into(model.audio, &open_safetensors(path)?, &names())?;
    }
    let task = SpeechTask {
        settings,
        batch_size: config.options.batch_size,
        seed: config.options.seed,
        device,
        clips: &clips,
        valid: &valid,
    };
    let path = inputs.folder.join(SPEECH_FILE);
    let Some(trained) = inputs.train(&task, model, partners, report)? else { return Ok(path) };
    let names_of = chosen.iter().map(|&clip| inputs.data.clips()[clip].clip.as_str());
    let offsets: Vec<_> = names_of.zip(task.offsets(&trained.shadow)).collect();
    write_offsets(&inputs.folder.join(OFFSETS_FILE), &offsets)?;
    save_safetensors(&module_tensors(&trained.shadow.audio, &names()), Storage::F32, &path)?;
    Ok(path)
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
