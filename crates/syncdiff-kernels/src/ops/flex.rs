//! The fast bodies, on the CPU backend: for f32 throughout, and for layers with bf16 weights and f32 activations. What
//! is of other types, or has a shape without kernel, takes the default body.

use super::{KernelOps, composed};
use crate::adamw::{self, AdamWStep};
use crate::attention::{self, AttentionShape};
use crate::bf16::gradients;
use crate::conv::upsampled::{self, UpsampledShape};
use crate::conv::{self, Conv3x3, ConvShape};
use crate::norm::{self, GroupShape};
use crate::{bf16, elementwise, linear, pointwise};
use burn::backend::flex::{FlexTensor, Layout};
use burn::backend::ops::FloatTensorOps;
use burn::backend::{Flex, TensorMetadata};
use burn::tensor::{Bytes, DType, FloatDType, Shape};
use rayon::prelude::*;

/// Values of a parameter that one thread moves at a time.
const ADAMW_CHUNK: usize = 1 << 15;

fn is_f32(tensors: &[&FlexTensor]) -> bool {
    tensors.iter().all(|t| t.dtype() == DType::F32)
}

/// Whether a layer has bf16 weights between f32 values.
fn has_bf16_weights(x: &FlexTensor, w: &FlexTensor, b: &FlexTensor) -> bool {
    w.dtype() == DType::BF16 && is_f32(&[x, b])
}

/// The weights with their axes in this order, as they lie behind each other: without a copy where
/// [`super::bf16_weights`] has laid them.
fn in_order(w: FlexTensor, axes: &[usize]) -> FlexTensor {
    let w = Flex::float_permute(w, axes);
    // `to_contiguous` copies what does not begin at its buffer's first value.
    if w.layout().is_contiguous() { w } else { w.to_contiguous() }
}

fn halves(t: &FlexTensor) -> &[u16] {
    let values = t.as_slice::<burn::tensor::bf16>().expect("made contiguous and of dtype bf16 by the caller");
    // SAFETY: bf16 is a transparent wrapper of u16.
    unsafe { std::slice::from_raw_parts(values.as_ptr().cast(), values.len()) }
}

fn slice(t: &FlexTensor) -> &[f32] {
    t.as_slice::<f32>().expect("made contiguous and of dtype f32 by the caller")
}

fn flex(data: Vec<f32>, shape: Shape) -> FlexTensor {
    FlexTensor::new(Bytes::from_elems(data), Layout::contiguous(shape), DType::F32)
}

/// Weights of either type as f32, for gradients that have no product of 16-bit values.
fn widened(w: FlexTensor) -> FlexTensor {
    if w.dtype() == DType::F32 { w.to_contiguous() } else { Flex::float_cast(w.to_contiguous(), FloatDType::F32) }
}

/// The tensor contiguous, in a buffer that holds nothing else.
fn whole(t: FlexTensor) -> FlexTensor {
    let t = t.to_contiguous();
    if t.storage::<f32>().len() == t.shape().num_elements() { t } else { flex(slice(&t).to_vec(), t.shape()) }
}

pub(super) fn conv_shape(x: &Shape, w: &Shape, kind: Conv3x3) -> ConvShape {
    ConvShape { batch: x[0], in_channels: x[1], out_channels: w[0], height: x[2], width: x[3], kind }
}

pub(super) fn upsampled_shape(x: &Shape, w: &Shape) -> UpsampledShape {
    UpsampledShape { batch: x[0], in_channels: x[1], out_channels: w[0], height: x[2], width: x[3] }
}

fn attention_shape(q: &FlexTensor, k: &FlexTensor, heads: usize) -> AttentionShape {
    let shape = q.shape();
    AttentionShape { batch: shape[0], queries: shape[1], keys: k.shape()[1], heads, size: shape[2] / heads }
}

fn group_shape(x: &FlexTensor, groups: usize) -> GroupShape {
    let shape = x.shape();
    let (batch, channels) = (shape[0], shape[1]);
    GroupShape { batch, channels, pixels: shape.num_elements() / (batch * channels), groups }
}

