//! The whole model's configuration, and the presets.

use crate::audio::{AudioEncoderConfig, ConditioningConfig, ConditioningTokens, FEATURES_PER_ROW, moonshine};
use crate::autoencoder::AutoencoderConfig;
use crate::denoiser::PriorConfig;
use crate::diffusion::{NoisePolicy, Prediction, Sampler, SamplerKind, Schedule, Spacing};
use crate::error::{ModelError, ModelResult};
use crate::unet::UNetConfig;
use serde::{Deserialize, Serialize};

/// What a generated frame hands to the next one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PoseFeedback {
    /// The decoded picture, encoded again (the paper).
    Decoded,
    /// The sampled latent itself: saves one encoder pass a frame.
    Latent,
}

/// What the conditioner is given of the speech.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SpeechFeatures {
    /// Rows of the speech encoder (the paper).
    #[default]
    Encoder,
    /// The encoder's input itself, for example normalised rows of filter-bank energies: no encoder at all.
    FilterBank,
}

impl SpeechFeatures {
    fn is_encoder(&self) -> bool {
        *self == SpeechFeatures::Encoder
    }
}

/// Everything that gives the model its shape and its sampling defaults: `config.toml` of a weights folder.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LipSyncConfig {
    /// Name of the preset or of the run.
    pub name: String,
    /// Side of the aligned face crop in pixels.
    pub crop_size: usize,
    /// Kind of mask the model was trained with: `aligned_fixed` or `face_box_lower_half`.
    pub keep_mask: String,
    /// What the denoiser predicts.
    pub prediction: Prediction,
    /// What a frame hands to the next.
    pub feedback: PoseFeedback,
    /// Whether the frames of a clip start from the same noise.
    pub noise: NoisePolicy,
    /// What the conditioner is given of the speech. Without an encoder the sizes in `audio` mean nothing.
    #[serde(default, skip_serializing_if = "SpeechFeatures::is_encoder")]
    pub features: SpeechFeatures,
    /// Layers of Moonshine that hear the sound before the encoder; 0: the filter bank.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub moonshine_layers: usize,
    /// First stage.
    pub autoencoder: AutoencoderConfig,
    /// Visual conditions.
    pub priors: PriorConfig,
    /// Denoiser.
    pub unet: UNetConfig,
    /// Speech encoder.
    pub audio: AudioEncoderConfig,
    /// From encoded speech to cross-attention tokens.
    pub conditioning: ConditioningConfig,
    /// Sampler used when the user names none.
    pub sampler: Sampler,
    /// Guidance used when the user names none; see [`LipSyncConfig::NO_GUIDANCE`].
    #[serde(default = "no_guidance")]
    pub guidance: f32,
}

fn is_zero(value: &usize) -> bool {
    *value == 0
}

fn no_guidance() -> f32 {
    LipSyncConfig::NO_GUIDANCE
}

/// Finds a weight of the speech that means nothing.
///
/// # Errors
/// [`ModelError::Parameter`].
pub(crate) fn check_guidance(guidance: f32) -> ModelResult<()> {
    if (0.0..=20.0).contains(&guidance) {
        return Ok(());
    }
    Err(ModelError::parameter("model configuration", "guidance", guidance, "must lie in 0 to 20"))
}

impl LipSyncConfig {
    /// Weight of the speech at which the denoiser's answer is taken as it is (the paper). Above it, the difference
    /// between the answers with and without speech is exaggerated, at the price of a second evaluation a step:
    /// classifier-free guidance (Ho and Salimans 2022). Needs weights trained with dropped speech.
    pub const NO_GUIDANCE: f32 = 1.0;

