//! The networks behind the layouts of [`crate::weights::import`] at the sizes that their projects publish, to see
//! whether a checkpoint holds all of one and nothing else.

use burn::module::Module;
use burn::tensor::Device;

use crate::autoencoder::{Autoencoder, AutoencoderConfig};
use crate::baselines::{ColourSyncNet, DiffTalkCondition, Wav2LipDiscriminator, Wav2LipGenerator};
use crate::error::{ModelError, ModelResult};
use crate::preset::LipSyncConfig;
use crate::reader::dictionary::NUM_SPECIAL;
use crate::reader::{LipReader, LipReaderConfig};
use crate::scorers::{Lpips, LpipsTrunk, S3fd, SyncNet};
use crate::unet::{UNet, UNetConfig};
use crate::video::AudioVisualEncoder;
use crate::weights::import::Imported;
use crate::weights::{Remap, check_into};

/// The denoiser of DiffTalk: no previous frame, sound and landmarks of 64 values each.
pub fn difftalk_unet() -> UNetConfig {
    UNetConfig { in_channels: 9, context_dim: 128, ..UNetConfig::paper() }
}

/// Compares the tensors of an imported network with those of the official one. The device is not computed on.
///
/// # Errors
/// [`ModelError::WeightsMismatch`] with everything that is missing, extra or misshapen; errors call the tensors
/// `source_name`.
pub fn check(imported: &Imported, source_name: &str, device: &Device) -> ModelResult<()> {
    let checked = Checked { imported, source_name };
    match imported.layout.name {
        "ldm_vq_f4" => checked.fits(&Autoencoder::new(&AutoencoderConfig::paper(), device), &Remap::identity()),
        "ldm_unet" => checked.unet(&UNetConfig::paper(), device),
        "difftalk_unet" => checked.unet(&difftalk_unet(), device),
        "difftalk_condition" => checked.fits(&DiffTalkCondition::new(device)?, &DiffTalkCondition::remap()),
        "avhubert_base" => {
            let net = AudioVisualEncoder::new(&LipSyncConfig::paper().audio, device)?;
            checked.fits(&net, &AudioVisualEncoder::remap())
        }
        "avhubert_finetuned" => {
            // The vocabulary is the choice of whoever fine-tuned it.
            let vocabulary = imported.tensors.get("decoder.embed_tokens.weight").and_then(|t| t.shape().first());
            let vocabulary = vocabulary.map_or(NUM_SPECIAL, |size| NUM_SPECIAL.max(*size));
            let net = LipReaderConfig::large(vocabulary).init(device)?;
            checked.fits(&net, &LipReader::remap())
        }
        "syncnet_v2" => checked.fits(&SyncNet::new(device), &SyncNet::remap()),
        "wav2lip" => checked.fits(&Wav2LipGenerator::new(device), &Wav2LipGenerator::remap()),
        "wav2lip_expert" => checked.fits(&ColourSyncNet::new(device), &ColourSyncNet::remap()),
        "wav2lip_disc" => checked.fits(&Wav2LipDiscriminator::new(device), &Wav2LipDiscriminator::remap()),
        "s3fd" => checked.fits(&S3fd::new(device), &S3fd::remap()),
        "lpips_alex" => checked.lpips(LpipsTrunk::Alex, device),
        "lpips_vgg" => checked.lpips(LpipsTrunk::Vgg, device),
        other => Err(ModelError::internal("official networks", format!("no network for the layout {other}"))),
    }
}

struct Checked<'a> {
    imported: &'a Imported,
    source_name: &'a str,
}

impl Checked<'_> {
    fn fits<M: Module>(&self, net: &M, remap: &Remap) -> ModelResult<()> {
        check_into(net, &self.imported.tensors, remap, self.source_name)
    }

    fn unet(&self, config: &UNetConfig, device: &Device) -> ModelResult<()> {
        self.fits(&UNet::new(config, device), &config.remap())
    }

    fn lpips(&self, trunk: LpipsTrunk, device: &Device) -> ModelResult<()> {
        self.fits(&Lpips::new(trunk, device), &Lpips::remap(trunk))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::weights::TensorMap;
    use crate::weights::import::LAYOUTS;

    #[test]
    fn every_layout_has_its_network() {
        for layout in &LAYOUTS {
            let tensors = TensorMap::new();
            let nothing = Imported { layout, root: String::new(), prefix: "", tensors, num_dropped: 0, parameters: 0 };
            match check(&nothing, "nothing", &Device::flex()).unwrap_err() {
                ModelError::WeightsMismatch { missing, .. } => assert!(missing.len() > 10, "{}", layout.name),
                other => panic!("{}: {other}", layout.name),
            }
        }
    }
}
