//! The colours of the drawn head: skin, lips, brows, eyes and the inside of the mouth. Ported from
//! `tools/demo_clip.py`, without the details that a small picture cannot show.

use crate::synthetic::field::{Light, arch, bell, bump, linear, mix, smooth, times};
use crate::synthetic::looks::Looks;
use crate::synthetic::shape::{Pose, REST_LINE, mouth_line};

const SCLERA: [f32; 3] = [0.90, 0.88, 0.86];
const TEETH: [f32; 3] = [0.90, 0.87, 0.82];
const MOUTH: [f32; 3] = [0.20, 0.06, 0.06];
const TONGUE: [f32; 3] = [0.62, 0.28, 0.27];

/// Place along an eye (-1 at the nose, 1 outside), height from its middle, and the edges of its lids.
fn lids(x: f32, y: f32, side: f32, blink: f32) -> (f32, f32, f32, f32) {
    let t = (x * side - 0.37) / 0.178;
    let ey = y + 0.012 * t;
    let lower = 0.052 * arch(t * 0.98 - 0.02, 0.8);
    let upper = -0.079 * arch(t * 0.98 + 0.06, 0.72);
    (t, ey, upper * (1.0 - blink) + (lower - 0.004) * blink, lower)
}

/// Colour without light, and gloss, of skin, lips, brows, nostrils and lids.
pub(super) fn skin(looks: &Looks, [x, y]: [f32; 2], grain: f32, pose: &Pose) -> (Light, f32) {
    let a = x.abs();
    let mouth = linear(MOUTH);
    let mut colour = times(looks.skin, 1.0 + 0.08 * grain);
    let blush = 0.45 * bump(a, y, 0.50, 0.33, 0.22, 0.16) + 0.35 * bump(x, y, 0.0, 0.38, 0.16, 0.10);
    colour = mix(colour, looks.blush, blush + 0.15 * bump(x, y, 0.0, 1.0, 0.25, 0.12));
    let line = mouth_line(x);
    let upper = looks.lip_fullness * (0.088 * arch(x / 0.335, 0.62) - 0.020 * bell(x, 0.05));
    let lower = looks.lip_fullness * 0.118 * arch(x / 0.315, 0.65);
    let off = if y < line { upper - (line - y) } else { lower - (y - line) };
    let lips = smooth(-0.010, 0.014, off) * smooth(0.34, 0.325, a);
    let tone = 1.0 - 0.28 * smooth(0.0, 0.09, line - y);
    colour = mix(colour, times(looks.lips, tone), lips);
    let seam = bell(y - line, 0.010) * arch(x / 0.36, 0.4);
    colour = mix(colour, mouth, 0.85 * seam);
    // Brows: thick towards the nose, thin outside.
    let t = ((a - 0.12) / 0.47).clamp(-0.1, 1.1);
    let middle = -0.215 - 0.075 * (t.clamp(0.0, 1.0) * 2.3).sin() + 0.03 * t;
    let thick = looks.brow_thickness * (1.0 - 0.6 * t.clamp(0.0, 1.0));
    let brow = smooth(thick, 0.3 * thick, (y - middle).abs()) * smooth(-0.03, 0.08, t) * smooth(1.02, 0.85, t);
    colour = mix(colour, looks.brow, 0.85 * brow);
    let nostril = bump(a, y, 0.078, 0.463, 0.042, 0.020);
    colour = mix(colour, times(mouth, 0.6), 0.95 * smooth(0.25, 0.8, nostril));
    if y.abs() < 0.25 && a < 0.7 {
        for side in [-1.0, 1.0] {
            let (t, ey, upper_lid, lower_lid) = lids(x, y, side, pose.blink);
            let near = smooth(1.12, 0.9, t.abs());
            let lash = bell(ey - upper_lid + 0.004, 0.014) * (0.75 + 0.2 * t.clamp(-1.0, 1.0));
            colour = mix(colour, times(looks.brow, 0.4), lash.clamp(0.0, 1.0) * near);
            let rest = lids(x, y, side, 0.35 * pose.blink).2;
            let crease = bell(ey - rest + 0.040, 0.012) * 0.40 * near * (1.0 - 0.6 * pose.blink);
            colour = mix(colour, times(looks.blush, 0.35), crease);
            let under = bell(ey - lower_lid - 0.006, 0.011);
            colour = mix(colour, times(looks.blush, 0.5), 0.5 * under * near);
        }
    }
    (colour, 0.22 + 0.35 * lips + 0.10 * bump(x, y, 0.0, 0.34, 0.1, 0.1))
}

/// The eyeballs, looking into the camera, drawn over the lit skin.
pub(super) fn eyes(skin: Light, [x, y]: [f32; 2], pose: &Pose, looks: &Looks) -> Light {
    let mut colour = skin;
    for side in [-1.0, 1.0] {
        let (t, ey, upper, lower) = lids(x, y, side, pose.blink);
        let open = smooth(-0.004, 0.008, (ey - upper).min(lower - ey)) * smooth(1.0, 0.93, t.abs());
        if open < 1e-4 {
            continue;
        }
        let (gx, gy) = (x - side * 0.362 + 0.16 * pose.yaw, y + 0.014 + 0.16 * pose.pitch);
        let r = gx.hypot(gy);
        let shade = (0.62 - 0.16 * t * t) * (0.45 + 0.55 * smooth(-0.01, 0.06, ey - upper));
        let mut ball = times(mix(linear(SCLERA), looks.blush, 0.35 * smooth(0.75, 1.0, t.abs())), shade);
        let rays = 0.9 + if gy > 0.0 { 0.8 * smooth(0.02, 0.07, r) } else { 0.0 };
        let ring = 0.65 * rays * smooth(0.0, 0.05, r) * (1.0 - 0.75 * smooth(0.062, 0.08, r));
        let iris = mix(times(looks.iris, ring), [0.0; 3], smooth(0.040, 0.033, r));
        ball = mix(ball, times(iris, 0.4 + shade), smooth(0.086, 0.077, r));
        ball = mix(ball, [0.9; 3], smooth(0.019, 0.010, (gx + 0.028).hypot(gy + 0.030)));
        colour = mix(colour, ball, open);
    }
    colour
}

/// The dark of the mouth, the upper teeth, which stay with the skull, and the tongue.
pub(super) fn inner_mouth([x, y]: [f32; 2], deep: f32, pose: &Pose) -> Light {
    let mut inner = times(linear(MOUTH), 0.5);
    let tongue = smooth(1.0, 0.6, (x / 0.19).hypot((y - REST_LINE - pose.drop - 0.02) / 0.10));
    inner = mix(inner, times(linear(TONGUE), 0.35), 0.8 * tongue);
    let edge = REST_LINE + 0.040 - 0.10 * x * x;
    let shade = 0.62 * arch(x / 0.36, 0.8) * (0.5 + 0.5 * smooth(0.0, 0.03, deep));
    mix(inner, times(linear(TEETH), shade), smooth(0.008, -0.008, y - edge) * smooth(0.27, 0.23, x.abs()))
}
