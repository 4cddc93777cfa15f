//! Encoder and decoder together.

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use serde::{Deserialize, Serialize};

use crate::audio::AudioEncoderConfig;
use crate::error::ModelResult;
use crate::reader::decoder::{Decoder, DecoderConfig};
use crate::reader::search::{BeamSearch, Hypothesis, beam_search, greedy};
use crate::video::AudioVisualEncoder;
use crate::weights::Remap;

/// Where the encoder lies in a fine-tuned checkpoint.
const ENCODER: &str = "encoder.w2v_model.";

/// Sizes of a [`LipReader`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LipReaderConfig {
    /// The audio-visual encoder.
    pub encoder: AudioEncoderConfig,
    /// The decoder.
    pub decoder: DecoderConfig,
}

impl LipReaderConfig {
    /// The base reader.
    pub fn base(vocabulary: usize) -> Self {
        let encoder = AudioEncoderConfig { num_frozen_layers: 0, ..AudioEncoderConfig::base() };
        Self { encoder, decoder: DecoderConfig::base(vocabulary) }
    }

    /// The large reader, which the paper's word error rates come from.
    pub fn large(vocabulary: usize) -> Self {
        Self { encoder: AudioEncoderConfig::large(), decoder: DecoderConfig::large(vocabulary) }
    }

    /// A new reader with random weights from the device's generator.
    ///
    /// # Errors
    /// [`crate::ModelError::Parameter`] for sizes that do not fit each other.
    pub fn init(&self, device: &Device) -> ModelResult<LipReader> {
        Ok(LipReader {
            encoder: AudioVisualEncoder::new(&self.encoder, device)?,
            decoder: self.decoder.init(self.encoder.dim, device)?,
        })
    }
}

/// Reads lips (or hears, or both); see the module's documentation.
#[derive(Module, Debug)]
pub struct LipReader {
    encoder: AudioVisualEncoder,
    decoder: Decoder,
}

impl LipReader {
    /// Names in the state dict of a fine-tuned `AVHubertSeq2Seq`.
    pub fn remap() -> Remap {
        let ignored = AudioVisualEncoder::ignored(ENCODER);
        let mut ignored: Vec<&str> = ignored.iter().map(String::as_str).collect();
        ignored.extend(["decoder.version", "decoder.embed_positions"]);
        Remap::identity()
            .with_names(|path| match path.strip_prefix("encoder.") {
                Some(rest) => AudioVisualEncoder::disk_name(rest).map(|name| format!("{ENCODER}{name}")),
                None => path.strip_prefix("decoder.").map(|rest| format!("decoder.{}", Decoder::disk_name(rest))),
            })
            .ignoring(&ignored)
    }

    /// Encodes what is seen.
    ///
    /// # Shapes
    /// [batch, frames, 88, 88] of [`crate::video::mouth_tensor`] -> [batch, frames, dim]
    pub fn encode(&self, mouths: Tensor<4>) -> Tensor<3> {
        self.encoder.forward(None, Some(mouths), None).last
    }

    /// The encoder, for sound and padded batches.
    pub fn encoder(&self) -> &AudioVisualEncoder {
        &self.encoder
    }

    /// The decoder, for teacher forcing.
    pub fn decoder(&self) -> &Decoder {
        &self.decoder
    }

    /// The sentence of the likeliest tokens, one after the other.
    ///
    /// # Shapes
    /// memory [1, frames, dim]
    pub fn greedy(&self, memory: Tensor<3>, max_len: usize) -> Vec<usize> {
        greedy(&mut self.decoder.writer(memory), max_len)
    }

    /// The best sentences, best first.
    ///
    /// # Shapes
    /// memory [1, frames, dim]
    ///
    /// # Errors
    /// As [`BeamSearch::check`].
    pub fn beam_search(&self, memory: Tensor<3>, settings: &BeamSearch) -> ModelResult<Vec<Hypothesis>> {
        beam_search(&mut self.decoder.writer(memory), settings)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reader::dictionary::END;
    use crate::reader::search::NextToken;
    use crate::weights::module_shapes;

    #[test]
    fn the_large_decoder_has_the_published_number_of_parameters() {
        let decoder = DecoderConfig::large(1000).init(1024, &Device::default()).unwrap();
        assert_eq!(decoder.num_params() - 1000 * 1024, 151_172_096);
        let names = module_shapes(&decoder, &Remap::identity().with_names(|path| Some(Decoder::disk_name(path))));
        assert_eq!(names["embed_tokens.weight"], [1000, 1024]);
        assert_eq!(names["layers.8.encoder_attn.k_proj.weight"], [1024, 1024]);
    }

    /// Writing token by token, with hypotheses that change places, says what teacher forcing says.
    #[test]
    fn writing_equals_teacher_forcing() {
        let device = Device::default();
        device.seed(11);
        let config =
            DecoderConfig { dim: 16, num_layers: 2, num_heads: 2, feed_forward_dim: 24, vocabulary: 9, dropout: 0.0 };
        let decoder = config.init(12, &device).unwrap();
        let memory = Tensor::<3>::random([1, 5, 12], burn::tensor::Distribution::Default, &device);
        let mut writer = decoder.writer(memory.clone());
        writer.advance(&[0], &[END]);
        writer.advance(&[0, 0], &[4, 5]);
        let said = writer.advance(&[1, 0, 1], &[6, 7, 8]);
        for (sentence, said) in [vec![END, 5, 6], vec![END, 4, 7], vec![END, 5, 8]].into_iter().zip(said) {
            let logits = decoder.forward(&[sentence], memory.clone(), None).narrow(1, 2, 1);
            let forced = burn::tensor::activation::log_softmax(logits, 2).into_data().try_to_vec::<f32>().unwrap();
            assert!(forced.iter().zip(&said).all(|(a, b)| (a - b).abs() < 1e-5), "{forced:?} {said:?}");
        }
    }
}
