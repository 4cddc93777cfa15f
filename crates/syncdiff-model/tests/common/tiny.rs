//! Networks small enough to try in a moment, and weights for them that are neither random nor zero.
#![allow(dead_code)]

use burn::module::{ModuleMapper, Param};
use burn::tensor::{Int, Tensor};
use syncdiff_model::LipSyncConfig;
use syncdiff_model::audio::{AudioEncoderConfig, ConditioningConfig};
use syncdiff_model::autoencoder::AutoencoderConfig;
use syncdiff_model::diffusion::Sampler;
use syncdiff_model::unet::UNetConfig;

/// `lite` for crops of 32 pixels, in two steps.
pub(crate) fn lip_sync() -> LipSyncConfig {
    let lite = LipSyncConfig::lite().hearing(0);
    LipSyncConfig {
        name: "tiny".into(),
        crop_size: 32,
        autoencoder: AutoencoderConfig { ch: 8, n_embed: 64, norm_groups: 4, ..lite.autoencoder },
        unet: UNetConfig { channel_mult: vec![1, 2], attention_resolutions: vec![2], context_dim: 16, ..lite.unet },
        audio: audio(),
        conditioning: ConditioningConfig { dim: 16, ..lite.conditioning },
        sampler: Sampler { num_steps: 2, ..lite.sampler },
        ..lite
    }
}

pub(crate) fn audio() -> AudioEncoderConfig {
    AudioEncoderConfig {
        dim: 16,
        num_layers: 2,
        num_heads: 2,
        feed_forward_dim: 32,
        position_kernel: 8,
        position_groups: 2,
        ..LipSyncConfig::lite().hearing(0).audio
    }
}

/// Halves the side.
pub(crate) fn autoencoder() -> AutoencoderConfig {
    AutoencoderConfig {
        ch: 8,
        ch_mult: vec![1, 2],
        num_res_blocks: 1,
        n_embed: 32,
        norm_groups: 4,
        ..AutoencoderConfig::paper()
    }
}

/// Writes a sine over the elements into every parameter: `keep` of what was there, and `scale` sin(`pace` i) + `offset`.
pub(crate) struct Ramp {
    pub(crate) keep: f64,
    pub(crate) pace: f64,
    pub(crate) scale: f64,
    pub(crate) offset: f64,
}

impl Ramp {
    /// Moves every parameter a little, so that nothing that begins at zero stays there.
    pub(crate) fn small() -> Self {
        Self { keep: 1.0, pace: 1.7, scale: 0.1, offset: 0.0 }
    }
}

impl ModuleMapper for Ramp {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        param.map(|values| {
            let shape = values.dims();
            let ramp = Tensor::<1, Int>::arange(0..values.shape().num_elements() as i64, &values.device()).float();
            values * self.keep + (ramp * self.pace).sin().reshape(shape) * self.scale + self.offset
        })
    }
}
