//! Every kernel at every instruction set of the processor: against the definition in f64, and against the scalar path.
//!
//! These tests know no Burn: the package in `miri/` runs them in an interpreter, which finds undefined behaviour and
//! also executes instruction sets that the processor lacks.

use crate::adamw::{self, AdamWStep};
use crate::attention::{self, AttentionShape};
use crate::conv::upsampled::{self, UpsampledShape};
use crate::conv::{self, Conv3x3, ConvShape};
use crate::norm::{self, GroupShape};
use crate::{elementwise, linear, matmul, nearest, pointwise, simd};

/// Deterministic values in (-1, 1).
pub(crate) fn values(n: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let next = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    (0..n).map(next).collect()
}

fn assert_close(what: &str, found: &[f32], expected: &[f32], tolerance: f32) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let scale = expected.iter().fold(1e-3f32, |most, v| most.max(v.abs()));
    for (i, (a, b)) in found.iter().zip(expected).enumerate() {
        assert!((a - b).abs() <= tolerance * scale, "{what}[{i}]: {a}, expected {b} (scale {scale})");
    }
}

/// (batch, in, out, height, width): one image and several, odd channel counts and heights, rows of 8, 16, 24, 48 and
/// 64.
fn conv_shapes() -> Vec<(usize, usize, usize, usize, usize)> {
    if cfg!(miri) {
        return vec![(1, 2, 3, 2, 16), (3, 1, 5, 3, 8)];
    }
    vec![(2, 8, 8, 16, 16), (3, 5, 7, 9, 32), (1, 10, 33, 7, 8), (1, 3, 9, 5, 24), (2, 1, 1, 1, 48), (5, 4, 17, 2, 16)]
}

/// As [`conv_shapes`], for Winograd's form: several images, odd channel counts, rows of one and of several vectors,
/// tasks that are not full, channels in several parts, and kernels in several groups.
fn winograd_shapes() -> Vec<(usize, usize, usize, usize, usize)> {
    if cfg!(miri) {
        return vec![(1, 8, 9, 8, 32)];
    }
    vec![
        (3, 9, 11, 16, 32),
        (2, 12, 8, 6, 64),
        (1, 8, 21, 18, 96),
        (1, 8, 9, 18, 16),
        (1, 333, 8, 16, 16),
        (1, 170, 400, 16, 16),
    ]
}

/// y, dx, dw of a convolution by its definition.
fn conv_by_definition(x: &[f32], w: &[f32], b: &[f32], dy: &[f32], s: ConvShape) -> [Vec<f32>; 3] {
    let (oh, ow) = (s.out_height(), s.out_width());
    let mut y = vec![0f64; s.batch * s.out_channels * oh * ow];
    let (mut dx, mut dw) = (vec![0f64; x.len()], vec![0f64; w.len()]);
    for n in 0..s.batch {
        for o in 0..s.out_channels {
            for (r, c) in (0..oh).flat_map(|r| (0..ow).map(move |c| (r, c))) {
                let at = ((n * s.out_channels + o) * oh + r) * ow + c;
                y[at] += f64::from(b[o]);
                for (i, k) in (0..s.in_channels).flat_map(|i| (0..9).map(move |k| (i, k))) {
                    let row = (s.kind.stride * r + k / 3).wrapping_sub(s.kind.pad_begin);
                    let col = (s.kind.stride * c + k % 3).wrapping_sub(s.kind.pad_begin);
                    if row < s.height && col < s.width {
                        let from = ((n * s.in_channels + i) * s.height + row) * s.width + col;
                        let weight = (o * s.in_channels + i) * 9 + k;
                        y[at] += f64::from(w[weight]) * f64::from(x[from]);
                        dx[from] += f64::from(w[weight]) * f64::from(dy[at]);
                        dw[weight] += f64::from(x[from]) * f64::from(dy[at]);
                    }
                }
            }
        }
    }
    [y, dx, dw].map(|values| values.into_iter().map(|v| v as f32).collect())
}

