//! Plain Burn operations: the default bodies, for every backend.

use crate::adamw::AdamWStep;
use crate::conv::Conv3x3;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, TensorMetadata};
use burn::tensor::ops::{ConvOptions, PadMode};
use burn::tensor::{DType, FloatDType, Shape, Slice};

pub(super) fn conv3x3<B: Backend>(
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

/// The enlarged image, then the convolution.
pub(super) fn conv3x3_upsampled<B: Backend>(x: FloatTensor<B>, w: FloatTensor<B>, b: FloatTensor<B>) -> FloatTensor<B> {
    let shape = x.shape();
    let [batch, channels, height, width] = [0, 1, 2, 3].map(|dim| shape[dim]);
    let planes = batch * channels;
    let x = B::float_reshape(x, Shape::new([planes, height, 1, width, 1]));
    let x = B::float_expand(x, Shape::new([planes, height, 2, width, 2]));
    let x = B::float_reshape(x, Shape::new([batch, channels, 2 * height, 2 * width]));
    conv3x3::<B>(x, w, b, Conv3x3::SAME)
}

pub(super) fn conv1x1<B: Backend>(x: FloatTensor<B>, w: FloatTensor<B>, b: FloatTensor<B>) -> FloatTensor<B> {
    B::conv2d(x, w, Some(b), ConvOptions::new([1, 1], [0, 0], [1, 1], 1))
}

pub(super) fn linear<B: Backend>(x: FloatTensor<B>, w: FloatTensor<B>, b: FloatTensor<B>) -> FloatTensor<B> {
    let (shape, out) = (x.shape(), w.shape()[1]);
    let inner = w.shape()[0];
    let rows = shape.num_elements() / inner;
    let y = B::float_matmul(B::float_reshape(x, Shape::new([rows, inner])), w);
    let y = B::float_add(y, B::float_reshape(b, Shape::new([1, out])));
    B::float_reshape(y, with_last(&shape, out))
}

pub(super) fn bf16_weights<B: Backend>(w: FloatTensor<B>, axes: &[usize]) -> FloatTensor<B> {
    B::float_permute(B::float_cast(B::float_permute(w, axes), FloatDType::BF16), axes)
}

/// The shape with another last axis.
pub(super) fn with_last(shape: &Shape, last: usize) -> Shape {
    let dims = shape.num_dims();
    Shape::from((0..dims).map(|dim| if dim + 1 == dims { last } else { shape[dim] }).collect::<Vec<_>>())
}

pub(super) fn silu<B: Backend>(x: FloatTensor<B>) -> FloatTensor<B> {
    B::float_mul(x.clone(), B::sigmoid(x))
}

/// `work` on an f32 copy where `x` is of a 16-bit type: sums over many values lose too much there, and may overflow.
fn in_f32<B: Backend>(x: FloatTensor<B>, work: impl FnOnce(FloatTensor<B>) -> FloatTensor<B>) -> FloatTensor<B> {
    match x.dtype() {
        dtype @ (DType::F16 | DType::BF16) => {
            B::float_cast(work(B::float_cast(x, FloatDType::F32)), FloatDType::from(dtype))
        }
        _ => work(x),
    }
}

pub(super) fn group_norm<B: Backend>(
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
    let y = in_f32::<B>(x, |x| {
        let centred = B::float_sub(x.clone(), B::float_mean_dim(x, 2));
        let variance = B::float_mean_dim(B::float_mul(centred.clone(), centred.clone()), 2);
        B::float_div(centred, B::float_sqrt(B::float_add_scalar(variance, eps.into())))
    });
    let affine = Shape::new([1, channels, 1]);
    let y = B::float_reshape(y, Shape::new([batch, channels, shape.num_elements() / (batch * channels)]));
    let y = B::float_mul(y, B::float_reshape(gamma, affine.clone()));
    let y = B::float_reshape(B::float_add(y, B::float_reshape(beta, affine)), shape);
    if with_silu { silu::<B>(y) } else { y }
}

pub(super) fn geglu<B: Backend>(x: FloatTensor<B>) -> FloatTensor<B> {
    let shape = x.shape();
    let last = shape.num_dims() - 1;
    let half = shape[last] / 2;
    let slices = |from: usize| {
        (0..=last)
            .map(|dim| if dim == last { Slice::from(from..from + half) } else { Slice::from(0..shape[dim]) })
            .collect::<Vec<_>>()
    };
    let (value, gate) = (slices(0), slices(half));
    B::float_mul(B::float_slice(x.clone(), &value), B::gelu(B::float_slice(x, &gate)))
}

/// softmax(q k^T / sqrt(size)) v per head.
pub(super) fn attention<B: Backend>(
    q: FloatTensor<B>,
    k: FloatTensor<B>,
    v: FloatTensor<B>,
    heads: usize,
) -> FloatTensor<B> {
    let shape = q.shape();
    let (batch, dim) = (shape[0], shape[2]);
    let size = dim / heads;
    let split = |x: FloatTensor<B>| {
        let rows = x.shape()[1];
        B::float_swap_dims(B::float_reshape(x, Shape::new([batch, rows, heads, size])), 1, 2)
    };
    let scores = B::float_matmul(split(q), B::float_swap_dims(split(k), 2, 3));
    let scores = B::float_mul_scalar(scores, (size as f64).powf(-0.5).into());
    let out = B::float_matmul(in_f32::<B>(scores, |scores| B::softmax(scores, 3)), split(v)); // [batch, heads, queries, size]
    B::float_reshape(B::float_swap_dims(out, 1, 2), shape)
}

pub(super) fn layer_norm<B: Backend>(
    x: FloatTensor<B>,
    gamma: FloatTensor<B>,
    beta: FloatTensor<B>,
    eps: f64,
) -> FloatTensor<B> {
    let last = x.shape().num_dims() - 1;
    let y = in_f32::<B>(x, |x| {
        let centred = B::float_sub(x.clone(), B::float_mean_dim(x, last));
        let variance = B::float_mean_dim(B::float_mul(centred.clone(), centred.clone()), last);
        B::float_div(centred, B::float_sqrt(B::float_add_scalar(variance, eps.into())))
    });
    let mut affine = Shape::from(vec![1; last + 1]);
    affine[last] = gamma.shape()[0];
    B::float_add(B::float_mul(y, B::float_reshape(gamma, affine.clone())), B::float_reshape(beta, affine))
}

/// Value, first and second moment after a step of AdamW.
pub(super) fn adamw<B: Backend>(
    value: FloatTensor<B>,
    moment_1: FloatTensor<B>,
    moment_2: FloatTensor<B>,
    gradient: FloatTensor<B>,
    by: AdamWStep,
) -> (FloatTensor<B>, FloatTensor<B>, FloatTensor<B>) {
    let scale = |tensor: FloatTensor<B>, factor: f32| B::float_mul_scalar(tensor, factor.into());
    let square = B::float_mul(gradient.clone(), gradient.clone());
    let moment_1 = B::float_add(scale(moment_1, by.beta_1), scale(gradient, 1.0 - by.beta_1));
    let moment_2 = B::float_add(scale(moment_2, by.beta_2), scale(square, 1.0 - by.beta_2));
    let root = B::float_sqrt(B::float_div_scalar(moment_2.clone(), by.correction_2.into()));
    let first = B::float_div_scalar(moment_1.clone(), by.correction_1.into());
    let delta = B::float_div(first, B::float_add_scalar(root, by.epsilon.into()));
    (B::float_sub(scale(value, by.keep), scale(delta, by.rate)), moment_1, moment_2)
}
