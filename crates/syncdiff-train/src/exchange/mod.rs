//! One training run over several processes, which share nothing but the run folder.
//!
//! A step is cut into parts, whatever computes them (see [`crate::Shard`]). Every process computes its share of them,
//! writes each into a file of `exchange/SESSION/step-S`, waits for the others' files and adds all of them up in the
//! order of the parts, itself included: the sum has the same bits as that of one process, and so have the weights of
//! all of them after the step. That all parts of a step are there proves that everyone has read those of the step
//! before, which then go.
//!
//! A session is one start of rank 0. Whatever an earlier one has left is never read. Rank 0 says at which step the
//! session begins, keeps the log, looks at held-out data and saves; the others load the same checkpoint.

mod part;
mod signs;

use crate::error::{TrainError, TrainResult};
use crate::trainer::{Clock, Part};
use burn::module::Module;
use part::Names;
use serde::{Deserialize, Serialize};
use signs::{Beat, PERIOD, Sign, State, Watch};
use std::collections::BTreeMap;
use std::fs;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Folder in the run folder.
const FOLDER: &str = "exchange";
/// Longest pause between two looks for a file.
const LONGEST_PAUSE: Duration = Duration::from_millis(20);

/// Which of how many processes this one is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Share {
    /// Number of this process, from 0; rank 0 writes log, checkpoints and result.
    pub rank: usize,
    /// Number of processes.
    pub processes: usize,
    /// Seconds without a sign of life from another process after which the run ends.
    pub patience: f64,
}

impl Share {
    fn check(&self) -> TrainResult<()> {
        let wrong = |name, value: String, allowed: String| Err(TrainError::Parameter { name, value, allowed });
        let Self { rank, processes, patience } = *self;
        if processes < 2 {
            return wrong("processes", processes.to_string(), "at least 2 share a run".into());
        }
        if rank >= processes {
            return wrong("rank", rank.to_string(), format!("0 to {} of {processes} processes", processes - 1));
        }
        let least = 4.0 * PERIOD.as_secs_f64();
        if !patience.is_finite() || patience < least {
            return wrong("patience", patience.to_string(), format!("at least {least} seconds"));
        }
        Ok(())
    }

    /// The parts of a step that are this process's; a batch of `batch_size` samples is cut into `count` parts, a
    /// multiple of `threads`.
    pub(crate) fn parts(&self, batch_size: usize, threads: usize, count: usize) -> TrainResult<Range<usize>> {
        if !count.is_multiple_of(self.processes) {
            let fits = |parts: &usize| batch_size.is_multiple_of(*parts) && parts.is_multiple_of(self.processes);
            let remedy = match (1..=batch_size).map(|accumulate| accumulate * threads).find(fits) {
                Some(parts) => format!("set options.accumulate = {}", parts / threads),
                None => format!("choose a batch_size that is a multiple of {}", self.processes * threads),
            };
            return Err(TrainError::Parameter {
                name: "processes",
                value: self.processes.to_string(),
                allowed: format!(
                    "the {count} parts of a step of {batch_size} samples cannot be shared out equally; {remedy}"
                ),
            });
        }
        let each = count / self.processes;
        Ok(self.rank * each..(self.rank + 1) * each)
    }
}

/// What rank 0 says about the run, so that no other run's process joins in.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct About {
    processes: usize,
    identity: BTreeMap<String, String>,
}

/// Where the session begins.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Start {
    step: u64,
}

/// A file that says only that something is done.
#[derive(Serialize, Deserialize)]
struct Finished {}

/// The other processes of a run, as one of them sees them.
pub struct Partners<'a> {
    share: Share,
    exchange: PathBuf,
    session: String,
    clock: Clock<'a>,
    beat: Beat,
    /// By rank; the own one is never looked at.
    watches: Vec<Watch>,
    names: Names,
    steps: u64,
}

/// What came of waiting.
enum Waited<T> {
    Found(T),
    /// The other process was asked to stop, and has.
    Stopped,
}

impl<'a> Partners<'a> {
    /// Joins the processes of a run: rank 0 opens a session, the others look for it. `identity` is what must be equal
    /// among them, by name; `steps` are those of the whole run.
    ///
    /// # Errors
    /// [`TrainError::Parameter`] for a share that cannot be, or a rank 0 of another run; [`TrainError::Partner`] when
    /// rank 0 gives no sign of life; [`TrainError::Io`].
    pub fn join(
        run: &Path,
        share: Share,
        identity: BTreeMap<String, String>,
        steps: u64,
        clock: Clock<'a>,
    ) -> TrainResult<Self> {
        share.check()?;
        let exchange = run.join(FOLDER);
        fs::create_dir_all(&exchange).map_err(|e| TrainError::io(&exchange, e))?;
        // No part of what is computed: it only tells processes apart.
        let process = format!("{:016x}", RandomState::new().build_hasher().finish());
        let about = About { processes: share.processes, identity };
        let session = if share.rank == 0 {
            clean(&exchange, share.processes)?;
            let folder = exchange.join(&process);
            fs::create_dir(&folder).map_err(|e| TrainError::io(&folder, e))?;
            signs::write_json(&folder.join("about.json"), &about, &process)?;
            process.clone()
        } else {
            String::new()
        };
        let sign = Sign { process, session: session.clone(), beat: 0, state: State::Working };
        let beat = Beat::start(signs::file_of(&exchange, share.rank), sign)?;
        let now = clock();
        let watches = (0..share.processes).map(|rank| Watch::new(signs::file_of(&exchange, rank), now)).collect();
        let mut partners = Self { share, exchange, session, clock, beat, watches, names: Names::default(), steps };
        if share.rank > 0 {
            partners.find_session(&about)?;
        }
        Ok(partners)
    }

