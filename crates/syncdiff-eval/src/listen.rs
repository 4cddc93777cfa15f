//! LSE-C and LSE-D of a clip while it streams by.
//!
//! # Source
//! Wav2Lip `evaluation/scores_LSE` (`calculate_scores_LRS.py`: whole frames), and syncnet_python `run_pipeline.py`
//! (`crop_video`: faces of wild videos).

use syncdiff_face::{Affine, FaceBox, warp};
use syncdiff_media::Frame;
use syncdiff_media::time::MODEL_RATE;
use syncdiff_model::scorers::{SyncDistances, SyncScore};

use crate::error::EvalResult;
use crate::faces::FaceSeries;
use crate::judge::Judge;
use crate::region::{CROP, resized_bilinear};

/// Room round the face in the in-the-wild protocol, in half sides of its box.
const CROP_SCALE: f64 = 0.4;
/// Boxes are medians over so many frames; outside of the clip there are zeros.
const MEDIAN_FRAMES: usize = 13;
/// What lies outside of the frame.
const PADDING: u8 = 110;
/// Windows that go through the network at a time.
const BATCH: usize = 8;
/// Time stamps are trusted to this, in seconds.
const SLACK_SECS: f64 = 1e-4;

/// What the judge is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// The whole frame: `calculate_scores_LRS`, for corpora whose frames are faces.
    Lrs,
    /// The face with some room around it, as syncnet_python cuts wild videos.
    Wild,
    /// The aligned crop of the face: what our own judge learnt from.
    Own,
}

impl Protocol {
    /// What the keys of its metrics begin with.
    pub fn key(self) -> &'static str {
        match self {
            Protocol::Lrs => "sync.lrs",
            Protocol::Wild => "sync.wild",
            Protocol::Own => "sync.own",
        }
    }
}

/// Half the longer side and the middle of a face's box.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Place {
    half: f64,
    x: f64,
    y: f64,
}

/// Shows the frames of a clip to a judge, at 25 a second, and keeps the embeddings: 4 KB a window.
pub struct Listener<'a> {
    judge: &'a dyn Judge,
    protocol: Protocol,
    places: Vec<Place>,
    /// From frame pixels to the aligned crop.
    crops: Vec<Affine>,
    /// The last picture, which is shown until the next one comes.
    held: Option<Frame>,
    shown: usize,
    waiting: Vec<Frame>,
    lips: Vec<f32>,
}

impl<'a> Listener<'a> {
    /// Nothing yet. Faces are those of the reference; without any, whole frames are shown.
    pub fn new(judge: &'a dyn Judge, protocol: Protocol, faces: &FaceSeries) -> Self {
        let places = if protocol == Protocol::Wild { places(&faces.face_box) } else { Vec::new() };
        // Pixel centres at integers.
        let scale = judge.side() as f64 / CROP as f64;
        let smaller = Affine::scale_shift(scale, (scale - 1.0) / 2.0, (scale - 1.0) / 2.0);
        let crops = match protocol {
            Protocol::Own => filled(&faces.crop_from_frame).iter().map(|crop| crop.then(&smaller)).collect(),
            _ => Vec::new(),
        };
        Listener { judge, protocol, places, crops, held: None, shown: 0, waiting: Vec::new(), lips: Vec::new() }
    }

    /// Adds a frame that is shown from `secs` on; `index` is that of the reference's frame beside it.
    ///
    /// # Errors
    /// Those of the judge.
    pub fn push(&mut self, frame: &Frame, secs: f64, index: usize) -> EvalResult<()> {
        self.show_until(secs)?;
        let side = self.judge.side();
        let place = self.places.get(index.min(self.places.len().saturating_sub(1)));
        let crop = self.crops.get(index.min(self.crops.len().saturating_sub(1)));
        let picture = match (self.protocol, place, crop) {
            (Protocol::Wild, Some(place), _) => resized_bilinear(&wild_crop(frame, place), side, side),
            (Protocol::Own, _, Some(crop)) => warp(frame, crop, side),
            _ => resized_bilinear(frame, side, side),
        };
        self.held = Some(picture);
        Ok(())
    }

