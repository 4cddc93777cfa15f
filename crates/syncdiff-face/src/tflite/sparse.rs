//! Sparse constant weights to dense ones.
//!
//! # Source
//! The sparsity encoding of the TFLite schema (`SparsityParameters`: traversal order, block map and
//! one dense or compressed-row dimension each), decoded as in TensorFlow's
//! `lite/kernels/internal/utils/sparsity_format_converter.cc`.

use super::flatbuffer::{Table, Wrong};
use super::model::MAX_ELEMENTS;

enum Level {
    Dense(usize),
    Rows { segments: Vec<usize>, indices: Vec<usize> },
}

/// How the stored values of a sparse tensor lie in the dense one.
pub(super) struct Sparsity {
    traversal: Vec<usize>,
    block_dim: Vec<usize>,
    block_size: Vec<usize>,
    levels: Vec<Level>,
    shape: Vec<usize>,
}

fn index_vector(meta: &Table, slot: usize) -> Result<Vec<usize>, Wrong> {
    let kind = meta.i8(slot, 0)?;
    let Some(table) = meta.table(slot + 1)? else { return Ok(Vec::new()) };
    match kind {
        1 => table
            .i32s(0)?
            .into_iter()
            .map(|v| usize::try_from(v).map_err(|_| "a negative sparse index".into()))
            .collect(),
        2 => Ok(table.u16s(0)?.into_iter().map(usize::from).collect()),
        3 => Ok(table.u8s(0)?.iter().copied().map(usize::from).collect()),
        other => Err(format!("unknown kind {other} of sparse index vector")),
    }
}

impl Sparsity {
    pub(super) fn parse(table: &Table, shape: &[usize]) -> Result<Self, Wrong> {
        let unsigned = |v: Vec<i32>| -> Result<Vec<usize>, Wrong> {
            v.into_iter().map(|x| usize::try_from(x).map_err(|_| "a negative sparse dimension".into())).collect()
        };
        let traversal = unsigned(table.i32s(0)?)?;
        let block_dim = unsigned(table.i32s(1)?)?;
        let metas = table.tables(2)?;
        let rank = shape.len();
        let depth = rank + block_dim.len();
        let mut seen = traversal.clone();
        seen.sort_unstable();
        if depth > 8
            || metas.len() != depth
            || seen != (0..depth).collect::<Vec<_>>()
            || traversal[..rank].iter().any(|&d| d >= rank)
            || block_dim.iter().any(|&d| d >= rank)
        {
            return Err("the sparsity description contradicts itself".into());
        }
        let mut block_size = vec![1; block_dim.len()];
        let mut levels = Vec::with_capacity(depth);
        for (meta, &dim) in metas.iter().zip(&traversal) {
            let level = match meta.i8(0, 0)? {
                0 => {
                    let size = usize::try_from(meta.i32(1, 0)?).map_err(|_| "a negative sparse dimension")?;
                    Level::Dense(size)
                }
                1 => Level::Rows { segments: index_vector(meta, 2)?, indices: index_vector(meta, 4)? },
                other => return Err(format!("unknown sparse dimension format {other}")),
            };
            if dim >= rank {
                let Level::Dense(size) = level else {
                    return Err("a sparse block that is itself compressed".into());
                };
                block_size[dim - rank] = size;
            }
            levels.push(level);
        }
        Ok(Sparsity { traversal, block_dim, block_size, levels, shape: shape.to_vec() })
    }

    /// The dense tensor; what is not stored is 0.
    pub(super) fn densify(&self, stored: &[f32]) -> Result<Vec<f32>, Wrong> {
        let count: usize = self.shape.iter().product();
        let mut dense = vec![0.0; count];
        let mut walk = Walk { stored, next: 0, steps: 0, index: vec![0; self.levels.len()] };
        self.visit(0, 0, &mut walk, &mut dense)?;
        Ok(dense)
    }

    fn visit(&self, level: usize, row: usize, walk: &mut Walk<'_>, dense: &mut [f32]) -> Result<(), Wrong> {
        walk.steps += 1;
        if walk.steps > 4 * MAX_ELEMENTS {
            return Err("the sparsity description is endless".into());
        }
        match self.levels.get(level) {
            None => {
                let value = walk.stored.get(walk.next).ok_or("too few sparse values")?;
                walk.next += 1;
                let at = self.flat_index(&walk.index)?;
                dense[at] = *value;
                Ok(())
            }
            Some(Level::Dense(size)) => (0..*size).try_for_each(|i| {
                walk.index[level] = i;
                self.visit(level + 1, row.saturating_mul(*size).saturating_add(i), walk, dense)
            }),
            Some(Level::Rows { segments, indices }) => {
                let bounds = segments.get(row..).and_then(|s| s.first_chunk::<2>());
                let &[from, to] = bounds.ok_or("a sparse row is missing")?;
                (from..to).try_for_each(|i| {
                    walk.index[level] = *indices.get(i).ok_or("a sparse index is missing")?;
                    self.visit(level + 1, i, walk, dense)
                })
            }
        }
    }

    fn flat_index(&self, index: &[usize]) -> Result<usize, Wrong> {
        let rank = self.shape.len();
        let mut place = [0usize; 8];
        for (&dim, &i) in self.traversal.iter().zip(index) {
            if dim < rank {
                place[dim] = i;
            } else {
                let block = dim - rank;
                let to = &mut place[self.block_dim[block]];
                *to = to.saturating_mul(self.block_size[block]).saturating_add(i);
            }
        }
        let mut flat = 0;
        for (&p, &size) in place.iter().zip(&self.shape) {
            if p >= size {
                return Err(format!("sparse index {p} in a dimension of {size}"));
            }
            flat = flat * size + p;
        }
        Ok(flat)
    }
}

struct Walk<'a> {
    stored: &'a [f32],
    next: usize,
    steps: usize,
    index: Vec<usize>,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the schema's comment: a 4x4 matrix in 2x2 blocks, rows of blocks compressed.
    #[test]
    fn blocks_land_where_the_schema_says() {
        let sparsity = Sparsity {
            traversal: vec![0, 1, 2, 3],
            block_dim: vec![0, 1],
            block_size: vec![2, 2],
            levels: vec![
                Level::Dense(2),
                Level::Rows { segments: vec![0, 2, 3], indices: vec![0, 1, 1] },
                Level::Dense(2),
                Level::Dense(2),
            ],
            shape: vec![4, 4],
        };
        let stored: Vec<f32> = vec![1., 0., 0., 4., 2., 3., 0., 0., 5., 0., 0., 6.];
        let dense = sparsity.densify(&stored).unwrap();
        assert_eq!(dense, [1., 0., 2., 3., 0., 4., 0., 0., 0., 0., 5., 0., 0., 0., 0., 6.]);
        assert!(sparsity.densify(&stored[..9]).is_err());
    }
}
