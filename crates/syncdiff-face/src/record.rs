//! What is kept of one face in one frame: enough to align, choose, measure and paste, in 112 bytes.

use crate::align::Pose;
use crate::outline::{Outline, outline};
use crate::{Affine, FaceBox, Mesh, lips};

/// One face in one frame.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FaceRecord {
    /// Frame pixel under the middle of the template's rigid points.
    pub centre: [f32; 2],
    /// Side of the aligned crop, in frame pixels.
    pub side_px: f32,
    /// How far the face is turned in the frame, in radians from x towards y.
    pub angle: f32,
    /// Box round all landmarks, in frame pixels.
    pub face_box: FaceBox,
    /// Inner-lip opening in eye distances, see [`lips::opening`].
    pub lip_opening: f32,
    /// Distance of the outer eye corners, in frame pixels.
    pub eye_distance_px: f32,
    /// Logit that there is a face.
    pub presence: f32,
    /// How far the face reaches from the mouth, in sides of the crop.
    pub outline: Outline,
}

impl FaceRecord {
    /// What is kept of a mesh; `None` if its points cannot be a face.
    pub fn from_mesh(mesh: &Mesh) -> Option<Self> {
        let pose = Pose::fit(mesh)?;
        let face_box = mesh.face_box();
        let finite = [face_box.x0, face_box.y0, face_box.x1, face_box.y1, mesh.presence].iter().all(|v| v.is_finite());
        finite.then(|| FaceRecord {
            centre: pose.centre.map(|v| v as f32),
            side_px: pose.side() as f32,
            angle: pose.turn[1].atan2(pose.turn[0]) as f32,
            face_box,
            lip_opening: lips::opening(mesh),
            eye_distance_px: lips::eye_distance_px(mesh),
            presence: mesh.presence,
            outline: outline(mesh, &pose),
        })
    }

    pub(crate) fn pose(&self) -> Pose {
        let (sin, cos) = f64::from(self.angle).sin_cos();
        let side = f64::from(self.side_px);
        Pose { centre: self.centre.map(f64::from), turn: [side * cos, side * sin] }
    }

    /// The map from frame pixels to a crop of `size` pixels, without smoothing over time.
    pub fn crop_from_frame(&self, size: usize) -> Affine {
        self.pose().crop_from_frame(size)
    }
}