    /// Repeats the held picture for every moment of 25 a second before `secs`.
    fn show_until(&mut self, secs: f64) -> EvalResult<()> {
        let Some(held) = self.held.take() else { return Ok(()) };
        while (self.shown as f64) / (MODEL_RATE as f64) < secs - SLACK_SECS {
            self.waiting.push(held.clone());
            self.shown += 1;
            if self.waiting.len() == BATCH + self.judge.window_frames() - 1 {
                self.embed()?;
            }
        }
        Ok(())
    }

    fn embed(&mut self) -> EvalResult<()> {
        let overlap = self.judge.window_frames() - 1;
        if self.waiting.len() > overlap {
            self.lips.extend(self.judge.lips(&self.waiting)?);
            self.waiting.drain(..self.waiting.len() - overlap);
        }
        Ok(())
    }

    /// The scores of a picture that ends at `end_secs`, with this speech.
    ///
    /// # Errors
    /// Those of the judge; a clip or a speech that is shorter than one window.
    pub fn finish(mut self, samples: &[i16], end_secs: f64) -> EvalResult<SyncScore> {
        self.show_until(end_secs)?;
        self.embed()?;
        let dim = self.judge.embedding_dim();
        let windows = self.judge.num_windows(self.shown, samples.len()).min(self.lips.len() / dim.max(1));
        self.lips.truncate(windows * dim);
        let speech = self.judge.speech(samples, windows)?;
        Ok(SyncDistances::between(&self.lips, &speech, dim)?.score())
    }
}

/// The places of a face in all frames: gaps filled from the nearest frame, then medians over time.
fn places(boxes: &[Option<FaceBox>]) -> Vec<Place> {
    let place = |b: FaceBox| {
        let [x, y] = b.centre().map(f64::from);
        Place { half: f64::from(b.width().max(b.height())) / 2.0, x, y }
    };
    let filled: Vec<Place> = filled(boxes).into_iter().map(place).collect();
    let median = |frame: usize, value: fn(&Place) -> f64| {
        let half = MEDIAN_FRAMES / 2;
        let mut values: Vec<f64> = (0..MEDIAN_FRAMES)
            .map(|k| (frame + k).checked_sub(half).and_then(|at| filled.get(at)).map_or(0.0, value))
            .collect();
        values.sort_by(f64::total_cmp);
        values[half]
    };
    (0..filled.len())
        .map(|i| Place { half: median(i, |p| p.half), x: median(i, |p| p.x), y: median(i, |p| p.y) })
        .collect()
}

/// A series with its gaps filled from the nearest frame; empty where nothing is known.
fn filled<T: Copy>(series: &[Option<T>]) -> Vec<T> {
    let known: Vec<(usize, T)> = series.iter().enumerate().filter_map(|(i, value)| Some((i, (*value)?))).collect();
    let nearest = |frame: usize| {
        let after = known.partition_point(|(i, _)| *i < frame);
        let (before, after) = (after.checked_sub(1).and_then(|at| known.get(at)), known.get(after));
        let both = before.into_iter().chain(after);
        both.min_by_key(|(i, _)| i.abs_diff(frame)).map(|(_, value)| *value)
    };
    (0..series.len()).filter_map(nearest).collect()
}

