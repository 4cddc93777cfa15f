//! Behind the drawing: mouths decoded as far as they are seen, and put into their frames.

use std::collections::VecDeque;
use std::sync::Arc;

use rayon::ThreadPool;
use syncdiff_face::{
    ColourMatch, KeepMask, KeepMaskKind, OutlineMask, PasteMask, SkinMatch, Tone, Touched, paste_back,
};
use syncdiff_media::{Frame, WalkedFrame};

use super::{FADE_FRAMES, FEATHER, Moment, Scene};
use crate::clock::{Clock, Phase};
use crate::error::Outcome;
use crate::memory::guarded;
use crate::mouth::MouthModel;
use crate::settings::Composite;

/// How mouths get the tone of their frames, with what is remembered for that since the last cut or gap.
enum Matching {
    Skin(SkinMatch),
    Seam(ColourMatch),
    AsDrawn,
}

impl Matching {
    fn new(composite: Composite) -> Self {
        match composite {
            Composite::Skin => Matching::Skin(SkinMatch::new()),
            Composite::Face | Composite::Soft => Matching::Seam(ColourMatch::new()),
            Composite::None => Matching::AsDrawn,
        }
    }

    fn tone(&mut self) -> Tone<'_> {
        match self {
            Matching::Skin(skin) => Tone::Skin(skin),
            Matching::Seam(colour) => Tone::Seam(colour),
            Matching::AsDrawn => Tone::AsDrawn,
        }
    }
}

/// Puts mouths into frames.
pub(super) struct Painter<'a, M: MouthModel> {
    scene: &'a Scene<'a, M>,
    /// Mouths that were not shown yet, by model frame; none where nothing was drawn.
    drawn: VecDeque<(usize, Option<M::Drawn>)>,
    /// The mouth that was shown last; a fast source shows it again.
    shown: Option<(usize, Frame)>,
    /// What goes into the frame; none where it is made for each frame.
    fixed_paste: Option<PasteMask>,
    /// Keeps a mouth within its face, where that is wished.
    outlines: Option<OutlineMask>,
    matching: Matching,
    last: Option<Moment>,
    /// Networks run here.
    workers: &'a ThreadPool,
}

impl<'a, M: MouthModel> Painter<'a, M> {
    pub(super) fn new(scene: &'a Scene<'a, M>, workers: &'a ThreadPool) -> Self {
        let size = scene.model.crop_size();
        let fixed_paste = match (scene.composite, scene.model.keep_mask()) {
            (Composite::None, _) => Some(PasteMask::from_keep(&KeepMask { size, keep: vec![0; size * size] }, 0.0)),
            (_, KeepMaskKind::AlignedFixed) => Some(PasteMask::from_keep(&KeepMask::aligned_fixed(size), FEATHER)),
            (_, KeepMaskKind::FaceBoxLowerHalf) => None,
        };
        let outlines = matches!(scene.composite, Composite::Skin | Composite::Face).then(|| OutlineMask::new(size));
        let (drawn, matching) = (VecDeque::new(), Matching::new(scene.composite));
        Painter { scene, drawn, shown: None, fixed_paste, outlines, matching, last: None, workers }
    }

    /// Keeps a mouth until it is shown.
    pub(super) fn keep(&mut self, model_frame: usize, drawn: Option<M::Drawn>) {
        self.drawn.push_back((model_frame, drawn));
    }

    /// One output frame: the source frame, with the mouth of a model frame where there is one.
    pub(super) fn show(
        &mut self,
        walked: &WalkedFrame,
        model_frame: usize,
        clock: &mut Clock,
    ) -> Outcome<(Arc<Frame>, Option<Touched>)> {
        let unchanged = || (Arc::clone(&walked.frame), None);
        let (scene, size) = (self.scene, self.scene.model.crop_size());
        let opacity = scene.cast.opacity(walked.source, FADE_FRAMES) * scene.speech_weight(model_frame);
        self.decode(model_frame, opacity > 0.0, clock)?;
        let place = scene.cast.crop_from_frame(walked.source, size);
        let (Some((_, crop)), Some(crop_from_frame), true) = (&self.shown, place, opacity > 0.0) else {
            self.last = None;
            return Ok(unchanged());
        };
        let moment = scene.moment(walked);
        if !self.last.is_some_and(|last| last.leads_to(moment)) {
            self.matching = Matching::new(scene.composite);
        }
        self.last = Some(moment);
        clock.time(Phase::Paste, || {
            let moving = match self.fixed_paste {
                Some(_) => None,
                None => scene.keep_mask(walked.source).map(|keep| PasteMask::from_keep(&keep, FEATHER)),
            };
            let Some(mask) = self.fixed_paste.as_ref().or(moving.as_ref()) else { return Ok(unchanged()) };
            let within = match (&self.outlines, scene.cast.outline(walked.source)) {
                (Some(outlines), Some(outline)) => Some(mask.within(outlines, &outline)),
                _ => None,
            };
            let mask = within.as_ref().unwrap_or(mask);
            let mut frame = Frame::clone(&walked.frame);
            let touched = paste_back(&mut frame, crop, &crop_from_frame, mask, self.matching.tone(), opacity)?;
            Ok((Arc::new(frame), Some(touched)))
        })
    }

    /// Makes `shown` the mouth of a model frame, none where nothing was drawn. Mouths before it are forgotten; one that
    /// is not visible is not decoded.
    fn decode(&mut self, model_frame: usize, visible: bool, clock: &mut Clock) -> Outcome<()> {
        while self.drawn.front().is_some_and(|(drawn, _)| *drawn < model_frame) {
            self.drawn.pop_front();
        }
        if self.shown.as_ref().is_some_and(|(shown, _)| *shown != model_frame) {
            self.shown = None;
        }
        if let Some((front, drawn)) = self.drawn.front_mut()
            && *front == model_frame
            && visible
            && let Some(drawn) = drawn.take()
        {
            let (model, workers) = (self.scene.model, self.workers);
            let crop = clock.time(Phase::Autoencoder, || guarded(|| workers.install(|| model.picture(drawn))))?;
            self.shown = Some((model_frame, crop));
        }
        Ok(())
    }
}
