//! The table of prepared clips that stands beside them.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::atomic::write_whole;
use crate::clip::{CLIP_FORMAT, hex};
use crate::error::DataError;

/// File name of the index in a prepared folder.
pub const INDEX_FILE: &str = "index.json";

/// One prepared clip.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClipEntry {
    /// `split/corpus/speaker/name`.
    pub clip: String,
    /// Path of the file, from the index's folder: one of its own, or a shard with many clips.
    pub file: String,
    /// First byte of the clip in the file.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub offset: u64,
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
    /// How good the pictures are; none in folders of earlier versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quality: Option<ClipQuality>,
    /// How well lips and sound agree; none without a judge.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sync: Option<ClipSync>,
    /// Frames a second of the source, as a fraction.
    pub source_fps: String,
    /// Picture size of the source.
    pub source_size: String,
    /// Hash of the content, see [`crate::ClipArrays::content_hash`].
    pub content: String,
    /// Size of the clip in bytes.
    pub num_bytes: u64,
    /// SHA-256 of these bytes; empty in folders of earlier versions, whose clips are not compared.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub sha256: String,
}

/// How good the pictures of a clip are, over its valid frames.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClipQuality {
    /// Median distance of the outer eye corners in pixels of the source.
    pub eye_distance_px: f32,
    /// Median over frames of the mean absolute Laplacian of the crop's brightness, in grey levels, after the crop was
    /// brought to 128 pixels: 1 is a blur, 3 and more is sharp.
    pub sharpness: f32,
    /// Median angle by which the head is turned away to the side, in degrees, 0 to 90.
    pub yaw_degrees: f32,
    /// Part of the frames in which another face of at least half the size is seen.
    pub other_faces: f32,
}

/// What a judge says of the lips and the sound of a clip.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClipSync {
    /// By how many frames the sound has to be put off to fit the lips best.
    pub offset_frames: i32,
    /// Median minus smallest mean distance over all shifts (LSE-C).
    pub confidence: f32,
}

#[allow(clippy::trivially_copy_pass_by_ref)] // the form that serde asks for
fn is_zero(value: &u64) -> bool {
    *value == 0
}

impl ClipEntry {
    /// All frames that may be learned from, in order.
    pub fn valid_frames(&self) -> impl Iterator<Item = usize> + '_ {
        self.runs.iter().flat_map(|[first, end]| *first..*end)
    }

    /// Is the clip a part of a shard?
    pub(crate) fn is_in_shard(&self) -> bool {
        self.file.ends_with(".tar")
    }

    /// Is there a file that is long enough to hold the clip? Its content is not looked at.
    pub(crate) fn is_there(&self, folder: &Path) -> bool {
        std::fs::metadata(folder.join(&self.file)).is_ok_and(|found| match self.is_in_shard() {
            true => found.len() >= self.offset.saturating_add(self.num_bytes),
            false => found.len() == self.num_bytes,
        })
    }

    /// The bytes of the clip, compared with their hash.
    pub(crate) fn read(&self, stage: &'static str, folder: &Path) -> Result<Vec<u8>, DataError> {
        let path = folder.join(&self.file);
        let io = |error| DataError::io(stage, &path, error);
        let mut file = File::open(&path).map_err(io)?;
        file.seek(SeekFrom::Start(self.offset)).map_err(io)?;
        // What the index says is not believed before it was read.
        let mut bytes = Vec::with_capacity(self.num_bytes.min(64 << 20) as usize);
        file.take(self.num_bytes).read_to_end(&mut bytes).map_err(io)?;
        if bytes.len() as u64 != self.num_bytes {
            let detail = format!("it is cut off: {} of {} bytes are there", bytes.len(), self.num_bytes);
            return Err(self.bad(stage, folder, &detail));
        }
        if !self.sha256.is_empty() && hex(&Sha256::digest(&bytes)) != self.sha256 {
            return Err(self.bad(stage, folder, "its bytes are not those that were written (SHA-256 differs)"));
        }
        Ok(bytes)
    }

    /// Damage of this clip.
    pub(crate) fn bad(&self, stage: &'static str, folder: &Path, detail: &str) -> DataError {
        DataError::bad_file(stage, &folder.join(&self.file), format!("clip {}: {detail}", self.clip))
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
                |name: &str| Path::new(name).components().all(|part| matches!(part, std::path::Component::Normal(_)));
            if !inside(&entry.file) || !inside(&entry.clip) || entry.valid_frames().count() != entry.num_valid {
                return Err(bad(format!("clip {}: file name or number of frames", entry.clip)));
            }
        }
        Ok(index)
    }
}
