//! How long the output is, and which source frame each of its frames shows.
//!
//! Every output frame lasts as long as its source frame does, so the output keeps the source's own
//! rate, and a variable spacing is mirrored when the clip plays backwards. Output time starts at 0
//! with the first frame of the source, which is also where the speech copy starts.

use std::str::FromStr;

use crate::error::MediaError;
use crate::index::FrameIndex;
use crate::time::{Rational, Rounding, Time, model_frame_at};

/// Longest output in hours; a bound against a wrong header.
pub const MAX_OUTPUT_HOURS: i64 = 24;

/// What decides the length of the output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LengthPolicy {
    /// As long as the speech: a longer video is cut, a shorter one plays back and forth.
    #[default]
    Audio,
    /// As long as the video: longer speech is cut, shorter speech is followed by silence. A still
    /// picture has no length of its own and is shown as long as the speech lasts.
    Video,
    /// As long as the speech; a shorter video starts over.
    Loop,
    /// As long as the speech; a shorter video plays back and forth (what `Audio` does, by name).
    Bounce,
    /// As long as the shorter of the two.
    Cut,
}

impl FromStr for LengthPolicy {
    type Err = MediaError;

    fn from_str(text: &str) -> Result<Self, MediaError> {
        Ok(match text {
            "audio" => LengthPolicy::Audio,
            "video" => LengthPolicy::Video,
            "loop" => LengthPolicy::Loop,
            "bounce" => LengthPolicy::Bounce,
            "cut" => LengthPolicy::Cut,
            _ => {
                return Err(MediaError::Parameter {
                    stage: "length policy",
                    detail: format!("`{text}` is not known; allowed are audio, video, loop, bounce and cut"),
                });
            }
        })
    }
}

/// One frame of the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlannedFrame {
    /// Index in the output.
    pub output: usize,
    /// Index of the source frame that it shows.
    pub source: usize,
    /// When it is shown, in ticks of the source's time base from the start of the output.
    pub pts: i64,
}

/// The whole output, frame by frame, without holding it: memory is that of the source's index.
#[derive(Clone, Debug)]
pub struct Plan {
    time_base: Rational,
    num_source: usize,
    /// Start of every frame of one cycle, and the cycle's end: `period + 1` values.
    cycle: Vec<i64>,
    len: usize,
    end_pts: i64,
    average_rate: Rational,
}

/// A run of output frames whose source frames follow each other in one direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) first_source: usize,
    pub(crate) len: usize,
    pub(crate) backwards: bool,
}

impl Plan {
    /// Plans the output of a clip and a speech length.
    ///
    /// # Errors
    /// [`MediaError::Parameter`] if the speech has no length where the policy needs it, or the
    /// output would be longer than [`MAX_OUTPUT_HOURS`].
    pub fn new(index: &FrameIndex, policy: LengthPolicy, speech: Time) -> Result<Self, MediaError> {
        let time_base = index.time_base();
        let video = index.duration();
        let target = match policy {
            LengthPolicy::Video if !index.is_still() => video,
            LengthPolicy::Cut if !index.is_still() => speech.min(video),
            _ => speech,
        };
        let wrong = |detail: String| MediaError::Parameter { stage: "plan", detail };
        if target.ticks <= 0 {
            return Err(wrong("the speech has no length; give a file with speech".into()));
        }
        if target > Time::new(MAX_OUTPUT_HOURS * 3600, Rational::new(1, 1)) {
            return Err(wrong(format!(
                "the output would be {:.0} s long; at most {MAX_OUTPUT_HOURS} h are allowed",
                target.secs()
            )));
        }
        let num_source = index.len();
        let backwards = match policy {
            LengthPolicy::Audio | LengthPolicy::Bounce => (1..num_source.max(1) - 1).rev(),
            LengthPolicy::Video | LengthPolicy::Loop | LengthPolicy::Cut => (0..0).rev(),
        };
        let mut cycle = vec![0];
        let mut end = 0;
        for source in (0..num_source).chain(backwards) {
            end += index.duration_of(source);
            cycle.push(end);
        }
        let mut plan = Plan { time_base, num_source, cycle, len: 0, end_pts: 0, average_rate: index.average_rate() };
        plan.end_pts = target.on(time_base, Rounding::Up).max(1);
        plan.len = plan.first_not_before(plan.end_pts);
        Ok(plan)
    }

