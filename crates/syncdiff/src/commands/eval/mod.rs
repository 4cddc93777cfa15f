//! `syncdiff eval`: clips of any system, or of this one, scored by one and the same code.
//!
//! ```text
//! jobs      = folders, a table, or the split of a manifest
//! row       = kept, or generator.make + score_clip          one worker a core, each with its own judges
//! report    = rows + means with intervals                   figures.json, figures.csv, summary.md, report.html
//! ```

mod args;
mod generator;
mod html;
mod instruments;
mod jobs;
mod kept;
mod report;
mod worker;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread::available_parallelism;
use std::time::Instant;

use syncdiff::device::resolve;
use syncdiff::progress::Cancel;
use syncdiff::{Error, Outcome};
use syncdiff_eval::{Group, Row, summarise};
use syncdiff_media::Tools;
use syncdiff_model::reader::GridReader;
use syncdiff_model::scorers::OwnSyncNet;

pub(crate) use args::EvalArgs;
use generator::Generator;
pub(crate) use generator::{SCORED_CRF, choose, scored_clip};
use instruments::Shelf as Networks;
use kept::Shelf as Rows;
pub(crate) use report::csv_cell;
use report::{Fid, Report};
use worker::Worker;

use crate::folders;
use crate::terminal::say;

/// Some clip could not be scored.
const SOME_FAILED: u8 = 3;

pub(crate) fn run(args: &EvalArgs, cancel: &Cancel) -> Outcome<u8> {
    let wanted = args.wanted()?;
    if let Some(judge) = &args.judge {
        OwnSyncNet::about(judge)?;
    }
    if let Some(reader) = &args.reader {
        GridReader::about(reader)?;
    }
    // What is wrong with judge and features shows before the work, not after it.
    let fid = wanted.groups.contains(&Group::Fid).then(|| Fid::of(args.features.as_deref())).transpose()?;
    let weights =
        args.manifest.as_ref().map(|_| folders::weights(args.weights.as_deref(), &args.preset)).transpose()?;
    let (jobs, others) = match (&args.manifest, &args.pairs, &args.generated, &args.reference) {
        (Some(manifest), _, _, _) => generator::jobs(args, manifest)?,
        (_, Some(table), _, _) => (jobs::of_table(table)?, Vec::new()),
        (_, _, Some(generated), Some(reference)) => (jobs::of_folders(generated, reference)?, Vec::new()),
        _ => {
            return Err(Error::usage("no clips are named", "give --generated and --reference, --pairs, or --manifest"));
        }
    };
    std::fs::create_dir_all(&args.out).map_err(|cause| Error::io("eval", &args.out, cause))?;
    let tools = Tools::default();
    tools.check()?;
    let networks = Networks::find(&wanted, args.judge.as_deref(), args.reader.as_deref());
    let mut identity = networks.identity();
    if let Some(weights) = &weights {
        identity += &generator::identity(args, weights);
    }
    let rows = Rows::open(&args.out, identity, args.fresh)?;
    let board = Board::new(jobs.len());
    let engine = weights.map(|weights| generator::engine(args, weights)).transpose()?;
    if let Some(engine) = &engine {
        // Weights that cannot be read are told at once, not for every clip.
        engine.sampler()?;
    }
    let worker = || -> Outcome<()> {
        let generator = engine.as_ref().map(|engine| Generator::new(args, engine, &tools, cancel, &jobs, &others));
        let instruments = networks.load(&resolve(args.device)?.0);
        board.tell_judges(instruments::judges(&instruments));
        let worker = Worker { tools: &tools, wanted: &wanted, instruments, generator, cancel };
        while let Some(at) = board.next() {
            let job = &jobs[at];
            let key = rows.key(job, others.get(at).map(|other| other.path.as_path()));
            let row = match rows.get(job, key.as_deref()) {
                Some(row) => row,
                None => {
                    let row = worker.row(job)?;
                    rows.put(job, key.as_deref(), &row)?;
                    row
                }
            };
            board.put(at, row);
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let workers = args.jobs.unwrap_or_else(|| available_parallelism().map_or(1, usize::from));
        for _ in 0..workers.clamp(1, jobs.len().max(1)) {
            scope.spawn(|| worker().unwrap_or_else(|error| board.fail(error)));
        }
    });
    let (rows, judges) = board.finish()?;
    let summary = summarise(&rows);
    let report = Report::new(&args.metrics, &wanted, &judges, &summary, fid.as_ref(), &rows);
    report.write(&args.out)?;
    html::write(&report, &args.out, args.copy_clips)?;
    say(&format!("\n{}", report.table()));
    say(&format!("report: {}", args.out.join("report.html").display()));
    Ok(if summary.failures > 0 { SOME_FAILED } else { 0 })
}

