//! The verdicts as they fall, one line of JSON each, so that a killed run loses no finished clip.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::atomic::write_whole;
use crate::error::DataError;
use crate::index::ClipEntry;
use crate::prepare::verdict::{ClipReport, Verdict};
use crate::shard::{Place, shard_number};

const JOURNAL_FILE: &str = "journal.jsonl";
const LOCK_FILE: &str = ".lock";
const STAGE: &str = "journal";

type Reports = BTreeMap<String, ClipReport>;

/// An open journal. One process at a time may hold it.
pub(super) struct Journal {
    path: PathBuf,
    file: File,
    options: String,
    reports: Reports,
    _lock: Lock,
}

/// A folder held against other runs.
struct Lock(File);

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing it would not do: a child process that another thread is just starting still has it open.
        let _ = self.0.unlock();
    }
}

/// A line that moves clips into a shard: one line, so that a kill leaves all of it or nothing.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ShardLine {
    shard: String,
    clips: Vec<Place>,
}

impl ShardLine {
    fn apply(&self, reports: &mut Reports) {
        for place in &self.clips {
            if let Some(entry) = reports.get_mut(&place.clip).and_then(|report| report.entry.as_mut()) {
                place.put_into(entry, &self.shard);
            }
        }
    }
}

impl Journal {
    /// Opens or begins the journal of a folder.
    pub(super) fn open(folder: &Path, options: &str) -> Result<Self, DataError> {
        let io = |path: &Path, error| DataError::io(STAGE, path, error);
        std::fs::create_dir_all(folder).map_err(|error| io(folder, error))?;
        let lock_path = folder.join(LOCK_FILE);
        let lock = File::create(&lock_path).map_err(|error| io(&lock_path, error))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(std::fs::TryLockError::WouldBlock) => {
                let detail = format!("another run is writing into {folder:?}; wait for it or give another folder");
                return Err(DataError::Parameter { stage: "prepare", detail });
            }
            Err(std::fs::TryLockError::Error(error)) => return Err(io(&lock_path, error)),
        }
        let lock = Lock(lock);
        let path = folder.join(JOURNAL_FILE);
        let (earlier, reports) = read(&path)?;
        if let Some(earlier) = earlier.filter(|earlier| earlier != options) {
            let detail = format!(
                "{folder:?} was prepared with other options ({earlier}; now {options}); give another folder or delete it"
            );
            return Err(DataError::Parameter { stage: "prepare", detail });
        }
        // Written anew, so that it ends with a whole line.
        write_all(&path, options, &reports)?;
        let file = File::options().append(true).open(&path).map_err(|error| io(&path, error))?;
        Ok(Journal { path, file, options: options.to_owned(), reports, _lock: lock })
    }

    /// The verdict of an earlier run, if it still holds.
    pub(super) fn find(&self, clip: &str, fingerprint: &str, out: &Path) -> Option<ClipReport> {
        let report = self.reports.get(clip)?;
        let same = report.fingerprint == fingerprint && report.verdict != Verdict::Failed;
        let there = report.entry.as_ref().is_none_or(|entry| entry.is_there(out));
        (same && there).then(|| report.clone())
    }

    /// All clips that lie in shards.
    pub(super) fn in_shards(&self) -> impl Iterator<Item = &ClipEntry> {
        self.reports.values().filter_map(|report| report.entry.as_ref()).filter(|entry| entry.is_in_shard())
    }

    /// The number of the next shard of a split.
    pub(super) fn next_shard(&self, split: &str) -> usize {
        let numbers = self.in_shards().filter_map(|entry| shard_number(&entry.file));
        numbers.filter(|(of, _)| *of == split).map(|(_, number)| number + 1).max().unwrap_or(0)
    }

    /// Adds a verdict.
    pub(super) fn add(&mut self, report: &ClipReport) -> Result<(), DataError> {
        self.append(&to_json(report)?)?;
        self.reports.insert(report.clip.clone(), report.clone());
        Ok(())
    }

    /// Moves clips into a shard that has been written.
    pub(super) fn add_shard(&mut self, shard: &str, clips: Vec<Place>) -> Result<(), DataError> {
        let line = ShardLine { shard: shard.to_owned(), clips };
        self.append(&to_json(&line)?)?;
        line.apply(&mut self.reports);
        Ok(())
    }

    fn append(&mut self, line: &str) -> Result<(), DataError> {
        let line = format!("{line}\n");
        self.file.write_all(line.as_bytes()).map_err(|error| DataError::io(STAGE, &self.path, error))
    }

    /// Writes the journal with one line per clip and hands out all verdicts, by clip name.
    pub(super) fn close(self) -> Result<Vec<ClipReport>, DataError> {
        write_all(&self.path, &self.options, &self.reports)?;
        Ok(self.reports.into_values().collect())
    }
}

