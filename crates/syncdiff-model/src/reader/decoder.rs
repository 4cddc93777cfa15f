//! The Transformer decoder of a reader: from encoded video and the tokens so far to the next token.

use burn::module::{Initializer, Module, Param};
use burn::nn::{LayerNorm, LayerNormConfig};
use burn::tensor::activation::log_softmax;
use burn::tensor::{Bool, DType, Device, Int, Tensor, TensorData};
use serde::{Deserialize, Serialize};

use crate::error::{ModelError, ModelResult};
use crate::reader::decoder_layer::{DecoderLayer, KeysValues};
use crate::reader::dictionary::{NUM_SPECIAL, PADDING};
use crate::reader::search::NextToken;

/// Sizes of a [`Decoder`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DecoderConfig {
    /// Width.
    pub dim: usize,
    /// Number of layers.
    pub num_layers: usize,
    /// Attention heads; must divide `dim`.
    pub num_heads: usize,
    /// Inner width of the feed-forward part.
    pub feed_forward_dim: usize,
    /// Number of tokens, the four special ones among them.
    pub vocabulary: usize,
    /// Share of values dropped while training.
    pub dropout: f64,
}

impl DecoderConfig {
    /// The base reader's.
    pub fn base(vocabulary: usize) -> Self {
        Self { dim: 768, num_layers: 6, num_heads: 4, feed_forward_dim: 3072, vocabulary, dropout: 0.1 }
    }

    /// The large reader's: 151,172,096 parameters and 1024 for each token.
    pub fn large(vocabulary: usize) -> Self {
        Self { dim: 1024, num_layers: 9, num_heads: 8, feed_forward_dim: 4096, vocabulary, dropout: 0.1 }
    }

    /// A new decoder for an encoder of width `memory_dim`, with random weights from the device's generator.
    ///
    /// # Errors
    /// [`ModelError::Parameter`] for sizes that do not fit each other.
    pub fn init(&self, memory_dim: usize, device: &Device) -> ModelResult<Decoder> {
        let fault =
            |name: &str, value: String, allowed: &str| Err(ModelError::parameter("decoder", name, value, allowed));
        let sizes = [
            ("num_layers", self.num_layers),
            ("num_heads", self.num_heads),
            ("feed_forward_dim", self.feed_forward_dim),
            ("memory_dim", memory_dim),
        ];
        if let Some((name, value)) = sizes.into_iter().find(|(_, value)| *value == 0) {
            return fault(name, value.to_string(), "must be 1 or more");
        }
        if self.dim < 4 || !self.dim.is_multiple_of(2) || !self.dim.is_multiple_of(self.num_heads) {
            return fault("dim", self.dim.to_string(), "must be even, 4 or more, and a multiple of num_heads");
        }
        if self.vocabulary < NUM_SPECIAL {
            return fault("vocabulary", self.vocabulary.to_string(), "must hold the four special tokens");
        }
        if !(0.0..1.0).contains(&self.dropout) {
            return fault("dropout", self.dropout.to_string(), "must be at least 0 and below 1");
        }
        let layer =
            |_| DecoderLayer::new(self.dim, memory_dim, self.feed_forward_dim, self.num_heads, self.dropout, device);
        let std = (self.dim as f64).powf(-0.5);
        Ok(Decoder {
            embed_tokens: Initializer::Normal { mean: 0.0, std }.init([self.vocabulary, self.dim], device),
            layers: (0..self.num_layers).map(layer).collect(),
            layer_norm: LayerNormConfig::new(self.dim).init(device),
            heads: self.num_heads,
        })
    }
}

/// See the module's documentation. Embedding and output share one matrix.
///
/// # Source
/// av_hubert `decoder.py` (`TransformerDecoder`): pre-norm, no scaling of the embedding, sinusoidal positions.
#[derive(Module, Debug)]
pub struct Decoder {
    /// [vocabulary, dim]
    embed_tokens: Param<Tensor<2>>,
    layers: Vec<DecoderLayer>,
    layer_norm: LayerNorm,
    #[module(skip)]
    heads: usize,
}

/// Sinusoidal code of a position: sines, then cosines, of frequencies 10000^(-k / (dim / 2 - 1)).
///
/// # Source
/// fairseq `SinusoidalPositionalEmbedding`.
pub fn position_code(position: usize, dim: usize) -> Vec<f32> {
    let half = dim / 2;
    let step = 10000f64.ln() / (half - 1) as f64;
    // The angles are products of f32 there.
    let angle = |k: usize| position as f32 * ((-step * k as f64) as f32).exp();
    (0..half).map(|k| angle(k).sin()).chain((0..half).map(|k| angle(k).cos())).collect()
}

impl Decoder {
    /// Name in the original, relative to its `decoder.`, of the parameter at a path of this module.
    pub(crate) fn disk_name(path: &str) -> String {
        let parts = path.split('.').map(|part| match part {
            "embed_tokens" => "embed_tokens.weight",
            "self_norm" => "self_attn_layer_norm",
            "self_attention" => "self_attn",
            "cross_norm" => "encoder_attn_layer_norm",
            "cross_attention" => "encoder_attn",
            "feed_forward_norm" => "final_layer_norm",
            "q" => "q_proj",
            "k" => "k_proj",
            "v" => "v_proj",
            "out" => "out_proj",
            other => other,
        });
        parts.collect::<Vec<_>>().join(".")
    }

    /// Codes of the positions of a sentence, the first being padding + 1; padding has none.
    ///
    /// # Shapes
    /// -> [tokens, dim]
    fn positions(&self, tokens: &[usize], first: usize) -> Vec<f32> {
        let [_, dim] = self.embed_tokens.dims();
        let mut position = PADDING + first;
        tokens
            .iter()
            .flat_map(|token| {
                if *token == PADDING {
                    return vec![0.0; dim];
                }
                position += 1;
                position_code(position, dim)
            })
            .collect()
    }

