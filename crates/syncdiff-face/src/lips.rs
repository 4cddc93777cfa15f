//! Lip shape from a mesh: opening, width, and the whole outline in aligned coordinates.

use crate::{Affine, Mesh};

/// The 40 lip landmarks: 20 of the outer outline, then 20 of the inner one, each from the subject's
/// right corner along the lower lip to the left corner and back along the upper lip.
///
/// # Source
/// The lip connections of MediaPipe's `face_mesh_connections.py`.
pub const LIP_POINTS: [usize; 40] = [
    61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291, 409, 270, 269, 267, 0, 37, 39, 40, 185, //
    78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308, 415, 310, 311, 312, 13, 82, 81, 80, 191,
];

fn distance(mesh: &Mesh, a: usize, b: usize) -> f32 {
    let ([ax, ay], [bx, by]) = (mesh.xy(a), mesh.xy(b));
    (ax - bx).hypot(ay - by)
}

/// Distance of the outer eye corners (33 and 263), in frame pixels.
pub fn eye_distance_px(mesh: &Mesh) -> f32 {
    distance(mesh, 33, 263)
}

fn in_eye_distances(mesh: &Mesh, a: usize, b: usize) -> f32 {
    distance(mesh, a, b) / eye_distance_px(mesh).max(f32::MIN_POSITIVE)
}

/// Inner-lip opening: distance of landmarks 13 and 14 in eye distances; 0 is a closed mouth.
pub fn opening(mesh: &Mesh) -> f32 {
    in_eye_distances(mesh, 13, 14)
}

/// Mouth width: distance of the mouth corners 61 and 291 in eye distances.
pub fn width(mesh: &Mesh) -> f32 {
    in_eye_distances(mesh, 61, 291)
}

/// The points of [`LIP_POINTS`] in crop coordinates: free of head motion in the picture plane.
pub fn shape(mesh: &Mesh, crop_from_frame: &Affine) -> [[f32; 2]; 40] {
    LIP_POINTS.map(|i| crop_from_frame.apply(mesh.xy(i).map(f64::from)).map(|v| v as f32))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opening_does_not_depend_on_the_size_of_the_face() {
        let mut mesh = Mesh { points: vec![[0.0; 3]; 468], presence: 9.0 };
        mesh.points[33] = [10.0, 10.0, 0.0];
        mesh.points[263] = [110.0, 10.0, 0.0];
        mesh.points[13] = [60.0, 80.0, 0.0];
        mesh.points[14] = [60.0, 90.0, 0.0];
        assert!((opening(&mesh) - 0.1).abs() < 1e-6);
        for p in &mut mesh.points {
            *p = p.map(|v| v * 3.0);
        }
        assert!((opening(&mesh) - 0.1).abs() < 1e-6);
        assert_eq!(shape(&mesh, &Affine::IDENTITY)[35], [180.0, 240.0]);
    }

    #[test]
    fn lip_points_are_distinct() {
        let mut points = LIP_POINTS;
        points.sort_unstable();
        assert!(points.windows(2).all(|w| w[0] < w[1]));
    }
}
