//! A prepared folder into another one with shards of another size, or with none.

use std::collections::HashSet;
use std::path::Path;

use crate::atomic::write_whole;
use crate::error::DataError;
use crate::index::{ClipEntry, Index};
use crate::prepare::journal::read_reports;
use crate::prepare::packer::loose_file;
use crate::prepare::work::{Producer, RunOptions, run};
use crate::prepare::{ClipReport, PrepareReport, ProgressFn, Verdict};

/// Copies a prepared folder, of this version or an earlier one, into another folder with shards of `shard_bytes`
/// (0: a file for each clip). Clips keep their bytes. May be stopped, killed and run again, as [`crate::prepare`].
///
/// # Errors
/// [`DataError::BadFile`] with the clip's name if one is damaged, [`DataError::Parameter`] if both folders are one or
/// the second holds other data; [`DataError::Io`], [`DataError::DiskFull`], [`DataError::Cancelled`].
pub fn repack(
    from: &Path,
    out: &Path,
    shard_bytes: u64,
    progress: &mut ProgressFn<'_>,
) -> Result<PrepareReport, DataError> {
    let index = Index::read(from)?;
    std::fs::create_dir_all(out).map_err(|error| DataError::io("repack", out, error))?;
    if from.canonicalize().ok() == out.canonicalize().ok() {
        let detail = format!("{from:?} cannot be packed into itself; give another folder with --out");
        return Err(DataError::Parameter { stage: "repack", detail });
    }
    let mut reports = read_reports(from)?;
    // The index decides what there is; the journal adds what became of the other clips.
    let indexed: HashSet<&str> = index.clips.iter().map(|entry| entry.clip.as_str()).collect();
    reports.retain(|report| report.entry.is_none() || indexed.contains(report.clip.as_str()));
    let known: HashSet<String> = reports.iter().map(|report| report.clip.clone()).collect();
    let missing = index.clips.iter().filter(|entry| !known.contains(&entry.clip));
    reports.extend(missing.map(|entry| report_of(entry, from)));
    let copy = Copy { from, reports };
    // The disk is the bound here, not the processor.
    run(&copy, out, index.options, RunOptions { num_threads: 1, shard_bytes }, progress)
}

/// What is known of a clip without a journal.
fn report_of(entry: &ClipEntry, from: &Path) -> ClipReport {
    ClipReport {
        clip: entry.clip.clone(),
        source: from.join(&entry.file).display().to_string(),
        verdict: if entry.num_valid == entry.num_frames { Verdict::Kept } else { Verdict::KeptInPart },
        reason: String::new(),
        fingerprint: entry.content.clone(),
        entry: Some(entry.clone()),
    }
}

struct Copy<'a> {
    from: &'a Path,
    reports: Vec<ClipReport>,
}

impl Producer for Copy<'_> {
    fn num_clips(&self) -> usize {
        self.reports.len()
    }

    fn key(&self, clip: usize) -> String {
        self.reports[clip].clip.clone()
    }

    fn fingerprint(&self, clip: usize) -> String {
        self.reports[clip].fingerprint.clone()
    }

    fn make(&self, clip: usize, _fingerprint: String, out: &Path) -> Result<ClipReport, DataError> {
        let mut report = self.reports[clip].clone();
        if let Some(entry) = &mut report.entry {
            let bytes = entry.read("repack", self.from)?;
            entry.file = loose_file(&entry.clip);
            entry.offset = 0;
            write_whole(&out.join(&entry.file), |file| file.write_all(&bytes))?;
        }
        Ok(report)
    }
}

#[cfg(test)]
mod tests {
    use std::ops::ControlFlow;

    use super::*;
    use crate::dataset::Dataset;
    use crate::dataset::tests::folder_of;
    use crate::prepare::work::go_on;

    /// All files of a folder with their bytes.
    fn files(folder: &Path) -> Vec<(String, Vec<u8>)> {
        let mut found = Vec::new();
        let mut open = vec![folder.to_path_buf()];
        while let Some(next) = open.pop() {
            for entry in std::fs::read_dir(next).unwrap().flatten() {
                match entry.path() {
                    path if path.is_dir() => open.push(path),
                    path => found.push((
                        path.strip_prefix(folder).unwrap().display().to_string(),
                        std::fs::read(&path).unwrap(),
                    )),
                }
            }
        }
        found.sort();
        found
    }

    fn contents(folder: &Path) -> Vec<(String, Vec<u8>)> {
        let data = Dataset::open(folder, 0).unwrap();
        (0..data.clips().len())
            .map(|clip| (data.clips()[clip].clip.clone(), data.load(clip).unwrap().frames().to_vec()))
            .collect()
    }