    /// The smallest number of frames that reaches `ticks`.
    fn first_not_before(&self, ticks: i64) -> usize {
        let period_ticks = self.cycle[self.period()];
        let (cycles, rest) = (ticks / period_ticks, ticks % period_ticks);
        cycles as usize * self.period() + self.cycle.partition_point(|start| *start < rest)
    }

    fn period(&self) -> usize {
        self.cycle.len() - 1
    }

    /// Number of output frames, at least one.
    #[allow(clippy::len_without_is_empty)] // never empty
    pub fn len(&self) -> usize {
        self.len
    }

    /// Seconds of one tick, as in the source.
    pub fn time_base(&self) -> Rational {
        self.time_base
    }

    /// Frames a second of the source, over its whole length.
    pub fn average_rate(&self) -> Rational {
        self.average_rate
    }

    /// Where the output ends, in ticks: the end of the speech or of the video, rounded up to a
    /// tick. The last frame starts before it, and would last at least until it.
    pub fn end_pts(&self) -> i64 {
        self.end_pts
    }

    /// Length of the output.
    pub fn duration(&self) -> Time {
        Time::new(self.end_pts, self.time_base)
    }

    /// Time stamp of the last output frame.
    pub fn last_pts(&self) -> i64 {
        self.pts(self.len - 1)
    }

    /// How many frames of the source appear at all (always its first ones).
    pub fn num_source_frames_used(&self) -> usize {
        self.len.min(self.num_source)
    }

    /// Time stamp of an output frame, in ticks from the start of the output.
    pub fn pts(&self, output: usize) -> i64 {
        let (cycles, at) = (output / self.period(), output % self.period());
        cycles as i64 * self.cycle[self.period()] + self.cycle[at]
    }

    /// The source frame that an output frame shows.
    pub fn source(&self, output: usize) -> usize {
        let at = output % self.period();
        if at < self.num_source { at } else { 2 * self.num_source - 2 - at }
    }

    /// An output frame; none at or after the end.
    pub fn get(&self, output: usize) -> Option<PlannedFrame> {
        let (source, pts) = (self.source(output), self.pts(output));
        (output < self.len).then_some(PlannedFrame { output, source, pts })
    }

    /// The model frame (25 fps) nearest to an output frame.
    pub fn model_frame(&self, output: usize) -> usize {
        model_frame_at(self.pts(output), self.time_base) as usize
    }