/// What the workers share.
struct Board {
    next: AtomicUsize,
    start: Instant,
    count: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    rows: Vec<Option<Row>>,
    judges: Vec<(String, String)>,
    failure: Option<Error>,
}

impl Board {
    fn new(count: usize) -> Self {
        let state = State { rows: vec![None; count], ..State::default() };
        Board { next: AtomicUsize::new(0), start: Instant::now(), count, state: Mutex::new(state) }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next job; none after the last, and when a worker had to stop.
    fn next(&self) -> Option<usize> {
        if self.state().failure.is_some() {
            return None;
        }
        Some(self.next.fetch_add(1, Ordering::Relaxed)).filter(|at| *at < self.count)
    }

    fn tell_judges(&self, judges: Vec<(String, String)>) {
        self.state().judges = judges;
    }

    fn put(&self, at: usize, row: Row) {
        let mut state = self.state();
        let text = line(&row);
        state.rows[at] = Some(row);
        let done = state.rows.iter().flatten().count();
        let left = self.start.elapsed().as_secs_f64() / done as f64 * (self.count - done) as f64;
        say(&format!("{done}/{} ({left:.0} s left) {text}", self.count));
    }

    fn fail(&self, error: Error) {
        self.state().failure.get_or_insert(error);
    }

    /// The rows in the order of the jobs, and who judged.
    fn finish(self) -> Outcome<(Vec<Row>, Judges)> {
        let state = self.state.into_inner().unwrap_or_else(PoisonError::into_inner);
        match state.failure {
            Some(error) => Err(error),
            None => Ok((state.rows.into_iter().flatten().collect(), state.judges)),
        }
    }
}

/// Name and description of each judge.
type Judges = Vec<(String, String)>;

/// A finished clip in a line.
fn line(row: &Row) -> String {
    if let Some(failure) = &row.failure {
        return format!("{}: failed: {failure}", row.clip);
    }
    let told = [
        ("crop96.psnr", "PSNR", 1),
        ("crop96.psnr_u8wrap", "wrapped", 1),
        ("crop96.ssim", "SSIM", 3),
        ("crop96.lpips_alex", "LPIPS", 3),
        ("sync.wild.lse_c", "LSE-C", 2),
        ("sync.own.lse_c", "own confidence", 2),
        ("lips.opening_correlation", "lip opening", 2),
        ("leak.opening_correlation", "with other speech", 2),
        ("full.ssim", "full SSIM", 3),
    ];
    let figures =
        told.into_iter().filter_map(|(key, name, digits)| Some(format!("{name} {:.digits$}", row.figures.get(key)?)));
    format!("{}: {}", row.clip, figures.collect::<Vec<_>>().join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_keep_the_order_of_the_jobs_whoever_is_first() {
        let board = Board::new(2);
        assert_eq!((board.next(), board.next(), board.next()), (Some(0), Some(1), None));
        let row = |clip: &str| Row { clip: clip.into(), ..Row::default() };
        board.put(1, row("b"));
        board.put(0, row("a"));
        let (rows, _) = board.finish().unwrap();
        assert_eq!(rows.iter().map(|row| row.clip.as_str()).collect::<Vec<_>>(), ["a", "b"]);
    }

    #[test]
    fn a_worker_that_had_to_stop_stops_the_others() {
        let board = Board::new(9);
        board.fail(Error::Cancelled);
        assert_eq!(board.next(), None);
        assert!(matches!(board.finish(), Err(Error::Cancelled)));
    }

    #[test]
    fn wrapped_decibels_never_stand_alone() {
        let mut row = Row { clip: "a".into(), ..Row::default() };
        row.figures.insert("crop96.psnr".into(), 20.0);
        row.figures.insert("crop96.psnr_u8wrap".into(), 30.0);
        assert_eq!(line(&row), "a: PSNR 20.0, wrapped 30.0");
    }
}
