//! Signs of life: a small file of each process, written again and again, by which the others know that it works.

use crate::error::{TrainError, TrainResult};
use serde::{Deserialize, Serialize};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// Time between two signs.
pub(super) const PERIOD: Duration = Duration::from_millis(500);

/// What a process is doing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum State {
    /// It prepares, computes or waits.
    Working,
    /// It has done the last step.
    Done,
    /// It was asked to stop, and has.
    Stopped,
    /// It has ended early, in its words.
    Failed(String),
}

/// Content of the file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Sign {
    /// Drawn when the process began.
    pub(super) process: String,
    /// The process of rank 0 that it works with; its own for rank 0, empty while none was found.
    pub(super) session: String,
    /// Counts up; a file whose count stands still is of a process that is gone.
    pub(super) beat: u64,
    pub(super) state: State,
}

/// The file of a rank.
pub(super) fn file_of(exchange: &Path, rank: usize) -> PathBuf {
    exchange.join(format!("rank-{rank}.json"))
}

/// Writes a file that is whole whenever it is there.
pub(super) fn write_json(path: &Path, value: &impl Serialize, own: &str) -> TrainResult<()> {
    let io = |error: &dyn std::fmt::Display| TrainError::io(path, error);
    let text = serde_json::to_string(value).map_err(|e| io(&e))?;
    // Beside it, under a name that no other process takes.
    let partial = path.with_extension(format!("{own}.partial"));
    fs::write(&partial, text).and_then(|()| fs::rename(&partial, path)).map_err(|e| io(&e))
}

/// This process's signs, written by a thread of its own, so that a long step is no silence.
pub(super) struct Beat {
    sign: Arc<Mutex<Sign>>,
    path: PathBuf,
    thread: Option<(Sender<()>, JoinHandle<()>)>,
}

fn lock(sign: &Mutex<Sign>) -> MutexGuard<'_, Sign> {
    sign.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Beat {
    pub(super) fn start(path: PathBuf, sign: Sign) -> TrainResult<Self> {
        write_json(&path, &sign, &sign.process)?;
        let sign = Arc::new(Mutex::new(sign));
        let (stop, stopped) = mpsc::channel();
        let (kept, file) = (sign.clone(), path.clone());
        let thread = std::thread::spawn(move || {
            while stopped.recv_timeout(PERIOD) == Err(RecvTimeoutError::Timeout) {
                let mut sign = lock(&kept);
                sign.beat += 1;
                // A disk that is full shows where the work writes; the next sign may come through.
                let _ = write_json(&file, &*sign, &sign.process);
            }
        });
        Ok(Self { sign, path, thread: Some((stop, thread)) })
    }

    pub(super) fn process(&self) -> String {
        lock(&self.sign).process.clone()
    }

    /// Says at once which session the process works in.
    pub(super) fn enter(&self, session: &str) -> TrainResult<()> {
        let mut sign = lock(&self.sign);
        sign.session = session.to_owned();
        sign.beat += 1;
        write_json(&self.path, &*sign, &sign.process)
    }

    /// The last sign; none after it, and no second end.
    pub(super) fn end(&mut self, state: State) {
        let Some((stop, thread)) = self.thread.take() else { return };
        drop(stop);
        // It cannot panic, and if it did, what counts is the sign below.
        let _ = thread.join();
        let mut sign = lock(&self.sign);
        sign.beat += 1;
        sign.state = state;
        // Nobody is left to be told: the others will notice the silence.
        let _ = write_json(&self.path, &*sign, &sign.process);
    }
}

impl Drop for Beat {
    fn drop(&mut self) {
        self.end(State::Failed("ended before its last step".into()));
    }
}

/// Looks at another process's signs.
pub(super) struct Watch {
    path: PathBuf,
    looked: bool,
    last: Option<Sign>,
    /// Its file has changed under our eyes: what an earlier run has left does not.
    alive: bool,
    /// The process that was first believed.
    process: Option<String>,
    /// When the last sign that counts was seen, by our clock.
    since: f64,
}

impl Watch {
    pub(super) fn new(path: PathBuf, now: f64) -> Self {
        Self { path, looked: false, last: None, alive: false, process: None, since: now }
    }

    /// The process's sign if it is of the session; for any session (`None`), only once the file was seen to change.
    pub(super) fn look(&mut self, session: Option<&str>, now: f64) -> Option<Sign> {
        // A file that is not there, or of another version, says nothing.
        let sign: Option<Sign> = fs::read(&self.path).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
        let changed = sign != self.last;
        self.alive |= self.looked && changed;
        (self.looked, self.last) = (true, sign);
        let alive = self.alive;
        let sign = self.last.clone().filter(|sign| session.map_or(alive, |own| own == sign.session))?;
        if changed {
            self.since = now;
        }
        self.process.get_or_insert_with(|| sign.process.clone());
        Some(sign)
    }

    /// Settles on a process, whatever was seen before.
    pub(super) fn settle(&mut self, process: &str) {
        self.process = Some(process.to_owned());
    }

    /// Whether the sign comes from another process than the first one did.
    pub(super) fn is_another(&self, sign: &Sign) -> bool {
        self.process.as_ref().is_some_and(|first| *first != sign.process)
    }

    /// Seconds since the last sign that counts.
    pub(super) fn silence(&self, now: f64) -> f64 {
        now - self.since
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sign(process: &str, session: &str) -> Sign {
        Sign { process: process.into(), session: session.into(), beat: 0, state: State::Working }
    }

    #[test]
    fn only_a_file_that_changes_is_a_sign_of_life() {
        let folder = tempfile::tempdir().unwrap();
        let path = file_of(folder.path(), 1);
        // What a process that was killed has left.
        write_json(&path, &sign("old", "s"), "old").unwrap();
        let mut watch = Watch::new(path.clone(), 0.0);
        assert_eq!((watch.look(None, 1.0), watch.look(None, 9.0), watch.look(Some("t"), 9.0)), (None, None, None));
        assert_eq!(watch.silence(9.0), 9.0);
        write_json(&path, &sign("new", "t"), "new").unwrap();
        assert_eq!(watch.look(Some("s"), 10.0), None, "of another session");
        assert_eq!(watch.silence(10.0), 10.0);
        write_json(&path, &sign("new", "s"), "new").unwrap();
        let seen = watch.look(Some("s"), 11.0).unwrap();
        assert_eq!(watch.look(None, 12.0).as_ref(), Some(&seen));
        assert!(!watch.is_another(&seen) && watch.silence(12.0) == 1.0);
        assert!(watch.is_another(&sign("newer", "s")));
    }

    #[test]
    fn the_end_is_told_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = file_of(folder.path(), 0);
        let read = || serde_json::from_slice::<Sign>(&fs::read(&path).unwrap()).unwrap();
        let mut beat = Beat::start(path.clone(), sign("p", "p")).unwrap();
        beat.enter("q").unwrap();
        assert_eq!((read().session, read().state), ("q".into(), State::Working));
        beat.end(State::Done);
        drop(beat);
        assert_eq!(read().state, State::Done);
        drop(Beat::start(path.clone(), sign("p", "p")).unwrap());
        assert!(matches!(read().state, State::Failed(_)));
    }
}
