//! Group normalisation with affine and optional SiLU, and layer normalisation, forward and backward, one pass over each
//! group or row.
//!
//! Source: Wu and He, Group Normalization (2018); Ba et al., Layer Normalization (2016); statistics in f32 with 16 partial sums per group, biased variance.

use crate::elementwise::sigmoid;
use crate::simd::dispatch;
use rayon::prelude::*;

/// Shape of a group-normalised tensor: batch x channels x pixels, split into groups of consecutive channels.
#[derive(Clone, Copy, Debug)]
pub(crate) struct GroupShape {
    pub(crate) batch: usize,
    pub(crate) channels: usize,
    pub(crate) pixels: usize,
    pub(crate) groups: usize,
}

impl GroupShape {
    fn group_len(&self) -> usize {
        self.channels / self.groups * self.pixels
    }
}

const PARTS: usize = 16;

dispatch! {
    fn mean_and_rstd(x: &[f32], eps: f32) -> (f32, f32) {
        let n = x.len() as f32;
        let mut parts = [0f32; PARTS];
        let (chunks, rest) = x.as_chunks::<PARTS>();
        for chunk in chunks {
            for (p, &v) in parts.iter_mut().zip(chunk) {
                *p += v;
            }
        }
        let mean = (parts.iter().sum::<f32>() + rest.iter().sum::<f32>()) / n;
        let mut parts = [0f32; PARTS];
        for chunk in chunks {
            for (p, &v) in parts.iter_mut().zip(chunk) {
                let d = v - mean;
                *p += d * d;
            }
        }
        let rest: f32 = rest.iter().map(|v| (v - mean) * (v - mean)).sum();
        let variance = (parts.iter().sum::<f32>() + rest) / n;
        (mean, 1.0 / (variance + eps).sqrt())
    }
}

dispatch! {
    fn scale_shift(x: &[f32], y: &mut [f32], scale: f32, shift: f32) {
        for (y, &x) in y.iter_mut().zip(x) {
            *y = x * scale + shift;
        }
    }
}

dispatch! {
    fn scale_shift_silu(x: &[f32], y: &mut [f32], scale: f32, shift: f32) {
        for (y, &x) in y.iter_mut().zip(x) {
            let z = x * scale + shift;
            *y = z * sigmoid(z);
        }
    }
}

dispatch! {
    /// Writes dz (the gradient before scale and shift) and returns (sum dz, sum dz * xhat) of one channel.
    fn channel_sums(x: &[f32], dy: &[f32], dz: &mut [f32], mean: f32, rstd: f32, gamma: f32, beta: f32, silu: bool) -> (f32, f32) {
        let mut sum = [0f32; PARTS];
        let mut dot = [0f32; PARTS];
        let (xs, x_rest) = x.as_chunks::<PARTS>();
        let (dys, dy_rest) = dy.as_chunks::<PARTS>();
        let (dzs, dz_rest) = dz.as_chunks_mut::<PARTS>();
        for ((x, dy), dz) in xs.iter().zip(dys).zip(dzs) {
            for i in 0..PARTS {
                let xhat = (x[i] - mean) * rstd;
                let g = if silu {
                    let z = xhat * gamma + beta;
                    let s = sigmoid(z);
                    dy[i] * s * (1.0 + z * (1.0 - s))
                } else {
                    dy[i]
                };
                dz[i] = g;
                sum[i] += g;
                dot[i] += g * xhat;
            }
        }
        let (mut total, mut total_dot) = (sum.iter().sum::<f32>(), dot.iter().sum::<f32>());
        for ((&x, &dy), dz) in x_rest.iter().zip(dy_rest).zip(dz_rest) {
            let xhat = (x - mean) * rstd;
            let g = if silu {
                let z = xhat * gamma + beta;
                let s = sigmoid(z);
                dy * s * (1.0 + z * (1.0 - s))
            } else {
                dy
            };
            *dz = g;
            total += g;
            total_dot += g * xhat;
        }
        (total, total_dot)
    }
}

