//! From finished clips to shards, in the order of their names whatever the order in which they were finished.

use std::path::Path;

use crate::error::DataError;
use crate::index::ClipEntry;
use crate::prepare::journal::Journal;
use crate::shard::{shard_name, write_shard};

/// The file of a clip that is in no shard.
pub(crate) fn loose_file(clip: &str) -> String {
    format!("{clip}.safetensors")
}

/// The clips that wait for their shard.
pub(super) struct Packer {
    /// Bytes of clips in a shard; 0 leaves each in a file of its own.
    shard_bytes: u64,
    /// What has finished, by position: a clip in a file of its own, or nothing to pack.
    finished: Vec<Option<Option<ClipEntry>>>,
    /// All before this position have been handed on.
    next: usize,
    pending: Vec<ClipEntry>,
}

impl Packer {
    pub(super) fn new(shard_bytes: u64, num_clips: usize) -> Self {
        Packer { shard_bytes, finished: vec![None; num_clips], next: 0, pending: Vec::new() }
    }

    /// Takes the clip at a position; writes the shards that this completes.
    pub(super) fn finish(
        &mut self,
        position: usize,
        entry: Option<ClipEntry>,
        journal: &mut Journal,
        out: &Path,
    ) -> Result<(), DataError> {
        if self.shard_bytes == 0 {
            return Ok(());
        }
        self.finished[position] = Some(entry);
        while let Some(entry) = self.finished.get_mut(self.next).and_then(Option::take) {
            self.next += 1;
            if let Some(entry) = entry {
                self.add(entry, journal, out)?;
            }
        }
        Ok(())
    }

    fn add(&mut self, entry: ClipEntry, journal: &mut Journal, out: &Path) -> Result<(), DataError> {
        let held: u64 = self.pending.iter().map(|entry| entry.num_bytes).sum();
        let other_split = self.pending.first().is_some_and(|first| split(first) != split(&entry));
        if other_split || held + entry.num_bytes > self.shard_bytes {
            self.flush(journal, out)?;
        }
        self.pending.push(entry);
        Ok(())
    }

    /// Writes what waits into a shard, tells the journal, then removes the files that went into it. A kill between
    /// any two of these steps loses nothing: the next run repeats or skips them.
    pub(super) fn flush(&mut self, journal: &mut Journal, out: &Path) -> Result<(), DataError> {
        let Some(first) = self.pending.first() else { return Ok(()) };
        let name = shard_name(split(first), journal.next_shard(split(first)));
        let clips: Vec<&ClipEntry> = self.pending.iter().collect();
        let places = write_shard(&out.join(&name), out, &clips)?;
        journal.add_shard(&name, places)?;
        for entry in self.pending.drain(..) {
            let path = out.join(&entry.file);
            std::fs::remove_file(&path).map_err(|error| DataError::io("prepare", &path, error))?;
        }
        Ok(())
    }
}

/// The first part of the clip's name.
fn split(entry: &ClipEntry) -> &str {
    entry.clip.split('/').next().unwrap_or_default()
}

/// Removes the folders that packing has left empty. Only when no thread writes any more.
pub(super) fn remove_empty_folders<'a>(out: &Path, packed: impl Iterator<Item = &'a ClipEntry>) {
    let mut folders: Vec<&Path> = packed
        .flat_map(|entry| Path::new(&entry.clip).ancestors().skip(1))
        .filter(|path| *path != Path::new(""))
        .collect();
    folders.sort();
    folders.dedup();
    // The deepest first; a folder that holds anything stays.
    for folder in folders.iter().rev() {
        let _ = std::fs::remove_dir(out.join(folder));
    }
}
