//! The first stage's run.

use super::{Report, RunInputs};
use crate::autoencoder::{AutoencoderTask, AutoencoderTrainee, FrameSource};
use crate::error::TrainResult;
use crate::images::to_tensor;
use crate::seeds::mix;
use std::path::{Path, PathBuf};
use syncdiff_data::Dataset;
use syncdiff_model::autoencoder::Autoencoder;
use syncdiff_model::scorers::Lpips;
use syncdiff_model::weights::{Remap, Storage, folder::save_safetensors, load_into, module_tensors, open_safetensors};

/// Name of the result in the run folder.
pub const AUTOENCODER_FILE: &str = "autoencoder.safetensors";

/// What [`autoencoder`] reads beside the data.
#[derive(Clone, Copy, Debug, Default)]
pub struct AutoencoderFiles<'a> {
    /// Weights to start from.
    pub init_from: Option<&'a Path>,
    /// Folder of the LPIPS networks, for a loss.
    pub lpips: Option<&'a Path>,
}

/// Prepared crops of chosen clips, uniform over frames with a face.
struct Crops<'a> {
    data: &'a Dataset,
    side: usize,
    /// (clip, frame)
    frames: Vec<(usize, usize)>,
}

impl<'a> Crops<'a> {
    fn new(data: &'a Dataset, clips: &[usize]) -> Self {
        let frames = clips.iter().flat_map(|&clip| data.clips()[clip].valid_frames().map(move |f| (clip, f))).collect();
        Self { data, side: data.clips()[clips[0]].crop_size, frames }
    }
}

impl FrameSource for Crops<'_> {
    fn side(&self) -> usize {
        self.side
    }

    fn frame(&self, seed: u64) -> TrainResult<Vec<u8>> {
        let (clip, frame) = self.frames[(mix(seed, 1, 1) % self.frames.len() as u64) as usize];
        Ok(self.data.load(clip)?.frame(frame).to_vec())
    }
}

/// Trains the autoencoder, then scales its latents to zero mean and unit variance per channel. Writes
/// [`AUTOENCODER_FILE`] (f32) into the run folder and returns its path.
///
/// # Errors
/// Data or settings that cannot be used, a loss that is not finite, a folder that cannot be written.
pub fn autoencoder(inputs: &RunInputs<'_>, files: &AutoencoderFiles<'_>, report: Report<'_>) -> TrainResult<PathBuf> {
    let config = inputs.config;
    let model_config = config.model()?;
    let settings = config.part("autoencoder", &config.autoencoder)?.clone();
    settings.check(files.lpips.is_some())?;
    let partners = inputs.begin()?;
    let train_crops = Crops::new(inputs.data, &config.data.choose(inputs.data, "train")?);
    let valid_crops = Crops::new(inputs.data, &config.data.choose(inputs.data, "valid")?);
    let device = inputs.differentiating();
    let mut model = Autoencoder::new(&model_config.autoencoder, &device);
    if let Some(path) = files.init_from {
        model = load_into(model, &open_safetensors(path)?, &names())?;
    }
    let model = AutoencoderTrainee::new(model, &settings, &device);
    let lpips = files.lpips.map(|folder| Lpips::open(settings.lpips_trunk, folder, &device)).transpose()?;
    let (batch_size, seed) = (config.options.batch_size, config.options.seed);
    let task = AutoencoderTask::new(settings, batch_size, seed, device, lpips, &train_crops, &valid_crops)?;
    let path = inputs.folder.join(AUTOENCODER_FILE);
    let Some(trained) = inputs.train(&task, model, partners, report)? else { return Ok(path) };
    let model = normalised(trained.shadow.autoencoder, &train_crops, inputs)?;
    save_safetensors(&module_tensors(&model, &names()), Storage::F32, &path)?;
    Ok(path)
}

pub(super) fn names() -> Remap {
    Remap::identity().with_prefix("autoencoder.")
}

fn normalised(model: Autoencoder, crops: &Crops<'_>, inputs: &RunInputs<'_>) -> TrainResult<Autoencoder> {
    let (mut sum, mut squares, mut count) = (Vec::new(), Vec::new(), 0f64);
    for part in 0..16u64 {
        let frames = (0..8).map(|i| crops.frame(mix(11, part, i))).collect::<TrainResult<Vec<_>>>()?;
        let z = model.encode(to_tensor(&frames, crops.side, inputs.device));
        let [batch, channels, height, width] = z.dims();
        let values =
            z.permute([1, 0, 2, 3]).into_data().convert::<f32>().try_into_vec::<f32>().expect("converted to f32");
        sum.resize(channels, 0f64);
        squares.resize(channels, 0f64);
        for (c, plane) in values.chunks(batch * height * width).enumerate() {
            sum[c] += plane.iter().map(|v| f64::from(*v)).sum::<f64>();
            squares[c] += plane.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>();
        }
        count += (batch * height * width) as f64;
    }
    let mean: Vec<f32> = sum.iter().map(|s| (s / count) as f32).collect();
    let deviation: Vec<f32> =
        squares.iter().zip(&sum).map(|(q, s)| (q / count - (s / count).powi(2)).max(1e-8).sqrt() as f32).collect();
    Ok(model.with_normalised_latents(&mean, &deviation))
}
