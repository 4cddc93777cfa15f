//! An audio encoder of AV-HuBERT's shape, run without video.
//!
//! The same code is the published base model (with imported weights) and our own small one: all sizes come from
//! [`AudioEncoderConfig`]. It sees the whole utterance; there is no mask but that of padding.
//!
//! # Source
//! Shi et al. 2022; facebookresearch/av_hubert `AVHubertModel.extract_finetune` and fairseq `TransformerEncoder`.

use burn::module::Module;
use burn::nn::{Dropout, DropoutConfig, LayerNorm, LayerNormConfig, Linear};
use burn::tensor::{Bool, Device, Tensor, TensorData};
use serde::{Deserialize, Serialize};

use crate::audio::encoder_layer::{EncoderLayer, bert_linear};
use crate::audio::filterbank::FEATURES_PER_ROW;
use crate::audio::positional::PositionalConv;
use crate::error::{ModelError, ModelResult};
use crate::weights::Remap;

/// Sizes of an [`AudioEncoder`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AudioEncoderConfig {
    /// Width of the rows that it is given: the filter bank's where absent.
    #[serde(default = "filter_bank", skip_serializing_if = "is_filter_bank")]
    pub input_dim: usize,
    /// Width.
    pub dim: usize,
    /// Number of layers.
    pub num_layers: usize,
    /// Attention heads; must divide `dim`.
    pub num_heads: usize,
    /// Inner width of the feed-forward part.
    pub feed_forward_dim: usize,
    /// Kernel of the positional convolution, in rows.
    pub position_kernel: usize,
    /// Groups of the positional convolution; must divide `dim`.
    pub position_groups: usize,
    /// Share of values dropped while training, in layers that are not frozen.
    pub dropout: f64,
    /// The first layers that do not learn. From 1 on, the front end and the last norm do not learn either; 0 lets
    /// everything learn.
    pub num_frozen_layers: usize,
    /// Whether the last norm is applied after the last layer. AV-HuBERT applies it when the whole stack is asked for,
    /// and not when one layer is.
    #[serde(default = "applied")]
    pub final_norm: bool,
}

const fn filter_bank() -> usize {
    FEATURES_PER_ROW
}

fn is_filter_bank(width: &usize) -> bool {
    *width == FEATURES_PER_ROW
}

const fn applied() -> bool {
    true
}

impl AudioEncoderConfig {
    /// AV-HuBERT base with the paper's nine frozen layers: 91,039,616 parameters.
    pub fn base() -> Self {
        Self {
            input_dim: FEATURES_PER_ROW,
            dim: 768,
            num_layers: 12,
            num_heads: 12,
            feed_forward_dim: 3072,
            position_kernel: 128,
            position_groups: 16,
            dropout: 0.1,
            num_frozen_layers: 9,
            final_norm: true,
        }
    }

    /// AV-HuBERT large, the encoder of its lip reader: 312,910,976 parameters, none of them frozen.
    pub fn large() -> Self {
        Self { dim: 1024, num_layers: 24, num_heads: 16, feed_forward_dim: 4096, num_frozen_layers: 0, ..Self::base() }
    }

    /// Finds sizes that do not fit each other.
    ///
    /// # Errors
    /// [`ModelError::Parameter`].
    pub fn check(&self) -> ModelResult<()> {
        let fault = |name: &str, value: String, allowed: &str| {
            Err(ModelError::parameter("audio encoder", name, value, allowed))
        };
        let sizes = [
            ("input_dim", self.input_dim),
            ("dim", self.dim),
            ("num_layers", self.num_layers),
            ("num_heads", self.num_heads),
            ("feed_forward_dim", self.feed_forward_dim),
            ("position_kernel", self.position_kernel),
            ("position_groups", self.position_groups),
        ];
        if let Some((name, value)) = sizes.into_iter().find(|(_, value)| *value == 0) {
            return fault(name, value.to_string(), "must be 1 or more");
        }
        if !self.dim.is_multiple_of(self.num_heads) {
            return fault("num_heads", self.num_heads.to_string(), "must divide dim");
        }
        if !self.dim.is_multiple_of(self.position_groups) {
            return fault("position_groups", self.position_groups.to_string(), "must divide dim");
        }
        if !(0.0..1.0).contains(&self.dropout) {
            return fault("dropout", self.dropout.to_string(), "must be at least 0 and below 1");
        }
        if self.num_frozen_layers > self.num_layers {
            return fault("num_frozen_layers", self.num_frozen_layers.to_string(), "must not exceed num_layers");
        }
        Ok(())
    }