dispatch! {
    /// In place: dz becomes dx = rstd * (gamma * dz - m1 - xhat * m2).
    fn finish_dx(x: &[f32], dz: &mut [f32], mean: f32, rstd: f32, gamma: f32, m1: f32, m2: f32) {
        for (dz, &x) in dz.iter_mut().zip(x) {
            *dz = rstd * (gamma * *dz - m1 - (x - mean) * rstd * m2);
        }
    }
}

/// Forward. Writes `y` of the shape of `x`.
pub(crate) fn forward(x: &[f32], gamma: &[f32], beta: &[f32], y: &mut [f32], shape: GroupShape, eps: f32, silu: bool) {
    let per_group = shape.channels / shape.groups;
    x.par_chunks(shape.group_len()).zip(y.par_chunks_mut(shape.group_len())).enumerate().with_min_len(4).for_each(
        |(index, (x, y))| {
            let (mean, rstd) = mean_and_rstd(x, eps);
            let first = (index % shape.groups) * per_group;
            for (c, (x, y)) in x.chunks(shape.pixels).zip(y.chunks_mut(shape.pixels)).enumerate() {
                let scale = gamma[first + c] * rstd;
                let shift = beta[first + c] - mean * scale;
                if silu { scale_shift_silu(x, y, scale, shift) } else { scale_shift(x, y, scale, shift) }
            }
        },
    );
}

/// Backward. Writes `dx` and returns (dgamma, dbeta).
pub(crate) fn backward(
    x: &[f32],
    gamma: &[f32],
    beta: &[f32],
    dy: &[f32],
    dx: &mut [f32],
    shape: GroupShape,
    eps: f32,
    silu: bool,
) -> (Vec<f32>, Vec<f32>) {
    let per_group = shape.channels / shape.groups;
    // One (dgamma, dbeta) pair per image and channel; summed over images below in a fixed order.
    let mut sums = vec![(0f32, 0f32); shape.batch * shape.channels];
    x.par_chunks(shape.group_len())
        .zip(dy.par_chunks(shape.group_len()))
        .zip(dx.par_chunks_mut(shape.group_len()))
        .zip(sums.par_chunks_mut(per_group))
        .enumerate()
        .with_min_len(4)
        .for_each(|(index, (((x, dy), dx), sums))| {
            let (mean, rstd) = mean_and_rstd(x, eps);
            let first = (index % shape.groups) * per_group;
            let (mut m1, mut m2) = (0f32, 0f32);
            for c in 0..per_group {
                let span = c * shape.pixels..(c + 1) * shape.pixels;
                let (g, b) = (gamma[first + c], beta[first + c]);
                let (sum, dot) =
                    channel_sums(&x[span.clone()], &dy[span.clone()], &mut dx[span], mean, rstd, g, b, silu);
                sums[c] = (dot, sum);
                m1 += g * sum;
                m2 += g * dot;
            }
            let n = x.len() as f32;
            for c in 0..per_group {
                let span = c * shape.pixels..(c + 1) * shape.pixels;
                finish_dx(&x[span.clone()], &mut dx[span], mean, rstd, gamma[first + c], m1 / n, m2 / n);
            }
        });
    let mut dgamma = vec![0f32; shape.channels];
    let mut dbeta = vec![0f32; shape.channels];
    for image in sums.chunks(shape.channels) {
        for (c, &(dot, sum)) in image.iter().enumerate() {
            dgamma[c] += dot;
            dbeta[c] += sum;
        }
    }
    (dgamma, dbeta)
}

dispatch! {
    fn layer_row(x: &[f32], gamma: &[f32], beta: &[f32], y: &mut [f32], mean: f32, rstd: f32) {
        for (((y, &x), &g), &b) in y.iter_mut().zip(x).zip(gamma).zip(beta) {
            *y = (x - mean) * rstd * g + b;
        }
    }
}

