//! Series over time.

/// Pearson's correlation of two series; `None` when either is constant or has fewer than three values.
pub fn correlation(a: &[f64], b: &[f64]) -> Option<f64> {
    let n = a.len().min(b.len());
    if n < 3 {
        return None;
    }
    let mean = |x: &[f64]| x[..n].iter().sum::<f64>() / n as f64;
    let (ma, mb) = (mean(a), mean(b));
    let (mut aa, mut bb, mut ab) = (0.0, 0.0, 0.0);
    for (x, y) in a[..n].iter().zip(&b[..n]) {
        aa += (x - ma).powi(2);
        bb += (y - mb).powi(2);
        ab += (x - ma) * (y - mb);
    }
    (aa > 1e-12 && bb > 1e-12).then(|| ab / (aa * bb).sqrt())
}

/// The frames in which both series have a value.
pub fn paired(a: &[Option<f64>], b: &[Option<f64>]) -> (Vec<f64>, Vec<f64>) {
    a.iter().zip(b).filter_map(|(a, b)| Some(((*a)?, (*b)?))).unzip()
}

/// Largest correlation over moves of `b` by up to `most` frames either way, and the move: positive where `b` lags.
/// Even unrelated series correlate at the best of several moves: compare with such a pair.
pub fn best_correlation(a: &[Option<f64>], b: &[Option<f64>], most: usize) -> Option<(f64, isize)> {
    let at = |lag: isize| {
        let skip = |series: &'_ [Option<f64>], n: isize| series[(n.max(0) as usize).min(series.len())..].to_vec();
        let (a, b) = paired(&skip(a, -lag), &skip(b, lag));
        correlation(&a, &b).map(|r| (r, lag))
    };
    let most = most as isize;
    (-most..=most).filter_map(at).max_by(|a, b| a.0.total_cmp(&b.0))
}

/// The series from another time of the same clip: rolled by half its length.
pub fn shifted(a: &[f64]) -> Vec<f64> {
    let mut b = a.to_vec();
    b.rotate_left(a.len() / 2);
    b
}

/// Mean absolute change of the lip opening from one frame to the next, over neighbours that both are `chosen` and show
/// a face; `None` without such a pair.
pub fn motion(opening: &[Option<f64>], chosen: &[bool]) -> Option<f64> {
    let pairs = opening.windows(2).zip(chosen.windows(2));
    let changes: Vec<f64> = pairs
        .filter(|(_, chosen)| chosen[0] && chosen[1])
        .filter_map(|(opening, _)| Some((opening[1]? - opening[0]?).abs()))
        .collect();
    (!changes.is_empty()).then(|| changes.iter().sum::<f64>() / changes.len() as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn correlation_of_lines_and_constants() {
        assert!((correlation(&[0.0, 1.0, 2.0], &[3.0, 5.0, 7.0]).unwrap() - 1.0).abs() < 1e-12);
        assert!((correlation(&[0.0, 1.0, 2.0], &[3.0, 2.0, 1.0]).unwrap() + 1.0).abs() < 1e-12);
        assert!(correlation(&[1.0, 1.0, 1.0], &[3.0, 2.0, 1.0]).is_none());
        assert!(correlation(&[1.0, 2.0], &[3.0, 2.0]).is_none());
    }

    #[test]
    fn motion_counts_chosen_neighbours_only() {
        let opening = [Some(0.1), Some(0.3), None, Some(0.2), Some(0.1), Some(0.5)];
        assert!((motion(&opening, &[true; 6]).unwrap() - 0.7 / 3.0).abs() < 1e-12);
        assert!((motion(&opening, &[true, true, true, true, true, false]).unwrap() - 0.3 / 2.0).abs() < 1e-12);
        assert_eq!(motion(&opening, &[true, false, true, true, false, false]), None);
    }

    #[test]
    fn the_best_move_is_found_and_named() {
        let wave = |from: isize| -> Vec<Option<f64>> {
            (0..40).map(|t| (t != 7).then(|| ((t as isize + from) as f64 * 0.7).sin())).collect()
        };
        let (r, lag) = best_correlation(&wave(0), &wave(-2), 3).unwrap();
        assert!(r > 0.999 && lag == 2, "{r} {lag}");
        let (r, lag) = best_correlation(&wave(0), &wave(1), 3).unwrap();
        assert!(r > 0.999 && lag == -1, "{r} {lag}");
        assert_eq!(best_correlation(&[Some(1.0); 9], &wave(0), 3), None);
        assert_eq!(best_correlation(&wave(0)[..2], &wave(0), 3), None);
    }

    #[test]
    fn shift_is_half_the_clip() {
        assert_eq!(shifted(&[0.0, 1.0, 2.0, 3.0]), [2.0, 3.0, 0.0, 1.0]);
    }
}
