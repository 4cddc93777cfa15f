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
use burn::tensor::DType;

/// Backward nodes. Every operation falls back to tracing its default body where the backend has no fused backward,
/// where the dtype is not f32, or where the shape has no direct kernel.
impl<B: KernelOps, C: CheckpointStrategy> KernelOps for Autodiff<B, C> {
    fn kernel_conv3x3(
        x: FloatTensor<Self>,
        w: FloatTensor<Self>,
        b: FloatTensor<Self>,
        kind: Conv3x3,
    ) -> FloatTensor<Self> {
        let s = conv_shape(&x.shape(), &w.shape(), kind);
        if !B::FUSED || x.dtype() != DType::F32 || w.dtype() != DType::F32 || !s.is_direct() {
            return composed::conv3x3::<Self>(x, w, b, kind);
        }
        #[derive(Debug)]
        struct Op;
        impl<B: KernelOps> Backward<B, 3> for Op {
            type State = (NodeId, NodeId, Conv3x3);
            fn backward(self, ops: Ops<Self::State, 3>, grads: &mut Gradients, checkpointer: &mut Checkpointer) {
                let [node_x, node_w, node_b] = ops.parents;
                let dy = grads.consume::<B>(&ops.node);
                let (x, w, kind) = ops.state;
                let x = checkpointer.retrieve_node_output::<FloatTensor<B>>(x);
                let w = checkpointer.retrieve_node_output::<FloatTensor<B>>(w);
                let (dx, dw, db) = B::kernel_conv3x3_backward(x, w, dy, kind, node_x.is_some());
                register::<B>(grads, [node_x.map(|n| n.id), node_w.map(|n| n.id), node_b.map(|n| n.id)], [dx, dw, db]);
            }
        }
        match Op.prepare::<C>([x.node(), w.node(), b.node()]).compute_bound().stateful() {
            OpsKind::Tracked(mut prep) => {
                let state = (prep.checkpoint(&x), prep.checkpoint(&w), kind);
                prep.finish(state, B::kernel_conv3x3(x.into_primitive(), w.into_primitive(), b.into_primitive(), kind))
            }
            OpsKind::UnTracked(prep) => {
                prep.finish(B::kernel_conv3x3(x.into_primitive(), w.into_primitive(), b.into_primitive(), kind))
            }
        }
    }

    fn kernel_conv3x3_upsampled(x: FloatTensor<Self>, w: FloatTensor<Self>, b: FloatTensor<Self>) -> FloatTensor<Self> {
        let s = upsampled_shape(&x.shape(), &w.shape());
        if !B::FUSED || x.dtype() != DType::F32 || w.dtype() != DType::F32 || !s.is_direct() {
            return composed::conv3x3_upsampled::<Self>(x, w, b);
        }
        #[derive(Debug)]
        struct Op;
        impl<B: KernelOps> Backward<B, 3> for Op {
            type State = (NodeId, NodeId);
            fn backward(self, ops: Ops<Self::State, 3>, grads: &mut Gradients, checkpointer: &mut Checkpointer) {
                let [node_x, node_w, node_b] = ops.parents;
                let dy = grads.consume::<B>(&ops.node);
                let x = checkpointer.retrieve_node_output::<FloatTensor<B>>(ops.state.0);
                let w = checkpointer.retrieve_node_output::<FloatTensor<B>>(ops.state.1);
                let (dx, dw, db) = B::kernel_conv3x3_upsampled_backward(x, w, dy);
                register::<B>(grads, [node_x.map(|n| n.id), node_w.map(|n| n.id), node_b.map(|n| n.id)], [dx, dw, db]);
            }
        }
        match Op.prepare::<C>([x.node(), w.node(), b.node()]).compute_bound().stateful() {
            OpsKind::Tracked(mut prep) => {
                let state = (prep.checkpoint(&x), prep.checkpoint(&w));
                let (x, w, b) = (x.into_primitive(), w.into_primitive(), b.into_primitive());
                prep.finish(state, B::kernel_conv3x3_upsampled(x, w, b))
            }
            OpsKind::UnTracked(prep) => {
                let (x, w, b) = (x.into_primitive(), w.into_primitive(), b.into_primitive());
                prep.finish(B::kernel_conv3x3_upsampled(x, w, b))
            }
        }
    }

