//! Clips that are made at once draw their mouths as one batch: what a GPU wants, which one mouth does not fill.
//!
//! One thread draws for all. It waits for a frame of every clip that is drawing, but for no clip longer than the last
//! batch took: one that decodes a stretch without a face does not hold up the others.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use syncdiff_model::generate::{DrawnFrame, FrameSampler, FrameTask};

use crate::clock::Clock;
use crate::error::{Error, Outcome};
use crate::memory::guarded;
use crate::network::laps;

/// Draws for several clips.
pub struct Together {
    asking: Option<Sender<AskedFrame>>,
    seats: Arc<AtomicUsize>,
    drawing: Option<JoinHandle<()>>,
}

/// A clip's place among those that draw together; left when dropped.
pub struct Seat {
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
    /// Starts the thread that draws.
    ///
    /// # Errors
    /// A system without another thread.
    pub fn new(sampler: Arc<FrameSampler>) -> Outcome<Self> {
        let (asking, asked) = channel();
        let seats = Arc::new(AtomicUsize::new(0));
        let taken = Arc::clone(&seats);
        // A member of the pool of all cores for one batch after the other: it must not keep a place there while it waits.
        let draw = move |tasks: &[FrameTask], clock: &mut Clock| rayon::scope(|_| draw(&sampler, tasks, clock));
        let serve = move || serve(draw, &asked, &taken);
        let drawing = thread::Builder::new().name("draw".into()).spawn(serve).map_err(|error| Error::Internal {
            stage: "render",
            detail: format!("a thread cannot be started: {error}"),
        })?;
        Ok(Together { asking: Some(asking), seats, drawing: Some(drawing) })
    }

    /// Takes a place; none after the end.
    pub fn seat(&self) -> Option<Seat> {
        let asking = self.asking.clone()?;
        self.seats.fetch_add(1, Ordering::SeqCst);
        Some(Seat { asking, seats: Arc::clone(&self.seats) })
    }
}

impl Drop for Together {
    fn drop(&mut self) {
        // Without anybody who could ask, the thread ends.
        self.asking = None;
        if let Some(drawing) = self.drawing.take() {
            let _ = drawing.join();
        }
    }
}

impl Seat {
    /// Draws a frame with those of the other clips. `clock` gets its share of the batch's time.
    ///
    /// # Errors
    /// Those of the network.
    pub fn draw(&self, task: FrameTask, clock: &mut Clock) -> Outcome<DrawnFrame> {
        let gone = || Error::Internal { stage: "render", detail: "the thread that draws has ended".into() };
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
    loop {
        match guarded(|| Ok(sampler.draw(tasks, &mut laps(clock))?)) {
            Err(Error::OutOfMemory { .. }) if sampler.halve(tasks.len()) => {}
            drawn => return drawn,
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
        while tasks.len() < seats.load(Ordering::SeqCst) {
            match asked.recv_timeout(patience.saturating_sub(start.elapsed())) {
                Ok(Asked { task, answer }) => {
                    tasks.push(task);
                    answers.push(answer);
                }
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => break,
            }
        }
        let (start, mut clock) = (Instant::now(), Clock::default());
        let done = work(&tasks, &mut clock);
        patience = start.elapsed();
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
        error => Error::Internal { stage: "render", detail: error.to_string() },
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
                    clock.add(crate::clock::Phase::Denoise, Duration::from_secs(tasks.len() as u64));
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
                    assert_eq!(clock.secs(crate::clock::Phase::Denoise), 1.0, "its share of three seconds");
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
    fn a_defect_in_the_drawing_leaves_nobody_waiting() {
        let (asking, asked) = channel::<Asked<u32, u32>>();
        let thread = thread::spawn(move || serve(|_, _| panic!("a defect"), &asked, &AtomicUsize::new(1)));
        assert!(ask(&asking, 1).recv().is_err());
        assert!(thread.join().is_err());
        let (answer, _) = sync_channel(1);
        assert!(asking.send(Asked { task: 1, answer }).is_err());
    }
}
