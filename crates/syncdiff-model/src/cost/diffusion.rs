//! Cost of the first stage and of the denoiser.

use crate::autoencoder::AutoencoderConfig;
use crate::cost::Cost;
use crate::denoiser::PriorConfig;
use crate::unet::UNetConfig;

/// Norm, 3x3 convolution, twice, and a 1x1 convolution beside them where the channels change.
fn res_block(input: usize, output: usize, pixels: usize) -> Cost {
    let beside = if input == output { Cost::default() } else { Cost::conv(input, output, 1, pixels) };
    Cost::norm(input)
        + Cost::conv(input, output, 9, pixels)
        + Cost::norm(output)
        + Cost::conv(output, output, 9, pixels)
        + beside
}

impl AutoencoderConfig {
    /// Residual block, attention over all pixels, residual block.
    fn middle(channels: usize, pixels: usize) -> Cost {
        let projections = Cost::conv(channels, 4 * channels, 1, pixels);
        let attention = Cost::norm(channels) + projections + Cost::attention(pixels, pixels, channels);
        let block = res_block(channels, channels, pixels);
        block + attention + block
    }

    /// Norm and last convolution.
    fn head(channels: usize, output: usize, pixels: usize) -> Cost {
        Cost::norm(channels) + Cost::conv(channels, output, 9, pixels)
    }

    /// One picture of `size` x `size` pixels to its latent, without the 1x1 convolution behind.
    pub fn encoder_cost(&self, size: usize) -> Cost {
        let (mut side, mut channels) = (size, self.ch);
        let mut cost = Cost::conv(self.in_channels, channels, 9, side * side);
        for (level, mult) in self.ch_mult.iter().enumerate() {
            for _ in 0..self.num_res_blocks {
                cost += res_block(channels, mult * self.ch, side * side);
                channels = mult * self.ch;
            }
            if level + 1 < self.ch_mult.len() {
                side /= 2;
                cost += Cost::conv(channels, channels, 9, side * side);
            }
        }
        cost + Self::middle(channels, side * side) + Self::head(channels, self.z_channels, side * side)
    }

    /// The latent of a picture of `size` x `size` pixels to the picture, without the 1x1 convolution before.
    pub fn decoder_cost(&self, size: usize) -> Cost {
        let mut side = size / self.factor();
        let mut channels = self.ch * self.ch_mult.last().copied().unwrap_or(1);
        let mut cost = Cost::conv(self.z_channels, channels, 9, side * side) + Self::middle(channels, side * side);
        for (level, mult) in self.ch_mult.iter().enumerate().rev() {
            for _ in 0..=self.num_res_blocks {
                cost += res_block(channels, mult * self.ch, side * side);
                channels = mult * self.ch;
            }
            if level > 0 {
                side *= 2;
                cost += Cost::conv(channels, channels, 9, side * side);
            }
        }
        cost + Self::head(channels, self.in_channels, side * side)
    }

    /// `encodings` pictures encoded and `decodings` latents quantised and decoded.
    pub fn cost(&self, size: usize, encodings: usize, decodings: usize) -> Cost {
        let side = size / self.factor();
        let pixels = side * side;
        let between = Cost::conv(self.z_channels, self.z_channels, 1, pixels);
        // The nearest row of the codebook: a product of the latent with all of it.
        let codebook = Cost::plain_linear(self.z_channels, self.n_embed, pixels);
        (self.encoder_cost(size) + between).times(encodings)
            + (self.decoder_cost(size) + between + codebook).times(decodings)
    }
}

/// The levels of a U-Net as its blocks are stacked; `at` is the side of the picture.
struct Walk<'a> {
    config: &'a UNetConfig,
    tokens: usize,
    side: usize,
    channels: usize,
    cost: Cost,
}

