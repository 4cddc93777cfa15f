//! A prepared folder, opened for reading: the index, and clips loaded when they are asked for.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use crate::clip::Clip;
use crate::error::DataError;
use crate::index::{ClipEntry, Index};

/// Which clips are meant; an empty list means all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClipFilter {
    /// Splits.
    pub splits: Vec<String>,
    /// Corpora.
    pub corpora: Vec<String>,
    /// Speakers.
    pub speakers: Vec<String>,
}

impl ClipFilter {
    /// All clips of one split.
    pub fn split(split: &str) -> Self {
        ClipFilter { splits: vec![split.to_owned()], ..ClipFilter::default() }
    }

    /// Does the clip fit?
    pub fn fits(&self, entry: &ClipEntry) -> bool {
        let listed = |list: &[String], value: &String| list.is_empty() || list.contains(value);
        listed(&self.splits, &entry.split)
            && listed(&self.corpora, &entry.corpus)
            && listed(&self.speakers, &entry.speaker)
    }
}

/// A prepared folder. Clips are read whole and kept, the least recently used leaving first, up to a
/// bound in bytes. May be shared by threads.
#[derive(Debug)]
pub struct Dataset {
    folder: PathBuf,
    clips: Vec<ClipEntry>,
    cache_bytes: usize,
    cache: Mutex<Cache>,
}

#[derive(Debug, Default)]
struct Cache {
    clips: HashMap<usize, (Arc<Clip>, u64)>,
    num_bytes: usize,
    clock: u64,
}

