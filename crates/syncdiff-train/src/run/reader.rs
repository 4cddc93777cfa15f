//! The lip reader's run.

use super::talks::PreparedTalks;
use super::{Report, RunConfig, RunInputs};
use crate::error::{TrainError, TrainResult};
use crate::reader::ReaderTask;
use std::path::{Path, PathBuf};
use syncdiff_data::Dataset;
use syncdiff_model::reader::{AboutReader, GridReader, GridSentence};

/// Name of the result in the run folder.
pub const READER_FILE: &str = "reader.safetensors";

/// Trains our lip reader on the clips whose transcript is a GRID command; others are left out, and their number stands
/// in the result. Writes [`READER_FILE`] (f16), which names its seed, data and terms, into the run folder and returns
/// its path.
///
/// # Errors
/// Data without commands, settings that cannot be used, a loss that is not finite, a folder that cannot be written.
pub fn reader(inputs: &RunInputs<'_>, init_from: Option<&Path>, report: Report<'_>) -> TrainResult<PathBuf> {
    let config = inputs.config;
    let settings = config.part("reader", &config.reader)?.clone();
    settings.check()?;
    let (chosen, left_out) = commands(config, inputs.data, "train")?;
    let (held_out, _) = commands(config, inputs.data, "valid")?;
    let partners = inputs.begin_in_f32()?;
    let clips = PreparedTalks::new(inputs.data, chosen, None)?;
    let valid = PreparedTalks::new(inputs.data, held_out, None)?;
    let device = inputs.differentiating();
    let model = match init_from {
        Some(path) => GridReader::load(path, &device)?,
        None => GridReader::new(&device),
    };
    let (batch_size, seed) = (config.options.batch_size, config.options.seed);
    let task = ReaderTask::new(settings, batch_size, seed, device, &clips, &valid)?;
    let path = inputs.folder.join(READER_FILE);
    let Some(trained) = inputs.train(&task, model, partners, report)? else { return Ok(path) };
    let (mut data, licence) = clips.described();
    if left_out > 0 {
        data += &format!("; left out: {left_out} clips whose transcript is no GRID command");
    }
    trained.shadow.save(&path, &AboutReader { seed, steps: trained.step, data, licence })?;
    Ok(path)
}

/// The chosen clips of a split whose transcript is a command, and how many others there are.
pub(super) fn commands(config: &RunConfig, data: &Dataset, split: &str) -> TrainResult<(Vec<usize>, usize)> {
    let mut chosen = config.data.choose(data, split)?;
    let all = chosen.len();
    chosen.retain(|clip| GridSentence::parse(&data.clips()[*clip].transcript).is_some());
    if chosen.is_empty() {
        return Err(TrainError::Parameter {
            name: "data",
            value: data.folder().display().to_string(),
            allowed: format!(
                "must hold clips of the split `{split}` whose transcript is a GRID command (`bin blue at f two now`); \
                 none of its {all} is one"
            ),
        });
    }
    let left_out = all - chosen.len();
    Ok((chosen, left_out))
}
