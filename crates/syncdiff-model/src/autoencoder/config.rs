//! Shape of the autoencoder.

use serde::{Deserialize, Serialize};

/// Typed configuration of [`super::Autoencoder`]; upstream's names.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AutoencoderConfig {
    /// Picture channels.
    pub in_channels: usize,
    /// Latent channels.
    pub z_channels: usize,
    /// Width of the first level.
    pub ch: usize,
    /// Width multiplier per level; the latent is smaller by 2^(levels - 1).
    pub ch_mult: Vec<usize>,
    /// Residual blocks per level of the encoder (the decoder has one more).
    pub num_res_blocks: usize,
    /// Rows of the codebook.
    pub n_embed: usize,
    /// Groups of every group normalisation (32 upstream).
    pub norm_groups: usize,
}

impl AutoencoderConfig {
    /// VQ-f4 of latent-diffusion: 55,322,782 parameters.
    pub fn paper() -> Self {
        Self {
            in_channels: 3,
            z_channels: 3,
            ch: 128,
            ch_mult: vec![1, 2, 4],
            num_res_blocks: 2,
            n_embed: 8192,
            norm_groups: 32,
        }
    }

    /// Pixels per latent position along one axis.
    pub fn factor(&self) -> usize {
        1 << (self.ch_mult.len() - 1)
    }
}
