//! Spatial transformer: self-attention over pixels, cross-attention to the audio tokens, gated feed-forward.

use super::config::UNetConfig;
use crate::nn::{Conv1x1, GroupNorm, attend, layer_norm, linear};
use burn::module::Module;
use burn::nn::{LayerNorm, LayerNormConfig, Linear, LinearConfig};
use burn::tensor::{Device, Tensor};
use syncdiff_kernels::geglu;

const ST_EPS: f64 = 1e-6;

/// Multi-head attention without bias on the projections in, with bias on the projection out.
#[derive(Module, Debug)]
struct CrossAttention {
    to_q: Linear,
    to_k: Linear,
    to_v: Linear,
    to_out_0: Linear,
    #[module(skip)]
    heads: usize,
}

impl CrossAttention {
    fn new(dim: usize, context_dim: usize, heads: usize, device: &Device) -> Self {
        let projection = |input| LinearConfig::new(input, dim).with_bias(false).init(device);
        Self {
            to_q: projection(dim),
            to_k: projection(context_dim),
            to_v: projection(context_dim),
            to_out_0: LinearConfig::new(dim, dim).init(device),
            heads,
        }
    }

    fn self_attention(&self, x: Tensor<3>) -> Tensor<3> {
        let (q, k, v) = (linear(&self.to_q, x.clone()), linear(&self.to_k, x.clone()), linear(&self.to_v, x));
        linear(&self.to_out_0, attend(q, k, v, self.heads))
    }

    /// What this layer needs of the context, for any number of queries.
    ///
    /// With one token the softmax is 1 for every query: the result is one vector for all pixels, and queries and keys
    /// are not needed (their gradients are exactly zero).
    fn prepare(&self, context: Tensor<3>) -> CrossContext {
        let v = linear(&self.to_v, context.clone());
        if context.dims()[1] == 1 {
            return CrossContext::Constant(Box::new(linear(&self.to_out_0, v)));
        }
        CrossContext::Tokens(Box::new([linear(&self.to_k, context), v]))
    }
}

/// A context after the projections of one cross-attention.
#[derive(Clone, Debug)]
pub(super) enum CrossContext {
    /// The whole result of the attention, [batch, 1, dim]: there is one token.
    Constant(Box<Tensor<3>>),
    /// Keys and values, [batch, tokens, dim].
    Tokens(Box<[Tensor<3>; 2]>),
}

impl CrossContext {
    /// Applies the same to all that is kept.
    pub(super) fn map(&self, change: impl Fn(&Tensor<3>) -> Tensor<3>) -> Self {
        match self {
            Self::Constant(shift) => Self::Constant(Box::new(change(shift))),
            Self::Tokens(keys_and_values) => Self::Tokens(Box::new(keys_and_values.each_ref().map(change))),
        }
    }

    /// Two contexts of one layer as one batch; the second is repeated to the batch of the first.
    pub(super) fn join(&self, behind: &Self) -> Self {
        Self::stack(&[self, &behind.map(|tokens| repeated(tokens.clone(), self.batch()))])
    }

    /// Contexts of one layer as one batch.
    pub(super) fn stack(parts: &[&Self]) -> Self {
        let count = parts[0].tensors().len();
        let alike = parts.iter().all(|part| part.tensors().len() == count);
        assert!(alike, "contexts with one and with several tokens cannot be joined");
        let cat = |at: usize| Tensor::cat(parts.iter().map(|part| part.tensors()[at].clone()).collect(), 0);
        match parts[0] {
            Self::Constant(_) => Self::Constant(Box::new(cat(0))),
            Self::Tokens(_) => Self::Tokens(Box::new([cat(0), cat(1)])),
        }
    }

    fn tensors(&self) -> &[Tensor<3>] {
        match self {
            Self::Constant(shift) => std::slice::from_ref(shift),
            Self::Tokens(keys_and_values) => &keys_and_values[..],
        }
    }

    fn batch(&self) -> usize {
        self.tensors()[0].dims()[0]
    }
}

