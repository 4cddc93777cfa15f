//! Clips that are made at once draw their mouths as one batch: what a GPU wants, which one mouth does not fill.
//!
//! One thread draws for all. It waits for a frame of every clip that is drawing, but no longer than a batch takes, and half
//! as long each time that it waited in vain: a clip that decodes a stretch without a face does not hold up the others.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use syncdiff_model::generate::{DrawnFrame, FrameSampler, FrameTask, Phase as ModelPhase};

use crate::clock::{Clock, Phase};
use crate::error::{Error, Outcome};
use crate::memory::guarded;

const STAGE: &str = "render";

/// Draws for several clips.
pub(crate) struct Together {
    asking: Sender<AskedFrame>,
    seats: Arc<AtomicUsize>,
}

/// A clip's place among those that draw together; left when dropped.
pub(crate) struct Seat {
    asking: Sender<AskedFrame>,
    seats: Arc<AtomicUsize>,
}

/// A frame to draw.
type AskedFrame = Asked<FrameTask, DrawnFrame>;

/// A task, and where its result is to go with the time that it took.
struct Asked<T, R> {
    task: T,
    answer: Answer<R>,
}

type Answer<R> = SyncSender<Outcome<(R, Clock)>>;

impl Together {
    /// Starts the thread that draws. It ends when nobody is left who could ask.
    ///
    /// # Errors
    /// A system without another thread.
    pub(crate) fn new(sampler: Arc<FrameSampler>) -> Outcome<Self> {
        let (asking, asked) = channel();
        let seats = Arc::new(AtomicUsize::new(0));
        let taken = Arc::clone(&seats);
        // A member of the pool of all cores for one batch after the other: it must not keep a place there while it
        // waits.
        let draw = move |tasks: &[FrameTask], clock: &mut Clock| rayon::scope(|_| draw(&sampler, tasks, clock));
        let serve = move || serve(draw, &asked, &taken);
        thread::Builder::new().name("draw".into()).spawn(serve).map_err(|error| Error::Internal {
            stage: STAGE,
            detail: format!("a thread cannot be started: {error}"),
        })?;
        Ok(Together { asking, seats })
    }

    /// Takes a place.
    pub(crate) fn seat(&self) -> Seat {
        self.seats.fetch_add(1, Ordering::SeqCst);
        Seat { asking: self.asking.clone(), seats: Arc::clone(&self.seats) }
    }
}

