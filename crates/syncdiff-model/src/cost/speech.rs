//! Cost of what listens and of what reads lips.

use crate::audio::audio_net::{NUM_CHARACTERS, NUM_LOGIT_ROWS};
use crate::audio::filterbank::SAMPLES_PER_ROW;
use crate::audio::moonshine::{CONVS, DIM, FEED_FORWARD, HOP};
use crate::audio::temporal_filter::CHANNELS as FILTER_CHANNELS;
use crate::audio::{AudioEncoderConfig, AudioNet, ConditioningConfig, ConditioningTokens, Moonshine, TemporalFilter};
use crate::cost::{Cost, Meter};
use crate::nn::conv_norm::ConvShape;
use crate::reader::{DecoderConfig, LipReaderConfig};
use crate::video::resnet::{CHANNELS as RESNET_CHANNELS, STEM_FRAMES};
use crate::video::{MOUTH_SIDE, RESNET_WIDTH, VideoFrontEnd};

/// A convolution over time, with bias; `rows` counts its outputs.
fn conv1d(input: usize, output: usize, kernel: usize, rows: usize) -> Cost {
    Cost::conv(input, output, kernel, rows)
}

impl AudioEncoderConfig {
    /// One utterance of `rows` rows (25 a second), without video.
    pub fn cost(&self, rows: usize) -> Cost {
        Cost::linear(self.input_dim, self.dim, rows) + self.fused_cost(rows)
    }

    /// The same from the two halves on: sound and sight cost equal here.
    fn fused_cost(&self, rows: usize) -> Cost {
        let dim = self.dim;
        let fusion = Cost::norm(2 * dim) + Cost::linear(2 * dim, dim, rows);
        let position = conv1d(dim / self.position_groups, dim, self.position_kernel, rows);
        let lengths = Cost::values(self.position_kernel);
        let attention = Cost::linear(dim, 4 * dim, rows) + Cost::attention(rows, rows, dim);
        let feed_forward =
            Cost::linear(dim, self.feed_forward_dim, rows) + Cost::linear(self.feed_forward_dim, dim, rows);
        let layer = Cost::norm(dim) + attention + Cost::norm(dim) + feed_forward;
        let layers = (0..self.num_layers).map(|_| layer).sum::<Cost>();
        fusion + position + lengths + layers + Cost::norm(dim)
    }
}

impl Moonshine {
    /// The first `num_layers` layers over `rows` rows.
    pub fn cost(num_layers: usize, rows: usize) -> Cost {
        let times = rows * SAMPLES_PER_ROW / HOP;
        let stem = conv1d(1, DIM, CONVS[0].0, 6 * times) + conv1d(DIM, 2 * DIM, CONVS[1].0, 2 * times);
        let stem = stem + conv1d(2 * DIM, DIM, CONVS[2].0, times) + Cost::norm(DIM);
        let attention = Cost::plain_linear(DIM, 4 * DIM, times) + Cost::attention(times, times, DIM);
        let feed_forward = Cost::linear(DIM, FEED_FORWARD, times) + Cost::linear(FEED_FORWARD, DIM, times);
        let layer = attention + feed_forward + Cost::values(2 * DIM);
        let cost = stem + (0..num_layers).map(|_| layer).sum::<Cost>() + Cost::values(DIM);
        // Its first convolution has no bias.
        Cost { parameters: cost.parameters - DIM as u64, ..cost }
    }
}

impl TemporalFilter {
    /// One window of rows of `dim` channels, of which `attended` are looked at.
    pub fn cost(window: usize, attended: usize, dim: usize) -> Cost {
        let mut input = attended;
        let mut cost = Cost::linear(window, window, 1);
        for output in FILTER_CHANNELS {
            cost += conv1d(input, output, 3, window);
            input = output;
        }
        // The weighted mean itself.
        cost + Cost { parameters: 0, macs: (window * dim) as u64 }
    }
}

