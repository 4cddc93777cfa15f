//! The clips of a manifest, one after the other or several at once, with one engine.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Instant;

use serde_json::json;
use syncdiff::progress::Cancel;
use syncdiff::report::Report;
use syncdiff::{Engine, Error, GenerateSettings, ModelSettings, Outcome};

use super::{check_memory, make, manifest, resolve_clip, summary};
use crate::cli::GenerateArgs;
use crate::terminal::{Display, ProgressKind, event, in_clauses, say};

const STAGE: &str = "generate";

/// Makes all clips. One that fails does not keep the others from being made, unless that is wished.
///
/// # Errors
/// Those of the manifest and of the engine. What happens to clips is told, and makes the exit code.
pub(super) fn run(model: &ModelSettings, path: &Path, args: &GenerateArgs, cancel: &Cancel) -> Outcome<u8> {
    let clips = manifest::read(path, &resolve_clip(args.clone()))?;
    let jobs = usize::from(args.jobs.unwrap_or(1)).min(clips.len());
    let engine = Engine::new(model)?.together(jobs);
    check_memory(&engine)?;
    if args.progress.is_json() {
        let text = format!("syncdiff {}: {} clips of {path:?}", syncdiff::VERSION, clips.len());
        event(&json!({
            "event": "start", "version": syncdiff::VERSION, "clips": clips.len(), "model": model, "text": text,
        }));
    }
    let board = Board::new(clips.len(), args);
    let work = || {
        while let Some(at) = board.next(cancel) {
            let clip = &clips[at];
            if args.skip_existing && clip.out.is_file() {
                board.put(at, clip, Ok(None));
                continue;
            }
            let mut display = Display::of_clip(args.progress, at + 1, jobs == 1);
            // A defect that one clip brings to light ends that clip only.
            let made = catch_unwind(AssertUnwindSafe(|| make(&engine, clip, &mut display.watch(cancel.clone()))));
            drop(display);
            board.put(at, clip, made.unwrap_or_else(|panic| Err(Error::of_panic(STAGE, &*panic))).map(Some));
        }
    };
    thread::scope(|scope| (0..jobs).for_each(|_| drop(scope.spawn(work))));
    Ok(board.finish())
}

/// What the workers share.
struct Board {
    count: usize,
    progress: ProgressKind,
    fail_fast: bool,
    start: Instant,
    next: AtomicUsize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    made: usize,
    skipped: usize,
    /// Ended by the wish to stop.
    stopped: usize,
    frames: usize,
    /// Number and exit code of the clips that failed.
    failed: Vec<(usize, u8)>,
}

impl Board {
    fn new(count: usize, args: &GenerateArgs) -> Self {
        Board {
            count,
            progress: args.progress,
            fail_fast: args.fail_fast,
            start: Instant::now(),
            next: AtomicUsize::new(0),
            state: Mutex::default(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next clip; none after the last, or when no further one is to begin.
    fn next(&self, cancel: &Cancel) -> Option<usize> {
        // What the model or the memory lacks, it lacks for every clip.
        let in_vain = |(_, code): &(usize, u8)| self.fail_fast || matches!(code, 5 | 6);
        if cancel.check().is_err() || self.state().failed.iter().any(in_vain) {
            return None;
        }
        Some(self.next.fetch_add(1, Ordering::Relaxed)).filter(|at| *at < self.count)
    }

    /// Tells of a clip that is done: made, there already, or failed.
    fn put(&self, at: usize, clip: &GenerateSettings, made: Outcome<Option<Report>>) {
        let mut state = self.state();
        let (mut value, text) = match &made {
            Ok(Some(report)) => {
                state.made += 1;
                state.frames += report.output.frames;
                (json!({"status": "made", "report": report}), summary(report))
            }
            Ok(None) => {
                state.skipped += 1;
                (json!({"status": "skipped"}), "is there already".to_owned())
            }
            Err(Error::Cancelled) => {
                state.stopped += 1;
                return;
            }
            Err(error) => {
                state.failed.push((at, error.exit_code()));
                let message = error.to_string();
                (json!({"status": "failed", "code": error.exit_code(), "message": message}), message)
            }
        };
        let line = format!("{}/{} {}: {text}", at + 1, self.count, clip.out.display());
        if self.progress.is_json() {
            value["event"] = json!("clip");
            value["clip"] = json!(at + 1);
            value["output"] = json!(clip.out);
            value["text"] = json!(line);
            event(&value);
        } else {
            if self.progress != ProgressKind::None || made.is_err() {
                eprintln!("{}", if made.is_err() { in_clauses(&line) } else { line });
            }
            for warning in made.iter().flatten().flat_map(|report| &report.warnings) {
                eprintln!("warning: {}: {warning}", clip.out.display());
            }
        }
        if made.is_ok() {
            say(&clip.out.to_string_lossy());
        }
    }

    /// Tells of all clips. The exit code is that of the first in the manifest that failed.
    fn finish(&self) -> u8 {
        let state = self.state();
        let secs = self.start.elapsed().as_secs_f64();
        let not_begun = self.count - state.made - state.skipped - state.stopped - state.failed.len();
        let code = match state.failed.iter().min() {
            Some((_, code)) => *code,
            None if state.stopped + not_begun > 0 => Error::Cancelled.exit_code(),
            None => 0,
        };
        let mut parts = vec![format!("{} of {} clips made", state.made, self.count)];
        for (count, what) in [
            (state.skipped, "there already"),
            (state.failed.len(), "failed"),
            (state.stopped, "stopped on request"),
            (not_begun, "not begun"),
        ] {
            parts.extend((count > 0).then(|| format!("{count} {what}")));
        }
        let text = format!("{}; {} frames in {secs:.1} s", parts.join(", "), state.frames);
        if self.progress.is_json() {
            let ends = if code == 0 { "success" } else { "failure" };
            event(&json!({
                "event": ends, "code": code, "message": text, "made": state.made, "skipped": state.skipped,
                "failed": state.failed.len(), "stopped": state.stopped, "not_begun": not_begun, "frames": state.frames,
                "seconds": secs, "text": text,
            }));
        } else if self.progress != ProgressKind::None {
            eprintln!("{text}");
        }
        code
    }
}