impl Dataset {
    /// Opens a prepared folder; `cache_bytes` bounds the clips kept in memory (those in use by the
    /// caller come on top). Only the index is read.
    ///
    /// # Errors
    /// [`DataError::Io`] without an index, [`DataError::BadFile`] if it is damaged,
    /// [`DataError::NoClips`] if it is empty.
    pub fn open(folder: &Path, cache_bytes: usize) -> Result<Self, DataError> {
        let clips = Index::read(folder)?.clips;
        if clips.is_empty() {
            let remedy = "its report.tsv says why no clip was kept";
            return Err(DataError::NoClips { path: folder.to_path_buf(), remedy });
        }
        Ok(Dataset { folder: folder.to_path_buf(), clips, cache_bytes, cache: Mutex::default() })
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// What is known of all clips, in the order of their names; the position is a clip's number.
    pub fn clips(&self) -> &[ClipEntry] {
        &self.clips
    }

    /// The numbers of the clips that fit, ascending.
    pub fn select(&self, filter: &ClipFilter) -> Vec<usize> {
        (0..self.clips.len()).filter(|at| filter.fits(&self.clips[*at])).collect()
    }

    /// The number of a clip by its name.
    pub fn find(&self, clip: &str) -> Option<usize> {
        self.clips.binary_search_by(|entry| entry.clip.as_str().cmp(clip)).ok()
    }

    /// A clip, from memory or from the disk.
    ///
    /// # Errors
    /// [`DataError::Io`] or [`DataError::BadFile`]; [`DataError::Parameter`] if there is no such
    /// number.
    pub fn load(&self, clip: usize) -> Result<Arc<Clip>, DataError> {
        let Some(entry) = self.clips.get(clip) else {
            let detail = format!("there is no clip {clip} among {}", self.clips.len());
            return Err(DataError::Parameter { stage: "load clip", detail });
        };
        if let Some(found) = self.lock().get(clip) {
            return Ok(found);
        }
        // Read without the lock: two threads may read one clip twice, but never wait for another.
        let loaded = Arc::new(Clip::open(&self.folder, entry)?);
        self.lock().put(clip, &loaded, self.cache_bytes);
        Ok(loaded)
    }

    /// Reads every clip and compares it with its hash: the damaged ones with what is wrong. The others can be used.
    pub fn damaged(&self) -> Vec<(&ClipEntry, DataError)> {
        let damage = |entry: &ClipEntry| Clip::open(&self.folder, entry).err();
        self.clips.iter().filter_map(|entry| Some((entry, damage(entry)?))).collect()
    }

    /// Bytes of the clips now kept.
    pub fn cached_bytes(&self) -> usize {
        self.lock().num_bytes
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Cache> {
        self.cache.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl Cache {
    fn get(&mut self, clip: usize) -> Option<Arc<Clip>> {
        self.clock += 1;
        let (found, used) = self.clips.get_mut(&clip)?;
        *used = self.clock;
        Some(found.clone())
    }

    fn put(&mut self, clip: usize, loaded: &Arc<Clip>, bound: usize) {
        if loaded.num_bytes() > bound {
            return;
        }
        self.clock += 1;
        if let Some((old, _)) = self.clips.insert(clip, (loaded.clone(), self.clock)) {
            self.num_bytes -= old.num_bytes();
        }
        self.num_bytes += loaded.num_bytes();
        while self.num_bytes > bound {
            let oldest = self.clips.iter().min_by_key(|(_, (_, used))| *used).map(|(at, _)| *at);
            let Some((old, _)) = oldest.and_then(|at| self.clips.remove(&at)) else { return };
            self.num_bytes -= old.num_bytes();
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::clip::{CLIP_FORMAT, ClipMeta, tests::arrays};

    /// Corpus, number of frames, runs of usable frames (all if none are given).
    type ClipOutline<'a> = (&'a str, usize, Option<Vec<[usize; 2]>>);

    /// Writes clips of these corpora and lengths; their runs are whole but for what `runs` says.
    pub(crate) fn folder_of(clips: &[ClipOutline<'_>]) -> (tempfile::TempDir, Vec<ClipEntry>) {
        let folder = tempfile::tempdir().unwrap();
        let mut entries = Vec::new();
        for (at, (corpus, num_frames, runs)) in clips.iter().enumerate() {
            let mut arrays = arrays(*num_frames, 8);
            arrays.opening[0] = at as f32;
            arrays.frames[0] = at as u8;
            let clip = format!("train/{corpus}/s/{at:03}");
            let file = format!("{clip}.safetensors");
            let meta = ClipMeta { clip: clip.clone(), ..ClipMeta::default() };
            arrays.write(&folder.path().join(&file), &meta).unwrap();
            let runs = runs.clone().unwrap_or_else(|| vec![[0, *num_frames]]);
            entries.push(ClipEntry {
                num_valid: runs.iter().map(|r| r[1] - r[0]).sum(),
                num_bytes: std::fs::metadata(folder.path().join(&file)).unwrap().len(),
                clip,
                file,
                offset: 0,
                quality: None,
                sync: None,
                sha256: String::new(),
                corpus: corpus.to_string(),
                split: "train".into(),
                speaker: "s".into(),
                licence: String::new(),
                transcript: String::new(),
                num_frames: *num_frames,
                runs,
                crop_size: 8,
                crop_scale: 1.0,
                mean_opening: 0.0,
                opening_deviation: 0.0,
                source_fps: "25".into(),
                source_size: "1x1".into(),
                content: arrays.content_hash(),
            });
        }
        entries.sort_by(|a, b| a.clip.cmp(&b.clip));
        let index = Index { format: CLIP_FORMAT.into(), options: "o".into(), clips: entries.clone() };
        index.write(folder.path()).unwrap();
        (folder, entries)
    }

    #[test]
    fn clips_are_found_loaded_and_forgotten() {
        let (folder, entries) = folder_of(&[("b", 6, None), ("a", 5, None), ("b", 4, None)]);
        let one = Clip::read(&folder.path().join(&entries[0].file)).unwrap().num_bytes();
        let data = Dataset::open(folder.path(), one * 2).unwrap();
        assert_eq!(data.clips(), entries);
        assert_eq!(data.select(&ClipFilter::split("train")), [0, 1, 2]);
        assert_eq!(data.select(&ClipFilter::split("valid")), Vec::<usize>::new());
        let only_b = ClipFilter { corpora: vec!["b".into()], ..ClipFilter::default() };
        assert_eq!(data.select(&only_b), [1, 2]);
        assert_eq!(data.find("train/b/s/002"), Some(2));
        assert_eq!(data.find("train/b/s/001"), None);
        let first = data.load(0).unwrap();
        assert!(Arc::ptr_eq(&first, &data.load(0).unwrap()), "kept");
        for clip in [1, 2, 1, 0] {
            assert_eq!(data.load(clip).unwrap().num_frames(), entries[clip].num_frames);
            assert!(data.cached_bytes() <= one * 2);
        }
        assert!(matches!(data.load(3), Err(DataError::Parameter { .. })));
    }

    #[test]
    fn exchanged_files_and_bad_indexes_are_refused() {
        let (folder, entries) = folder_of(&[("a", 6, None), ("a", 6, None)]);
        let data = Dataset::open(folder.path(), 1 << 20).unwrap();
        let paths = [0, 1].map(|at| folder.path().join(&entries[at].file));
        std::fs::copy(&paths[0], &paths[1]).unwrap();
        assert!(matches!(data.load(1), Err(DataError::BadFile { .. })));
        let index = folder.path().join(crate::INDEX_FILE);
        let text = std::fs::read_to_string(&index).unwrap();
        for (from, to) in [
            ("\"train/a/s/000.safetensors\"", "\"../a\""),
            ("\"num_valid\": 6", "\"num_valid\": 7"),
            (CLIP_FORMAT, "syncdiff-clip-0"),
            ("{", "["),
        ] {
            std::fs::write(&index, text.replacen(from, to, 1)).unwrap();
            let opened = Dataset::open(folder.path(), 1);
            assert!(matches!(opened, Err(DataError::BadFile { .. })), "{to}");
        }
        std::fs::remove_file(&index).unwrap();
        assert!(matches!(Dataset::open(folder.path(), 1), Err(DataError::Io { .. })));
    }
}