impl KernelOps for Flex {
    const FUSED: bool = true;

    fn kernel_conv3x3(x: FlexTensor, w: FlexTensor, b: FlexTensor, kind: Conv3x3) -> FlexTensor {
        let s = conv_shape(&x.shape(), &w.shape(), kind);
        if has_bf16_weights(&x, &w, &b) {
            let (x, w, b) = (x.to_contiguous(), in_order(w, &[2, 3, 0, 1]), b.to_contiguous());
            let y = bf16::conv3x3(slice(&x), halves(&w), slice(&b), s);
            return flex(y, Shape::new([s.batch, s.out_channels, s.out_height(), s.out_width()]));
        }
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
        let s = conv_shape(&x.shape(), &w.shape(), kind);
        let (x_shape, w_shape) = (x.shape(), w.shape());
        let (x, dy) = (x.to_contiguous(), dy.to_contiguous());
        let dx_shape = if want_dx { x_shape } else { Shape::new([0]) };
        if w.dtype() == DType::BF16 && kind == Conv3x3::SAME {
            let w = in_order(w, &[2, 3, 0, 1]);
            let (dx, dw) = gradients::conv3x3_gradients(slice(&x), halves(&w), slice(&dy), s, want_dx);
            let (dw, db) = (conv::of_taps(&dw), conv::bias_gradient(slice(&dy), s));
            return (flex(dx, dx_shape), flex(dw, w_shape), flex(db, Shape::new([s.out_channels])));
        }
        let dx = if want_dx { conv::backward_input(slice(&dy), slice(&widened(w)), s) } else { Vec::new() };
        let (dw, db) = conv::backward_weight(slice(&x), slice(&dy), s);
        (flex(dx, dx_shape), flex(dw, w_shape), flex(db, Shape::new([s.out_channels])))
    }

    fn kernel_conv3x3_upsampled(x: FlexTensor, w: FlexTensor, b: FlexTensor) -> FlexTensor {
        let s = upsampled_shape(&x.shape(), &w.shape());
        if has_bf16_weights(&x, &w, &b) {
            let (x, w, b) = (x.to_contiguous(), in_order(w, &[2, 3, 0, 1]), b.to_contiguous());
            let y = bf16::conv3x3_upsampled(slice(&x), halves(&w), slice(&b), s);
            return flex(y, Shape::new([s.batch, s.out_channels, 2 * s.height, 2 * s.width]));
        }
        if !is_f32(&[&x, &w, &b]) || !s.is_direct() {
            return composed::conv3x3_upsampled::<Self>(x, w, b);
        }
        let (x, w, b) = (x.to_contiguous(), w.to_contiguous(), b.to_contiguous());
        let y = upsampled::forward(slice(&x), slice(&w), slice(&b), s);
        flex(y, Shape::new([s.batch, s.out_channels, 2 * s.height, 2 * s.width]))
    }

    fn kernel_conv3x3_upsampled_backward(
        x: FlexTensor,
        w: FlexTensor,
        dy: FlexTensor,
    ) -> (FlexTensor, FlexTensor, FlexTensor) {
        let (x_shape, w_shape) = (x.shape(), w.shape());
        let s = upsampled_shape(&x_shape, &w_shape);
        let (x, w, dy) = (x.to_contiguous(), widened(w), dy.to_contiguous());
        let dx = upsampled::backward_input(slice(&dy), slice(&w), s);
        let (dw, db) = upsampled::backward_weight(slice(&x), slice(&dy), s);
        (flex(dx, x_shape), flex(dw, w_shape), flex(db, Shape::new([s.out_channels])))
    }