dispatch! {
    /// One row of dx; adds the row's share to dgamma and dbeta.
    fn layer_row_backward(
        x: &[f32],
        gamma: &[f32],
        dy: &[f32],
        dx: &mut [f32],
        dgamma: &mut [f32],
        dbeta: &mut [f32],
        mean: f32,
        rstd: f32,
    ) {
        let mut sums = [[0f32; PARTS]; 2];
        let ((xs, x_rest), (dys, dy_rest)) = (x.as_chunks::<PARTS>(), dy.as_chunks::<PARTS>());
        let (gammas, gamma_rest) = gamma.as_chunks::<PARTS>();
        for ((x, dy), gamma) in xs.iter().zip(dys).zip(gammas) {
            for i in 0..PARTS {
                let dz = dy[i] * gamma[i];
                sums[0][i] += dz;
                sums[1][i] += dz * (x[i] - mean) * rstd;
            }
        }
        let [mut sum, mut dot] = sums.map(|parts| parts.iter().sum::<f32>());
        for ((&x, &dy), &gamma) in x_rest.iter().zip(dy_rest).zip(gamma_rest) {
            sum += dy * gamma;
            dot += dy * gamma * (x - mean) * rstd;
        }
        let (m1, m2) = (sum / x.len() as f32, dot / x.len() as f32);
        let gradients = dx.iter_mut().zip(dgamma).zip(dbeta);
        for (((dx, dgamma), dbeta), ((&x, &dy), &gamma)) in gradients.zip(x.iter().zip(dy).zip(gamma)) {
            let xhat = (x - mean) * rstd;
            *dgamma += dy * xhat;
            *dbeta += dy;
            *dx = rstd * (dy * gamma - m1 - xhat * m2);
        }
    }
}

/// Layer normalisation of rows as long as `gamma`.
pub(crate) fn layer_forward(x: &[f32], gamma: &[f32], beta: &[f32], eps: f32) -> Vec<f32> {
    let mut y = vec![0f32; x.len()];
    let rows = x.par_chunks_exact(gamma.len()).zip(y.par_chunks_exact_mut(gamma.len()));
    rows.with_min_len(128).for_each(|(x, y)| {
        let (mean, rstd) = mean_and_rstd(x, eps);
        layer_row(x, gamma, beta, y, mean, rstd);
    });
    y
}

/// Gradients of [`layer_forward`]: (dx, dgamma, dbeta).
pub(crate) fn layer_backward(x: &[f32], gamma: &[f32], dy: &[f32], eps: f32) -> (Vec<f32>, Vec<f32>, Vec<f32>) {
    let dim = gamma.len();
    let mut dx = vec![0f32; x.len()];
    // A fixed number of partial sums, so that the result does not depend on scheduling.
    let part = (x.len() / dim).div_ceil(rayon::current_num_threads()) * dim;
    let rows = x.par_chunks(part).zip(dy.par_chunks(part)).zip(dx.par_chunks_mut(part));
    let sums: Vec<_> = rows
        .map(|((x, dy), dx)| {
            let (mut dgamma, mut dbeta) = (vec![0f32; dim], vec![0f32; dim]);
            for ((x, dy), dx) in x.chunks_exact(dim).zip(dy.chunks_exact(dim)).zip(dx.chunks_exact_mut(dim)) {
                let (mean, rstd) = mean_and_rstd(x, eps);
                layer_row_backward(x, gamma, dy, dx, &mut dgamma, &mut dbeta, mean, rstd);
            }
            (dgamma, dbeta)
        })
        .collect();
    let (mut dgamma, mut dbeta) = (vec![0f32; dim], vec![0f32; dim]);
    for (part_gamma, part_beta) in &sums {
        for (sum, value) in dgamma.iter_mut().zip(part_gamma).chain(dbeta.iter_mut().zip(part_beta)) {
            *sum += value;
        }
    }
    (dx, dgamma, dbeta)
}
