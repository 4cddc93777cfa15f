//! The extension trait, its backends, its backward nodes, and the public functions on `Tensor`.

use crate::conv::{self, Conv3x3, ConvShape};
use crate::elementwise;
use crate::norm::{self, GroupShape};
use burn::backend::autodiff::NodeId;
use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::flex::{FlexTensor, Layout};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Dispatch, Flex, TensorMetadata, backend_extension};
use burn::tensor::{Bytes, DType, Shape, Tensor};
use rayon::prelude::*;

/// Operations with a fast CPU body. `FUSED` tells the autodiff implementation whether the backend has the
/// `_backward` functions; elsewhere it traces the default bodies.
#[backend_extension(Flex, Autodiff)]
pub trait KernelOps: Backend {
    const FUSED: bool = false;

    fn kernel_conv3x3(
        x: FloatTensor<Self>,
        w: FloatTensor<Self>,
        b: FloatTensor<Self>,
        kind: Conv3x3,
    ) -> FloatTensor<Self> {
        composed::conv3x3::<Self>(x, w, b, kind)
    }
    fn kernel_conv3x3_backward(
        _x: FloatTensor<Self>,
        _w: FloatTensor<Self>,
        _dy: FloatTensor<Self>,
        _kind: Conv3x3,
        _want_dx: bool,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        unreachable!("only called where FUSED is set")
    }
    fn kernel_conv1x1(x: FloatTensor<Self>, w: FloatTensor<Self>, b: FloatTensor<Self>) -> FloatTensor<Self> {
        composed::conv1x1::<Self>(x, w, b)
    }
    fn kernel_conv1x1_backward(
        _x: FloatTensor<Self>,
        _w: FloatTensor<Self>,
        _dy: FloatTensor<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        unreachable!("only called where FUSED is set")
    }
    fn kernel_group_norm(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        groups: usize,
        eps: f64,
        silu: bool,
    ) -> FloatTensor<Self> {
        composed::group_norm::<Self>(x, gamma, beta, groups, eps, silu)
    }
    fn kernel_group_norm_backward(
        _x: FloatTensor<Self>,
        _gamma: FloatTensor<Self>,
        _beta: FloatTensor<Self>,
        _dy: FloatTensor<Self>,
        _groups: usize,
        _eps: f64,
        _silu: bool,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        unreachable!("only called where FUSED is set")
    }
    fn kernel_geglu(x: FloatTensor<Self>) -> FloatTensor<Self> {
        composed::geglu::<Self>(x)
    }
    fn kernel_geglu_backward(_x: FloatTensor<Self>, _dy: FloatTensor<Self>) -> FloatTensor<Self> {
        unreachable!("only called where FUSED is set")
    }
    fn kernel_silu(x: FloatTensor<Self>) -> FloatTensor<Self> {
        composed::silu::<Self>(x)
    }
    fn kernel_silu_backward(_x: FloatTensor<Self>, _dy: FloatTensor<Self>) -> FloatTensor<Self> {
        unreachable!("only called where FUSED is set")
    }
}

/// Plain Burn operations: the default bodies.
pub(crate) mod composed {
    use super::*;
    use burn::tensor::ops::{ConvOptions, PadMode};

    pub(crate) fn conv3x3<B: Backend>(
        x: FloatTensor<B>,
        w: FloatTensor<B>,
        b: FloatTensor<B>,
        kind: Conv3x3,
    ) -> FloatTensor<B> {
        let (begin, end) = (kind.pad_begin, kind.pad_end());
        let (x, pad) = if begin == end {
            (x, begin)
        } else {
            (B::float_pad(x, &[(0, 0), (0, 0), (begin, end), (begin, end)], PadMode::Constant(0.0)), 0)
        };
        B::conv2d(x, w, Some(b), ConvOptions::new([kind.stride; 2], [pad; 2], [1, 1], 1))
    }

    pub(crate) fn conv1x1<B: Backend>(x: FloatTensor<B>, w: FloatTensor<B>, b: FloatTensor<B>) -> FloatTensor<B> {
        B::conv2d(x, w, Some(b), ConvOptions::new([1, 1], [0, 0], [1, 1], 1))
    }

    pub(crate) fn silu<B: Backend>(x: FloatTensor<B>) -> FloatTensor<B> {
        B::float_mul(x.clone(), B::sigmoid(x))
    }

