//! Linear layers, forward and backward, on the matrix product of [`crate::matmul`].

use crate::matmul::{Sizes, Start, multiply};
use rayon::prelude::*;

/// # Shapes
/// x: [rows, in], weight: [in, out], bias: [out] -> [rows, out]
pub(crate) fn forward(x: &[f32], weight: &[f32], bias: &[f32]) -> Vec<f32> {
    let columns = bias.len();
    let inner = weight.len() / columns;
    multiply(x, weight, Start::Columns(bias), Sizes { rows: x.len() / inner, columns, inner })
}

/// Gradients of [`forward`]: (dx, dweight, dbias).
pub(crate) fn backward(x: &[f32], weight: &[f32], dy: &[f32], out: usize) -> (Vec<f32>, Vec<f32>, Vec<f32>) {
    let inner = weight.len() / out;
    let rows = x.len() / inner;
    let dx = multiply(dy, &transposed(weight, out), Start::Zero, Sizes { rows, columns: inner, inner: out });
    let dweight = multiply(&transposed(x, inner), dy, Start::Zero, Sizes { rows: inner, columns: out, inner: rows });
    (dx, dweight, column_sums(dy, out))
}

/// # Shapes
/// [rows, columns] -> [columns]
pub(crate) fn column_sums(values: &[f32], columns: usize) -> Vec<f32> {
    let mut sums = vec![0f32; columns];
    for row in values.chunks_exact(columns) {
        for (sum, &value) in sums.iter_mut().zip(row) {
            *sum += value;
        }
    }
    sums
}

/// Rows and columns of a row-major matrix exchanged, in parallel.
///
/// # Shapes
/// [rows, columns] -> [columns, rows]
pub fn transposed(from: &[f32], columns: usize) -> Vec<f32> {
    /// Rows of the result at once: so many values of a row of the source fill a line of the cache.
    const BLOCK: usize = 16;
    if from.is_empty() {
        return Vec::new();
    }
    let rows = from.len() / columns;
    let mut to = vec![0f32; from.len()];
    to.par_chunks_mut(BLOCK * rows).enumerate().for_each(|(block, to)| {
        let first = block * BLOCK;
        for (row, from) in from.chunks_exact(columns).enumerate() {
            for (to, &value) in to.chunks_exact_mut(rows).zip(&from[first..]) {
                to[row] = value;
            }
        }
    });
    to
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transposition_of_odd_sizes() {
        let values: Vec<f32> = (0..70 * 33).map(|i| i as f32).collect();
        let turned = transposed(&values, 33);
        assert_eq!(turned[5 * 70 + 64], values[64 * 33 + 5]);
        assert_eq!(transposed(&turned, 70), values);
        assert!(transposed(&[], 0).is_empty());
    }
}
