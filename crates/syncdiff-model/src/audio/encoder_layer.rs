//! One layer of the audio encoder: pre-norm self-attention and feed-forward.

use crate::nn::linear;
use burn::module::{Initializer, Module};
use burn::nn::{Dropout, DropoutConfig, LayerNorm, LayerNormConfig, Linear};
use burn::tensor::activation::gelu;
use burn::tensor::module::attention;
use burn::tensor::{Bool, Device, Tensor};

/// A linear map that starts as in the source: normal weights of deviation 0.02, no bias.
pub(crate) fn bert_linear(d_input: usize, d_output: usize, device: &Device) -> Linear {
    Linear {
        weight: Initializer::Normal { mean: 0.0, std: 0.02 }.init([d_input, d_output], device),
        bias: Some(Initializer::Zeros.init([d_output], device)),
    }
}

/// x + attention(norm(x)), then x + feed_forward(norm(x)).
///
/// # Source
/// fairseq `TransformerSentenceEncoderLayer` with `layer_norm_first`.
#[derive(Module, Debug)]
pub struct EncoderLayer {
    attention_norm: LayerNorm,
    q: Linear,
    k: Linear,
    v: Linear,
    out: Linear,
    feed_forward_norm: LayerNorm,
    fc1: Linear,
    fc2: Linear,
    dropout: Dropout,
    #[module(skip)]
    heads: usize,
}

impl EncoderLayer {
    /// `heads` must divide `dim`.
    pub fn new(dim: usize, heads: usize, feed_forward: usize, dropout: f64, device: &Device) -> Self {
        Self {
            attention_norm: LayerNormConfig::new(dim).init(device),
            q: bert_linear(dim, dim, device),
            k: bert_linear(dim, dim, device),
            v: bert_linear(dim, dim, device),
            out: bert_linear(dim, dim, device),
            feed_forward_norm: LayerNormConfig::new(dim).init(device),
            fc1: bert_linear(dim, feed_forward, device),
            fc2: bert_linear(feed_forward, dim, device),
            dropout: DropoutConfig::new(dropout).init(),
            heads,
        }
    }

    #[cfg(test)]
    pub(crate) fn test_weight(&self) -> Tensor<2> {
        self.fc1.weight.val()
    }

    /// `hidden_keys` [batch, heads, time, time] is true where a key is padding.
    ///
    /// # Shapes
    /// [batch, time, dim] -> [batch, time, dim]
    pub fn forward(&self, x: Tensor<3>, hidden_keys: Option<Tensor<4, Bool>>) -> Tensor<3> {
        let [batch, time, dim] = x.dims();
        let normed = self.attention_norm.forward(x.clone());
        let split = |y: Tensor<3>| y.reshape([batch, time, self.heads, dim / self.heads]).swap_dims(1, 2);
        let attended = attention(
            split(linear(&self.q, normed.clone())),
            split(linear(&self.k, normed.clone())),
            split(linear(&self.v, normed)),
            hidden_keys,
            None,
            Default::default(), // scale 1 / sqrt(dim / heads)
        ); // [batch, heads, time, dim / heads]
        let attended = linear(&self.out, attended.swap_dims(1, 2).reshape([batch, time, dim]));
        let x = x + self.dropout.forward(attended);
        let inner = gelu(linear(&self.fc1, self.feed_forward_norm.forward(x.clone())));
        x + self.dropout.forward(linear(&self.fc2, inner))
    }
}
