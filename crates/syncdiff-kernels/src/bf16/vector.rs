//! The product with AVX512-BF16.

use super::product::{Block, Product, Results, SIDE};
use std::arch::x86_64::*;

/// Rows whose sums are held at once, in two vectors each: 16 of 32 registers.
const ROWS: usize = 8;

/// # Safety
/// The product is checked, and AVX512-BF16 is available.
#[target_feature(enable = "avx512f,avx512bf16")]
pub(super) unsafe fn block(product: &Product<'_>, pairs: &[u32], block: &Block<'_>, results: &mut Results) {
    for (tile, &first) in block.rows[..block.num_rows].iter().enumerate() {
        let bias = &block.bias.0[tile];
        for row in (0..product.tile_rows()).step_by(ROWS) {
            // SAFETY: the row lies in the tile, whose rows are those of the weights; as the caller promises.
            unsafe {
                match block.vectors {
                    [one] => rows::<1>(product, pairs, [one.from], first, row, bias, &mut results.0[tile]),
                    [one, two] => {
                        rows::<2>(product, pairs, [one.from, two.from], first, row, bias, &mut results.0[tile])
                    }
                    _ => {}
                }
            }
        }
    }
}

/// # Safety
/// As [`block`]; `first + row` is a row of the weights.
#[target_feature(enable = "avx512f,avx512bf16")]
unsafe fn rows<const V: usize>(
    product: &Product<'_>,
    pairs: &[u32],
    from: [usize; V],
    first: usize,
    row: usize,
    bias: &[f32],
    results: &mut [[f32; SIDE * SIDE]; 2],
) {
    let count = ROWS.min(product.tile_rows() - row);
    let mut sums = [[_mm512_setzero_ps(); V]; ROWS];
    let mut weights = [product.weights.as_ptr(); ROWS];
    for r in 0..ROWS {
        // A group that reaches beyond the tile computes its last row several times and stores it once.
        let r_in = (row + r).min(row + count - 1);
        sums[r] = [_mm512_set1_ps(bias[r_in * SIDE]); V];
        // SAFETY: a row of the weights, see the caller's promise.
        weights[r] = unsafe { weights[r].add((first + r_in) * product.row_stride) };
    }
    for step in product.steps {
        for pair in 0..product.inner / 2 {
            let mut x = [_mm512_setzero_si512(); V];
            for v in 0..V {
                // SAFETY: the product is checked: a vector's columns of each row of pairs of each step can be read.
                x[v] = unsafe {
                    let at = pairs.as_ptr().add(step.pairs + from[v] + pair * product.pair_stride);
                    _mm512_loadu_si512(at.cast())
                };
            }
            for r in 0..ROWS {
                // SAFETY: the product is checked: every row has `inner` values from each step's place on.
                let w = unsafe { weights[r].add(step.weights + 2 * pair).cast::<i32>().read_unaligned() };
                let w = as_bf16(_mm512_set1_epi32(w));
                for v in 0..V {
                    sums[r][v] = _mm512_dpbf16_ps(sums[r][v], w, as_bf16(x[v]));
                }
            }
        }
    }
    for (r, sums) in sums.iter().enumerate().take(count) {
        for v in 0..V {
            let to = &mut results[v][(row + r) * SIDE..][..SIDE];
            // SAFETY: a row of results has room for a vector.
            unsafe { _mm512_storeu_ps(to.as_mut_ptr(), sums[v]) };
        }
    }
}

#[inline(always)]
fn as_bf16(bits: __m512i) -> __m512bh {
    // SAFETY: both are 512 bits without further meaning.
    unsafe { std::mem::transmute(bits) }
}
