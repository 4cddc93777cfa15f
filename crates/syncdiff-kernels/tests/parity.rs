//! Every kernel against plain Burn operations, values and gradients, on shapes that take the direct path and on
//! shapes that fall back; at every instruction set of the processor, whose results are compared with the scalar ones.

use burn::tensor::activation::softmax;
use burn::tensor::module::conv2d;
use burn::tensor::ops::ConvOptions;
use burn::tensor::{DType, Device, Tensor, TensorData};
use syncdiff_kernels::{
    Conv3x3, attention, bf16, bf16_weights, conv1x1, conv3x3, conv3x3_upsampled, geglu, group_norm, layer_norm, linear,
    silu, simd,
};

/// Deterministic values in (-1, 1).
fn values(n: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    (0..n)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
        })
        .collect()
}

fn tensor<const D: usize>(shape: [usize; D], seed: u64) -> Tensor<D> {
    let device = Device::flex().autodiff();
    Tensor::from_data(TensorData::new(values(shape.iter().product(), seed), shape), &device).require_grad()
}

fn assert_close<const D: usize>(what: &str, a: Tensor<D>, b: Tensor<D>, tolerance: f32) {
    assert_eq!(a.dims(), b.dims(), "{what}: shapes differ");
    let (a, b) = (a.into_data().try_to_vec::<f32>().unwrap(), b.into_data().try_to_vec::<f32>().unwrap());
    let scale = b.iter().fold(1e-3f32, |m, v| m.max(v.abs()));
    for (i, (x, y)) in a.iter().zip(&b).enumerate() {
        assert!((x - y).abs() <= tolerance * scale, "{what}[{i}]: {x} against {y} (scale {scale})");
    }
}

/// Runs both forms from equal leaves and compares the value and the gradient of every input, at every level; then the
/// levels with each other.
fn compare<const K: usize, const N: usize, const M: usize>(
    what: &str,
    leaves: impl Fn() -> (Tensor<K>, Tensor<N>, Tensor<M>),
    ours: impl Fn(Tensor<K>, Tensor<N>, Tensor<M>) -> Tensor<K>,
    plain: impl Fn(Tensor<K>, Tensor<N>, Tensor<M>) -> Tensor<K>,
    tolerance: f32,
) {
    let run = |f: &dyn Fn(Tensor<K>, Tensor<N>, Tensor<M>) -> Tensor<K>| {
        let (x, w, b) = leaves();
        let y = f(x.clone(), w.clone(), b.clone());
        let weights = tensor(y.dims(), 99).detach();
        let grads = (y.clone() * weights).sum().backward();
        (y, x.grad(&grads).unwrap(), w.grad(&grads).unwrap(), b.grad(&grads).unwrap())
    };
    let plain = run(&plain);
    let mut scalar = None;
    for level in simd::available() {
        let found = {
            let _forced = simd::force(level);
            run(&ours)
        };
        let scalar = scalar.get_or_insert_with(|| found.clone());
        for expected in [&plain, &*scalar] {
            let (a, b) = (found.clone(), expected.clone());
            let what = format!("{what} at {level:?}");
            assert_close(&format!("{what} y"), a.0.inner(), b.0.inner(), tolerance);
            assert_close(&format!("{what} dx"), a.1, b.1, tolerance);
            assert_close(&format!("{what} dw"), a.2, b.2, tolerance);
            assert_close(&format!("{what} db"), a.3, b.3, tolerance);
        }
    }
}

#[test]
fn linear_matches_a_plain_product() {
    for (shape, (inner, out)) in [([2, 17, 24], (24, 40)), ([1, 1, 5], (5, 3)), ([3, 64, 64], (64, 512))] {
        let leaves = || (tensor(shape, 1), tensor([inner, out], 2), tensor([out], 3));
        let plain = |x: Tensor<3>, w: Tensor<2>, b: Tensor<1>| x.matmul(w.unsqueeze::<3>()) + b.reshape([1, 1, out]);
        compare(&format!("linear {shape:?}"), leaves, |x, w, b| linear(x, w, Some(b)), plain, 1e-5);
    }
}

