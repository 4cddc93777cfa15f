//! The second pass: frames stream in, mouths are drawn on the model's time line, frames stream out.
//!
//! Memory is that of a few frames, whatever the length: a source frame is held while it is still to be shown or drawn
//! from, a drawn crop while an output frame still wants it.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use syncdiff_face::{ColourMatch, KeepMask, KeepMaskKind, PasteMask, Touched, paste_back, warp};
use syncdiff_media::{Frame, MediaError, Plan, WalkedFrame};

use crate::cast::Cast;
use crate::clock::{Clock, Phase};
use crate::error::{Error, Outcome};
use crate::mouth::{MouthModel, MouthSequence};
use crate::progress::{Stage, Watch};
use crate::settings::Composite;
use crate::timeline::NearestOutput;

/// Frames over which the generated mouth fades at the edge of a gap or of silence.
pub const FADE_FRAMES: usize = 3;
/// Width of the paste mask's ramp as a part of the crop's side.
pub const FEATHER: f64 = 0.06;
/// Where a slow source shows none of the next so many model frames, they are not drawn.
const MAX_UNSEEN_FRAMES: usize = 3;

/// What is drawn, and where it goes.
pub struct Scene<'a> {
    /// Which source frame each output frame shows, and when.
    pub plan: &'a Plan,
    /// Where the face is in each source frame.
    pub cast: &'a Cast,
    /// Weight of the generated mouth at each model frame; 1 everywhere if none is given.
    pub speech_opacity: Option<&'a [f32]>,
    /// How the mouth gets into the frame.
    pub composite: Composite,
    /// Draws the mouths.
    pub model: &'a dyn MouthModel,
}

/// One finished output frame.
pub struct Rendered<'a> {
    /// Index in the output.
    pub output: usize,
    /// Time stamp in ticks of the plan's base.
    pub pts: i64,
    /// The picture.
    pub frame: &'a Frame,
    /// The rectangle that may differ from the source frame; none where the frame passed through.
    pub touched: Option<Touched>,
}

/// How much was done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Output frames.
    pub frames: usize,
    /// Output frames with a generated mouth.
    pub changed: usize,
    /// Crops drawn.
    pub drawn: usize,
}

/// Renders the output frames of a range; `frames` are those of the same range, in order.
///
/// # Errors
/// Those of the clip, of the model and of `sink`; [`Error::Cancelled`].
pub fn render(
    scene: &Scene<'_>,
    outputs: Range<usize>,
    mut frames: impl Iterator<Item = Result<WalkedFrame, MediaError>>,
    sink: &mut dyn FnMut(Rendered<'_>, &mut Clock) -> Outcome<()>,
    clock: &mut Clock,
    watch: &mut Watch<'_>,
) -> Outcome<Counts> {
    let plan = scene.plan;
    let (Some(last_output), total) = (outputs.clone().last(), outputs.len()) else { return Ok(Counts::default()) };
    let mut artist = Artist::new(scene);
    let mut nearest = NearestOutput::starting_at(outputs.start);
    let mut next_model = plan.model_frame(outputs.start);
    let end_model = plan.model_frame(last_output) + 1;
    let mut window: VecDeque<WalkedFrame> = VecDeque::new();
    let mut crops: VecDeque<(usize, Option<Frame>)> = VecDeque::new();
    let mut next_output = outputs.start;
    let mut counts = Counts::default();
    watch.step(Stage::Generate, 0, Some(total))?;
    while let Some(walked) = clock.time(Phase::Decode, || frames.next()) {
        window.push_back(walked?);
        while next_model < end_model {
            let source_output = nearest.of(plan, next_model).min(last_output);
            let Some(walked) = window.iter().find(|walked| walked.output == source_output) else { break };
            let wanted = plan.model_frame(next_output.min(last_output));
            if wanted.saturating_sub(next_model) <= MAX_UNSEEN_FRAMES {
                let crop = artist.draw(next_model, walked, clock)?;
                counts.drawn += usize::from(crop.is_some());
                if next_model >= wanted {
                    crops.push_back((next_model, crop));
                }
            }
            next_model += 1;
            while let Some(walked) = window.iter().find(|walked| walked.output == next_output)
                && plan.model_frame(next_output) < next_model
            {
                let wanted = plan.model_frame(next_output);
                while crops.front().is_some_and(|(model_frame, _)| *model_frame < wanted) {
                    crops.pop_front();
                }
                let crop = crops.front().and_then(|(_, crop)| crop.as_ref());
                let (frame, touched) = artist.compose(walked, crop, wanted, clock)?;
                sink(Rendered { output: next_output, pts: walked.pts, frame: &frame, touched }, clock)?;
                counts.frames += 1;
                counts.changed += usize::from(touched.is_some());
                next_output += 1;
                watch.step(Stage::Generate, next_output - outputs.start, Some(total))?;
            }
        }
        let needed = if next_model < end_model { nearest.of(plan, next_model).min(last_output) } else { usize::MAX };
        while window.front().is_some_and(|front| front.output < next_output && front.output < needed) {
            window.pop_front();
        }
    }
    if counts.frames != total {
        return Err(Error::Internal {
            stage: "render",
            detail: format!("{} of {total} frames were made", counts.frames),
        });
    }
    Ok(counts)
}

/// Draws crops and puts them into frames.
struct Artist<'a> {
    scene: &'a Scene<'a>,
    /// What the model must not see; none where that follows the face box and is made for each frame.
    fixed_keep: Option<KeepMask>,
    /// What goes into the frame; none where it is made for each frame.
    fixed_paste: Option<PasteMask>,
    sequence: Option<Box<dyn MouthSequence + 'a>>,
    /// Shot, output and source of the last crop; none after a pause.
    last_drawn: Option<Moment>,
    shot: usize,
    colour: ColourMatch,
    last_composed: Option<Moment>,
}

