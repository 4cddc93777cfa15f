//! One clip of a step: how it is cut, coloured, paced and begun, and what of it is lost.

use super::ReaderTraining;
use crate::error::{TrainError, TrainResult};
use crate::images::{Area, View};
use crate::talk::TalkSource;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::ops::Range;
use syncdiff_data::{Clip, ColourJitter, JitterRanges};
use syncdiff_model::reader::GridSentence;
use syncdiff_model::reader::grid::{MAX_FRAMES, PICTURE};
use syncdiff_model::scorers::own_syncnet::{MOUTH_LEFT, MOUTH_SIDE, MOUTH_TOP};

/// Where the network looks.
const MOUTH: Area = Area { left: MOUTH_LEFT, top: MOUTH_TOP, side: MOUTH_SIDE };

/// The mouths of a clip, and what they say.
pub(super) struct Example {
    /// [frames, 64, 64]
    pub(super) grey: Vec<u8>,
    /// Frames of which nothing is to be seen.
    pub(super) hidden: Range<usize>,
    pub(super) said: GridSentence,
}

impl Example {
    /// Draws a clip and how it is changed.
    pub(super) fn draw(clips: &dyn TalkSource, settings: &ReaderTraining, seed: u64) -> TrainResult<Self> {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let clip = clips.clip(random.random_range(0..clips.num_clips()))?.clip;
        let within = |random: &mut ChaCha8Rng, most: f64| random.random_range(-1.0..=1.0) * most;
        let shift = f64::from(settings.shift);
        let view = View {
            shift: [within(&mut random, shift) as f32, within(&mut random, shift) as f32],
            zoom: 1.0 + within(&mut random, f64::from(settings.zoom)) as f32,
            mirrored: random.random(),
        };
        let colour = ColourJitter::draw(&JitterRanges::default().times(settings.colour), seed, 0, 0);
        let pace = 1.0 + within(&mut random, settings.stretch);
        let start = within(&mut random, settings.start);
        let frames = clip.num_frames();
        let mut shown: Vec<f64> = (0..(frames as f64 / pace).round().max(1.0) as usize)
            .map(|t| (t as f64 * pace + start).clamp(0.0, (frames - 1) as f64))
            .collect();
        for t in 1..shown.len() {
            if random.random_bool(settings.lost) {
                shown[t] = shown[t - 1];
            }
        }
        let length = random.random_range(0..=settings.hidden.min(shown.len()));
        let first = random.random_range(0..=shown.len() - length);
        Self::cut(&clip, view, &colour, &shown, first..first + length)
    }

    /// A clip as it is.
    pub(super) fn plain(clip: &Clip) -> TrainResult<Self> {
        let shown: Vec<f64> = (0..clip.num_frames()).map(|t| t as f64).collect();
        Self::cut(clip, View::PLAIN, &ColourJitter::NONE, &shown, 0..0)
    }

    /// Frames number of the clip, between two of which both are seen by their shares.
    fn cut(clip: &Clip, view: View, colour: &ColourJitter, shown: &[f64], hidden: Range<usize>) -> TrainResult<Self> {
        let refused = |name, allowed: String| {
            let value = clip.meta().clip.clone();
            Err(TrainError::Parameter { name, value, allowed })
        };
        let Some(said) = GridSentence::parse(&clip.meta().transcript) else {
            let allowed = format!("what is said must be a command of GRID, not {:?}", clip.meta().transcript);
            return refused("clip", allowed);
        };
        if shown.len().max(clip.num_frames()) > MAX_FRAMES {
            return refused("clip", format!("{} frames: a command has at most {MAX_FRAMES}", clip.num_frames()));
        }
        let mouths: Vec<Vec<f32>> = (0..clip.num_frames())
            .map(|frame| {
                let mut mouth = MOUTH.cut(clip.frame(seen(clip, frame)), clip.crop_size(), PICTURE, view);
                colour.apply(&mut mouth);
                mouth.as_chunks::<3>().0.iter().map(grey).collect()
            })
            .collect();
        let mut pictures = Vec::with_capacity(shown.len() * PICTURE.pow(2));
        for at in shown {
            let (before, share) = (at.floor() as usize, at.fract() as f32);
            let after = &mouths[(before + 1).min(mouths.len() - 1)];
            let between = mouths[before].iter().zip(after).map(|(a, b)| a + (b - a) * share);
            pictures.extend(between.map(|value| value.round() as u8));
        }
        Ok(Self { grey: pictures, hidden, said })
    }

    /// Frames.
    pub(super) fn len(&self) -> usize {
        self.grey.len() / PICTURE.pow(2)
    }
}

/// The frame that is seen in the place of one without a face: the last one with it, else the first.
fn seen(clip: &Clip, frame: usize) -> usize {
    let valid = clip.valid();
    let before = (0..=frame).rev().find(|frame| valid[*frame] != 0);
    before.or_else(|| valid.iter().position(|valid| *valid != 0)).unwrap_or(frame)
}