impl ConditioningConfig {
    /// The tokens of one frame.
    pub fn cost(&self) -> Cost {
        let positions = match self.tokens {
            ConditioningTokens::Single => Cost::default(),
            ConditioningTokens::Window => Cost::values(self.window * self.dim),
        };
        let attended = self.attended_dim.unwrap_or(self.dim);
        let filter = self.temporal_filter.then(|| TemporalFilter::cost(self.window, attended, self.dim));
        positions + filter.unwrap_or_default()
    }
}

impl AudioNet {
    /// One frame, 16 rows of logits, to a row of `dim`.
    pub fn cost(dim: usize) -> Cost {
        let (mut input, mut rows) = (NUM_CHARACTERS, NUM_LOGIT_ROWS);
        let mut cost = Cost::linear(64, 64, 1) + Cost::linear(64, dim, 1);
        for output in Self::CHANNELS {
            rows /= 2;
            cost += conv1d(input, output, 3, rows);
            input = output;
        }
        cost
    }
}

impl VideoFrontEnd {
    /// One picture of a mouth to a row of `dim`.
    pub fn cost(dim: usize) -> Cost {
        let mut meter = Meter::new([MOUTH_SIDE; 2]);
        // Its convolutions have no bias; norm and slopes are three values a channel.
        let conv = |meter: &mut Meter, input: usize, output: usize, shape: ConvShape| {
            meter.conv(input, output, &shape);
            meter.cost.parameters -= output as u64;
        };
        let norm_and_slopes = |channels: usize| Cost::norm(channels) + Cost::values(channels);
        let mut input = RESNET_CHANNELS[0];
        conv(&mut meter, STEM_FRAMES, input, ConvShape::square(7, 2, 3));
        meter.cost += norm_and_slopes(input);
        meter.pool([3, 3], [2, 2], [1, 1]);
        for (level, output) in RESNET_CHANNELS.into_iter().enumerate() {
            for block in 0..2 {
                let stride = if level > 0 && block == 0 { 2 } else { 1 };
                if stride != 1 || input != output {
                    let size = meter.size;
                    conv(&mut meter, input, output, ConvShape::square(1, stride, 0));
                    meter.norm(output);
                    meter.size = size;
                }
                conv(&mut meter, input, output, ConvShape::square(3, stride, 1));
                conv(&mut meter, output, output, ConvShape::square(3, 1, 1));
                meter.cost += norm_and_slopes(output) + norm_and_slopes(output);
                input = output;
            }
        }
        meter.cost + Cost::linear(RESNET_WIDTH, dim, 1)
    }
}

impl DecoderConfig {
    /// A sentence of `tokens` tokens from `rows` encoded rows of `memory_dim`, as one hypothesis.
    pub fn cost(&self, memory_dim: usize, rows: usize, tokens: usize) -> Cost {
        let dim = self.dim;
        let self_attention = Cost::linear(dim, 4 * dim, tokens) + Cost::attention(tokens, tokens, dim);
        let cross_attention = Cost::linear(dim, 2 * dim, tokens)
            + Cost::linear(memory_dim, 2 * dim, rows)
            + Cost::attention(tokens, rows, dim);
        let feed_forward =
            Cost::linear(dim, self.feed_forward_dim, tokens) + Cost::linear(self.feed_forward_dim, dim, tokens);
        let layer = self_attention + cross_attention + feed_forward + Cost::values(3 * 2 * dim);
        let layers = (0..self.num_layers).map(|_| layer).sum::<Cost>();
        // Embedding and output share one matrix; it multiplies in the output.
        layers + Cost::norm(dim) + Cost::plain_linear(dim, self.vocabulary, tokens)
    }
}

impl LipReaderConfig {
    /// The lips of `rows` frames to a sentence of `tokens` tokens. The sound's front end counts with its parameters.
    pub fn cost(&self, rows: usize, tokens: usize) -> Cost {
        self.encoder_cost(rows) + self.decoder.cost(self.encoder.dim, rows, tokens)
    }

