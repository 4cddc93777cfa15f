//! The whole model: speech encoder, autoencoder and denoiser under one configuration, with weights.

use crate::audio::filterbank::rows_to_tensor;
use crate::audio::window::in_parts;
use crate::audio::{AudioEncoder, Conditioner, Moonshine, SAMPLES_PER_ROW, speech_rows};
use crate::autoencoder::Autoencoder;
use crate::denoiser::LatentDenoiser;
use crate::diffusion::Schedule;
use crate::error::{ModelError, ModelResult};
use crate::precision::Precision;
use crate::preset::{LipSyncConfig, SpeechFeatures};
use crate::weights::{FolderManifest, FolderText, Remap, Storage, WeightsFolder, WeightsWriter, module_shapes};
use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{Device, Tensor};
use std::path::Path;

/// Rows encoded at once; a longer utterance is encoded in overlapping parts (attention costs grow with the square).
const PART_ROWS: usize = 1500;
/// Rows by which neighbouring parts overlap on each side; their outer halves are dropped.
const OVERLAP_ROWS: usize = 250;

/// The part of the model that listens.
#[derive(Module, Debug)]
pub struct SpeechEncoder {
    /// What hears the sound first; none where that is the filter bank.
    pub moonshine: Option<Moonshine>,
    /// AV-HuBERT-shaped encoder; none where the conditioner is given the filter bank itself.
    pub audio: Option<AudioEncoder>,
    /// From its rows to cross-attention tokens.
    pub conditioner: Conditioner,
}

impl SpeechEncoder {
    /// New, with random weights from the device's generator.
    ///
    /// # Errors
    /// [`ModelError::Parameter`] for sizes that do not fit.
    pub fn new(config: &LipSyncConfig, device: &Device) -> ModelResult<Self> {
        let audio = match config.features {
            SpeechFeatures::Encoder => Some(config.audio.init(device)?),
            SpeechFeatures::FilterBank => None,
        };
        let moonshine = match config.moonshine_layers {
            0 => None,
            layers => Some(Moonshine::new(layers, device)?),
        };
        Ok(Self { moonshine, audio, conditioner: config.conditioning.init(device)? })
    }

    /// Names on disk of Moonshine's layers in our own files.
    pub fn moonshine_names(num_layers: usize) -> Remap {
        Moonshine::remap(num_layers).with_prefix("moonshine.")
    }

    /// An utterance as the encoder is given it, one row for each video frame.
    ///
    /// # Shapes
    /// 16 kHz mono samples -> [num_frames, 104 or 576]
    pub fn rows(&self, samples: &[i16], num_frames: usize, device: &Device) -> Tensor<2> {
        match &self.moonshine {
            Some(moonshine) => moonshine.rows(samples, num_frames, device),
            None => rows_to_tensor(&speech_rows(samples, num_frames), device),
        }
    }

    /// One utterance, as the conditioner is given it.
    ///
    /// # Shapes
    /// rows [time, 104 or 576] -> [time, dim]
    pub fn encode(&self, rows: Tensor<2>) -> Tensor<2> {
        match &self.audio {
            Some(encoder) => encoder.encode(rows),
            None => rows,
        }
    }
}

/// Speech of one clip, encoded: one row per model frame.
#[derive(Clone, Debug)]
pub struct SpeechTokens {
    rows: Tensor<2>,
}

impl SpeechTokens {
    /// Takes rows that [`LipSync::encode_speech`] made before, with the same weights.
    ///
    /// # Shapes
    /// [frames, dim]
    pub fn from_rows(rows: Tensor<2>) -> Self {
        Self { rows }
    }

    /// Number of model frames (25 per second).
    pub fn num_frames(&self) -> usize {
        self.rows.dims()[0]
    }

    /// The encoded rows, [frames, dim].
    pub fn rows(&self) -> &Tensor<2> {
        &self.rows
    }

