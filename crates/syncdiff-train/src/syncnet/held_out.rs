//! How well a SyncNet tells time on clips that it has not learned from.

use super::SyncNetTrainee;
use crate::error::TrainResult;
use crate::images::to_tensor;
use crate::talk::TalkSource;
use burn::tensor::{Device, Tensor};
use syncdiff_model::scorers::own_syncnet::{EMBEDDING_DIM, WINDOW_FRAMES};

/// Sounds moved by so many frames to either side are choices.
const MOST: isize = 10;
/// A hit is at most so far off.
const HIT: isize = 1;
/// How far a clip's own picture and sound may be apart.
const OWN: isize = 3;
/// Windows for the loss: so many, each some frames after the last.
const LOSS_STEP: usize = 3;
const LOSS_WINDOWS: usize = 8;

/// Embeddings of a clip's windows.
struct Embedded {
    lips: Vec<f32>,
    speech: Vec<f32>,
    /// Whether all frames of a window show the face.
    seen: Vec<bool>,
    /// Frames by which the sound has to be moved, by the table.
    expected: isize,
}

fn rows(x: Tensor<2>) -> Vec<f32> {
    x.into_data().convert::<f32>().try_into_vec().expect("converted to f32")
}

impl Embedded {
    fn similarity(&self, lip: usize, sound: usize) -> f32 {
        let (lip, sound) = (&self.lips[lip * EMBEDDING_DIM..], &self.speech[sound * EMBEDDING_DIM..]);
        lip[..EMBEDDING_DIM].iter().zip(sound).map(|(a, b)| a * b).sum()
    }

    /// Similarity of window `lip` to the sound `shift` frames later; `None` where there is none.
    fn at(&self, lip: usize, shift: isize) -> Option<f32> {
        let sound = lip.checked_add_signed(shift).filter(|sound| *sound < self.seen.len())?;
        self.seen[lip].then(|| self.similarity(lip, sound))
    }

    /// Best shift of one window among all; `None` near the ends.
    fn best_of(&self, lip: usize) -> Option<isize> {
        let all = (-MOST..=MOST).map(|shift| Some((shift, self.at(lip, shift)?))).collect::<Option<Vec<_>>>()?;
        all.into_iter().max_by(|a, b| a.1.total_cmp(&b.1)).map(|(shift, _)| shift)
    }

    /// Best shift of the clip on the whole, up to `most`.
    fn best(&self, most: isize) -> isize {
        let mean = |shift: &isize| {
            let (sum, count) = (0..self.seen.len())
                .filter_map(|lip| self.at(lip, *shift))
                .fold((0.0, 0), |(sum, count), value| (sum + value, count + 1));
            if count == 0 { f32::NEG_INFINITY } else { sum / count as f32 }
        };
        (-most..=most).max_by(|a, b| mean(a).total_cmp(&mean(b))).unwrap_or(0)
    }

    /// InfoNCE in both directions over windows of the clip; `None` when it is too short.
    fn loss(&self, scale: f32) -> Option<f32> {
        let windows: Vec<usize> = (0..self.seen.len())
            .step_by(LOSS_STEP)
            .filter(|lip| self.at(*lip, self.expected).is_some())
            .take(LOSS_WINDOWS)
            .collect();
        if windows.len() < LOSS_WINDOWS {
            return None;
        }
        let value = |lip: usize, sound: usize| {
            scale * self.similarity(windows[lip], windows[sound].wrapping_add_signed(self.expected))
        };
        let one = |i: usize, other: &dyn Fn(usize) -> f32| -> f32 {
            (0..LOSS_WINDOWS).map(|j| (other(j) - value(i, i)).exp()).sum::<f32>().ln()
        };
        let sum: f32 = (0..LOSS_WINDOWS).map(|i| one(i, &|j| value(i, j)) + one(i, &|j| value(j, i))).sum();
        Some(sum / (2 * LOSS_WINDOWS) as f32)
    }
}

/// Mean of what there is; 0 of nothing.
fn mean(values: &[f32]) -> f32 {
    values.iter().sum::<f32>() / values.len().max(1) as f32
}

/// The figures of `SyncNetTask::validate`.
pub(crate) fn held_out_figures(
    model: &SyncNetTrainee,
    clips: &dyn TalkSource,
    device: &Device,
) -> TrainResult<Vec<(&'static str, f32)>> {
    let scale = model.scale().into_scalar::<f32>();
    let (mut loss, mut plain, mut aligned, mut whole) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for index in 0..clips.num_clips() {
        let talk = clips.clip(index)?;
        let clip = &talk.clip;
        if clip.num_frames() < WINDOW_FRAMES {
            continue;
        }
        let crops: Vec<Vec<u8>> = (0..clip.num_frames()).map(|f| clip.frame(f).to_vec()).collect();
        let embedded = Embedded {
            lips: rows(model.net.lips(to_tensor(&crops, clip.crop_size(), device))?),
            speech: rows(model.net.speech(clip.speech(), device)?),
            seen: clip.valid().windows(WINDOW_FRAMES).map(|window| window.iter().all(|v| *v != 0)).collect(),
            expected: -talk.offset,
        };
        let hit = |found: isize, expected: isize| if (found - expected).abs() <= HIT { 1.0 } else { 0.0 };
        let own = embedded.best(OWN);
        for found in (0..embedded.seen.len()).filter_map(|lip| embedded.best_of(lip)) {
            plain.push(hit(found, embedded.expected));
            aligned.push(hit(found, own));
        }
        whole.push(hit(embedded.best(MOST), embedded.expected));
        loss.extend(embedded.loss(scale));
    }
    Ok(vec![("loss", mean(&loss)), ("accuracy", mean(&plain)), ("aligned", mean(&aligned)), ("of_clips", mean(&whole))])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each window has a direction of its own; the sound's are those of the lips `lag` frames earlier.
    fn clip(windows: usize, lag: isize) -> Embedded {
        let row = |at: isize| {
            let mut row = vec![0f32; EMBEDDING_DIM];
            row[at.rem_euclid(EMBEDDING_DIM as isize) as usize] = 1.0;
            row
        };
        Embedded {
            lips: (0..windows as isize).flat_map(row).collect(),
            speech: (0..windows as isize).flat_map(|i| row(i + lag)).collect(),
            seen: vec![true; windows],
            expected: -lag,
        }
    }

    #[test]
    fn shifts_are_found_with_their_sign_and_only_where_all_choices_exist() {
        for lag in [-3, 0, 2] {
            let clip = clip(30, lag);
            assert_eq!(clip.best_of(15), Some(-lag));
            assert_eq!((clip.best(10), clip.best(3)), (-lag, -lag));
            assert_eq!((clip.best_of(9), clip.best_of(20)), (None, None));
            // Each window knows its own among eight others that are all alike to it.
            let expected = (1.0 + 7.0 * (-5f32).exp()).ln();
            assert!((clip.loss(5.0).unwrap() - expected).abs() < 1e-5);
        }
        assert!(clip(12, 0).loss(5.0).is_none());
    }

    #[test]
    fn windows_without_a_face_do_not_count() {
        let mut clip = clip(30, 0);
        clip.seen[15] = false;
        assert_eq!(clip.best_of(15), None);
        assert_eq!(clip.best_of(14), Some(0));
    }
}
