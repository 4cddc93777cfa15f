//! Changes of a preset: the ablations of the paper as settings of a run.

use crate::error::{TrainError, TrainResult};
use serde::{Deserialize, Serialize};
use syncdiff_data::KeepMaskKind;
use syncdiff_model::LipSyncConfig;
use syncdiff_model::audio::ConditioningTokens;
use syncdiff_model::denoiser::PriorConfig;
use syncdiff_model::preset::SpeechFeatures;

/// Most previous frames: beyond it the network would be given more of the past than its clips have.
const MOST_PREVIOUS_FRAMES: usize = 25;

/// Which frames the denoiser sees beside the masked one, by the paper's names (its table 3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PriorsName {
    /// The identity frame alone, as in DiffTalk.
    #[serde(rename = "RND")]
    Rnd,
    /// The previous frame with all its channels, no identity frame.
    #[serde(rename = "PRV")]
    Prv,
    /// The previous frame squeezed to one channel, no identity frame.
    #[serde(rename = "PRV-")]
    PrvBottleneck,
    /// Both, the previous frame squeezed: the published model.
    #[serde(rename = "RND+PRV-")]
    RndPrvBottleneck,
}

impl PriorsName {
    /// The network's own terms.
    pub fn config(self) -> PriorConfig {
        match self {
            PriorsName::Rnd => PriorConfig::RND,
            PriorsName::Prv => PriorConfig::PRV,
            PriorsName::PrvBottleneck => PriorConfig::PRV_BOTTLENECK,
            PriorsName::RndPrvBottleneck => PriorConfig::SYNCDIFF,
        }
    }
}

/// What the conditioner is given of the speech (the paper's table 2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FeaturesName {
    /// Rows of the speech encoder.
    Encoder,
    /// The filter bank alone.
    FilterBank,
    /// Features of DeepSpeech 0.1.0, which this program cannot compute: refused with what to do instead.
    DeepSpeech,
}

/// What is hidden of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MaskName {
    /// A fixed shape on the aligned face.
    AlignedFixed,
    /// The lower half of the face box, as in the paper.
    FaceBoxLowerHalf,
}

impl MaskName {
    fn kind(self) -> KeepMaskKind {
        match self {
            Self::AlignedFixed => KeepMaskKind::AlignedFixed,
            Self::FaceBoxLowerHalf => KeepMaskKind::FaceBoxLowerHalf,
        }
    }
}

/// The table `[model]` of a run's configuration: what differs from the preset. What is absent stays the preset's.
///
/// # Source
/// SyncDiff, section 4.4 and tables 2, 3, 5 and 6; METHOD sections 7 and 17.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ModelChanges {
    /// Which frames the denoiser sees.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priors: Option<PriorsName>,
    /// Number of previous frames (table 5).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub previous_frames: Option<usize>,
    /// Channels that each previous frame is squeezed to; 0 leaves all of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub previous_channels: Option<usize>,
    /// What the conditioner is given of the speech.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub features: Option<FeaturesName>,
    /// Layers of Moonshine that hear the sound before the speech encoder; 0 gives it the filter bank.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub moonshine_layers: Option<usize>,
    /// Audio tokens that cross-attention sees. 1 is the paper's filtered row; more are rows of a window of that size
    /// (one row fewer with the temporal filter, whose row is the last token).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens: Option<usize>,
    /// Whether the temporal filtering network is used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub temporal_filter: Option<bool>,
    /// Layers of the speech encoder that do not learn, the first ones (table 6); the others learn with the denoiser.
    /// All of them where absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub frozen_layers: Option<usize>,
    /// What is hidden of a frame.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep_mask: Option<MaskName>,
}

impl ModelChanges {
    /// These changes, and where they say nothing, those of `base`.
    pub fn over(&self, base: &Self) -> Self {
        Self {
            priors: self.priors.or(base.priors),
            previous_frames: self.previous_frames.or(base.previous_frames),
            previous_channels: self.previous_channels.or(base.previous_channels),
            features: self.features.or(base.features),
            moonshine_layers: self.moonshine_layers.or(base.moonshine_layers),
            tokens: self.tokens.or(base.tokens),
            temporal_filter: self.temporal_filter.or(base.temporal_filter),
            frozen_layers: self.frozen_layers.or(base.frozen_layers),
            keep_mask: self.keep_mask.or(base.keep_mask),
        }
    }

