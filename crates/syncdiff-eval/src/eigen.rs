//! Eigenvalues and eigenvectors of symmetric matrices.
//!
//! # Source
//! EISPACK's `tred2` and `tql2` (Householder's reduction to three diagonals, then QL with implicit shifts), in the
//! arrangement of JAMA (public domain).

/// A symmetric matrix as `vectors * diag(values) * vectors^T`.
pub(crate) struct SymmetricEigen {
    /// Eigenvalues, in no order.
    pub(crate) values: Vec<f64>,
    /// Eigenvectors of length 1, one to an entry.
    pub(crate) vectors: Vec<Vec<f64>>,
}

/// QL needs about two rounds for each eigenvalue; more than this would not end at all.
const MAX_ROUNDS: usize = 200;

impl SymmetricEigen {
    /// Decomposes; `None` when the values are not finite. Only the lower triangle is read.
    ///
    /// # Shapes
    /// matrix: size * size, row-major
    pub(crate) fn new(matrix: &[f64], size: usize) -> Option<Self> {
        if size == 0 || matrix.iter().any(|value| !value.is_finite()) {
            return (size == 0).then(|| Self { values: Vec::new(), vectors: Vec::new() });
        }
        // Columns are kept contiguous: entry [j][k] is row k of column j.
        let mut columns: Vec<Vec<f64>> =
            (0..size).map(|j| (0..size).map(|k| matrix[k.max(j) * size + k.min(j)]).collect()).collect();
        let (mut values, mut beside) = tridiagonal(&mut columns);
        ql(&mut values, &mut beside, &mut columns)?;
        Some(Self { values, vectors: columns })
    }

    /// The square root of a matrix whose eigenvalues are not negative, row-major; rounding below zero counts as zero.
    pub(crate) fn square_root(&self) -> Vec<f64> {
        let size = self.values.len();
        let mut root = vec![0.0; size * size];
        for (value, vector) in self.values.iter().zip(&self.vectors) {
            let scale = value.max(0.0).sqrt();
            for (row, a) in root.chunks_exact_mut(size).zip(vector) {
                row.iter_mut().zip(vector).for_each(|(entry, b)| *entry += scale * a * b);
            }
        }
        root
    }
}

/// Householder's reduction. Returns the diagonal and, from index 1, what stands beside it; `v` becomes the
/// transformation, column by column.
fn tridiagonal(v: &mut [Vec<f64>]) -> (Vec<f64>, Vec<f64>) {
    let n = v.len();
    let mut d: Vec<f64> = (0..n).map(|j| v[j][n - 1]).collect();
    let mut e = vec![0.0; n];
    for i in (1..n).rev() {
        let scale: f64 = d[..i].iter().map(|value| value.abs()).sum();
        let mut h = 0.0;
        if scale == 0.0 {
            e[i] = d[i - 1];
            for j in 0..i {
                d[j] = v[j][i - 1];
                v[j][i] = 0.0;
                v[i][j] = 0.0;
            }
        } else {
            d[..i].iter_mut().for_each(|value| *value /= scale);
            h = d[..i].iter().map(|value| value * value).sum();
            let f = d[i - 1];
            let g = if f > 0.0 { -f64::sqrt(h) } else { h.sqrt() };
            e[i] = scale * g;
            h -= f * g;
            d[i - 1] = f - g;
            e[..i].fill(0.0);
            for j in 0..i {
                let f = d[j];
                v[i][j] = f;
                let mut g = e[j] + v[j][j] * f;
                for k in j + 1..i {
                    g += v[j][k] * d[k];
                    e[k] += v[j][k] * f;
                }
                e[j] = g;
            }
            e[..i].iter_mut().for_each(|value| *value /= h);
            let f: f64 = e[..i].iter().zip(&d).map(|(a, b)| a * b).sum();
            let half = f / (h + h);
            e[..i].iter_mut().zip(&d).for_each(|(value, d)| *value -= half * d);
            for j in 0..i {
                let (f, g) = (d[j], e[j]);
                for k in j..i {
                    v[j][k] -= f * e[k] + g * d[k];
                }
                d[j] = v[j][i - 1];
                v[j][i] = 0.0;
            }
        }
        d[i] = h;
    }
    for i in 0..n - 1 {
        v[i][n - 1] = v[i][i];
        v[i][i] = 1.0;
        let h = d[i + 1];
        if h != 0.0 {
            let (before, after) = v.split_at_mut(i + 1);
            let axis = &after[0][..=i];
            for column in before {
                let g: f64 = axis.iter().zip(&*column).map(|(a, b)| a * b).sum();
                column.iter_mut().zip(axis).for_each(|(entry, a)| *entry -= g * (a / h));
            }
        }
        v[i + 1][..=i].fill(0.0);
    }
    for j in 0..n {
        d[j] = v[j][n - 1];
        v[j][n - 1] = 0.0;
    }
    v[n - 1][n - 1] = 1.0;
    e[0] = 0.0;
    (d, e)
}

