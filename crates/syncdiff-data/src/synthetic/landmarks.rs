//! Where the 468 landmarks of a drawn face lie: known without looking, since the face is made of formulas.
//!
//! [`super::points::REST_POINTS`] says where they lie on the resting face. From there each goes the way of its lip and
//! jaw, then turns with the head.

use syncdiff_face::{Mesh, NUM_LANDMARKS};

use crate::synthetic::looks::Looks;
use crate::synthetic::points::REST_POINTS;
use crate::synthetic::shape::{Pose, REST_MOUTH, jaw_way, lift_way, lip_arch, mouth_line, mouth_pull, rest_height};

/// Edge of the lower lip, inside; at rest it cannot be told from that of the upper lip by its place.
const INNER_LOWER: [usize; 9] = [95, 88, 178, 87, 14, 317, 402, 318, 324];
/// Edge of the upper lip, inside.
const INNER_UPPER: [usize; 9] = [191, 80, 81, 82, 13, 312, 311, 310, 415];

/// How sure the mesh network is of an ordinary face.
const PRESENCE: f32 = 20.0;

/// The landmarks of a face in a pose, in pixels of its picture.
pub(super) fn mesh(looks: &Looks, pose: &Pose) -> Mesh {
    let turn = pose.rotation();
    let points = (0..NUM_LANDMARKS).map(|index| {
        let [x, y, z] = head_point(index, looks, pose);
        let seen: [f32; 3] = std::array::from_fn(|i| turn[i][0] * x + turn[i][1] * y + turn[i][2] * z);
        [
            looks.eyes_at[0] + (seen[0] + pose.shift[0]) * looks.unit_px[0],
            looks.eyes_at[1] + (seen[1] + pose.shift[1]) * looks.unit_px[1],
            -seen[2] * looks.unit_px[0],
        ]
    });
    Mesh { points: points.collect(), presence: PRESENCE }
}

/// A landmark on the head before it is turned.
fn head_point(index: usize, looks: &Looks, pose: &Pose) -> [f32; 3] {
    let [rx, ry] = REST_POINTS[index].map(|v| f32::from(v) * 1e-4);
    let [x, y] = match (INNER_LOWER.contains(&index), INNER_UPPER.contains(&index)) {
        (true, _) => forward(rx, mouth_line(rx), Side::Lower, pose),
        (_, true) => forward(rx, mouth_line(rx), Side::Upper, pose),
        _ if ry > mouth_line(rx) => forward(rx, ry, Side::Lower, pose),
        _ => forward(rx, ry, Side::Upper, pose),
    };
    [x, y, rest_height(rx, ry, looks.nose)]
}

/// On which side of the mouth a point lies.
enum Side {
    Upper,
    Lower,
}

/// Where a point of the resting face has moved to: the inverse of the way that the drawing goes.
fn forward(rx: f32, ry: f32, side: Side, pose: &Pose) -> [f32; 2] {
    let (line, open) = (mouth_line(rx), lip_arch(rx));
    let (mut x, mut y) = (rx, ry);
    // Each step shrinks the error to two thirds or less.
    for _ in 0..40 {
        x = rx / (1.0 + (REST_MOUTH / pose.mouth - 1.0) * mouth_pull(x, y));
        y = match side {
            Side::Lower => ry + jaw_way(pose.drop, x, open, (y - line - pose.drop * open).max(0.0)),
            Side::Upper => ry - lift_way(pose.lift, open, (line - pose.lift * open - y).max(0.0)),
        };
    }
    [x, y]
}
