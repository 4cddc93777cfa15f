//! From media files to prepared clips: parallel over clips, resumable, with a verdict for each.

mod finish;
mod journal;
mod one;
mod packer;
mod quality;
mod repack;
mod seen;
mod timeline;
mod verdict;
mod work;

use std::ops::ControlFlow;
use std::path::Path;

use sha2::{Digest, Sha256};
use syncdiff_face::{FaceModels, MODEL_FILES, RIGID_POINTS, SmoothOptions, TEMPLATE, TrackerOptions};
use syncdiff_media::{ReadOptions, Tools};

use crate::clip::{CLIP_FORMAT, ClipArrays, hex};
use crate::error::DataError;
use crate::index::ClipSync;
use crate::manifest::ClipSource;
use one::Media;

pub use quality::QualityLimits;
pub use repack::repack;
pub use verdict::{ClipReport, PrepareReport, REPORT_FILE, SUMMARY_FILE, Summary, Verdict};

pub(crate) use finish::{runs, store};
pub(crate) use quality::measure;
pub(crate) use seen::Faces;
#[cfg(test)]
pub(crate) use work::go_on;
pub(crate) use work::{Producer, RunOptions, run};

/// Bytes of clips in a shard unless another size is asked for.
pub const DEFAULT_SHARD_BYTES: u64 = 256 << 20;

/// How clips are prepared.
#[derive(Clone, Copy, Debug)]
pub struct PrepareOptions {
    /// Side of the crops in pixels, a multiple of 4 from 32 to 1024.
    pub crop_size: usize,
    /// A clip with fewer usable frames is not kept.
    pub min_valid_frames: usize,
    /// A longer clip (in frames at 25 a second) is not kept; it bounds the memory of a thread, and
    /// the size of a file.
    pub max_frames: usize,
    /// What is too bad to be kept.
    pub quality: QualityLimits,
    /// Clips at a time; 0 for one on each core.
    pub num_threads: usize,
    /// Bytes of clips in a shard; a larger clip has one of its own. 0 leaves every clip in a file of its own.
    pub shard_bytes: u64,
    /// How faces are followed: as in generation.
    pub tracker: TrackerOptions,
    /// How the alignment is smoothed: as in generation.
    pub smooth: SmoothOptions,
    /// How frames are read.
    pub read: ReadOptions,
}

impl Default for PrepareOptions {
    /// Crops of 128 pixels, clips from 8 usable frames to two minutes, one on each core, shards of 256 MiB.
    fn default() -> Self {
        PrepareOptions {
            crop_size: 128,
            min_valid_frames: 8,
            max_frames: 3000,
            quality: QualityLimits::default(),
            num_threads: 0,
            shard_bytes: DEFAULT_SHARD_BYTES,
            tracker: TrackerOptions::default(),
            smooth: SmoothOptions::default(),
            read: ReadOptions::default(),
        }
    }
}

/// Says how well the lips and the sound of a clip agree, and how far they are apart.
pub trait SyncJudge: Sync {
    /// A name that differs for judges that judge differently, such as the hash of the weights.
    fn name(&self) -> String;

    /// Judges a clip with its pixels, landmarks and speech, or says why it cannot.
    ///
    /// # Errors
    /// The reason, for the report; the clip is kept.
    fn judge(&self, clip: &ClipArrays) -> Result<ClipSync, String>;
}

/// Crops may have this many pixels a side.
pub(crate) fn check_crop_size(crop_size: usize) -> Result<(), DataError> {
    if (32..=1024).contains(&crop_size) && crop_size.is_multiple_of(4) {
        return Ok(());
    }
    let detail = format!("the crop size is {crop_size}; allowed are multiples of 4 from 32 to 1024");
    Err(DataError::Parameter { stage: "prepare", detail })
}