#[test]
fn conv3x3_matches_plain_convolution() {
    let kinds = [Conv3x3::SAME, Conv3x3::DOWN, Conv3x3::DOWN_ASYMMETRIC];
    // (batch, in, out, height, width): direct, direct with odd channel counts, one image, fall-back widths.
    let shapes = [(2, 8, 8, 16, 16), (3, 5, 7, 16, 32), (1, 10, 33, 32, 16), (2, 3, 4, 6, 10), (1, 4, 4, 8, 8)];
    for (s, &(n, i, o, h, w)) in shapes.iter().enumerate() {
        for kind in kinds {
            let seed = s as u64 * 10;
            compare(
                &format!("conv {n}x{i}->{o} {h}x{w} {kind:?}"),
                || (tensor([n, i, h, w], seed + 1), tensor([o, i, 3, 3], seed + 2), tensor([o], seed + 3)),
                |x, w, b| conv3x3(x, w, b, kind),
                |x, w, b| {
                    let [n, c, h, wd] = x.dims();
                    let (pad, x) = if kind.pad_begin == 1 {
                        (1, x)
                    } else {
                        let below = Tensor::<4>::zeros([n, c, 1, wd], &x.device());
                        let x = Tensor::cat(vec![x, below], 2);
                        let right = Tensor::<4>::zeros([n, c, h + 1, 1], &x.device());
                        (0, Tensor::cat(vec![x, right], 3))
                    };
                    conv2d(x, w, Some(b), ConvOptions::new([kind.stride; 2], [pad; 2], [1, 1], 1))
                },
                // Sums of up to 1024 products in another order.
                2e-5,
            );
        }
    }
}

#[test]
fn upsampled_convolution_matches_an_enlarged_image() {
    for (s, &(n, i, o, h, w)) in
        [(2, 8, 8, 16, 16), (3, 5, 7, 8, 8), (1, 10, 33, 5, 24), (2, 3, 4, 3, 5)].iter().enumerate()
    {
        let seed = 50 + s as u64 * 10;
        compare(
            &format!("upsampled {n}x{i}->{o} {h}x{w}"),
            || (tensor([n, i, h, w], seed + 1), tensor([o, i, 3, 3], seed + 2), tensor([o], seed + 3)),
            conv3x3_upsampled,
            |x, weight, bias| {
                let x = {
                    let x = x.reshape([n * i, h, 1, w, 1]).expand([n * i, h, 2, w, 2]);
                    x.reshape([n, i, 2 * h, 2 * w])
                };
                conv2d(x, weight, Some(bias), ConvOptions::new([1, 1], [1, 1], [1, 1], 1))
            },
            2e-5,
        );
    }
}

#[test]
fn attention_matches_plain_operations() {
    for (s, &(n, queries, keys, heads, size)) in
        [(2, 70, 33, 2, 5), (1, 1, 1, 1, 1), (3, 64, 64, 4, 8), (2, 5, 9, 3, 32)].iter().enumerate()
    {
        let (seed, dim) = (70 + s as u64 * 10, heads * size);
        compare(
            &format!("attention {n}x{queries}x{keys} heads {heads} of {size}"),
            || {
                (
                    tensor([n, queries, dim], seed + 1),
                    tensor([n, keys, dim], seed + 2),
                    tensor([n, keys, dim], seed + 3),
                )
            },
            |q, k, v| attention(q, k, v, heads),
            |q, k, v| {
                let split = |x: Tensor<3>| {
                    let rows = x.dims()[1];
                    x.reshape([n, rows, heads, size]).swap_dims(1, 2)
                };
                let scores = split(q).matmul(split(k).swap_dims(2, 3)) / (size as f32).sqrt();
                softmax(scores, 3).matmul(split(v)).swap_dims(1, 2).reshape([n, queries, dim])
            },
            2e-5,
        );
    }
}