    /// Cross-attention tokens of some frames. Only rows near them are touched, however long the speech.
    ///
    /// # Shapes
    /// window: rows that the conditioner looks at -> [frames, K, dim]
    pub(crate) fn tokens(&self, conditioner: &Conditioner, window: usize, frames: &[usize]) -> Tensor<3> {
        let first = frames.iter().min().map_or(0, |frame| frame.saturating_sub(window));
        let end = frames.iter().max().map_or(0, |frame| frame + window).min(self.num_frames());
        let near: Vec<usize> = frames.iter().map(|frame| frame - first).collect();
        conditioner.tokens_of_frames(self.rows.clone().narrow(0, first, end - first), &near)
    }
}

/// Reads every parameter, which draws those that are not drawn yet.
struct Draw;

impl ModuleVisitor for Draw {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        param.val();
    }
}

/// The model.
#[derive(Debug)]
pub struct LipSync {
    config: LipSyncConfig,
    device: Device,
    /// First stage.
    pub autoencoder: Autoencoder,
    /// U-Net and bottleneck.
    pub denoiser: LatentDenoiser,
    /// Speech.
    pub speech: SpeechEncoder,
    pub(crate) schedule: Schedule,
}

/// Names on disk of the four parts.
struct Names {
    autoencoder: Remap,
    denoiser: Remap,
    moonshine: Remap,
    audio: Remap,
    conditioner: Remap,
}

impl Names {
    fn of(config: &LipSyncConfig) -> Self {
        Self {
            autoencoder: Remap::identity().with_prefix("autoencoder."),
            denoiser: LatentDenoiser::remap(&config.unet).with_prefix("denoiser."),
            moonshine: SpeechEncoder::moonshine_names(config.moonshine_layers),
            audio: AudioEncoder::remap().with_prefix("audio."),
            conditioner: Conditioner::remap().with_prefix("conditioner."),
        }
    }
}

impl LipSync {
    /// An untrained model; equal seeds give equal weights.
    ///
    /// # Errors
    /// [`ModelError::Parameter`] when the parts of the configuration do not fit each other.
    pub fn random(config: &LipSyncConfig, seed: u64, device: &Device) -> ModelResult<Self> {
        // Some parameters are drawn when they are made.
        device.seed(seed);
        let model = Self::unset(config, device)?;
        device.seed(seed);
        // The others would be drawn at first use, in the order in which they are used.
        model.autoencoder.visit(&mut Draw);
        model.denoiser.visit(&mut Draw);
        model.speech.visit(&mut Draw);
        Ok(model)
    }

    /// A model whose parameters are not drawn yet.
    fn unset(config: &LipSyncConfig, device: &Device) -> ModelResult<Self> {
        config.check()?;
        Ok(Self {
            autoencoder: Autoencoder::new(&config.autoencoder, device),
            denoiser: LatentDenoiser::new(&config.unet, config.priors, device),
            speech: SpeechEncoder::new(config, device)?,
            schedule: Schedule::paper(),
            config: config.clone(),
            device: device.clone(),
        })
    }

    /// Puts trained parts together.
    ///
    /// # Errors
    /// [`ModelError::Parameter`] when the parts of the configuration do not fit each other.
    pub fn from_parts(
        config: LipSyncConfig,
        autoencoder: Autoencoder,
        denoiser: LatentDenoiser,
        speech: SpeechEncoder,
        device: &Device,
    ) -> ModelResult<Self> {
        config.check()?;
        Ok(Self { config, device: device.clone(), autoencoder, denoiser, speech, schedule: Schedule::paper() })
    }

