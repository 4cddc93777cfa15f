//! Every layer on every unit of the processor, against its definition in f64 over rounded values.

use super::gradients::{conv1x1_gradients, conv3x3_gradients, linear_gradients};
use super::pairs::{round, widen};
use super::{available, conv1x1, conv3x3, conv3x3_upsampled, force, linear};
use crate::conv::upsampled::UpsampledShape;
use crate::conv::{Conv3x3, ConvShape};

/// Deterministic values in (-1, 1), each of which 16 bits hold.
fn values(n: usize, seed: u64) -> Vec<f32> {
    crate::tests::values(n, seed).into_iter().map(|value| widen(round(value) as u16)).collect()
}

fn halves(values: &[f32]) -> Vec<u16> {
    values.iter().map(|&value| round(value) as u16).collect()
}

fn assert_close(what: &str, found: &[f32], expected: &[f64], tolerance: f64) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let scale = expected.iter().fold(1e-3f64, |most, v| most.max(v.abs()));
    for (i, (a, b)) in found.iter().zip(expected).enumerate() {
        assert!((f64::from(*a) - b).abs() <= tolerance * scale, "{what}[{i}]: {a}, expected {b} (scale {scale})");
    }
}

/// Weights are [3, 3, out, in].
fn conv_by_definition(x: &[f32], w: &[f32], b: &[f32], s: ConvShape) -> Vec<f64> {
    let (oh, ow) = (s.out_height(), s.out_width());
    let mut y = Vec::with_capacity(s.batch * s.out_channels * oh * ow);
    for (n, o) in (0..s.batch).flat_map(|n| (0..s.out_channels).map(move |o| (n, o))) {
        for (r, c) in (0..oh).flat_map(|r| (0..ow).map(move |c| (r, c))) {
            let mut sum = f64::from(b[o]);
            for (k, i) in (0..9).flat_map(|k| (0..s.in_channels).map(move |i| (k, i))) {
                let row = (s.kind.stride * r + k / 3).checked_sub(s.kind.pad_begin).filter(|row| *row < s.height);
                let col = (s.kind.stride * c + k % 3).checked_sub(s.kind.pad_begin).filter(|col| *col < s.width);
                if let (Some(row), Some(col)) = (row, col) {
                    let x = x[((n * s.in_channels + i) * s.height + row) * s.width + col];
                    sum += f64::from(x) * f64::from(w[(k * s.out_channels + o) * s.in_channels + i]);
                }
            }
            y.push(sum);
        }
    }
    y
}

/// (batch, in, out, height, width): tiles that are whole, of fewer rows, that overlap; steps that are whole and filled.
fn shapes() -> Vec<(usize, usize, usize, usize, usize)> {
    if cfg!(miri) {
        return vec![(1, 3, 5, 2, 8)];
    }
    vec![
        (2, 32, 32, 4, 16),
        (1, 64, 64, 8, 8),
        (1, 10, 32, 4, 32),
        (1, 33, 3, 2, 16),
        (3, 16, 41, 3, 48),
        (1, 1, 1, 2, 8),
        (1, 5, 7, 7, 9),
    ]
}

#[test]
fn convolutions_match_their_definition() {
    for (batch, in_channels, out_channels, height, width) in shapes() {
        let x = values(batch * in_channels * height * width, 1);
        let w = values(9 * in_channels * out_channels, 2);
        let b = values(out_channels, 3);
        for kind in [Conv3x3::SAME, Conv3x3::DOWN, Conv3x3::DOWN_ASYMMETRIC] {
            let s = ConvShape { batch, in_channels, out_channels, height, width, kind };
            let expected = conv_by_definition(&x, &w, &b, s);
            for unit in available() {
                let _forced = force(unit);
                assert_close(&format!("{s:?} on {unit:?}"), &conv3x3(&x, &halves(&w), &b, s), &expected, 2e-6);
            }
        }
    }
}

#[test]
fn an_upsampled_convolution_is_that_of_the_enlarged_image() {
    for (batch, in_channels, out_channels, height, width) in shapes() {
        let x = values(batch * in_channels * height * width, 4);
        let w = values(9 * in_channels * out_channels, 5);
        let b = values(out_channels, 6);
        let rows = x.chunks_exact(width).flat_map(|row| [row, row]);
        let enlarged: Vec<f32> = rows.flat_map(|row| row.iter().flat_map(|&value| [value, value])).collect();
        let kind = Conv3x3::SAME;
        let s = ConvShape { batch, in_channels, out_channels, height: 2 * height, width: 2 * width, kind };
        let expected = conv_by_definition(&enlarged, &w, &b, s);
        for unit in available() {
            let _forced = force(unit);
            let s = UpsampledShape { batch, in_channels, out_channels, height, width };
            // The sums of weights that meet are rounded once more.
            assert_close(&format!("{s:?} on {unit:?}"), &conv3x3_upsampled(&x, &halves(&w), &b, s), &expected, 4e-3);
        }
    }
}