    fn kernel_conv1x1(x: FlexTensor, w: FlexTensor, b: FlexTensor) -> FlexTensor {
        if has_bf16_weights(&x, &w, &b) {
            let (shape, out_channels) = (x.shape(), w.shape()[0]);
            let (x, w, b) = (x.to_contiguous(), in_order(w, &[2, 3, 0, 1]), b.to_contiguous());
            let y = bf16::conv1x1(slice(&x), halves(&w), slice(&b), shape[1], shape[2] * shape[3]);
            return flex(y, Shape::new([shape[0], out_channels, shape[2], shape[3]]));
        }
        if !is_f32(&[&x, &w, &b]) {
            return composed::conv1x1::<Self>(x, w, b);
        }
        let shape = x.shape();
        let out_channels = w.shape()[0];
        let (x, w, b) = (x.to_contiguous(), w.to_contiguous(), b.to_contiguous());
        let y = pointwise::forward(slice(&x), slice(&w), slice(&b), shape[1], out_channels, shape[2] * shape[3]);
        flex(y, Shape::new([shape[0], out_channels, shape[2], shape[3]]))
    }

    fn kernel_conv1x1_backward(x: FlexTensor, w: FlexTensor, dy: FlexTensor) -> (FlexTensor, FlexTensor, FlexTensor) {
        let (x_shape, w_shape) = (x.shape(), w.shape());
        let out_channels = w_shape[0];
        let (x, dy, pixels) = (x.to_contiguous(), dy.to_contiguous(), x_shape[2] * x_shape[3]);
        let (dx, dw, db) = if w.dtype() == DType::BF16 {
            let w = in_order(w, &[2, 3, 0, 1]);
            let (dx, dw) = gradients::conv1x1_gradients(slice(&x), halves(&w), slice(&dy), x_shape[1], pixels);
            (dx, dw, pointwise::channel_sums(slice(&dy), out_channels, pixels))
        } else {
            let w = w.to_contiguous();
            pointwise::backward(slice(&x), slice(&w), slice(&dy), x_shape[1], out_channels, pixels)
        };
        (flex(dx, x_shape), flex(dw, w_shape), flex(db, Shape::new([out_channels])))
    }

    fn kernel_linear(x: FlexTensor, w: FlexTensor, b: FlexTensor) -> FlexTensor {
        if has_bf16_weights(&x, &w, &b) {
            let shape = composed::with_last(&x.shape(), w.shape()[1]);
            let (x, w, b) = (x.to_contiguous(), in_order(w, &[1, 0]), b.to_contiguous());
            return flex(bf16::linear(slice(&x), halves(&w), slice(&b)), shape);
        }
        if !is_f32(&[&x, &w, &b]) {
            return composed::linear::<Self>(x, w, b);
        }
        let shape = composed::with_last(&x.shape(), w.shape()[1]);
        let (x, w, b) = (x.to_contiguous(), w.to_contiguous(), b.to_contiguous());
        flex(linear::forward(slice(&x), slice(&w), slice(&b)), shape)
    }

