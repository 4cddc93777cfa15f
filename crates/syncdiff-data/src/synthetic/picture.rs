//! A camera that sees the drawn head without perspective, before a wall, on a neck and shoulders.
//!
//! A port of the second half of `tools/demo_clip.py`: for each pixel the ray is followed until it meets the turned
//! height field, and the colour there is taken.

use syncdiff_media::Frame;

use crate::synthetic::field::{Light, bump, dot, mix, smooth, srgb_byte, times};
use crate::synthetic::head::HeadMap;
use crate::synthetic::looks::Looks;
use crate::synthetic::shape::Pose;

/// Samples in a pixel, each way.
const SUPERSAMPLE: usize = 2;

/// First and last depth of the search along a ray, and its steps.
const SEARCH: (f32, f32, usize) = (1.35, -0.5, 25);
/// Then the step that meets the head is halved so often.
const HALVINGS: usize = 5;

/// The picture of a head in a pose, `side` x `side` pixels.
pub(super) fn take(head: &HeadMap, looks: &Looks, pose: &Pose, side: usize) -> Frame {
    let wide = side * SUPERSAMPLE;
    let camera = Camera { head, looks, pose, turn: pose.rotation() };
    let ears = camera.ears();
    let mut light = vec![[0.0; 3]; wide * wide];
    for (at, cell) in light.iter_mut().enumerate() {
        let place = |pixel: usize, axis: usize| {
            ((pixel as f32 + 0.5) / SUPERSAMPLE as f32 - 0.5 - looks.eyes_at[axis]) / looks.unit_px[axis]
        };
        *cell = camera.see(place(at % wide, 0), place(at / wide, 1), &ears);
    }
    let mut data = Vec::with_capacity(side * side * 3);
    for at in 0..side * side {
        let (row, column) = (at / side * SUPERSAMPLE, at % side * SUPERSAMPLE);
        for channel in 0..3 {
            let cells = (0..SUPERSAMPLE * SUPERSAMPLE)
                .map(|k| light[(row + k / SUPERSAMPLE) * wide + column + k % SUPERSAMPLE][channel]);
            data.push(srgb_byte(cells.sum::<f32>() / (SUPERSAMPLE * SUPERSAMPLE) as f32));
        }
    }
    Frame { width: side, height: side, data }
}

struct Camera<'a> {
    head: &'a HeadMap,
    looks: &'a Looks,
    pose: &'a Pose,
    turn: [[f32; 3]; 3],
}

impl Camera<'_> {
    /// The light that comes from a place of the picture, in head units from the middle between the resting eyes.
    fn see(&self, x: f32, y: f32, ears: &[[f32; 2]; 2]) -> Light {
        let (hx, hy) = (x - self.pose.shift[0], y - self.pose.shift[1]);
        if hx.abs() < 1.15
            && hy.abs() < 1.5
            && let Some(colour) = self.head(hx, hy)
        {
            return colour;
        }
        let wall = mix(self.looks.wall, self.looks.glow, bump(x, y, -0.6, -0.5, 1.7, 1.6));
        let picture = self.body(wall, x - 0.4 * self.pose.shift[0], y - 0.4 * self.pose.shift[1]);
        self.with_ears(picture, hx, hy, ears)
    }

    /// The head's point on the ray at a depth: grid position and height.
    fn at(&self, x: f32, y: f32, depth: f32) -> ([f32; 2], f32) {
        let h: [f32; 3] = std::array::from_fn(|i| self.turn[0][i] * x + self.turn[1][i] * y + self.turn[2][i] * depth);
        (self.head.grid(h[0], h[1]), h[2])
    }

    fn under(&self, x: f32, y: f32, depth: f32) -> bool {
        let (place, z) = self.at(x, y, depth);
        let height = self.head.height_at(place);
        z < height && z > -0.5 * height - 0.05
    }

    fn head(&self, x: f32, y: f32) -> Option<Light> {
        let (start, end, steps) = SEARCH;
        let depth = |step: usize| start + (end - start) * step as f32 / steps as f32;
        let met = (1..=steps).find(|step| self.under(x, y, depth(*step)))?;
        let (mut near, mut far) = (depth(met - 1), depth(met));
        for _ in 0..HALVINGS {
            let middle = (near + far) / 2.0;
            if self.under(x, y, middle) { far = middle } else { near = middle }
        }
        let (place, z) = self.at(x, y, far);
        // Behind the outline the surface is turned away from camera and lamp, which the map does not know.
        Some(times(self.head.colour_at(place), (1.0 + 5.0 * z).clamp(0.3, 1.0)))
    }

    /// Neck, shoulders and shirt.
    fn body(&self, picture: Light, x: f32, y: f32) -> Light {
        if y < 0.2 {
            return picture;
        }
        let a = x.abs();
        let half = 0.50 + 0.25 * smooth(1.15, 1.75, y).powi(2);
        let t = (x / half).clamp(-1.0, 1.0);
        let light = 0.15 + 0.50 * (0.72 * (1.0 - t * t).sqrt() - 0.55 * t).clamp(0.0, 1.0);
        // The chin's shadow.
        let light = light * (1.0 - 0.62 * smooth(1.62, 1.15, y - 0.25 * x + self.pose.drop * 0.3));
        let neck = mix(picture, times(self.looks.skin, light), smooth(0.012, -0.012, a - half));
        let collar = 1.63 - 0.20 * (a / 0.55).min(1.0).powf(2.5);
        let top = match a < 0.55 {
            true => collar,
            false => 1.44 + 0.42 * smooth(0.40, 1.75, a) + 0.10 * smooth(0.9, 1.8, a).powi(2),
        };
        let slope = smooth(0.0, 0.5, y - top);
        let edge = 0.14 * bump(y, 0.0, top + 0.05, 0.0, 0.05, 1.0);
        let light = (0.52 - 0.18 * x).max(0.05) * (0.85 - 0.35 * slope) + edge;
        mix(neck, times(self.looks.shirt, light), smooth(-0.010, 0.010, y - top))
    }

    /// Middles of the ears.
    fn ears(&self) -> [[f32; 2]; 2] {
        [-1.0, 1.0].map(|side| {
            let place = [side * 0.88, 0.13, -0.05];
            [dot(self.turn[0], place), dot(self.turn[1], place)]
        })
    }

    fn with_ears(&self, mut picture: Light, x: f32, y: f32, ears: &[[f32; 2]; 2]) -> Light {
        for ([cx, cy], side) in ears.iter().zip([-1.0, 1.0]) {
            let (ex, ey) = ((x - cx) * side + 0.12 * (y - cy), y - cy);
            let r = (ex / 0.125).hypot(ey / (0.245 - 0.05 * smooth(0.0, 0.2, ey)));
            if r < 1.05 {
                let rim = 0.85 + 0.25 * smooth(0.6, 0.85, r) - 0.45 * bump(ex, ey, 0.01, -0.02, 0.05, 0.11);
                let lit = if side * self.looks.lamp[0] > 0.0 { 0.50 } else { 0.27 };
                let light = lit * rim * (0.6 + 0.4 * smooth(1.0, 0.85, r));
                let skin = mix(self.looks.skin, self.looks.blush, 0.4);
                picture = mix(picture, times(skin, light), smooth(1.03, 0.97, r));
            }
        }
        picture
    }
}
