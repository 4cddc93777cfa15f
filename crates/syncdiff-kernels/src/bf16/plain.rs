//! The product in plain Rust: what the other units are compared with.

use super::pairs::widen;
use super::product::{Block, Product, Results, SIDE};

/// # Safety
/// None is needed; the signature is that of the other units.
pub(super) unsafe fn block(product: &Product<'_>, pairs: &[u32], block: &Block<'_>, results: &mut Results) {
    for (tile, &first) in block.rows[..block.num_rows].iter().enumerate() {
        for (results, vector) in results.0[tile].iter_mut().zip(block.vectors) {
            for r in 0..product.tile_rows() {
                let mut sums = block.bias.0[tile].as_chunks::<SIDE>().0[r];
                for step in product.steps {
                    let row = &product.weights[step.weights + (first + r) * product.row_stride..][..product.inner];
                    for (pair, [even, odd]) in row.as_chunks::<2>().0.iter().enumerate() {
                        let columns = &pairs[vector.from + step.pairs + pair * product.pair_stride..];
                        let (even, odd) = (widen(*even), widen(*odd));
                        for (sum, &column) in sums.iter_mut().zip(columns) {
                            *sum += even * widen(column as u16) + odd * widen((column >> 16) as u16);
                        }
                    }
                }
                results[r * SIDE..][..SIDE].copy_from_slice(&sums);
            }
        }
    }
}