    fn kernel_conv1x1(x: FloatTensor<Self>, w: FloatTensor<Self>, b: FloatTensor<Self>) -> FloatTensor<Self> {
        if !B::FUSED || x.dtype() != DType::F32 || w.dtype() != DType::F32 {
            return composed::conv1x1::<Self>(x, w, b);
        }
        #[derive(Debug)]
        struct Op;
        impl<B: KernelOps> Backward<B, 3> for Op {
            type State = (NodeId, NodeId);
            fn backward(self, ops: Ops<Self::State, 3>, grads: &mut Gradients, checkpointer: &mut Checkpointer) {
                let [node_x, node_w, node_b] = ops.parents;
                let dy = grads.consume::<B>(&ops.node);
                let x = checkpointer.retrieve_node_output::<FloatTensor<B>>(ops.state.0);
                let w = checkpointer.retrieve_node_output::<FloatTensor<B>>(ops.state.1);
                let (dx, dw, db) = B::kernel_conv1x1_backward(x, w, dy);
                register::<B>(grads, [node_x.map(|n| n.id), node_w.map(|n| n.id), node_b.map(|n| n.id)], [dx, dw, db]);
            }
        }
        match Op.prepare::<C>([x.node(), w.node(), b.node()]).compute_bound().stateful() {
            OpsKind::Tracked(mut prep) => {
                let state = (prep.checkpoint(&x), prep.checkpoint(&w));
                prep.finish(state, B::kernel_conv1x1(x.into_primitive(), w.into_primitive(), b.into_primitive()))
            }
            OpsKind::UnTracked(prep) => {
                prep.finish(B::kernel_conv1x1(x.into_primitive(), w.into_primitive(), b.into_primitive()))
            }
        }
    }

    fn kernel_linear(x: FloatTensor<Self>, w: FloatTensor<Self>, b: FloatTensor<Self>) -> FloatTensor<Self> {
        if !B::FUSED || x.dtype() != DType::F32 || w.dtype() != DType::F32 {
            return composed::linear::<Self>(x, w, b);
        }
        #[derive(Debug)]
        struct Op;
        impl<B: KernelOps> Backward<B, 3> for Op {
            type State = (NodeId, NodeId);
            fn backward(self, ops: Ops<Self::State, 3>, grads: &mut Gradients, checkpointer: &mut Checkpointer) {
                let [node_x, node_w, node_b] = ops.parents;
                let dy = grads.consume::<B>(&ops.node);
                let x = checkpointer.retrieve_node_output::<FloatTensor<B>>(ops.state.0);
                let w = checkpointer.retrieve_node_output::<FloatTensor<B>>(ops.state.1);
                let (dx, dw, db) = B::kernel_linear_backward(x, w, dy);
                register::<B>(grads, [node_x.map(|n| n.id), node_w.map(|n| n.id), node_b.map(|n| n.id)], [dx, dw, db]);
            }
        }
        match Op.prepare::<C>([x.node(), w.node(), b.node()]).compute_bound().stateful() {
            OpsKind::Tracked(mut prep) => {
                let state = (prep.checkpoint(&x), prep.checkpoint(&w));
                prep.finish(state, B::kernel_linear(x.into_primitive(), w.into_primitive(), b.into_primitive()))
            }
            OpsKind::UnTracked(prep) => {
                prep.finish(B::kernel_linear(x.into_primitive(), w.into_primitive(), b.into_primitive()))
            }
        }
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
        #[derive(Debug)]
        struct Op;
        impl<B: KernelOps> Backward<B, 3> for Op {
            type State = (NodeId, NodeId, NodeId, usize, f64, bool);
            fn backward(self, ops: Ops<Self::State, 3>, grads: &mut Gradients, checkpointer: &mut Checkpointer) {
                let [node_x, node_gamma, node_beta] = ops.parents;
                let dy = grads.consume::<B>(&ops.node);
                let (x, gamma, beta, groups, eps, silu) = ops.state;
                let x = checkpointer.retrieve_node_output::<FloatTensor<B>>(x);
                let gamma = checkpointer.retrieve_node_output::<FloatTensor<B>>(gamma);
                let beta = checkpointer.retrieve_node_output::<FloatTensor<B>>(beta);
                let (dx, dgamma, dbeta) = B::kernel_group_norm_backward(x, gamma, beta, dy, groups, eps, silu);
                let nodes = [node_x.map(|n| n.id), node_gamma.map(|n| n.id), node_beta.map(|n| n.id)];
                register::<B>(grads, nodes, [dx, dgamma, dbeta]);
            }
        }
        match Op.prepare::<C>([x.node(), gamma.node(), beta.node()]).compute_bound().stateful() {
            OpsKind::Tracked(mut prep) => {
                let state = (prep.checkpoint(&x), prep.checkpoint(&gamma), prep.checkpoint(&beta), groups, eps, silu);
                let (x, gamma, beta) = (x.into_primitive(), gamma.into_primitive(), beta.into_primitive());
                prep.finish(state, B::kernel_group_norm(x, gamma, beta, groups, eps, silu))
            }
            OpsKind::UnTracked(prep) => {
                let (x, gamma, beta) = (x.into_primitive(), gamma.into_primitive(), beta.into_primitive());
                prep.finish(B::kernel_group_norm(x, gamma, beta, groups, eps, silu))
            }
        }
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
        #[derive(Debug)]
        struct Op;
        impl<B: KernelOps> Backward<B, 3> for Op {
            type State = (NodeId, NodeId, f64);
            fn backward(self, ops: Ops<Self::State, 3>, grads: &mut Gradients, checkpointer: &mut Checkpointer) {
                let parents = ops.parents.map(|node| node.map(|n| n.id));
                let dy = grads.consume::<B>(&ops.node);
                let x = checkpointer.retrieve_node_output::<FloatTensor<B>>(ops.state.0);
                let gamma = checkpointer.retrieve_node_output::<FloatTensor<B>>(ops.state.1);
                let (dx, dgamma, dbeta) = B::kernel_layer_norm_backward(x, gamma, dy, ops.state.2);
                register::<B>(grads, parents, [dx, dgamma, dbeta]);
            }
        }
        match Op.prepare::<C>([x.node(), gamma.node(), beta.node()]).compute_bound().stateful() {
            OpsKind::Tracked(mut prep) => {
                let state = (prep.checkpoint(&x), prep.checkpoint(&gamma), eps);
                let (x, gamma, beta) = (x.into_primitive(), gamma.into_primitive(), beta.into_primitive());
                prep.finish(state, B::kernel_layer_norm(x, gamma, beta, eps))
            }
            OpsKind::UnTracked(prep) => {
                let (x, gamma, beta) = (x.into_primitive(), gamma.into_primitive(), beta.into_primitive());
                prep.finish(B::kernel_layer_norm(x, gamma, beta, eps))
            }
        }
    }