    fn kernel_linear_backward(x: FlexTensor, w: FlexTensor, dy: FlexTensor) -> (FlexTensor, FlexTensor, FlexTensor) {
        let (x_shape, w_shape) = (x.shape(), w.shape());
        let (x, w, dy) = (x.to_contiguous(), w.to_contiguous(), dy.to_contiguous());
        let out = w_shape[1];
        let (dx, dw, db) = if w.dtype() == DType::BF16 {
            let (dx, dw) = gradients::linear_gradients(slice(&x), halves(&w), slice(&dy), out);
            (dx, dw, linear::column_sums(slice(&dy), out))
        } else {
            linear::backward(slice(&x), slice(&w), slice(&dy), out)
        };
        (flex(dx, x_shape), flex(dw, w_shape), flex(db, Shape::new([out])))
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

    fn kernel_layer_norm(x: FlexTensor, gamma: FlexTensor, beta: FlexTensor, eps: f64) -> FlexTensor {
        if !is_f32(&[&x, &gamma, &beta]) {
            return composed::layer_norm::<Self>(x, gamma, beta, eps);
        }
        let (x, gamma, beta) = (x.to_contiguous(), gamma.to_contiguous(), beta.to_contiguous());
        flex(norm::layer_forward(slice(&x), slice(&gamma), slice(&beta), eps as f32), x.shape())
    }

    fn kernel_layer_norm_backward(
        x: FlexTensor,
        gamma: FlexTensor,
        dy: FlexTensor,
        eps: f64,
    ) -> (FlexTensor, FlexTensor, FlexTensor) {
        let (x, gamma, dy) = (x.to_contiguous(), gamma.to_contiguous(), dy.to_contiguous());
        let (dx, dgamma, dbeta) = norm::layer_backward(slice(&x), slice(&gamma), slice(&dy), eps as f32);
        (flex(dx, x.shape()), flex(dgamma, gamma.shape()), flex(dbeta, gamma.shape()))
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

    /// Beginning at a line of the cache.
    fn kernel_bf16_weights(w: FlexTensor, axes: &'static [usize]) -> FlexTensor {
        let w = Flex::float_cast(Flex::float_permute(w, axes), FloatDType::BF16).to_contiguous();
        let values = halves(&w);
        // All of it is used, so that nobody shrinks it into another place.
        let mut aligned = vec![burn::tensor::bf16::ZERO; values.len() + bf16::MAX_TO_LINE];
        let start = bf16::to_line(aligned.as_ptr().cast()).min(bf16::MAX_TO_LINE);
        for (to, &bits) in aligned[start..].iter_mut().zip(values) {
            *to = burn::tensor::bf16::from_bits(bits);
        }
        let (shape, strides) = (w.shape(), w.layout().strides().to_vec());
        let laid = FlexTensor::new(Bytes::from_elems(aligned), Layout::new(shape, strides, start), DType::BF16);
        Flex::float_permute(laid, axes)
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

    fn kernel_attention(q: FlexTensor, k: FlexTensor, v: FlexTensor, heads: usize) -> FlexTensor {
        if !is_f32(&[&q, &k, &v]) {
            return composed::attention::<Self>(q, k, v, heads);
        }
        let s = attention_shape(&q, &k, heads);
        let (q, k, v) = (q.to_contiguous(), k.to_contiguous(), v.to_contiguous());
        flex(attention::forward(slice(&q), slice(&k), slice(&v), s), q.shape())
    }

    fn kernel_attention_backward(
        q: FlexTensor,
        k: FlexTensor,
        v: FlexTensor,
        dout: FlexTensor,
        heads: usize,
    ) -> (FlexTensor, FlexTensor, FlexTensor) {
        let s = attention_shape(&q, &k, heads);
        let (q, k, v, dout) = (q.to_contiguous(), k.to_contiguous(), v.to_contiguous(), dout.to_contiguous());
        let [dq, dk, dv] = attention::backward(slice(&q), slice(&k), slice(&v), slice(&dout), s);
        (flex(dq, q.shape()), flex(dk, k.shape()), flex(dv, v.shape()))
    }

    fn kernel_adamw(
        value: FlexTensor,
        moment_1: FlexTensor,
        moment_2: FlexTensor,
        gradient: FlexTensor,
        step: AdamWStep,
    ) -> (FlexTensor, FlexTensor, FlexTensor) {
        if !is_f32(&[&value, &moment_1, &moment_2, &gradient]) {
            return composed::adamw::<Self>(value, moment_1, moment_2, gradient, step);
        }
        let gradient = gradient.to_contiguous();
        // Moments are held by the optimiser alone and change where they lie; a value that somebody else holds is
        // copied.
        let mut moved = [value, moment_1, moment_2].map(whole);
        let [value, first, second] = &mut moved;
        value
            .storage_mut::<f32>()
            .par_chunks_mut(ADAMW_CHUNK)
            .zip(first.storage_mut::<f32>().par_chunks_mut(ADAMW_CHUNK))
            .zip(second.storage_mut::<f32>().par_chunks_mut(ADAMW_CHUNK))
            .zip(slice(&gradient).par_chunks(ADAMW_CHUNK))
            .for_each(|(((value, first), second), gradient)| adamw::step(value, first, second, gradient, step));
        moved.into()
    }
}
