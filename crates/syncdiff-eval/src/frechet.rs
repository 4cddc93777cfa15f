//! Fréchet distance between two sets of features: FID, when the features are those of Inception.
//!
//! # Source
//! pytorch-fid `fid_score.py` (`calculate_frechet_distance`). It takes the root of a product that is not symmetric;
//! here that of `sqrt(A) B sqrt(A)`, which has the same trace and needs no correction for singular matrices.

use crate::eigen::SymmetricEigen;
use crate::error::{EvalError, EvalResult};

/// Mean and covariance of features.
#[derive(Clone, Debug, PartialEq)]
pub struct FeatureStatistics {
    mean: Vec<f64>,
    /// dim * dim, row-major.
    covariance: Vec<f64>,
}

impl FeatureStatistics {
    /// Of row-major features, one row of `dim` values to a picture; the covariance is divided by rows - 1.
    ///
    /// # Errors
    /// [`EvalError::Unequal`] for fewer than two rows, or a length that is no multiple of `dim`.
    pub fn of(features: &[f32], dim: usize) -> EvalResult<Self> {
        if dim == 0 || !features.len().is_multiple_of(dim) || features.len() / dim < 2 {
            let detail = format!("{} values in rows of {dim}: give at least two whole rows", features.len());
            return Err(EvalError::Unequal { what: "features", detail });
        }
        let count = (features.len() / dim) as f64;
        let mut mean = vec![0.0; dim];
        for row in features.chunks_exact(dim) {
            mean.iter_mut().zip(row).for_each(|(sum, value)| *sum += f64::from(*value));
        }
        mean.iter_mut().for_each(|sum| *sum /= count);
        let mut covariance = vec![0.0; dim * dim];
        for row in features.chunks_exact(dim) {
            let centred: Vec<f64> = row.iter().zip(&mean).map(|(value, mean)| f64::from(*value) - mean).collect();
            for (sums, a) in covariance.chunks_exact_mut(dim).zip(&centred) {
                sums.iter_mut().zip(&centred).for_each(|(sum, b)| *sum += a * b);
            }
        }
        covariance.iter_mut().for_each(|sum| *sum /= count - 1.0);
        Ok(Self { mean, covariance })
    }

    fn trace(&self) -> f64 {
        self.covariance.iter().step_by(self.mean.len() + 1).sum()
    }
}

/// |mean difference|^2 + tr(A + B - 2 sqrt(A B)).
///
/// # Errors
/// [`EvalError::Unequal`] for features of different length, or that are not finite.
pub fn frechet_distance(a: &FeatureStatistics, b: &FeatureStatistics) -> EvalResult<f64> {
    let dim = a.mean.len();
    if dim != b.mean.len() {
        let detail = format!("{dim} values against {}", b.mean.len());
        return Err(EvalError::Unequal { what: "features", detail });
    }
    let not_finite = || {
        let detail = "some are infinite or no numbers: leave those pictures out".to_owned();
        EvalError::Unequal { what: "features", detail }
    };
    let root = SymmetricEigen::new(&a.covariance, dim).ok_or_else(not_finite)?.square_root();
    let product = multiply(&multiply(&root, &b.covariance, dim), &root, dim);
    let eigen = SymmetricEigen::new(&product, dim).ok_or_else(not_finite)?;
    let common: f64 = eigen.values.iter().map(|value| value.max(0.0).sqrt()).sum();
    let apart: f64 = a.mean.iter().zip(&b.mean).map(|(x, y)| (x - y).powi(2)).sum();
    Ok(apart + a.trace() + b.trace() - 2.0 * common)
}

/// Row-major product of square matrices.
fn multiply(a: &[f64], b: &[f64], size: usize) -> Vec<f64> {
    let mut result = vec![0.0; size * size];
    for (sums, row) in result.chunks_exact_mut(size).zip(a.chunks_exact(size)) {
        for (scale, entries) in row.iter().zip(b.chunks_exact(size)) {
            sums.iter_mut().zip(entries).for_each(|(sum, entry)| *sum += scale * entry);
        }
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_dimension_in_closed_form() {
        let a = FeatureStatistics::of(&[-1.0, 1.0], 1).unwrap(); // mean 0, variance 2
        let b = FeatureStatistics::of(&[1.0, 3.0, 5.0], 1).unwrap(); // mean 3, variance 4
        let expected = 9.0 + (2f64.sqrt() - 2.0).powi(2);
        assert!((frechet_distance(&a, &b).unwrap() - expected).abs() < 1e-12);
        assert!(frechet_distance(&a, &a).unwrap().abs() < 1e-12);
    }

    #[test]
    fn single_rows_unequal_lengths_and_infinities_are_refused() {
        assert!(FeatureStatistics::of(&[1.0, 2.0], 2).is_err());
        assert!(FeatureStatistics::of(&[1.0, 2.0, 3.0], 2).is_err());
        let a = FeatureStatistics::of(&[0.0, 1.0], 1).unwrap();
        let b = FeatureStatistics::of(&[0.0, 1.0, 2.0, 3.0], 2).unwrap();
        assert!(frechet_distance(&a, &b).unwrap_err().to_string().contains("1 values against 2"));
        let c = FeatureStatistics::of(&[0.0, f32::INFINITY], 1).unwrap();
        assert!(frechet_distance(&a, &c).is_err());
    }
}
