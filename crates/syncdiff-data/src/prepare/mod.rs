//! From media files to prepared clips: parallel over clips, resumable, with a verdict for each.

mod finish;
mod journal;
mod one;
mod timeline;
mod verdict;

use std::collections::HashSet;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use sha2::{Digest, Sha256};
use syncdiff_face::{FaceModels, MODEL_FILES, RIGID_POINTS, SmoothOptions, TEMPLATE, TrackerOptions};
use syncdiff_media::{ReadOptions, Tools};

use crate::atomic::remove_partials;
use crate::clip::{CLIP_FORMAT, hex};
use crate::error::DataError;
use crate::index::Index;
use crate::manifest::ClipSource;
use journal::Journal;

pub use verdict::{ClipReport, PrepareReport, REPORT_FILE, Verdict};

/// How clips are prepared.
#[derive(Clone, Copy, Debug)]
pub struct PrepareOptions {
    /// Side of the crops in pixels, a multiple of 4 from 32 to 1024.
    pub crop_size: usize,
    /// A clip with fewer usable frames is not kept.
    pub min_valid_frames: usize,
    /// A longer clip (in frames at 25 a second) is not kept; it bounds the memory of a thread, and
    /// the size of a file.
    pub max_frames: usize,
    /// Clips at a time; 0 for one on each core.
    pub num_threads: usize,
    /// How faces are followed: as in generation.
    pub tracker: TrackerOptions,
    /// How the alignment is smoothed: as in generation.
    pub smooth: SmoothOptions,
    /// How frames are read.
    pub read: ReadOptions,
}

impl Default for PrepareOptions {
    /// Crops of 128 pixels, clips from 8 usable frames to two minutes, one on each core.
    fn default() -> Self {
        PrepareOptions {
            crop_size: 128,
            min_valid_frames: 8,
            max_frames: 3000,
            num_threads: 0,
            tracker: TrackerOptions::default(),
            smooth: SmoothOptions::default(),
            read: ReadOptions::default(),
        }
    }
}

impl PrepareOptions {
    fn check(&self) -> Result<(), DataError> {
        let wrong = |detail: String| Err(DataError::Parameter { stage: "prepare", detail });
        if !(32..=1024).contains(&self.crop_size) || !self.crop_size.is_multiple_of(4) {
            return wrong(format!("the crop size is {}; allowed are multiples of 4 from 32 to 1024", self.crop_size));
        }
        if self.min_valid_frames < 2 || self.max_frames < self.min_valid_frames {
            return wrong(format!(
                "at least {} and at most {} frames a clip; the least must be 2 or more, and not \
                 above the most",
                self.min_valid_frames, self.max_frames
            ));
        }
        Ok(())
    }

    /// All options that shape the files, as text: equal text, equal files.
    fn shaping(&self) -> String {
        let (track, smooth) = (&self.tracker, &self.smooth);
        format!(
            "{CLIP_FORMAT} geometry={} crop={} frames={}..={} faces={} detect={} reidentify={} \
             sigma={} bridge={}",
            geometry(),
            self.crop_size,
            self.min_valid_frames,
            self.max_frames,
            track.max_faces,
            track.detect_every,
            track.reidentify_frames,
            smooth.sigma_frames,
            smooth.bridge_frames
        )
    }
}

/// Hash of the template of the aligned crop and of the face models: crops that were cut by another
/// one must not be mixed with these.
fn geometry() -> String {
    let mut hash = Sha256::new();
    for (point, place) in RIGID_POINTS.iter().zip(&TEMPLATE) {
        hash.update((*point as u64).to_le_bytes());
        place.iter().for_each(|v| hash.update(v.to_le_bytes()));
    }
    MODEL_FILES.iter().for_each(|file| hash.update(file.sha256));
    hex(&hash.finalize()[..4])
}

/// Told after every clip.
#[derive(Clone, Copy, Debug)]
pub struct Progress<'a> {
    /// Clips that have their verdict.
    pub finished: usize,
    /// Clips asked for.
    pub total: usize,
    /// The clip that has just got its verdict.
    pub clip: &'a ClipReport,
}

