//! The extension trait and the public functions on `Tensor`.
// Burn marks the whole LibTorch back end as deprecated; it is still a fast one on NVIDIA cards.
#![cfg_attr(feature = "libtorch", allow(deprecated))]

mod autodiff;
mod composed;
mod flex;

use crate::adamw::AdamWStep;
use crate::conv::Conv3x3;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, Dispatch, backend_extension};
use burn::tensor::{DType, Tensor};

/// Operations with a fast CPU body. `FUSED` tells the autodiff implementation whether the backend has the
/// `_backward` functions; elsewhere it traces the default bodies.
#[backend_extension(
    Flex,
    Cube: cfg(any(feature = "vulkan", feature = "cuda", feature = "metal")),
    LibTorch: cfg(feature = "libtorch"),
    Autodiff
)]
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
    fn kernel_conv3x3_upsampled(x: FloatTensor<Self>, w: FloatTensor<Self>, b: FloatTensor<Self>) -> FloatTensor<Self> {
        composed::conv3x3_upsampled::<Self>(x, w, b)
    }
    fn kernel_conv3x3_upsampled_backward(
        _x: FloatTensor<Self>,
        _w: FloatTensor<Self>,
        _dy: FloatTensor<Self>,
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
    fn kernel_linear(x: FloatTensor<Self>, w: FloatTensor<Self>, b: FloatTensor<Self>) -> FloatTensor<Self> {
        composed::linear::<Self>(x, w, b)
    }
    fn kernel_linear_backward(
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
    fn kernel_layer_norm(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        eps: f64,
    ) -> FloatTensor<Self> {
        composed::layer_norm::<Self>(x, gamma, beta, eps)
    }
    fn kernel_layer_norm_backward(
        _x: FloatTensor<Self>,
        _gamma: FloatTensor<Self>,
        _dy: FloatTensor<Self>,
        _eps: f64,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        unreachable!("only called where FUSED is set")
    }
    fn kernel_geglu(x: FloatTensor<Self>) -> FloatTensor<Self> {
        composed::geglu::<Self>(x)
    }
    fn kernel_geglu_backward(_x: FloatTensor<Self>, _dy: FloatTensor<Self>) -> FloatTensor<Self> {
        unreachable!("only called where FUSED is set")
    }
    /// To bf16, in memory in the order of these axes, which undo themselves.
    fn kernel_bf16_weights(w: FloatTensor<Self>, axes: &'static [usize]) -> FloatTensor<Self> {
        composed::bf16_weights::<Self>(w, axes)
    }
    fn kernel_silu(x: FloatTensor<Self>) -> FloatTensor<Self> {
        composed::silu::<Self>(x)
    }
    fn kernel_silu_backward(_x: FloatTensor<Self>, _dy: FloatTensor<Self>) -> FloatTensor<Self> {
        unreachable!("only called where FUSED is set")
    }
    fn kernel_attention(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        heads: usize,
    ) -> FloatTensor<Self> {
        composed::attention::<Self>(q, k, v, heads)
    }
    fn kernel_attention_backward(
        _q: FloatTensor<Self>,
        _k: FloatTensor<Self>,
        _v: FloatTensor<Self>,
        _dout: FloatTensor<Self>,
        _heads: usize,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        unreachable!("only called where FUSED is set")
    }
    fn kernel_adamw(
        value: FloatTensor<Self>,
        moment_1: FloatTensor<Self>,
        moment_2: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        step: AdamWStep,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        composed::adamw::<Self>(value, moment_1, moment_2, gradient, step)
    }
}

// The GPU back ends take the default bodies: their own convolution, matrix product and fusion are the fast ones there.
#[cfg(any(feature = "vulkan", feature = "cuda", feature = "metal"))]
impl KernelOps for burn::backend::Cube {}
#[cfg(feature = "libtorch")]
impl KernelOps for burn::backend::LibTorch {}

/// Weights of a linear layer or of a convolution in bf16, lying as the CPU reads them, with the input channels last.
/// With them and f32 activations the layers of this room multiply values of 16 bits and add in f32; the gradient of
/// the f32 weights comes from the same products, and is f32.
///
/// # Shapes
/// [in, out] or [out, in, height, width], kept
pub fn bf16_weights<const D: usize>(weights: Tensor<D>) -> Tensor<D> {
    // Both orders are undone by themselves.
    let axes: &'static [usize] = match D {
        2 => &[1, 0],
        4 => &[2, 3, 0, 1],
        _ => return weights.cast(DType::BF16),
    };
    Tensor::from_dispatch(<Dispatch as KernelOps>::kernel_bf16_weights(weights.into_dispatch(), axes))
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

/// Nearest up-sampling by 2, then a 3x3 convolution with bias that keeps the size.
///
/// # Shapes
/// x: [batch, in, height, width], weight: [out, in, 3, 3], bias: [out] -> [batch, out, 2 height, 2 width]
pub fn conv3x3_upsampled(x: Tensor<4>, weight: Tensor<4>, bias: Tensor<1>) -> Tensor<4> {
    let (x, weight, bias) = (x.into_dispatch(), weight.into_dispatch(), bias.into_dispatch());
    Tensor::from_dispatch(<Dispatch as KernelOps>::kernel_conv3x3_upsampled(x, weight, bias))
}

/// Scaled dot-product attention: softmax(q k^T / sqrt(size)) v per head.
///
/// # Shapes
/// q: [batch, queries, heads * size], k and v: [batch, keys, heads * size] -> [batch, queries, heads * size]
pub fn attention(q: Tensor<3>, k: Tensor<3>, v: Tensor<3>, heads: usize) -> Tensor<3> {
    let (q, k, v) = (q.into_dispatch(), k.into_dispatch(), v.into_dispatch());
    Tensor::from_dispatch(<Dispatch as KernelOps>::kernel_attention(q, k, v, heads))
}

/// 1x1 convolution with bias.
///
/// # Shapes
/// x: [batch, in, height, width], weight: [out, in, 1, 1], bias: [out] -> [batch, out, height, width]
pub fn conv1x1(x: Tensor<4>, weight: Tensor<4>, bias: Tensor<1>) -> Tensor<4> {
    let y = <Dispatch as KernelOps>::kernel_conv1x1(x.into_dispatch(), weight.into_dispatch(), bias.into_dispatch());
    Tensor::from_dispatch(y)
}

/// Linear layer: x weight + bias.
///
/// # Shapes
/// x: [.., in], weight: [in, out], bias: [out], zero when absent -> [.., out]
pub fn linear<const D: usize>(x: Tensor<D>, weight: Tensor<2>, bias: Option<Tensor<1>>) -> Tensor<D> {
    let bias = bias.unwrap_or_else(|| Tensor::zeros([weight.dims()[1]], (&x.device(), x.dtype())));
    let (x, weight, bias) = (x.into_dispatch(), weight.into_dispatch(), bias.into_dispatch());
    Tensor::from_dispatch(<Dispatch as KernelOps>::kernel_linear(x, weight, bias))
}

/// Group normalisation with affine, followed by SiLU when `silu` is set.
///
/// # Shapes
/// x: [batch, channels, height, width], gamma and beta: [channels]; `groups` divides `channels`
pub fn group_norm(x: Tensor<4>, gamma: Tensor<1>, beta: Tensor<1>, groups: usize, eps: f64, silu: bool) -> Tensor<4> {
    let (x, gamma, beta) = (x.into_dispatch(), gamma.into_dispatch(), beta.into_dispatch());
    Tensor::from_dispatch(<Dispatch as KernelOps>::kernel_group_norm(x, gamma, beta, groups, eps, silu))
}

/// Layer normalisation over the last axis with affine.
///
/// # Shapes
/// x: [.., dim], gamma and beta: [dim]
pub fn layer_norm<const D: usize>(x: Tensor<D>, gamma: Tensor<1>, beta: Tensor<1>, eps: f64) -> Tensor<D> {
    let (x, gamma, beta) = (x.into_dispatch(), gamma.into_dispatch(), beta.into_dispatch());
    Tensor::from_dispatch(<Dispatch as KernelOps>::kernel_layer_norm(x, gamma, beta, eps))
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

/// One step of AdamW: value, first and second moment after it.
///
/// # Shapes
/// all equal; none of them is tracked for gradients
pub fn adamw<const D: usize>(
    value: Tensor<D>,
    moment_1: Tensor<D>,
    moment_2: Tensor<D>,
    gradient: Tensor<D>,
    step: AdamWStep,
) -> [Tensor<D>; 3] {
    let (value, gradient) = (value.into_dispatch(), gradient.into_dispatch());
    let (moment_1, moment_2) = (moment_1.into_dispatch(), moment_2.into_dispatch());
    let (value, moment_1, moment_2) = <Dispatch as KernelOps>::kernel_adamw(value, moment_1, moment_2, gradient, step);
    [value, moment_1, moment_2].map(Tensor::from_dispatch)
}
