//! The fixed template of the aligned crop and the least-squares similarity from a mesh to it.
//!
//! Preparation, generation and evaluation all use this one alignment. It looks at points of the
//! upper face only, so that it does not move with the jaw or the lips.

use crate::{Affine, FaceError, Mesh, Point};

/// Mesh points that move with the skull: eye corners, brows, bridge of the nose.
pub const RIGID_POINTS: [usize; 16] = [33, 263, 133, 362, 70, 300, 105, 334, 107, 336, 168, 6, 197, 195, 9, 8];

/// Place of each of [`RIGID_POINTS`] in unit crop coordinates (0 to 1 across the crop).
///
/// The outer eye corners lie at y = 0.27, 0.45 apart about x = 0.5. The other points are the mean
/// of 79 frontal faces of 22 people (training split) put on these corners, made symmetric. With it the mouth lies
/// at about (0.5, 0.62) and chins between y = 0.77 and 0.93.
pub const TEMPLATE: [Point; 16] = [
    [0.2750, 0.2700],
    [0.7250, 0.2700],
    [0.4127, 0.2780],
    [0.5873, 0.2780],
    [0.2188, 0.1968],
    [0.7812, 0.1968],
    [0.2996, 0.1528],
    [0.7004, 0.1528],
    [0.4295, 0.1646],
    [0.5705, 0.1646],
    [0.5000, 0.2493],
    [0.5000, 0.2878],
    [0.5000, 0.3229],
    [0.5000, 0.3553],
    [0.5000, 0.1703],
    [0.5000, 0.2135],
];

/// Mean of [`TEMPLATE`]: the unit point about which poses turn, so that errors of angle, size and
/// place do not mix.
pub(crate) fn anchor() -> Point {
    mean(&TEMPLATE)
}

fn mean(points: &[Point]) -> Point {
    let n = points.len() as f64;
    [points.iter().map(|p| p[0]).sum::<f64>() / n, points.iter().map(|p| p[1]).sum::<f64>() / n]
}

/// Where the crop lies in the frame: a similarity by its parts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Pose {
    /// Frame pixel under [`anchor`].
    pub(crate) centre: Point,
    /// Side of the crop in frame pixels, times cosine and sine of the angle in the frame.
    pub(crate) turn: Point,
}

impl Pose {
    /// Fits template to mesh: least squares in frame pixels over [`RIGID_POINTS`], 4 unknowns.
    pub(crate) fn fit(mesh: &Mesh) -> Option<Pose> {
        let points = RIGID_POINTS.map(|i| mesh.xy(i).map(f64::from));
        let (from, to) = (anchor(), mean(&points));
        let (mut re, mut im, mut norm) = (0.0, 0.0, 0.0);
        for (t, p) in TEMPLATE.iter().zip(&points) {
            let (tx, ty) = (t[0] - from[0], t[1] - from[1]);
            let (px, py) = (p[0] - to[0], p[1] - to[1]);
            re += tx * px + ty * py;
            im += tx * py - ty * px;
            norm += tx * tx + ty * ty;
        }
        let pose = Pose { centre: to, turn: [re / norm, im / norm] };
        pose.is_sound().then_some(pose)
    }

    /// Finite and of a size that can be a face.
    pub(crate) fn is_sound(&self) -> bool {
        let finite = self.centre.iter().chain(&self.turn).all(|v| v.is_finite());
        finite && self.side() > 1.0 && self.side() < 1e6
    }

    /// Side of the crop in frame pixels.
    pub(crate) fn side(&self) -> f64 {
        self.turn[0].hypot(self.turn[1])
    }

    /// Maps unit crop coordinates to frame pixels.
    fn frame_from_unit(&self) -> Affine {
        let [re, im] = self.turn;
        let [ax, ay] = anchor();
        let [cx, cy] = self.centre;
        Affine { m: [[re, -im, cx - re * ax + im * ay], [im, re, cy - im * ax - re * ay]] }
    }

    /// Maps frame pixels to unit crop coordinates.
    pub(crate) fn unit_from_frame(&self) -> Affine {
        // A sound pose has a side above 1, so its inverse exists.
        self.frame_from_unit().invert().unwrap_or(Affine::IDENTITY)
    }

    /// Maps frame pixels to pixels of a crop with the given side.
    pub(crate) fn crop_from_frame(&self, size: usize) -> Affine {
        // Pixel centres at integers: unit coordinate 0 is the left edge of pixel 0, at -0.5.
        self.unit_from_frame().then(&Affine::scale_shift(size as f64, -0.5, -0.5))
    }
}

/// The similarity that takes frame pixels to unit crop coordinates (0 to 1 across the crop).
///
/// # Errors
/// [`FaceError::Internal`] if the mesh is no face: points that are not finite or all in one place.
pub fn unit_from_frame(mesh: &Mesh) -> Result<Affine, FaceError> {
    Pose::fit(mesh).map(|pose| pose.unit_from_frame()).ok_or_else(|| FaceError::Internal {
        stage: "face alignment",
        detail: "the landmarks of a face lie in one place or nowhere".into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::NUM_LANDMARKS;
    use proptest::prelude::*;

    fn placed(map: &Affine) -> Mesh {
        let mut mesh = Mesh { points: vec![[0.0; 3]; NUM_LANDMARKS], presence: 20.0 };
        for (i, t) in RIGID_POINTS.iter().zip(TEMPLATE) {
            let [x, y] = map.apply(t);
            mesh.points[*i] = [x as f32, y as f32, 0.0];
        }
        mesh
    }

    proptest! {
        #[test]
        fn a_placed_template_is_found(side in 20.0f64..900.0, angle in -3.0f64..3.0,
                                      x in 0.0f64..1900.0, y in 0.0f64..1000.0) {
            let frame_from_unit = Affine::similarity(side, angle, [x, y]);
            let mesh = placed(&frame_from_unit);
            let unit = unit_from_frame(&mesh).unwrap();
            for t in TEMPLATE {
                let [u, v] = unit.apply(frame_from_unit.apply(t));
                prop_assert!((u - t[0]).abs() < 1e-4 && (v - t[1]).abs() < 1e-4);
            }
            let crop = Pose::fit(&mesh).unwrap().crop_from_frame(128);
            let [u, v] = crop.apply(frame_from_unit.apply([0.5, 0.5]));
            prop_assert!((u - 63.5).abs() < 1e-2 && (v - 63.5).abs() < 1e-2);
        }
    }

    #[test]
    fn no_face_is_an_error_and_no_panic() {
        let mut mesh = Mesh { points: vec![[3.0; 3]; NUM_LANDMARKS], presence: 0.0 };
        assert!(unit_from_frame(&mesh).is_err());
        mesh.points[33] = [f32::NAN; 3];
        assert!(unit_from_frame(&mesh).is_err());
    }
}
