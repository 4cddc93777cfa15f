//! One clip from its media file to its prepared file or to the reason why there is none.

use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use sha2::{Digest, Sha256};
use syncdiff_face::{Alignment, FaceChoice, FaceError, FaceModels, Tracker, warp};
use syncdiff_media::time::num_model_frames;
use syncdiff_media::{
    Frame, FrameIndex, FrameReader, MediaError, MediaInfo, MediaKind, Time, Tools, Warning, decode_speech, probe,
};

use crate::clip::{ClipArrays, hex};
use crate::error::{DataError, Fault};
use crate::index::{ClipEntry, ClipSync};
use crate::manifest::ClipSource;
use crate::prepare::finish::{fit_speech, mark_damage, note_faces, note_warnings, runs, store};
use crate::prepare::quality::measure;
use crate::prepare::seen::Faces;
use crate::prepare::timeline::source_frames;
use crate::prepare::work::Producer;
use crate::prepare::{ClipReport, PrepareOptions, SyncJudge, Verdict};

/// Decoded frames are kept up to this size; a longer clip is decoded a second time for its crops.
const HELD_BYTES: usize = 192 << 20;

/// Media files as a source of clips.
pub(super) struct Media<'a> {
    pub(super) tools: &'a Tools,
    pub(super) models: &'a FaceModels,
    pub(super) clips: &'a [ClipSource],
    pub(super) options: &'a PrepareOptions,
    pub(super) judge: Option<&'a dyn SyncJudge>,
    pub(super) shaping: &'a str,
}

impl Producer for Media<'_> {
    fn num_clips(&self) -> usize {
        self.clips.len()
    }

    fn key(&self, clip: usize) -> String {
        self.clips[clip].key()
    }

    /// A source that cannot be read has its own value, so that a file that appears later is taken up.
    fn fingerprint(&self, clip: usize) -> String {
        let source = &self.clips[clip];
        let mut hash = Sha256::new();
        for part in [self.shaping, &source.key(), &source.transcript, &source.licence, &source.origin] {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        let hashed =
            std::fs::File::open(&source.path).and_then(|mut file| std::io::copy(&mut file, &mut hash).map(|_| ()));
        if hashed.is_err() {
            hash.update("unreadable");
        }
        hex(&hash.finalize()[..16])
    }

    fn make(&self, clip: usize, fingerprint: String, out: &Path) -> Result<ClipReport, DataError> {
        let source = &self.clips[clip];
        let work = Work { media: self, source, out, fingerprint: &fingerprint };
        // A defect that one clip brings to light must not take the others with it.
        let outcome = catch_unwind(AssertUnwindSafe(|| work.run())).unwrap_or_else(|panic| {
            let text = panic
                .downcast_ref::<String>()
                .map(String::as_str)
                .or_else(|| panic.downcast_ref::<&str>().copied())
                .unwrap_or("no message");
            Err(Refusal::Verdict(Verdict::Failed, format!("defect of syncdiff: {text}")))
        });
        let (verdict, reason, entry) = match outcome {
            Ok((entry, notes)) => {
                let whole = entry.num_valid == entry.num_frames;
                let verdict = if whole { Verdict::Kept } else { Verdict::KeptInPart };
                (verdict, notes.join("; "), Some(entry))
            }
            Err(Refusal::Verdict(verdict, reason)) => (verdict, reason, None),
            Err(Refusal::Fatal(error)) => return Err(error),
        };
        let path = source.path.display().to_string();
        Ok(ClipReport { clip: source.key(), source: path, verdict, reason, fingerprint, entry })
    }
}

/// Why there is no prepared file.
enum Refusal {
    Verdict(Verdict, String),
    Fatal(DataError),
}

