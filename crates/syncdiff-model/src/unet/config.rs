//! Shape of the U-Net.

use serde::{Deserialize, Serialize};

/// Typed configuration of [`super::UNet`]; upstream's names where they exist.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UNetConfig {
    /// Noisy latent (3) + masked frame (3) + identity frame (3) + squeezed pose frame (1) = 10 for SyncDiff.
    pub in_channels: usize,
    /// Latent channels.
    pub out_channels: usize,
    /// Width of the first level.
    pub model_channels: usize,
    /// Width multiplier per level.
    pub channel_mult: Vec<usize>,
    /// Residual blocks per level going down (one more going up).
    pub num_res_blocks: usize,
    /// Down-sampling factors at which spatial transformers stand.
    pub attention_resolutions: Vec<usize>,
    /// Channels per attention head.
    pub num_head_channels: usize,
    /// Width of the audio tokens.
    pub context_dim: usize,
    /// Groups of every group normalisation (32 upstream).
    pub norm_groups: usize,
}

impl UNetConfig {
    /// The paper's network: DiffTalk's configuration with 10 input channels and 768-wide context.
    pub fn paper() -> Self {
        Self {
            in_channels: 10,
            out_channels: 3,
            model_channels: 256,
            channel_mult: vec![1, 2, 3, 4],
            num_res_blocks: 2,
            attention_resolutions: vec![8, 4, 2],
            num_head_channels: 32,
            context_dim: 768,
            norm_groups: 32,
        }
    }

    pub(crate) fn attends(&self, factor: usize) -> bool {
        self.attention_resolutions.contains(&factor)
    }
}
