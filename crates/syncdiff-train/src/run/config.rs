//! Configuration of one training run.

use super::ModelChanges;
use crate::autoencoder::AutoencoderTraining;
use crate::diffusion::{DiffusionTraining, StudentTraining};
use crate::error::{TrainError, TrainResult};
use crate::options::TrainOptions;
use crate::pretrain::PretrainTraining;
use crate::reader::ReaderTraining;
use crate::speech::SpeechTraining;
use crate::syncnet::SyncNetTraining;
use crate::wav2lip::Wav2LipTraining;
use serde::{Deserialize, Serialize};
use syncdiff_data::{ClipEntry, ClipFilter, Dataset};
use syncdiff_model::LipSyncConfig;

/// Which of the prepared clips are used.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DataSettings {
    /// Most clips of one speaker, spread evenly over the speaker's clips; 0: all.
    pub max_clips_per_speaker: usize,
    /// Bodies of data; empty: all.
    pub corpora: Vec<String>,
}

impl DataSettings {
    /// Numbers of the chosen clips of a split.
    pub(crate) fn choose(&self, data: &Dataset, split: &str) -> TrainResult<Vec<usize>> {
        let filter = ClipFilter { corpora: self.corpora.clone(), ..ClipFilter::split(split) };
        let all = data.select(&filter);
        let entry = |clip: &usize| -> &ClipEntry { &data.clips()[*clip] };
        let mut chosen = Vec::new();
        for speaker in all.chunk_by(|a, b| entry(a).speaker == entry(b).speaker) {
            let count = if self.max_clips_per_speaker == 0 {
                speaker.len()
            } else {
                self.max_clips_per_speaker.min(speaker.len())
            };
            chosen.extend((0..count).map(|i| speaker[i * speaker.len() / count]));
        }
        if chosen.is_empty() {
            return Err(TrainError::Parameter {
                name: "data",
                value: data.folder().display().to_string(),
                allowed: format!("must hold clips of the split `{split}` (prepare them with `syncdiff prepare`)"),
            });
        }
        Ok(chosen)
    }
}

/// Configuration of one run; a stage reads its own part and the shared ones.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunConfig {
    /// The model whose part is trained.
    pub preset: String,
    /// What differs from the preset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<ModelChanges>,
    /// Shared settings.
    pub options: TrainOptions,
    /// Which clips.
    #[serde(default)]
    pub data: DataSettings,
    /// Settings of `train autoencoder`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub autoencoder: Option<AutoencoderTraining>,
    /// Settings of `train pretrain`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pretrain: Option<PretrainTraining>,
    /// Settings of `train speech`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub speech: Option<SpeechTraining>,
    /// Settings of `train diffusion`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub diffusion: Option<DiffusionTraining>,
    /// Settings of `train student`, which reads those of the diffusion too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub student: Option<StudentTraining>,
    /// Settings of `train syncnet`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub syncnet: Option<SyncNetTraining>,
    /// Settings of `train reader`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reader: Option<ReaderTraining>,
    /// Settings of `train wav2lip`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wav2lip: Option<Wav2LipTraining>,
}

impl RunConfig {
    /// Reads a configuration file.
    ///
    /// # Errors
    /// [`TrainError::Parameter`] with the reader's words.
    pub fn from_toml(text: &str) -> TrainResult<Self> {
        toml::from_str(text).map_err(|e| TrainError::Parameter {
            name: "config",
            value: e.message().to_owned(),
            allowed: "see the files under configs/".into(),
        })
    }

    /// The text of the file.
    ///
    /// # Errors
    /// [`TrainError::Parameter`] if it cannot be written as TOML.
    pub fn to_toml(&self) -> TrainResult<String> {
        toml::to_string(self).map_err(|e| TrainError::Parameter {
            name: "config",
            value: e.to_string(),
            allowed: "must be expressible as TOML".into(),
        })
    }

    /// The model's configuration: the preset with its changes.
    ///
    /// # Errors
    /// [`TrainError::Parameter`] for an unknown preset, or changes that make no model.
    pub fn model(&self) -> TrainResult<LipSyncConfig> {
        let preset = LipSyncConfig::preset(&self.preset).ok_or_else(|| TrainError::Parameter {
            name: "preset",
            value: self.preset.clone(),
            allowed: format!("one of {}", LipSyncConfig::PRESETS.join(", ")),
        })?;
        self.model.as_ref().map_or(Ok(preset.clone()), |changes| changes.apply(preset))
    }

    pub(crate) fn part<'a, T>(&self, name: &'static str, part: &'a Option<T>) -> TrainResult<&'a T> {
        part.as_ref().ok_or_else(|| TrainError::Parameter {
            name,
            value: "absent".into(),
            allowed: format!("the configuration needs a table [{name}] for this stage"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shipped_configurations_are_read() {
        let read = |text| RunConfig::from_toml(text).unwrap();
        let autoencoder = read(include_str!("../../../../configs/lite/autoencoder.toml"));
        let speech = read(include_str!("../../../../configs/lite/speech.toml"));
        let diffusion = read(include_str!("../../../../configs/lite/diffusion.toml"));
        assert!(autoencoder.autoencoder.is_some() && speech.speech.is_some());
        let syncnet = read(include_str!("../../../../configs/lite/syncnet.toml"));
        let wav2lip = read(include_str!("../../../../configs/lite/wav2lip.toml"));
        assert!(diffusion.diffusion.is_some() && syncnet.syncnet.is_some() && wav2lip.wav2lip.is_some());
        let student = read(include_str!("../../../../configs/lite/student.toml"));
        assert!(student.student.is_some() && student.diffusion.is_some());
        let pretrain = read(include_str!("../../../../configs/lite/pretrain.toml"));
        pretrain.pretrain.as_ref().unwrap().check().unwrap();
        let reader = read(include_str!("../../../../configs/lite/reader.toml"));
        assert!(reader.reader.is_some() && reader.data.corpora == ["GRID"]);
        for config in [autoencoder, pretrain, speech, diffusion, student, syncnet, wav2lip, reader] {
            assert_eq!(config.model().unwrap(), LipSyncConfig::lite());
        }
    }

    #[test]
    fn misspelt_settings_are_refused() {
        let text = include_str!("../../../../configs/lite/diffusion.toml").replace("pose_own", "pose_owned");
        assert!(RunConfig::from_toml(&text).unwrap_err().to_string().contains("pose_owned"));
    }
}
