//! Rows of weights times columns of pairs, in tiles, on one of the units.

use super::unit::Unit;
use crate::conv::tile::OutPtr;
pub(super) use crate::square::SIDE;
use crate::square::transposed;
use std::ops::Range;

/// Most values of a row in one step: those of a tile.
pub(super) const MAX_INNER: usize = 32;

/// Pairs that are used over and over before others are: half of a second-level cache of 2 MB.
const GROUP_BYTES: usize = 1 << 20;

/// Where a step's values begin, in values of the left and of the right side.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(super) struct Step {
    pub(super) weights: usize,
    pub(super) pairs: usize,
}

/// `out[row, column] = bias[row] + sum over steps and their values of weights * pairs`.
#[derive(Clone, Copy)]
pub(super) struct Product<'a> {
    pub(super) unit: Unit,
    pub(super) weights: &'a [u16],
    /// Values between rows of the weights.
    pub(super) row_stride: usize,
    /// Values of a row in a step: even, at most [`MAX_INNER`].
    pub(super) inner: usize,
    pub(super) steps: &'a [Step],
    /// Between rows of the pairs.
    pub(super) pair_stride: usize,
    /// A value for each row.
    pub(super) bias: &'a [f32],
    pub(super) store: Store,
}

/// How results lie in the output.
#[derive(Clone, Copy, Debug)]
pub(super) enum Store {
    /// The columns of a row beside each other, rows so many values apart.
    Rows(usize),
    /// The rows of a column beside each other, columns so many values apart.
    Columns(usize),
}

/// Some columns.
#[derive(Clone, Copy, Debug)]
pub(super) struct Vector {
    /// Place of the first one's pairs, before a step's own.
    pub(super) from: usize,
    /// Place in the output of the first one's row 0.
    pub(super) to: usize,
    /// How many of the vector's columns are stored.
    pub(super) count: usize,
}

/// One or two tiles of rows times one or two vectors.
pub(super) struct Block<'a> {
    pub(super) rows: [usize; 2],
    pub(super) num_rows: usize,
    pub(super) vectors: &'a [Vector],
    pub(super) bias: &'a Bias,
}

/// Two tiles of rows by two vectors of columns: [row tile][vector][row][column]
#[repr(C, align(64))]
pub(super) struct Results(pub(super) [[[f32; SIDE * SIDE]; 2]; 2]);

/// Bias of two tiles, each value as often as a tile has columns: [tile][row][column]
#[repr(C, align(64))]
pub(super) struct Bias(pub(super) [[f32; SIDE * SIDE]; 2]);

impl Product<'_> {
    /// Rows of a tile.
    pub(super) fn tile_rows(&self) -> usize {
        SIDE.min(self.bias.len())
    }

    /// Panics where a unit would leave its buffers.
    fn check(&self, pairs: &[u32], vectors: &[Vector], rows: &Range<usize>) {
        assert!(self.inner.is_multiple_of(2) && (2..=MAX_INNER).contains(&self.inner), "{} values", self.inner);
        let whole = rows.start + self.tile_rows() <= rows.end && rows.end <= self.bias.len();
        assert!(whole && !self.steps.is_empty(), "rows {rows:?} of {}, {} steps", self.bias.len(), self.steps.len());
        let last_row = (self.bias.len() - 1) * self.row_stride + self.inner;
        let last_pair = (self.inner / 2 - 1) * self.pair_stride + SIDE;
        let furthest = vectors.iter().map(|vector| vector.from).max().unwrap_or(0);
        for step in self.steps {
            assert!(step.weights + last_row <= self.weights.len(), "weights");
            assert!(step.pairs + furthest + last_pair <= pairs.len(), "pairs");
        }
    }

    /// The results of some rows, whose number is that of a tile at least, in some vectors.
    ///
    /// # Safety
    /// `out` is writable wherever the rows and vectors are stored, and no other thread writes there.
    pub(super) unsafe fn run(&self, pairs: &[u32], vectors: &[Vector], rows: Range<usize>, out: OutPtr) {
        self.check(pairs, vectors, &rows);
        #[cfg(target_arch = "x86_64")]
        let _tiles = (self.unit == Unit::Amx).then(|| super::amx::configure(self));
        let side = self.tile_rows();
        let mut results = Results([[[0.0; SIDE * SIDE]; 2]; 2]);
        for vectors in vectors.chunks(self.group()) {
            let mut first = rows.start;
            while first < rows.end {
                // A tile that would reach beyond the last row begins earlier and computes some rows a second time.
                let last = rows.end - side;
                let num_rows = if first + side < rows.end { 2 } else { 1 };
                let tiles = [first.min(last), (first + side).min(last)];
                let mut bias = Bias([[0.0; SIDE * SIDE]; 2]);
                for (bias, row) in bias.0.iter_mut().zip(tiles) {
                    for (to, &value) in bias.as_chunks_mut::<SIDE>().0.iter_mut().zip(&self.bias[row..row + side]) {
                        *to = [value; SIDE];
                    }
                }
                for vectors in vectors.chunks(2) {
                    let block = Block { rows: tiles, num_rows, vectors, bias: &bias };
                    // SAFETY: the product is checked; a unit is only chosen where it is available.
                    unsafe {
                        match self.unit {
                            Unit::Plain => super::plain::block(self, pairs, &block, &mut results),
                            #[cfg(target_arch = "x86_64")]
                            Unit::Vector => super::vector::block(self, pairs, &block, &mut results),
                            #[cfg(target_arch = "x86_64")]
                            Unit::Amx => super::amx::block(self, pairs, &block, &mut results),
                        }
                        self.store(&block, &results, out);
                    }
                }
                first += 2 * side;
            }
        }
    }

    /// Vectors that are taken over all rows before the next ones: so many that their pairs stay in the cache. The taps
    /// of a window share about two thirds of theirs.
    fn group(&self) -> usize {
        let of_vector = self.steps.len() * self.inner / 2 * SIDE * size_of::<u32>() / 3;
        (GROUP_BYTES / of_vector.max(1)).max(2).next_multiple_of(2)
    }

    /// # Safety
    /// As [`Product::run`].
    unsafe fn store(&self, block: &Block<'_>, results: &Results, out: OutPtr) {
        for (tile, &row) in block.rows[..block.num_rows].iter().enumerate() {
            for (results, vector) in results.0[tile].iter().zip(block.vectors) {
                match self.store {
                    Store::Rows(stride) => {
                        for r in 0..self.tile_rows() {
                            // SAFETY: promised by the caller.
                            unsafe {
                                store_row(&results[r * SIDE..], out.0.add(vector.to + (row + r) * stride), vector.count)
                            };
                        }
                    }
                    Store::Columns(stride) => {
                        let turned = transposed(results);
                        for c in 0..vector.count {
                            // SAFETY: promised by the caller.
                            unsafe {
                                store_row(
                                    &turned[c * SIDE..],
                                    out.0.add(vector.to + c * stride + row),
                                    self.tile_rows(),
                                )
                            };
                        }
                    }
                }
            }
        }
    }
}

/// The first `count` values; a whole row without a call.
///
/// # Safety
/// `to` is valid for writing so many values.
#[inline(always)]
unsafe fn store_row(from: &[f32], to: *mut f32, count: usize) {
    let from: &[f32; SIDE] = from[..SIDE].try_into().expect("a row of a tile");
    // SAFETY: promised by the caller; a row has at most so many values.
    unsafe {
        if count == SIDE {
            to.cast::<[f32; SIDE]>().write_unaligned(*from);
        } else {
            to.copy_from_nonoverlapping(from.as_ptr(), count.min(SIDE));
        }
    }
}