    /// The lips of `rows` frames to as many rows.
    pub fn encoder_cost(&self, rows: usize) -> Cost {
        let dim = self.encoder.dim;
        let deaf = Cost::linear(self.encoder.input_dim, dim, 0);
        VideoFrontEnd::cost(dim).times(rows) + deaf + self.encoder.fused_cost(rows)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::LipSyncConfig;
    use burn::module::Module;
    use burn::tensor::Device;

    #[test]
    fn published_numbers_of_parameters() {
        let base = AudioEncoderConfig::base();
        assert_eq!(base.cost(1).parameters, 91_039_616);
        assert_eq!(AudioEncoderConfig::large().cost(1).parameters, 312_910_976);
        assert_eq!(Moonshine::cost(6, 1).parameters, 7_681_248);
        assert_eq!(VideoFrontEnd::cost(768).parameters, 11_580_672);
        assert_eq!(LipReaderConfig::base(1000).encoder_cost(1).parameters, 102_620_288);
        assert_eq!(LipReaderConfig::large(1000).encoder_cost(1).parameters, 324_622_976);
        assert_eq!(DecoderConfig::large(1000).cost(1024, 1, 1).parameters, 151_172_096 + 1000 * 1024);
        for (dim, count) in [(64, 32_800), (128, 36_960)] {
            assert_eq!(AudioNet::cost(dim).parameters, count);
        }
        for (window, dim, count) in [(8, 32, 2_149), (8, 768, 37_477), (8, 128, 6_757), (16, 64, 3_885)] {
            assert_eq!(TemporalFilter::cost(window, dim, dim).parameters, count);
        }
    }

    /// 0.09 10^9 a frame and what attention adds, as published; and cases counted by hand.
    #[test]
    fn multiply_accumulates() {
        let base = AudioEncoderConfig::base();
        let frame = base.cost(1).macs - Cost::attention(1, 1, 768).times(12).macs;
        assert!((frame as f64 / 1e9 - 0.09).abs() < 0.005, "{frame}");
        assert_eq!(base.cost(250).macs, 250 * frame + 12 * 2 * 250 * 250 * 768);
        // Lengths 8, 4, 2, 1: 29 -> 32 -> 32 -> 64 -> 64 with kernels of 3, then two linear maps.
        let convolutions = 3 * (29 * 32 * 8 + 32 * 32 * 4 + 32 * 64 * 2 + 64 * 64);
        assert_eq!(AudioNet::cost(128).macs, convolutions + 64 * 64 + 64 * 128);
        // ResNet-18 on 88 x 88 behind its stem: 64 at 22 x 22, then half the side and twice the channels.
        let trunk = 4 * 9 * 64 * 64 * 22 * 22
            + (9 * 64 * 128 + 64 * 128 + 3 * 9 * 128 * 128) * 11 * 11
            + (9 * 128 * 256 + 128 * 256 + 3 * 9 * 256 * 256) * 6 * 6
            + (9 * 256 * 512 + 256 * 512 + 3 * 9 * 512 * 512) * 3 * 3;
        assert_eq!(VideoFrontEnd::cost(768).macs, 5 * 49 * 64 * 44 * 44 + trunk + 512 * 768);
    }

    #[test]
    fn parameters_are_those_of_the_networks() {
        let device = Device::default();
        for name in LipSyncConfig::PRESETS {
            let config = LipSyncConfig::preset(name).unwrap();
            let encoder = config.audio.init(&device).unwrap();
            assert_eq!(config.audio.cost(7).parameters, encoder.num_params() as u64, "{name}");
            let conditioner = config.conditioning.init(&device).unwrap();
            assert_eq!(config.conditioning.cost().parameters, conditioner.num_params() as u64, "{name}");
        }
        for vocabulary in [4, 1000] {
            let config = DecoderConfig::base(vocabulary);
            let decoder = config.init(512, &device).unwrap();
            assert_eq!(config.cost(512, 3, 2).parameters, decoder.num_params() as u64);
        }
    }
}
