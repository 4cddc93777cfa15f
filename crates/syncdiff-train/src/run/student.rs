//! The student's run: the distillation of a whole weights folder.

use super::diffusion::{estimate_nets, started_from};
use super::encoder::{ClipEncoder, HiddenRegion, latent_store, speech_store};
use super::{MODEL_FOLDER, Report, RunInputs, autoencoder};
use crate::diffusion::{DenoiserStage, STUDENT_SAMPLER, StudentStage, StudentTask};
use crate::error::{TrainError, TrainResult};
use crate::speech::read_offsets;
use std::path::{Path, PathBuf};
use syncdiff_model::autoencoder::Autoencoder;
use syncdiff_model::lipsync::SpeechEncoder;
use syncdiff_model::scorers::OwnSyncNet;
use syncdiff_model::weights::folder::TENSORS;
use syncdiff_model::weights::{Remap, Storage, WeightsFolder, load_into, module_tensors, open_safetensors};
use syncdiff_model::{LipSync, LipSyncConfig};

/// Relative rounding of values stored as f16, and its floor.
const ROUNDING: (f32, f32) = (1.0 / 1024.0, 1.0 / 16_777_216.0);

/// What `student` reads beside the data.
pub struct StudentFiles<'a> {
    /// Weights folder of the teacher.
    pub teacher: &'a Path,
    /// The first stage that the teacher was trained with, where latents of it are kept already; else the teacher's.
    pub autoencoder: Option<&'a Path>,
    /// As for the diffusion.
    pub offsets: Option<&'a Path>,
    /// As for the diffusion.
    pub latents: &'a Path,
    /// As for the diffusion.
    pub syncnet: Option<&'a Path>,
    /// As for the diffusion.
    pub lpips: Option<&'a Path>,
    /// Weights that the student starts from, where not from its teacher's.
    pub init_from: Option<&'a Path>,
}

