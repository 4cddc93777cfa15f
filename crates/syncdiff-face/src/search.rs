//! Looking for faces with the right effort: the fast detector first, then the one for small faces,
//! then parts of a large picture.

use crate::detect::{Square, merge};
use crate::{Detection, Detector, DetectorKind, FaceError, FaceModels};
use syncdiff_media::Frame;

/// While there is nobody, the costly searches run ever less often: after so many frames at first,
const FIRST_PAUSE: usize = 2;
/// then twice that, and so on up to so many.
const LONGEST_PAUSE: usize = 24;
/// Shorter side of a picture, in pixels, from which parts of it are searched.
const LARGE_PX: usize = 480;

/// Both detectors and when to use which.
#[derive(Clone, Debug)]
pub(crate) struct Searcher {
    short: Detector,
    full: Detector,
    /// Frame of the next costly search, and the pause after it.
    next_costly: usize,
    pause: usize,
}

impl Searcher {
    pub(crate) fn new(models: &FaceModels) -> Result<Self, FaceError> {
        Ok(Searcher {
            short: Detector::new(models, DetectorKind::ShortRange)?,
            full: Detector::new(models, DetectorKind::FullRange)?,
            next_costly: 0,
            pause: FIRST_PAUSE,
        })
    }

    /// Something happened (a cut, a lost face): the next search may be costly at once.
    pub(crate) fn hurry(&mut self) {
        self.next_costly = 0;
        self.pause = FIRST_PAUSE;
    }

    /// Faces in the picture, best first. Without a known face (`alone`) harder is looked for one.
    pub(crate) fn search(&mut self, frame: &Frame, alone: bool, now: usize) -> Vec<Detection> {
        let found = self.short.detect(frame);
        if !found.is_empty() || !alone || now < self.next_costly {
            return found;
        }
        let found = self.full.detect(frame);
        self.next_costly = now + self.pause;
        self.pause = (2 * self.pause).min(LONGEST_PAUSE);
        if !found.is_empty() {
            return found;
        }
        if frame.width.min(frame.height) < LARGE_PX {
            return found;
        }
        let mut all: Vec<Detection> = tiles(frame).flat_map(|tile| self.full.detect_in(frame, tile)).collect();
        all.sort_by(|a, b| b.score.total_cmp(&a.score));
        merge(all)
    }
}

/// Overlapping squares over the picture, each 0.62 of its shorter side.
fn tiles(frame: &Frame) -> impl Iterator<Item = Square> + use<> {
    let (w, h) = (frame.width as f64, frame.height as f64);
    let side = 0.62 * w.min(h);
    let count = |len: f64| ((len - side) / (0.65 * side)).ceil().max(1.0) as usize + 1;
    let (columns, rows) = (count(w), count(h));
    (0..columns * rows).map(move |i| Square {
        x: (w - side) * (i % columns) as f64 / (columns - 1) as f64,
        y: (h - side) * (i / columns) as f64 / (rows - 1) as f64,
        side,
    })
}
