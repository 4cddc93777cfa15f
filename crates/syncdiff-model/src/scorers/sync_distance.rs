//! How far lips and sound are apart at 31 shifts: the numbers LSE-D, LSE-C and the offset, from embeddings.
//!
//! # Source
//! syncnet_python `SyncNetInstance.py` (`calc_pdist`, the scoring lines of `evaluate`).

use crate::error::{ModelError, ModelResult};

/// Largest shift to either side, in video frames.
pub const MAX_SHIFT: usize = 15;
/// Number of shifts: -15 to 15.
pub const NUM_SHIFTS: usize = 2 * MAX_SHIFT + 1;

/// Added to every difference before it is squared, as `torch.nn.functional.pairwise_distance` does.
const EPS: f64 = 1e-6;

/// Distances of a clip's lips to its sound at all shifts.
#[derive(Clone, Debug, PartialEq)]
pub struct SyncDistances {
    /// Euclidean distances; row i holds lip i against sound i - 15 to i + 15, zeros where there is no sound.
    pub rows: Vec<[f64; NUM_SHIFTS]>,
    /// Mean of the rows.
    pub mean: [f64; NUM_SHIFTS],
}

/// The scores of one clip.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SyncScore {
    /// By how many video frames the sound has to be put off to fit the lips best; positive: the sound comes too early
    /// in the sense of the original's `AV offset`.
    pub offset_frames: i32,
    /// LSE-D: the smallest mean distance over all shifts.
    pub distance: f64,
    /// The mean distance of lips and sound as they are: it grows with the shift between them, where LSE-D finds it.
    pub distance_unmoved: f64,
    /// LSE-C: median minus smallest mean distance.
    pub confidence: f64,
}

impl SyncDistances {
    /// Compares row-major embeddings, one row to a window.
    ///
    /// # Shapes
    /// lip and sound: windows * `dim` values each, the same number of windows
    ///
    /// # Errors
    /// [`ModelError::Parameter`] when there is no window or the sizes do not fit.
    pub fn between(lip: &[f32], sound: &[f32], dim: usize) -> ModelResult<Self> {
        let stage = "sync distance";
        if dim == 0 || lip.is_empty() || !lip.len().is_multiple_of(dim) {
            let allowed = "a clip needs at least one window: six video frames and their sound";
            return Err(ModelError::parameter(stage, "values of the lip embeddings", lip.len(), allowed));
        }
        if lip.len() != sound.len() {
            let allowed = format!("the lips have {}: give both over the same windows", lip.len());
            return Err(ModelError::parameter(stage, "values of the sound embeddings", sound.len(), allowed));
        }
        let silent = vec![0.0; dim];
        let windows = lip.len() / dim;
        let row = |i: usize| {
            let lip = &lip[i * dim..][..dim];
            std::array::from_fn(|shift| {
                let at = (i + shift).checked_sub(MAX_SHIFT).filter(|at| *at < windows);
                distance(lip, at.map_or(&silent[..], |at| &sound[at * dim..][..dim]))
            })
        };
        let rows: Vec<[f64; NUM_SHIFTS]> = (0..windows).map(row).collect();
        let mean = std::array::from_fn(|shift| rows.iter().map(|row| row[shift]).sum::<f64>() / windows as f64);
        Ok(Self { rows, mean })
    }

    /// The scores; of equal smallest distances the first counts.
    pub fn score(&self) -> SyncScore {
        let mut best = 0;
        for (shift, distance) in self.mean.iter().enumerate() {
            if *distance < self.mean[best] {
                best = shift;
            }
        }
        let mut sorted = self.mean;
        sorted.sort_by(f64::total_cmp);
        let distance = self.mean[best];
        SyncScore {
            offset_frames: MAX_SHIFT as i32 - best as i32,
            distance,
            distance_unmoved: self.mean[MAX_SHIFT],
            confidence: sorted[NUM_SHIFTS / 2] - distance,
        }
    }
}

fn distance(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(a, b)| (f64::from(*a) - f64::from(*b) + EPS).powi(2)).sum::<f64>().sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One row of noise for each window.
    fn rows(windows: usize, late_by: i32) -> Vec<f32> {
        let noise = |at: i32| {
            let mixed = |z: u32| (z ^ (z >> 16)).wrapping_mul(0x045d_9f3b);
            (mixed(mixed(at as u32)) >> 8) as f32 / (1 << 24) as f32 - 0.5
        };
        let row = |i: i32| (0..8).map(move |k| noise(8 * i + k));
        (0..windows as i32).flat_map(|i| row(i - late_by)).collect()
    }

    #[test]
    fn the_shift_of_the_sound_is_found_with_its_sign() {
        let lip = rows(40, 0);
        for late_by in [-15, -3, 0, 4, 15] {
            let score = SyncDistances::between(&lip, &rows(40, late_by), 8).unwrap().score();
            assert_eq!(score.offset_frames, -late_by);
            assert!(score.confidence > 0.0);
            let moved = score.distance_unmoved > score.distance;
            assert_eq!(moved, late_by != 0, "{score:?}");
        }
    }

    #[test]
    fn distance_and_confidence_of_a_single_window() {
        // Only shift 0 meets the sound; all others meet zeros at distance 5.
        let score = SyncDistances::between(&[3.0, 4.0], &[3.0, 4.0], 2).unwrap().score();
        assert!((score.distance - EPS * 2f64.sqrt()).abs() < 1e-12, "{score:?}");
        assert!((score.confidence - 5.0).abs() < 1e-5, "{score:?}");
        assert_eq!(score.offset_frames, 0);
    }

    #[test]
    fn no_window_and_unequal_sizes_are_refused() {
        assert!(SyncDistances::between(&[], &[], 4).is_err());
        let error = SyncDistances::between(&[0.0; 8], &[0.0; 4], 4).unwrap_err().to_string();
        assert!(error.contains("sound embeddings = 4") && error.contains("have 8"), "{error}");
    }
}
