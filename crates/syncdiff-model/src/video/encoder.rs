//! AV-HuBERT with both its eyes and its ears.

use burn::module::Module;
use burn::tensor::{Device, Tensor};

use crate::audio::{AudioEncoder, AudioEncoderConfig, EncoderOutput};
use crate::error::ModelResult;
use crate::video::resnet::VideoFrontEnd;
use crate::weights::Remap;

/// Tensors of checkpoints that belong to pre-training, or count batches.
const IGNORED: [&str; 7] = [
    "mask_emb",
    "final_proj",
    "label_embs_concat",
    "feature_extractor_video.resnet.frontend3D.1.num_batches_tracked",
    "feature_extractor_video.resnet.trunk.*.*.bn1.num_batches_tracked",
    "feature_extractor_video.resnet.trunk.*.*.bn2.num_batches_tracked",
    "feature_extractor_video.resnet.trunk.*.*.downsample.1.num_batches_tracked",
];

/// The audio encoder with a video front end beside its own; sound and sight are joined before the layers.
///
/// The base model has 102,620,288 parameters, the large one 324,622,976.
///
/// # Source
/// Shi et al. 2022; facebookresearch/av_hubert `AVHubertModel.extract_finetune` with `modality_fuse: concat`.
#[derive(Module, Debug)]
pub struct AudioVisualEncoder {
    audio: AudioEncoder,
    video: VideoFrontEnd,
}

impl AudioVisualEncoder {
    /// A new encoder with random weights from the device's generator.
    ///
    /// # Errors
    /// As [`AudioEncoderConfig::check`].
    pub fn new(config: &AudioEncoderConfig, device: &Device) -> ModelResult<Self> {
        Ok(Self { audio: config.init(device)?, video: VideoFrontEnd::new(config.dim, device) })
    }

    /// Names in AV-HuBERT's state dict; tensors of its pre-training may be present.
    pub fn remap() -> Remap {
        Remap::identity().with_names(Self::disk_name).ignoring(&IGNORED)
    }

    /// As the names of [`Self::remap`].
    pub(crate) fn disk_name(path: &str) -> Option<String> {
        match path.strip_prefix("video.") {
            Some(rest) => VideoFrontEnd::disk_name(rest).map(|name| format!("feature_extractor_video.{name}")),
            None => path.strip_prefix("audio.").map(|rest| AudioEncoder::remap().disk_name(rest)),
        }
    }

    /// What a checkpoint may hold beside the encoder, under a prefix.
    pub(crate) fn ignored(prefix: &str) -> Vec<String> {
        IGNORED.iter().map(|name| format!("{prefix}{name}")).collect()
    }

    /// Encodes a batch of utterances with sound, sight or both; what is absent counts as zero after its front end.
    /// `lengths` are the rows that are not padding.
    ///
    /// # Shapes
    /// rows [batch, time, 104] and mouths [batch, time, 88, 88] -> [batch, time, dim]
    ///
    /// # Panics
    /// When both are absent, they differ in length, or `lengths` does not fit.
    pub fn forward(
        &self,
        rows: Option<Tensor<3>>,
        mouths: Option<Tensor<4>>,
        lengths: Option<&[usize]>,
    ) -> EncoderOutput {
        let video = mouths.map(|mouths| self.video.forward(mouths));
        self.audio.forward_modalities(rows, video, lengths)
    }

    /// The part that sees.
    pub fn video(&self) -> &VideoFrontEnd {
        &self.video
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::weights::module_shapes;

    /// Running statistics are stored with the parameters, but are none.
    fn count(config: &AudioEncoderConfig) -> usize {
        let encoder = AudioVisualEncoder::new(config, &Device::default()).unwrap();
        let shapes = module_shapes(&encoder, &AudioVisualEncoder::remap());
        shapes.iter().filter(|(name, _)| !name.contains("running_")).map(|(_, s)| s.iter().product::<usize>()).sum()
    }

    #[test]
    fn published_numbers_of_parameters() {
        assert_eq!(count(&AudioEncoderConfig::base()), 102_620_288);
        assert_eq!(count(&AudioEncoderConfig::large()), 324_622_976);
        let video = module_shapes(&VideoFrontEnd::new(768, &Device::default()), &Remap::identity());
        let learned = video.iter().filter(|(name, _)| !name.contains("running_"));
        assert_eq!(learned.map(|(_, shape)| shape.iter().product::<usize>()).sum::<usize>(), 11_580_672);
    }

    #[test]
    fn names_are_upstreams() {
        let encoder = AudioVisualEncoder::new(&AudioEncoderConfig::base(), &Device::default()).unwrap();
        let shapes = module_shapes(&encoder, &AudioVisualEncoder::remap());
        let trunk = "feature_extractor_video.resnet.trunk";
        for (name, shape) in [
            ("feature_extractor_video.resnet.frontend3D.0.weight".to_owned(), vec![64, 1, 5, 7, 7]),
            (format!("{trunk}.layer2.0.downsample.0.weight"), vec![128, 64, 1, 1]),
            (format!("{trunk}.layer4.1.bn2.running_var"), vec![512]),
            (format!("{trunk}.layer1.0.relu1.weight"), vec![64]),
            ("feature_extractor_video.proj.weight".to_owned(), vec![768, 512]),
            ("feature_extractor_audio.proj.weight".to_owned(), vec![768, 104]),
            ("encoder.layers.3.self_attn.q_proj.bias".to_owned(), vec![768]),
        ] {
            assert_eq!(shapes.get(&name), Some(&shape), "{name}");
        }
    }
}