#[test]
fn convolutions_are_what_their_definition_says_at_every_level() {
    for level in simd::available() {
        let _forced = simd::force(level);
        let mut direct = 0;
        for (batch, in_channels, out_channels, height, width) in [conv_shapes(), winograd_shapes()].concat() {
            for kind in [Conv3x3::SAME, Conv3x3::DOWN, Conv3x3::DOWN_ASYMMETRIC] {
                let s = ConvShape { batch, in_channels, out_channels, height, width, kind };
                if !s.is_direct() {
                    continue;
                }
                direct += 1;
                let x = values(batch * in_channels * height * width, 1);
                let (w, b) = (values(out_channels * in_channels * 9, 2), values(out_channels, 3));
                let dy = values(batch * out_channels * s.out_height() * s.out_width(), 4);
                let [y, dx, dw] = conv_by_definition(&x, &w, &b, &dy, s);
                let what = |part| format!("{part} at {level:?} of {s:?}");
                assert_close(&what("y"), &conv::forward(&x, &w, Some(&b), s), &y, 1e-5);
                assert_close(&what("dx"), &conv::backward_input(&dy, &w, s), &dx, 1e-5);
                let (found, db) = conv::backward_weight(&x, &dy, s);
                assert_close(&what("dw"), &found, &dw, 1e-5);
                let sums: Vec<f32> = (0..out_channels)
                    .map(|o| {
                        let of_channel = |n: usize| (n * out_channels + o) * dy.len() / (batch * out_channels);
                        let plane = dy.len() / (batch * out_channels);
                        (0..batch).flat_map(|n| &dy[of_channel(n)..of_channel(n) + plane]).sum()
                    })
                    .collect();
                assert_close(&what("db"), &db, &sums, 1e-5);
            }
        }
        assert!(direct >= 3, "{level:?}: only {direct} shapes have a kernel");
    }
}

#[test]
fn winograds_form_is_taken_where_the_tests_mean_it() {
    for level in simd::available() {
        for (_, in_channels, out_channels, height, width) in winograd_shapes() {
            assert!(conv::winograd::pays(level, in_channels, out_channels, height, width), "{width} at {level:?}");
        }
        // Odd heights, part vectors, few channels, few pixels.
        for (i, o, h, w) in [(8, 8, 17, 16), (8, 8, 32, 24), (7, 8, 32, 32), (8, 7, 32, 32), (64, 64, 8, 16)] {
            // Squares of 24 pixels are whole vectors of four.
            let fits = level.lanes() == 4 && w == 24;
            assert!(fits || !conv::winograd::pays(level, i, o, h, w), "{i} {o} {h} {w} at {level:?}");
        }
    }
}

#[test]
fn upsampled_convolutions_are_those_of_the_enlarged_image() {
    for level in simd::available() {
        let _forced = simd::force(level);
        for (batch, in_channels, out_channels, height, width) in conv_shapes() {
            let s = UpsampledShape { batch, in_channels, out_channels, height, width };
            assert!(s.is_direct(), "{s:?} at {level:?}");
            let x = values(batch * in_channels * height * width, 5);
            let (w, b) = (values(out_channels * in_channels * 9, 6), values(out_channels, 7));
            let dy = values(4 * batch * out_channels * height * width, 8);
            let enlarged: Vec<f32> = x
                .chunks_exact(width)
                .flat_map(|row| [row, row])
                .flat_map(|row| row.iter().flat_map(|&v| [v, v]))
                .collect();
            let large = ConvShape {
                batch,
                in_channels,
                out_channels,
                height: 2 * height,
                width: 2 * width,
                kind: Conv3x3::SAME,
            };
            let [y, dx, dw] = conv_by_definition(&enlarged, &w, &b, &dy, large);
            let dx: Vec<f32> = dx
                .chunks_exact(4 * width)
                .flat_map(|rows| {
                    (0..width)
                        .map(move |c| [0, 1].map(|r| rows[2 * width * r + 2 * c] + rows[2 * width * r + 2 * c + 1]))
                })
                .map(|[above, below]| above + below)
                .collect();
            let what = |part| format!("{part} at {level:?} of {s:?}");
            assert_close(&what("y"), &upsampled::forward(&x, &w, &b, s), &y, 1e-5);
            assert_close(&what("dx"), &upsampled::backward_input(&dy, &w, s), &dx, 1e-5);
            assert_close(&what("dw"), &upsampled::backward_weight(&x, &dy, s).0, &dw, 1e-5);
        }
    }
}

