//! Ahead of the drawing: frames decoded, crops cut out and masked, and looked at by the model, several at once.

use std::sync::mpsc::SyncSender;

use syncdiff_face::{KeepMask, KeepMaskKind, warp};
use syncdiff_media::{Frame, WalkedFrame};

use super::cues::Cue;
use super::{Moment, Scene};
use crate::clock::{Clock, Phase};
use crate::error::{Error, Outcome};
use crate::memory::guarded;
use crate::mouth::MouthModel;
use crate::progress::Cancel;

/// How a mouth follows the one before it.
#[derive(Clone, Debug)]
pub(super) enum Lead {
    /// It continues.
    On,
    /// The same person in the same shot, after a pause or a jump.
    Anew,
    /// The first of its shot; the crop with nothing hidden.
    First(Frame),
}

/// What the drawing gets.
pub(super) enum Prepared<S> {
    /// A mouth to draw.
    Draw {
        /// On the model's time line.
        model_frame: usize,
        /// How it follows.
        lead: Lead,
        /// The masked crop, understood.
        seen: S,
    },
    /// No face is there, or nothing would be seen of its mouth.
    Pass {
        /// On the model's time line.
        model_frame: usize,
    },
    /// An output frame to show.
    Show {
        /// The source frame.
        walked: WalkedFrame,
        /// The mouth that it shows.
        model_frame: usize,
    },
}

/// Frames that wait for that may take so much memory; of large ones, fewer crops are looked at together.
const WAITING_BYTES: usize = 32 << 20;

/// The receiver is gone: it has ended, and with it the work.
struct Gone;

/// Prepares all cues, in order, until the last, an error, the wish to stop, or the end of the receiver.
pub(super) fn prepare<M: MouthModel>(
    scene: &Scene<'_, M>,
    mut cues: impl Iterator<Item = Outcome<Cue>>,
    queue: &SyncSender<Outcome<Prepared<M::Seen>>>,
    cancel: &Cancel,
) -> Clock {
    let mut clock = Clock::default();
    let mut scout = Scout::new(scene);
    // Cues that wait until enough crops are there to be looked at together.
    let mut waiting: Vec<Prepared<()>> = Vec::new();
    let mut masked: Vec<(Frame, usize)> = Vec::new();
    // Most crops looked at together: fewer for good once memory has run out.
    let mut most = scene.batch.max(1);
    let mut at_once = most;
    while let Some(cue) = clock.time(Phase::Decode, || cues.next()) {
        if let Ok(Cue::Draw { walked, .. }) = &cue {
            at_once = (WAITING_BYTES / walked.frame.data.len().max(1)).clamp(1, most);
        }
        let prepared = cancel.check().and(cue).and_then(|cue| scout.prepare(cue, &mut masked, &mut clock));
        let failed = match prepared {
            Ok(prepared) => {
                waiting.push(prepared);
                None
            }
            Err(error) => Some(error),
        };
        let room = masked.len() < at_once && waiting.len() < 2 * at_once;
        if !masked.is_empty() && room && failed.is_none() {
            continue;
        }
        if hand_on(scene, &mut waiting, &mut masked, &mut most, queue, &mut clock).is_err() {
            return clock;
        }
        if let Some(error) = failed {
            // The receiver may be gone, and then has its own reason.
            let _ = queue.send(Err(error));
            return clock;
        }
    }
    let _ = hand_on(scene, &mut waiting, &mut masked, &mut most, queue, &mut clock);
    clock
}

