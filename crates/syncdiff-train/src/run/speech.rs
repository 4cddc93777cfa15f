//! The speech encoder's run.

use super::{Report, RunInputs};
use crate::error::TrainResult;
use crate::speech::{LIP_VALUES, LipReader, SpeechClip, SpeechTask};
use crate::trainer::train;
use std::path::PathBuf;
use syncdiff_data::{Clip, Dataset, LIP_POINTS};
use syncdiff_model::audio::AudioEncoder;
use syncdiff_model::weights::{Remap, Storage, folder::save_safetensors, module_tensors};

/// Name of the result in the run folder.
pub const SPEECH_FILE: &str = "speech.safetensors";

/// Trains the speech encoder on the lip shapes of the face mesh. Writes [`SPEECH_FILE`] (f32) into the run folder and
/// returns its path.
///
/// # Errors
/// Data or settings that cannot be used, a loss that is not finite, a folder that cannot be written.
pub fn speech(inputs: &RunInputs<'_>, report: Report<'_>) -> TrainResult<PathBuf> {
    let config = inputs.config;
    let model_config = config.model()?;
    inputs.begin()?;
    let clips = load(inputs.data, &config.data.choose(inputs.data, "train")?)?;
    let valid = load(inputs.data, &config.data.choose(inputs.data, "valid")?)?;
    let device = inputs.device.clone().autodiff();
    device.seed(config.options.seed);
    let model = LipReader::new(&model_config.audio, &device)?;
    let task = SpeechTask {
        batch_size: config.options.batch_size,
        seed: config.options.seed,
        device,
        clips: &clips,
        valid: &valid,
    };
    let trained = train(&task, model, &config.options, inputs.folder, inputs.clock, report)?;
    inputs.finished(trained.step)?;
    let path = inputs.folder.join(SPEECH_FILE);
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
