//! The backward nodes.

use super::flex::{conv_shape, upsampled_shape};
use super::{KernelOps, composed};
use crate::conv::Conv3x3;
use burn::backend::autodiff::NodeId;
use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, TensorMetadata};
use burn::tensor::{DType, FloatDType};
use std::fmt::Debug;

/// The operation of `N` inputs with settings `S`.
type ForwardFn<B, S, const N: usize> = fn([FloatTensor<B>; N], S) -> FloatTensor<B>;
/// Gradients of all inputs from the first `K` of them, the result's gradient, and the settings; the flag says whether
/// the first input's is wanted.
type BackwardFn<B, S, const N: usize, const K: usize> =
    fn([FloatTensor<B>; K], FloatTensor<B>, S, bool) -> [FloatTensor<B>; N];

/// The node of an operation of `N` inputs whose gradients need the first `K` of them.
#[derive(Debug)]
struct Node<B: Backend, S, const N: usize, const K: usize> {
    backward: BackwardFn<B, S, N, K>,
}

impl<B: Backend, S: Clone + Debug + Send + 'static, const N: usize, const K: usize> Backward<B, N>
    for Node<B, S, N, K>
{
    type State = ([NodeId; K], S);

    fn backward(self, ops: Ops<Self::State, N>, grads: &mut Gradients, checkpointer: &mut Checkpointer) {
        let parents = ops.parents.map(|node| node.map(|n| n.id));
        let dy = grads.consume::<B>(&ops.node);
        let (kept, settings) = ops.state;
        let kept = kept.map(|id| checkpointer.retrieve_node_output::<FloatTensor<B>>(id));
        let values = (self.backward)(kept, dy, settings, parents[0].is_some());
        // Each gradient to its parent, where the parent wants one.
        for (parent, value) in parents.into_iter().zip(values) {
            if let Some(id) = parent {
                grads.register::<B>(id, value);
            }
        }
    }
}

/// Runs an operation and puts its node into the graph where an input is differentiated.
fn tracked<B: Backend, C: CheckpointStrategy, S: Copy + Debug + Send + 'static, const N: usize, const K: usize>(
    inputs: [FloatTensor<Autodiff<B, C>>; N],
    settings: S,
    forward: ForwardFn<B, S, N>,
    backward: BackwardFn<B, S, N, K>,
) -> FloatTensor<Autodiff<B, C>> {
    let nodes = inputs.each_ref().map(|x| x.node());
    match (Node { backward }).prepare::<C>(nodes).compute_bound().stateful() {
        OpsKind::Tracked(mut prep) => {
            let kept = std::array::from_fn(|i| prep.checkpoint(&inputs[i]));
            prep.finish((kept, settings), forward(inputs.map(|x| x.into_primitive()), settings))
        }
        OpsKind::UnTracked(prep) => prep.finish(forward(inputs.map(|x| x.into_primitive()), settings)),
    }
}

/// Whether the kernels of a layer take these types: f32 values between weights of either type.
fn fits(x: DType, w: DType) -> bool {
    x == DType::F32 && matches!(w, DType::F32 | DType::BF16)
}

/// A change of type that gradients are not rounded by.
fn retyped<B: KernelOps, C: CheckpointStrategy>(
    w: FloatTensor<Autodiff<B, C>>,
    to: FloatDType,
) -> FloatTensor<Autodiff<B, C>> {
    if w.dtype() == DType::from(to) {
        return w;
    }
    tracked::<B, C, _, 1, 0>([w], to, |[w], to| B::float_cast(w, to), |[], dw, _, _| [dw])
}

/// Every operation falls back to tracing its default body where the backend has no fused backward, where the dtype is
/// not f32 (weights of layers may be bf16), or where the shape has no direct kernel.
impl<B: KernelOps, C: CheckpointStrategy> KernelOps for Autodiff<B, C> {
    fn kernel_conv3x3(
        x: FloatTensor<Self>,
        w: FloatTensor<Self>,
        b: FloatTensor<Self>,
        kind: Conv3x3,
    ) -> FloatTensor<Self> {
        let s = conv_shape(&x.shape(), &w.shape(), kind);
        if !B::FUSED || !fits(x.dtype(), w.dtype()) || !s.is_direct() {
            let w = retyped::<B, C>(w, FloatDType::from(x.dtype()));
            return composed::conv3x3::<Self>(x, w, b, kind);
        }
        tracked::<B, C, _, 3, 2>(
            [x, w, b],
            kind,
            |[x, w, b], kind| B::kernel_conv3x3(x, w, b, kind),
            |[x, w], dy, kind, wants_dx| B::kernel_conv3x3_backward(x, w, dy, kind, wants_dx).into(),
        )
    }