    /// A new encoder with random weights from the device's generator.
    ///
    /// # Errors
    /// As [`Self::check`].
    pub fn init(&self, device: &Device) -> ModelResult<AudioEncoder> {
        self.check()?;
        let layer = |_| EncoderLayer::new(self.dim, self.num_heads, self.feed_forward_dim, self.dropout, device);
        let encoder = AudioEncoder {
            front_end: bert_linear(self.input_dim, self.dim, device),
            fusion_norm: LayerNormConfig::new(2 * self.dim).init(device),
            fusion: bert_linear(2 * self.dim, self.dim, device),
            position: PositionalConv::new(self.dim, self.position_kernel, self.position_groups, device),
            layers: (0..self.num_layers).map(layer).collect(),
            final_norm: LayerNormConfig::new(self.dim).init(device),
            dropout: DropoutConfig::new(self.dropout).init(),
            heads: self.num_heads,
            num_frozen_layers: self.num_frozen_layers,
            norm_last: self.final_norm,
        };
        Ok(encoder.freeze_configured())
    }
}

/// What an encoder gives.
#[derive(Debug, Clone)]
pub struct EncoderOutput {
    /// After all layers and the final norm (unless it is switched off), [batch, time, dim].
    pub last: Tensor<3>,
    /// After each layer, without the final norm, [batch, time, dim] each.
    pub layers: Vec<Tensor<3>>,
}

/// Encodes speech rows; see the module's documentation.
#[derive(Module, Debug)]
pub struct AudioEncoder {
    front_end: Linear,
    fusion_norm: LayerNorm,
    fusion: Linear,
    position: PositionalConv,
    layers: Vec<EncoderLayer>,
    final_norm: LayerNorm,
    dropout: Dropout,
    #[module(skip)]
    heads: usize,
    #[module(skip)]
    num_frozen_layers: usize,
    #[module(skip)]
    norm_last: bool,
}

impl AudioEncoder {
    /// Names in AV-HuBERT's state dict; tensors that belong to video or to pre-training may be present.
    pub fn remap() -> Remap {
        Remap::table(&[
            ("front_end", "feature_extractor_audio.proj"),
            ("fusion_norm", "layer_norm"),
            ("fusion", "post_extract_proj"),
            ("position", "encoder.pos_conv.0"),
            ("layers.*.attention_norm", "encoder.layers.*.self_attn_layer_norm"),
            ("layers.*.q", "encoder.layers.*.self_attn.q_proj"),
            ("layers.*.k", "encoder.layers.*.self_attn.k_proj"),
            ("layers.*.v", "encoder.layers.*.self_attn.v_proj"),
            ("layers.*.out", "encoder.layers.*.self_attn.out_proj"),
            ("layers.*.feed_forward_norm", "encoder.layers.*.final_layer_norm"),
            ("layers", "encoder.layers"),
            ("final_norm", "encoder.layer_norm"),
        ])
        .ignoring(&["mask_emb", "feature_extractor_video", "final_proj", "label_embs_concat"])
    }

    /// Encodes one utterance.
    ///
    /// # Shapes
    /// rows [time, 104] -> [time, dim]
    pub fn encode(&self, rows: Tensor<2>) -> Tensor<2> {
        self.forward(rows.unsqueeze(), None).squeeze_dim(0)
    }

    /// Encodes a batch; `lengths` are the rows that are not padding, and what is returned beyond them means nothing.
    ///
    /// # Shapes
    /// [batch, time, 104] -> [batch, time, dim]
    ///
    /// # Panics
    /// When `lengths` does not name 1 to `time` rows for each utterance.
    pub fn forward(&self, rows: Tensor<3>, lengths: Option<&[usize]>) -> Tensor<3> {
        self.run(self.halves(Some(rows), None), lengths, &mut |_, _| {})
    }

    /// [`Self::forward`] of one utterance that shows what lies before the layers under its upstream names: `layer_norm`
    /// [batch, time, 2 dim], `post_extract_proj` and `pos_conv` (before it is added) [batch, time, dim]; and the output
    /// of each of the `layers`.
    pub fn forward_traced(&self, rows: Tensor<3>, observe: &mut dyn FnMut(&str, &Tensor<3>)) -> Tensor<3> {
        self.run(self.halves(Some(rows), None), None, observe)
    }

    /// As [`Self::forward`], keeping the output of every layer.
    pub fn forward_layers(&self, rows: Tensor<3>, lengths: Option<&[usize]>) -> EncoderOutput {
        self.forward_modalities(Some(rows), None, lengths)
    }

    /// The sound's half of the fusion: its front end alone.
    ///
    /// # Shapes
    /// [batch, time, 104] -> [batch, time, dim]
    pub fn hear(&self, rows: Tensor<3>) -> Tensor<3> {
        self.front_end.forward(rows)
    }