    /// Embedded tokens with their positions, which begin behind `first` earlier ones.
    fn embed(&self, sentences: &[Vec<usize>], first: usize) -> Tensor<3> {
        let weight = self.embed_tokens.val();
        let (device, [_, dim]) = (weight.device(), weight.dims());
        let [batch, rows] = [sentences.len(), sentences[0].len()];
        let indices: Vec<i64> = sentences.iter().flatten().map(|token| *token as i64).collect();
        let indices = Tensor::<1, Int>::from_data(TensorData::new(indices, [batch * rows]), &device);
        let positions: Vec<f32> = sentences.iter().flat_map(|sentence| self.positions(sentence, first)).collect();
        let positions = TensorData::new(positions, [batch, rows, dim]);
        weight.select(0, indices).reshape([batch, rows, dim]) + Tensor::from_data(positions, (&device, DType::F32))
    }

    fn logits(&self, x: Tensor<3>) -> Tensor<3> {
        let x = self.layer_norm.forward(x);
        x.matmul(self.embed_tokens.val().transpose().unsqueeze())
    }

    /// Teacher-forced: what comes after each of the given tokens, all of which are known. Sentences begin with the end
    /// symbol and may end in padding; what is said behind padding means nothing. `memory_lengths` are the rows of the
    /// encoder that are not padding.
    ///
    /// # Shapes
    /// sentences [batch][tokens], memory [batch, time, memory_dim] -> [batch, tokens, vocabulary]
    ///
    /// # Panics
    /// When sentences differ in length, are none or empty, or hold tokens beyond the vocabulary.
    pub fn forward(&self, sentences: &[Vec<usize>], memory: Tensor<3>, memory_lengths: Option<&[usize]>) -> Tensor<3> {
        self.forward_traced(sentences, memory, memory_lengths, &mut |_| {})
    }

    /// [`Self::forward`] that shows the embedded tokens and the output of each layer, [batch, tokens, dim].
    pub fn forward_traced(
        &self,
        sentences: &[Vec<usize>],
        memory: Tensor<3>,
        memory_lengths: Option<&[usize]>,
        observe: &mut dyn FnMut(&Tensor<3>),
    ) -> Tensor<3> {
        let [batch, rows, time] = [sentences.len(), sentences[0].len(), memory.dims()[1]];
        assert!(sentences.iter().all(|sentence| sentence.len() == rows), "sentences of one batch are of one length");
        let device = memory.device();
        let mask = |columns: usize, hidden: &dyn Fn(usize, usize, usize) -> bool| {
            let flags: Vec<bool> = (0..batch)
                .flat_map(|b| (0..rows).flat_map(move |q| (0..columns).map(move |k| (b, q, k))))
                .map(|(b, q, k)| hidden(b, q, k))
                .collect();
            let mask = Tensor::<4, Bool>::from_data(TensorData::new(flags, [batch, 1, rows, columns]), &device);
            mask.expand([batch, self.heads, rows, columns])
        };
        // Padding comes last, so the causal mask hides it from every token before.
        let later = mask(rows, &|_, q, k| k > q);
        let beyond = memory_lengths.map(|lengths| mask(time, &|b, _, k| k >= lengths[b]));
        let mut x = self.embed(sentences, 0);
        observe(&x);
        for layer in &self.layers {
            let memory = layer.memory(memory.clone());
            x = layer.forward(x, None, Some(later.clone()), &memory, beyond.clone()).0;
            observe(&x);
        }
        self.logits(x)
    }

    /// Begins to write the sentence of one utterance, token by token.
    ///
    /// # Shapes
    /// memory [1, time, memory_dim]
    pub fn writer(&self, memory: Tensor<3>) -> Writer<'_> {
        let memory = self.layers.iter().map(|layer| layer.memory(memory.clone())).collect();
        Writer { decoder: self, memory, past: Vec::new(), length: 0 }
    }
}

/// Hypotheses being written, with the keys and values of their tokens, so that each step costs one token.
pub struct Writer<'a> {
    decoder: &'a Decoder,
    /// Of the encoder, per layer; a batch of one.
    memory: Vec<KeysValues>,
    /// Of the tokens so far, per layer; empty before the first.
    past: Vec<KeysValues>,
    length: usize,
}

impl NextToken for Writer<'_> {
    fn advance(&mut self, parents: &[usize], tokens: &[usize]) -> Vec<Vec<f32>> {
        let batch = tokens.len();
        let sentences: Vec<Vec<usize>> = tokens.iter().map(|token| vec![*token]).collect();
        let mut x = self.decoder.embed(&sentences, self.length);
        let indices: Vec<i64> = parents.iter().map(|parent| *parent as i64).collect();
        let indices = Tensor::<1, Int>::from_data(TensorData::new(indices, [batch]), &x.device());
        let mut past = self.past.iter().map(|past| past.select(&indices)).collect::<Vec<_>>().into_iter();
        self.past.clear();
        for (layer, memory) in self.decoder.layers.iter().zip(&self.memory) {
            let (next, all) = layer.forward(x, past.next(), None, &memory.repeat(batch), None);
            x = next;
            self.past.push(all);
        }
        self.length += 1;
        let log_probs = log_softmax(self.decoder.logits(x), 2);
        let values: Vec<f32> =
            log_probs.into_data().convert::<f32>().try_into_vec().expect("converted to f32 in this line");
        values.chunks(values.len() / batch).map(<[f32]>::to_vec).collect()
    }
}
