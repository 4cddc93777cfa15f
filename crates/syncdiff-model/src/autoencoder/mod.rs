//! First stage: the VQ-f4 autoencoder between pixels and latents.
//!
//! # Source
//! latent-diffusion `ldm/models/autoencoder.py` (`VQModelInterface`) and `ldm/modules/diffusionmodules/model.py`
//! (`Encoder`, `Decoder`); taming-transformers `VectorQuantizer2`. Field names are upstream's state-dict names.

mod blocks;
mod config;
pub mod discriminator;
mod quantizer;

pub use blocks::{AttnBlock, ResnetBlock};
pub use config::AutoencoderConfig;
pub use discriminator::PatchDiscriminator;
pub use quantizer::{Quantized, Quantizer};

use crate::nn::{Conv1x1, Conv3, GroupNorm, in_pool};
use crate::precision::{Precision, cast};
use blocks::{EPS, Level, Mid};
use burn::module::Module;
use burn::tensor::{Device, Tensor, TensorData};
use quantizer::learn;

/// Pixels to pre-quantisation latents.
#[derive(Module, Debug)]
pub struct Encoder {
    conv_in: Conv3,
    down: Vec<Level>,
    mid: Mid,
    norm_out: GroupNorm,
    conv_out: Conv3,
}

impl Encoder {
    fn new(config: &AutoencoderConfig, device: &Device) -> Self {
        let mut channels = config.ch;
        let mut down = Vec::new();
        for (level, mult) in config.ch_mult.iter().enumerate() {
            let out = mult * config.ch;
            let last = level + 1 == config.ch_mult.len();
            down.push(Level::down(config, channels, out, config.num_res_blocks, !last, device));
            channels = out;
        }
        Self {
            conv_in: Conv3::new(config.in_channels, config.ch, device),
            down,
            mid: Mid::new(config, channels, device),
            norm_out: GroupNorm::new(config.norm_groups, channels, EPS, device),
            conv_out: Conv3::new(channels, config.z_channels, device),
        }
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        self.forward_traced(x, &mut |_, _| {})
    }

    /// [`Self::forward`] that shows the output of each level.
    fn forward_traced(&self, x: Tensor<4>, observe: &mut dyn FnMut(usize, &Tensor<4>)) -> Tensor<4> {
        let mut h = self.conv_in.forward(x);
        for (i, level) in self.down.iter().enumerate() {
            h = level.forward_down(h);
            observe(i, &h);
        }
        self.conv_out.forward(self.norm_out.forward_silu(self.mid.forward(h)))
    }
}

/// Latents to pixels.
#[derive(Module, Debug)]
pub struct Decoder {
    conv_in: Conv3,
    mid: Mid,
    /// Indexed by level, as upstream: the last entry runs first.
    up: Vec<Level>,
    norm_out: GroupNorm,
    conv_out: Conv3,
}

impl Decoder {
    fn new(config: &AutoencoderConfig, device: &Device) -> Self {
        let deepest = config.ch * config.ch_mult.last().expect("at least one level");
        let mut channels = deepest;
        let mut up = Vec::new();
        for (level, mult) in config.ch_mult.iter().enumerate().rev() {
            let out = mult * config.ch;
            up.push(Level::up(config, channels, out, config.num_res_blocks + 1, level > 0, device));
            channels = out;
        }
        up.reverse();
        Self {
            conv_in: Conv3::new(config.z_channels, deepest, device),
            mid: Mid::new(config, deepest, device),
            up,
            norm_out: GroupNorm::new(config.norm_groups, channels, EPS, device),
            conv_out: Conv3::new(channels, config.in_channels, device),
        }
    }

    fn forward(&self, z: Tensor<4>) -> Tensor<4> {
        self.conv_out.forward(self.features(z))
    }

    /// What the last layer sees.
    fn features(&self, z: Tensor<4>) -> Tensor<4> {
        let h = self.mid.forward(self.conv_in.forward(z));
        let h = self.up.iter().rev().fold(h, |h, level| level.forward_up(h));
        self.norm_out.forward_silu(h)
    }

    /// The last layer, whose gradient balances the adversarial loss.
    pub fn last_layer(&self) -> &Conv3 {
        &self.conv_out
    }
}

/// The whole first stage.
#[derive(Module, Debug)]
pub struct Autoencoder {
    /// Pixels to latents.
    pub encoder: Encoder,
    /// Latents to pixels.
    pub decoder: Decoder,
    /// The codebook.
    pub quantize: Quantizer,
    quant_conv: Conv1x1,
    post_quant_conv: Conv1x1,
}

impl Autoencoder {
    /// Builds the network with the original's initialisation.
    pub fn new(config: &AutoencoderConfig, device: &Device) -> Self {
        Self {
            encoder: Encoder::new(config, device),
            decoder: Decoder::new(config, device),
            quantize: Quantizer::new(config.n_embed, config.z_channels, device),
            quant_conv: Conv1x1::new(config.z_channels, config.z_channels, device),
            post_quant_conv: Conv1x1::new(config.z_channels, config.z_channels, device),
        }
    }