impl Walk<'_> {
    fn pixels(&self) -> usize {
        self.side * self.side
    }

    fn conv(&mut self, input: usize, output: usize) {
        self.cost += Cost::conv(input, output, 9, self.pixels());
        self.channels = output;
    }

    fn res(&mut self, input: usize, output: usize) {
        let embedding = Cost::linear(4 * self.config.model_channels, output, 1);
        self.cost += res_block(input, output, self.pixels()) + embedding;
        self.channels = output;
    }

    fn transformer(&mut self) {
        let (pixels, dim, tokens) = (self.pixels(), self.channels, self.tokens);
        let around = Cost::norm(dim) + Cost::conv(dim, 2 * dim, 1, pixels);
        let look_at_pixels = Cost::plain_linear(dim, 3 * dim, pixels)
            + Cost::attention(pixels, pixels, dim)
            + Cost::linear(dim, dim, pixels);
        let look_at_tokens = Cost::plain_linear(dim, dim, pixels)
            + Cost::plain_linear(self.config.context_dim, 2 * dim, tokens)
            + Cost::attention(pixels, tokens, dim)
            + Cost::linear(dim, dim, pixels);
        let feed_forward = Cost::linear(dim, 8 * dim, pixels) + Cost::linear(4 * dim, dim, pixels);
        self.cost += around + look_at_pixels + look_at_tokens + feed_forward + Cost::values(3 * 2 * dim);
    }
}

impl UNetConfig {
    /// One evaluation on a latent of `side` x `side` with `tokens` audio tokens.
    pub fn cost(&self, side: usize, tokens: usize) -> Cost {
        let width = self.model_channels;
        let time = Cost::linear(width, 4 * width, 1) + Cost::linear(4 * width, 4 * width, 1);
        let mut walk = Walk { config: self, tokens, side, channels: width, cost: time };
        walk.conv(self.in_channels, width);
        let (mut skips, mut factor) = (vec![width], 1);
        let levels = self.channel_mult.len();
        for (level, mult) in self.channel_mult.iter().enumerate() {
            for _ in 0..self.num_res_blocks {
                walk.res(walk.channels, mult * width);
                if self.attends(factor) {
                    walk.transformer();
                }
                skips.push(walk.channels);
            }
            if level + 1 < levels {
                (walk.side, factor) = (walk.side / 2, factor * 2);
                walk.conv(walk.channels, walk.channels);
                skips.push(walk.channels);
            }
        }
        walk.res(walk.channels, walk.channels);
        walk.transformer();
        walk.res(walk.channels, walk.channels);
        for (level, mult) in self.channel_mult.iter().enumerate().rev() {
            for i in 0..=self.num_res_blocks {
                let skip = skips.pop().unwrap_or(0);
                walk.res(walk.channels + skip, mult * width);
                if self.attends(factor) {
                    walk.transformer();
                }
                if level > 0 && i == self.num_res_blocks {
                    (walk.side, factor) = (walk.side * 2, factor / 2);
                    walk.conv(walk.channels, walk.channels);
                }
            }
        }
        walk.cost += Cost::norm(walk.channels);
        walk.conv(walk.channels, self.out_channels);
        walk.cost
    }
}