#[test]
fn attention_is_what_its_definition_says_at_every_level() {
    let sizes =
        if cfg!(miri) { vec![(2, 3, 5, 2, 3)] } else { vec![(2, 70, 33, 2, 5), (1, 1, 1, 1, 1), (3, 64, 17, 4, 8)] };
    for level in simd::available() {
        let _forced = simd::force(level);
        for &(batch, queries, keys, heads, size) in &sizes {
            let s = AttentionShape { batch, queries, keys, heads, size };
            let dim = heads * size;
            let (q, k) = (values(batch * queries * dim, 11), values(batch * keys * dim, 12));
            let v = values(batch * keys * dim, 13);
            let mut expected = vec![0f32; q.len()];
            for (n, i, h) in (0..batch).flat_map(|n| (0..queries).flat_map(move |i| (0..heads).map(move |h| (n, i, h))))
            {
                let at = (n * queries + i) * dim + h * size;
                let dot = |j: usize| {
                    let key = &k[(n * keys + j) * dim + h * size..][..size];
                    let dot = q[at..at + size].iter().zip(key).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
                    (dot / (size as f64).sqrt()).exp()
                };
                let weights: Vec<f64> = (0..keys).map(dot).collect();
                let total: f64 = weights.iter().sum();
                for d in 0..size {
                    let value = |j: usize| f64::from(v[(n * keys + j) * dim + h * size + d]);
                    expected[at + d] =
                        (weights.iter().enumerate().map(|(j, w)| w * value(j)).sum::<f64>() / total) as f32;
                }
            }
            assert_close(&format!("{s:?} at {level:?}"), &attention::forward(&q, &k, &v, s), &expected, 1e-5);
            // The gradient in a random direction is the slope of the result along it.
            let dout = values(q.len(), 14);
            let gradients = attention::backward(&q, &k, &v, &dout, s);
            let inputs = [q, k, v];
            for (which, gradient) in gradients.iter().enumerate() {
                let direction = values(inputs[which].len(), 15);
                let value = |step: f32| {
                    let mut moved = inputs.clone();
                    for (m, d) in moved[which].iter_mut().zip(&direction) {
                        *m += step * d;
                    }
                    let out = attention::forward(&moved[0], &moved[1], &moved[2], s);
                    out.iter().zip(&dout).map(|(a, b)| f64::from(a * b)).sum::<f64>()
                };
                let slope = (value(1e-2) - value(-1e-2)) / 2e-2;
                let expected = gradient.iter().zip(&direction).map(|(a, b)| f64::from(a * b)).sum::<f64>();
                assert!(
                    (slope - expected).abs() < 2e-3 * (1.0 + expected.abs()),
                    "{which} of {s:?}: {slope} {expected}"
                );
            }
        }
    }
}

#[test]
fn matrix_products_are_what_their_definition_says_at_every_level() {
    // One strip and several, strips that are not whole, rows that are no multiple of a tile, several matrices.
    let sizes = [(1, 1, 1, 1), (1, 5, 7, 3), (3, 13, 50, 9), (2, 64, 96, 33), (1, 300, 20, 17), (2, 3, 100, 1)];
    let sizes = if cfg!(miri) { &sizes[..3] } else { &sizes[..] };
    for level in simd::available() {
        let _forced = simd::force(level);
        for &(batch, rows, columns, inner) in sizes {
            let sizes = matmul::Sizes { rows, columns, inner };
            for (of_a, of_b) in [(batch, 1), (1, batch)] {
                let (a, b) = (values(of_a * rows * inner, 51), values(of_b * inner * columns, 52));
                let (by_row, by_column) = (values(rows, 53), values(columns, 54));
                for (which, start) in
                    [matmul::Start::Zero, matmul::Start::Rows(&by_row), matmul::Start::Columns(&by_column)]
                        .into_iter()
                        .enumerate()
                {
                    let mut expected = Vec::with_capacity(batch * rows * columns);
                    for (n, r, c) in
                        (0..batch).flat_map(|n| (0..rows).flat_map(move |r| (0..columns).map(move |c| (n, r, c))))
                    {
                        let a = &a[(n % of_a * rows + r) * inner..][..inner];
                        let b = b[n % of_b * inner * columns + c..].iter().step_by(columns);
                        let sum: f64 = a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
                        expected.push((sum + f64::from([0.0, by_row[r], by_column[c]][which])) as f32);
                    }
                    let found = matmul::multiply(&a, &b, start, sizes);
                    assert_close(&format!("{batch} x {sizes:?} at {level:?}, {start:?}"), &found, &expected, 1e-5);
                }
            }
        }
    }
}

