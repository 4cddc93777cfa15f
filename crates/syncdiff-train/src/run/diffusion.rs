//! The denoiser's run.

use super::encoder::{ClipEncoder, HiddenRegion, latent_store, speech_store};
use super::{Report, RunInputs, autoencoder, speech};
use crate::diffusion::{DenoiserStage, DiffusionTraining, EstimateNets};
use crate::error::{TrainError, TrainResult};
use crate::speech::read_offsets;
use burn::tensor::Device;
use std::path::{Path, PathBuf};
use syncdiff_model::audio::{AudioEncoder, AudioEncoderConfig, Conditioner};
use syncdiff_model::autoencoder::Autoencoder;
use syncdiff_model::denoiser::LatentDenoiser;
use syncdiff_model::lipsync::SpeechEncoder;
use syncdiff_model::preset::SpeechFeatures;
use syncdiff_model::scorers::{Lpips, LpipsTrunk, OwnSyncNet};
use syncdiff_model::weights::{Storage, load_into, open_safetensors};
use syncdiff_model::{LipSync, LipSyncConfig};

/// Name of the resulting weights folder in the run folder.
pub const MODEL_FOLDER: &str = "model";

/// What `diffusion` reads beside the data.
pub struct DiffusionFiles<'a> {
    /// Result of the first stage.
    pub autoencoder: &'a Path,
    /// Result of the speech encoder's stage.
    pub speech: &'a Path,
    /// How far picture and sound of each clip are apart, a table of that stage; clips that it lacks are not moved.
    pub offsets: Option<&'a Path>,
    /// Folder that keeps latents, and what the frozen layers of the speech encoder hear.
    pub latents: &'a Path,
    /// Weights to start from.
    pub init_from: Option<&'a Path>,
    /// Result of [`super::syncnet`], for a sync loss: not the one that will judge.
    pub syncnet: Option<&'a Path>,
    /// Folder of the LPIPS networks, for a loss.
    pub lpips: Option<&'a Path>,
}

