//! The last touches on a clip: what was noticed, which frames count, the speech's length, and the
//! clip's line in the index.

use std::collections::HashSet;
use std::path::Path;

use syncdiff_face::Alignment;
use syncdiff_media::{Speech, Warning};

use crate::clip::{ClipArrays, ClipMeta, FRAME_SAMPLES};
use crate::error::DataError;
use crate::index::ClipEntry;
use crate::prepare::packer::loose_file;

/// Warnings that are spelt out in the report; the others are counted.
const TOLD_WARNINGS: usize = 3;

/// Tells of frames without a face.
pub(super) fn note_faces(arrays: &ClipArrays, alignment: &Alignment, source_frames: &[usize], notes: &mut Vec<String>) {
    let missing = arrays.valid.iter().filter(|v| **v == 0).count();
    if missing > 0 {
        let bridged = source_frames
            .iter()
            .zip(&arrays.valid)
            .filter(|(source, valid)| **valid == 0 && alignment.crop_from_frame(**source, arrays.crop_size).is_some())
            .count();
        notes.push(format!("no face in {missing} frames ({bridged} of them bridged)"));
    }
}

/// Frames whose picture is partly guessed are no example to learn from.
pub(super) fn mark_damage(
    arrays: &mut ClipArrays,
    warnings: &[Warning],
    source_frames: &[usize],
    notes: &mut Vec<String>,
) {
    let damaged: HashSet<usize> = warnings
        .iter()
        .filter_map(|warning| match warning {
            Warning::DamagedFrame { frame, .. } => Some(*frame as usize),
            _ => None,
        })
        .collect();
    let mut count = 0;
    for (source, valid) in source_frames.iter().zip(&mut arrays.valid) {
        if damaged.contains(source) {
            *valid = 0;
            count += 1;
        }
    }
    if count > 0 {
        notes.push(format!("{count} frames are damaged and marked as not usable"));
    }
}

/// Cuts the speech to the frames, or pads it with silence.
pub(super) fn fit_speech(arrays: &mut ClipArrays, speech: &Speech, notes: &mut Vec<String>) {
    let wanted = arrays.num_frames() * FRAME_SAMPLES;
    arrays.speech = speech.samples.clone();
    arrays.speech.resize(wanted, 0);
    let missing = wanted.saturating_sub(speech.samples.len());
    // Coded sound ends on whole packets: less than two frames are no news.
    if missing > 2 * FRAME_SAMPLES {
        notes.push(format!("the sound ends {} ms before the picture", missing / 16));
    }
    if arrays.speech.iter().all(|sample| sample.unsigned_abs() < 16) {
        notes.push("the sound is silent".into());
    }
}

/// Tells of damage and early ends.
pub(super) fn note_warnings<'a>(warnings: impl Iterator<Item = &'a Warning>, notes: &mut Vec<String>) {
    let mut more = 0;
    for (at, warning) in warnings.enumerate() {
        match (at < TOLD_WARNINGS, warning) {
            (_, Warning::More { count }) => more += count,
            (true, _) => notes.push(warning.to_string()),
            (false, _) => more += 1,
        }
    }
    if more > 0 {
        notes.push(format!("{more} more warnings"));
    }
}

/// Runs of usable frames without a cut inside.
pub(crate) fn runs(valid: &[u8], source_frames: &[usize], cuts: &HashSet<usize>) -> Vec<[usize; 2]> {
    let mut runs: Vec<[usize; 2]> = Vec::new();
    let mut last_source = 0;
    for (k, (flag, source)) in valid.iter().zip(source_frames).enumerate() {
        let cut = (last_source + 1..=*source).any(|frame| cuts.contains(&frame));
        last_source = *source;
        if *flag == 1 {
            match runs.last_mut() {
                Some(run) if run[1] == k && !cut => run[1] = k + 1,
                _ => runs.push([k, k + 1]),
            }
        }
    }
    runs
}

/// Writes the clip into a file of its own below `out`; returns its line in the index, without quality and sync.
///
/// # Errors
/// Those of [`ClipArrays::write`].
pub(crate) fn store(
    arrays: &ClipArrays,
    meta: ClipMeta,
    runs: Vec<[usize; 2]>,
    out: &Path,
) -> Result<ClipEntry, DataError> {
    let file = loose_file(&meta.clip);
    let path = out.join(&file);
    let content = arrays.write(&path, &meta)?;
    let num_bytes = std::fs::metadata(&path).map_err(|error| DataError::io("prepare", &path, error))?.len();
    let openings: Vec<f64> = arrays
        .opening
        .iter()
        .zip(&arrays.valid)
        .filter(|(_, valid)| **valid == 1)
        .map(|(opening, _)| f64::from(*opening))
        .collect();
    let count = openings.len().max(1) as f64;
    let mean = openings.iter().sum::<f64>() / count;
    let variance = openings.iter().map(|o| (o - mean).powi(2)).sum::<f64>() / count;
    let scales: Vec<f32> = arrays
        .crop_from_frame
        .chunks_exact(6)
        .map(|m| (m[0] * m[4] - m[1] * m[3]).abs().sqrt())
        .filter(|scale| *scale > 0.0)
        .collect();
    Ok(ClipEntry {
        content,
        num_frames: arrays.num_frames(),
        num_valid: openings.len(),
        crop_size: arrays.crop_size,
        crop_scale: scales.iter().sum::<f32>() / scales.len().max(1) as f32,
        mean_opening: mean as f32,
        opening_deviation: variance.sqrt() as f32,
        clip: meta.clip,
        corpus: meta.corpus,
        split: meta.split,
        speaker: meta.speaker,
        licence: meta.licence,
        transcript: meta.transcript,
        source_fps: meta.source_fps,
        source_size: meta.source_size,
        file,
        offset: 0,
        num_bytes,
        sha256: String::new(),
        quality: None,
        sync: None,
        runs,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_end_at_gaps_and_cuts() {
        let sources: Vec<usize> = vec![0, 1, 2, 4, 5, 6, 7, 8];
        let valid = [1, 1, 1, 1, 0, 1, 1, 1];
        let found = runs(&valid, &sources, &HashSet::from([3, 8]));
        assert_eq!(found, [[0, 3], [3, 4], [5, 7], [7, 8]], "the cut at 3 shows at source 4");
        assert_eq!(runs(&valid, &sources, &HashSet::new()), [[0, 4], [5, 8]]);
    }

    #[test]
    fn speech_fits_the_frames() {
        let mut arrays = ClipArrays { valid: vec![1; 4], ..ClipArrays::default() };
        let mut notes = Vec::new();
        let speech = |len: usize| Speech { samples: vec![99; len], warnings: Vec::new() };
        fit_speech(&mut arrays, &speech(9999), &mut notes);
        assert_eq!((arrays.speech.len(), notes.len()), (4 * 640, 0));
        fit_speech(&mut arrays, &speech(640), &mut notes);
        assert_eq!(arrays.speech[639..641], [99, 0]);
        assert_eq!(notes, ["the sound ends 120 ms before the picture"]);
    }
}
