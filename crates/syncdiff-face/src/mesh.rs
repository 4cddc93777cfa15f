//! 468 landmarks of one face: the MediaPipe face mesh on a turned square of the picture.
//!
//! # Source
//! MediaPipe 0.10.14, `modules/face_landmark/*.pbtxt`: the square is 1.5 times the box of a
//! detection or of the last landmarks, turned so that the eyes lie level.

use crate::sample::{Border, sample_square};
use crate::tflite::Interpreter;
use crate::{Affine, Detection, FaceBox, FaceError, FaceModels};
use syncdiff_media::Frame;

/// Points of a mesh.
pub const NUM_LANDMARKS: usize = 468;

/// Side of the picture that the network sees.
const SIDE: usize = 192;

/// The square is this much larger than the box that it is made from.
const ROI_SCALE: f64 = 1.5;

/// A turned square of the picture that the mesh network looks at.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Roi {
    /// Middle, in frame pixels.
    pub centre: [f64; 2],
    /// Side in frame pixels.
    pub side: f64,
    /// How far the square is turned, in radians from x towards y.
    pub angle: f64,
}

impl Roi {
    fn new(face_box: &FaceBox, right_eye: [f32; 2], left_eye: [f32; 2]) -> Roi {
        let [cx, cy] = face_box.centre();
        let (dx, dy) = (left_eye[0] - right_eye[0], left_eye[1] - right_eye[1]);
        Roi {
            centre: [f64::from(cx), f64::from(cy)],
            side: ROI_SCALE * f64::from(face_box.width().max(face_box.height())),
            angle: f64::from(dy).atan2(f64::from(dx)),
        }
    }

    /// The square for a detected face, level with its eyes.
    pub fn from_detection(detection: &Detection) -> Roi {
        Roi::new(&detection.face_box, detection.keypoints[0], detection.keypoints[1])
    }

    /// The square for the next frame, from the landmarks of this one.
    pub fn from_mesh(mesh: &Mesh) -> Roi {
        Roi::new(&mesh.face_box(), mesh.xy(33), mesh.xy(263))
    }

    /// Maps input pixels of a network of side `side` to frame pixels.
    fn frame_from_input(&self, side: usize) -> Affine {
        let (scale, half) = (self.side / side as f64, side as f64 / 2.0);
        Affine::scale_shift(1.0, -half, -half).then(&Affine::similarity(scale, self.angle, self.centre))
    }
}

/// 468 landmarks of one face in one frame.
#[derive(Clone, Debug, PartialEq)]
pub struct Mesh {
    /// x and y in frame pixels; z in the same unit, smaller is nearer to the camera.
    pub points: Vec<[f32; 3]>,
    /// Logit that there is a face; 0 means even odds.
    pub presence: f32,
}

impl Mesh {
    /// Place of landmark `index` in the frame.
    ///
    /// # Panics
    /// If the mesh has no such landmark.
    pub fn xy(&self, index: usize) -> [f32; 2] {
        let [x, y, _] = self.points[index];
        [x, y]
    }

    /// The box round all landmarks.
    pub fn face_box(&self) -> FaceBox {
        FaceBox::around(self.points.iter().map(|&[x, y, _]| [x, y])).unwrap_or_default()
    }
}

/// The mesh network with its buffers.
#[derive(Clone, Debug)]
pub struct MeshNet {
    network: Interpreter,
    points: usize,
    presence: usize,
}

impl MeshNet {
    /// A network of its own; several may be made from the same models.
    ///
    /// # Errors
    /// [`FaceError::BadModel`] if the outputs are not those of the face mesh.
    pub fn new(models: &FaceModels) -> Result<Self, FaceError> {
        let mut network = models.mesh.clone();
        let find = |len| (0..2).find(|&i| network.output(i).len() == len);
        let (points, presence) = (find(3 * NUM_LANDMARKS), find(1));
        match (points, presence) {
            (Some(points), Some(presence)) if network.input_mut().len() == SIDE * SIDE * 3 => {
                Ok(MeshNet { network, points, presence })
            }
            _ => Err(FaceError::BadModel {
                model: "face mesh".into(),
                detail: "inputs or outputs have other sizes than expected".into(),
            }),
        }
    }

    /// Landmarks of the face in the square `roi`; outside the picture its edge is repeated.
    ///
    /// What comes out of a square without a face is noise: look at [`Mesh::presence`].
    pub fn run(&mut self, frame: &Frame, roi: &Roi) -> Mesh {
        let frame_from_input = roi.frame_from_input(SIDE);
        sample_square(frame, &frame_from_input, SIDE, Border::Repeat, (1.0 / 255.0, 0.0), self.network.input_mut());
        self.network.run();
        let depth_scale = (roi.side / SIDE as f64) as f32;
        let points = self.network.output(self.points).as_chunks::<3>().0;
        let points = points
            .iter()
            .map(|&[x, y, z]| {
                let [fx, fy] = frame_from_input.apply([f64::from(x), f64::from(y)]);
                [fx as f32, fy as f32, z * depth_scale]
            })
            .collect();
        Mesh { points, presence: self.network.output(self.presence)[0] }
    }

    /// Raw landmarks and presence for a given input in [0, 1].
    #[cfg(test)]
    pub(crate) fn raw(&mut self, input: &[f32]) -> (&[f32], f32) {
        self.network.input_mut().copy_from_slice(input);
        self.network.run();
        (self.network.output(self.points), self.network.output(self.presence)[0])
    }
}
