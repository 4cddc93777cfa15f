//! The exact time stamps of a clip's frames, a few bytes a frame.

use crate::error::MediaError;
use crate::info::VideoInfo;
use crate::time::{Rational, Rounding, Time, rescale};

/// Time stamps of all frames of a clip, as decoded, strictly rising.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FrameIndex {
    time_base: Rational,
    pts: Vec<i64>,
    last_duration: i64,
    still: bool,
}

impl FrameIndex {
    /// Takes the time stamps of a clip and how long its last frame is shown, in ticks.
    ///
    /// # Errors
    /// [`MediaError::Internal`] without frames, with time stamps that do not rise, or a length or
    /// base that is not above zero.
    pub fn new(time_base: Rational, pts: Vec<i64>, last_duration: i64) -> Result<Self, MediaError> {
        let wrong = |detail: String| Err(MediaError::Internal { stage: "index", detail });
        if pts.is_empty() || last_duration < 1 || time_base.num < 1 || time_base.den < 1 {
            return wrong(format!("{} frames on base {time_base}, the last {last_duration} ticks long", pts.len()));
        }
        if let Some(at) = pts.windows(2).position(|pair| pair[1] <= pair[0]) {
            return wrong(format!("time stamps {} and {} at frame {at}", pts[at], pts[at + 1]));
        }
        Ok(FrameIndex { time_base, pts, last_duration, still: false })
    }

    /// One picture that is shown again and again, `rate` times a second.
    ///
    /// # Errors
    /// [`MediaError::Parameter`] unless the rate is between 1 and 240.
    pub fn still(rate: Rational) -> Result<Self, MediaError> {
        let inside = rate.cmp_value(Rational::new(1, 1)).is_ge() && rate.cmp_value(Rational::new(240, 1)).is_le();
        if !inside {
            return Err(MediaError::Parameter {
                stage: "still picture",
                detail: format!("the frame rate is {rate}; allowed are 1 to 240 frames a second"),
            });
        }
        let time_base = rate.recip();
        Ok(FrameIndex { time_base, pts: vec![0], last_duration: 1, still: true })
    }

    /// Number of frames, at least one.
    #[allow(clippy::len_without_is_empty)] // never empty
    pub fn len(&self) -> usize {
        self.pts.len()
    }

    /// Is it one repeated picture?
    pub fn is_still(&self) -> bool {
        self.still
    }

    /// Seconds of one tick.
    pub fn time_base(&self) -> Rational {
        self.time_base
    }

    /// Time stamp of a frame in the file.
    ///
    /// # Panics
    /// If there is no such frame.
    pub fn pts(&self, frame: usize) -> i64 {
        self.pts[frame]
    }

    /// Ticks from the first frame to this one.
    ///
    /// # Panics
    /// If there is no such frame.
    pub fn since_start(&self, frame: usize) -> i64 {
        self.pts[frame] - self.pts[0]
    }

    /// How long a frame is shown, in ticks.
    ///
    /// # Panics
    /// If there is no such frame.
    pub fn duration_of(&self, frame: usize) -> i64 {
        match self.pts.get(frame + 1) {
            Some(next) => next - self.pts[frame],
            None => self.last_duration,
        }
    }

    /// Length of the clip, to the end of its last frame.
    pub fn duration(&self) -> Time {
        let ticks = self.pts[self.pts.len() - 1] - self.pts[0] + self.last_duration;
        Time::new(ticks, self.time_base)
    }

    /// Frames a second, over the whole clip.
    pub fn average_rate(&self) -> Rational {
        let duration = self.duration();
        let num = i128::from(self.pts.len() as i64) * i128::from(self.time_base.den);
        let den = i128::from(duration.ticks) * i128::from(self.time_base.num);
        match (i64::try_from(num), i64::try_from(den)) {
            (Ok(num), Ok(den)) => Rational::new(num, den).reduced(),
            _ => Rational::new((num / (den >> 20).max(1)) as i64, 1 << 20).reduced(),
        }
    }

    /// Do the frames leave an even grid by more than the rounding of one tick?
    pub fn is_variable_rate(&self) -> bool {
        let gaps = self.pts.len() as i64 - 1;
        if gaps < 2 {
            return false;
        }
        let span = self.since_start(self.pts.len() - 1);
        let grid = Rational::new(span, gaps);
        (0..self.pts.len()).any(|frame| {
            let even = rescale(frame as i64, grid, Rational::new(1, 1), Rounding::Nearest);
            (self.since_start(frame) - even).abs() > 1
        })
    }

    /// The frame that is shown at a moment, counted in ticks from the first frame.
    pub fn frame_at(&self, ticks_since_start: i64) -> usize {
        let moment = ticks_since_start.saturating_add(self.pts[0]);
        self.pts.partition_point(|pts| *pts <= moment).saturating_sub(1)
    }
}

/// Builds the index at the end of a decoding pass: the last frame lasts to the end that the header
/// promises where that is believable, else as long as a typical frame.
pub(crate) fn index_of_pass(video: &VideoInfo, pts: Vec<i64>) -> Result<FrameIndex, MediaError> {
    let mut gaps: Vec<i64> = pts.windows(2).map(|pair| pair[1] - pair[0]).collect();
    gaps.sort_unstable();
    let nominal = rescale(1, video.average_rate.recip(), video.time_base, Rounding::Nearest);
    let typical = gaps.get(gaps.len() / 2).copied().unwrap_or(nominal).max(1);
    let longest = gaps.last().copied().unwrap_or(typical).max(typical.saturating_mul(2));
    let promised = match (video.duration, pts.last()) {
        (Some(duration), Some(last)) => video.start + duration - last,
        _ => 0,
    };
    let last = if (1..=longest).contains(&promised) { promised } else { typical };
    FrameIndex::new(video.time_base, pts, last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_and_rates_follow_the_time_stamps() {
        let base = Rational::new(1, 1000);
        let index = FrameIndex::new(base, vec![100, 140, 200, 210], 40).unwrap();
        assert_eq!((0..4).map(|i| index.duration_of(i)).collect::<Vec<_>>(), [40, 60, 10, 40]);
        assert_eq!(index.duration().millis(), 150);
        assert_eq!(index.average_rate(), Rational::new(80, 3));
        assert!(index.is_variable_rate());
        assert_eq!(index.frame_at(99), 1);
        assert_eq!(index.frame_at(100), 2);
        assert_eq!(index.frame_at(-5), 0);
    }

    #[test]
    fn milliseconds_of_an_even_rate_are_not_variable() {
        let base = Rational::new(1, 1000);
        let pts = (0..300).map(|i| (i * 1001 + 15) / 30).collect();
        assert!(!FrameIndex::new(base, pts, 33).unwrap().is_variable_rate());
    }

    #[test]
    fn impossible_indexes_are_refused() {
        let base = Rational::new(1, 25);
        assert!(FrameIndex::new(base, vec![], 1).is_err());
        assert!(FrameIndex::new(base, vec![0, 0], 1).is_err());
        assert!(FrameIndex::new(base, vec![0], 0).is_err());
        assert!(FrameIndex::still(Rational::new(0, 1)).is_err());
        assert!(FrameIndex::still(Rational::new(241, 1)).is_err());
    }
}
