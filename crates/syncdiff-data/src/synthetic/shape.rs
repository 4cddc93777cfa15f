//! The shape of the drawn head: its pose, how the lips and the jaw move, and its height field.
//!
//! The head lives in its own units: x to the right of the picture, y down, z towards the camera, the eyes at y = 0,
//! the chin at y = 1.17, the face 1.74 wide. Ported from `tools/demo_clip.py`.

use crate::synthetic::field::{arch, bell, bump, smooth};

/// y of the closed mouth.
pub(super) const REST_LINE: f32 = 0.685;
/// Half the width of the mouth at rest.
pub(super) const REST_MOUTH: f32 = 0.33;

/// What changes from frame to frame. Angles in radians, lengths in head units.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Pose {
    pub(super) yaw: f32,
    pub(super) pitch: f32,
    pub(super) roll: f32,
    pub(super) shift: [f32; 2],
    /// 0 open, 1 shut.
    pub(super) blink: f32,
    /// The lower lip's way down.
    pub(super) drop: f32,
    /// The upper lip's way up.
    pub(super) lift: f32,
    /// Half the width of the mouth.
    pub(super) mouth: f32,
}

impl Pose {
    /// Facing the camera, eyes open, mouth closed.
    #[cfg(test)]
    pub(super) const REST: Pose =
        Pose { yaw: 0.0, pitch: 0.0, roll: 0.0, shift: [0.0; 2], blink: 0.0, drop: 0.0, lift: 0.0, mouth: REST_MOUTH };

    /// Head to camera: yaw, then pitch, then roll.
    pub(super) fn rotation(&self) -> [[f32; 3]; 3] {
        let ((sy, cy), (sp, cp), (sr, cr)) = (self.yaw.sin_cos(), self.pitch.sin_cos(), self.roll.sin_cos());
        let yaw = [[cy, 0.0, sy], [0.0, 1.0, 0.0], [-sy, 0.0, cy]];
        let pitch = [[1.0, 0.0, 0.0], [0.0, cp, sp], [0.0, -sp, cp]];
        let roll = [[cr, -sr, 0.0], [sr, cr, 0.0], [0.0, 0.0, 1.0]];
        product(&roll, &product(&pitch, &yaw))
    }
}

fn product(a: &[[f32; 3]; 3], b: &[[f32; 3]; 3]) -> [[f32; 3]; 3] {
    std::array::from_fn(|i| std::array::from_fn(|j| (0..3).map(|k| a[i][k] * b[k][j]).sum()))
}

/// Where a point of the moved lower face lies at rest.
pub(super) struct Moved {
    /// Place at rest.
    pub(super) rest: [f32; 2],
    /// How far inside the open mouth, 0 to 1.
    pub(super) inside: f32,
    /// Depth below the edge of the upper lip.
    pub(super) deep: f32,
}

/// The line between the closed lips.
pub(super) fn mouth_line(x: f32) -> f32 {
    REST_LINE - 0.02 * (x / 0.33) * (x / 0.33) + 0.012 * bell(x, 0.06)
}

/// How far the lips are apart at x, from 1 in the middle to 0 at the corners.
pub(super) fn lip_arch(x: f32) -> f32 {
    arch(x / 0.315, 0.75)
}

/// How much the width of the mouth pulls at a point.
pub(super) fn mouth_pull(x: f32, y: f32) -> f32 {
    bump(x, y, 0.0, REST_LINE, 0.6, 0.35)
}

/// How far the jaw moves a point that lies `below` the edge of the lower lip; x in the picture, `open` by
/// [`lip_arch`]. The lip moves by its own opening, the chin with the jaw: over 0.45 the one becomes the other.
pub(super) fn jaw_way(drop: f32, x: f32, open: f32, below: f32) -> f32 {
    let lip = drop * open;
    let jaw = 0.85 * drop * (-(x / 0.75).powi(4)).exp();
    lip + (jaw - lip) * smooth(0.0, 0.45, below)
}

/// How far the upper lip moves a point that lies `above` its edge.
pub(super) fn lift_way(lift: f32, open: f32, above: f32) -> f32 {
    lift * open * bell(above, 0.16)
}