/// QL with implicit shifts on the three diagonals; `None` when it does not settle.
fn ql(d: &mut [f64], e: &mut [f64], v: &mut [Vec<f64>]) -> Option<()> {
    let n = d.len();
    e.rotate_left(1);
    let (mut shift, mut largest) = (0.0, 0.0f64);
    for l in 0..n {
        largest = largest.max(d[l].abs() + e[l].abs());
        let negligible = f64::EPSILON * largest;
        // The last entry beside the diagonal is zero, so that there is always such an index.
        let m = (l..n).find(|m| e[*m].abs() <= negligible)?;
        let mut rounds = 0;
        while m > l && (rounds == 0 || e[l].abs() > negligible) {
            rounds += 1;
            if rounds > MAX_ROUNDS {
                return None;
            }
            let g = d[l];
            let p = (d[l + 1] - g) / (2.0 * e[l]);
            let r = p.hypot(1.0).copysign(p);
            d[l] = e[l] / (p + r);
            d[l + 1] = e[l] * (p + r);
            let (next, h) = (d[l + 1], g - d[l]);
            d[l + 2..].iter_mut().for_each(|value| *value -= h);
            shift += h;
            let (mut p, e_next) = (d[m], e[l + 1]);
            let (mut c, mut c2, mut c3) = (1.0, 1.0, 1.0);
            let (mut s, mut s2) = (0.0, 0.0);
            for i in (l..m).rev() {
                (c3, c2, s2) = (c2, c, s);
                let (g, h, r) = (c * e[i], c * p, f64::hypot(p, e[i]));
                e[i + 1] = s * r;
                (s, c) = (e[i] / r, p / r);
                p = c * d[i] - s * g;
                d[i + 1] = h + s * (c * g + s * d[i]);
                let (left, right) = v.split_at_mut(i + 1);
                for (a, b) in left[i].iter_mut().zip(&mut right[0]) {
                    (*a, *b) = (c * *a - s * *b, s * *a + c * *b);
                }
            }
            p = -s * s2 * c3 * e_next * e[l] / next;
            e[l] = s * p;
            d[l] = c * p;
        }
        d[l] += shift;
        e[l] = 0.0;
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(seed: u64, count: usize) -> Vec<f64> {
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 11) as f64 / (1u64 << 53) as f64 - 0.5
        };
        (0..count).map(|_| next()).collect()
    }

    fn product(a: &[f64], b: &[f64], n: usize) -> Vec<f64> {
        (0..n * n).map(|at| (0..n).map(|k| a[at / n * n + k] * b[k * n + at % n]).sum()).collect()
    }

    fn close(a: &[f64], b: &[f64], tolerance: f64) {
        for (a, b) in a.iter().zip(b) {
            assert!((a - b).abs() <= tolerance, "{a} {b}");
        }
    }

    #[test]
    fn the_square_root_squared_is_the_matrix() {
        for n in [1usize, 2, 3, 7, 40] {
            // x x^T of half the rank for the larger ones: half of the eigenvalues are zero.
            let width = n.div_ceil(2);
            let x = noise(n as u64, n * width);
            let square: Vec<f64> =
                (0..n * n).map(|at| (0..width).map(|k| x[at / n * width + k] * x[at % n * width + k]).sum()).collect();
            let eigen = SymmetricEigen::new(&square, n).unwrap();
            assert_eq!(eigen.values.iter().filter(|value| **value > 1e-9).count(), width);
            // A zero eigenvalue is found to about 1e-16; its root is 1e-8, its square that again.
            let root = eigen.square_root();
            close(&product(&root, &root, n), &square, 1e-12);
            let trace: f64 = (0..n).map(|i| square[i * n + i]).sum();
            assert!((eigen.values.iter().sum::<f64>() - trace).abs() < 1e-12 * n as f64);
        }
    }

    #[test]
    fn diagonal_and_empty_matrices() {
        let eigen = SymmetricEigen::new(&[3.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 2.0], 3).unwrap();
        let mut values = eigen.values;
        values.sort_by(f64::total_cmp);
        assert_eq!(values, [0.0, 2.0, 3.0]);
        assert!(SymmetricEigen::new(&[], 0).unwrap().values.is_empty());
        assert!(SymmetricEigen::new(&[f64::NAN], 1).is_none());
    }
}