    fn kernel_geglu(x: FloatTensor<Self>) -> FloatTensor<Self> {
        if !B::FUSED || x.dtype() != DType::F32 {
            return composed::geglu::<Self>(x);
        }
        #[derive(Debug)]
        struct Op;
        impl<B: KernelOps> Backward<B, 1> for Op {
            type State = NodeId;
            fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, checkpointer: &mut Checkpointer) {
                let [node] = ops.parents;
                let dy = grads.consume::<B>(&ops.node);
                let x = checkpointer.retrieve_node_output::<FloatTensor<B>>(ops.state);
                register::<B>(grads, [node.map(|n| n.id)], [B::kernel_geglu_backward(x, dy)]);
            }
        }
        match Op.prepare::<C>([x.node()]).compute_bound().stateful() {
            OpsKind::Tracked(mut prep) => {
                let state = prep.checkpoint(&x);
                prep.finish(state, B::kernel_geglu(x.into_primitive()))
            }
            OpsKind::UnTracked(prep) => prep.finish(B::kernel_geglu(x.into_primitive())),
        }
    }

    fn kernel_silu(x: FloatTensor<Self>) -> FloatTensor<Self> {
        if !B::FUSED || x.dtype() != DType::F32 {
            return composed::silu::<Self>(x);
        }
        #[derive(Debug)]
        struct Op;
        impl<B: KernelOps> Backward<B, 1> for Op {
            type State = NodeId;
            fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, checkpointer: &mut Checkpointer) {
                let [node] = ops.parents;
                let dy = grads.consume::<B>(&ops.node);
                let x = checkpointer.retrieve_node_output::<FloatTensor<B>>(ops.state);
                register::<B>(grads, [node.map(|n| n.id)], [B::kernel_silu_backward(x, dy)]);
            }
        }
        match Op.prepare::<C>([x.node()]).compute_bound().stateful() {
            OpsKind::Tracked(mut prep) => {
                let state = prep.checkpoint(&x);
                prep.finish(state, B::kernel_silu(x.into_primitive()))
            }
            OpsKind::UnTracked(prep) => prep.finish(B::kernel_silu(x.into_primitive())),
        }
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
        #[derive(Debug)]
        struct Op;
        impl<B: KernelOps> Backward<B, 3> for Op {
            type State = ([NodeId; 3], usize);
            fn backward(self, ops: Ops<Self::State, 3>, grads: &mut Gradients, checkpointer: &mut Checkpointer) {
                let parents = ops.parents.map(|node| node.map(|n| n.id));
                let dout = grads.consume::<B>(&ops.node);
                let (inputs, heads) = ops.state;
                let [q, k, v] = inputs.map(|id| checkpointer.retrieve_node_output::<FloatTensor<B>>(id));
                let (dq, dk, dv) = B::kernel_attention_backward(q, k, v, dout, heads);
                register::<B>(grads, parents, [dq, dk, dv]);
            }
        }
        match Op.prepare::<C>([q.node(), k.node(), v.node()]).compute_bound().stateful() {
            OpsKind::Tracked(mut prep) => {
                let state = ([&q, &k, &v].map(|x| prep.checkpoint(x)), heads);
                let (q, k, v) = (q.into_primitive(), k.into_primitive(), v.into_primitive());
                prep.finish(state, B::kernel_attention(q, k, v, heads))
            }
            OpsKind::UnTracked(prep) => {
                let (q, k, v) = (q.into_primitive(), k.into_primitive(), v.into_primitive());
                prep.finish(B::kernel_attention(q, k, v, heads))
            }
        }
    }
}

/// Hands each gradient to its parent, where the parent wants one.
fn register<B: Backend>(
    grads: &mut Gradients,
    parents: impl IntoIterator<Item = Option<NodeId>>,
    values: impl IntoIterator<Item = FloatTensor<B>>,
) {
    for (parent, value) in parents.into_iter().zip(values) {
        if let Some(id) = parent {
            grads.register::<B>(id, value);
        }
    }
}
