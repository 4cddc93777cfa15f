//! Linear layers, forward and backward, on the matrix product of [`crate::matmul`].

use crate::matmul::{Sizes, Start, multiply};
use crate::square::{self, SIDE};
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
    if from.is_empty() {
        return Vec::new();
    }
    let rows = from.len() / columns;
    let mut to = vec![0f32; from.len()];
    to.par_chunks_mut(SIDE * rows).enumerate().for_each(|(strip, to)| {
        let (first, count) = (strip * SIDE, to.len() / rows);
        for (block, from) in from.chunks(SIDE * columns).enumerate() {
            let mut square = [0f32; SIDE * SIDE];
            for (square, row) in square.as_chunks_mut::<SIDE>().0.iter_mut().zip(from.chunks_exact(columns)) {
                square[..count].copy_from_slice(&row[first..][..count]);
            }
            let (square, width) = (square::transposed(&square), from.len() / columns);
            for (to, row) in to.chunks_exact_mut(rows).zip(square.as_chunks::<SIDE>().0) {
                to[block * SIDE..][..width].copy_from_slice(&row[..width]);
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
