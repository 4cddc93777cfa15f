//! What a generation is asked to do, fully resolved.

use std::path::PathBuf;

use serde::Serialize;
use syncdiff_media::LengthPolicy;
use syncdiff_model::Precision;
use syncdiff_model::preset::PoseFeedback;

use crate::device::DeviceChoice;

/// Most pictures of a clip that a network takes at once, unless something else is asked for.
pub const BATCH: usize = 4;

/// How the generated mouth gets into the frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Composite {
    /// As `Face`; outside of the lips the skin takes the frame's colours, and its fine texture where both agree in what is
    /// coarse.
    #[default]
    Skin,
    /// The hidden region as far as the face reaches, feathered and colour-matched, at the frame's own resolution: neck,
    /// collar, hair and background stay as they were filmed.
    Face,
    /// The whole hidden region, feathered and colour-matched.
    Soft,
    /// The whole decoded crop as it is, edge and all, as the paper shows it: nothing of the model is hidden.
    None,
}

/// What the mouth does where the speech is silent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Silence {
    /// The model decides.
    #[default]
    Model,
    /// The original mouth is kept, with a cross-fade.
    Keep,
}

/// The model and how it draws: what all clips of an [`Engine`](crate::Engine) have in common. Paths are as given.
#[derive(Clone, Debug, Serialize)]
pub struct ModelSettings {
    /// Folder of the model's weights.
    pub weights: PathBuf,
    /// Folder of the face models.
    pub face_models: PathBuf,
    /// Where the networks run.
    pub device: DeviceChoice,
    /// Type in which U-Net and autoencoder compute.
    pub precision: Precision,
    /// Sampler; the model's own default if none is given.
    pub sampler: Option<String>,
    /// Steps of the sampler; the model's own default if none are given.
    pub steps: Option<usize>,
    /// Weight of the speech (classifier-free guidance); the model's own default if none is given.
    pub guidance: Option<f32>,
    /// What a drawn frame hands to the next; the model's own default if none is given.
    pub feedback: Option<PoseFeedback>,
    /// Most pictures of a clip that a network takes at once.
    pub batch: usize,
    /// Seed of all noise.
    pub seed: u64,
}

impl ModelSettings {
    /// The model's own way of sampling, in 32-bit floats.
    pub fn new(weights: PathBuf, face_models: PathBuf, device: DeviceChoice) -> Self {
        ModelSettings {
            weights,
            face_models,
            device,
            precision: Precision::F32,
            sampler: None,
            steps: None,
            guidance: None,
            feedback: None,
            batch: BATCH,
            seed: 0,
        }
    }
}

/// One clip: what goes in, what comes out. Paths are as given.
#[derive(Clone, Debug, Serialize)]
pub struct GenerateSettings {
    /// The clip or picture that shows the face.
    pub video: PathBuf,
    /// The file whose sound the mouth follows.
    pub audio: PathBuf,
    /// The file whose sound goes into the output instead of `audio`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mix: Option<PathBuf>,
    /// The output.
    pub out: PathBuf,
    /// What decides the length of the output.
    pub length: LengthPolicy,
    /// Which face.
    pub face: String,
    /// Frames a second of a still picture.
    pub fps: String,
    /// Quality of the encoder, 0 (lossless) to 51.
    pub crf: u8,
    /// How the mouth gets into the frame.
    pub composite: Composite,
    /// What happens in silence.
    pub silence: Silence,
    /// Keeps tracks and encoded speech here for later runs; nothing is kept if none is given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache: Option<PathBuf>,
    /// Writes one frame here and no video.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub preview: Option<PathBuf>,
    /// Writes what was done here, as JSON.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub report: Option<PathBuf>,
    /// Writes every frame as PNG into this folder, before encoding.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub frames: Option<PathBuf>,
}

impl GenerateSettings {
    /// As the program generates a clip when it is told nothing else.
    pub fn new(video: PathBuf, audio: PathBuf, out: PathBuf) -> Self {
        GenerateSettings {
            video,
            audio,
            mix: None,
            out,
            length: LengthPolicy::Audio,
            face: "largest".into(),
            fps: "25".into(),
            crf: 18,
            composite: Composite::default(),
            silence: Silence::default(),
            cache: None,
            preview: None,
            report: None,
            frames: None,
        }
    }
}

/// All that a clip was made with, as `--print-config` prints it and the report repeats it.
#[derive(Clone, Debug, Serialize)]
pub struct Settings {
    /// The clip.
    #[serde(flatten)]
    pub clip: GenerateSettings,
    /// The model.
    #[serde(flatten)]
    pub model: ModelSettings,
}
