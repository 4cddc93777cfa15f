//! What makes one drawn speaker differ from another: colours, shape, light, size in the picture, and voice.

use crate::rng::Draws;
use crate::synthetic::field::{Light, linear, mix};

/// How a speaker looks and sounds; a function of seed and number.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Looks {
    pub(super) skin: Light,
    pub(super) blush: Light,
    pub(super) lips: Light,
    pub(super) hair: Light,
    pub(super) brow: Light,
    pub(super) iris: Light,
    pub(super) shirt: Light,
    pub(super) wall: Light,
    pub(super) glow: Light,
    /// Towards the lamp, in camera space.
    pub(super) lamp: [f32; 3],
    /// y of the hair line in head units.
    pub(super) hair_line: f32,
    /// How far down the hair comes at the sides.
    pub(super) hair_side: f32,
    pub(super) brow_thickness: f32,
    pub(super) lip_fullness: f32,
    /// 1 is the nose of the demo clip.
    pub(super) nose: f32,
    /// Pixels in a head unit, across and down: faces are wide or narrow.
    pub(super) unit_px: [f32; 2],
    /// Pixel under the point between the eyes, at rest.
    pub(super) eyes_at: [f32; 2],
    /// Pitch of the voice in hertz.
    pub(super) pitch_hz: f32,
    /// Formants relative to those of a man.
    pub(super) formants: f32,
}

const SKINS: [[f32; 3]; 6] = [
    [0.90, 0.73, 0.64],
    [0.87, 0.68, 0.58],
    [0.80, 0.61, 0.48],
    [0.70, 0.51, 0.39],
    [0.60, 0.43, 0.33],
    [0.92, 0.76, 0.66],
];
const HAIRS: [[f32; 3]; 6] =
    [[0.27, 0.17, 0.11], [0.12, 0.10, 0.09], [0.45, 0.30, 0.16], [0.62, 0.50, 0.30], [0.40, 0.18, 0.10], [0.45; 3]];
const IRISES: [[f32; 3]; 4] = [[0.34, 0.42, 0.42], [0.36, 0.24, 0.14], [0.28, 0.40, 0.54], [0.34, 0.42, 0.26]];

/// Draws of this kind give looks.
const PURPOSE: [u8; 8] = *b"looks\0\0\0";

impl Looks {
    /// The looks of a speaker in pictures of this side.
    pub(crate) fn of(seed: u64, speaker: u64, side: usize) -> Looks {
        let mut draws = Draws::new(seed, 0, speaker, PURPOSE);
        // By turns, so that neighbours differ; the draws vary within.
        let nth = |table: &[[f32; 3]], step: u64| table[(speaker * step % table.len() as u64) as usize];
        let mut near = |value: f32, by: f32| value + by * draws.signed_unit() as f32;
        let mut tint = |rgb: [f32; 3], by: f32| linear(rgb.map(|v| near(v, by).clamp(0.04, 0.95)));
        let skin = tint(nth(&SKINS, 1), 0.02);
        let hair = tint(nth(&HAIRS, 5), 0.03);
        let iris = tint(nth(&IRISES, 3), 0.03);
        let shirt = tint([0.40, 0.38, 0.42], 0.30);
        let wall = tint([0.42, 0.44, 0.46], 0.18);
        let glow = tint([0.55, 0.55, 0.54], 0.12);
        let blush = [skin[0] * 0.96, skin[1] * 0.60, skin[2] * 0.62];
        let lips = mix([skin[0] * 0.74, skin[1] * 0.26, skin[2] * 0.32], linear([0.74, 0.33, 0.34]), 0.4);
        let small = speaker.is_multiple_of(2);
        let scale = side as f32 * near(0.285, 0.015);
        Looks {
            skin,
            blush,
            lips,
            hair,
            brow: mix(hair, [0.01; 3], 0.25),
            iris,
            shirt,
            wall,
            glow,
            lamp: [near(-0.35, 0.35), near(-0.5, 0.15), 0.8],
            hair_line: near(-0.80, 0.06),
            hair_side: near(0.90, 0.25),
            brow_thickness: near(0.046, 0.010),
            lip_fullness: near(1.0, 0.12),
            nose: near(1.0, 0.12),
            unit_px: [scale * near(1.0, 0.05), scale],
            eyes_at: [side as f32 * near(0.5, 0.02), side as f32 * near(0.44, 0.015)],
            pitch_hz: near(if small { 195.0 } else { 115.0 }, 20.0),
            formants: near(if small { 1.14 } else { 1.0 }, 0.04),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looks_are_a_function_of_seed_and_speaker() {
        assert_eq!(Looks::of(1, 2, 192), Looks::of(1, 2, 192));
        for other in [Looks::of(1, 3, 192), Looks::of(2, 2, 192)] {
            assert_ne!(Looks::of(1, 2, 192), other);
        }
    }
}
