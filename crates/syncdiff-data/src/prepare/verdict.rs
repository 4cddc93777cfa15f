//! What became of each clip, and the tables that tell it.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::atomic::write_whole;
use crate::error::DataError;
use crate::index::ClipEntry;

/// File name of the report in a prepared folder.
pub const REPORT_FILE: &str = "report.tsv";

/// File name of the figures of the last run in a prepared folder.
pub const SUMMARY_FILE: &str = "summary.json";

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
    /// The face has too few pixels.
    TooSmall,
    /// The face is blurred.
    Blurred,
    /// The head is turned too far to the side.
    TurnedAway,
    /// Another face of about the same size is seen: who speaks is not known.
    SeveralFaces,
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
            Verdict::TooSmall => "too_small",
            Verdict::Blurred => "blurred",
            Verdict::TurnedAway => "turned_away",
            Verdict::SeveralFaces => "several_faces",
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
    /// The prepared clip, if kept.
    pub entry: Option<ClipEntry>,
}

/// What became of all clips of a folder.
#[derive(Clone, Debug)]
pub struct PrepareReport {
    /// Every clip ever prepared into the folder, by name.
    pub clips: Vec<ClipReport>,
    /// How many of the clips asked for had their verdict before.
    pub resumed: usize,
    /// How many got it in this run.
    pub made: usize,
}

/// The figures of a run.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Summary {
    /// Clips in the folder's report.
    pub clips: usize,
    /// Those that were kept.
    pub kept: usize,
    /// Minutes of usable frames in them.
    pub usable_minutes: f64,
    /// Clips of this run that had their verdict before.
    pub resumed: usize,
    /// Clips that got it in this run.
    pub made: usize,
    /// Wall time of this run.
    pub seconds: f64,
    /// Clips of this run for each minute of it.
    pub clips_a_minute: f64,
    /// Number of clips by verdict.
    pub verdicts: BTreeMap<&'static str, usize>,
    /// Of each verdict that kept no clip, one clip with its reason.
    pub examples: BTreeMap<&'static str, String>,
}

/// The columns of the report.
const COLUMNS: [&str; 16] = [
    "clip",
    "verdict",
    "reason",
    "frames",
    "valid",
    "mean_opening",
    "crop_scale",
    "eye_distance_px",
    "sharpness",
    "yaw_degrees",
    "other_faces",
    "av_offset",
    "sync_confidence",
    "source_fps",
    "source_size",
    "source",
];

impl PrepareReport {
    /// Number of clips by verdict.
    pub fn counts(&self) -> BTreeMap<Verdict, usize> {
        let mut counts = BTreeMap::new();
        for clip in &self.clips {
            *counts.entry(clip.verdict).or_default() += 1;
        }
        counts
    }

    /// The figures of the run, which took this long.
    pub fn summary(&self, seconds: f64) -> Summary {
        let kept = || self.clips.iter().filter_map(|clip| clip.entry.as_ref());
        let mut examples = BTreeMap::new();
        for clip in self.clips.iter().filter(|clip| !clip.verdict.is_kept()) {
            examples.entry(clip.verdict.name()).or_insert_with(|| format!("{}: {}", clip.clip, clip.reason));
        }
        Summary {
            clips: self.clips.len(),
            kept: kept().count(),
            usable_minutes: kept().map(|entry| entry.num_valid).sum::<usize>() as f64 / (25.0 * 60.0),
            resumed: self.resumed,
            made: self.made,
            seconds,
            clips_a_minute: self.made as f64 * 60.0 / seconds.max(1e-3),
            verdicts: self.counts().into_iter().map(|(verdict, count)| (verdict.name(), count)).collect(),
            examples,
        }
    }

    pub(crate) fn write(&self, folder: &Path) -> Result<(), DataError> {
        // A tab or a line end inside a cell would break the table.
        let cell = |text: &str| text.replace(|c: char| c.is_control(), " ");
        write_whole(&folder.join(REPORT_FILE), |file| {
            writeln!(file, "{}", COLUMNS.join("\t"))?;
            for clip in &self.clips {
                let mut cells = vec![clip.clip.clone(), clip.verdict.to_string(), cell(&clip.reason)];
                cells.extend(clip.entry.as_ref().map_or_else(|| vec![String::new(); 12], figures));
                cells.push(cell(&clip.source));
                writeln!(file, "{}", cells.join("\t"))?;
            }
            Ok(())
        })
    }
}

