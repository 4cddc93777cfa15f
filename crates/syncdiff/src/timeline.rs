//! Between the source's own time stamps and the model's even 25 frames a second.
//!
//! The model draws one mouth for each of its own moments, from the picture that is nearest in time; every output frame
//! then takes the mouth that is nearest to it. Both directions are exact in integers.

use syncdiff_media::Plan;
use syncdiff_media::time::MODEL_RATE;

/// How many model frames an output needs: all up to the one that its last frame shows.
pub fn num_model_frames(plan: &Plan) -> usize {
    plan.model_frame(plan.len() - 1) + 1
}

/// Finds, for rising model frames, the output frame nearest in time; a half goes to the later one.
#[derive(Clone, Debug)]
pub struct NearestOutput {
    output: usize,
}

impl NearestOutput {
    /// Starts the search at an output frame that is not later than the first answer.
    pub fn starting_at(output: usize) -> Self {
        NearestOutput { output }
    }

    /// The output frame nearest to a model frame. Model frames must not fall from call to call.
    pub fn of(&mut self, plan: &Plan, model_frame: usize) -> usize {
        while self.output + 1 < plan.len()
            && distance(plan, self.output + 1, model_frame) <= distance(plan, self.output, model_frame)
        {
            self.output += 1;
        }
        self.output
    }
}

/// Distance in time of an output frame and a model frame, in units of `1 / (25 den)` s.
fn distance(plan: &Plan, output: usize, model_frame: usize) -> u128 {
    let base = plan.time_base();
    let output = i128::from(plan.pts(output)) * i128::from(base.num) * i128::from(MODEL_RATE);
    let model = model_frame as i128 * i128::from(base.den);
    output.abs_diff(model)
}

#[cfg(test)]
mod tests {
    use super::*;
    use syncdiff_media::{FrameIndex, LengthPolicy, Rational, Time};

    fn plan(pts: Vec<i64>, last: i64, base: Rational) -> Plan {
        let index = FrameIndex::new(base, pts, last).unwrap();
        Plan::new(&index, LengthPolicy::Video, Time::from_samples(1)).unwrap()
    }

    fn nearest(plan: &Plan) -> Vec<usize> {
        let mut search = NearestOutput::starting_at(0);
        (0..num_model_frames(plan)).map(|frame| search.of(plan, frame)).collect()
    }

    #[test]
    fn at_the_models_own_rate_they_are_the_same() {
        let plan = plan((0..6).collect(), 1, Rational::new(1, 25));
        assert_eq!(nearest(&plan), [0, 1, 2, 3, 4, 5]);
    }

    #[test]
    fn a_fast_source_gives_every_second_frame() {
        let plan = plan((0..7).collect(), 1, Rational::new(1, 50));
        assert_eq!((0..7).map(|output| plan.model_frame(output)).collect::<Vec<_>>(), [0, 1, 1, 2, 2, 3, 3]);
        assert_eq!(nearest(&plan), [0, 2, 4, 6]);
    }

    #[test]
    fn a_slow_source_repeats_its_frames() {
        let plan = plan((0..3).collect(), 1, Rational::new(1, 10));
        assert_eq!(nearest(&plan), [0, 0, 1, 1, 2, 2]);
    }

    #[test]
    fn a_jump_in_time_is_crossed() {
        let plan = plan(vec![0, 40, 1000, 1040], 40, Rational::new(1, 1000));
        let found = nearest(&plan);
        assert_eq!(found.len(), 27);
        assert_eq!((found[1], found[12], found[13], found[14], found[26]), (1, 1, 2, 2, 3));
    }
}