impl Seat {
    /// Draws a frame with those of the other clips. `clock` gets its share of the batch's time.
    ///
    /// # Errors
    /// Those of the network.
    pub(crate) fn draw(&self, task: FrameTask, clock: &mut Clock) -> Outcome<DrawnFrame> {
        let gone = || Error::Internal { stage: STAGE, detail: "the thread that draws has ended".into() };
        let (answer, answered) = sync_channel(1);
        self.asking.send(Asked { task, answer }).map_err(|_| gone())?;
        let (drawn, spent) = answered.recv().map_err(|_| gone())??;
        clock.merge(&spent);
        Ok(drawn)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.seats.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Draws frames, fewer at once where memory runs out.
///
/// # Errors
/// Those of the network.
pub(crate) fn draw(sampler: &FrameSampler, tasks: &[FrameTask], clock: &mut Clock) -> Outcome<Vec<DrawnFrame>> {
    let mut draw = || guarded(|| Ok(sampler.draw(tasks, &mut laps(clock))?));
    fitting(|| (sampler.images_at_once(tasks.len()), draw()), |tried| sampler.halve(tried))
}

/// Puts the time since the last call, at first since now, into the phase that the model says is done.
pub(crate) fn laps(clock: &mut Clock) -> impl FnMut(ModelPhase) {
    let mut since = Instant::now();
    move |done| {
        let phase = match done {
            ModelPhase::Condition => Phase::Condition,
            ModelPhase::Denoise => Phase::Denoise,
            ModelPhase::Encode | ModelPhase::FeedBack => Phase::Autoencoder,
        };
        clock.add(phase, since.elapsed());
        since = Instant::now();
    }
}

/// Works with less and less at once until it fits into memory, or cannot be halved; `work` says how much it tried.
fn fitting<T>(mut work: impl FnMut() -> (usize, Outcome<T>), halve: impl Fn(usize) -> bool) -> Outcome<T> {
    loop {
        match work() {
            (tried, Err(Error::OutOfMemory { .. })) if halve(tried) => {}
            (_, done) => return done,
        }
    }
}

/// Does what is asked for until nobody can ask any more.
fn serve<T, R>(
    mut work: impl FnMut(&[T], &mut Clock) -> Outcome<Vec<R>>,
    asked: &Receiver<Asked<T, R>>,
    seats: &AtomicUsize,
) {
    let mut patience = Duration::ZERO;
    while let Ok(first) = asked.recv() {
        let start = Instant::now();
        let (mut tasks, mut answers) = (vec![first.task], vec![first.answer]);
        let mut in_vain = false;
        while tasks.len() < seats.load(Ordering::SeqCst) && !in_vain {
            match asked.recv_timeout(patience.saturating_sub(start.elapsed())) {
                Ok(Asked { task, answer }) => {
                    tasks.push(task);
                    answers.push(answer);
                }
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => in_vain = true,
            }
        }
        let (start, mut clock) = (Instant::now(), Clock::default());
        // A defect ends the clips of this batch with its own words, not those that come.
        let done = catch_unwind(AssertUnwindSafe(|| work(&tasks, &mut clock)))
            .unwrap_or_else(|panic| Err(Error::of_panic(STAGE, &*panic)));
        patience = if in_vain { patience / 2 } else { start.elapsed() };
        answer(done, &answers, &clock);
    }
}

/// Hands everybody who asked the result, or each of them the error.
fn answer<R>(done: Outcome<Vec<R>>, answers: &[Answer<R>], clock: &Clock) {
    let share = clock.share(answers.len());
    // A clip that has been given up does not wait for its frame any more.
    match done {
        Ok(done) => answers.iter().zip(done).for_each(|(answer, result)| drop(answer.send(Ok((result, share))))),
        Err(error) => answers.iter().for_each(|answer| drop(answer.send(Err(again(&error))))),
    }
}

/// An error once more, for another clip of the batch that it ended.
fn again(error: &Error) -> Error {
    match error {
        Error::OutOfMemory { detail } => Error::OutOfMemory { detail: detail.clone() },
        error => Error::Internal { stage: STAGE, detail: error.to_string() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Ask = Sender<Asked<u32, u32>>;

    fn ask(asking: &Ask, task: u32) -> Receiver<Outcome<(u32, Clock)>> {
        let (answer, answered) = sync_channel(1);
        asking.send(Asked { task, answer }).unwrap();
        answered
    }

    /// Serves while `clips` asks; the batches.
    fn served(
        seats: usize,
        work: impl Fn(&[u32]) -> Outcome<Vec<u32>> + Send,
        clips: impl FnOnce(&Ask, &AtomicUsize),
    ) -> Vec<Vec<u32>> {
        let ((asking, asked), seats) = (channel(), &AtomicUsize::new(seats));
        thread::scope(|scope| {
            let batches = scope.spawn(move || {
                let mut batches = Vec::new();
                let work = |tasks: &[u32], clock: &mut Clock| {
                    clock.add(Phase::Denoise, Duration::from_secs(tasks.len() as u64));
                    batches.push(tasks.to_vec());
                    // Long enough for the others to ask meanwhile.
                    thread::sleep(Duration::from_millis(200));
                    work(tasks)
                };
                serve(work, &asked, seats);
                batches
            });
            clips(&asking, seats);
            drop(asking);
            batches.join().unwrap()
        })
    }

    fn double(tasks: &[u32]) -> Outcome<Vec<u32>> {
        Ok(tasks.iter().map(|task| 2 * task).collect())
    }

    #[test]
    fn all_that_are_drawing_meet_in_one_batch() {
        let batches = served(3, double, |asking, _| {
            let first = ask(asking, 0);
            first.recv().unwrap().unwrap();
            for round in 1..3 {
                let asked = [1, 2, 3].map(|clip| ask(asking, 10 * round + clip));
                for (clip, answer) in (1..).zip(asked) {
                    let (result, clock) = answer.recv().unwrap().unwrap();
                    assert_eq!(result, 2 * (10 * round + clip));
                    assert_eq!(clock.secs(Phase::Denoise), 1.0, "its share of three seconds");
                }
            }
        });
        assert_eq!(batches, [vec![0], vec![11, 12, 13], vec![21, 22, 23]]);
    }

    #[test]
    fn nobody_waits_for_long_or_for_those_who_have_left() {
        let batches = served(2, double, |asking, seats| {
            ask(asking, 1).recv().unwrap().unwrap();
            // The other one does not come.
            let start = Instant::now();
            assert_eq!(ask(asking, 2).recv().unwrap().unwrap().0, 4);
            assert!(start.elapsed() < Duration::from_secs(5));
            seats.store(1, Ordering::SeqCst);
            assert_eq!(ask(asking, 3).recv().unwrap().unwrap().0, 6);
        });
        assert_eq!(batches, [[1], [2], [3]]);
    }

    #[test]
    fn an_error_reaches_every_clip_of_its_batch_and_the_next_batch_runs() {
        let work = |tasks: &[u32]| match tasks {
            [7, ..] => Err(Error::OutOfMemory { detail: "out of memory".into() }),
            tasks => double(tasks),
        };
        served(2, work, |asking, _| {
            ask(asking, 0).recv().unwrap().unwrap();
            for answer in [ask(asking, 7), ask(asking, 8)] {
                assert!(matches!(answer.recv().unwrap(), Err(Error::OutOfMemory { .. })));
            }
            assert_eq!(ask(asking, 9).recv().unwrap().unwrap().0, 18);
        });
    }

    #[test]
    fn a_defect_ends_the_clips_of_its_batch_with_its_own_words() {
        let work = |tasks: &[u32]| match tasks {
            [7, ..] => panic!("a defect"),
            tasks => double(tasks),
        };
        served(1, work, |asking, _| {
            let error = ask(asking, 7).recv().unwrap().unwrap_err();
            assert!(matches!(&error, Error::Internal { .. }) && error.to_string().contains("a defect"), "{error}");
            assert_eq!(ask(asking, 9).recv().unwrap().unwrap().0, 18);
        });
    }

    #[test]
    fn less_and_less_is_tried_until_it_fits() {
        let drawn = |fits: usize, at_first: usize| {
            let most = std::cell::Cell::new(at_first);
            let mut tries = Vec::new();
            let work = || {
                tries.push(most.get());
                let lack = || Err(Error::OutOfMemory { detail: "out of memory".into() });
                (most.get(), if most.get() > fits { lack() } else { Ok(most.get()) })
            };
            let halve = |tried: usize| {
                most.set(tried / 2);
                tried > 1
            };
            (fitting(work, halve).ok(), tries)
        };
        assert_eq!(drawn(8, 6), (Some(6), vec![6]));
        assert_eq!(drawn(2, 12), (Some(1), vec![12, 6, 3, 1]));
        assert_eq!(drawn(0, 4), (None, vec![4, 2, 1]));
        let failed = fitting(|| (4, Err::<(), _>(Error::Cancelled)), |_| true);
        assert!(matches!(failed, Err(Error::Cancelled)), "only a lack of memory is tried again");
    }
}