    pub(crate) fn group_norm<B: Backend>(
        x: FloatTensor<B>,
        gamma: FloatTensor<B>,
        beta: FloatTensor<B>,
        groups: usize,
        eps: f64,
        with_silu: bool,
    ) -> FloatTensor<B> {
        let shape = x.shape();
        let (batch, channels) = (shape[0], shape[1]);
        let len = shape.num_elements() / (batch * groups);
        let x = B::float_reshape(x, Shape::new([batch, groups, len]));
        let centred = B::float_sub(x.clone(), B::float_mean_dim(x, 2));
        let variance = B::float_mean_dim(B::float_mul(centred.clone(), centred.clone()), 2);
        let y = B::float_div(centred, B::float_sqrt(B::float_add_scalar(variance, eps.into())));
        let affine = Shape::new([1, channels, 1]);
        let y = B::float_reshape(y, Shape::new([batch, channels, shape.num_elements() / (batch * channels)]));
        let y = B::float_mul(y, B::float_reshape(gamma, affine.clone()));
        let y = B::float_reshape(B::float_add(y, B::float_reshape(beta, affine)), shape);
        if with_silu { silu::<B>(y) } else { y }
    }

    pub(crate) fn geglu<B: Backend>(x: FloatTensor<B>) -> FloatTensor<B> {
        let shape = x.shape();
        let last = shape.num_dims() - 1;
        let half = shape[last] / 2;
        let slices = |from: usize| {
            (0..=last)
                .map(|dim| {
                    if dim == last {
                        burn::tensor::Slice::from(from..from + half)
                    } else {
                        burn::tensor::Slice::from(0..shape[dim])
                    }
                })
                .collect::<Vec<_>>()
        };
        let (value, gate) = (slices(0), slices(half));
        B::float_mul(B::float_slice(x.clone(), &value), B::gelu(B::float_slice(x, &gate)))
    }
}

fn is_f32(tensors: &[&FlexTensor]) -> bool {
    tensors.iter().all(|t| t.dtype() == DType::F32)
}

fn slice(t: &FlexTensor) -> &[f32] {
    t.as_slice::<f32>().expect("made contiguous and of dtype f32 by the caller")
}

fn flex(data: Vec<f32>, shape: Shape) -> FlexTensor {
    FlexTensor::new(Bytes::from_elems(data), Layout::contiguous(shape), DType::F32)
}

fn conv_shape(x: &FlexTensor, w: &FlexTensor, kind: Conv3x3) -> ConvShape {
    let (x, w) = (x.shape(), w.shape());
    ConvShape { batch: x[0], in_channels: x[1], out_channels: w[0], height: x[2], width: x[3], kind }
}

fn group_shape(x: &FlexTensor, groups: usize) -> GroupShape {
    let shape = x.shape();
    let (batch, channels) = (shape[0], shape[1]);
    GroupShape { batch, channels, pixels: shape.num_elements() / (batch * channels), groups }
}

impl KernelOps for Flex {
    const FUSED: bool = true;

    fn kernel_conv3x3(x: FlexTensor, w: FlexTensor, b: FlexTensor, kind: Conv3x3) -> FlexTensor {
        let s = conv_shape(&x, &w, kind);
        if !is_f32(&[&x, &w, &b]) || !s.is_direct() {
            return composed::conv3x3::<Self>(x, w, b, kind);
        }
        let (x, w, b) = (x.to_contiguous(), w.to_contiguous(), b.to_contiguous());
        let y = conv::forward(slice(&x), slice(&w), Some(slice(&b)), s);
        flex(y, Shape::new([s.batch, s.out_channels, s.out_height(), s.out_width()]))
    }

    fn kernel_conv3x3_backward(
        x: FlexTensor,
        w: FlexTensor,
        dy: FlexTensor,
        kind: Conv3x3,
        want_dx: bool,
    ) -> (FlexTensor, FlexTensor, FlexTensor) {
        let s = conv_shape(&x, &w, kind);
        let (x_shape, w_shape) = (x.shape(), w.shape());
        let (x, w, dy) = (x.to_contiguous(), w.to_contiguous(), dy.to_contiguous());
        let dx = if want_dx { conv::backward_input(slice(&dy), slice(&w), s) } else { Vec::new() };
        let dx_shape = if want_dx { x_shape } else { Shape::new([0]) };
        let (dw, db) = conv::backward_weight(slice(&x), slice(&dy), s);
        (flex(dx, dx_shape), flex(dw, w_shape), flex(db, Shape::new([s.out_channels])))
    }