    /// As [`Self::forward_layers`], from both halves of the fusion behind their front ends, so that either may be taken
    /// away from some utterances of a batch: what is absent is zero.
    ///
    /// # Shapes
    /// both [batch, time, dim]
    ///
    /// # Panics
    /// As [`Self::forward`].
    pub fn forward_halves(&self, sound: Tensor<3>, sight: Tensor<3>, lengths: Option<&[usize]>) -> EncoderOutput {
        self.layers_of(Tensor::cat(vec![sound, sight], 2), lengths)
    }

    /// As [`Self::forward_layers`] with sound, sight (after its front end) or both.
    pub(crate) fn forward_modalities(
        &self,
        rows: Option<Tensor<3>>,
        video: Option<Tensor<3>>,
        lengths: Option<&[usize]>,
    ) -> EncoderOutput {
        self.layers_of(self.halves(rows, video), lengths)
    }

    fn layers_of(&self, halves: Tensor<3>, lengths: Option<&[usize]>) -> EncoderOutput {
        let mut layers = Vec::with_capacity(self.layers.len());
        let last = self.run(halves, lengths, &mut |stage, x| {
            if stage == "layers" {
                layers.push(x.clone());
            }
        });
        EncoderOutput { last, layers }
    }

    /// The two halves of the fusion, [batch, time, 2 dim]; a half that is absent is zero.
    fn halves(&self, rows: Option<Tensor<3>>, video: Option<Tensor<3>>) -> Tensor<3> {
        let audio = rows.map(|rows| self.hear(rows));
        let halves = match (audio, video) {
            (Some(audio), Some(video)) => vec![audio, video],
            (Some(audio), None) => vec![audio.clone(), audio.zeros_like()],
            (None, Some(video)) => vec![video.zeros_like(), video],
            (None, None) => panic!("an utterance needs sound, sight or both"),
        };
        Tensor::cat(halves, 2)
    }

    fn run(
        &self,
        halves: Tensor<3>,
        lengths: Option<&[usize]>,
        observe: &mut dyn FnMut(&str, &Tensor<3>),
    ) -> Tensor<3> {
        let [batch, time, _] = halves.dims();
        let device = halves.device();
        let padding = lengths.filter(|lengths| lengths.iter().any(|length| *length != time)).map(|lengths| {
            let valid = lengths.iter().all(|length| (1..=time).contains(length));
            assert!(lengths.len() == batch && valid, "lengths {lengths:?} of {batch} utterances of {time} rows");
            let flags = lengths.iter().flat_map(|length| (0..time).map(move |t| t >= *length)).collect::<Vec<bool>>();
            Tensor::<2, Bool>::from_data(TensorData::new(flags, [batch, time]), &device)
        });

        let fused = self.fusion_norm.forward(halves); // [batch, time, 2 dim]
        observe("layer_norm", &fused);
        let fused = self.fusion.forward(fused); // [batch, time, dim]
        observe("post_extract_proj", &fused);
        let mut x = self.dropout.forward(fused);
        if let Some(padding) = &padding {
            let wide = padding.clone().unsqueeze_dim::<3>(2).expand(x.dims());
            x = x.mask_fill(wide, 0.0);
        }
        let position = self.position.forward(x.clone());
        observe("pos_conv", &position);
        x = x + position;
        x = self.dropout.forward(x);
        let hidden_keys =
            padding.map(|padding| padding.reshape([batch, 1, 1, time]).expand([batch, self.heads, time, time]));
        for layer in &self.layers {
            x = layer.forward(x, hidden_keys.clone());
            observe("layers", &x);
        }
        if self.norm_last { self.final_norm.forward(x) } else { x }
    }

