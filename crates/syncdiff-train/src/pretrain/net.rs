//! The network that is pre-trained: speech encoder, a pair of eyes, and what guesses clusters.

use super::examples::Batch;
use crate::error::TrainResult;
use burn::module::{Initializer, Module, Param};
use burn::nn::{Linear, LinearConfig};
use burn::tensor::{Device, Tensor};
use syncdiff_model::audio::{AudioEncoder, AudioEncoderConfig};
use syncdiff_model::cost::Cost;
use syncdiff_model::video::SmallFrontEnd;
use syncdiff_model::weights::{Remap, TensorMap, load_into_from, module_tensors};

/// Width in which rows are compared with clusters: AV-HuBERT's.
const GUESS_WIDTH: usize = 256;
/// What cosines are divided by: AV-HuBERT's.
const TEMPERATURE: f64 = 0.1;

/// Encoder, video front end and head. The encoder is kept; the front end is too, since clusters of a later iteration
/// need it.
#[derive(Module, Debug)]
pub struct Pretrainee {
    /// The part that the other stages take.
    pub audio: AudioEncoder,
    /// Its eyes.
    pub video: SmallFrontEnd,
    head: Head,
}

/// What only the guessing needs.
#[derive(Module, Debug)]
struct Head {
    /// What is heard in the place of hidden rows, [input].
    mask: Param<Tensor<1>>,
    projection: Linear,
    /// [clusters, 256]
    clusters: Param<Tensor<2>>,
}

impl Pretrainee {
    /// Random weights from the device's generator. Every layer learns, whatever the configuration freezes later.
    ///
    /// # Errors
    /// When the sizes of the encoder do not fit each other.
    pub fn new(config: &AudioEncoderConfig, clusters: usize, device: &Device) -> TrainResult<Self> {
        let normal = Initializer::Normal { mean: 0.0, std: 1.0 };
        Ok(Self {
            audio: AudioEncoderConfig { num_frozen_layers: 0, ..config.clone() }.init(device)?,
            video: SmallFrontEnd::new(config.dim, device),
            head: Head {
                mask: Initializer::Uniform { min: 0.0, max: 1.0 }.init([config.input_dim], device),
                projection: LinearConfig::new(config.dim, GUESS_WIDTH).init(device),
                clusters: normal.init([clusters, GUESS_WIDTH], device),
            },
        })
    }

    /// Values that learn, and a pass over a clip of `frames` frames.
    pub(crate) fn cost(config: &AudioEncoderConfig, clusters: usize, frames: usize) -> Cost {
        let head = Cost::linear(config.dim, GUESS_WIDTH, frames) + Cost::plain_linear(GUESS_WIDTH, clusters, frames);
        config.cost(frames)
            + SmallFrontEnd::cost(config.dim).times(frames)
            + head
            + Cost { parameters: config.input_dim as u64, macs: 0 }
    }

    fn audio_names() -> Remap {
        AudioEncoder::remap().with_prefix("audio.")
    }

    fn head_names() -> Remap {
        // As in AV-HuBERT.
        let names = [("mask", "mask_emb"), ("projection", "final_proj"), ("clusters", "label_embs_concat")];
        Remap::table(&names).with_prefix("pretrain.")
    }

    /// All weights: `audio.` as `train speech` names them, `video.`, and the head under `pretrain.`.
    pub fn tensors(&self) -> TensorMap {
        let mut tensors = module_tensors(&self.audio, &Self::audio_names());
        tensors.extend(module_tensors(&self.video, &SmallFrontEnd::remap()));
        tensors.extend(module_tensors(&self.head, &Self::head_names()));
        tensors
    }

    /// Encoder and front end of a result; the head stays, since its clusters are others.
    ///
    /// # Errors
    /// When the tensors are those of another network; `name` is what the error calls them.
    pub fn with_weights(self, tensors: &TensorMap, name: &str) -> TrainResult<Self> {
        Ok(Self {
            audio: load_into_from(self.audio, tensors, &Self::audio_names(), name)?,
            video: load_into_from(self.video, tensors, &SmallFrontEnd::remap(), name)?,
            head: self.head,
        })
    }

    /// Width of a row of the encoder.
    pub(super) fn width(&self) -> usize {
        self.head.projection.weight.lazy_shape().as_slice()[0]
    }

    /// Sound and sight behind their front ends, [batch, time, dim] each; hidden rows of sound are the learned one.
    pub(super) fn halves(&self, batch: &Batch) -> (Tensor<3>, Tensor<3>) {
        let hidden = batch.hidden.clone();
        let heard = batch.rows.clone() * (hidden.clone().neg() + 1.0) + hidden * self.head.mask.val().unsqueeze::<3>();
        (self.audio.hear(heard), self.video.forward(batch.mouths.clone()))
    }

    /// How much each frame is taken for each cluster.
    ///
    /// # Shapes
    /// both [batch, time, dim] -> [batch * time, clusters]
    pub(super) fn guess(&self, sound: Tensor<3>, sight: Tensor<3>, lengths: &[usize]) -> Tensor<2> {
        let rows = self.audio.forward_halves(sound, sight, Some(lengths)).last;
        let guesses = of_length_one(self.head.projection.forward(rows).flatten(0, 1));
        guesses.matmul(of_length_one(self.head.clusters.val()).transpose()) / TEMPERATURE
    }
}

fn of_length_one(x: Tensor<2>) -> Tensor<2> {
    // Inside the root, so that its slope is finite at zero.
    let length = (x.clone().powi_scalar(2).sum_dim(1) + 1e-12).sqrt();
    x / length
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::module::Module;

    #[test]
    fn costs_names_and_weights_are_those_of_the_parts() {
        let device = Device::flex();
        device.seed(1);
        let config = AudioEncoderConfig { dim: 32, num_layers: 2, num_heads: 2, ..AudioEncoderConfig::base() };
        let net = Pretrainee::new(&config, 10, &device).unwrap();
        assert_eq!(Pretrainee::cost(&config, 10, 7).parameters, net.num_params() as u64);
        assert_eq!(net.width(), 32);
        let tensors = net.tensors();
        for (name, shape) in [
            ("audio.feature_extractor_audio.proj.weight", vec![32, 104]),
            ("video.layers.0.conv.weight", vec![16, 5, 3, 3]),
            ("pretrain.mask_emb", vec![104]),
            ("pretrain.final_proj.weight", vec![GUESS_WIDTH, 32]),
            ("pretrain.label_embs_concat", vec![10, GUESS_WIDTH]),
        ] {
            assert_eq!(tensors[name].shape(), shape, "{name}");
        }
        let other = Pretrainee::new(&config, 4, &device).unwrap().with_weights(&tensors, "a file").unwrap();
        for (name, tensor) in other.tensors() {
            let same = tensor.to_f32().unwrap() == tensors[&name].to_f32().unwrap();
            assert!(same || name.starts_with("pretrain."), "{name}");
        }
        let narrow = AudioEncoderConfig { dim: 16, ..config };
        let error = Pretrainee::new(&narrow, 4, &device).unwrap().with_weights(&tensors, "a file").unwrap_err();
        assert!(error.to_string().contains("a file"), "{error}");
    }
}