/// Options and verdicts in a journal; nothing if there is none. A line cut off by a kill is passed over: its clip is
/// prepared, or its shard written, again.
fn read(path: &Path) -> Result<(Option<String>, Reports), DataError> {
    let text = match std::fs::read(path) {
        Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(DataError::io(STAGE, path, error)),
    };
    let mut lines = text.lines();
    let options = lines.next().and_then(|line| serde_json::from_str(line).ok());
    let mut reports = Reports::new();
    for line in lines {
        if let Ok(report) = serde_json::from_str::<ClipReport>(line) {
            reports.insert(report.clip.clone(), report);
        } else if let Ok(shard) = serde_json::from_str::<ShardLine>(line) {
            shard.apply(&mut reports);
        }
    }
    Ok((options, reports))
}

/// The verdicts of a folder that is only read, by clip name.
pub(super) fn read_reports(folder: &Path) -> Result<Vec<ClipReport>, DataError> {
    Ok(read(&folder.join(JOURNAL_FILE))?.1.into_values().collect())
}

fn to_json<T: Serialize + ?Sized>(value: &T) -> Result<String, DataError> {
    serde_json::to_string(value).map_err(|error| DataError::Internal { stage: STAGE, detail: error.to_string() })
}

fn write_all(path: &Path, options: &str, reports: &Reports) -> Result<(), DataError> {
    let mut lines = vec![to_json(options)?];
    for report in reports.values() {
        lines.push(to_json(report)?);
    }
    write_whole(path, |file| lines.iter().try_for_each(|line| writeln!(file, "{line}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(clip: &str, verdict: Verdict) -> ClipReport {
        ClipReport {
            clip: clip.into(),
            source: "a b".into(),
            verdict,
            reason: "line\nbreak".into(),
            fingerprint: "f".into(),
            entry: None,
        }
    }

    #[test]
    fn verdicts_survive_a_kill_in_the_middle_of_a_line() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path();
        let mut journal = Journal::open(out, "options").unwrap();
        journal.add(&report("a", Verdict::NoFace)).unwrap();
        journal.add(&report("b", Verdict::Failed)).unwrap();
        assert!(matches!(Journal::open(out, "options"), Err(DataError::Parameter { .. })), "locked");
        drop(journal);
        let path = out.join(JOURNAL_FILE);
        let mut file = File::options().append(true).open(&path).unwrap();
        file.write_all(b"{\"clip\":\"c\",\"sou").unwrap();
        let mut journal = Journal::open(out, "options").unwrap();
        assert!(journal.find("a", "f", out).is_some());
        assert!(journal.find("a", "g", out).is_none(), "the source changed");
        assert!(journal.find("b", "f", out).is_none(), "failures are tried again");
        assert!(journal.find("c", "f", out).is_none());
        journal.add(&report("c", Verdict::NoAudio)).unwrap();
        assert_eq!(journal.close().unwrap().len(), 3);
        let other = Journal::open(out, "other options");
        assert!(matches!(other, Err(DataError::Parameter { .. })));
    }
}
