//! The verdicts as they fall, one line of JSON each, so that a killed run loses no finished clip.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use crate::atomic::write_whole;
use crate::error::DataError;
use crate::prepare::verdict::{ClipReport, Verdict};

const JOURNAL_FILE: &str = "journal.jsonl";
const LOCK_FILE: &str = ".lock";
const STAGE: &str = "journal";

/// An open journal. One process at a time may hold it.
pub(super) struct Journal {
    path: PathBuf,
    file: File,
    options: String,
    reports: BTreeMap<String, ClipReport>,
    _lock: File,
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
        let path = folder.join(JOURNAL_FILE);
        let text = match std::fs::read(&path) {
            Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(io(&path, error)),
        };
        let mut lines = text.lines();
        if let Some(earlier) = lines.next().and_then(|line| serde_json::from_str(line).ok()) {
            let earlier: String = earlier;
            if earlier != options {
                let detail = format!(
                    "{folder:?} was prepared with other options ({earlier}; now {options}); give \
                     another folder or delete it"
                );
                return Err(DataError::Parameter { stage: "prepare", detail });
            }
        }
        // A line cut off by a kill is no verdict: its clip is prepared again.
        let reports = lines
            .filter_map(|line| serde_json::from_str::<ClipReport>(line).ok())
            .map(|report| (report.clip.clone(), report))
            .collect();
        // Written anew, so that it ends with a whole line.
        write_all(&path, options, &reports)?;
        let file = File::options().append(true).open(&path).map_err(|error| io(&path, error))?;
        Ok(Journal { path, file, options: options.to_owned(), reports, _lock: lock })
    }

    /// The verdict of an earlier run, if it still holds.
    pub(super) fn find(&self, clip: &str, fingerprint: &str, out: &Path) -> Option<ClipReport> {
        let report = self.reports.get(clip)?;
        let same = report.fingerprint == fingerprint && report.verdict != Verdict::Failed;
        let there = report
            .entry
            .as_ref()
            .is_none_or(|entry| std::fs::metadata(out.join(&entry.file)).is_ok_and(|m| m.len() == entry.num_bytes));
        (same && there).then(|| report.clone())
    }

    /// Adds a verdict.
    pub(super) fn add(&mut self, report: &ClipReport) -> Result<(), DataError> {
        let mut line = to_json(report)?;
        line.push('\n');
        self.file.write_all(line.as_bytes()).map_err(|error| DataError::io(STAGE, &self.path, error))?;
        self.reports.insert(report.clip.clone(), report.clone());
        Ok(())
    }

    /// Writes the journal with one line per clip and hands out all verdicts, by clip name.
    pub(super) fn close(self) -> Result<Vec<ClipReport>, DataError> {
        write_all(&self.path, &self.options, &self.reports)?;
        Ok(self.reports.into_values().collect())
    }
}

fn to_json<T: serde::Serialize + ?Sized>(value: &T) -> Result<String, DataError> {
    serde_json::to_string(value).map_err(|error| DataError::Internal { stage: STAGE, detail: error.to_string() })
}

fn write_all(path: &Path, options: &str, reports: &BTreeMap<String, ClipReport>) -> Result<(), DataError> {
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
