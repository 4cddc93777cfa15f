//! Clips that are made at once draw their mouths as one batch: what a GPU wants, which one mouth does not fill.
//!
//! One thread draws for all. Before it begins a batch it waits for the clips that will ask again soon (`rota.rs`), no
//! longer than a batch takes: a clip that decodes a stretch without a face does not hold up the others.

mod rota;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender, TryRecvError, channel, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use syncdiff_model::generate::{DrawnFrame, FrameSampler, FrameTask, Phase as ModelPhase};

use crate::clock::{Clock, Phase};
use crate::error::{Error, Outcome};
use crate::memory::guarded;
use rota::Rota;

const STAGE: &str = "render";

/// Draws for several clips.
pub(crate) struct Together {
    asking: Sender<FrameMessage>,
    next_seat: AtomicUsize,
}

/// A clip's place among those that draw together; left when dropped.
pub(crate) struct Seat {
    asking: Sender<FrameMessage>,
    number: usize,
}

type FrameMessage = Message<FrameTask, DrawnFrame>;

/// What a seat tells the thread that draws.
enum Message<T, R> {
    /// A task of this time, and where its result is to go with the time that it took.
    Ask { seat: usize, at: Instant, task: T, answer: Answer<R> },
    /// This seat will not ask again.
    Leave { seat: usize },
}

type Answer<R> = SyncSender<Outcome<(R, Clock)>>;

impl Together {
    /// Starts the thread that draws. It ends when nobody is left who could ask.
    ///
    /// # Errors
    /// A system without another thread.
    pub(crate) fn new(sampler: Arc<FrameSampler>) -> Outcome<Self> {
        let (asking, asked) = channel();
        // A member of the pool of all cores for one batch after the other: it must not keep a place there while it
        // waits.
        let draw = move |tasks: &[FrameTask], clock: &mut Clock| {
            let drawn = rayon::scope(|_| draw(&sampler, tasks, clock))?;
            // A device that works on while the program goes ahead would seem to take no time, and who waits for its
            // pictures would seem slow.
            drawn.iter().for_each(DrawnFrame::settle);
            Ok(drawn)
        };
        let serve = move || serve(draw, &asked, Duration::ZERO);
        thread::Builder::new().name("draw".into()).spawn(serve).map_err(|error| Error::Internal {
            stage: STAGE,
            detail: format!("a thread cannot be started: {error}"),
        })?;
        Ok(Together { asking, next_seat: AtomicUsize::new(0) })
    }

