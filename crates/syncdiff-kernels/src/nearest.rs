//! Nearest codebook row of each point: the quantiser's search.

use crate::simd::dispatch;
use rayon::prelude::*;

const LANES: usize = 16;

dispatch! {
    /// Index of the smallest `norms[j] - 2 p . code_j`; the first one wins a tie. `codes` is [dim][rows padded].
    fn nearest_one(point: &[f32], codes: &[f32], norms: &[f32]) -> u32 {
        let rows = norms.len();
        let mut best = [f32::INFINITY; LANES];
        let mut at = [0u32; LANES];
        for (block, norms) in norms.as_chunks::<LANES>().0.iter().enumerate() {
            let mut distance = *norms;
            for (d, &p) in point.iter().enumerate() {
                let from = d * rows + block * LANES;
                let code: &[f32; LANES] = codes[from..from + LANES].try_into().expect("a whole block");
                for (value, &c) in distance.iter_mut().zip(code) {
                    *value -= 2.0 * p * c;
                }
            }
            for lane in 0..LANES {
                let closer = distance[lane] < best[lane];
                best[lane] = if closer { distance[lane] } else { best[lane] };
                at[lane] = if closer { block as u32 } else { at[lane] };
            }
        }
        let mut winner = (f32::INFINITY, u32::MAX);
        for lane in 0..LANES {
            let candidate = (best[lane], at[lane] * LANES as u32 + lane as u32);
            if candidate.0 < winner.0 || (candidate.0 == winner.0 && candidate.1 < winner.1) {
                winner = candidate;
            }
        }
        winner.1
    }
}

/// For each point the index of the nearest row of `codebook` in Euclidean distance.
///
/// # Shapes
/// points: [n, dim] row-major, codebook: [rows, dim] row-major -> n indices
pub fn nearest_rows(points: &[f32], codebook: &[f32], dim: usize) -> Vec<u32> {
    let rows = codebook.len() / dim;
    let padded = rows.next_multiple_of(LANES);
    let mut codes = vec![0f32; dim * padded];
    // A padding row is never nearest.
    let mut norms = vec![f32::INFINITY; padded];
    for (j, code) in codebook.chunks_exact(dim).enumerate() {
        norms[j] = code.iter().map(|c| c * c).sum();
        for (d, &c) in code.iter().enumerate() {
            codes[d * padded + j] = c;
        }
    }
    points.par_chunks_exact(dim).with_min_len(32).map(|point| nearest_one(point, &codes, &norms)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_nearest_row() {
        let codebook: Vec<f32> = (0..37 * 3).map(|i| ((i * 7919) % 101) as f32 / 50.0 - 1.0).collect();
        let points: Vec<f32> = (0..50 * 3).map(|i| ((i * 104_729) % 97) as f32 / 48.0 - 1.0).collect();
        let found = nearest_rows(&points, &codebook, 3);
        for (point, &index) in points.chunks(3).zip(&found) {
            let distance = |row: &[f32]| row.iter().zip(point).map(|(a, b)| (a - b) * (a - b)).sum::<f32>();
            let best = codebook.chunks(3).map(distance).fold(f32::INFINITY, f32::min);
            let ours = distance(&codebook[index as usize * 3..index as usize * 3 + 3]);
            assert!(ours <= best + 1e-5, "{ours} against {best}");
        }
    }
}