#[test]
fn conv1x1_matches_plain_convolution() {
    for (s, &(n, i, o, h, w)) in [(2, 8, 8, 16, 16), (3, 5, 7, 3, 5), (1, 33, 2, 1, 1)].iter().enumerate() {
        let seed = 100 + s as u64 * 10;
        compare(
            &format!("conv1x1 {n}x{i}->{o} {h}x{w}"),
            || (tensor([n, i, h, w], seed + 1), tensor([o, i, 1, 1], seed + 2), tensor([o], seed + 3)),
            conv1x1,
            |x, w, b| conv2d(x, w, Some(b), ConvOptions::new([1, 1], [0, 0], [1, 1], 1)),
            2e-5,
        );
    }
}

#[test]
fn group_norm_matches_plain_operations() {
    for with_silu in [false, true] {
        for (s, &(n, c, h, w, groups)) in [(2, 8, 16, 16, 4), (3, 6, 3, 5, 3), (1, 32, 1, 1, 8)].iter().enumerate() {
            let seed = 200 + s as u64 * 10;
            compare(
                &format!("group_norm {n}x{c} {h}x{w} groups {groups} silu {with_silu}"),
                || (tensor([n, c, h, w], seed + 1), tensor([c], seed + 2), tensor([c], seed + 3)),
                |x, g, b| group_norm(x, g, b, groups, 1e-5, with_silu),
                |x, g, b| {
                    let y = x.reshape([n, groups, c / groups * h * w]);
                    let y = y.clone() - y.mean_dim(2);
                    let y = y.clone() / (y.powi_scalar(2).mean_dim(2) + 1e-5).sqrt();
                    let y = y.reshape([n, c, h, w]) * g.reshape([1, c, 1, 1]) + b.reshape([1, c, 1, 1]);
                    if with_silu { burn::tensor::activation::silu(y) } else { y }
                },
                1e-4,
            );
        }
    }
}

#[test]
fn layer_norm_matches_plain_operations() {
    for (s, &(n, rows, dim)) in [(2, 8, 16), (3, 65, 37), (1, 1, 5)].iter().enumerate() {
        let seed = 250 + s as u64 * 10;
        compare(
            &format!("layer_norm {n}x{rows} of {dim}"),
            || (tensor([n, rows, dim], seed + 1), tensor([dim], seed + 2), tensor([dim], seed + 3)),
            |x, g, b| layer_norm(x, g, b, 1e-5),
            |x, g, b| {
                let y = x.clone() - x.mean_dim(2);
                let y = y.clone() / (y.powi_scalar(2).mean_dim(2) + 1e-5).sqrt();
                y * g.reshape([1, 1, dim]) + b.reshape([1, 1, dim])
            },
            1e-4,
        );
    }
}

#[test]
fn geglu_and_silu_match_plain_operations() {
    for level in simd::available() {
        let _forced = simd::force(level);
        let weights = tensor([3, 7, 2, 5], 302).detach();
        let differentiate = |f: &dyn Fn(Tensor<4>) -> Tensor<4>, weights: &Tensor<4>| {
            let x = tensor([3, 7, 2, 10], 301);
            let y = f(x.clone());
            let dx = x.grad(&(y.clone() * weights.clone()).sum().backward()).unwrap();
            (y.inner(), dx)
        };
        let ours = differentiate(&geglu, &weights);
        let plain = |x: Tensor<4>| {
            let halves = x.chunk(2, 3);
            halves[0].clone() * burn::tensor::activation::gelu(halves[1].clone())
        };
        let plain = differentiate(&plain, &weights);
        assert_close(&format!("geglu at {level:?}"), ours.0, plain.0, 2e-6);
        assert_close(&format!("geglu dx at {level:?}"), ours.1, plain.1, 4e-6);

        let weights = tensor([3, 7, 2, 10], 304).detach();
        let ours = differentiate(&silu, &weights);
        let plain = differentiate(&burn::tensor::activation::silu, &weights);
        assert_close(&format!("silu at {level:?}"), ours.0, plain.0, 2e-6);
        assert_close(&format!("silu dx at {level:?}"), ours.1, plain.1, 4e-6);
    }
}