/// Lets the model look at the masked crops and sends all that waits.
fn hand_on<M: MouthModel>(
    scene: &Scene<'_, M>,
    waiting: &mut Vec<Prepared<()>>,
    masked: &mut Vec<(Frame, usize)>,
    most: &mut usize,
    queue: &SyncSender<Outcome<Prepared<M::Seen>>>,
    clock: &mut Clock,
) -> Result<(), Gone> {
    let looked = look(scene.model, masked, most, clock);
    masked.clear();
    let mut looked = match looked {
        Ok(looked) => looked.into_iter(),
        Err(error) => {
            let _ = queue.send(Err(error));
            return Err(Gone);
        }
    };
    for prepared in waiting.drain(..) {
        let item = match prepared {
            Prepared::Draw { model_frame, lead, seen: () } => match looked.next() {
                Some(seen) => Ok(Prepared::Draw { model_frame, lead, seen }),
                None => {
                    let detail = format!("the model did not look at the crop of model frame {model_frame}");
                    Err(Error::Internal { stage: "render", detail })
                }
            },
            Prepared::Pass { model_frame } => Ok(Prepared::Pass { model_frame }),
            Prepared::Show { walked, model_frame } => Ok(Prepared::Show { walked, model_frame }),
        };
        queue.send(item).map_err(|_| Gone)?;
    }
    Ok(())
}

/// Looks at all crops, at most so many together; where memory does not do for them, at half as many from then on.
fn look<M: MouthModel>(
    model: &M,
    masked: &[(Frame, usize)],
    most: &mut usize,
    clock: &mut Clock,
) -> Outcome<Vec<M::Seen>> {
    let mut seen = Vec::with_capacity(masked.len());
    let mut rest = masked;
    while !rest.is_empty() {
        let (part, later) = rest.split_at(rest.len().min(*most));
        match guarded(|| model.look(part, clock)) {
            Ok(looked) => {
                seen.extend(looked);
                rest = later;
            }
            Err(Error::OutOfMemory { .. }) if part.len() > 1 => *most = part.len() / 2,
            Err(error) => return Err(error),
        }
    }
    Ok(seen)
}

/// Cuts out crops and says how they follow each other.
struct Scout<'a, M: MouthModel> {
    scene: &'a Scene<'a, M>,
    /// What the model must not see; none where that follows the face box and is made for each frame.
    fixed_keep: Option<KeepMask>,
    /// The last crop; none after a pause.
    last: Option<Moment>,
    shot: Option<usize>,
}

impl<'a, M: MouthModel> Scout<'a, M> {
    fn new(scene: &'a Scene<'a, M>) -> Self {
        let size = scene.model.crop_size();
        let fixed_keep = match scene.model.keep_mask() {
            KeepMaskKind::AlignedFixed => Some(KeepMask::aligned_fixed(size)),
            KeepMaskKind::FaceBoxLowerHalf => None,
        };
        Scout { scene, fixed_keep, last: None, shot: None }
    }

    /// Prepares one cue; the crop of a mouth to draw is added to `masked`.
    fn prepare(&mut self, cue: Cue, masked: &mut Vec<(Frame, usize)>, clock: &mut Clock) -> Outcome<Prepared<()>> {
        let (model_frame, walked) = match cue {
            Cue::Show { walked, model_frame } => return Ok(Prepared::Show { walked, model_frame }),
            Cue::Draw { model_frame, walked } => (model_frame, walked),
        };
        let (scene, size) = (self.scene, self.scene.model.crop_size());
        let place = scene.cast.crop_from_frame(walked.source, size);
        let (Some(crop_from_frame), true) = (place, scene.speech_weight(model_frame) > 0.0) else {
            self.last = None;
            return Ok(Prepared::Pass { model_frame });
        };
        let moving = match self.fixed_keep {
            Some(_) => None,
            None => scene.keep_mask(walked.source),
        };
        let Some(keep) = self.fixed_keep.as_ref().or(moving.as_ref()) else {
            return Ok(Prepared::Pass { model_frame });
        };
        let (crop, hidden) = clock.time(Phase::Align, || {
            let crop = warp(&walked.frame, &crop_from_frame, size);
            let mut hidden = crop.clone();
            keep.apply(&mut hidden)?;
            Ok::<_, Error>((crop, hidden))
        })?;
        masked.push((hidden, model_frame));
        let moment = scene.moment(&walked);
        let lead = if self.shot != Some(moment.shot) {
            Lead::First(crop)
        } else if self.last.is_some_and(|last| last.leads_to(moment)) {
            Lead::On
        } else {
            Lead::Anew
        };
        (self.shot, self.last) = (Some(moment.shot), Some(moment));
        Ok(Prepared::Draw { model_frame, lead, seen: () })
    }
}
