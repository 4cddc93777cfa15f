//! What is hidden from the network: spans of sound, and spans of sight that are replaced by other ones.
//!
//! # Source
//! facebookresearch/av_hubert `utils.py` (`compute_mask_indices`) and `hubert.py` (`apply_input_mask` with
//! `masking_type: input`, `selection_type: same_seq`). There the masks of a batch are thinned out to equal numbers of
//! frames, which its tensors need and ours do not; and the last frame can never be hidden, which here it can.

use rand::Rng;
use rand::seq::index::sample;

/// Least number of spans where anything is masked.
const LEAST_SPANS: usize = 2;

/// Which of `len` frames are hidden: spans of `span` frames at different beginnings, as many as would cover `share` of
/// the frames if they did not overlap.
pub(super) fn spans(len: usize, share: f64, span: usize, random: &mut impl Rng) -> Vec<bool> {
    let mut hidden = vec![false; len];
    // Drawn whatever comes of it, so that what is drawn later does not depend on the lengths.
    let rounding: f64 = random.random();
    if share == 0.0 || len == 0 {
        return hidden;
    }
    let span = span.min(len);
    let places = len - span + 1;
    let count = ((share * len as f64 / span as f64 + rounding) as usize).max(LEAST_SPANS).min(places);
    for start in sample(random, places, count) {
        hidden[start..start + span].fill(true);
    }
    hidden
}

/// Which frame is shown in the place of each: its own, or, for each run of hidden ones, those of a stretch of the same
/// clip that begins elsewhere (its last frame again where the stretch would end beyond the clip).
pub(super) fn substituted(hidden: &[bool], random: &mut impl Rng) -> Vec<usize> {
    let len = hidden.len();
    let mut shown: Vec<usize> = (0..len).collect();
    let mut start = 0;
    for run in hidden.chunk_by(|a, b| a == b) {
        if run[0] {
            let end = start + run.len();
            let near = start.saturating_sub(run.len())..end;
            let elsewhere = len - near.len();
            let other = if elsewhere == 0 { 0 } else { random.random_range(0..elsewhere) };
            // The places before the run and those behind it, counted in one row.
            let other = if elsewhere > 0 && other >= near.start { other + near.len() } else { other };
            for (k, frame) in shown[start..end].iter_mut().enumerate() {
                *frame = (other + k).min(len - 1);
            }
        }
        start += run.len();
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    fn runs(hidden: &[bool]) -> Vec<usize> {
        hidden.chunk_by(|a, b| a == b).filter(|run| run[0]).map(<[bool]>::len).collect()
    }

    #[test]
    fn as_much_is_hidden_as_asked_for_in_whole_spans() {
        let mut random = ChaCha8Rng::seed_from_u64(1);
        for (share, span) in [(0.8, 10), (0.3, 5)] {
            let (mut hidden, mut all) = (0, 0);
            for _ in 0..200 {
                let mask = spans(200, share, span, &mut random);
                assert!(runs(&mask).iter().all(|length| *length >= span));
                (hidden, all) = (hidden + mask.iter().filter(|m| **m).count(), all + mask.len());
            }
            // Spans overlap: of spans that begin anywhere, 1 - exp(-share) is covered.
            let found = hidden as f64 / all as f64;
            let expected = 1.0 - (-share).exp();
            assert!((found - expected).abs() < 0.05, "{share}: {found} {expected}");
        }
    }

    #[test]
    fn short_clips_and_a_share_of_nothing() {
        let mut random = ChaCha8Rng::seed_from_u64(2);
        assert_eq!(spans(30, 0.0, 5, &mut random), [false; 30]);
        assert_eq!(spans(4, 0.1, 10, &mut random), [true; 4]);
        assert!(spans(0, 0.5, 10, &mut random).is_empty());
        for _ in 0..50 {
            let mask = spans(40, 0.01, 3, &mut random);
            assert!((4..=6).contains(&mask.iter().filter(|m| **m).count()), "at least two spans");
        }
    }

    #[test]
    fn the_last_frame_may_be_hidden_and_equal_seeds_hide_alike() {
        let last = |seed| spans(29, 0.8, 10, &mut ChaCha8Rng::seed_from_u64(seed))[28];
        assert!((0..100).any(last));
        assert_eq!((0..100).map(last).collect::<Vec<_>>(), (0..100).map(last).collect::<Vec<_>>());
    }

    #[test]
    fn hidden_frames_are_replaced_by_others() {
        let mut random = ChaCha8Rng::seed_from_u64(3);
        for _ in 0..200 {
            let hidden = spans(40, 0.3, 5, &mut random);
            let shown = substituted(&hidden, &mut random);
            for (frame, (other, hidden)) in shown.iter().zip(&hidden).enumerate() {
                assert!(*other < 40 && (frame == *other) != *hidden, "{frame} {other}");
            }
        }
        // Nothing else is there.
        assert_eq!(substituted(&[true; 3], &mut random), [0, 1, 2]);
    }
}