impl PriorConfig {
    /// The 1x1 convolutions that squeeze the latents of previous frames, where there are any: one for each frame.
    pub fn bottleneck_cost(&self, latent: usize, side: usize) -> Cost {
        if self.pose_channels == 0 {
            return Cost::default();
        }
        (0..self.pose_frames).map(|_| Cost::conv(latent, self.pose_channels, 1, side * side)).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::LipSyncConfig;
    use crate::autoencoder::Autoencoder;
    use crate::denoiser::LatentDenoiser;
    use burn::module::Module;
    use burn::tensor::Device;

    fn giga(cost: Cost) -> f64 {
        cost.macs as f64 / 1e9
    }

    /// The published table of builds: width, parameters, 10^9 multiply-accumulates to its digits.
    #[test]
    fn the_unet_costs_what_is_published() {
        for (width, parameters, macs, digits) in [
            (256, 546_211_587, 171.42, 0.005),
            (192, 310_936_899, 97.6, 0.05),
            (128, 141_476_739, 44.4, 0.05),
            (64, 37_831_107, 11.9, 0.05),
        ] {
            let cost = UNetConfig { model_channels: width, ..UNetConfig::paper() }.cost(64, 1);
            assert_eq!(cost.parameters, parameters);
            assert!((giga(cost) - macs).abs() <= digits, "width {width}: {}", giga(cost));
        }
        for (in_channels, parameters) in [(7, 546_204_675), (9, 546_209_283), (14, 546_220_803), (19, 546_232_323)] {
            assert_eq!(UNetConfig { in_channels, ..UNetConfig::paper() }.cost(64, 1).parameters, parameters);
        }
        let talk = crate::official::difftalk_unet().cost(64, 1);
        assert_eq!((talk.parameters, giga(talk).round()), (530_152_963, 171.0));
    }

    #[test]
    fn the_autoencoder_costs_what_is_published() {
        let config = AutoencoderConfig::paper();
        let (encoder, decoder) = (config.encoder_cost(256), config.decoder_cost(256));
        assert_eq!((encoder.parameters, decoder.parameters), (22_337_411, 32_960_771));
        assert!((giga(encoder) - 172.6).abs() < 0.05 && (giga(decoder) - 335.3).abs() < 0.05);
        assert_eq!(config.cost(256, 1, 1).parameters, 55_322_782);
    }

    /// Two pixels a side, two channels: small enough to count by hand.
    #[test]
    fn the_smallest_unet_counted_by_hand() {
        let config = UNetConfig {
            in_channels: 1,
            out_channels: 1,
            model_channels: 2,
            channel_mult: vec![1],
            num_res_blocks: 0,
            attention_resolutions: vec![],
            num_head_channels: 2,
            context_dim: 3,
            norm_groups: 1,
        };
        // Time 2 * 8 + 8 * 8; conv in 9 * 2 * 4; residual blocks with the embedding 8 * 2, twice with 2 -> 2 channels
        // and once with 4 -> 2 and the 1x1 beside; transformer; conv out 9 * 2 * 4.
        let (time, conv_in, conv_out) = (80, 72, 72);
        let block = 2 * 9 * 4 * 4 + 16;
        let joined = (8 + 4) * 9 * 4 + 8 * 4 + 16;
        let transformer = 2 * 4 * 4 // in and out
            + 4 * 4 * 4 + 2 * 4 * 4 * 2 // four projections, two products over 4 pixels
            + 2 * 4 * 4 + 2 * 3 * 4 + 2 * 4 * 2 * 2 // two of pixels, two of 2 tokens of 3, two products
            + 2 * 16 * 4 + 8 * 2 * 4; // feed-forward
        let expected = time + conv_in + 2 * block + transformer + joined + conv_out;
        assert_eq!(config.cost(2, 2).macs, expected);
    }

    #[test]
    fn parameters_are_those_of_the_networks() {
        let device = Device::default();
        for name in LipSyncConfig::PRESETS {
            let config = LipSyncConfig::preset(name).unwrap();
            let counted = config.autoencoder.cost(config.crop_size, 2, 1).parameters;
            assert_eq!(counted, Autoencoder::new(&config.autoencoder, &device).num_params() as u64, "{name}");
            let latent = config.autoencoder.z_channels;
            let counted = config.unet.cost(config.latent_size(), 9) + config.priors.bottleneck_cost(latent, 32);
            let denoiser = LatentDenoiser::new(&config.unet, config.priors, &device);
            assert_eq!(counted.parameters, denoiser.num_params() as u64, "{name}");
        }
        // Each of five previous frames has its own three weights and bias.
        let priors = PriorConfig { pose_frames: 5, ..PriorConfig::SYNCDIFF };
        let unet = UNetConfig { in_channels: priors.in_channels(3), model_channels: 64, ..UNetConfig::paper() };
        let counted = unet.cost(64, 1) + priors.bottleneck_cost(3, 64);
        assert_eq!(counted.parameters, LatentDenoiser::new(&unet, priors, &device).num_params() as u64);
        assert_eq!(priors.bottleneck_cost(3, 64), Cost { parameters: 20, macs: 5 * 3 * 64 * 64 });
    }
}