impl From<MediaError> for Refusal {
    fn from(error: MediaError) -> Self {
        let verdict = match &error {
            MediaError::ToolMissing { .. } => return Refusal::Fatal(error.into()),
            MediaError::NoAudio { .. } => Verdict::NoAudio,
            MediaError::NoVideo { .. } => Verdict::NoVideo,
            MediaError::Io { .. } => Verdict::Unreadable,
            other if other.fault() == syncdiff_media::Fault::Input => Verdict::Unreadable,
            _ => Verdict::Failed,
        };
        Refusal::Verdict(verdict, error.to_string())
    }
}

impl From<FaceError> for Refusal {
    fn from(error: FaceError) -> Self {
        match error.fault() {
            syncdiff_face::Fault::NoFace => Refusal::Verdict(Verdict::NoFace, error.to_string()),
            syncdiff_face::Fault::Internal => Refusal::Verdict(Verdict::Failed, error.to_string()),
            _ => Refusal::Fatal(error.into()),
        }
    }
}

impl From<DataError> for Refusal {
    fn from(error: DataError) -> Self {
        match error.fault() {
            Fault::Internal => Refusal::Verdict(Verdict::Failed, error.to_string()),
            _ => Refusal::Fatal(error),
        }
    }
}

/// What one reading of the clip gives.
struct Seen {
    faces: Faces,
    /// All frames, unless they are too many to be held.
    held: Option<Vec<Frame>>,
    index: FrameIndex,
    warnings: Vec<Warning>,
}

struct Work<'a> {
    media: &'a Media<'a>,
    source: &'a ClipSource,
    out: &'a Path,
    fingerprint: &'a str,
}