/// The whole batch so many times over that it has `batch` elements.
pub(crate) fn repeated<const D: usize>(x: Tensor<D>, batch: usize) -> Tensor<D> {
    match batch / x.dims()[0] {
        1 => x,
        times => x.repeat_dim(0, times),
    }
}

/// One transformer block; pre-norm.
#[derive(Module, Debug)]
struct TransformerBlock {
    attn1: CrossAttention,
    attn2: CrossAttention,
    ff_net_0_proj: Linear,
    ff_net_2: Linear,
    norm1: LayerNorm,
    norm2: LayerNorm,
    norm3: LayerNorm,
}

impl TransformerBlock {
    fn new(dim: usize, context_dim: usize, heads: usize, device: &Device) -> Self {
        let norm = || LayerNormConfig::new(dim).init(device);
        Self {
            attn1: CrossAttention::new(dim, dim, heads, device),
            attn2: CrossAttention::new(dim, context_dim, heads, device),
            ff_net_0_proj: LinearConfig::new(dim, 8 * dim).init(device),
            ff_net_2: LinearConfig::new(4 * dim, dim).init(device),
            norm1: norm(),
            norm2: norm(),
            norm3: norm(),
        }
    }

    fn forward(&self, x: Tensor<3>, context: &CrossContext) -> Tensor<3> {
        let x = x.clone() + self.attn1.self_attention(layer_norm(&self.norm1, x));
        let batch = context.batch();
        let x = match context {
            CrossContext::Constant(shift) => repeated(x, batch) + (**shift).clone(),
            CrossContext::Tokens(keys_and_values) => {
                let [k, v] = (**keys_and_values).clone();
                let q = repeated(linear(&self.attn2.to_q, layer_norm(&self.norm2, x.clone())), batch);
                repeated(x, batch) + linear(&self.attn2.to_out_0, attend(q, k, v, self.attn2.heads))
            }
        };
        x.clone() + linear(&self.ff_net_2, geglu(linear(&self.ff_net_0_proj, layer_norm(&self.norm3, x))))
    }
}

/// `x + proj_out(block(proj_in(norm(x))))` with pixels as tokens.
#[derive(Module, Debug)]
pub struct SpatialTransformer {
    norm: GroupNorm,
    proj_in: Conv1x1,
    transformer_blocks_0: TransformerBlock,
    proj_out: Conv1x1,
}

impl SpatialTransformer {
    pub(super) fn new(config: &UNetConfig, channels: usize, device: &Device) -> Self {
        let heads = channels / config.num_head_channels;
        Self {
            norm: GroupNorm::new(config.norm_groups, channels, ST_EPS, device),
            proj_in: Conv1x1::new(channels, channels, device),
            transformer_blocks_0: TransformerBlock::new(channels, config.context_dim, heads, device),
            proj_out: Conv1x1::zeros(channels, channels, device),
        }
    }

    /// # Shapes
    /// x: [batch, channels, height, width], context: [batch, tokens, context_dim] -> shape of x
    pub fn forward(&self, x: Tensor<4>, context: Tensor<3>) -> Tensor<4> {
        self.forward_prepared(x, &self.prepare(context))
    }

    pub(super) fn prepare(&self, context: Tensor<3>) -> CrossContext {
        self.transformer_blocks_0.attn2.prepare(context)
    }

    /// A context of a larger batch meets the same pictures several times; the result has its batch.
    pub(super) fn forward_prepared(&self, x: Tensor<4>, context: &CrossContext) -> Tensor<4> {
        let [batch, channels, height, width] = x.dims();
        let tokens = self.proj_in.forward(self.norm.forward(x.clone()));
        let tokens = tokens.reshape([batch, channels, height * width]).swap_dims(1, 2); // [batch, pixels, channels]
        let tokens = self.transformer_blocks_0.forward(tokens, context);
        let batch = tokens.dims()[0];
        let h = tokens.swap_dims(1, 2).reshape([batch, channels, height, width]);
        repeated(x, batch) + self.proj_out.forward(h)
    }
}