#[test]
fn matrix_products_match_their_definition() {
    let sizes = [(1, 1, 1), (2, 5, 7), (1, 32, 32), (17, 64, 96), (40, 100, 33), (64, 640, 20), (3, 66, 160)];
    for (tokens, inner, out) in if cfg!(miri) { &sizes[..2] } else { &sizes[..] }.iter().copied() {
        let (x, w, b) = (values(tokens * inner, 7), values(inner * out, 8), values(out, 9));
        let row = |row: &[f32], o: usize| -> f64 {
            let products = row.iter().zip(&w[o * inner..]).map(|(x, w)| f64::from(*x) * f64::from(*w));
            f64::from(b[o]) + products.sum::<f64>()
        };
        let expected: Vec<f64> =
            x.chunks_exact(inner).flat_map(|x| (0..out).map(move |o| (x, o))).map(|(x, o)| row(x, o)).collect();
        // The same as an image whose pixels are the tokens.
        let planes: Vec<f32> = (0..inner).flat_map(|i| x.iter().skip(i).step_by(inner).copied()).collect();
        let by_plane: Vec<f64> = (0..out).flat_map(|o| expected.iter().skip(o).step_by(out).copied()).collect();
        for unit in available() {
            let _forced = force(unit);
            let what = format!("{tokens} tokens, {inner} to {out} on {unit:?}");
            assert_close(&what, &linear(&x, &halves(&w), &b), &expected, 2e-6);
            assert_close(&what, &conv1x1(&planes, &halves(&w), &b, inner, tokens), &by_plane, 2e-6);
        }
    }
}

/// Every value of both sides fits into 16 bits, so that only the order of the sums differs.
#[test]
fn gradients_of_convolutions_match_their_definition() {
    let odd = [(1, 2, 1, 1, 1), (1, 5, 41, 7, 9)];
    let odd = if cfg!(miri) { &odd[..1] } else { &odd[..] };
    for (batch, in_channels, out_channels, height, width) in shapes().into_iter().chain(odd.iter().copied()) {
        let s = ConvShape { batch, in_channels, out_channels, height, width, kind: Conv3x3::SAME };
        let x = values(batch * in_channels * height * width, 1);
        let w = values(9 * in_channels * out_channels, 2);
        let dy = values(batch * out_channels * height * width, 3);
        let (mut dx, mut dw) = (vec![0f64; x.len()], vec![0f64; w.len()]);
        for (n, o) in (0..batch).flat_map(|n| (0..out_channels).map(move |o| (n, o))) {
            for (r, c) in (0..height).flat_map(|r| (0..width).map(move |c| (r, c))) {
                let dy = f64::from(dy[((n * out_channels + o) * height + r) * width + c]);
                for (k, i) in (0..9).flat_map(|k| (0..in_channels).map(move |i| (k, i))) {
                    let row = (r + k / 3).checked_sub(1).filter(|row| *row < height);
                    let col = (c + k % 3).checked_sub(1).filter(|col| *col < width);
                    if let (Some(row), Some(col)) = (row, col) {
                        let at = ((n * in_channels + i) * height + row) * width + col;
                        let weight = (k * out_channels + o) * in_channels + i;
                        dx[at] += dy * f64::from(w[weight]);
                        dw[weight] += dy * f64::from(x[at]);
                    }
                }
            }
        }
        for unit in available() {
            let _forced = force(unit);
            let found = conv3x3_gradients(&x, &halves(&w), &dy, s, true);
            assert_close(&format!("dx of {s:?} on {unit:?}"), &found.0, &dx, 2e-6);
            assert_close(&format!("dw of {s:?} on {unit:?}"), &found.1, &dw, 2e-6);
            assert!(conv3x3_gradients(&x, &halves(&w), &dy, s, false).0.is_empty());
        }
    }
}

#[test]
fn gradients_of_matrix_products_match_their_definition() {
    let sizes = [(1, 1, 1), (2, 5, 7), (1, 32, 32), (17, 64, 96), (40, 100, 33), (64, 70, 20), (33, 66, 160)];
    for (tokens, inner, out) in if cfg!(miri) { &sizes[..2] } else { &sizes[..] }.iter().copied() {
        // Two images of so many pixels, and the same as tokens.
        let (x, w, dy) = (values(2 * tokens * inner, 7), values(inner * out, 8), values(2 * tokens * out, 9));
        let (mut dx, mut dw) = (vec![0f64; x.len()], vec![0f64; w.len()]);
        for t in 0..2 * tokens {
            for (i, o) in (0..inner).flat_map(|i| (0..out).map(move |o| (i, o))) {
                dx[t * inner + i] += f64::from(dy[t * out + o]) * f64::from(w[i * out + o]);
                dw[i * out + o] += f64::from(dy[t * out + o]) * f64::from(x[t * inner + i]);
            }
        }
        fn planes<T: Copy>(values: &[T], tokens: usize, channels: usize) -> Vec<T> {
            let image = |image: &[T]| -> Vec<T> {
                (0..channels)
                    .flat_map(|c| image.iter().skip(c).step_by(channels).copied().collect::<Vec<_>>())
                    .collect()
            };
            values.chunks_exact(tokens * channels).flat_map(image).collect()
        }
        let turned = |values: &[f32]| planes(values, inner, out);
        for unit in available() {
            let _forced = force(unit);
            let what = format!("{tokens} tokens, {inner} to {out} on {unit:?}");
            let found = linear_gradients(&x, &halves(&w), &dy, out);
            assert_close(&what, &found.0, &dx, 2e-6);
            assert_close(&what, &found.1, &dw, 2e-6);
            let (x, dy) = (planes(&x, tokens, inner), planes(&dy, tokens, out));
            let found = conv1x1_gradients(&x, &halves(&turned(&w)), &dy, inner, tokens);
            assert_close(&what, &found.0, &planes(&dx, tokens, inner), 2e-6);
            assert_close(&what, &found.1, &planes(&dw, inner, out), 2e-6);
        }
    }
}
