//! Series over time.

use crate::faces::Lips;

/// Largest lag at which lip openings are compared, in frames.
pub const MOST_LAG: usize = 3;

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

/// Standard deviation; no number without values.
pub fn deviation(values: &[f64]) -> f64 {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    (values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n).sqrt()
}

/// Mean distance of lip landmarks that belong together, in eye distances of the first series, over frames in which both
/// show a face.
pub(crate) fn landmark_distance(truth: &[Option<Lips>], ours: &[Option<Lips>]) -> Option<f64> {
    let frames = truth.iter().zip(ours).filter_map(|(a, b)| Some((a.as_ref()?, b.as_ref()?)));
    mean(frames.map(|(a, b)| {
        let apart = a.points.iter().zip(&b.points).map(|(a, b)| length([a[0] - b[0], a[1] - b[1]]));
        apart.sum::<f64>() / (a.points.len() as f64 * eyes(a))
    }))
}

/// How much lip landmarks tremble: mean length of their second difference over time, in eye distances, over runs of
/// three frames with a face. Even motion gives 0.
pub(crate) fn jitter(lips: &[Option<Lips>]) -> Option<f64> {
    let runs = lips.windows(3).filter_map(|run| match run {
        [Some(a), Some(b), Some(c)] => Some((a, b, c)),
        _ => None,
    });
    mean(runs.map(|(a, b, c)| {
        let bend = |i: usize| {
            let second = |axis: usize| a.points[i][axis] - 2.0 * b.points[i][axis] + c.points[i][axis];
            length([second(0), second(1)])
        };
        (0..b.points.len()).map(bend).sum::<f64>() / (b.points.len() as f64 * eyes(b))
    }))
}

fn length([x, y]: [f32; 2]) -> f64 {
    f64::from(x).hypot(f64::from(y))
}

fn eyes(lips: &Lips) -> f64 {
    f64::from(lips.eye_distance_px.max(f32::MIN_POSITIVE))
}

fn mean(values: impl Iterator<Item = f64>) -> Option<f64> {
    let (sum, count) = values.fold((0.0, 0), |(sum, count), value| (sum + value, count + 1));
    (count > 0).then(|| sum / f64::from(count))
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

    fn lips_at(x: f32, y: f32) -> Option<Lips> {
        let points = std::array::from_fn(|i| [x + i as f32, y]);
        Some(Lips { points, eye_distance_px: 50.0, opening: 0.0 })
    }

    #[test]
    fn jitter_is_bend_and_not_motion() {
        let even: Vec<_> = (0..6).map(|t| lips_at(3.0 * t as f32, -t as f32)).collect();
        assert_eq!(jitter(&even), Some(0.0));
        let shaken: Vec<_> = (0..6).map(|t| lips_at((t % 2) as f32, 0.0)).collect();
        // Every second difference is 2 pixels of 50.
        assert!((jitter(&shaken).unwrap() - 0.04).abs() < 1e-9);
        assert_eq!(jitter(&[lips_at(0.0, 0.0), None, lips_at(1.0, 0.0), lips_at(2.0, 0.0)]), None);
    }

    #[test]
    fn landmark_distance_is_in_eye_distances() {
        let truth = [lips_at(0.0, 0.0), None, lips_at(0.0, 0.0)];
        let ours = [lips_at(3.0, 4.0), lips_at(9.0, 9.0), lips_at(0.0, 0.0)];
        assert!((landmark_distance(&truth, &ours).unwrap() - 0.05).abs() < 1e-9);
        assert_eq!(landmark_distance(&truth[1..2], &ours), None);
    }

    #[test]
    fn shift_is_half_the_clip() {
        assert_eq!(shifted(&[0.0, 1.0, 2.0, 3.0]), [2.0, 3.0, 0.0, 1.0]);
    }
}