pub(super) fn moved(x: f32, y: f32, pose: &Pose) -> Moved {
    let sx = x * (1.0 + (REST_MOUTH / pose.mouth - 1.0) * mouth_pull(x, y));
    let (line, open) = (mouth_line(sx), lip_arch(sx));
    let (top, bottom) = (line - pose.lift * open, line + pose.drop * open);
    let sy = if y > bottom {
        y - jaw_way(pose.drop, x, open, y - bottom)
    } else if y < top {
        y + lift_way(pose.lift, open, top - y)
    } else {
        line
    };
    let soft = 0.010;
    let inside = smooth(-soft, soft, (y - top).min(bottom - y))
        * smooth(0.02, 0.12, open)
        * smooth(0.004, 0.02, pose.drop + pose.lift);
    Moved { rest: [sx, sy], inside, deep: y - top }
}

/// Less than 1 inside the outline of a head of this half width and height of the crown.
pub(super) fn outline(x: f32, y: f32, half_width: f32, crown: f32) -> f32 {
    let y = y / if y < 0.0 { crown } else { 1.17 };
    (x / half_width).abs().powf(2.3) + y.abs().powf(2.25)
}

pub(super) fn skull(x: f32, y: f32, half_width: f32, crown: f32, depth: f32) -> f32 {
    let outside = outline(x, y, half_width, crown) - 1.0;
    let y = (y / if y < 0.0 { crown } else { 1.17 }).abs();
    let width = half_width * (1.0 - y.powf(2.25)).clamp(1e-4, 1.0).powf(1.0 / 2.3);
    let front = (1.0 - y.powi(4)).clamp(0.0, 1.0) * (1.0 - (x / width).abs().powf(2.3)).clamp(0.0, 1.0);
    // It goes on down behind the outline, so that the light at the outline is that of a turned-away surface.
    depth * front.sqrt() - 4.0 * outside.clamp(0.0, 0.3)
}

/// What stands out from the skull.
pub(super) fn features(x: f32, y: f32, blink: f32, nose: f32) -> f32 {
    let a = x.abs();
    let mut z = 0.05 * bump(a, y, 0.33, -0.22, 0.30, 0.09) - 0.075 * bump(a, y, 0.34, -0.02, 0.22, 0.14);
    z += (0.05 + 0.015 * blink) * bump(a, y, 0.37, 0.005, 0.15, 0.10);
    z += 0.05 * bump(a, y, 0.47, 0.30, 0.24, 0.20) - 0.05 * bump(a, y, 0.62, 0.62, 0.22, 0.25);
    // The nose: a ridge that rises and widens to the tip, a ball, two wings.
    let along = ((y + 0.12) / 0.5).clamp(0.0, 1.0);
    let ridge = nose * (0.03 + 0.19 * along.powf(1.3)) * bell(x, 0.075 + 0.05 * along);
    z += ridge * smooth(-0.25, -0.02, y) * smooth(0.50, 0.37, y);
    z += nose * (0.075 * bump(x, y, 0.0, 0.37, 0.12, 0.10) + 0.085 * bump(a, y, 0.145, 0.405, 0.065, 0.07));
    z -= 0.03 * bump(a, y, 0.072, 0.465, 0.045, 0.025);
    // Philtrum, lips, chin, and the folds beside and below them.
    z += 0.05 * bump(x, y, 0.0, 0.68, 0.42, 0.24) - 0.016 * bump(x, y, 0.0, 0.555, 0.028, 0.06);
    let line = mouth_line(x);
    z += 0.05 * bump(x, y - line, 0.0, -0.045, 0.25, 0.05) + 0.065 * bump(x, y - line, 0.0, 0.06, 0.21, 0.055);
    z -= 0.045 * bell(y - line, 0.014) * arch(x / 0.37, 0.5);
    z -= 0.035 * bump(a, y, 0.35, 0.665, 0.035, 0.04) + 0.03 * bump(x, y, 0.0, 0.87, 0.22, 0.05);
    z += 0.085 * bump(x, y, 0.0, 1.0, 0.20, 0.11);
    let fold = 0.19 + 0.5 * (y - 0.4).clamp(0.0, 0.3);
    z - 0.018 * bell(a - fold - 0.02, 0.03) * smooth(0.38, 0.46, y) * smooth(0.68, 0.55, y)
}

/// Height of the face at rest: where a landmark lies in depth.
pub(super) fn rest_height(x: f32, y: f32, nose: f32) -> f32 {
    let edge = outline(x, y, 0.87, 1.2);
    (skull(x, y, 0.87, 1.2, 0.85) + features(x, y, 0.0, nose) * smooth(1.0, 0.85, edge)).max(-0.2)
}
