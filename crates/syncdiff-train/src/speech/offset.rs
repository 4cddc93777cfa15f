//! How far the picture of a clip is from its sound.
//!
//! News clips lead or lag by a frame or two, each by its own. A network that is taught one mouth for a sound by clips
//! that disagree on when it comes learns their mean: a mouth that hardly opens. The trained encoder itself tells where
//! a clip's lips fit its sound best, as SyncNet does for LRS (Chung and Zisserman 2016).

use super::{LIP_VALUES, OPENING_WEIGHT, SpeechClip};
use crate::error::{TrainError, TrainResult};
use std::collections::BTreeMap;
use std::path::Path;

/// Share by which a fit must be better for each frame that the picture is moved.
const RELUCTANCE: f32 = 0.03;

/// Where the lips of a clip fit its sound.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ClipOffset {
    /// Frames by which the picture lags behind the sound; negative where it leads.
    pub frames: isize,
    /// Error of the fit over the error without a move; 1 where nothing is moved.
    pub gain: f32,
}

/// Compares foretold and true lips at every distance up to `most` frames.
pub(super) fn find(predicted: &[[f32; LIP_VALUES]], clip: &SpeechClip, most: usize) -> ClipOffset {
    let error = |frames: isize| {
        let (sum, count) = predicted
            .iter()
            .enumerate()
            .filter_map(|(t, shape)| Some((shape, clip.at(t, frames)?)))
            .map(|(a, b)| distance(a, b))
            .fold((0.0, 0), |(sum, count), e| (sum + e, count + 1));
        // Too few frames left to compare: not a fit.
        if 2 * count < predicted.len() { f32::INFINITY } else { sum / count as f32 }
    };
    let (most, still) = (most as isize, error(0));
    let cost = |frames: &isize| error(*frames) * (1.0 + RELUCTANCE * frames.unsigned_abs() as f32);
    let best = (-most..=most).min_by(|a, b| cost(a).total_cmp(&cost(b))).unwrap_or(0);
    let frames = if cost(&best) < still { best } else { 0 };
    ClipOffset { frames, gain: if frames == 0 { 1.0 } else { error(frames) / still } }
}

fn distance(a: &[f32; LIP_VALUES], b: &[f32; LIP_VALUES]) -> f32 {
    let squares = a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum::<f32>() / LIP_VALUES as f32;
    squares + (a[LIP_VALUES - 1] - b[LIP_VALUES - 1]).powi(2) * OPENING_WEIGHT as f32
}

/// Writes a table of clip, frames and gain.
///
/// # Errors
/// [`TrainError`] naming the file.
pub fn write_offsets(path: &Path, clips: &[(&str, ClipOffset)]) -> TrainResult<()> {
    let mut text = String::from("clip\tframes\tgain\n");
    for (clip, offset) in clips {
        text.push_str(&format!("{clip}\t{}\t{:.3}\n", offset.frames, offset.gain));
    }
    std::fs::write(path, text).map_err(|e| TrainError::io(path, e))
}

/// Reads the frames of each clip from a table that [`write_offsets`] wrote.
///
/// # Errors
/// A file that cannot be read, or a line that is not of this form.
pub fn read_offsets(path: &Path) -> TrainResult<BTreeMap<String, isize>> {
    let text = std::fs::read_to_string(path).map_err(|e| TrainError::io(path, e))?;
    let read = |(number, line): (usize, &str)| {
        let mut parts = line.split('\t');
        let (clip, frames) = (parts.next(), parts.next().and_then(|f| f.parse().ok()));
        clip.zip(frames).map(|(clip, frames)| (clip.to_owned(), frames)).ok_or_else(|| TrainError::Parameter {
            name: "offsets",
            value: format!("{}, line {}: {line:?}", path.display(), number + 1),
            allowed: "lines of clip, frames and gain, parted by tabs, as `syncdiff train speech` writes them".into(),
        })
    };
    text.lines().enumerate().skip(1).map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lips(t: f32) -> [f32; LIP_VALUES] {
        [0.01 * (t * 0.9).sin(); LIP_VALUES]
    }

    #[test]
    fn the_distance_of_a_moved_picture_is_found() {
        for lag in [-3isize, -1, 0, 2] {
            let clip = SpeechClip::new(vec![0; 640 * 30], (0..30).map(|t| lips((t - lag) as f32)).collect(), {
                let mut valid = vec![true; 30];
                valid[11] = false;
                valid
            });
            let heard = SpeechClip::new(vec![0; 640 * 30], (0..30).map(|t| lips(t as f32)).collect(), vec![true; 30]);
            let found = find(&heard.shapes, &clip, 3);
            assert_eq!(found.frames, lag);
            assert!(if lag == 0 { found.gain == 1.0 } else { found.gain < 0.3 });
            assert_eq!(find(&heard.shapes, &clip, 0).frames, 0);
        }
    }

    #[test]
    fn tables_are_read_back_and_others_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("offsets.tsv");
        write_offsets(&path, &[("a/b", ClipOffset { frames: -2, gain: 0.7 })]).unwrap();
        assert_eq!(read_offsets(&path).unwrap(), BTreeMap::from([("a/b".to_owned(), -2)]));
        std::fs::write(&path, "clip\tframes\na/b\ttwo\n").unwrap();
        let error = read_offsets(&path).unwrap_err().to_string();
        assert!(error.contains("line 2") && error.contains("offsets.tsv"), "{error}");
    }
}