    /// The names accepted by [`LipSyncConfig::preset`].
    pub const PRESETS: [&'static str; 4] = ["lite", "lite-student", "base", "paper"];

    /// `lite` (CPU), `lite-student` (the same in one pass), `base` (one GPU) or `paper` (the published model).
    pub fn preset(name: &str) -> Option<Self> {
        match name {
            "lite" => Some(Self::lite()),
            "lite-student" => Some(Self::lite_student()),
            "base" => Some(Self::base()),
            "paper" => Some(Self::paper()),
            _ => None,
        }
    }

    /// The model of the paper: 256-pixel crops, 546,211,587-parameter U-Net, AV-HuBERT base, one audio token.
    pub fn paper() -> Self {
        Self {
            name: "paper".into(),
            crop_size: 256,
            keep_mask: "face_box_lower_half".into(),
            prediction: Prediction::Epsilon,
            feedback: PoseFeedback::Decoded,
            noise: NoisePolicy::PerClip,
            features: SpeechFeatures::Encoder,
            moonshine_layers: 0,
            autoencoder: AutoencoderConfig::paper(),
            priors: PriorConfig::SYNCDIFF,
            unet: UNetConfig::paper(),
            audio: AudioEncoderConfig::base(),
            conditioning: ConditioningConfig {
                dim: 768,
                window: 8,
                tokens: ConditioningTokens::Single,
                temporal_filter: true,
                attended_dim: None,
            },
            sampler: Sampler::PAPER,
            guidance: Self::NO_GUIDANCE,
        }
    }

    /// Half the paper's width, several audio tokens, few-step sampling.
    pub fn base() -> Self {
        let paper = Self::paper();
        Self {
            name: "base".into(),
            keep_mask: "aligned_fixed".into(),
            prediction: Prediction::V,
            feedback: PoseFeedback::Latent,
            unet: UNetConfig { model_channels: 128, ..paper.unet },
            conditioning: ConditioningConfig { tokens: ConditioningTokens::Window, ..paper.conditioning },
            sampler: Sampler { kind: SamplerKind::Ddim, num_steps: 8, spacing: Spacing::Trailing, eta: 0.0 },
            ..paper
        }
    }

    /// For a CPU: 128-pixel crops, a narrow autoencoder and U-Net, an own small speech encoder.
    pub fn lite() -> Self {
        Self {
            name: "lite".into(),
            crop_size: 128,
            keep_mask: "aligned_fixed".into(),
            prediction: Prediction::V,
            feedback: PoseFeedback::Latent,
            noise: NoisePolicy::PerClip,
            features: SpeechFeatures::Encoder,
            moonshine_layers: 3,
            autoencoder: AutoencoderConfig { ch: 16, num_res_blocks: 1, norm_groups: 8, ..AutoencoderConfig::paper() },
            priors: PriorConfig::SYNCDIFF,
            unet: UNetConfig {
                model_channels: 32,
                channel_mult: vec![1, 2, 4],
                num_res_blocks: 1,
                attention_resolutions: vec![2, 4],
                context_dim: 192,
                ..UNetConfig::paper()
            },
            audio: AudioEncoderConfig {
                input_dim: moonshine::ROW_WIDTH,
                dim: 192,
                num_layers: 4,
                num_heads: 4,
                feed_forward_dim: 768,
                position_kernel: 32,
                position_groups: 8,
                dropout: 0.1,
                num_frozen_layers: 0,
                final_norm: true,
            },
            conditioning: ConditioningConfig {
                dim: 192,
                window: 8,
                tokens: ConditioningTokens::Window,
                temporal_filter: true,
                attended_dim: None,
            },
            sampler: Sampler { kind: SamplerKind::Ddim, num_steps: 4, spacing: Spacing::Trailing, eta: 0.0 },
            guidance: 1.5,
        }
    }

    /// `lite` distilled: the same networks, which draw in one step without guidance.
    pub fn lite_student() -> Self {
        Self {
            name: "lite-student".into(),
            sampler: Sampler { kind: SamplerKind::Lcm, num_steps: 1, spacing: Spacing::Trailing, eta: 0.0 },
            guidance: Self::NO_GUIDANCE,
            ..Self::lite()
        }
    }

    /// Side of the latent.
    pub fn latent_size(&self) -> usize {
        self.crop_size / self.autoencoder.factor()
    }

    /// Width of a row of speech before the encoder.
    pub fn row_width(&self) -> usize {
        if self.moonshine_layers > 0 { moonshine::ROW_WIDTH } else { FEATURES_PER_ROW }
    }

    /// The same configuration with another number of layers of Moonshine before the encoder, or none.
    pub fn hearing(self, moonshine_layers: usize) -> Self {
        let mut config = Self { moonshine_layers, ..self };
        config.audio.input_dim = config.row_width();
        config
    }

    /// Width of a row of speech as the conditioner is given it.
    pub fn speech_dim(&self) -> usize {
        match self.features {
            SpeechFeatures::Encoder => self.audio.dim,
            SpeechFeatures::FilterBank => self.row_width(),
        }
    }

    /// Finds parts that do not fit each other.
    ///
    /// # Errors
    /// [`ModelError::Parameter`] naming the first misfit.
    pub fn check(&self) -> ModelResult<()> {
        let misfit = |name: &str, value: usize, allowed: String| {
            Err(ModelError::parameter("model configuration", name, value, allowed))
        };
        let channels = self.priors.in_channels(self.autoencoder.z_channels);
        if self.unet.in_channels != channels {
            return misfit("unet.in_channels", self.unet.in_channels, format!("the visual priors give {channels}"));
        }
        if self.unet.out_channels != self.autoencoder.z_channels {
            let z = self.autoencoder.z_channels;
            return misfit("unet.out_channels", self.unet.out_channels, format!("the latent has {z} channels"));
        }
        let width = self.speech_dim();
        if self.unet.context_dim != width || self.conditioning.dim != width {
            let allowed =
                format!("a row of speech and conditioning.dim are {width} and {} wide", self.conditioning.dim);
            return misfit("unet.context_dim", self.unet.context_dim, allowed);
        }
        if self.moonshine_layers > 0 {
            moonshine::check_layers(self.moonshine_layers)?;
        }
        if self.audio.input_dim != self.row_width() {
            return misfit("audio.input_dim", self.audio.input_dim, format!("rows are {} wide", self.row_width()));
        }
        let step = self.autoencoder.factor() << (self.unet.channel_mult.len() - 1);
        if self.crop_size == 0 || !self.crop_size.is_multiple_of(step) {
            return misfit("crop_size", self.crop_size, format!("must be a multiple of {step}"));
        }
        check_guidance(self.guidance)?;
        self.audio.check()?;
        self.sampler.check(&Schedule::paper())
    }

    /// Reads `config.toml`.
    ///
    /// # Errors
    /// [`ModelError::Parameter`] with the reader's words, or a misfit.
    pub fn from_toml(text: &str) -> ModelResult<Self> {
        let config: Self = toml::from_str(text)
            .map_err(|e| ModelError::parameter("model configuration", "config.toml", e.message(), "see the presets"))?;
        config.check()?;
        Ok(config)
    }

    /// The text of `config.toml`.
    ///
    /// # Errors
    /// [`ModelError::Internal`] if it cannot be written as TOML.
    pub fn to_toml(&self) -> ModelResult<String> {
        toml::to_string(self).map_err(|e| ModelError::internal("model configuration", e.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn presets_fit_and_survive_their_file() {
        for name in LipSyncConfig::PRESETS {
            let config = LipSyncConfig::preset(name).unwrap();
            config.check().unwrap();
            assert_eq!(config.name, name);
            assert_eq!(LipSyncConfig::from_toml(&config.to_toml().unwrap()).unwrap(), config);
        }
        assert!(LipSyncConfig::preset("huge").is_none());
    }

    #[test]
    fn misfits_and_unknown_fields_are_named() {
        let config = LipSyncConfig { crop_size: 100, ..LipSyncConfig::lite() };
        assert!(config.check().unwrap_err().to_string().contains("crop_size"));
        let text = format!("colour = 1\n{}", LipSyncConfig::lite().to_toml().unwrap());
        assert!(LipSyncConfig::from_toml(&text).unwrap_err().to_string().contains("colour"));
    }
}
