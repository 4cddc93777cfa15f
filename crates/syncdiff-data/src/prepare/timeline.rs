//! Which source frame stands for each frame of the 25 fps time line.

use syncdiff_media::FrameIndex;
use syncdiff_media::time::{Rational, Rounding, rescale};

/// For model frame k the source frame whose moment is nearest to k / 25 s; the later of two that
/// are equally near. There are as many model frames as the clip's length holds, rounded.
pub(super) fn source_frames(index: &FrameIndex) -> Vec<usize> {
    let num_frames = index.duration().on(Rational::MODEL_BASE, Rounding::Nearest).max(1) as usize;
    (0..num_frames)
        .map(|k| {
            let moment = rescale(k as i64, Rational::MODEL_BASE, index.time_base(), Rounding::Nearest);
            let shown = index.frame_at(moment);
            let distance = |frame: usize| (index.since_start(frame) - moment).abs();
            let next = (shown + 1).min(index.len() - 1);
            if distance(next) <= distance(shown) { next } else { shown }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index(base: (i64, i64), pts: Vec<i64>, last: i64) -> FrameIndex {
        FrameIndex::new(Rational::new(base.0, base.1), pts, last).unwrap()
    }

    #[test]
    fn at_25_fps_every_frame_stands_for_itself() {
        let pts = (0..75).map(|k| 512 * k + 1024).collect();
        assert_eq!(source_frames(&index((1, 12_800), pts, 512)), (0..75).collect::<Vec<_>>());
    }

    #[test]
    fn other_rates_take_the_nearest_frame() {
        for (num, den) in [(30_000, 1001), (30, 1), (50, 1), (24, 1), (15, 1)] {
            let count = 60;
            let index = index((den, num), (0..count).collect(), 1);
            let map = source_frames(&index);
            let expected = (count as f64 * den as f64 / num as f64 * 25.0).round() as usize;
            assert_eq!(map.len(), expected, "{num}/{den}");
            for (k, source) in map.iter().enumerate() {
                let moment = k as f64 / 25.0;
                let off = (*source as f64 * den as f64 / num as f64 - moment).abs();
                let half = 0.5 * den as f64 / num as f64;
                let last = *source + 1 == count as usize;
                assert!(off <= half + 1e-9 || last, "{num}/{den} frame {k}: {off}");
            }
            assert!(map.windows(2).all(|pair| pair[0] <= pair[1]));
        }
    }

    #[test]
    fn a_gap_repeats_the_nearer_side() {
        let index = index((1, 1000), vec![0, 40, 240, 280], 40);
        assert_eq!(source_frames(&index), [0, 1, 1, 1, 2, 2, 2, 3]);
    }
}