#[derive(Clone, Copy)]
struct Moment {
    shot: usize,
    output: usize,
    source: usize,
}

impl Moment {
    /// Does `later` continue this moment: the same shot, and no jump in the source?
    fn leads_to(self, later: Moment) -> bool {
        self.shot == later.shot && self.source.abs_diff(later.source) <= self.output.abs_diff(later.output)
    }
}

impl<'a> Artist<'a> {
    fn new(scene: &'a Scene<'a>) -> Self {
        let size = scene.model.crop_size();
        let fixed_keep = match scene.model.keep_mask() {
            KeepMaskKind::AlignedFixed => Some(KeepMask::aligned_fixed(size)),
            KeepMaskKind::FaceBoxLowerHalf => None,
        };
        let fixed_paste = match scene.composite {
            Composite::Soft => fixed_keep.as_ref().map(|keep| PasteMask::from_keep(keep, FEATHER)),
            Composite::None => Some(PasteMask::from_keep(&KeepMask { size, keep: vec![0; size * size] }, 0.0)),
        };
        Artist {
            scene,
            fixed_keep,
            fixed_paste,
            sequence: None,
            last_drawn: None,
            shot: usize::MAX,
            colour: ColourMatch::new(),
            last_composed: None,
        }
    }

    fn moment(&self, walked: &WalkedFrame) -> Moment {
        Moment { shot: self.scene.cast.shot(walked.source), output: walked.output, source: walked.source }
    }

    fn speech_weight(&self, model_frame: usize) -> f32 {
        match self.scene.speech_opacity {
            Some(weights) => weights.get(model_frame).copied().unwrap_or(0.0),
            None => 1.0,
        }
    }

    /// What the model must not see of a source frame.
    fn keep_mask(&self, source: usize, size: usize) -> Option<KeepMask> {
        if let Some(keep) = &self.fixed_keep {
            return Some(keep.clone());
        }
        let face_box = self.scene.cast.face_box(source)?;
        let crop_from_frame = self.scene.cast.crop_from_frame(source, size)?;
        Some(KeepMask::of_kind(self.scene.model.keep_mask(), &face_box, &crop_from_frame, size))
    }

    /// The mouth of one model frame; none where there is no face or nothing will be seen of it.
    fn draw(&mut self, model_frame: usize, walked: &WalkedFrame, clock: &mut Clock) -> Outcome<Option<Frame>> {
        let model = self.scene.model;
        let size = model.crop_size();
        let place = self.scene.cast.crop_from_frame(walked.source, size);
        let (Some(crop_from_frame), true) = (place, self.speech_weight(model_frame) > 0.0) else {
            self.last_drawn = None;
            return Ok(None);
        };
        let Some(keep) = self.keep_mask(walked.source, size) else { return Ok(None) };
        let (crop, masked) = clock.time(Phase::Align, || {
            let crop = warp(&walked.frame, &crop_from_frame, size);
            let mut masked = crop.clone();
            keep.apply(&mut masked)?;
            Ok::<_, Error>((crop, masked))
        })?;
        let moment = self.moment(walked);
        if self.sequence.is_none() || self.shot != moment.shot {
            self.sequence = Some(clock.time(Phase::Autoencoder, || model.start(&crop))?);
            self.shot = moment.shot;
        } else if !self.last_drawn.is_some_and(|last| last.leads_to(moment))
            && let Some(sequence) = &mut self.sequence
        {
            sequence.restart();
        }
        self.last_drawn = Some(moment);
        match &mut self.sequence {
            Some(sequence) => sequence.next(&masked, model_frame, clock).map(Some),
            None => Ok(None),
        }
    }

    /// One output frame: the source frame, with the mouth where there is one.
    fn compose(
        &mut self,
        walked: &WalkedFrame,
        crop: Option<&Frame>,
        model_frame: usize,
        clock: &mut Clock,
    ) -> Outcome<(Arc<Frame>, Option<Touched>)> {
        let cast = self.scene.cast;
        let opacity = cast.opacity(walked.source, FADE_FRAMES) * self.speech_weight(model_frame);
        let size = self.scene.model.crop_size();
        let place = cast.crop_from_frame(walked.source, size);
        let (Some(crop), Some(crop_from_frame), true) = (crop, place, opacity > 0.0) else {
            self.last_composed = None;
            return Ok((Arc::clone(&walked.frame), None));
        };
        let moment = self.moment(walked);
        if !self.last_composed.is_some_and(|last| last.leads_to(moment)) {
            self.colour.reset();
        }
        self.last_composed = Some(moment);
        clock.time(Phase::Paste, || {
            let moving = match self.fixed_paste {
                Some(_) => None,
                None => self.keep_mask(walked.source, size).map(|keep| PasteMask::from_keep(&keep, FEATHER)),
            };
            let Some(mask) = self.fixed_paste.as_ref().or(moving.as_ref()) else {
                return Ok((Arc::clone(&walked.frame), None));
            };
            let colour = match self.scene.composite {
                Composite::Soft => Some(&mut self.colour),
                Composite::None => None,
            };
            let mut frame = Frame::clone(&walked.frame);
            let touched = paste_back(&mut frame, crop, &crop_from_frame, mask, colour, opacity)?;
            Ok((Arc::new(frame), Some(touched)))
        })
    }
}