    #[test]
    fn loose_clips_become_shards_and_loose_again() {
        let (old, entries) = folder_of(&[("a", 6, None), ("b", 5, None), ("b", 4, None), ("c", 6, None)]);
        let (shards, loose) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let two = entries[0].num_bytes + entries[1].num_bytes;
        let report = repack(old.path(), shards.path(), two, &mut go_on).unwrap();
        assert_eq!((report.made, report.resumed), (4, 0));
        let names: Vec<String> = files(shards.path()).into_iter().map(|(name, _)| name).collect();
        assert_eq!(
            names,
            [".lock", "index.json", "journal.jsonl", "report.tsv", "train-000000.tar", "train-000001.tar"]
                .map(str::to_owned)
        );
        assert_eq!(contents(shards.path()), contents(old.path()));
        // A second run changes nothing.
        let before = files(shards.path());
        assert_eq!(repack(old.path(), shards.path(), two, &mut go_on).unwrap().resumed, 4);
        assert_eq!(files(shards.path()), before);
        repack(shards.path(), loose.path(), 0, &mut go_on).unwrap();
        assert_eq!(contents(loose.path()), contents(old.path()));
        for entry in &entries {
            let file = |folder: &Path| std::fs::read(folder.join(&entry.file)).unwrap();
            assert_eq!(file(loose.path()), file(old.path()));
        }
        assert!(matches!(repack(old.path(), old.path(), two, &mut go_on), Err(DataError::Parameter { .. })));
    }

    #[test]
    fn stopped_at_any_clip_and_run_again_it_ends_as_one_run() {
        let (old, entries) =
            folder_of(&[("a", 6, None), ("a", 6, None), ("b", 5, None), ("b", 4, None), ("c", 9, None)]);
        let two = entries[0].num_bytes * 2;
        let whole = tempfile::tempdir().unwrap();
        repack(old.path(), whole.path(), two, &mut go_on).unwrap();
        for stop_after in 1..5 {
            let parts = tempfile::tempdir().unwrap();
            let mut stop = |progress: &crate::Progress<'_>| match progress.finished == stop_after {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            };
            assert!(matches!(repack(old.path(), parts.path(), two, &mut stop), Err(DataError::Cancelled { .. })));
            assert!(Dataset::open(parts.path(), 0).is_err(), "no index before the end");
            repack(old.path(), parts.path(), two, &mut go_on).unwrap();
            assert!(files(parts.path()) == files(whole.path()), "stopped after {stop_after}");
        }
    }

    #[test]
    fn the_clips_of_a_damaged_shard_are_named_and_the_others_load() {
        let (old, entries) = folder_of(&[("a", 6, None), ("a", 6, None), ("b", 5, None), ("c", 6, None)]);
        let out = tempfile::tempdir().unwrap();
        let two = entries[0].num_bytes * 2;
        repack(old.path(), out.path(), two, &mut go_on).unwrap();
        let data = Dataset::open(out.path(), 0).unwrap();
        assert!(data.damaged().is_empty());
        // One byte inside the second clip of the first shard.
        let hit = &data.clips()[1];
        let path = out.path().join(&hit.file);
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[(hit.offset + hit.num_bytes / 2) as usize] ^= 1;
        std::fs::write(&path, &bytes).unwrap();
        // The second shard ends in the middle of its last clip.
        let cut = &data.clips()[3];
        let shard = std::fs::File::options().write(true).open(out.path().join(&cut.file)).unwrap();
        shard.set_len(cut.offset + cut.num_bytes / 2).unwrap();
        let damaged: Vec<String> = data
            .damaged()
            .into_iter()
            .map(|(entry, error)| {
                let text = error.to_string();
                assert!(text.contains(&entry.clip) && text.contains(".tar"), "{text}");
                entry.clip.clone()
            })
            .collect();
        assert_eq!(damaged, [hit.clip.clone(), cut.clip.clone()]);
        assert!(data.load(0).is_ok() && data.load(1).is_err() && data.load(2).is_ok() && data.load(3).is_err());
        // A shard that is gone or cut off is made good by the next run, without the clips that are still there.
        let again = repack(old.path(), out.path(), two, &mut go_on).unwrap();
        assert_eq!((again.resumed, again.made), (3, 1));
        let data = Dataset::open(out.path(), 0).unwrap();
        assert_eq!(data.damaged().len(), 1, "only the flipped byte is left");
    }
}
