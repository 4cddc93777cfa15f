//! Scaled dot-product attention over heads, forward and backward, a block of queries at a time: the scores of a block
//! stay in the cache and are never all in memory. Heads are read from and written to their columns, without copies.
//!
//! Source: Dao et al., FlashAttention (2022), for the backward pass that computes the scores again; keys are not cut
//! into blocks, because the longest rows here (4096 keys) fit the cache.

use crate::elementwise::exp;
use crate::gemm_call::{View, matmul_into};
use crate::simd::dispatch;
use rayon::prelude::*;

/// Queries per block.
const BLOCK: usize = 64;
const PARTS: usize = 16;

/// Dimensions of one call: `size` values per head.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AttentionShape {
    pub(crate) batch: usize,
    pub(crate) queries: usize,
    pub(crate) keys: usize,
    pub(crate) heads: usize,
    pub(crate) size: usize,
}

impl AttentionShape {
    fn dim(&self) -> usize {
        self.heads * self.size
    }
    fn scale(&self) -> f32 {
        (self.size as f64).powf(-0.5) as f32
    }
    /// A head's columns of some rows.
    fn head<'a>(&self, rows: &'a [f32], head: usize) -> View<'a> {
        View { data: &rows[head * self.size..], row_stride: self.dim(), col_stride: 1 }
    }
}

dispatch! {
    /// Turns scores into exp(scale * (score - largest)) and returns 1 / their sum.
    fn exp_row(row: &mut [f32], scale: f32) -> f32 {
        let mut largest = [f32::NEG_INFINITY; PARTS];
        let (chunks, rest) = row.as_chunks::<PARTS>();
        for chunk in chunks {
            for (l, &v) in largest.iter_mut().zip(chunk) {
                *l = if v > *l { v } else { *l };
            }
        }
        let largest = largest.iter().chain(rest).fold(f32::NEG_INFINITY, |a, &b| a.max(b));
        let mut sums = [0f32; PARTS];
        let (chunks, rest) = row.as_chunks_mut::<PARTS>();
        for chunk in chunks {
            for (s, v) in sums.iter_mut().zip(chunk) {
                *v = exp((*v - largest) * scale);
                *s += *v;
            }
        }
        let mut sum = sums.iter().sum::<f32>();
        for v in rest {
            *v = exp((*v - largest) * scale);
            sum += *v;
        }
        1.0 / sum
    }
}

dispatch! {
    fn scale_row(row: &mut [f32], factor: f32) {
        for v in row {
            *v *= factor;
        }
    }
}

dispatch! {
    /// Gradient of the scores from the probabilities and their gradient, in place of the latter.
    fn score_gradient_row(p: &[f32], dp: &mut [f32], scale: f32) {
        let mut dots = [0f32; PARTS];
        let (ps, p_rest) = p.as_chunks::<PARTS>();
        let (dps, dp_rest) = dp.as_chunks::<PARTS>();
        for (p, dp) in ps.iter().zip(dps) {
            for i in 0..PARTS {
                dots[i] += p[i] * dp[i];
            }
        }
        let rest: f32 = p_rest.iter().zip(dp_rest).map(|(p, dp)| p * dp).sum();
        let dot = dots.iter().sum::<f32>() + rest;
        for (dp, &p) in dp.iter_mut().zip(p) {
            *dp = p * (*dp - dot) * scale;
        }
    }
}

/// softmax(q k^T / sqrt(size)) v per head.
///
/// # Shapes
/// q: [batch, queries, heads * size], k and v: [batch, keys, heads * size] -> [batch, queries, heads * size]
pub(crate) fn forward(q: &[f32], k: &[f32], v: &[f32], s: AttentionShape) -> Vec<f32> {
    let (dim, of_keys) = (s.dim(), s.keys * s.dim());
    let mut out = vec![0f32; s.batch * s.queries * dim];
    let blocks = q.par_chunks_exact(s.queries * dim).zip(out.par_chunks_exact_mut(s.queries * dim)).enumerate();
    let blocks = blocks.flat_map(|(image, (q, out))| {
        q.par_chunks(BLOCK * dim).zip(out.par_chunks_mut(BLOCK * dim)).map(move |(q, out)| (image, q, out))
    });
    blocks.for_each_init(Vec::new, |scores, (image, q, out)| {
        let rows = q.len() / dim;
        scores.resize(rows * s.keys, 0f32);
        let (k, v) = (&k[image * of_keys..][..of_keys], &v[image * of_keys..][..of_keys]);
        for head in 0..s.heads {
            matmul_into(scores, s.keys, s.head(q, head), s.head(k, head).transposed(), rows, s.keys, s.size, false);
            for row in scores.chunks_exact_mut(s.keys) {
                let factor = exp_row(row, s.scale());
                scale_row(row, factor);
            }
            let p = View { data: scores, row_stride: s.keys, col_stride: 1 };
            matmul_into(&mut out[head * s.size..], dim, p, s.head(v, head), rows, s.size, s.keys, false);
        }
    });
    out
}

/// Gradients with respect to q, k and v.
///
/// # Shapes
/// as [`forward`]; dout like its result
pub(crate) fn backward(q: &[f32], k: &[f32], v: &[f32], dout: &[f32], s: AttentionShape) -> [Vec<f32>; 3] {
    let (dim, of_queries, of_keys) = (s.dim(), s.queries * s.dim(), s.keys * s.dim());
    let [mut dq, mut dk, mut dv] = [of_queries, of_keys, of_keys].map(|len| vec![0f32; s.batch * len]);
    let gradients = dq.par_chunks_exact_mut(of_queries).zip(dk.par_chunks_exact_mut(of_keys));
    let gradients = gradients.zip(dv.par_chunks_exact_mut(of_keys)).enumerate();
    gradients.for_each_init(Default::default, |(p, dp): &mut (Vec<f32>, Vec<f32>), (image, ((dq, dk), dv))| {
        let (q, dout) = (&q[image * of_queries..][..of_queries], &dout[image * of_queries..][..of_queries]);
        let (k, v) = (&k[image * of_keys..][..of_keys], &v[image * of_keys..][..of_keys]);
        let blocks = q.chunks(BLOCK * dim).zip(dout.chunks(BLOCK * dim)).zip(dq.chunks_mut(BLOCK * dim));
        for ((q, dout), dq) in blocks {
            let rows = q.len() / dim;
            p.resize(rows * s.keys, 0.0);
            dp.resize(rows * s.keys, 0.0);
            for head in 0..s.heads {
                let from = head * s.size;
                let (q, k, v, dout) = (s.head(q, head), s.head(k, head), s.head(v, head), s.head(dout, head));
                matmul_into(p, s.keys, q, k.transposed(), rows, s.keys, s.size, false);
                matmul_into(dp, s.keys, dout, v.transposed(), rows, s.keys, s.size, false);
                for (p, dp) in p.chunks_exact_mut(s.keys).zip(dp.chunks_exact_mut(s.keys)) {
                    let factor = exp_row(p, s.scale());
                    scale_row(p, factor);
                    score_gradient_row(p, dp, s.scale());
                }
                let p = View { data: p, row_stride: s.keys, col_stride: 1 };
                let ds = View { data: dp, row_stride: s.keys, col_stride: 1 };
                matmul_into(&mut dv[from..], dim, p.transposed(), dout, s.keys, s.size, rows, true);
                matmul_into(&mut dq[from..], dim, ds, k, rows, s.size, s.keys, false);
                matmul_into(&mut dk[from..], dim, ds.transposed(), q, s.keys, s.size, rows, true);
            }
        }
    });
    [dq, dk, dv]
}