/// Sums of squares beyond the range of f16 are summed in f32.
#[test]
fn norms_of_16_bits_bear_large_values() {
    for dtype in [DType::F16, DType::BF16] {
        let x = tensor([2, 4, 8, 8], 1) * 600.0;
        let (gamma, beta) = (tensor([8], 2), tensor([8], 3));
        let rows = |x: Tensor<4>, gamma: Tensor<1>, beta: Tensor<1>| layer_norm(x, gamma, beta, 1e-5);
        let found = rows(x.clone().cast(dtype), gamma.clone().cast(dtype), beta.clone().cast(dtype)).cast(DType::F32);
        assert_close("layer norm", found, rows(x.clone(), gamma, beta), 2e-2);
        let (gamma, beta) = (tensor([4], 2), tensor([4], 3));
        let groups = |x: Tensor<4>, gamma: Tensor<1>, beta: Tensor<1>| group_norm(x, gamma, beta, 2, 1e-5, false);
        let found = groups(x.clone().cast(dtype), gamma.clone().cast(dtype), beta.clone().cast(dtype)).cast(DType::F32);
        assert_close("group norm", found, groups(x, gamma, beta), 2e-2);
    }
}

/// Values of 16 bits are off by up to 1/256 of themselves, each way. The f32 weights behind the rounded ones learn.
#[test]
fn layers_with_bf16_weights_have_the_gradients_of_f32_ones() {
    let units = if cfg!(miri) { Vec::new() } else { bf16::available() };
    let tolerance = 2e-2;
    for unit in units {
        let _forced = bf16::force(unit);
        for (s, &(n, i, o, h, w)) in
            [(2, 8, 8, 16, 16), (3, 5, 7, 16, 32), (2, 3, 4, 6, 10), (1, 64, 32, 8, 8)].iter().enumerate()
        {
            let seed = 100 + s as u64 * 10;
            let leaves = |kernel: usize| {
                let weights = tensor([o, i, kernel, kernel], seed + 2);
                move || (tensor([n, i, h, w], seed + 1), weights.clone().detach().require_grad(), tensor([o], seed + 3))
            };
            for kind in [Conv3x3::SAME, Conv3x3::DOWN, Conv3x3::DOWN_ASYMMETRIC] {
                compare(
                    &format!("{unit:?} conv {n}x{i}->{o} {h}x{w} {kind:?}"),
                    leaves(3),
                    |x, w, b| conv3x3(x, bf16_weights(w), b, kind),
                    |x, w, b| conv3x3(x, w, b, kind),
                    tolerance,
                );
            }
            compare(
                &format!("{unit:?} upsampled {n}x{i}->{o} {h}x{w}"),
                leaves(3),
                |x, w, b| conv3x3_upsampled(x, bf16_weights(w), b),
                conv3x3_upsampled,
                tolerance,
            );
            compare(
                &format!("{unit:?} conv1x1 {n}x{i}->{o} {h}x{w}"),
                leaves(1),
                |x, w, b| conv1x1(x, bf16_weights(w), b),
                conv1x1,
                tolerance,
            );
        }
        for (shape, (inner, out)) in [([2, 17, 24], (24, 40)), ([1, 1, 5], (5, 3)), ([3, 64, 64], (64, 512))] {
            compare(
                &format!("{unit:?} linear {shape:?}"),
                || (tensor(shape, 1), tensor([inner, out], 2), tensor([out], 3)),
                |x, w, b| linear(x, bf16_weights(w), Some(b)),
                |x, w, b| linear(x, w, Some(b)),
                tolerance,
            );
        }
    }
}

/// A weight that two layers share, one of whose shapes has no kernel, adds up its gradients.
#[test]
fn gradients_of_bf16_weights_add_up_over_kernels_and_default_bodies() {
    let [with, without] = [true, false].map(|in_bf16| {
        let (w, b) = (tensor([4, 3, 3, 3], 2), tensor([4], 3));
        let weights = if in_bf16 { bf16_weights(w.clone()) } else { w.clone() };
        let sum = |x: Tensor<4>| conv3x3(x, weights.clone(), b.clone(), Conv3x3::SAME).powi_scalar(2).sum();
        let grads = (sum(tensor([1, 3, 16, 16], 1)) + sum(tensor([1, 3, 5, 7], 4))).backward();
        w.grad(&grads).unwrap()
    });
    assert_close("dw", with, without, 2e-2);
}
