//! Matrix products of the layers that are one: linear layers and 1x1 convolutions, forward.
//!
//! The right matrix is cut into strips of a few vectors' width; a task copies its strip, so that it lies in one piece
//! in the cache (unless it is soon done with it), and passes the rows of the left matrix over it, some at a time, in
//! the register tile of the convolutions.

#[cfg(target_arch = "aarch64")]
use crate::conv::tile::NEON_TILE;
use crate::conv::tile::{OutPtr, SCALAR_TILE, tile_size};
use crate::simd::{self, Lanes, Level, Scalar4};
use rayon::prelude::*;
use std::ops::Range;

/// What the sums start from.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Start<'a> {
    Zero,
    /// A value for each row of the result.
    Rows(&'a [f32]),
    /// A value for each column of the result.
    Columns(&'a [f32]),
}

/// Rows, columns, and the length of the sums.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sizes {
    pub(crate) rows: usize,
    pub(crate) columns: usize,
    pub(crate) inner: usize,
}

/// One call: `batch` products with a common left or right matrix.
struct Call<'a> {
    level: Level,
    sizes: Sizes,
    start: Start<'a>,
}

/// `start + a[n] * b[n]`; a side with one matrix has the same for all n.
///
/// # Shapes
/// a: [batch or 1, rows, inner], b: [batch or 1, inner, columns] -> [batch, rows, columns], all row-major
pub(crate) fn multiply(a: &[f32], b: &[f32], start: Start<'_>, sizes: Sizes) -> Vec<f32> {
    let Sizes { rows, columns, inner } = sizes;
    let (of_a, of_b, of_c) = (rows * inner, inner * columns, rows * columns);
    assert!(of_a > 0 && of_b > 0, "a product with an empty side: {sizes:?}");
    let batch = (a.len() / of_a).max(b.len() / of_b);
    assert!(a.len() == of_a || a.len() == batch * of_a, "left matrices of {sizes:?}");
    assert!(b.len() == of_b || b.len() == batch * of_b, "right matrices of {sizes:?}");
    match start {
        Start::Zero => {}
        Start::Rows(values) => assert_eq!(values.len(), rows, "a value for each row"),
        Start::Columns(values) => assert_eq!(values.len(), columns, "a value for each column"),
    }
    let level = simd::level();
    let call = Call { level, sizes, start };
    let (block, vectors) = tile_size(level);
    let width = vectors * level.lanes();
    let strips = columns.div_ceil(width);
    // Rows are shared out too where there are not strips enough for all threads.
    let wanted = (4 * rayon::current_num_threads()).div_ceil(batch * strips);
    let rows_per_task = rows.div_ceil(wanted.min(rows.div_ceil(4 * block))).next_multiple_of(block);
    let parts = rows.div_ceil(rows_per_task);
    let mut out = Vec::<f32>::with_capacity(batch * of_c);
    let to = OutPtr(out.as_mut_ptr());
    (0..batch * strips * parts).into_par_iter().for_each_init(
        || Vec::with_capacity(inner * width),
        |panel, index| {
            let (image, strip, part) = (index / (strips * parts), index / parts % strips, index % parts);
            let a = if a.len() == of_a { a } else { &a[image * of_a..][..of_a] };
            let b = if b.len() == of_b { b } else { &b[image * of_b..][..of_b] };
            let rows = part * rows_per_task..((part + 1) * rows_per_task).min(rows);
            // SAFETY: `out` has room for all results, and these rows of this strip are this task's alone.
            unsafe { call.run(a, b, panel, rows, strip * width, to.add(image * of_c).0) };
        },
    );
    // SAFETY: the tasks cover all rows of all strips.
    unsafe { out.set_len(batch * of_c) };
    out
}

/// Passes over a strip from which on its copy pays.
const PASSES: usize = 3;