/// Distils the denoiser of a weights folder and writes a folder, [`MODEL_FOLDER`], whose configuration samples with
/// the student in four steps without guidance. The other networks are the teacher's, and so are its terms where
/// `licence` names none.
///
/// # Errors
/// Data, weights or settings that cannot be used, a loss that is not finite, a folder that cannot be written.
pub fn student(
    inputs: &RunInputs<'_>,
    files: &StudentFiles<'_>,
    licence: Option<&str>,
    report: Report<'_>,
) -> TrainResult<PathBuf> {
    let config = inputs.config;
    let settings = config.part("student", &config.student)?.clone();
    settings.check()?;
    let drawing = config.part("diffusion", &config.diffusion)?.clone();
    let plain = inputs.device;
    let teacher = LipSync::load(files.teacher, plain)?;
    let model_config = teacher.config().clone();
    fits(config.model()?, &model_config, files.teacher)?;
    if drawing.prediction != model_config.prediction {
        return Err(TrainError::Parameter {
            name: "diffusion.prediction",
            value: format!("{:?}", drawing.prediction),
            allowed: format!("the teacher predicts {:?}", model_config.prediction),
        });
    }
    let terms = WeightsFolder::open(files.teacher)?.manifest().licence.clone();
    let mut partners = inputs.begin()?;

    let kept = files.teacher.join(TENSORS);
    let autoencoder_file = files.autoencoder.unwrap_or(&kept);
    let weights = open_safetensors(autoencoder_file)?;
    let first_stage = Autoencoder::new(&model_config.autoencoder, plain);
    let first_stage = load_into(first_stage, &weights, &autoencoder::names())?;
    same_but_for_rounding(&first_stage, &teacher.autoencoder, autoencoder_file)?;
    let judge = files.syncnet.map(|path| OwnSyncNet::load(path, plain)).transpose()?;
    let encoder = ClipEncoder {
        judge: judge.as_ref(),
        first_stage: &first_stage,
        listener: &teacher.speech,
        encoder_learns: false,
        hidden: HiddenRegion::new(&model_config)?,
        pictures: latent_store(files.latents, &first_stage, &model_config)?,
        sounds: speech_store(files.latents, &teacher.speech, false, &model_config)?,
        offsets: files.offsets.map(read_offsets).transpose()?.unwrap_or_default(),
        device: plain,
        config: &model_config,
    };
    let [clips, valid] = encoder.splits(inputs, drawing.varied_copies, partners.as_mut())?;

    let device = inputs.differentiating();
    let start = LipSync::load(files.teacher, &device)?;
    let estimate = estimate_nets(&drawing, files.syncnet, files.lpips, &device, || {
        Ok(start.autoencoder.in_precision(config.options.precision))
    })?;
    let drawn_by = (STUDENT_SAMPLER, LipSyncConfig::NO_GUIDANCE);
    let samples = encoder.task(inputs, drawing, [&clips, &valid], device, estimate, drawn_by)?;
    let frozen = DenoiserStage {
        denoiser: teacher.denoiser.clone(),
        conditioner: teacher.speech.conditioner.clone(),
        audio: None,
    };
    let task = StudentTask::new(settings, samples, frozen)?.asking_in(config.options.precision);
    let mut learns = DenoiserStage { denoiser: start.denoiser, conditioner: start.speech.conditioner, audio: None };
    if let Some(path) = files.init_from {
        learns = started_from(learns, path, &model_config)?;
    }
    let learns = StudentStage::new(learns);
    let folder = inputs.folder.join(MODEL_FOLDER);
    let Some(trained) = inputs.train(&task, learns, partners, report)? else { return Ok(folder) };

    let DenoiserStage { denoiser, conditioner, .. } = trained.shadow.student;
    let speech = SpeechEncoder { conditioner, ..teacher.speech };
    let result = LipSyncConfig {
        name: format!("{}-student", config.preset),
        sampler: STUDENT_SAMPLER,
        guidance: LipSyncConfig::NO_GUIDANCE,
        ..model_config
    };
    let model = LipSync::from_parts(result, teacher.autoencoder, denoiser, speech, plain)?;
    let card = format!(
        "# {}, student\n\nDistilled for {} steps, {:.0} s: four steps without guidance.\n",
        config.preset, trained.step, trained.seconds
    );
    model.save(&folder, Storage::F16, &card, licence.unwrap_or(&terms))?;
    Ok(folder)
}

/// The configuration's model must be the teacher's, but for how it samples.
fn fits(wanted: LipSyncConfig, teacher: &LipSyncConfig, folder: &Path) -> TrainResult<()> {
    let LipSyncConfig { name, feedback, noise, sampler, guidance, .. } = teacher.clone();
    let wanted = LipSyncConfig { name, feedback, noise, sampler, guidance, ..wanted };
    if wanted == *teacher && teacher.priors.pose_frames == 1 {
        return Ok(());
    }
    Err(TrainError::Parameter {
        name: "preset",
        value: folder.display().to_string(),
        allowed: "the teacher must be a model of the preset of the configuration, with one previous frame".into(),
    })
}

/// Latents of one first stage serve another only where both are the same, up to the rounding of their files.
fn same_but_for_rounding(given: &Autoencoder, own: &Autoencoder, path: &Path) -> TrainResult<()> {
    let (given, own) = (module_tensors(given, &Remap::identity()), module_tensors(own, &Remap::identity()));
    for (name, tensor) in &own {
        let (ours, theirs) = (tensor.to_f32()?, given[name].to_f32()?);
        let (relative, least) = ROUNDING;
        if ours.iter().zip(theirs.iter()).any(|(a, b)| (a - b).abs() > relative * a.abs() + least) {
            return Err(TrainError::Parameter {
                name: "autoencoder",
                value: path.display().to_string(),
                allowed: format!("must be the teacher's first stage; {name} differs. Leave --autoencoder out"),
            });
        }
    }
    Ok(())
}