impl PrepareOptions {
    fn check(&self) -> Result<(), DataError> {
        check_crop_size(self.crop_size)?;
        if self.min_valid_frames < 2 || self.max_frames < self.min_valid_frames {
            let detail = format!(
                "at least {} and at most {} frames a clip; the least must be 2 or more, and not above the most",
                self.min_valid_frames, self.max_frames
            );
            return Err(DataError::Parameter { stage: "prepare", detail });
        }
        Ok(())
    }

    /// All options that shape the clips, as text: equal text, equal clips.
    fn shaping(&self, judge: Option<&dyn SyncJudge>) -> String {
        let (track, smooth) = (&self.tracker, &self.smooth);
        let judge = judge.map_or_else(|| "none".to_owned(), SyncJudge::name);
        format!(
            "{CLIP_FORMAT} geometry={} crop={} frames={}..={} {} faces={} detect={} reidentify={} sigma={} bridge={} \
             judge={judge}",
            geometry(),
            self.crop_size,
            self.min_valid_frames,
            self.max_frames,
            self.quality.shaping(),
            track.max_faces,
            track.detect_every,
            track.reidentify_frames,
            smooth.sigma_frames,
            smooth.bridge_frames
        )
    }
}

/// Hash of the template of the aligned crop and of the face models: crops that were cut by another
/// one must not be mixed with these.
fn geometry() -> String {
    let mut hash = Sha256::new();
    for (point, place) in RIGID_POINTS.iter().zip(&TEMPLATE) {
        hash.update((*point as u64).to_le_bytes());
        place.iter().for_each(|v| hash.update(v.to_le_bytes()));
    }
    MODEL_FILES.iter().for_each(|file| hash.update(file.sha256));
    hex(&hash.finalize()[..4])
}

/// Told after every clip.
#[derive(Clone, Copy, Debug)]
pub struct Progress<'a> {
    /// Clips that have their verdict.
    pub finished: usize,
    /// Clips asked for.
    pub total: usize,
    /// The clip that has just got its verdict.
    pub clip: &'a ClipReport,
}

/// Is told of every clip, one at a time but from several threads, and may stop the work: clips under way are finished
/// first.
pub type ProgressFn<'a> = dyn FnMut(&Progress<'_>) -> ControlFlow<()> + Send + 'a;

/// Prepares clips into a folder: shards `SPLIT-NNNNNN.tar` with the clips that are kept (or, without shards, a file
/// `split/corpus/speaker/name.safetensors` for each), `report.tsv` with the verdict and its reason for every clip, and
/// `index.json` for [`crate::Dataset::open`].
///
/// Clips that have their verdict from an earlier run with the same source bytes are skipped, also
/// after a kill, and what a killed run and its successor leave is byte for byte what one run would have left. Several
/// lists may be prepared into one folder one after the other. A clip that cannot be used is an entry of the report,
/// never an error. The memory is that of one clip per thread; its frames are read a second time where they do not fit.
/// The disk holds, beside the shards, the clips of one shard.
///
/// # Errors
/// [`DataError::Parameter`] for options out of range, two clips of one name, or a folder that was
/// prepared with other options; [`DataError::Io`] and [`DataError::DiskFull`] for the output;
/// [`DataError::Media`] if ffmpeg is missing; [`DataError::Face`] if the face models cannot be used;
/// [`DataError::Cancelled`].
pub fn prepare(
    tools: &Tools,
    models: &FaceModels,
    clips: &[ClipSource],
    out: &Path,
    options: &PrepareOptions,
    judge: Option<&dyn SyncJudge>,
    progress: &mut ProgressFn<'_>,
) -> Result<PrepareReport, DataError> {
    options.check()?;
    tools.check()?;
    let shaping = options.shaping(judge);
    let media = Media { tools, models, clips, options, judge, shaping: &shaping };
    let how = RunOptions { num_threads: options.num_threads, shard_bytes: options.shard_bytes };
    run(&media, out, shaping.clone(), how, progress)
}