    /// Takes a place.
    pub(crate) fn seat(&self) -> Seat {
        Seat { asking: self.asking.clone(), number: self.next_seat.fetch_add(1, Ordering::Relaxed) }
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
        self.asking.send(Message::Ask { seat: self.number, at: Instant::now(), task, answer }).map_err(|_| gone())?;
        let (drawn, spent) = answered.recv().map_err(|_| gone())??;
        clock.merge(&spent);
        Ok(drawn)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        // Where the thread that draws has ended, nobody waits for this seat.
        let _ = self.asking.send(Message::Leave { seat: self.number });
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

/// Does what is asked for until nobody can ask any more. A batch waits for those who are expected as long as the last one
/// took, `least` at least.
fn serve<T, R>(
    mut work: impl FnMut(&[T], &mut Clock) -> Outcome<Vec<R>>,
    asked: &Receiver<Message<T, R>>,
    least: Duration,
) {
    let mut rota = Rota::new(least);
    while let Ok(first) = asked.recv() {
        let (mut tasks, mut answers) = (Vec::new(), Vec::new());
        let mut next = Some(first);
        while let Some(message) = next {
            match message {
                Message::Ask { seat, at, task, answer } => {
                    rota.asked(seat, at);
                    tasks.push(task);
                    answers.push(answer);
                }
                Message::Leave { seat } => rota.left(seat),
            }
            next = awaited(asked, &rota);
        }
        if tasks.is_empty() {
            continue;
        }
        let (start, mut clock) = (Instant::now(), Clock::default());
        // A defect ends the clips of this batch with its own words, not those that come.
        let done = catch_unwind(AssertUnwindSafe(|| work(&tasks, &mut clock)))
            .unwrap_or_else(|panic| Err(Error::of_panic(STAGE, &*panic)));
        rota.answered(start, Instant::now());
        answer(done, &answers, &clock);
    }
}

/// What has been said already, else what is said while somebody is expected.
fn awaited<M>(asked: &Receiver<M>, rota: &Rota) -> Option<M> {
    match asked.try_recv() {
        Ok(message) => Some(message),
        Err(TryRecvError::Disconnected) => None,
        Err(TryRecvError::Empty) => asked.recv_timeout(rota.wait(Instant::now())?).ok(),
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

    /// Longer than any test: whether clips meet must not hang on how fast they are here.
    const FOR_EVER: Duration = Duration::from_mins(1);

    /// Those who ask, `task` of seat `task % 10`.
    struct Asking(Sender<Message<u32, u32>>);

    impl Asking {
        fn ask(&self, task: u32) -> Receiver<Outcome<(u32, Clock)>> {
            let (answer, answered) = sync_channel(1);
            self.0.send(Message::Ask { seat: (task % 10) as usize, at: Instant::now(), task, answer }).unwrap();
            answered
        }

        fn leave(&self, seat: usize) {
            self.0.send(Message::Leave { seat }).unwrap();
        }
    }

    fn result(answer: Receiver<Outcome<(u32, Clock)>>) -> Outcome<u32> {
        answer.recv().unwrap().map(|(result, _)| result)
    }

    /// Serves what is `first` asked, all of it before the service opens, then what `clips` ask; the batches.
    fn served<F>(
        least: Duration,
        work: impl Fn(&[u32]) -> Outcome<Vec<u32>> + Send,
        first: impl FnOnce(&Asking) -> F,
        clips: impl FnOnce(&Asking, F),
    ) -> Vec<Vec<u32>> {
        let (asking, asked) = channel();
        let asking = Asking(asking);
        let first = first(&asking);
        thread::scope(|scope| {
            let batches = scope.spawn(move || {
                let mut batches = Vec::new();
                let work = |tasks: &[u32], clock: &mut Clock| {
                    clock.add(Phase::Denoise, Duration::from_secs(tasks.len() as u64));
                    batches.push(tasks.to_vec());
                    work(tasks)
                };
                serve(work, &asked, least);
                batches
            });
            clips(&asking, first);
            drop(asking);
            batches.join().unwrap()
        })
    }

    fn double(tasks: &[u32]) -> Outcome<Vec<u32>> {
        Ok(tasks.iter().map(|task| 2 * task).collect())
    }

    #[test]
    fn clips_that_come_back_meet_in_one_batch() {
        let three = |asking: &Asking, round: u32| [1, 2, 3].map(|clip| asking.ask(10 * round + clip));
        let batches = served(
            FOR_EVER,
            double,
            |asking| three(asking, 1),
            |asking, mut asked| {
                for round in 1..4 {
                    for (clip, answer) in (1..).zip(asked) {
                        let (result, clock) = answer.recv().unwrap().unwrap();
                        assert_eq!(result, 2 * (10 * round + clip));
                        assert_eq!(clock.secs(Phase::Denoise), 1.0, "its share of three seconds");
                    }
                    asked = three(asking, round + 1);
                }
            },
        );
        assert_eq!(batches, [vec![11, 12, 13], vec![21, 22, 23], vec![31, 32, 33], vec![41, 42, 43]]);
    }

    #[test]
    fn clips_that_began_apart_meet_afterwards() {
        let batches = served(
            FOR_EVER,
            double,
            |asking| asking.ask(11),
            |asking, first| {
                result(first).unwrap();
                // The second is new: it is the first that is waited for.
                let new = asking.ask(12);
                let again = asking.ask(21);
                assert_eq!([new, again].map(|answer| result(answer).unwrap()), [24, 42]);
            },
        );
        assert_eq!(batches, [vec![11], vec![12, 21]]);
    }

    #[test]
    fn a_batch_begins_without_those_who_do_not_come() {
        let batches = served(
            Duration::from_millis(1),
            double,
            |asking| [asking.ask(11), asking.ask(12)],
            |asking, both| {
                assert_eq!(both.map(|answer| result(answer).unwrap()), [22, 24]);
                assert_eq!(result(asking.ask(21)).unwrap(), 42);
            },
        );
        assert_eq!(batches, [vec![11, 12], vec![21]]);
    }

    #[test]
    fn nobody_waits_for_those_who_have_left() {
        let batches = served(
            FOR_EVER,
            double,
            |asking| [asking.ask(11), asking.ask(12), asking.ask(13)],
            |asking, all| {
                assert_eq!(all.map(|answer| result(answer).unwrap()), [22, 24, 26]);
                let start = Instant::now();
                asking.leave(2);
                let third = asking.ask(21);
                asking.leave(3);
                assert_eq!(result(third).unwrap(), 42);
                assert!(start.elapsed() < FOR_EVER / 2);
            },
        );
        assert_eq!(batches, [vec![11, 12, 13], vec![21]]);
    }

    #[test]
    fn an_error_reaches_every_clip_of_its_batch_and_the_next_batch_runs() {
        let work = |tasks: &[u32]| match tasks {
            [17, ..] => Err(Error::OutOfMemory { detail: "out of memory".into() }),
            tasks => double(tasks),
        };
        let batches = served(
            FOR_EVER,
            work,
            |asking| [asking.ask(17), asking.ask(18)],
            |asking, both| {
                assert!(both.map(result).iter().all(|done| matches!(done, Err(Error::OutOfMemory { .. }))));
                let next = [asking.ask(27), asking.ask(28)];
                assert_eq!(next.map(|answer| result(answer).unwrap()), [54, 56]);
            },
        );
        assert_eq!(batches, [[17, 18], [27, 28]]);
    }

    #[test]
    fn a_defect_ends_the_clips_of_its_batch_with_its_own_words() {
        let work = |tasks: &[u32]| match tasks {
            [17, ..] => panic!("a defect"),
            tasks => double(tasks),
        };
        served(
            FOR_EVER,
            work,
            |asking| asking.ask(17),
            |asking, first| {
                let error = result(first).unwrap_err();
                assert!(matches!(&error, Error::Internal { .. }) && error.to_string().contains("a defect"), "{error}");
                assert_eq!(result(asking.ask(27)).unwrap(), 54);
            },
        );
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