    fn kernel_conv3x3_upsampled(x: FloatTensor<Self>, w: FloatTensor<Self>, b: FloatTensor<Self>) -> FloatTensor<Self> {
        let s = upsampled_shape(&x.shape(), &w.shape());
        if !B::FUSED || !fits(x.dtype(), w.dtype()) || !s.is_direct() {
            let w = retyped::<B, C>(w, FloatDType::from(x.dtype()));
            return composed::conv3x3_upsampled::<Self>(x, w, b);
        }
        tracked::<B, C, _, 3, 2>(
            [x, w, b],
            (),
            |[x, w, b], ()| B::kernel_conv3x3_upsampled(x, w, b),
            |[x, w], dy, (), _| B::kernel_conv3x3_upsampled_backward(x, w, dy).into(),
        )
    }

    fn kernel_conv1x1(x: FloatTensor<Self>, w: FloatTensor<Self>, b: FloatTensor<Self>) -> FloatTensor<Self> {
        if !B::FUSED || !fits(x.dtype(), w.dtype()) {
            return composed::conv1x1::<Self>(x, w, b);
        }
        tracked::<B, C, _, 3, 2>(
            [x, w, b],
            (),
            |[x, w, b], ()| B::kernel_conv1x1(x, w, b),
            |[x, w], dy, (), _| B::kernel_conv1x1_backward(x, w, dy).into(),
        )
    }

    fn kernel_linear(x: FloatTensor<Self>, w: FloatTensor<Self>, b: FloatTensor<Self>) -> FloatTensor<Self> {
        if !B::FUSED || !fits(x.dtype(), w.dtype()) {
            return composed::linear::<Self>(x, w, b);
        }
        tracked::<B, C, _, 3, 2>(
            [x, w, b],
            (),
            |[x, w, b], ()| B::kernel_linear(x, w, b),
            |[x, w], dy, (), _| B::kernel_linear_backward(x, w, dy).into(),
        )
    }

    fn kernel_group_norm(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        groups: usize,
        eps: f64,
        silu: bool,
    ) -> FloatTensor<Self> {
        if !B::FUSED || x.dtype() != DType::F32 || gamma.dtype() != DType::F32 {
            return composed::group_norm::<Self>(x, gamma, beta, groups, eps, silu);
        }
        tracked::<B, C, _, 3, 3>(
            [x, gamma, beta],
            (groups, eps, silu),
            |[x, gamma, beta], (groups, eps, silu)| B::kernel_group_norm(x, gamma, beta, groups, eps, silu),
            |[x, gamma, beta], dy, (groups, eps, silu), _| {
                B::kernel_group_norm_backward(x, gamma, beta, dy, groups, eps, silu).into()
            },
        )
    }

    fn kernel_layer_norm(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        eps: f64,
    ) -> FloatTensor<Self> {
        if !B::FUSED || x.dtype() != DType::F32 || gamma.dtype() != DType::F32 {
            return composed::layer_norm::<Self>(x, gamma, beta, eps);
        }
        tracked::<B, C, _, 3, 2>(
            [x, gamma, beta],
            eps,
            |[x, gamma, beta], eps| B::kernel_layer_norm(x, gamma, beta, eps),
            |[x, gamma], dy, eps, _| B::kernel_layer_norm_backward(x, gamma, dy, eps).into(),
        )
    }

    fn kernel_geglu(x: FloatTensor<Self>) -> FloatTensor<Self> {
        if !B::FUSED || x.dtype() != DType::F32 {
            return composed::geglu::<Self>(x);
        }
        tracked::<B, C, _, 1, 1>(
            [x],
            (),
            |[x], ()| B::kernel_geglu(x),
            |[x], dy, (), _| [B::kernel_geglu_backward(x, dy)],
        )
    }

    /// The gradient is that of the f32 weights, in whose type the layers give it.
    fn kernel_bf16_weights(w: FloatTensor<Self>, axes: &'static [usize]) -> FloatTensor<Self> {
        if !B::FUSED {
            return composed::bf16_weights::<Self>(w, axes);
        }
        tracked::<B, C, _, 1, 0>([w], axes, |[w], axes| B::kernel_bf16_weights(w, axes), |[], dw, _, _| [dw])
    }

    fn kernel_silu(x: FloatTensor<Self>) -> FloatTensor<Self> {
        if !B::FUSED || x.dtype() != DType::F32 {
            return composed::silu::<Self>(x);
        }
        tracked::<B, C, _, 1, 1>(
            [x],
            (),
            |[x], ()| B::kernel_silu(x),
            |[x], dy, (), _| [B::kernel_silu_backward(x, dy)],
        )
    }

    fn kernel_attention(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        heads: usize,
    ) -> FloatTensor<Self> {
        if !B::FUSED || [&q, &k, &v].iter().any(|x| x.dtype() != DType::F32) {
            return composed::attention::<Self>(q, k, v, heads);
        }
        tracked::<B, C, _, 3, 3>(
            [q, k, v],
            heads,
            |[q, k, v], heads| B::kernel_attention(q, k, v, heads),
            |[q, k, v], dout, heads, _| B::kernel_attention_backward(q, k, v, dout, heads).into(),
        )
    }
}