    /// All output frames in order.
    pub fn frames(&self) -> impl Iterator<Item = PlannedFrame> + '_ {
        (0..self.len).filter_map(|output| self.get(output))
    }

    /// The run that starts at an output frame.
    pub(crate) fn run_at(&self, output: usize) -> Run {
        let at = output % self.period();
        let backwards = at >= self.num_source;
        let end = if backwards { self.period() } else { self.num_source };
        Run { first_source: self.source(output), len: (end - at).min(self.len - output), backwards }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sources(plan: &Plan) -> Vec<usize> {
        plan.frames().map(|frame| frame.source).collect()
    }

    fn vfr() -> FrameIndex {
        FrameIndex::new(Rational::new(1, 1000), vec![500, 510, 530, 560], 40).unwrap()
    }

    #[test]
    fn back_and_forth_mirrors_the_spacing() {
        let speech = Time::new(190, Rational::new(1, 1000));
        let plan = Plan::new(&vfr(), LengthPolicy::Audio, speech).unwrap();
        assert_eq!(sources(&plan), [0, 1, 2, 3, 2, 1, 0, 1, 2]);
        let pts: Vec<i64> = plan.frames().map(|frame| frame.pts).collect();
        assert_eq!(pts, [0, 10, 30, 60, 100, 130, 150, 160, 180]);
        assert_eq!((plan.end_pts(), plan.last_pts()), (190, 180));
        assert_eq!(plan.run_at(4), Run { first_source: 2, len: 2, backwards: true });
        assert_eq!(plan.run_at(7), Run { first_source: 1, len: 2, backwards: false });
    }

    #[test]
    fn every_policy_has_its_length() {
        let (short, long) = (Time::from_samples(800), Time::from_samples(3200)); // 50 ms, 200 ms
        let frames = |policy, speech| {
            let plan = Plan::new(&vfr(), policy, speech).unwrap();
            (sources(&plan), plan.end_pts())
        };
        assert_eq!(frames(LengthPolicy::Loop, long), (vec![0, 1, 2, 3, 0, 1, 2, 3], 200));
        assert_eq!(frames(LengthPolicy::Video, long), (vec![0, 1, 2, 3], 100));
        assert_eq!(frames(LengthPolicy::Video, short), (vec![0, 1, 2, 3], 100));
        assert_eq!(frames(LengthPolicy::Cut, long), (vec![0, 1, 2, 3], 100));
        assert_eq!(frames(LengthPolicy::Cut, short), (vec![0, 1, 2], 50));
        assert_eq!(frames(LengthPolicy::Audio, short), (vec![0, 1, 2], 50));
    }

    #[test]
    fn a_still_lasts_as_long_as_the_speech() {
        let index = FrameIndex::still(Rational::new(25, 1)).unwrap();
        for policy in [LengthPolicy::Audio, LengthPolicy::Video, LengthPolicy::Cut] {
            let plan = Plan::new(&index, policy, Time::from_samples(16_001)).unwrap();
            assert_eq!(sources(&plan), vec![0; 26]);
            assert_eq!(plan.pts(25), 25);
        }
    }

    #[test]
    fn no_speech_and_endless_speech_are_refused() {
        assert!(Plan::new(&vfr(), LengthPolicy::Audio, Time::from_samples(0)).is_err());
        let endless = Time::from_samples(16_000 * 3600 * 25);
        assert!(Plan::new(&vfr(), LengthPolicy::Loop, endless).is_err());
        assert!("forever".parse::<LengthPolicy>().is_err());
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]
        #[test]
        fn the_output_covers_its_target_by_less_than_a_frame(
            gaps in prop::collection::vec(1i64..5000, 0..40),
            last in 1i64..5000, start in -10_000i64..10_000,
            num in 1i64..1002, den in 1000i64..90_001, samples in 1i64..400_000, policy in 0usize..5,
        ) {
            let policy = [
                LengthPolicy::Audio, LengthPolicy::Video, LengthPolicy::Loop, LengthPolicy::Bounce,
                LengthPolicy::Cut,
            ][policy];
            let mut pts = vec![start];
            for gap in gaps { pts.push(pts[pts.len() - 1] + gap); }
            let index = FrameIndex::new(Rational::new(num, den), pts, last).unwrap();
            let speech = Time::from_samples(samples);
            let plan = Plan::new(&index, policy, speech).unwrap();
            let target = match policy {
                LengthPolicy::Video => index.duration(),
                LengthPolicy::Cut => speech.min(index.duration()),
                _ => speech,
            };
            let base = index.time_base();
            // Nothing of the target is lost, and the end is the target to less than one tick.
            prop_assert!(plan.duration() >= target);
            prop_assert!(Time::new(plan.end_pts() - 1, base) < target);
            // The last frame starts before the end and would last at least until it.
            let tail = plan.get(plan.len() - 1).unwrap();
            prop_assert!(tail.pts < plan.end_pts());
            prop_assert!(tail.pts + index.duration_of(tail.source) >= plan.end_pts());
            // Each frame lasts as long as its source frame, and neighbours stay neighbours.
            let mut previous: Option<PlannedFrame> = None;
            for frame in plan.frames() {
                if let Some(before) = previous {
                    prop_assert_eq!(frame.pts - before.pts, index.duration_of(before.source));
                    let step = frame.source.abs_diff(before.source);
                    let wraps = policy == LengthPolicy::Loop && frame.source == 0;
                    prop_assert!(step == 1 || wraps || index.len() == 1);
                }
                previous = Some(frame);
            }
            // Runs tile the plan.
            let mut at = 0;
            while at < plan.len() {
                let run = plan.run_at(at);
                prop_assert!(run.len > 0);
                for step in 0..run.len {
                    let source =
                        if run.backwards { run.first_source - step } else { run.first_source + step };
                    prop_assert_eq!(plan.source(at + step), source);
                }
                at += run.len;
            }
            prop_assert_eq!(at, plan.len());
        }
    }
}
