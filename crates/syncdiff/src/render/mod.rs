//! The second pass: frames stream in, mouths are drawn on the model's time line, frames stream out.
//!
//! Three threads work on different frames at the same time, joined by bounded queues: [`ahead`] decodes, cuts out and
//! looks at crops, the middle one draws mouth after mouth, each knowing the last, and [`behind`] decodes the mouths,
//! pastes and writes. What is made does not depend on their pace: every queue keeps the order, and errors travel in it.
//! Memory is that of a few frames, whatever the length.

mod ahead;
mod behind;
mod cues;

use std::ops::Range;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use rayon::{ThreadPool, ThreadPoolBuilder};
use syncdiff_face::{KeepMask, Touched};
use syncdiff_media::{Frame, MediaError, Plan, WalkedFrame};

use crate::cast::Cast;
use crate::clock::{Clock, Phase};
use crate::error::{Error, Outcome};
use crate::memory::guarded;
use crate::mouth::{MouthModel, MouthSequence};
use crate::progress::{Stage, Watch};
use crate::settings::Composite;
use ahead::{Lead, Prepared, prepare};
use behind::Painter;
use cues::Cues;

/// Frames over which the generated mouth fades at the edge of a gap or of silence.
pub const FADE_FRAMES: usize = 3;
/// Width of the paste mask's ramp as a part of the crop's side.
pub const FEATHER: f64 = 0.06;
/// Items that may wait in each queue.
const QUEUED: usize = 2;