/// The twelve middle columns of a kept clip.
fn figures(entry: &ClipEntry) -> Vec<String> {
    let quality = |value: fn(&crate::ClipQuality) -> f32, digits: usize| {
        entry.quality.as_ref().map_or_else(String::new, |quality| format!("{:.digits$}", value(quality)))
    };
    let (offset, confidence) = match &entry.sync {
        Some(sync) => (sync.offset_frames.to_string(), format!("{:.3}", sync.confidence)),
        None => ("no judge".to_owned(), "no judge".to_owned()),
    };
    vec![
        entry.num_frames.to_string(),
        entry.num_valid.to_string(),
        format!("{:.4}", entry.mean_opening),
        format!("{:.3}", entry.crop_scale),
        quality(|q| q.eye_distance_px, 1),
        quality(|q| q.sharpness, 2),
        quality(|q| q.yaw_degrees, 1),
        quality(|q| q.other_faces, 2),
        offset,
        confidence,
        entry.source_fps.clone(),
        entry.source_size.clone(),
    ]
}

impl Summary {
    /// Writes the figures as [`SUMMARY_FILE`] into a prepared folder. Unlike all other files of it, this one differs
    /// from run to run.
    ///
    /// # Errors
    /// [`DataError::Io`], [`DataError::DiskFull`].
    pub fn write(&self, folder: &Path) -> Result<(), DataError> {
        write_whole(&folder.join(SUMMARY_FILE), |file| {
            serde_json::to_writer_pretty(&mut *file, self)?;
            file.write_all(b"\n")
        })
    }
}

impl std::fmt::Display for Summary {
    /// The report table: verdicts with their numbers, then clips a minute.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (verdict, count) in &self.verdicts {
            write!(f, "{count:>8}  {verdict:<16}")?;
            match self.examples.get(verdict) {
                Some(example) => writeln!(f, "for example {example}")?,
                None => writeln!(f)?,
            }
        }
        let Summary { clips, kept, made, resumed, seconds, .. } = self;
        writeln!(f, "{clips:>8}  clips, {kept} kept with {:.1} minutes of usable frames", self.usable_minutes)?;
        write!(f, "{made:>8}  made in {seconds:.0} s, {:.0} a minute; {resumed} were there", self.clips_a_minute)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_counts_and_gives_an_example_of_each_failure() {
        let clip = |name: &str, verdict| ClipReport {
            clip: name.into(),
            source: "s\tt".into(),
            verdict,
            reason: format!("why {name}"),
            fingerprint: String::new(),
            entry: None,
        };
        let clips = vec![clip("a", Verdict::NoFace), clip("b", Verdict::NoFace), clip("c", Verdict::Blurred)];
        let report = PrepareReport { clips, resumed: 1, made: 2 };
        let summary = report.summary(4.0);
        assert_eq!((summary.clips, summary.kept, summary.clips_a_minute), (3, 0, 30.0));
        assert_eq!(summary.verdicts, BTreeMap::from([("no_face", 2), ("blurred", 1)]));
        assert_eq!(summary.examples["no_face"], "a: why a");
        let folder = tempfile::tempdir().unwrap();
        report.write(folder.path()).unwrap();
        summary.write(folder.path()).unwrap();
        let table = std::fs::read_to_string(folder.path().join(REPORT_FILE)).unwrap();
        assert!(table.lines().all(|line| line.split('\t').count() == COLUMNS.len()), "{table}");
        let json: serde_json::Value =
            serde_json::from_slice(&std::fs::read(folder.path().join(SUMMARY_FILE)).unwrap()).unwrap();
        assert_eq!(json["verdicts"]["blurred"], 1);
        assert!(summary.to_string().contains("30 a minute"), "{summary}");
    }
}
