//! Rows of earlier runs: taken again where everything that they depend on is the same.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use syncdiff::report::write_json;
use syncdiff::{Error, Outcome};
use syncdiff_eval::Row;
use syncdiff_model::weights::sha256_of_file;

use super::jobs::Job;

/// To be raised with every change of a figure or of a row.
const FORMAT: u32 = 3;

/// A row as it is kept.
#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    /// SHA-256 of all that the row depends on.
    inputs: String,
    row: Row,
}

/// The folder of rows.
#[derive(Debug)]
pub(super) struct Shelf {
    folder: PathBuf,
    /// Settings and networks.
    identity: String,
    fresh: bool,
}

impl Shelf {
    /// Opens the folder; it is made where it is not there.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub(super) fn open(out: &Path, identity: String, fresh: bool) -> Outcome<Self> {
        let folder = out.join("clips");
        std::fs::create_dir_all(&folder).map_err(|cause| Error::io("eval", &folder, cause))?;
        Ok(Shelf { folder, identity, fresh })
    }

    /// The name of all that a row depends on: content of the inputs, settings, networks. `makes` are the inputs of
    /// clips that are generated here, whose own content is theirs. None where a file cannot be read.
    pub(super) fn key(&self, job: &Job, makes: Option<&Path>) -> Option<String> {
        let mut hash = Sha256::new();
        let mut add = |bytes: &[u8]| {
            hash.update((bytes.len() as u64).to_le_bytes());
            hash.update(bytes);
        };
        add(&FORMAT.to_le_bytes());
        add(syncdiff::VERSION.as_bytes());
        add(self.identity.as_bytes());
        add(format!("{:?}", (&job.clip, &job.speaker, &job.corpus, &job.transcript, &job.read)).as_bytes());
        add(format!("{:?}", (&job.generated, &job.reference)).as_bytes());
        let first = if makes.is_some() { makes } else { Some(job.generated.as_path()) };
        for path in [first, Some(job.reference.as_path()), job.speech.as_deref()] {
            match path {
                Some(path) => add(sha256_of_file(path).ok()?.as_bytes()),
                None => add(&[]),
            }
        }
        Some(hex(&hash.finalize()))
    }

    fn place(&self, job: &Job) -> PathBuf {
        self.folder.join(format!("{}.json", job.file_name()))
    }

    /// The row of an earlier run with this key, whose files are all there.
    pub(super) fn get(&self, job: &Job, key: Option<&str>) -> Option<Row> {
        let key = key.filter(|_| !self.fresh)?;
        let kept: Kept = serde_json::from_slice(&std::fs::read(self.place(job)).ok()?).ok()?;
        let there = job.generated.is_file() && kept.row.files.values().all(|path| Path::new(path).is_file());
        (kept.inputs == key && there).then_some(kept.row)
    }

    /// Keeps a row that was scored.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub(super) fn put(&self, job: &Job, key: Option<&str>, row: &Row) -> Outcome<()> {
        match key {
            Some(key) if row.failure.is_none() => {
                write_json(&self.place(job), &Kept { inputs: key.to_owned(), row: row.clone() })
            }
            _ => Ok(()),
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_taken_again_only_while_nothing_changed() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        std::fs::write(path("a.mp4"), "a").unwrap();
        std::fs::write(path("b.mp4"), "b").unwrap();
        let job = Job { clip: "a".into(), generated: path("a.mp4"), reference: path("b.mp4"), ..Job::default() };
        let shelf = |identity: &str, fresh| Shelf::open(folder.path(), identity.into(), fresh).unwrap();
        let first = shelf("one", false);
        let key = first.key(&job, None).unwrap();
        let row = Row { clip: "a".into(), pairs: 7, ..Row::default() };
        first.put(&job, Some(&key), &row).unwrap();
        assert_eq!(first.get(&job, Some(&key)), Some(row));
        assert_eq!(shelf("one", true).get(&job, Some(&key)), None);
        assert_ne!(shelf("two", false).key(&job, None).unwrap(), key);
        assert_ne!(first.key(&Job { read: Some(String::new()), ..job.clone() }, None).unwrap(), key);
        std::fs::write(path("b.mp4"), "c").unwrap();
        assert_ne!(first.key(&job, None).unwrap(), key);
        std::fs::remove_file(path("a.mp4")).unwrap();
        assert_eq!(first.key(&job, None), None);
        let failed = Row { failure: Some("x".into()), ..Row::default() };
        let other = Job { clip: "z".into(), ..job };
        first.put(&other, Some("k"), &failed).unwrap();
        assert!(first.get(&other, Some("k")).is_none());
    }
}