/// Prepares clips into a folder: `split/corpus/speaker/name.safetensors` for each that is kept,
/// `report.tsv` with the verdict and its reason for every clip, and `index.json` for
/// [`crate::Dataset::open`].
///
/// Clips that have their verdict from an earlier run with the same source bytes are skipped, also
/// after a kill; several lists may be prepared into one folder one after the other. A clip that
/// cannot be used is an entry of the report, never an error. The memory is that of one clip per
/// thread; its frames are read a second time where they do not fit.
///
/// The callback may be called from several threads, one at a time, and stops the work with
/// [`ControlFlow::Break`]: clips under way are finished first.
///
/// # Errors
/// [`DataError::Parameter`] for options out of range, two clips of one name, or a folder that was
/// prepared with other options; [`DataError::Io`] and [`DataError::DiskFull`] for the output;
/// [`DataError::Media`] if ffmpeg is missing; [`DataError::Face`] if the face models cannot be used;
/// [`DataError::Cancelled`].
pub fn prepare(
    tools: &Tools,
    models: &FaceModels,
    clips: &[ClipSource],
    out: &Path,
    options: &PrepareOptions,
    progress: &mut (dyn FnMut(&Progress<'_>) -> ControlFlow<()> + Send),
) -> Result<PrepareReport, DataError> {
    options.check()?;
    tools.check()?;
    let mut keys = HashSet::new();
    if let Some(twice) = clips.iter().map(ClipSource::key).find(|key| !keys.insert(key.clone())) {
        let detail = format!("two clips are named {twice}; change the name of one");
        return Err(DataError::Parameter { stage: "prepare", detail });
    }
    let shaping = options.shaping();
    let journal = Journal::open(out, &shaping)?;
    remove_partials(out)?;
    let job = Job {
        tools,
        models,
        clips,
        out,
        options,
        next: AtomicUsize::new(0),
        stop: AtomicBool::new(false),
        state: Mutex::new(State { journal, progress, finished: 0, resumed: 0, failure: None }),
    };
    let num_threads = match options.num_threads {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        given => given,
    };
    std::thread::scope(|scope| {
        for _ in 0..num_threads.min(clips.len()) {
            scope.spawn(|| job.work());
        }
    });
    let state = job.state.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner());
    if let Some(failure) = state.failure {
        return Err(failure);
    }
    if state.finished < clips.len() {
        return Err(DataError::Cancelled { finished: state.finished, total: clips.len() });
    }
    let resumed = state.resumed;
    let reports = state.journal.close()?;
    let entries = reports.iter().filter_map(|report| report.entry.clone()).collect();
    Index { format: CLIP_FORMAT.into(), options: shaping, clips: entries }.write(out)?;
    let report = PrepareReport { clips: reports, resumed };
    report.write(out)?;
    Ok(report)
}

struct State<'a> {
    journal: Journal,
    progress: &'a mut (dyn FnMut(&Progress<'_>) -> ControlFlow<()> + Send),
    finished: usize,
    resumed: usize,
    failure: Option<DataError>,
}

struct Job<'a> {
    tools: &'a Tools,
    models: &'a FaceModels,
    clips: &'a [ClipSource],
    out: &'a Path,
    options: &'a PrepareOptions,
    next: AtomicUsize,
    stop: AtomicBool,
    state: Mutex<State<'a>>,
}

impl<'a> Job<'a> {
    fn work(&self) {
        while !self.stop.load(Ordering::Relaxed) {
            let at = self.next.fetch_add(1, Ordering::Relaxed);
            let Some(source) = self.clips.get(at) else { return };
            if let Err(failure) = self.clip(source) {
                self.stop.store(true, Ordering::Relaxed);
                self.lock().failure.get_or_insert(failure);
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State<'a>> {
        // A callback that panics has told so by itself; the state stays usable.
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn clip(&self, source: &ClipSource) -> Result<(), DataError> {
        let fingerprint = fingerprint(source, &self.options.shaping());
        let earlier = self.lock().journal.find(&source.key(), &fingerprint, self.out);
        let resumed = earlier.is_some();
        let report = match earlier {
            Some(report) => report,
            None => one::prepare_clip(self.tools, self.models, source, self.options, self.out, fingerprint)?,
        };
        let mut state = self.lock();
        if !resumed {
            state.journal.add(&report)?;
        }
        state.finished += 1;
        state.resumed += usize::from(resumed);
        let progress = Progress { finished: state.finished, total: self.clips.len(), clip: &report };
        if (state.progress)(&progress).is_break() {
            self.stop.store(true, Ordering::Relaxed);
        }
        Ok(())
    }
}

/// Hash of everything that decides the result for a clip. A source that cannot be read has its own
/// value, so that a file that appears later is taken up.
fn fingerprint(source: &ClipSource, shaping: &str) -> String {
    let mut hash = Sha256::new();
    for part in [shaping, &source.key(), &source.transcript, &source.licence, &source.origin] {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    let hashed = std::fs::File::open(&source.path).and_then(|mut file| std::io::copy(&mut file, &mut hash).map(|_| ()));
    if hashed.is_err() {
        hash.update("unreadable");
    }
    hex(&hash.finalize()[..16])
}
