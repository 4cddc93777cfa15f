//! The table of prepared clips that stands beside them.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::atomic::write_whole;
use crate::clip::CLIP_FORMAT;
use crate::error::DataError;

/// File name of the index in a prepared folder.
pub const INDEX_FILE: &str = "index.json";

/// One prepared clip.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClipEntry {
    /// `split/corpus/speaker/name`.
    pub clip: String,
    /// Path of the file, from the index's folder.
    pub file: String,
    /// Body of data.
    pub corpus: String,
    /// `train`, `valid`, `test` or another word.
    pub split: String,
    /// Who speaks.
    pub speaker: String,
    /// Terms of use.
    pub licence: String,
    /// What is said.
    pub transcript: String,
    /// Number of frames at 25 a second.
    pub num_frames: usize,
    /// Frames that may be learned from.
    pub num_valid: usize,
    /// Runs of such frames without a cut inside, as `[first, end)`, in order.
    pub runs: Vec<[usize; 2]>,
    /// Side of the crops in pixels.
    pub crop_size: usize,
    /// Crop pixels for one source pixel, mean; above 1 the crop is magnified.
    pub crop_scale: f32,
    /// Mean inner-lip opening over eye distance of the valid frames.
    pub mean_opening: f32,
    /// Its standard deviation over the valid frames.
    pub opening_deviation: f32,
    /// Frames a second of the source, as a fraction.
    pub source_fps: String,
    /// Picture size of the source.
    pub source_size: String,
    /// Hash of the content, see [`crate::ClipArrays::content_hash`].
    pub content: String,
    /// Size of the file in bytes.
    pub num_bytes: u64,
}

impl ClipEntry {
    /// All frames that may be learned from, in order.
    pub fn valid_frames(&self) -> impl Iterator<Item = usize> + '_ {
        self.runs.iter().flat_map(|[first, end]| *first..*end)
    }
}

/// What the index file holds.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Index {
    pub(crate) format: String,
    pub(crate) options: String,
    pub(crate) clips: Vec<ClipEntry>,
}

impl Index {
    pub(crate) fn write(&self, folder: &Path) -> Result<(), DataError> {
        write_whole(&folder.join(INDEX_FILE), |file| {
            serde_json::to_writer_pretty(&mut *file, self)?;
            file.write_all(b"\n")
        })
    }

    pub(crate) fn read(folder: &Path) -> Result<Self, DataError> {
        const STAGE: &str = "open data set";
        let path = folder.join(INDEX_FILE);
        let bytes = std::fs::read(&path).map_err(|error| DataError::io(STAGE, &path, error))?;
        let bad = |detail: String| DataError::bad_file(STAGE, &path, detail);
        let index: Index = serde_json::from_slice(&bytes).map_err(|error| bad(error.to_string()))?;
        if index.format != CLIP_FORMAT {
            return Err(bad(format!("format {:?}, expected {CLIP_FORMAT:?}", index.format)));
        }
        for entry in &index.clips {
            let mut end = 0;
            for [first, next] in &entry.runs {
                if *first < end || next <= first || *next > entry.num_frames {
                    return Err(bad(format!("clip {}: runs of frames {:?}", entry.clip, entry.runs)));
                }
                end = *next;
            }
            let inside =
                Path::new(&entry.file).components().all(|part| matches!(part, std::path::Component::Normal(_)));
            if !inside || entry.valid_frames().count() != entry.num_valid {
                return Err(bad(format!("clip {}: file name or number of frames", entry.clip)));
            }
        }
        Ok(index)
    }
}
