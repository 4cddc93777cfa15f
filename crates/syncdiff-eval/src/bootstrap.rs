//! Confidence intervals by drawing the clips anew.
//!
//! # Source
//! Efron 1979, the percentile interval. Clips are drawn, not frames: frames of one clip are no independent witnesses.

use serde::Serialize;

/// Samples that are drawn.
const DRAWS: usize = 2000;
/// Of all draws; the same rows give the same interval.
const SEED: u64 = 0x5eed_0f1d_2024;
/// How many draws lie below, and above, an interval of 95 %.
const TAIL: usize = DRAWS / 40;

/// A statistic and where 95 % of its draws lie.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Interval {
    /// Over the clips as they are.
    pub value: f64,
    /// Of 95 % of the draws, the lower end.
    pub low: f64,
    /// Of 95 % of the draws, the upper end.
    pub high: f64,
}

/// A statistic of `count` clips with its interval; `None` without a clip, or where it is not finite. The statistic is
/// given the indices of the clips, of which some come several times. With one clip the interval has no width.
pub fn bootstrap(count: usize, statistic: impl Fn(&[usize]) -> f64) -> Option<Interval> {
    if count == 0 {
        return None;
    }
    let value = statistic(&(0..count).collect::<Vec<_>>());
    let mut state = SEED;
    let mut chosen = vec![0; count];
    let mut draws: Vec<f64> = (0..DRAWS)
        .map(|_| {
            chosen.iter_mut().for_each(|index| *index = below(&mut state, count));
            statistic(&chosen)
        })
        .filter(|draw| draw.is_finite())
        .collect();
    draws.sort_by(f64::total_cmp);
    // A ratio whose base was not drawn is no number; those draws are left out on both sides alike.
    let tail = TAIL * draws.len() / DRAWS;
    let (low, high) = (*draws.get(tail)?, *draws.get(draws.len() - 1 - tail)?);
    value.is_finite().then_some(Interval { value, low, high })
}

/// A number below `count` from SplitMix64.
fn below(state: &mut u64, count: usize) -> usize {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((u128::from(z ^ (z >> 31)) * count as u128) >> 64) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mean(values: &[f64]) -> impl Fn(&[usize]) -> f64 {
        |chosen| chosen.iter().map(|i| values[*i]).sum::<f64>() / chosen.len() as f64
    }

    #[test]
    fn the_interval_of_a_mean_is_that_of_its_standard_error() {
        // 400 values, half 0 and half 1: the mean is 0.5 with standard error 0.025.
        let values: Vec<f64> = (0..400).map(|i| f64::from(i % 2)).collect();
        let found = bootstrap(values.len(), mean(&values)).unwrap();
        assert_eq!(found.value, 0.5);
        assert!((found.low - (0.5 - 1.96 * 0.025)).abs() < 0.006, "{found:?}");
        assert!((found.high - (0.5 + 1.96 * 0.025)).abs() < 0.006, "{found:?}");
        assert_eq!(bootstrap(values.len(), mean(&values)), Some(found));
    }

    #[test]
    fn one_clip_has_no_width_and_none_no_interval() {
        let one = bootstrap(1, mean(&[3.0])).unwrap();
        assert_eq!((one.low, one.value, one.high), (3.0, 3.0, 3.0));
        assert_eq!(bootstrap(0, mean(&[])), None);
        assert_eq!(bootstrap(1, |_| f64::NAN), None);
    }
}