    /// Loads a weights folder: checksums first, then every tensor checked against the configuration.
    ///
    /// # Errors
    /// [`ModelError::Weights`] and [`ModelError::WeightsMismatch`] for folders that are absent, damaged or made for
    /// another model.
    pub fn load(folder: &Path, device: &Device) -> ModelResult<Self> {
        let files = WeightsFolder::open(folder)?;
        let config = LipSyncConfig::from_toml(files.config_toml())?;
        let model = Self::unset(&config, device)?;
        let names = Names::of(&config);
        let mut parts = vec![
            (module_shapes(&model.autoencoder, &names.autoencoder), &names.autoencoder),
            (module_shapes(&model.denoiser, &names.denoiser), &names.denoiser),
            (module_shapes(&model.speech.conditioner, &names.conditioner), &names.conditioner),
        ];
        parts.extend(model.speech.audio.as_ref().map(|audio| (module_shapes(audio, &names.audio), &names.audio)));
        let moonshine = model.speech.moonshine.as_ref();
        parts.extend(moonshine.map(|net| (module_shapes(net, &names.moonshine), &names.moonshine)));
        files.check(&parts)?;
        Ok(Self {
            autoencoder: files.load(model.autoencoder, &names.autoencoder)?,
            denoiser: files.load(model.denoiser, &names.denoiser)?,
            speech: SpeechEncoder {
                moonshine: model.speech.moonshine.map(|net| files.load(net, &names.moonshine)).transpose()?,
                audio: model.speech.audio.map(|audio| files.load(audio, &names.audio)).transpose()?,
                conditioner: files.load(model.speech.conditioner, &names.conditioner)?,
            },
            ..model
        })
    }

    /// The same model with U-Net and autoencoder computing in another type; the speech encoder, which runs once, stays
    /// as it is.
    ///
    /// # Errors
    /// As [`Precision::check`].
    pub fn in_precision(self, precision: Precision) -> ModelResult<Self> {
        precision.check(&self.device)?;
        Ok(Self {
            autoencoder: self.autoencoder.in_precision(precision),
            denoiser: self.denoiser.in_precision(precision),
            ..self
        })
    }

    /// Writes a weights folder.
    ///
    /// # Errors
    /// [`ModelError::Io`]; [`ModelError::Limit`] when a value does not fit the storage type.
    pub fn save(&self, folder: &Path, storage: Storage, card: &str, licence: &str) -> ModelResult<FolderManifest> {
        let names = Names::of(&self.config);
        let mut writer = WeightsWriter::new();
        writer.add(&self.autoencoder, &names.autoencoder)?;
        writer.add(&self.denoiser, &names.denoiser)?;
        if let Some(moonshine) = &self.speech.moonshine {
            writer.add(moonshine, &names.moonshine)?;
        }
        if let Some(audio) = &self.speech.audio {
            writer.add(audio, &names.audio)?;
        }
        writer.add(&self.speech.conditioner, &names.conditioner)?;
        let config_toml = self.config.to_toml()?;
        writer.save(folder, storage, FolderText { config_toml: &config_toml, model_card: card, licence })
    }

    /// The configuration.
    pub fn config(&self) -> &LipSyncConfig {
        &self.config
    }

    /// Where the tensors live.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Parameters of autoencoder, denoiser (with bottleneck) and speech encoder (with conditioner).
    pub fn num_params(&self) -> [usize; 3] {
        [self.autoencoder.num_params(), self.denoiser.num_params(), self.speech.num_params()]
    }

    /// Encodes the whole utterance, once. Beyond its end the rows stand for silence.
    ///
    /// # Shapes
    /// 16 kHz mono samples -> one row per model frame
    ///
    /// # Errors
    /// [`ModelError::Parameter`] for zero frames.
    pub fn encode_speech(&self, samples_16k: &[i16], num_frames: usize) -> ModelResult<SpeechTokens> {
        if num_frames == 0 {
            let allowed = format!("needs at least one frame ({SAMPLES_PER_ROW} samples)");
            return Err(ModelError::parameter("speech", "num_frames", num_frames, allowed));
        }
        let rows = self.speech.rows(samples_16k, num_frames, &self.device);
        let encoded = in_parts(num_frames, PART_ROWS, OVERLAP_ROWS, |left, right| {
            self.speech.encode(rows.clone().narrow(0, left, right - left))
        });
        Ok(SpeechTokens { rows: encoded })
    }
}