    /// Whether this is rank 0.
    pub fn leads(&self) -> bool {
        self.share.rank == 0
    }

    /// The parts of a step that are this process's.
    pub(crate) fn parts(&self, batch_size: usize, threads: usize, count: usize) -> TrainResult<Range<usize>> {
        self.share.parts(batch_size, threads, count)
    }

    fn find_session(&mut self, about: &About) -> TrainResult<()> {
        let path = signs::file_of(&self.exchange, 0);
        let begun = (self.clock)();
        self.session = loop {
            let now = (self.clock)();
            if let Some(sign) = self.watches[0].look(None, now)
                && sign.state == State::Working
            {
                break sign.session;
            }
            if now - begun > self.share.patience {
                return Err(self.lost(0, "gives no sign of life", "before the first step", &path, now - begun));
            }
            std::thread::sleep(LONGEST_PAUSE);
        };
        self.watches[0].settle(&self.session);
        self.beat.enter(&self.session)?;
        let theirs: About = self.wait_for_word("about.json")?;
        let ours = |name: &String| about.identity.get(name);
        let other =
            theirs.identity.iter().find(|(name, value)| ours(name) != Some(value)).map(|(name, _)| name.clone());
        let other = other.or((theirs.processes != about.processes).then(|| "number of processes".to_owned()));
        match other {
            None => Ok(()),
            Some(what) => Err(TrainError::Parameter {
                name: "rank",
                value: self.share.rank.to_string(),
                allowed: format!(
                    "rank 0 of {} has another {what}; give all processes the same arguments but --rank and --device",
                    self.exchange.display()
                ),
            }),
        }
    }

    /// Has rank 0 do something first, alone; the others do it when it is done, and find its results.
    pub(crate) fn after_leader<T>(&mut self, name: &str, work: impl FnOnce() -> TrainResult<T>) -> TrainResult<T> {
        let file = format!("{name}.json");
        if !self.leads() {
            let Finished {} = self.wait_for_word(&file)?;
            return work();
        }
        let result = work()?;
        self.say(&file, &Finished {})?;
        Ok(result)
    }

    /// Rank 0 says at which step the session begins; the others are told.
    pub(crate) fn agree_on_start(&mut self, step: impl FnOnce() -> u64) -> TrainResult<u64> {
        const FILE: &str = "start.json";
        if self.leads() {
            let step = step();
            self.say(FILE, &Start { step })?;
            return Ok(step);
        }
        let start: Start = self.wait_for_word(FILE)?;
        Ok(start.step)
    }

    fn say(&self, file: &str, word: &impl Serialize) -> TrainResult<()> {
        signs::write_json(&self.exchange.join(&self.session).join(file), word, &self.beat.process())
    }

    /// A file of rank 0.
    fn wait_for_word<T: for<'t> Deserialize<'t>>(&mut self, file: &str) -> TrainResult<T> {
        let path = self.exchange.join(&self.session).join(file);
        match self.wait(0, "before the first step", &path)? {
            Waited::Found(()) => {
                let bytes = fs::read(&path).map_err(|e| TrainError::io(&path, e))?;
                serde_json::from_slice(&bytes).map_err(|e| TrainError::io(&path, e))
            }
            Waited::Stopped => Err(TrainError::Stopped { step: 0, steps: self.steps }),
        }
    }

    /// Writes one of this process's parts of a step; `weights` are the digest of the model.
    pub(crate) fn give<M: Module>(
        &self,
        model: &M,
        step: u64,
        weights: u64,
        index: usize,
        part: &Part,
    ) -> TrainResult<()> {
        let folder = self.folder_of(step);
        fs::create_dir_all(&folder).map_err(|e| TrainError::io(&folder, e))?;
        part::write(&file_of_part(&folder, index), model, weights, part)
    }

