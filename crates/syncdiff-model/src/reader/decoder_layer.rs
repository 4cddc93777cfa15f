//! One layer of a reader's decoder: causal self-attention, attention to the encoder, feed-forward; pre-norm.

use burn::module::{Initializer, Module};
use burn::nn::{Dropout, DropoutConfig, LayerNorm, LayerNormConfig, Linear};
use burn::tensor::activation::relu;
use burn::tensor::module::attention;
use burn::tensor::{Bool, Device, Tensor};

/// A linear map that starts as in the source: Xavier-uniform weights, no bias.
fn linear(input: usize, output: usize, device: &Device) -> Linear {
    Linear {
        weight: Initializer::XavierUniform { gain: 1.0 }.init_with([input, output], Some(input), Some(output), device),
        bias: Some(Initializer::Zeros.init([output], device)),
    }
}

/// Multi-head attention with bias on all projections.
#[derive(Module, Debug)]
pub(super) struct Attention {
    q: Linear,
    k: Linear,
    v: Linear,
    out: Linear,
    #[module(skip)]
    heads: usize,
}

/// Keys and values of one attention, [batch, time, dim] each.
#[derive(Debug, Clone)]
pub(super) struct KeysValues {
    keys: Tensor<3>,
    values: Tensor<3>,
}

impl KeysValues {
    /// With later rows behind.
    fn then(self, later: Self) -> Self {
        Self {
            keys: Tensor::cat(vec![self.keys, later.keys], 1),
            values: Tensor::cat(vec![self.values, later.values], 1),
        }
    }

    /// The given elements of the batch.
    pub(super) fn select(&self, indices: &Tensor<1, burn::tensor::Int>) -> Self {
        Self {
            keys: self.keys.clone().select(0, indices.clone()),
            values: self.values.clone().select(0, indices.clone()),
        }
    }

    /// A batch of one, repeated.
    pub(super) fn repeat(&self, batch: usize) -> Self {
        let [_, time, dim] = self.keys.dims();
        let shape = [batch, time, dim];
        Self { keys: self.keys.clone().expand(shape), values: self.values.clone().expand(shape) }
    }
}

impl Attention {
    fn new(dim: usize, memory_dim: usize, heads: usize, device: &Device) -> Self {
        Self {
            q: linear(dim, dim, device),
            k: linear(memory_dim, dim, device),
            v: linear(memory_dim, dim, device),
            out: linear(dim, dim, device),
            heads,
        }
    }

    pub(super) fn keys_values(&self, memory: Tensor<3>) -> KeysValues {
        KeysValues { keys: self.k.forward(memory.clone()), values: self.v.forward(memory) }
    }

    /// `hidden` [batch, heads, queries, keys] is true where a query must not look.
    fn forward(&self, x: Tensor<3>, memory: &KeysValues, hidden: Option<Tensor<4, Bool>>) -> Tensor<3> {
        let [batch, queries, dim] = x.dims();
        let split = |y: Tensor<3>| {
            let [_, time, _] = y.dims();
            y.reshape([batch, time, self.heads, dim / self.heads]).swap_dims(1, 2)
        };
        let (q, k, v) = (self.q.forward(x), memory.keys.clone(), memory.values.clone());
        let attended = attention(split(q), split(k), split(v), hidden, None, Default::default());
        self.out.forward(attended.swap_dims(1, 2).reshape([batch, queries, dim]))
    }
}

/// x + self-attention(norm(x)), then + attention to the encoder(norm(x)), then + feed-forward(norm(x)).
///
/// # Source
/// fairseq `TransformerDecoderLayerBase` with `normalize_before`; ReLU between the linear maps.
#[derive(Module, Debug)]
pub struct DecoderLayer {
    self_norm: LayerNorm,
    self_attention: Attention,
    cross_norm: LayerNorm,
    cross_attention: Attention,
    feed_forward_norm: LayerNorm,
    fc1: Linear,
    fc2: Linear,
    dropout: Dropout,
}

impl DecoderLayer {
    /// `heads` must divide `dim`; `memory_dim` is the width of the encoder.
    pub fn new(
        dim: usize,
        memory_dim: usize,
        feed_forward: usize,
        heads: usize,
        dropout: f64,
        device: &Device,
    ) -> Self {
        let norm = || LayerNormConfig::new(dim).init(device);
        Self {
            self_norm: norm(),
            self_attention: Attention::new(dim, dim, heads, device),
            cross_norm: norm(),
            cross_attention: Attention::new(dim, memory_dim, heads, device),
            feed_forward_norm: norm(),
            fc1: linear(dim, feed_forward, device),
            fc2: linear(feed_forward, dim, device),
            dropout: DropoutConfig::new(dropout).init(),
        }
    }

    /// Keys and values of the encoder's output: the same for every token.
    pub(super) fn memory(&self, memory: Tensor<3>) -> KeysValues {
        self.cross_attention.keys_values(memory)
    }

    /// Runs over rows that follow the rows of `past`, and returns keys and values of all of them.
    ///
    /// # Shapes
    /// x [batch, rows, dim]; hidden_past [batch, heads, rows, all rows]; hidden_memory [batch, heads, rows, time]
    pub(super) fn forward(
        &self,
        x: Tensor<3>,
        past: Option<KeysValues>,
        hidden_past: Option<Tensor<4, Bool>>,
        memory: &KeysValues,
        hidden_memory: Option<Tensor<4, Bool>>,
    ) -> (Tensor<3>, KeysValues) {
        let normed = self.self_norm.forward(x.clone());
        let new = self.self_attention.keys_values(normed.clone());
        let all = match past {
            Some(past) => past.then(new),
            None => new,
        };
        let x = x + self.dropout.forward(self.self_attention.forward(normed, &all, hidden_past));
        let normed = self.cross_norm.forward(x.clone());
        let x = x + self.dropout.forward(self.cross_attention.forward(normed, memory, hidden_memory));
        let inner = relu(self.fc1.forward(self.feed_forward_norm.forward(x.clone())));
        (x + self.dropout.forward(self.fc2.forward(inner)), all)
    }
}