    /// The preset with these changes.
    ///
    /// # Errors
    /// [`TrainError::Parameter`] for values out of range or that contradict each other.
    pub fn apply(&self, mut config: LipSyncConfig) -> TrainResult<LipSyncConfig> {
        if let Some(priors) = self.priors {
            config.priors = priors.config();
        }
        if let Some(mask) = self.keep_mask {
            config.keep_mask = mask.kind().to_string();
        }
        self.change_previous(&mut config)?;
        self.change_speech(&mut config)?;
        config.unet.in_channels = config.priors.in_channels(config.autoencoder.z_channels);
        config.check()?;
        Ok(config)
    }

    fn change_previous(&self, config: &mut LipSyncConfig) -> TrainResult<()> {
        if let Some(frames) = self.previous_frames {
            if frames > MOST_PREVIOUS_FRAMES {
                return refused("model.previous_frames", frames, format!("0 to {MOST_PREVIOUS_FRAMES}"));
            }
            if let Some(priors) = self.priors
                && (frames == 0) != (priors == PriorsName::Rnd)
            {
                let allowed = "RND sees no previous frame, the other priors at least one".to_owned();
                return refused("model.previous_frames", frames, allowed);
            }
            config.priors.pose_frames = frames;
        }
        if let Some(channels) = self.previous_channels {
            let all = config.autoencoder.z_channels;
            if channels > all {
                return refused("model.previous_channels", channels, format!("0 to {all}, the channels of a latent"));
            }
            config.priors.pose_channels = channels;
        }
        Ok(())
    }

    fn change_speech(&self, config: &mut LipSyncConfig) -> TrainResult<()> {
        match self.features {
            Some(FeaturesName::DeepSpeech) => {
                let allowed = "the features of DeepSpeech 0.1.0 come from a TensorFlow 1 graph that this program cannot \
                               run, neither here nor when it generates; take \"filter_bank\" for a model without \
                               speech encoder, or \"encoder\"";
                return refused("model.features", "deep_speech", allowed.to_owned());
            }
            Some(FeaturesName::FilterBank) => {
                config.features = SpeechFeatures::FilterBank;
                *config = config.clone().hearing(0);
            }
            Some(FeaturesName::Encoder) => config.features = SpeechFeatures::Encoder,
            None => {}
        }
        if let Some(layers) = self.moonshine_layers {
            if config.features != SpeechFeatures::Encoder && layers > 0 {
                return refused(
                    "model.moonshine_layers",
                    layers,
                    "0 for a model that hears the filter bank".to_owned(),
                );
            }
            *config = config.clone().hearing(layers);
        }
        let width = config.speech_dim();
        (config.unet.context_dim, config.conditioning.dim) = (width, width);
        let conditioning = &mut config.conditioning;
        conditioning.temporal_filter = self.temporal_filter.unwrap_or(conditioning.temporal_filter);
        if let Some(tokens) = self.tokens {
            let filtered = usize::from(conditioning.temporal_filter);
            match tokens {
                0 => return refused("model.tokens", tokens, "1 or more".to_owned()),
                1 => conditioning.tokens = ConditioningTokens::Single,
                _ => {
                    (conditioning.tokens, conditioning.window) = (ConditioningTokens::Window, tokens - filtered);
                }
            }
        }
        if let Some(frozen) = self.frozen_layers {
            let layers = config.audio.num_layers;
            if config.features != SpeechFeatures::Encoder {
                return refused("model.frozen_layers", frozen, "a model with a speech encoder".to_owned());
            }
            if frozen > layers {
                return refused("model.frozen_layers", frozen, format!("0 to {layers}, the encoder's layers"));
            }
            config.audio.num_frozen_layers = frozen;
        }
        Ok(())
    }

