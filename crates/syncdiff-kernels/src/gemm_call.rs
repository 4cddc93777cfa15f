//! One safe entry to the `gemm` crate: bounds are checked from the strides before the call.
//!
//! That crate chooses its instruction set itself. At the scalar level, and so under Miri, a plain loop takes its place.

use crate::simd::{self, Level};
use gemm::Parallelism;

/// A read-only strided matrix inside a slice.
#[derive(Clone, Copy)]
pub(crate) struct View<'a> {
    pub(crate) data: &'a [f32],
    pub(crate) row_stride: usize,
    pub(crate) col_stride: usize,
}

impl View<'_> {
    /// The same values with rows and columns exchanged.
    pub(crate) fn transposed(self) -> Self {
        Self { row_stride: self.col_stride, col_stride: self.row_stride, ..self }
    }
}

fn last_index(rows: usize, cols: usize, row_stride: usize, col_stride: usize) -> usize {
    (rows - 1) * row_stride + (cols - 1) * col_stride
}

/// `dst = a * b`, or `dst += a * b` when `accumulate`; `dst` is row-major with row stride `dst_row_stride`.
///
/// # Shapes
/// a: [m, k], b: [k, n], dst: [m, n]
pub(crate) fn matmul_into(
    dst: &mut [f32],
    dst_row_stride: usize,
    a: View<'_>,
    b: View<'_>,
    m: usize,
    n: usize,
    k: usize,
    accumulate: bool,
) {
    if m == 0 || n == 0 {
        return;
    }
    assert!(k > 0, "matmul_into: empty reduction axis");
    assert!(last_index(m, n, dst_row_stride, 1) < dst.len(), "matmul_into: dst too small");
    assert!(last_index(m, k, a.row_stride, a.col_stride) < a.data.len(), "matmul_into: a too small");
    assert!(last_index(k, n, b.row_stride, b.col_stride) < b.data.len(), "matmul_into: b too small");
    if cfg!(miri) || simd::level() == Level::Scalar {
        plain(dst, dst_row_stride, a, b, m, n, k, accumulate);
        return;
    }
    // SAFETY: the asserts above show that every element addressed by the strides lies inside its slice, and `dst`
    // is a unique borrow that cannot overlap `a` or `b`.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            dst.as_mut_ptr(),
            1,
            dst_row_stride as isize,
            accumulate,
            a.data.as_ptr(),
            a.col_stride as isize,
            a.row_stride as isize,
            b.data.as_ptr(),
            b.col_stride as isize,
            b.row_stride as isize,
            1.0f32,
            1.0f32,
            false,
            false,
            false,
            Parallelism::None,
        );
    }
}

/// Adds up rows of `b`, so that the inner loop runs along a row of `dst`.
fn plain(
    dst: &mut [f32],
    dst_row_stride: usize,
    a: View<'_>,
    b: View<'_>,
    m: usize,
    n: usize,
    k: usize,
    accumulate: bool,
) {
    for i in 0..m {
        let row = &mut dst[i * dst_row_stride..][..n];
        if !accumulate {
            row.fill(0.0);
        }
        for l in 0..k {
            let factor = a.data[i * a.row_stride + l * a.col_stride];
            let from = &b.data[l * b.row_stride..];
            if b.col_stride == 1 {
                for (to, &value) in row.iter_mut().zip(from) {
                    *to += factor * value;
                }
            } else {
                for (to, &value) in row.iter_mut().zip(from.iter().step_by(b.col_stride)) {
                    *to += factor * value;
                }
            }
        }
    }
}