    fn kernel_conv1x1(x: FlexTensor, w: FlexTensor, b: FlexTensor) -> FlexTensor {
        if !is_f32(&[&x, &w, &b]) {
            return composed::conv1x1::<Self>(x, w, b);
        }
        let shape = x.shape();
        let out_channels = w.shape()[0];
        let (x, w, b) = (x.to_contiguous(), w.to_contiguous(), b.to_contiguous());
        let y =
            conv::pointwise_forward(slice(&x), slice(&w), Some(slice(&b)), shape[1], out_channels, shape[2] * shape[3]);
        flex(y, Shape::new([shape[0], out_channels, shape[2], shape[3]]))
    }

    fn kernel_conv1x1_backward(x: FlexTensor, w: FlexTensor, dy: FlexTensor) -> (FlexTensor, FlexTensor, FlexTensor) {
        let (x_shape, w_shape) = (x.shape(), w.shape());
        let out_channels = w_shape[0];
        let (x, w, dy) = (x.to_contiguous(), w.to_contiguous(), dy.to_contiguous());
        let pixels = x_shape[2] * x_shape[3];
        let (dx, dw, db) = conv::pointwise_backward(slice(&x), slice(&w), slice(&dy), x_shape[1], out_channels, pixels);
        (flex(dx, x_shape), flex(dw, w_shape), flex(db, Shape::new([out_channels])))
    }

    fn kernel_group_norm(
        x: FlexTensor,
        gamma: FlexTensor,
        beta: FlexTensor,
        groups: usize,
        eps: f64,
        silu: bool,
    ) -> FlexTensor {
        if !is_f32(&[&x, &gamma, &beta]) {
            return composed::group_norm::<Self>(x, gamma, beta, groups, eps, silu);
        }
        let (x, gamma, beta) = (x.to_contiguous(), gamma.to_contiguous(), beta.to_contiguous());
        let mut y = vec![0f32; slice(&x).len()];
        norm::forward(slice(&x), slice(&gamma), slice(&beta), &mut y, group_shape(&x, groups), eps as f32, silu);
        flex(y, x.shape())
    }

    fn kernel_group_norm_backward(
        x: FlexTensor,
        gamma: FlexTensor,
        beta: FlexTensor,
        dy: FlexTensor,
        groups: usize,
        eps: f64,
        silu: bool,
    ) -> (FlexTensor, FlexTensor, FlexTensor) {
        let (x, gamma, beta, dy) = (x.to_contiguous(), gamma.to_contiguous(), beta.to_contiguous(), dy.to_contiguous());
        let mut dx = vec![0f32; slice(&x).len()];
        let shape = group_shape(&x, groups);
        let (dgamma, dbeta) =
            norm::backward(slice(&x), slice(&gamma), slice(&beta), slice(&dy), &mut dx, shape, eps as f32, silu);
        let affine = Shape::new([shape.channels]);
        (flex(dx, x.shape()), flex(dgamma, affine.clone()), flex(dbeta, affine))
    }

    fn kernel_geglu(x: FlexTensor) -> FlexTensor {
        if !is_f32(&[&x]) {
            return composed::geglu::<Self>(x);
        }
        let x = x.to_contiguous();
        let mut shape = x.shape();
        let last = shape.num_dims() - 1;
        let half = shape[last] / 2;
        shape[last] = half;
        let mut y = vec![0f32; shape.num_elements()];
        slice(&x).par_chunks(2 * half).zip(y.par_chunks_mut(half)).with_min_len(64).for_each(|(x, y)| {
            let (value, gate) = x.split_at(half);
            elementwise::geglu_forward_row(value, gate, y);
        });
        flex(y, shape)
    }

    fn kernel_geglu_backward(x: FlexTensor, dy: FlexTensor) -> FlexTensor {
        let (x, dy) = (x.to_contiguous(), dy.to_contiguous());
        let shape = x.shape();
        let half = shape[shape.num_dims() - 1] / 2;
        let mut dx = vec![0f32; shape.num_elements()];
        slice(&x)
            .par_chunks(2 * half)
            .zip(slice(&dy).par_chunks(half))
            .zip(dx.par_chunks_mut(2 * half))
            .with_min_len(64)
            .for_each(|((x, dy), dx)| {
                let (value, gate) = x.split_at(half);
                let (dvalue, dgate) = dx.split_at_mut(half);
                elementwise::geglu_backward_row(value, gate, dy, dvalue, dgate);
            });
        flex(dx, shape)
    }