    /// Marks the configured layers as not learning. `load_into` keeps the marks; a module that was unfrozen as a whole
    /// (`unfreeze`, `train` on a record) is put right by this.
    pub fn freeze_configured(mut self) -> Self {
        if self.num_frozen_layers == 0 {
            return self;
        }
        self.front_end = self.front_end.freeze();
        self.fusion_norm = self.fusion_norm.freeze();
        self.fusion = self.fusion.freeze();
        self.position = self.position.freeze();
        self.final_norm = self.final_norm.freeze();
        self.dropout = self.dropout.freeze();
        let frozen = self.num_frozen_layers;
        let freeze = |(i, layer): (usize, EncoderLayer)| if i < frozen { layer.freeze() } else { layer };
        self.layers = self.layers.into_iter().enumerate().map(freeze).collect();
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::weights::module_shapes;

    fn tiny(num_frozen_layers: usize) -> AudioEncoderConfig {
        AudioEncoderConfig {
            input_dim: FEATURES_PER_ROW,
            dim: 16,
            num_layers: 3,
            num_heads: 2,
            feed_forward_dim: 24,
            position_kernel: 5,
            position_groups: 2,
            dropout: 0.0,
            num_frozen_layers,
            final_norm: true,
        }
    }

    fn rows(batch: usize, time: usize, device: &Device) -> Tensor<3> {
        let values: Vec<f32> = (0..batch * time * 104).map(|i| ((i * 7919) % 1000) as f32 / 500.0 - 1.0).collect();
        Tensor::from_data(TensorData::new(values, [batch, time, 104]), device)
    }

    #[test]
    fn base_has_the_published_number_of_parameters() {
        let encoder = AudioEncoderConfig::base().init(&Device::default()).unwrap();
        assert_eq!(encoder.num_params(), 91_039_616);
        assert_eq!(AudioEncoderConfig::large().init(&Device::default()).unwrap().num_params(), 312_910_976);
        let names = module_shapes(&encoder, &AudioEncoder::remap());
        assert_eq!(names["encoder.pos_conv.0.weight_v"], [768, 48, 128]);
        assert_eq!(names["encoder.layers.11.fc1.weight"], [3072, 768]);
    }

    #[test]
    fn padding_changes_nothing_where_there_is_none() {
        let device = Device::default();
        device.seed(5);
        let encoder = tiny(0).init(&device).unwrap();
        let batch = encoder.forward(rows(2, 9, &device), Some(&[9, 6]));
        let alone = encoder.forward(rows(2, 9, &device).slice([1..2, 0..6]), None);
        let difference = (batch.slice([1..2, 0..6]) - alone).abs().max().into_scalar::<f32>();
        assert!(difference < 1e-5, "{difference}");
    }

    #[test]
    fn a_half_of_zeros_is_an_absent_one() {
        let device = Device::default();
        device.seed(6);
        let encoder = tiny(0).init(&device).unwrap();
        let sound = encoder.hear(rows(1, 7, &device));
        let halves = encoder.forward_halves(sound.clone(), sound.zeros_like(), None);
        assert_eq!(halves.last.into_data(), encoder.forward(rows(1, 7, &device), None).into_data());
        let sight = encoder.forward_halves(sound.zeros_like(), sound.clone(), None);
        assert_eq!(sight.last.to_data(), encoder.forward_modalities(None, Some(sound), None).last.to_data());
        assert_ne!(sight.layers[0].to_data(), halves.layers[0].to_data());
    }

    #[test]
    fn the_last_norm_is_a_choice() {
        let device = Device::default();
        let plain = AudioEncoderConfig { final_norm: false, ..tiny(0) }.init(&device).unwrap();
        let output = plain.forward_layers(rows(1, 5, &device), None);
        assert_eq!(output.last.into_data(), output.layers[2].to_data());
        let normed = AudioEncoder { norm_last: true, ..plain }.forward(rows(1, 5, &device), None);
        let moments = (normed.clone().mean_dim(2), (normed.clone() * normed).mean_dim(2));
        assert!(moments.0.abs().max().into_scalar::<f32>() < 1e-5);
        assert!((moments.1 - 1.0).abs().max().into_scalar::<f32>() < 1e-2);
    }

    /// NF of the paper's table 6, and none.
    #[test]
    fn only_layers_that_are_not_frozen_get_gradients() {
        let device = Device::default().autodiff();
        for frozen in [0, 3, 6, 9, 12] {
            let encoder = AudioEncoderConfig { num_layers: 12, ..tiny(frozen) }.init(&device).unwrap();
            // An input that takes gradients: with everything frozen there would be none to go back through.
            let input = rows(1, 7, &device).require_grad();
            let grads = encoder.forward(input, None).powi_scalar(2).sum().backward();
            let has = |tensor: Tensor<2>| tensor.grad(&grads).is_some();
            assert_eq!(has(encoder.front_end.weight.val()), frozen == 0);
            assert_eq!(encoder.final_norm.gamma.val().grad(&grads).is_some(), frozen == 0);
            assert_eq!(encoder.position.weight_v.val().grad(&grads).is_some(), frozen == 0);
            for (i, layer) in encoder.layers.iter().enumerate() {
                assert_eq!(has(layer.test_weight()), i >= frozen, "layer {i}, {frozen} frozen");
            }
        }
    }

    #[test]
    fn senseless_sizes_are_refused() {
        for config in [
            AudioEncoderConfig { num_heads: 3, ..tiny(0) },
            AudioEncoderConfig { position_groups: 3, ..tiny(0) },
            AudioEncoderConfig { num_frozen_layers: 4, ..tiny(0) },
            AudioEncoderConfig { dropout: 1.0, ..tiny(0) },
            AudioEncoderConfig { dim: 0, ..tiny(0) },
        ] {
            assert!(matches!(config.init(&Device::default()), Err(ModelError::Parameter { .. })), "{config:?}");
        }
    }
}
