//! Faces in a whole picture: the two MediaPipe detectors, their anchors and the weighted merging.
//!
//! # Source
//! MediaPipe 0.10.14, `modules/face_detection/*.pbtxt` and the calculators
//! `ssd_anchors_calculator`, `tensors_to_detections_calculator`,
//! `non_max_suppression_calculator` (WEIGHTED).

use crate::sample::{Border, sample_square};
use crate::tflite::Interpreter;
use crate::{Affine, FaceBox, FaceError, FaceModels};
use syncdiff_media::Frame;

/// Candidates that overlap the best one by more than this are merged into it.
const MERGE_IOU: f32 = 0.3;

/// Which detector network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DetectorKind {
    /// 128 x 128 pixels; faces from about a sixth of the picture.
    ShortRange,
    /// 192 x 192 pixels; smaller faces as well, and about three times the time.
    FullRange,
}

/// One detected face.
#[derive(Clone, Debug, PartialEq)]
pub struct Detection {
    /// Box round the face from brows to chin, in frame pixels.
    pub face_box: FaceBox,
    /// The subject's right eye, left eye, nose tip, mouth, right and left ear, in frame pixels.
    pub keypoints: [[f32; 2]; 6],
    /// How sure the network is, in [0, 1].
    pub score: f32,
}

/// A square part of the picture, in pixels: left edge, upper edge, side.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Square {
    pub(crate) x: f64,
    pub(crate) y: f64,
    pub(crate) side: f64,
}

impl Square {
    /// The smallest square round the whole picture.
    pub(crate) fn around(frame: &Frame) -> Square {
        let (w, h) = (frame.width as f64, frame.height as f64);
        let side = w.max(h);
        Square { x: (w - side) / 2.0, y: (h - side) / 2.0, side }
    }
}

/// A detector network with its buffers.
#[derive(Clone, Debug)]
pub struct Detector {
    network: Interpreter,
    kind: DetectorKind,
    /// Centres in [0, 1].
    anchors: Vec<[f32; 2]>,
}

impl Detector {
    /// A detector of its own; several may be made from the same models.
    ///
    /// # Errors
    /// [`FaceError::BadModel`] if the outputs are not what this detector gives.
    pub fn new(models: &FaceModels, kind: DetectorKind) -> Result<Self, FaceError> {
        let (network, grids): (_, &[(usize, usize)]) = match kind {
            DetectorKind::ShortRange => (models.short_range.clone(), &[(16, 2), (8, 6)]),
            DetectorKind::FullRange => (models.full_range.clone(), &[(48, 1)]),
        };
        let mut anchors = Vec::new();
        for &(cells, each) in grids {
            for cell in 0..cells * cells {
                let centre = |i: usize| (i as f32 + 0.5) / cells as f32;
                let anchor = [centre(cell % cells), centre(cell / cells)];
                anchors.extend(std::iter::repeat_n(anchor, each));
            }
        }
        let mut detector = Detector { network, kind, anchors };
        let side = detector.side();
        let fits = detector.network.input_mut().len() == side * side * 3
            && detector.network.output(0).len() == detector.anchors.len() * 16
            && detector.network.output(1).len() == detector.anchors.len();
        if !fits {
            return Err(FaceError::BadModel {
                model: format!("{kind:?} face detector"),
                detail: "inputs or outputs have other sizes than expected".into(),
            });
        }
        Ok(detector)
    }

    /// Side of the picture that the network sees.
    fn side(&self) -> usize {
        match self.kind {
            DetectorKind::ShortRange => 128,
            DetectorKind::FullRange => 192,
        }
    }

    /// All faces in the picture, best first.
    pub fn detect(&mut self, frame: &Frame) -> Vec<Detection> {
        self.detect_in(frame, Square::around(frame))
    }

    /// All faces in a part of the picture; what lies outside the picture is black.
    pub(crate) fn detect_in(&mut self, frame: &Frame, square: Square) -> Vec<Detection> {
        let side = self.side();
        let frame_from_input = Affine::scale_shift(square.side / side as f64, square.x, square.y);
        sample_square(frame, &frame_from_input, side, Border::Black, (2.0 / 255.0, -1.0), self.network.input_mut());
        self.network.run();
        merge(self.candidates(&square))
    }

    /// The networks' raw scores (before the sigmoid) and box regressors of the last run.
    #[cfg(test)]
    pub(crate) fn raw(&mut self, input: &[f32]) -> (&[f32], &[f32]) {
        self.network.input_mut().copy_from_slice(input);
        self.network.run();
        (self.network.output(1), self.network.output(0))
    }

    /// Decoded anchors above the threshold, best first.
    fn candidates(&self, square: &Square) -> Vec<Detection> {
        // The thresholds of MediaPipe's own graphs.
        let threshold: f32 = match self.kind {
            DetectorKind::ShortRange => 0.5,
            DetectorKind::FullRange => 0.6,
        };
        let scale = 1.0 / self.side() as f32;
        let (x, y, side) = (square.x as f32, square.y as f32, square.side as f32);
        let regressors = self.network.output(0).as_chunks::<16>().0;
        let mut found = Vec::new();
        for ((&raw, r), anchor) in self.network.output(1).iter().zip(regressors).zip(&self.anchors) {
            let score = 1.0 / (1.0 + (-raw.clamp(-100.0, 100.0)).exp());
            if score.is_nan() || score < threshold {
                continue;
            }
            let place = |rx: f32, ry: f32| [(rx * scale + anchor[0]) * side + x, (ry * scale + anchor[1]) * side + y];
            let [cx, cy] = place(r[0], r[1]);
            let (hw, hh) = (r[2] * scale * side * 0.5, r[3] * scale * side * 0.5);
            let mut keypoints = [[0.0; 2]; 6];
            for (k, point) in keypoints.iter_mut().enumerate() {
                *point = place(r[4 + 2 * k], r[5 + 2 * k]);
            }
            let face_box = FaceBox { x0: cx - hw, y0: cy - hh, x1: cx + hw, y1: cy + hh };
            found.push(Detection { face_box, keypoints, score });
        }
        found.sort_by(|a, b| b.score.total_cmp(&a.score));
        found
    }
}

/// Merges overlapping candidates (sorted, best first) into means weighted by their scores.
pub(crate) fn merge(mut candidates: Vec<Detection>) -> Vec<Detection> {
    let mut merged = Vec::new();
    while !candidates.is_empty() {
        let best = candidates[0].clone();
        let (group, rest): (Vec<_>, Vec<_>) = candidates
            .into_iter()
            .enumerate()
            .partition(|(i, c)| *i == 0 || c.face_box.iou(&best.face_box) > MERGE_IOU);
        let total: f32 = group.iter().map(|(_, c)| c.score).sum();
        let mean =
            |value: &dyn Fn(&Detection) -> f32| group.iter().map(|(_, c)| value(c) * c.score).sum::<f32>() / total;
        let face_box = FaceBox {
            x0: mean(&|c| c.face_box.x0),
            y0: mean(&|c| c.face_box.y0),
            x1: mean(&|c| c.face_box.x1),
            y1: mean(&|c| c.face_box.y1),
        };
        let mut keypoints = best.keypoints;
        for (k, point) in keypoints.iter_mut().enumerate() {
            *point = [mean(&|c| c.keypoints[k][0]), mean(&|c| c.keypoints[k][1])];
        }
        merged.push(Detection { face_box, keypoints, score: best.score });
        candidates = rest.into_iter().map(|(_, c)| c).collect();
    }
    merged
}
