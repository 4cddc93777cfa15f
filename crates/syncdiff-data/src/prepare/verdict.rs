//! What became of each clip, and the table that tells it.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::atomic::write_whole;
use crate::error::DataError;
use crate::index::ClipEntry;

/// File name of the report in a prepared folder.
pub const REPORT_FILE: &str = "report.tsv";

/// What became of a clip.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Every frame is usable.
    Kept,
    /// Kept; some frames are marked as not usable, the reason says why.
    KeptInPart,
    /// No face was found.
    NoFace,
    /// Fewer usable frames than asked for.
    TooFewFrames,
    /// Longer than asked for.
    TooLong,
    /// No sound in the file.
    NoAudio,
    /// No moving picture in the file.
    NoVideo,
    /// Missing, damaged, or no media file.
    Unreadable,
    /// A tool or the program failed on it; tried again by the next run.
    Failed,
}

impl Verdict {
    /// Is there a prepared file?
    pub fn is_kept(self) -> bool {
        matches!(self, Verdict::Kept | Verdict::KeptInPart)
    }

    /// The name in the report.
    pub fn name(self) -> &'static str {
        match self {
            Verdict::Kept => "kept",
            Verdict::KeptInPart => "kept_in_part",
            Verdict::NoFace => "no_face",
            Verdict::TooFewFrames => "too_few_frames",
            Verdict::TooLong => "too_long",
            Verdict::NoAudio => "no_audio",
            Verdict::NoVideo => "no_video",
            Verdict::Unreadable => "unreadable",
            Verdict::Failed => "failed",
        }
    }
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// One line of the report.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClipReport {
    /// `split/corpus/speaker/name`.
    pub clip: String,
    /// The media file as given.
    pub source: String,
    /// What became of it.
    pub verdict: Verdict,
    /// Why; for kept clips what was noticed, or nothing.
    pub reason: String,
    /// Hash of source and options.
    pub fingerprint: String,
    /// The prepared file, if kept.
    pub entry: Option<ClipEntry>,
}

/// What became of all clips of a folder.
#[derive(Clone, Debug)]
pub struct PrepareReport {
    /// Every clip ever prepared into the folder, by name.
    pub clips: Vec<ClipReport>,
    /// How many of the clips asked for had their verdict before.
    pub resumed: usize,
}

impl PrepareReport {
    /// Number of clips by verdict.
    pub fn counts(&self) -> BTreeMap<Verdict, usize> {
        let mut counts = BTreeMap::new();
        for clip in &self.clips {
            *counts.entry(clip.verdict).or_default() += 1;
        }
        counts
    }

    pub(crate) fn write(&self, folder: &Path) -> Result<(), DataError> {
        // A tab or a line end inside a cell would break the table.
        let cell = |text: &str| text.replace(|c: char| c.is_control(), " ");
        write_whole(&folder.join(REPORT_FILE), |file| {
            writeln!(
                file,
                "clip\tverdict\treason\tframes\tvalid\tmean_opening\tcrop_scale\tsource_fps\t\
                 source_size\tsource"
            )?;
            for clip in &self.clips {
                write!(file, "{}\t{}\t{}\t", clip.clip, clip.verdict, cell(&clip.reason))?;
                match &clip.entry {
                    Some(e) => write!(
                        file,
                        "{}\t{}\t{:.4}\t{:.3}\t{}\t{}",
                        e.num_frames, e.num_valid, e.mean_opening, e.crop_scale, e.source_fps, e.source_size
                    )?,
                    None => write!(file, "\t\t\t\t\t")?,
                }
                writeln!(file, "\t{}", cell(&clip.source))?;
            }
            Ok(())
        })
    }
}
