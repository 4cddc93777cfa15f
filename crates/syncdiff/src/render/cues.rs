//! In which order mouths are drawn and frames shown: the model's even time line and the source's own, interleaved.

use std::collections::VecDeque;
use std::ops::Range;

use syncdiff_media::{MediaError, Plan, WalkedFrame};

use crate::error::{Error, Outcome};
use crate::timeline::NearestOutput;

/// Where a slow source shows none of the next so many model frames, they are not drawn.
const MAX_UNSEEN_FRAMES: usize = 3;

/// The next thing to do.
#[derive(Clone, Debug)]
pub(super) enum Cue {
    /// Draw the mouth of a model frame from the picture that is nearest in time.
    Draw { model_frame: usize, walked: WalkedFrame },
    /// Show an output frame with the mouth of a model frame, which was drawn before.
    Show { walked: WalkedFrame, model_frame: usize },
}

/// Turns the walked frames of a range of outputs into cues. A frame is held while it is still to be shown or drawn
/// from.
pub(super) struct Cues<'a, I> {
    plan: &'a Plan,
    frames: I,
    nearest: NearestOutput,
    next_model: usize,
    end_model: usize,
    next_output: usize,
    last_output: usize,
    window: VecDeque<WalkedFrame>,
}

impl<'a, I: Iterator<Item = Result<WalkedFrame, MediaError>>> Cues<'a, I> {
    /// `outputs` must not be empty; `frames` are those of the same range, in order.
    pub(super) fn new(plan: &'a Plan, outputs: Range<usize>, frames: I) -> Self {
        let last_output = outputs.end - 1;
        Cues {
            plan,
            frames,
            nearest: NearestOutput::starting_at(outputs.start),
            next_model: plan.model_frame(outputs.start),
            end_model: plan.model_frame(last_output) + 1,
            next_output: outputs.start,
            last_output,
            window: VecDeque::new(),
        }
    }

    fn held(&self, output: usize) -> Option<WalkedFrame> {
        self.window.iter().find(|walked| walked.output == output).cloned()
    }

    /// The next cue that the held frames allow.
    fn ready(&mut self) -> Option<Cue> {
        loop {
            if self.next_output <= self.last_output {
                let model_frame = self.plan.model_frame(self.next_output);
                if model_frame < self.next_model
                    && let Some(walked) = self.held(self.next_output)
                {
                    self.next_output += 1;
                    return Some(Cue::Show { walked, model_frame });
                }
            }
            if self.next_model >= self.end_model {
                return None;
            }
            let model_frame = self.next_model;
            let source = self.source_of(model_frame);
            let walked = self.held(source)?;
            self.next_model += 1;
            let wanted = self.plan.model_frame(self.next_output.min(self.last_output));
            if wanted.saturating_sub(model_frame) <= MAX_UNSEEN_FRAMES {
                return Some(Cue::Draw { model_frame, walked });
            }
        }
    }

    /// The output frame from which a model frame is drawn.
    fn source_of(&mut self, model_frame: usize) -> usize {
        self.nearest.of(self.plan, model_frame).min(self.last_output)
    }

    fn forget(&mut self) {
        let needed = if self.next_model < self.end_model { self.source_of(self.next_model) } else { usize::MAX };
        let needed = needed.min(self.next_output);
        while self.window.front().is_some_and(|front| front.output < needed) {
            self.window.pop_front();
        }
    }
}

impl<I: Iterator<Item = Result<WalkedFrame, MediaError>>> Iterator for Cues<'_, I> {
    type Item = Outcome<Cue>;

    fn next(&mut self) -> Option<Outcome<Cue>> {
        loop {
            if let Some(cue) = self.ready() {
                return Some(Ok(cue));
            }
            self.forget();
            match self.frames.next()? {
                Ok(walked) => self.window.push_back(walked),
                Err(error) => return Some(Err(Error::from(error))),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use syncdiff_media::{Frame, FrameIndex, LengthPolicy, Rational, Time};

    /// Cues of a clip in a few letters: what is drawn, from which output, and what is shown with which mouth.
    fn cues(pts: &[i64], range: Range<usize>) -> Vec<String> {
        let index = FrameIndex::new(Rational::new(1, 1000), pts.to_vec(), 20).unwrap();
        let plan = Plan::new(&index, LengthPolicy::Video, Time::from_samples(1)).unwrap();
        let frames = plan.frames().skip(range.start).take(range.len()).map(|frame| {
            let picture = Arc::new(Frame::filled(2, 2, [0; 3]));
            Ok(WalkedFrame { output: frame.output, source: frame.source, pts: frame.pts, frame: picture })
        });
        let word = |cue| match cue {
            Cue::Draw { model_frame, walked } => format!("d{model_frame}<{}", walked.output),
            Cue::Show { walked, model_frame } => format!("s{}:{model_frame}", walked.output),
        };
        Cues::new(&plan, range, frames).map(|cue| word(cue.unwrap())).collect()
    }

    #[test]
    fn drawing_and_showing_alternate_at_the_models_own_rate() {
        assert_eq!(cues(&[0, 40, 80], 0..3), ["d0<0", "s0:0", "d1<1", "s1:1", "d2<2", "s2:2"]);
        assert_eq!(cues(&[0, 40, 80], 1..2), ["d1<1", "s1:1"]);
    }

    #[test]
    fn the_last_frame_is_shown_though_its_mouth_was_drawn_from_the_one_before() {
        assert_eq!(cues(&[0, 35, 50], 0..3), ["d0<0", "s0:0", "d1<1", "s1:1", "s2:1"]);
    }

    #[test]
    fn a_jump_draws_a_few_frames_of_lead_only() {
        let told = cues(&[0, 40, 1000], 0..3);
        assert_eq!(told[..4], ["d0<0", "s0:0", "d1<1", "s1:1"]);
        assert_eq!(told[4..], ["d22<2", "d23<2", "d24<2", "d25<2", "s2:25"]);
    }
}
