//! The small audio network over DeepSpeech logits: the paper's "DS" ablation.

use burn::module::Module;
use burn::nn::conv::{Conv1d, Conv1dConfig};
use burn::nn::{Linear, LinearConfig, PaddingConfig1d};
use burn::tensor::activation::leaky_relu;
use burn::tensor::{Device, Tensor};

use crate::audio::temporal_filter::LEAK;
use crate::weights::Remap;

/// Characters of a DeepSpeech logit row.
pub const NUM_CHARACTERS: usize = 29;
/// Logit rows that one video frame sees; the convolutions halve them to one.
pub const NUM_LOGIT_ROWS: usize = 16;

/// 16 rows of 29 logits to one row of `dim`.
///
/// # Source
/// AD-NeRF and DiffTalk `AudioNet`.
#[derive(Module, Debug)]
pub struct AudioNet {
    convs: Vec<Conv1d>,
    linears: Vec<Linear>,
}

impl AudioNet {
    /// Channels after each convolution.
    pub(crate) const CHANNELS: [usize; 4] = [32, 32, 64, 64];

    /// `dim` is 64 in DiffTalk and 128 in the paper's ablation (36,960 parameters).
    pub fn new(dim: usize, device: &Device) -> Self {
        let mut input = NUM_CHARACTERS;
        let conv = |output: usize| {
            let config = Conv1dConfig::new(input, output, 3).with_stride(2);
            input = output;
            config.with_padding(PaddingConfig1d::Explicit(1, 1)).init(device)
        };
        Self {
            convs: Self::CHANNELS.map(conv).into(),
            linears: vec![LinearConfig::new(64, 64).init(device), LinearConfig::new(64, dim).init(device)],
        }
    }

    /// Names in the source.
    pub fn remap() -> Remap {
        Remap::table(&[
            ("convs.0", "encoder_conv.0"),
            ("convs.1", "encoder_conv.2"),
            ("convs.2", "encoder_conv.4"),
            ("convs.3", "encoder_conv.6"),
            ("linears.0", "encoder_fc1.0"),
            ("linears.1", "encoder_fc1.2"),
        ])
    }

    /// The convolutions, before the linear layers.
    ///
    /// # Shapes
    /// [batch, 16, 29] -> [batch, 64]
    pub fn convolved(&self, logits: Tensor<3>) -> Tensor<2> {
        let mut x = logits.swap_dims(1, 2); // [batch, 29, 16]
        for conv in &self.convs {
            x = leaky_relu(conv.forward(x), LEAK);
        }
        x.squeeze_dim(2)
    }

    /// # Shapes
    /// [batch, 16, 29] -> [batch, dim]
    pub fn forward(&self, logits: Tensor<3>) -> Tensor<2> {
        let x = self.convolved(logits);
        self.linears[1].forward(leaky_relu(self.linears[0].forward(x), LEAK))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameter_counts() {
        for (dim, count) in [(64, 32_800), (128, 36_960)] {
            assert_eq!(AudioNet::new(dim, &Device::default()).num_params(), count);
        }
    }
}