impl Work<'_> {
    fn run(&self) -> Result<(ClipEntry, Vec<String>), Refusal> {
        let info = probe(self.media.tools, &self.source.path)?;
        let Some(video) = info.video.as_ref().filter(|_| info.kind == MediaKind::Video) else {
            return Err(MediaError::NoVideo { path: info.path.clone() }.into());
        };
        if info.audio.is_none() {
            return Err(MediaError::NoAudio { path: info.path.clone() }.into());
        }
        if let Some(duration) = video.duration {
            self.check_length(Time::new(duration, video.time_base))?;
        }
        let speech = decode_speech(self.media.tools, &info)?;
        let seen = self.look(&info)?;
        let source_frames = source_frames(&seen.index);
        let track = seen.faces.table.choose(&FaceChoice::Largest)?;
        let alignment = seen.faces.table.alignment(track, &self.media.options.smooth);
        let mut notes = Vec::new();
        let mut arrays = seen.faces.arrays(track.id(), &alignment, &source_frames, self.media.options.crop_size);
        arrays.frames = self.crops(&info, &seen, &alignment, &source_frames)?;
        note_faces(&arrays, &alignment, &source_frames, &mut notes);
        mark_damage(&mut arrays, &seen.warnings, &source_frames, &mut notes);
        fit_speech(&mut arrays, &speech, &mut notes);
        note_warnings(seen.warnings.iter().chain(&speech.warnings), &mut notes);
        let num_valid = arrays.valid.iter().filter(|v| **v == 1).count();
        if num_valid < self.media.options.min_valid_frames {
            notes.insert(
                0,
                format!(
                    "{num_valid} of {} frames are usable, at least {} are asked for",
                    arrays.num_frames(),
                    self.media.options.min_valid_frames
                ),
            );
            return Err(Refusal::Verdict(Verdict::TooFewFrames, notes.join("; ")));
        }
        let cuts: HashSet<usize> = seen.faces.table.cuts().iter().map(|cut| *cut as usize).collect();
        if !cuts.is_empty() {
            notes.push(format!("{} cuts", cuts.len()));
        }
        let quality = measure(&seen.faces, track, &arrays, &source_frames);
        if let Some((verdict, reason)) = self.media.options.quality.judge(&quality) {
            notes.insert(0, reason);
            return Err(Refusal::Verdict(verdict, notes.join("; ")));
        }
        let sync = self.sync(&arrays, &mut notes);
        let runs = runs(&arrays.valid, &source_frames, &cuts);
        let rate = seen.index.average_rate();
        if seen.index.is_variable_rate() {
            notes.push("variable frame rate".into());
        }
        let meta = self.source.meta(rate.to_string(), (video.width, video.height), self.fingerprint);
        let entry = store(&arrays, meta, runs, self.out)?;
        Ok((ClipEntry { quality: Some(quality), sync, ..entry }, notes))
    }

    /// What the judge says; a clip that it cannot judge is kept, and the report says why.
    fn sync(&self, arrays: &ClipArrays, notes: &mut Vec<String>) -> Option<ClipSync> {
        match self.media.judge?.judge(arrays) {
            Ok(sync) => Some(sync),
            Err(reason) => {
                notes.push(format!("no sync confidence: {reason}"));
                None
            }
        }
    }

    fn check_length(&self, length: Time) -> Result<(), Refusal> {
        let frames = num_model_frames(length);
        if frames <= self.media.options.max_frames as i64 {
            return Ok(());
        }
        let reason = format!(
            "{frames} frames at 25 a second, at most {} are asked for; cut the clip into parts",
            self.media.options.max_frames
        );
        Err(Refusal::Verdict(Verdict::TooLong, reason))
    }

    /// Reads the clip once: faces of all frames, time stamps, damage.
    fn look(&self, info: &MediaInfo) -> Result<Seen, Refusal> {
        let mut tracker = Tracker::new(self.media.models, self.media.options.tracker)?;
        let mut reader = FrameReader::open(self.media.tools, info, &self.media.options.read)?;
        let mut faces: Option<Faces> = None;
        let mut held = Some(Vec::new());
        let mut held_bytes = 0;
        let mut first = None;
        for item in &mut reader {
            let item = item?;
            let start = *first.get_or_insert(item.pts);
            if let Some(video) = &info.video {
                self.check_length(Time::new(item.pts - start, video.time_base))?;
            }
            let (width, height) = (item.frame.width, item.frame.height);
            faces.get_or_insert_with(|| Faces::new(width, height)).push(&tracker.push(&item.frame));
            held_bytes += item.frame.data.len();
            if held_bytes > HELD_BYTES {
                held = None;
            } else if let Some(frames) = &mut held {
                frames.push(item.frame);
            }
        }
        let (index, warnings) = reader.into_index()?;
        match faces {
            Some(faces) => Ok(Seen { faces, held, index, warnings }),
            None => Err(Refusal::Verdict(Verdict::Unreadable, "no frame was decoded".into())),
        }
    }

    /// Cuts the crops, from memory or from a second reading.
    fn crops(
        &self,
        info: &MediaInfo,
        seen: &Seen,
        alignment: &Alignment,
        source_frames: &[usize],
    ) -> Result<Vec<u8>, Refusal> {
        let size = self.media.options.crop_size;
        let mut pixels = Vec::with_capacity(source_frames.len() * size * size * 3);
        let cut = |frame: &Frame, source: usize| match alignment.crop_from_frame(source, size) {
            Some(crop_from_frame) => warp(frame, &crop_from_frame, size).data,
            None => vec![0; size * size * 3],
        };
        if let Some(held) = &seen.held {
            for source in source_frames {
                pixels.extend(cut(&held[*source], *source));
            }
            return Ok(pixels);
        }
        let mut wanted = source_frames.iter().peekable();
        let mut reader = FrameReader::open(self.media.tools, info, &self.media.options.read)?;
        while let Some(next) = wanted.peek().copied().copied() {
            let item = match reader.next() {
                Some(item) => item?,
                None => {
                    let reason = format!("frame {next} was not decoded a second time");
                    return Err(Refusal::Verdict(Verdict::Failed, reason));
                }
            };
            if item.index == next {
                let crop = cut(&item.frame, next);
                while wanted.next_if_eq(&&next).is_some() {
                    pixels.extend_from_slice(&crop);
                }
            }
        }
        Ok(pixels)
    }
}