    /// Whether layers of the speech encoder learn with the denoiser.
    pub(crate) fn encoder_learns(&self, config: &LipSyncConfig) -> bool {
        self.frozen_layers.is_some_and(|frozen| frozen < config.audio.num_layers)
    }
}

fn refused<T>(name: &'static str, value: impl ToString, allowed: String) -> TrainResult<T> {
    Err(TrainError::Parameter { name, value: value.to_string(), allowed })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changed(text: &str) -> TrainResult<LipSyncConfig> {
        toml::from_str::<ModelChanges>(text).unwrap().apply(LipSyncConfig::lite())
    }

    /// Channels of the U-Net's input as METHOD section 7 lists them.
    #[test]
    fn priors_have_the_papers_channels() {
        for (text, channels) in [
            ("priors = 'RND'", 9),
            ("priors = 'PRV'", 9),
            ("priors = 'PRV-'", 7),
            ("priors = 'RND+PRV-'", 10),
            ("", 10),
            ("previous_frames = 5", 14),
            ("previous_frames = 10", 19),
            ("priors = 'PRV-'\nprevious_channels = 2", 8),
            ("previous_channels = 0", 12),
        ] {
            assert_eq!(changed(text).unwrap().unet.in_channels, channels, "{text}");
        }
        assert_eq!(changed("").unwrap(), LipSyncConfig::lite());
        let hidden = |text: &str| changed(text).unwrap().keep_mask;
        assert_eq!(hidden("keep_mask = 'face_box_lower_half'"), "face_box_lower_half");
        assert_eq!(hidden("keep_mask = 'aligned_fixed'"), LipSyncConfig::lite().keep_mask);
    }

    #[test]
    fn speech_changes_reach_every_part_that_hears_it() {
        let bank = changed("features = 'filter_bank'").unwrap();
        assert_eq!((bank.unet.context_dim, bank.conditioning.dim, bank.speech_dim()), (104, 104, 104));
        for (text, tokens, window) in [
            ("tokens = 1", 1, 8),
            ("tokens = 5", 5, 4),
            ("tokens = 5\ntemporal_filter = false", 5, 5),
            ("tokens = 1\ntemporal_filter = false", 1, 8),
            ("", 9, 8),
        ] {
            let conditioning = changed(text).unwrap().conditioning;
            assert_eq!((conditioning.num_tokens(), conditioning.window), (tokens, window), "{text}");
        }
        assert_eq!(changed("frozen_layers = 3").unwrap().audio.num_frozen_layers, 3);
        let learns = |text: &str| {
            let changes: ModelChanges = toml::from_str(text).unwrap();
            changes.encoder_learns(&changes.apply(LipSyncConfig::lite()).unwrap())
        };
        assert_eq!([learns(""), learns("frozen_layers = 4"), learns("frozen_layers = 0")], [false, false, true]);
    }

    #[test]
    fn changes_lie_over_one_another() {
        let read = |text: &str| toml::from_str::<ModelChanges>(text).unwrap();
        let over = read("priors = 'PRV'").over(&read("priors = 'RND'\ntokens = 1"));
        assert_eq!(over, read("priors = 'PRV'\ntokens = 1"));
    }

    #[test]
    fn what_contradicts_itself_is_named() {
        for (text, part) in [
            ("features = 'deep_speech'", "filter_bank"),
            ("tokens = 0", "model.tokens"),
            ("previous_frames = 26", "0 to 25"),
            ("priors = 'RND'\nprevious_frames = 2", "RND sees no previous"),
            ("priors = 'PRV'\nprevious_frames = 0", "RND sees no previous"),
            ("previous_channels = 4", "0 to 3"),
            ("frozen_layers = 5", "0 to 4"),
            ("moonshine_layers = 7", "1 to 6"),
            ("features = 'filter_bank'\nmoonshine_layers = 2", "filter bank"),
            ("features = 'filter_bank'\nfrozen_layers = 1", "a speech encoder"),
        ] {
            let error = changed(text).unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
        assert!(toml::from_str::<ModelChanges>("colour = 1").is_err());
    }
}