    /// Hands all `count` parts of a step over, in their order; then those of the step before go. `false` when rank 0
    /// was asked to stop before the step.
    pub(crate) fn take<M: Module>(
        &mut self,
        model: &M,
        step: u64,
        weights: u64,
        count: usize,
        mut add: impl FnMut(Part),
    ) -> TrainResult<bool> {
        let folder = self.folder_of(step);
        let each = count / self.share.processes;
        for index in 0..count {
            let path = file_of_part(&folder, index);
            match self.wait(index / each, &format!("step {step}"), &path)? {
                Waited::Found(()) => add(part::read(&path, model, weights, &mut self.names)?),
                Waited::Stopped => return Ok(false),
            }
        }
        if let Some(before) = step.checked_sub(1) {
            let folder = self.folder_of(before);
            for index in self.share.rank * each..(self.share.rank + 1) * each {
                // Not there in the first step of a session; what stays for another reason goes with the session.
                let _ = fs::remove_file(file_of_part(&folder, index));
            }
            // Only the last one finds it empty.
            let _ = fs::remove_dir(&folder);
        }
        Ok(true)
    }

    /// A number that differs when any value of the model does.
    pub(crate) fn digest<M: Module>(model: &M) -> u64 {
        part::digest(model)
    }

    fn folder_of(&self, step: u64) -> PathBuf {
        self.exchange.join(&self.session).join(format!("step-{step}"))
    }

    /// Waits for a file of another process as long as it is alive.
    fn wait(&mut self, rank: usize, at: &str, path: &Path) -> TrainResult<Waited<()>> {
        let begun = (self.clock)();
        let mut pause = Duration::from_millis(1);
        loop {
            // First the sign, then the file: what it wrote before its last sign is there now.
            let now = (self.clock)();
            let sign = if rank == self.share.rank { None } else { self.watches[rank].look(Some(&self.session), now) };
            if path.exists() {
                return Ok(Waited::Found(()));
            }
            let silence = self.watches[rank].silence(now).min(now - begun);
            let (whom, reason) = match sign {
                Some(sign) if self.watches[rank].is_another(&sign) => (rank, "was started a second time".to_owned()),
                Some(Sign { state: State::Stopped, .. }) => return Ok(Waited::Stopped),
                Some(Sign { state: State::Failed(reason), .. }) => (rank, reason),
                Some(Sign { state: State::Done, .. }) => (rank, "has ended its run".to_owned()),
                _ if !self.leads() && self.is_replaced(now) => (0, "was started anew".to_owned()),
                _ if silence > self.share.patience => (rank, "gives no sign of life".to_owned()),
                _ => {
                    std::thread::sleep(pause);
                    pause = (2 * pause).min(LONGEST_PAUSE);
                    continue;
                }
            };
            return Err(self.lost(whom, &reason, at, path, now - begun));
        }
    }

    /// Whether rank 0 now belongs to another session.
    fn is_replaced(&mut self, now: f64) -> bool {
        self.watches[0].look(None, now).is_some_and(|sign| sign.session != self.session)
    }

    fn lost(&self, rank: usize, reason: &str, at: &str, path: &Path, seconds: f64) -> TrainError {
        TrainError::Partner {
            rank,
            processes: self.share.processes,
            reason: reason.to_owned(),
            at: at.to_owned(),
            path: path.to_path_buf(),
            seconds,
        }
    }

    /// Tells the others how this process has ended; rank 0 then waits for them and tidies up.
    pub(crate) fn end<T>(&mut self, result: &TrainResult<T>, done: impl FnOnce(&T) -> bool) {
        let state = match result {
            Ok(trained) if done(trained) => State::Done,
            Ok(_) => State::Stopped,
            Err(error) => State::Failed(format!("ended with an error ({error})")),
        };
        let well = !matches!(state, State::Failed(_));
        self.beat.end(state);
        if !(self.leads() && well) {
            return;
        }
        let (begun, session) = ((self.clock)(), self.session.clone());
        for rank in 1..self.share.processes {
            // They have all that they need; one that is gone meanwhile takes nothing from the result.
            while (self.clock)() - begun < self.share.patience {
                let sign = self.watches[rank].look(Some(&session), (self.clock)());
                if sign.is_some_and(|sign| sign.state != State::Working) {
                    break;
                }
                std::thread::sleep(LONGEST_PAUSE);
            }
        }
        // What stays is cleaned away by the next session.
        let _ = fs::remove_dir_all(self.exchange.join(&session));
        for rank in 0..self.share.processes {
            let _ = fs::remove_file(signs::file_of(&self.exchange, rank));
        }
        let _ = fs::remove_dir(&self.exchange);
    }
}

fn file_of_part(folder: &Path, index: usize) -> PathBuf {
    folder.join(format!("part-{index}.safetensors"))
}

/// Removes earlier sessions, and signs of ranks that this one has not.
fn clean(exchange: &Path, processes: usize) -> TrainResult<()> {
    let io = |e| TrainError::io(exchange, e);
    for entry in fs::read_dir(exchange).map_err(io)? {
        let path = entry.map_err(io)?.path();
        if path.is_dir() {
            fs::remove_dir_all(&path).map_err(|e| TrainError::io(&path, e))?;
        }
    }
    for rank in processes.. {
        if fs::remove_file(signs::file_of(exchange, rank)).is_err() {
            break;
        }
    }
    Ok(())
}
