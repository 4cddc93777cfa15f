//! The loop over clips: parallel, journaled, resumable, with a verdict for each. It does not know what a clip is made
//! from.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::atomic::remove_partials;
use crate::clip::CLIP_FORMAT;
use crate::error::DataError;
use crate::index::Index;
use crate::prepare::journal::Journal;
use crate::prepare::packer::{Packer, loose_file, remove_empty_folders};
use crate::prepare::{ClipReport, PrepareReport, Progress, ProgressFn};

/// Where clips come from.
pub(crate) trait Producer: Sync {
    /// How many there are.
    fn num_clips(&self) -> usize;

    /// `split/corpus/speaker/name` of one.
    fn key(&self, clip: usize) -> String;

    /// Hash of everything that decides the result for it.
    fn fingerprint(&self, clip: usize) -> String;

    /// Writes the clip as `key.safetensors` below `out`, or says why not. An error is not the clip's fault and ends
    /// the run.
    fn make(&self, clip: usize, fingerprint: String, out: &Path) -> Result<ClipReport, DataError>;
}

/// How a run goes, whatever the clips are made from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RunOptions {
    /// Clips at a time; 0 for one on each core.
    pub(crate) num_threads: usize,
    /// Bytes of clips in a shard; 0 for a file for each clip.
    pub(crate) shard_bytes: u64,
}

/// Makes all clips of a producer that are not there yet, then index and report. `shaping` tells all options that shape
/// the clips: a folder holds clips of one kind only.
pub(crate) fn run(
    producer: &dyn Producer,
    out: &Path,
    shaping: String,
    options: RunOptions,
    progress: &mut ProgressFn<'_>,
) -> Result<PrepareReport, DataError> {
    let keys: Vec<String> = (0..producer.num_clips()).map(|clip| producer.key(clip)).collect();
    let mut seen = HashSet::new();
    if let Some(twice) = keys.iter().find(|key| !seen.insert(key.as_str())) {
        let detail = format!("two clips are named {twice}; change the name of one");
        return Err(DataError::Parameter { stage: "prepare", detail });
    }
    let journal = Journal::open(out, &shaping)?;
    remove_partials(out)?;
    for entry in journal.in_shards() {
        // A kill came between the shard and the end of the files that went into it.
        let _ = std::fs::remove_file(out.join(loose_file(&entry.clip)));
    }
    // By name, so that shards do not depend on the order of the list and hold one split each.
    let mut order: Vec<usize> = (0..keys.len()).collect();
    order.sort_by(|a, b| keys[*a].cmp(&keys[*b]));
    let packer = Packer::new(options.shard_bytes, order.len());
    let total = order.len();
    let job = Job {
        producer,
        keys,
        order,
        out,
        next: AtomicUsize::new(0),
        stop: AtomicBool::new(false),
        state: Mutex::new(State { journal, packer, progress, finished: 0, resumed: 0, failure: None }),
    };
    let num_threads = match options.num_threads {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        given => given,
    };
    std::thread::scope(|scope| {
        for _ in 0..num_threads.min(total) {
            scope.spawn(|| job.work());
        }
    });
    let mut state = job.state.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner());
    if let Some(failure) = state.failure {
        return Err(failure);
    }
    if state.finished < total {
        return Err(DataError::Cancelled { finished: state.finished, total });
    }
    state.packer.flush(&mut state.journal, out)?;
    remove_empty_folders(out, state.journal.in_shards());
    let resumed = state.resumed;
    let reports = state.journal.close()?;
    let entries = reports.iter().filter_map(|report| report.entry.clone()).collect();
    Index { format: CLIP_FORMAT.into(), options: shaping, clips: entries }.write(out)?;
    let report = PrepareReport { clips: reports, resumed, made: total - resumed };
    report.write(out)?;
    Ok(report)
}

struct State<'a, 'p> {
    journal: Journal,
    packer: Packer,
    progress: &'a mut ProgressFn<'p>,
    finished: usize,
    resumed: usize,
    failure: Option<DataError>,
}

struct Job<'a, 'p> {
    producer: &'a dyn Producer,
    keys: Vec<String>,
    order: Vec<usize>,
    out: &'a Path,
    next: AtomicUsize,
    stop: AtomicBool,
    state: Mutex<State<'a, 'p>>,
}

impl<'a, 'p> Job<'a, 'p> {
    fn work(&self) {
        while !self.stop.load(Ordering::Relaxed) {
            let position = self.next.fetch_add(1, Ordering::Relaxed);
            let Some(clip) = self.order.get(position) else { return };
            if let Err(failure) = self.clip(position, *clip) {
                self.stop.store(true, Ordering::Relaxed);
                self.lock().failure.get_or_insert(failure);
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State<'a, 'p>> {
        // A callback that panics has told so by itself; the state stays usable.
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn clip(&self, position: usize, clip: usize) -> Result<(), DataError> {
        let fingerprint = self.producer.fingerprint(clip);
        let earlier = self.lock().journal.find(&self.keys[clip], &fingerprint, self.out);
        let resumed = earlier.is_some();
        let report = match earlier {
            Some(report) => report,
            None => self.producer.make(clip, fingerprint, self.out)?,
        };
        let mut guard = self.lock();
        let state = &mut *guard;
        if !resumed {
            state.journal.add(&report)?;
        }
        let loose = report.entry.as_ref().filter(|entry| !entry.is_in_shard());
        state.packer.finish(position, loose.cloned(), &mut state.journal, self.out)?;
        state.finished += 1;
        state.resumed += usize::from(resumed);
        let progress = Progress { finished: state.finished, total: self.order.len(), clip: &report };
        if (state.progress)(&progress).is_break() {
            self.stop.store(true, Ordering::Relaxed);
        }
        Ok(())
    }
}

/// A callback that never stops the work.
#[cfg(test)]
pub(crate) fn go_on(_: &Progress<'_>) -> std::ops::ControlFlow<()> {
    std::ops::ControlFlow::Continue(())
}