/// Trains the denoiser on latents of the frozen autoencoder and on rows of the frozen speech encoder. Latents are
/// computed once and kept in a folder (which another run with the same autoencoder and mask uses too). Writes a whole
/// weights folder, [`MODEL_FOLDER`], into the run folder and returns its path.
///
/// # Errors
/// Data, weights or settings that cannot be used, a loss that is not finite, a folder that cannot be written.
pub fn diffusion(
    inputs: &RunInputs<'_>,
    files: &DiffusionFiles<'_>,
    licence: &str,
    report: Report<'_>,
) -> TrainResult<PathBuf> {
    let config = inputs.config;
    let model_config = config.model()?;
    let settings = config.part("diffusion", &config.diffusion)?.clone().for_priors(&model_config.priors);
    if settings.prediction != model_config.prediction {
        return Err(TrainError::Parameter {
            name: "diffusion.prediction",
            value: format!("{:?}", settings.prediction),
            allowed: format!("the preset predicts {:?}", model_config.prediction),
        });
    }
    let mut partners = inputs.begin()?;
    let plain = inputs.device;
    let first_stage = load_into(
        Autoencoder::new(&model_config.autoencoder, plain),
        &open_safetensors(files.autoencoder)?,
        &autoencoder::names(),
    )?;
    let load_encoder = |config: &AudioEncoderConfig, device: &Device| -> TrainResult<AudioEncoder> {
        Ok(load_into(config.init(device)?, &open_safetensors(files.speech)?, &speech::names())?)
    };
    let listener = match model_config.features {
        SpeechFeatures::Encoder => Some(load_encoder(&model_config.audio, plain)?),
        SpeechFeatures::FilterBank => None,
    };
    let moonshine = match model_config.moonshine_layers {
        0 => None,
        layers => Some(speech::moonshine(files.speech, layers, plain)?),
    };
    let listener = SpeechEncoder { moonshine, audio: listener, conditioner: model_config.conditioning.init(plain)? };
    let learns = config.model.as_ref().is_some_and(|changes| changes.encoder_learns(&model_config));
    let judge = files.syncnet.map(|path| OwnSyncNet::load(path, plain)).transpose()?;
    let encoder = ClipEncoder {
        judge: judge.as_ref(),
        first_stage: &first_stage,
        listener: &listener,
        encoder_learns: learns,
        hidden: HiddenRegion::new(&model_config)?,
        pictures: latent_store(files.latents, &first_stage, &model_config)?,
        sounds: speech_store(files.latents, &listener, learns, &model_config)?,
        offsets: files.offsets.map(read_offsets).transpose()?.unwrap_or_default(),
        device: plain,
        config: &model_config,
    };
    let [clips, valid] = encoder.splits(inputs, settings.varied_copies, partners.as_mut())?;

    let device = inputs.differentiating();
    let mut stage = DenoiserStage {
        denoiser: LatentDenoiser::new(&model_config.unet, model_config.priors, &device),
        conditioner: model_config.conditioning.init(&device)?,
        // Without dropout: its draws would come from the generator that all parts of a step share.
        audio: match learns {
            true => Some(load_encoder(&AudioEncoderConfig { dropout: 0.0, ..model_config.audio.clone() }, &device)?),
            false => None,
        },
    };
    if let Some(path) = files.init_from {
        stage = started_from(stage, path, &model_config)?;
    }
    let decoder = || -> TrainResult<Autoencoder> {
        let weights = open_safetensors(files.autoencoder)?;
        let decoder = load_into(Autoencoder::new(&model_config.autoencoder, &device), &weights, &autoencoder::names())?;
        Ok(decoder.in_precision(config.options.precision))
    };
    let estimate = estimate_nets(&settings, files.syncnet, files.lpips, &device, decoder)?;
    let drawn_by = (model_config.sampler, model_config.guidance);
    let task = encoder.task(inputs, settings, [&clips, &valid], device, estimate, drawn_by)?;
    let folder = inputs.folder.join(MODEL_FOLDER);
    let Some(trained) = inputs.train(&task, stage, partners, report)? else { return Ok(folder) };
    let audio = trained.shadow.audio.or_else(|| listener.audio.clone());
    let speech =
        SpeechEncoder { moonshine: listener.moonshine.clone(), audio, conditioner: trained.shadow.conditioner };
    let model = LipSync::from_parts(model_config, first_stage.clone(), trained.shadow.denoiser, speech, plain)?;
    let changes = config.model.as_ref().map(toml::to_string).transpose().unwrap_or_default().unwrap_or_default();
    let changes =
        if changes.is_empty() { changes } else { format!("Changed: {}.\n\n", changes.trim().replace('\n', ", ")) };
    let card =
        format!("# {}\n\n{changes}Trained for {} steps, {:.0} s.\n", config.preset, trained.step, trained.seconds);
    model.save(&folder, Storage::F16, &card, licence)?;
    Ok(folder)
}

/// The stage with the values of a `model.safetensors`, whose shapes must be its own.
pub(super) fn started_from(stage: DenoiserStage, path: &Path, config: &LipSyncConfig) -> TrainResult<DenoiserStage> {
    let weights = open_safetensors(path)?;
    let names = LatentDenoiser::remap(&config.unet).with_prefix("denoiser.");
    Ok(DenoiserStage {
        denoiser: load_into(stage.denoiser, &weights, &names)?,
        conditioner: load_into(stage.conditioner, &weights, &Conditioner::remap().with_prefix("conditioner."))?,
        audio: stage.audio.map(|audio| load_into(audio, &weights, &speech::names())).transpose()?,
    })
}

/// The networks of the losses on pictures, where the settings have such; `decoder` lies on the device that
/// differentiates, as they do.
///
/// # Errors
/// [`TrainError::Parameter`] for networks without settings, and as [`EstimateNets::new`].
pub(super) fn estimate_nets(
    settings: &DiffusionTraining,
    syncnet: Option<&Path>,
    lpips: Option<&Path>,
    device: &Device,
    decoder: impl FnOnce() -> TrainResult<Autoencoder>,
) -> TrainResult<Option<EstimateNets>> {
    match &settings.estimate {
        Some(estimate) => {
            let decoder = decoder()?;
            let syncnet = syncnet.map(|path| OwnSyncNet::load(path, device)).transpose()?;
            let lpips = lpips.map(|folder| Lpips::open(LpipsTrunk::Alex, folder, device)).transpose()?;
            EstimateNets::new(estimate, decoder, syncnet, lpips).map(Some)
        }
        None if syncnet.or(lpips).is_some() => Err(TrainError::Parameter {
            name: "diffusion.estimate",
            value: "absent".into(),
            allowed: "--syncnet and --lpips need a table [diffusion.estimate] with their weights".into(),
        }),
        None => Ok(None),
    }
}
