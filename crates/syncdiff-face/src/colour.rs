//! The colours of a generated crop matched to those of its frame along the seam.
//!
//! For each channel a gain that varies linearly over the crop is fitted to the ratio of frame and
//! generated crop in the ring of kept pixels around the hidden region. A gain, unlike an offset,
//! leaves the dark inside of a mouth dark. It follows slowly over time, so that it cannot flicker.

use crate::Affine;
use crate::paste::PasteMask;
use crate::sample::{Samples, VALUE_BITS, at_least_two, fixed};
use syncdiff_media::Frame;

/// Added to both sides of a ratio, so that dark pixels do not decide.
const FLOOR: f32 = 16.0;
/// Largest logarithm of a gain: a third up or a quarter down.
const LIMIT: f32 = 0.28;
/// Residuals of this size (logarithms) count half: background that differs, hair, glasses.
const DOUBT: f32 = 0.08;
/// Part of the way to the new estimate that is gone with each frame.
const PACE: f32 = 0.2;

/// Colour correction at the seam, smoothed over time. One per face; cuts and gaps want a
/// new one.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ColourMatch {
    /// Per channel the logarithm of the gain: constant, along x, along y.
    state: Option<[[f32; 3]; 3]>,
}

impl ColourMatch {
    /// Without a history: the first frame counts wholly.
    pub fn new() -> Self {
        ColourMatch::default()
    }

    /// Looks at one more frame; `None` where the mask has no ring to look at.
    pub(crate) fn update(
        &mut self,
        frame: &Frame,
        generated: &Frame,
        crop_from_frame: &Affine,
        mask: &PasteMask,
    ) -> Option<Gains> {
        let fresh = fit(frame, generated, crop_from_frame, mask)?;
        let mut state = self.state.unwrap_or(fresh);
        follow(state.as_flattened_mut(), fresh.as_flattened(), PACE);
        self.state = Some(state);
        Some(Gains { planes: state, size: mask.size() as f32 })
    }
}

/// Moves a state a part of the way to what is seen now.
pub(crate) fn follow(state: &mut [f32], fresh: &[f32], pace: f32) {
    for (s, f) in state.iter_mut().zip(fresh) {
        *s += (f - *s) * pace;
    }
}

/// Gains over a crop.
pub(crate) struct Gains {
    planes: [[f32; 3]; 3],
    size: f32,
}

/// Crop pixel to -1..1.
fn centred(at: f32, size: f32) -> f32 {
    (at + 0.5) / size * 2.0 - 1.0
}

impl Gains {
    /// Applies the gains of row `y` to pixels, the first of which lies `before` pixels left of the
    /// crop.
    pub(crate) fn apply_row(&self, y: usize, before: usize, pixels: &mut [[f32; 4]]) {
        let v = centred(y as f32, self.size);
        for (c, plane) in self.planes.iter().enumerate() {
            let at = |x: f32| plane[0] + plane[1] * centred(x, self.size) + plane[2] * v;
            let mut gain = at(-(before as f32)).exp();
            let step = (plane[1] * 2.0 / self.size).exp();
            let (low, high) = ((-LIMIT).exp(), LIMIT.exp());
            for pixel in pixels.iter_mut() {
                pixel[c] = (pixel[c] + FLOOR) * gain.clamp(low, high) - FLOOR;
                gain *= step;
            }
        }
    }
}

fn fit(frame: &Frame, generated: &Frame, crop_from_frame: &Affine, mask: &PasteMask) -> Option<[[f32; 3]; 3]> {
    let inverse = crop_from_frame.invert()?;
    let size = mask.size() as f32;
    let frame = at_least_two(frame);
    let picture = Samples::new(&frame);
    let samples: Vec<([f32; 3], [f32; 3])> = mask
        .ring
        .iter()
        .map(|&[x, y]| {
            let [fx, fy] = inverse.apply([f64::from(x), f64::from(y)]);
            let want = picture.at(fixed(fx), fixed(fy)).map(|v| v as f32 / (1 << VALUE_BITS) as f32);
            let have = generated.pixel(usize::from(x), usize::from(y)).map(f32::from);
            let mut ratio = [0.0; 3];
            for c in 0..3 {
                ratio[c] = ((want[c] + FLOOR) / (have[c] + FLOOR)).ln().clamp(-LIMIT, LIMIT);
            }
            ([1.0, centred(f32::from(x), size), centred(f32::from(y), size)], ratio)
        })
        .collect();
    if samples.len() < 16 {
        return None;
    }
    let mut planes = [[0.0; 3]; 3];
    for (c, plane) in planes.iter_mut().enumerate() {
        // Plain least squares, then twice with doubtful pixels counting less.
        for round in 0..3 {
            let mut normal = [[0.0f64; 4]; 3];
            for (basis, ratio) in &samples {
                let residual = ratio[c] - dot(plane, basis);
                let weight = if round == 0 { 1.0 } else { 1.0 / (1.0 + (residual / DOUBT).powi(2)) };
                for i in 0..3 {
                    for j in 0..3 {
                        normal[i][j] += f64::from(weight * basis[i] * basis[j]);
                    }
                    normal[i][3] += f64::from(weight * basis[i] * ratio[c]);
                }
            }
            // A little weight towards no slope keeps thin rings from tilting the plane.
            let ridge = 0.02 * normal[0][0];
            normal[1][1] += ridge;
            normal[2][2] += ridge;
            *plane = solve(normal)?;
        }
    }
    Some(planes)
}

fn dot(a: &[f32; 3], b: &[f32; 3]) -> f32 {
    a[0] * b[0] + a[1] * b[1] + a[2] * b[2]
}

/// Solves three symmetric, positive equations by elimination.
fn solve(mut m: [[f64; 4]; 3]) -> Option<[f32; 3]> {
    for i in 0..3 {
        if m[i][i].abs() < 1e-9 {
            return None;
        }
        let pivot = m[i];
        for (_, row) in m.iter_mut().enumerate().filter(|(j, _)| *j != i) {
            let factor = row[i] / pivot[i];
            for k in 0..4 {
                row[k] -= factor * pivot[k];
            }
        }
    }
    let x = [0, 1, 2].map(|i| (m[i][3] / m[i][i]) as f32);
    x.iter().all(|v| v.is_finite()).then_some(x)
}