/// As OpenCV's `COLOR_BGR2GRAY`, rounded as a picture of bytes is.
fn grey([r, g, b]: &[u8; 3]) -> f32 {
    (0.299 * f32::from(*r) + 0.587 * f32::from(*g) + 0.114 * f32::from(*b)).round()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::talk::TalkingClip;
    use std::sync::Arc;
    use syncdiff_data::{ClipArrays, ClipMeta};

    const PLAIN: ReaderTraining = ReaderTraining {
        shift: 0.0,
        zoom: 0.0,
        colour: 0.0,
        stretch: 0.0,
        start: 0.0,
        lost: 0.0,
        hidden: 0,
        dropout: 0.0,
        smoothing: 0.0,
    };

    /// Frame t is grey of value 10 t, with a brighter left half; the frames in `gaps` show no face.
    fn clip(frames: usize, gaps: &[usize], transcript: &str) -> Vec<TalkingClip> {
        let side = 128;
        let pixel = |t: usize, i: usize| (10 * t + if i / 3 % side < side / 2 { 5 } else { 0 }) as u8;
        let picture = |t: usize| (0..side * side * 3).map(move |i| if gaps.contains(&t) { 0 } else { pixel(t, i) });
        let arrays = ClipArrays {
            crop_size: side,
            frames: (0..frames).flat_map(picture).collect(),
            crop_from_frame: vec![0.0; 6 * frames],
            face_box: vec![0.0; 4 * frames],
            landmarks: vec![0.0; 2 * 468 * frames],
            opening: vec![0.0; frames],
            valid: (0..frames).map(|t| u8::from(!gaps.contains(&t))).collect(),
            speech: vec![0; frames * 640],
        };
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("clip.safetensors");
        let meta = ClipMeta { clip: "train/x".into(), transcript: transcript.into(), ..ClipMeta::default() };
        arrays.write(&path, &meta).unwrap();
        vec![TalkingClip { clip: Arc::new(Clip::read(&path).unwrap()), offset: 0 }]
    }

    /// The last pixel of each frame, which lies in the right half.
    fn levels(example: &Example) -> Vec<u8> {
        example.grey.chunks_exact(PICTURE.pow(2)).map(|picture| picture[PICTURE.pow(2) - 1]).collect()
    }

    #[test]
    fn frames_without_a_face_show_the_last_one_that_has_it() {
        let clips = clip(6, &[0, 3, 4], "bin blue at f two now");
        let example = Example::plain(&clips[0].clip).unwrap();
        assert_eq!(levels(&example), [10, 10, 20, 20, 20, 50]);
        assert_eq!((example.len(), example.hidden, example.grey[0]), (6, 0..0, 15));
    }

    #[test]
    fn other_sentences_and_long_clips_are_refused() {
        for (frames, said, part) in [(3, "good evening", "good evening"), (251, "bin blue at f two now", "250")] {
            let error = Example::plain(&clip(frames, &[], said)[0].clip).map(|_| ()).unwrap_err().to_string();
            assert!(error.contains(part) && error.contains("train/x"), "{error}");
        }
    }

    #[test]
    fn clips_are_paced_begun_mirrored_and_lose_frames() {
        let clips = clip(20, &[], "bin blue at f two now");
        let (mut lengths, mut starts, mut mirrored, mut repeated, mut hidden) = (Vec::new(), Vec::new(), 0, 0, 0);
        let settings = ReaderTraining { stretch: 0.2, start: 3.0, lost: 0.2, hidden: 4, ..PLAIN };
        for seed in 0..60 {
            let example = Example::draw(&clips, &settings, seed).unwrap();
            let levels = levels(&example);
            let left = usize::from(example.grey[0] > levels[0]);
            mirrored += 1 - left;
            lengths.push(example.len());
            starts.push(levels[0]);
            repeated += levels[5..12].windows(2).filter(|pair| pair[0] == pair[1]).count();
            hidden += example.hidden.len();
            assert!(example.hidden.end <= example.len() && example.hidden.len() <= 4);
            assert!(levels.is_sorted(), "{levels:?}");
        }
        assert!(lengths.iter().min().unwrap() < &18 && lengths.iter().max().unwrap() > &23);
        assert!(lengths.iter().all(|length| (16..=25).contains(length)));
        assert!(starts.iter().any(|level| *level > 20) && starts.iter().all(|level| *level <= 35));
        assert!((20..40).contains(&mirrored) && repeated > 30 && hidden > 60, "{mirrored} {repeated} {hidden}");
        let plain = Example::draw(&clips, &PLAIN, 1).unwrap();
        assert_eq!(plain.len(), 20);
    }
}