    /// Latents **before** quantisation, unscaled: what the denoiser works on.
    ///
    /// # Shapes
    /// x: [batch, 3, height, width] in [-1, 1] -> [batch, 3, height / f, width / f]
    pub fn encode(&self, x: Tensor<4>) -> Tensor<4> {
        let (inside, outside) = (self.quant_conv.bias.val().dtype(), x.dtype());
        in_pool(&x.device(), || cast(self.quant_conv.forward(self.encoder.forward(cast(x, inside))), outside))
    }

    /// Snaps the latents to the codebook and decodes them.
    ///
    /// # Shapes
    /// z: [batch, 3, h, w] -> [batch, 3, f h, f w], about [-1, 1] (not clamped)
    pub fn decode(&self, z: Tensor<4>) -> Tensor<4> {
        self.decode_quantized(self.quantize.quantize(z))
    }

    /// Decodes without quantisation, or latents that were quantised by the caller.
    pub fn decode_quantized(&self, z: Tensor<4>) -> Tensor<4> {
        let (inside, outside) = (self.post_quant_conv.bias.val().dtype(), z.dtype());
        in_pool(&z.device(), || cast(self.decoder.forward(self.post_quant_conv.forward(cast(z, inside))), outside))
    }

    /// What the decoder's last layer ([`Decoder::last_layer`]) makes the picture of, in the type that the decoder
    /// computes in; quantised by the caller or not.
    ///
    /// # Shapes
    /// z: [batch, 3, h, w] -> [batch, ch, f h, f w]
    pub fn decode_features(&self, z: Tensor<4>) -> Tensor<4> {
        let inside = self.post_quant_conv.bias.val().dtype();
        in_pool(&z.device(), || self.decoder.features(self.post_quant_conv.forward(cast(z, inside))))
    }

    /// The same autoencoder with its convolutions computing in another type; the codebook stays as it is.
    #[must_use]
    pub fn in_precision(self, precision: Precision) -> Self {
        Self {
            encoder: precision.convert(self.encoder),
            decoder: precision.convert(self.decoder),
            quant_conv: precision.convert(self.quant_conv),
            post_quant_conv: precision.convert(self.post_quant_conv),
            quantize: self.quantize,
        }
    }

    /// As [`Autoencoder::in_precision`], but for the decoder's last layer, whose gradient is looked at while it learns.
    #[must_use]
    pub fn learning_in(self, precision: Precision) -> Self {
        let last_layer = self.decoder.conv_out.clone();
        let converted = self.in_precision(precision);
        Self { decoder: Decoder { conv_out: last_layer, ..converted.decoder }, ..converted }
    }

    /// The same autoencoder with latents shifted and scaled per channel: z' = (z - mean) / deviation. The change is
    /// folded into the 1x1 convolutions and the codebook, so that pictures decode as before. A diffusion schedule
    /// expects latents of about unit variance.
    ///
    /// # Shapes
    /// mean, deviation: one per latent channel
    pub fn with_normalised_latents(mut self, mean: &[f32], deviation: &[f32]) -> Self {
        let channels = mean.len();
        let device = self.quantize.codebook().device();
        let row = |values: Vec<f32>| Tensor::<1>::from_data(TensorData::new(values, [channels]), &device);
        let (mean, deviation) = (row(mean.to_vec()), row(deviation.to_vec()));
        let codes = self.quantize.codebook().detach();
        let codes = (codes - mean.clone().reshape([1, channels])) / deviation.clone().reshape([1, channels]);
        self.quantize = self.quantize.with_codebook(codes);
        let Conv1x1 { weight, bias } = self.quant_conv;
        self.quant_conv = Conv1x1 {
            weight: weight.map(|w| learn(w.clone() / deviation.clone().reshape([channels, 1, 1, 1]), &w)),
            bias: bias.map(|b| learn((b.clone() - mean.clone()) / deviation.clone(), &b)),
        };
        let Conv1x1 { weight, bias } = self.post_quant_conv;
        let shift = (weight.val().detach() * mean.reshape([1, channels, 1, 1])).sum_dim(1).reshape([-1]);
        self.post_quant_conv = Conv1x1 {
            weight: weight.map(|w| learn(w.clone() * deviation.reshape([1, channels, 1, 1]), &w)),
            bias: bias.map(|b| learn(b.clone() + shift, &b)),
        };
        self
    }

    /// The encoder alone, before the 1x1 convolution; shows the output of each level (for tests).
    pub fn encoder_features(&self, x: Tensor<4>, observe: &mut dyn FnMut(usize, &Tensor<4>)) -> Tensor<4> {
        self.encoder.forward_traced(x, observe)
    }

    /// Blocks of the encoder's middle (for tests): residual block and attention.
    pub fn encoder_mid(&self) -> (&ResnetBlock, &AttnBlock) {
        self.encoder.mid.parts()
    }
}