/// Results of the remaining kernels, on lengths that are no multiple of any vector.
fn flat_results() -> Vec<(&'static str, Vec<f32>)> {
    let n = if cfg!(miri) { 37 } else { 1003 };
    let (x, dy) = (values(n, 21), values(n, 22));
    let mut results = Vec::new();
    let mut written = |what, write: &dyn Fn(&mut [f32])| {
        let mut y = vec![f32::NAN; n];
        write(&mut y);
        results.push((what, y));
    };
    written("silu", &|y| elementwise::silu_forward(&x, y));
    written("silu dx", &|y| elementwise::silu_backward(&x, &dy, y));
    written("geglu", &|y| elementwise::geglu_forward_row(&x, &dy, y));
    written("geglu dvalue", &|y| elementwise::geglu_backward_row(&x, &dy, &dy, y, &mut vec![0.0; n]));
    written("geglu dgate", &|y| elementwise::geglu_backward_row(&x, &dy, &dy, &mut vec![0.0; n], y));
    let shape = GroupShape { batch: 2, channels: 6, pixels: if cfg!(miri) { 19 } else { 67 }, groups: 3 };
    let len = shape.batch * shape.channels * shape.pixels;
    let (x, dy, gamma, beta) = (values(len, 23), values(len, 24), values(6, 25), values(6, 26));
    for silu in [false, true] {
        let mut y = vec![f32::NAN; len];
        norm::forward(&x, &gamma, &beta, &mut y, shape, 1e-5, silu);
        results.push(("group norm", y));
        let mut dx = vec![f32::NAN; len];
        let (dgamma, dbeta) = norm::backward(&x, &gamma, &beta, &dy, &mut dx, shape, 1e-5, silu);
        results.extend([("group norm dx", dx), ("group norm dgamma", dgamma), ("group norm dbeta", dbeta)]);
    }
    let (gamma, beta) = (values(shape.pixels, 32), values(shape.pixels, 33));
    results.push(("layer norm", norm::layer_forward(&x, &gamma, &beta, 1e-5)));
    let (dx, dgamma, dbeta) = norm::layer_backward(&x, &gamma, &dy, 1e-5);
    results.extend([("layer norm dx", dx), ("layer norm dgamma", dgamma), ("layer norm dbeta", dbeta)]);
    let (i, o, pixels) = (6, 5, 2 * shape.pixels);
    let (w, bias, dy) = (values(i * o, 27), values(o, 28), values(o * pixels, 29));
    results.push(("1x1", pointwise::forward(&x, &w, &bias, i, o, shape.pixels)));
    let (dx, dw, db) = pointwise::backward(&x, &w, &dy, i, o, shape.pixels);
    results.extend([("1x1 dx", dx), ("1x1 dw", dw), ("1x1 db", db)]);
    let (w, bias, dy) = (values(i * o, 27), values(o, 28), values(len / i * o, 29));
    results.push(("linear", linear::forward(&x, &w, &bias)));
    let (dx, dw, db) = linear::backward(&x, &w, &dy, o);
    results.extend([("linear dx", dx), ("linear dw", dw), ("linear db", db)]);
    let [mut value, mut first, gradient] = [34, 35, 36].map(|seed| values(n, seed));
    let mut second: Vec<f32> = values(n, 37).into_iter().map(f32::abs).collect();
    let (beta_1, beta_2, epsilon, keep, rate) = (0.9, 0.999, 1e-8, 0.99, 0.1);
    let step = AdamWStep { beta_1, beta_2, epsilon, keep, rate, correction_1: 0.4, correction_2: 0.02 };
    adamw::step(&mut value, &mut first, &mut second, &gradient, step);
    results.extend([("adamw", value), ("adamw first moment", first), ("adamw second moment", second)]);
    let rows = nearest::nearest_rows(&values(30, 30), &values(21 * 3, 31), 3);
    results.push(("nearest rows", rows.into_iter().map(|row| row as f32).collect()));
    results
}

#[test]
fn flat_kernels_agree_with_the_scalar_path() {
    let scalar = {
        let _forced = simd::force(simd::Level::Scalar);
        flat_results()
    };
    for level in simd::available() {
        let _forced = simd::force(level);
        for ((what, found), (_, expected)) in flat_results().iter().zip(&scalar) {
            assert!(found.iter().all(|v| v.is_finite()), "{what} at {level:?}");
            assert_close(&format!("{what} at {level:?}"), found, expected, 2e-6);
        }
    }
}

/// The vector levels multiply and add in one rounding and the scalar one in two: equal bits would mean that the choice
/// is not heeded, and that these tests compare a kernel with itself.
#[test]
fn a_forced_level_is_the_one_that_runs() {
    let s = ConvShape { batch: 1, in_channels: 3, out_channels: 4, height: 2, width: 16, kind: Conv3x3::SAME };
    let (x, w) = (values(3 * 32, 41), values(4 * 27, 42));
    let run = |level| {
        let _forced = simd::force(level);
        assert_eq!(simd::level(), level);
        conv::forward(&x, &w, None, s)
    };
    let scalar = run(simd::Level::Scalar);
    for level in simd::available().into_iter().filter(|&level| level != simd::Level::Scalar) {
        assert_ne!(run(level), scalar, "{level:?}");
    }
}