/// The square round a face that syncnet_python cuts out.
fn wild_crop(frame: &Frame, place: &Place) -> Frame {
    let Place { half, x, y } = *place;
    let (top, left) = ((y - half).floor() as i64, (x - half * (1.0 + CROP_SCALE)).floor() as i64);
    let bottom = (y + half * (1.0 + 2.0 * CROP_SCALE)).floor() as i64;
    let right = (x + half * (1.0 + CROP_SCALE)).floor() as i64;
    let (width, height) = ((right - left).max(1) as usize, (bottom - top).max(1) as usize);
    let mut crop = Frame::filled(width, height, [PADDING; 3]);
    let inside = |at: i64, len: usize| usize::try_from(at).ok().filter(|at| *at < len);
    for row in 0..height {
        let Some(from_y) = inside(top + row as i64, frame.height) else { continue };
        for column in 0..width {
            if let Some(from_x) = inside(left + column as i64, frame.width) {
                crop.set_pixel(column, row, frame.pixel(from_x, from_y));
            }
        }
    }
    crop
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;

    /// Embeds a window by the red of its first picture, speech by the sample at its start.
    #[derive(Default)]
    struct Mirror(RefCell<Vec<u8>>);

    impl Judge for Mirror {
        fn name(&self) -> String {
            "mirror".into()
        }
        fn description(&self) -> String {
            "embeds what it is shown".into()
        }
        fn protocols(&self) -> &'static [Protocol] {
            &[Protocol::Lrs]
        }
        fn side(&self) -> usize {
            2
        }
        fn window_frames(&self) -> usize {
            3
        }
        fn embedding_dim(&self) -> usize {
            1
        }
        fn num_windows(&self, num_frames: usize, num_samples: usize) -> usize {
            num_frames.min(num_samples / 640).saturating_sub(2)
        }
        fn lips(&self, frames: &[Frame]) -> EvalResult<Vec<f32>> {
            let windows = frames.len() - 2;
            self.0.borrow_mut().extend(frames[..windows].iter().map(|frame| frame.data[0]));
            Ok(frames[..windows].iter().map(|frame| f32::from(frame.data[0])).collect())
        }
        fn speech(&self, samples: &[i16], windows: usize) -> EvalResult<Vec<f32>> {
            Ok((0..windows).map(|i| f32::from(samples[i * 640])).collect())
        }
    }

    fn flat(red: u8) -> Frame {
        Frame::filled(4, 4, [red, 0, 0])
    }

    /// Jumps about, so that no shift but one fits.
    fn colour(i: usize) -> u8 {
        ((i * i * 37 + i * 11) % 200) as u8
    }

    #[test]
    fn the_offset_of_the_sound_comes_through() {
        for late_by in [-4_i64, 0, 3] {
            let judge = Mirror::default();
            let mut listener = Listener::new(&judge, Protocol::Lrs, &FaceSeries::default());
            for i in 0..60 {
                listener.push(&flat(colour(i)), i as f64 / 25.0, i).unwrap();
            }
            let sample = |i: usize| (i as i64 / 640 - late_by).try_into().map_or(250, |i: usize| i16::from(colour(i)));
            let samples: Vec<i16> = (0..60 * 640).map(sample).collect();
            let score = listener.finish(&samples, 60.0 / 25.0).unwrap();
            assert_eq!(i64::from(score.offset_frames), -late_by, "{score:?}");
        }
    }

    #[test]
    fn other_rates_are_shown_at_25_a_second() {
        for (rate, frames) in [(50.0, 40), (12.5, 10), (30.0, 24)] {
            let judge = Mirror::default();
            let mut listener = Listener::new(&judge, Protocol::Lrs, &FaceSeries::default());
            for i in 0..frames {
                listener.push(&flat(i as u8), i as f64 / rate, i).unwrap();
            }
            listener.finish(&[0; 20 * 640], frames as f64 / rate).unwrap();
            let expected: Vec<u8> = (0..18).map(|i| (i as f64 / 25.0 * rate + 1e-6) as u8).collect();
            assert_eq!(*judge.0.borrow(), expected, "{rate}");
        }
    }

    #[test]
    fn wild_faces_keep_their_room_and_gaps_are_filled() {
        let frame = flat(50);
        let crop = wild_crop(&frame, &Place { half: 5.0, x: 2.0, y: 2.0 });
        // 1.4 half sides to both sides, one above and 1.8 below.
        assert_eq!((crop.width, crop.height), (14, 14));
        assert_eq!((crop.pixel(0, 0), crop.pixel(5, 3)), ([110; 3], [50, 0, 0]));
        let at = |x: f32| Some(FaceBox { x0: x, y0: 0.0, x1: x + 10.0, y1: 20.0 });
        let mut boxes = vec![at(10.0); 30];
        boxes[14] = None;
        boxes[15] = at(99.0);
        let found = places(&boxes);
        assert!(found.iter().all(|place| *place == Place { half: 10.0, x: 15.0, y: 10.0 }), "{found:?}");
        assert!(places(&[None; 4]).is_empty());
    }

    #[test]
    fn a_clip_shorter_than_a_window_is_refused() {
        let judge = Mirror::default();
        let mut listener = Listener::new(&judge, Protocol::Wild, &FaceSeries::default());
        listener.push(&flat(1), 0.0, 0).unwrap();
        assert!(listener.finish(&[0; 640], 0.04).is_err());
    }
}