impl Call<'_> {
    /// The results of some rows, in the strip of columns that begins at `from`; `panel` is room for a copy of it.
    ///
    /// # Safety
    /// `out`, [rows, columns], is writable, and no other thread writes these rows of this strip.
    unsafe fn run(&self, a: &[f32], b: &[f32], panel: &mut Vec<f32>, rows: Range<usize>, from: usize, out: *mut f32) {
        // SAFETY: forwarded; a level is only chosen where its instruction set was detected.
        unsafe {
            match self.level {
                Level::Scalar => {
                    self.strip::<Scalar4, { SCALAR_TILE.0 }, { SCALAR_TILE.1 }>(a, b, panel, rows, from, out)
                }
                #[cfg(target_arch = "x86_64")]
                Level::Avx2 => x86::avx2(self, a, b, panel, rows, from, out),
                #[cfg(target_arch = "x86_64")]
                Level::Avx512 => x86::avx512(self, a, b, panel, rows, from, out),
                #[cfg(target_arch = "aarch64")]
                Level::Neon => {
                    use crate::simd::neon::F32x4;
                    self.strip::<F32x4, { NEON_TILE.0 }, { NEON_TILE.1 }>(a, b, panel, rows, from, out)
                }
            }
        }
    }

    /// # Safety
    /// As [`Call::run`]; `L`, `O` and `V` are those of the level, whose instruction set is available.
    #[inline(always)]
    unsafe fn strip<L: Lanes, const O: usize, const V: usize>(
        &self,
        a: &[f32],
        b: &[f32],
        panel: &mut Vec<f32>,
        rows: Range<usize>,
        from: usize,
        out: *mut f32,
    ) {
        let Sizes { columns, inner, .. } = self.sizes;
        let width = V * L::N;
        let count = width.min(columns - from);
        assert!(a.len() >= rows.end * inner && b.len() == inner * columns, "a strip of {:?}", self.sizes);
        // A strip that is passed over a few times only is read where it lies.
        let (strip, stride) = if count == width && rows.len() < PASSES * O {
            (b[from..].as_ptr(), columns)
        } else {
            // SAFETY: forwarded.
            unsafe { pack::<L, V>(b, columns, from, panel) };
            (panel.as_ptr(), width)
        };
        // The widest tile of any level.
        let mut edge = [0f32; 16 * 3];
        let mut first = [0f32; 16 * 3];
        if let Start::Columns(values) = self.start {
            first[..count].copy_from_slice(&values[from..from + count]);
        }
        for row in rows.clone().step_by(O) {
            let mut acc = [[L::splat(0.0); V]; O];
            let mut left = [a.as_ptr(); O];
            for o in 0..O {
                // A tile that reaches beyond the last row computes that one several times and stores it once.
                let row = (row + o).min(rows.end - 1);
                // SAFETY: the row is inside the left matrix.
                left[o] = unsafe { left[o].add(row * inner) };
                for v in 0..V {
                    acc[o][v] = match self.start {
                        Start::Zero => L::splat(0.0),
                        Start::Rows(values) => L::splat(values[row]),
                        // SAFETY: `first` has the width of the widest tile.
                        Start::Columns(_) => unsafe { L::load(first.as_ptr().add(v * L::N)) },
                    };
                }
            }
            let mut right = strip;
            for k in 0..inner {
                let mut x = [L::splat(0.0); V];
                for v in 0..V {
                    // SAFETY: the strip has `V` vectors for each step of the sum.
                    x[v] = unsafe { L::load(right.add(v * L::N)) };
                }
                for o in 0..O {
                    // SAFETY: a row of the left matrix has a value for each step.
                    let c = L::splat(unsafe { *left[o].add(k) });
                    for v in 0..V {
                        acc[o][v] = c.mul_add(x[v], acc[o][v]);
                    }
                }
                // Behind the last step it points beyond the strip, and is not read.
                right = right.wrapping_add(stride);
            }
            for o in 0..O.min(rows.end - row) {
                // SAFETY: the row is inside the result.
                let to = unsafe { out.add((row + o) * columns + from) };
                if count == width {
                    for v in 0..V {
                        // SAFETY: the strip is whole, so that the row has room for all vectors.
                        unsafe { acc[o][v].store(to.add(v * L::N)) };
                    }
                    continue;
                }
                for v in 0..V {
                    // SAFETY: `edge` has the width of the widest tile.
                    unsafe { acc[o][v].store(edge.as_mut_ptr().add(v * L::N)) };
                }
                // SAFETY: `count` columns are left in the row.
                unsafe { to.copy_from_nonoverlapping(edge.as_ptr(), count) };
            }
        }
    }
}

/// Copies the strip of columns that begins at `from` into `panel`; columns that are not there become zero.
///
/// # Safety
/// The instruction set of `L` is available.
#[inline(always)]
unsafe fn pack<L: Lanes, const V: usize>(b: &[f32], columns: usize, from: usize, panel: &mut Vec<f32>) {
    let width = V * L::N;
    let count = width.min(columns - from);
    panel.clear();
    if count < width {
        for row in b.chunks_exact(columns) {
            panel.extend_from_slice(&row[from..from + count]);
            panel.resize(panel.len() + width - count, 0.0);
        }
        return;
    }
    let rows = b.len() / columns;
    panel.reserve(rows * width);
    let to = panel.as_mut_ptr();
    for row in 0..rows {
        for v in 0..V {
            // SAFETY: the row has `width` columns from `from` on, and the panel room for as many of all rows.
            unsafe { L::load(b.as_ptr().add(row * columns + from + v * L::N)).store(to.add(row * width + v * L::N)) };
        }
    }
    // SAFETY: so many values were written.
    unsafe { panel.set_len(rows * width) };
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::Call;
    use crate::conv::tile::{AVX2_TILE, AVX512_TILE};
    use crate::simd::x86::{F32x8, F32x16};
    use std::ops::Range;

    #[target_feature(enable = "avx2,fma")]
    pub(super) unsafe fn avx2(
        call: &Call<'_>,
        a: &[f32],
        b: &[f32],
        panel: &mut Vec<f32>,
        rows: Range<usize>,
        from: usize,
        out: *mut f32,
    ) {
        // SAFETY: forwarded; the instruction set is enabled here.
        unsafe { call.strip::<F32x8, { AVX2_TILE.0 }, { AVX2_TILE.1 }>(a, b, panel, rows, from, out) }
    }

    #[target_feature(enable = "avx512f")]
    pub(super) unsafe fn avx512(
        call: &Call<'_>,
        a: &[f32],
        b: &[f32],
        panel: &mut Vec<f32>,
        rows: Range<usize>,
        from: usize,
        out: *mut f32,
    ) {
        // SAFETY: forwarded; the instruction set is enabled here.
        unsafe { call.strip::<F32x16, { AVX512_TILE.0 }, { AVX512_TILE.1 }>(a, b, panel, rows, from, out) }
    }
}