    fn kernel_silu(x: FlexTensor) -> FlexTensor {
        if !is_f32(&[&x]) {
            return composed::silu::<Self>(x);
        }
        let x = x.to_contiguous();
        let mut y = vec![0f32; slice(&x).len()];
        slice(&x).par_chunks(8192).zip(y.par_chunks_mut(8192)).for_each(|(x, y)| elementwise::silu_forward(x, y));
        flex(y, x.shape())
    }

    fn kernel_silu_backward(x: FlexTensor, dy: FlexTensor) -> FlexTensor {
        let (x, dy) = (x.to_contiguous(), dy.to_contiguous());
        let mut dx = vec![0f32; slice(&x).len()];
        slice(&x)
            .par_chunks(8192)
            .zip(slice(&dy).par_chunks(8192))
            .zip(dx.par_chunks_mut(8192))
            .for_each(|((x, dy), dx)| elementwise::silu_backward(x, dy, dx));
        flex(dx, x.shape())
    }
}

/// Backward nodes. Every operation falls back to tracing its default body where the backend has no fused backward,
/// where the dtype is not f32, or where the shape has no direct kernel.
impl<B: KernelOps, C: CheckpointStrategy> KernelOps for Autodiff<B, C> {
    fn kernel_conv3x3(
        x: FloatTensor<Self>,
        w: FloatTensor<Self>,
        b: FloatTensor<Self>,
        kind: Conv3x3,
    ) -> FloatTensor<Self> {
        let (xs, ws) = (x.shape(), w.shape());
        let s = ConvShape { batch: xs[0], in_channels: xs[1], out_channels: ws[0], height: xs[2], width: xs[3], kind };
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

/// 3x3 convolution with bias; `kind` gives stride and padding.
///
/// # Shapes
/// x: [batch, in, height, width], weight: [out, in, 3, 3], bias: [out] -> [batch, out, height / s, width / s]
pub fn conv3x3(x: Tensor<4>, weight: Tensor<4>, bias: Tensor<1>, kind: Conv3x3) -> Tensor<4> {
    let y =
        <Dispatch as KernelOps>::kernel_conv3x3(x.into_dispatch(), weight.into_dispatch(), bias.into_dispatch(), kind);
    Tensor::from_dispatch(y)
}

/// 1x1 convolution with bias.
///
/// # Shapes
/// x: [batch, in, height, width], weight: [out, in, 1, 1], bias: [out] -> [batch, out, height, width]
pub fn conv1x1(x: Tensor<4>, weight: Tensor<4>, bias: Tensor<1>) -> Tensor<4> {
    let y = <Dispatch as KernelOps>::kernel_conv1x1(x.into_dispatch(), weight.into_dispatch(), bias.into_dispatch());
    Tensor::from_dispatch(y)
}

/// Group normalisation with affine, followed by SiLU when `silu` is set.
///
/// # Shapes
/// x: [batch, channels, height, width], gamma and beta: [channels]; `groups` divides `channels`
pub fn group_norm(x: Tensor<4>, gamma: Tensor<1>, beta: Tensor<1>, groups: usize, eps: f64, silu: bool) -> Tensor<4> {
    let (x, gamma, beta) = (x.into_dispatch(), gamma.into_dispatch(), beta.into_dispatch());
    Tensor::from_dispatch(<Dispatch as KernelOps>::kernel_group_norm(x, gamma, beta, groups, eps, silu))
}

/// GEGLU: the last axis is split in halves (value, gate); returns value * gelu(gate) with the exact GELU.
///
/// # Shapes
/// x: [.., 2 n] -> [.., n]
pub fn geglu<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    Tensor::from_dispatch(<Dispatch as KernelOps>::kernel_geglu(x.into_dispatch()))
}

/// SiLU: x * sigmoid(x).
pub fn silu<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    Tensor::from_dispatch(<Dispatch as KernelOps>::kernel_silu(x.into_dispatch()))
}