/// What is drawn, and where it goes.
pub struct Scene<'a, M> {
    /// Which source frame each output frame shows, and when.
    pub plan: &'a Plan,
    /// Where the face is in each source frame.
    pub cast: &'a Cast,
    /// Weight of the generated mouth at each model frame; 1 everywhere if none is given.
    pub speech_opacity: Option<&'a [f32]>,
    /// How the mouth gets into the frame.
    pub composite: Composite,
    /// Most crops that the model looks at together; fewer when memory runs out.
    pub batch: usize,
    /// Draws the mouths.
    pub model: &'a M,
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
/// Those of the clip, of the model and of `sink`, the first in the order of the frames; [`Error::Cancelled`].
pub fn render<M: MouthModel>(
    scene: &Scene<'_, M>,
    outputs: Range<usize>,
    frames: impl Iterator<Item = Result<WalkedFrame, MediaError>> + Send,
    sink: &mut dyn FnMut(Rendered<'_>, &mut Clock) -> Outcome<()>,
    clock: &mut Clock,
    watch: &mut Watch<'_>,
) -> Outcome<Counts> {
    if outputs.is_empty() {
        return Ok(Counts::default());
    }
    watch.step(Stage::Generate, 0, Some(outputs.len()))?;
    let (ahead, behind) = (workers()?, workers()?);
    let cues = Cues::new(scene.plan, outputs.clone(), frames);
    let cancel = watch.cancel();
    let (to_draw, prepared) = sync_channel(QUEUED);
    let (to_show, drawn) = sync_channel(QUEUED);
    thread::scope(|scope| {
        let looking = scope.spawn(|| ahead.install(move || prepare(scene, cues, &to_draw, &cancel)));
        let drawing = scope.spawn(move || match scene.model.draws_elsewhere() {
            true => draw(scene.model, prepared, &to_show),
            // A member of the pool of all cores: its operations are shared out without waking anybody first.
            false => rayon::scope(move |_| draw(scene.model, prepared, &to_show)),
        });
        let counts = show(Painter::new(scene, &behind), outputs, drawn, sink, clock, watch);
        for thread in [looking, drawing] {
            match thread.join() {
                Ok(spent) => clock.merge(&spent),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        counts
    })
}

/// Threads for one end of the chain: the drawing in the middle takes longest and has all cores.
fn workers() -> Outcome<ThreadPool> {
    let threads = (rayon::current_num_threads() / 4).max(1);
    ThreadPoolBuilder::new()
        .num_threads(threads)
        .build()
        .map_err(|error| Error::Internal { stage: "render", detail: format!("threads cannot be started: {error}") })
}

/// What the showing gets.
enum Made<D> {
    /// The mouth of a model frame; none where nothing was drawn.
    Mouth { model_frame: usize, drawn: Option<D> },
    /// An output frame to show.
    Show { walked: WalkedFrame, model_frame: usize },
}

/// Draws all mouths, in order, until the last, an error, or the end of the receiver.
fn draw<M: MouthModel>(
    model: &M,
    queue: Receiver<Outcome<Prepared<M::Seen>>>,
    next: &SyncSender<Outcome<Made<M::Drawn>>>,
) -> Clock {
    let mut clock = Clock::default();
    let mut sequence: Option<Box<dyn MouthSequence<M> + '_>> = None;
    for prepared in queue {
        let made = prepared.and_then(|prepared| {
            Ok(match prepared {
                Prepared::Show { walked, model_frame } => Made::Show { walked, model_frame },
                Prepared::Pass { model_frame } => Made::Mouth { model_frame, drawn: None },
                Prepared::Draw { model_frame, lead, seen } => {
                    match (lead, &mut sequence) {
                        (Lead::First(crop), _) => {
                            // A sequence that has ended leaves its place before the next one takes its own.
                            sequence = None;
                            sequence = Some(clock.time(Phase::Autoencoder, || guarded(|| model.start(&crop)))?);
                        }
                        (Lead::Anew, Some(sequence)) => sequence.restart(),
                        _ => {}
                    }
                    let drawn = match &mut sequence {
                        Some(sequence) => Some(guarded(|| sequence.draw(seen, &mut clock))?),
                        None => None,
                    };
                    Made::Mouth { model_frame, drawn }
                }
            })
        });
        let failed = made.is_err();
        if next.send(made).is_err() || failed {
            break;
        }
    }
    clock
}

/// Shows all output frames, in order.
fn show<M: MouthModel>(
    mut painter: Painter<'_, M>,
    outputs: Range<usize>,
    queue: Receiver<Outcome<Made<M::Drawn>>>,
    sink: &mut dyn FnMut(Rendered<'_>, &mut Clock) -> Outcome<()>,
    clock: &mut Clock,
    watch: &mut Watch<'_>,
) -> Outcome<Counts> {
    let mut counts = Counts::default();
    for made in queue {
        match made? {
            Made::Mouth { model_frame, drawn } => {
                counts.drawn += usize::from(drawn.is_some());
                painter.keep(model_frame, drawn);
            }
            Made::Show { walked, model_frame } => {
                let (frame, touched) = painter.show(&walked, model_frame, clock)?;
                sink(Rendered { output: walked.output, pts: walked.pts, frame: &frame, touched }, clock)?;
                counts.frames += 1;
                counts.changed += usize::from(touched.is_some());
                watch.step(Stage::Generate, counts.frames, Some(outputs.len()))?;
            }
        }
    }
    watch.check()?;
    if counts.frames != outputs.len() {
        let detail = format!("{} of {} frames were made", counts.frames, outputs.len());
        return Err(Error::Internal { stage: "render", detail });
    }
    Ok(counts)
}

/// Where an output frame comes from.
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

impl<M: MouthModel> Scene<'_, M> {
    fn moment(&self, walked: &WalkedFrame) -> Moment {
        Moment { shot: self.cast.shot(walked.source), output: walked.output, source: walked.source }
    }

    fn speech_weight(&self, model_frame: usize) -> f32 {
        match self.speech_opacity {
            Some(weights) => weights.get(model_frame).copied().unwrap_or(0.0),
            None => 1.0,
        }
    }

    /// What the model must not see of a source frame, where that follows the face box.
    fn keep_mask(&self, source: usize) -> Option<KeepMask> {
        let size = self.model.crop_size();
        let face_box = self.cast.face_box(source)?;
        let crop_from_frame = self.cast.crop_from_frame(source, size)?;
        Some(KeepMask::of_kind(self.model.keep_mask(), &face_box, &crop_from_frame, size))
    }
}
