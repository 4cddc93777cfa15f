//! One clip from its media file to its prepared file or to the reason why there is none.

use std::collections::{HashMap, HashSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use syncdiff_face::{Alignment, FaceChoice, FaceError, FaceModels, NUM_LANDMARKS, TrackTable, Tracker, lips, warp};
use syncdiff_media::time::{Rational, num_model_frames};
use syncdiff_media::{
    Frame, FrameIndex, FrameReader, MediaError, MediaInfo, MediaKind, Time, Tools, Warning, decode_speech, probe,
};

use crate::clip::{ClipArrays, ClipMeta};
use crate::error::{DataError, Fault};
use crate::index::ClipEntry;
use crate::manifest::ClipSource;
use crate::prepare::finish::{Stored, entry, fit_speech, mark_damage, note_faces, note_warnings, runs};
use crate::prepare::timeline::source_frames;
use crate::prepare::{ClipReport, PrepareOptions, Verdict};

/// Decoded frames are kept up to this size; a longer clip is decoded a second time for its crops.
const HELD_BYTES: usize = 192 << 20;

/// Gives a clip its verdict. An error is not the clip's fault and ends the whole run.
pub(super) fn prepare_clip(
    tools: &Tools,
    models: &FaceModels,
    source: &ClipSource,
    options: &PrepareOptions,
    out: &Path,
    fingerprint: String,
) -> Result<ClipReport, DataError> {
    let work = Work { tools, models, source, options, out, fingerprint: &fingerprint };
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
    let source = source.path.display().to_string();
    Ok(ClipReport { clip: work.source.key(), source, verdict, reason, fingerprint, entry })
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

/// The landmarks of one face in one source frame, in source pixels.
struct Face {
    points: Vec<[f32; 2]>,
    opening: f32,
}

/// What one reading of the clip gives.
struct Seen {
    table: TrackTable,
    faces: Vec<HashMap<u32, Face>>,
    /// All frames, unless they are too many to be held.
    held: Option<Vec<Frame>>,
    index: FrameIndex,
    warnings: Vec<Warning>,
}

struct Work<'a> {
    tools: &'a Tools,
    models: &'a FaceModels,
    source: &'a ClipSource,
    options: &'a PrepareOptions,
    out: &'a Path,
    fingerprint: &'a str,
}

impl Work<'_> {
    fn run(&self) -> Result<(ClipEntry, Vec<String>), Refusal> {
        let info = probe(self.tools, &self.source.path)?;
        let Some(video) = info.video.as_ref().filter(|_| info.kind == MediaKind::Video) else {
            return Err(MediaError::NoVideo { path: info.path.clone() }.into());
        };
        if info.audio.is_none() {
            return Err(MediaError::NoAudio { path: info.path.clone() }.into());
        }
        if let Some(duration) = video.duration {
            self.check_length(Time::new(duration, video.time_base))?;
        }
        let speech = decode_speech(self.tools, &info)?;
        let seen = self.look(&info)?;
        let source_frames = source_frames(&seen.index);
        let track = seen.table.choose(&FaceChoice::Largest)?;
        let alignment = seen.table.alignment(track, &self.options.smooth);
        let mut notes = Vec::new();
        let mut arrays = self.arrays(&info, &seen, track.id(), &alignment, &source_frames)?;
        note_faces(&arrays, &alignment, &source_frames, &mut notes);
        mark_damage(&mut arrays, &seen.warnings, &source_frames, &mut notes);
        fit_speech(&mut arrays, &speech, &mut notes);
        note_warnings(seen.warnings.iter().chain(&speech.warnings), &mut notes);
        let num_valid = arrays.valid.iter().filter(|v| **v == 1).count();
        if num_valid < self.options.min_valid_frames {
            notes.insert(
                0,
                format!(
                    "{num_valid} of {} frames are usable, at least {} are asked for",
                    arrays.num_frames(),
                    self.options.min_valid_frames
                ),
            );
            return Err(Refusal::Verdict(Verdict::TooFewFrames, notes.join("; ")));
        }
        let cuts: HashSet<usize> = seen.table.cuts().iter().map(|cut| *cut as usize).collect();
        if !cuts.is_empty() {
            notes.push(format!("{} cuts", cuts.len()));
        }
        let runs = runs(&arrays.valid, &source_frames, &cuts);
        let rate = seen.index.average_rate();
        if seen.index.is_variable_rate() {
            notes.push("variable frame rate".into());
        }
        let meta = self.meta(rate, (video.width, video.height));
        let file = format!("{}.safetensors", meta.clip);
        let path = self.out.join(&file);
        let content = arrays.write(&path, &meta)?;
        let num_bytes = std::fs::metadata(&path).map_err(|error| DataError::io("prepare", &path, error))?.len();
        let stored = Stored { file, num_bytes, content };
        Ok((entry(&arrays, meta, stored, runs), notes))
    }

    fn check_length(&self, length: Time) -> Result<(), Refusal> {
        let frames = num_model_frames(length);
        if frames <= self.options.max_frames as i64 {
            return Ok(());
        }
        let reason = format!(
            "{frames} frames at 25 a second, at most {} are asked for; cut the clip into parts",
            self.options.max_frames
        );
        Err(Refusal::Verdict(Verdict::TooLong, reason))
    }

    /// Reads the clip once: faces of all frames, time stamps, damage.
    fn look(&self, info: &MediaInfo) -> Result<Seen, Refusal> {
        let mut tracker = Tracker::new(self.models, self.options.tracker)?;
        let mut reader = FrameReader::open(self.tools, info, &self.options.read)?;
        let mut table: Option<TrackTable> = None;
        let mut faces = Vec::new();
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
            let found = tracker.push(&item.frame);
            table.get_or_insert_with(|| TrackTable::new(width, height)).push(&found);
            let meshes = found.faces.iter().map(|face| {
                let points = face.mesh.points.iter().map(|p| [p[0], p[1]]).collect();
                (face.track, Face { points, opening: lips::opening(&face.mesh) })
            });
            faces.push(meshes.collect());
            held_bytes += item.frame.data.len();
            if held_bytes > HELD_BYTES {
                held = None;
            } else if let Some(frames) = &mut held {
                frames.push(item.frame);
            }
        }
        let (index, warnings) = reader.into_index()?;
        match table {
            Some(table) => Ok(Seen { table, faces, held, index, warnings }),
            None => Err(Refusal::Verdict(Verdict::Unreadable, "no frame was decoded".into())),
        }
    }

    /// Everything but the speech.
    fn arrays(
        &self,
        info: &MediaInfo,
        seen: &Seen,
        track: u32,
        alignment: &Alignment,
        source_frames: &[usize],
    ) -> Result<ClipArrays, Refusal> {
        let (n, size) = (source_frames.len(), self.options.crop_size);
        let mut arrays = ClipArrays {
            crop_size: size,
            crop_from_frame: vec![0.0; n * 6],
            landmarks: vec![0.0; n * NUM_LANDMARKS * 2],
            opening: vec![0.0; n],
            valid: vec![0; n],
            ..ClipArrays::default()
        };
        for (k, source) in source_frames.iter().enumerate() {
            let Some(crop_from_frame) = alignment.crop_from_frame(*source, size) else { continue };
            for (to, from) in arrays.crop_from_frame[k * 6..].iter_mut().zip(crop_from_frame.m.iter().flatten()) {
                *to = *from as f32;
            }
            let Some(face) = seen.faces[*source].get(&track) else { continue };
            let cells = &mut arrays.landmarks[k * NUM_LANDMARKS * 2..(k + 1) * NUM_LANDMARKS * 2];
            for (cell, [x, y]) in cells.chunks_exact_mut(2).zip(&face.points) {
                let point = crop_from_frame.apply([f64::from(*x), f64::from(*y)]);
                cell.copy_from_slice(&point.map(|v| v as f32));
            }
            arrays.opening[k] = face.opening;
            arrays.valid[k] = 1;
        }
        arrays.frames = self.crops(info, seen, alignment, source_frames)?;
        Ok(arrays)
    }

    /// Cuts the crops, from memory or from a second reading.
    fn crops(
        &self,
        info: &MediaInfo,
        seen: &Seen,
        alignment: &Alignment,
        source_frames: &[usize],
    ) -> Result<Vec<u8>, Refusal> {
        let size = self.options.crop_size;
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
        let mut reader = FrameReader::open(self.tools, info, &self.options.read)?;
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

    fn meta(&self, rate: Rational, (width, height): (usize, usize)) -> ClipMeta {
        ClipMeta {
            clip: self.source.key(),
            corpus: self.source.corpus.clone(),
            split: self.source.split.clone(),
            speaker: self.source.speaker.clone(),
            transcript: self.source.transcript.clone(),
            licence: self.source.licence.clone(),
            origin: self.source.origin.clone(),
            source_fps: rate.to_string(),
            source_size: format!("{width}x{height}"),
            fingerprint: self.fingerprint.to_owned(),
        }
    }
}
