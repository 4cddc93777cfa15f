//! Variations of crops that leave the mouth's movement as it is: mirror image and colour.
//!
//! All functions are pure; one draw serves all frames of a sample, because frames that differ in
//! colour from each other would teach the model a difference that generation never shows.

use syncdiff_face::NUM_LANDMARKS;

use crate::mirror::MIRRORED_LANDMARK;
use crate::rng::Draws;

/// Mirrors a crop left to right, in place.
///
/// # Shapes
/// u8 [size, size, 3].
///
/// # Panics
/// If the length is not `size * size * 3`.
pub fn flip_crop(crop: &mut [u8], size: usize) {
    assert_eq!(crop.len(), size * size * 3, "a crop of {size} x {size} pixels");
    for row in crop.chunks_exact_mut(size * 3) {
        for x in 0..size / 2 {
            let mirror = size - 1 - x;
            for c in 0..3 {
                row.swap(x * 3 + c, mirror * 3 + c);
            }
        }
    }
}

/// The landmarks of the mirrored crop: x becomes `size - 1 - x`, and left and right points change
/// their places, so that each number keeps its meaning.
///
/// # Shapes
/// `x, y` of 468 points in crop pixels, in and out.
///
/// # Panics
/// If there are not 468 points.
pub fn flip_landmarks(landmarks: &[f32], size: usize) -> Vec<f32> {
    assert_eq!(landmarks.len(), NUM_LANDMARKS * 2, "x and y of 468 points");
    let edge = (size - 1) as f32;
    MIRRORED_LANDMARK
        .iter()
        .flat_map(|from| {
            let at = *from as usize * 2;
            [edge - landmarks[at], landmarks[at + 1]]
        })
        .collect()
}

/// How strongly colours are varied; 0 leaves them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct JitterRanges {
    /// Largest shift up or down, as a part of full range.
    pub brightness: f64,
    /// Largest change of contrast about middle grey: factors from 1 - c to 1 + c.
    pub contrast: f64,
    /// Largest change of gamma: exponents from 1 / (1 + g) to 1 + g.
    pub gamma: f64,
    /// Largest change of saturation: factors from 1 - s to 1 + s.
    pub saturation: f64,
    /// Largest change of each channel, as by lamps of another colour: factors from 1 - t to 1 + t.
    pub tint: f64,
}

impl JitterRanges {
    /// Wide: skins, lamps and cameras that a small collection of faces lacks.
    pub const WIDE: JitterRanges =
        JitterRanges { brightness: 0.1, contrast: 0.2, gamma: 0.3, saturation: 0.35, tint: 0.1 };

    /// So many times as strong.
    pub fn times(self, strength: f64) -> Self {
        JitterRanges {
            brightness: self.brightness * strength,
            contrast: self.contrast * strength,
            gamma: self.gamma * strength,
            saturation: self.saturation * strength,
            tint: self.tint * strength,
        }
    }
}

impl Default for JitterRanges {
    /// Moderate: what cameras do.
    fn default() -> Self {
        JitterRanges { brightness: 0.08, contrast: 0.15, gamma: 0.15, saturation: 0.25, tint: 0.0 }
    }
}

/// One change of colour, to be applied to all frames of a sample.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ColourJitter {
    /// Shift, as a part of full range.
    pub brightness: f64,
    /// Factor about middle grey.
    pub contrast: f64,
    /// Exponent of the value in [0, 1].
    pub gamma: f64,
    /// Factor of the distance from grey of the same luma.
    pub saturation: f64,
    /// Factors of red, green and blue.
    pub tint: [f64; 3],
}

impl ColourJitter {
    /// The change that changes nothing.
    pub const NONE: ColourJitter =
        ColourJitter { brightness: 0.0, contrast: 1.0, gamma: 1.0, saturation: 1.0, tint: [1.0; 3] };

    /// The change for sample `index` of a step: the same address gives the same change.
    pub fn draw(ranges: &JitterRanges, seed: u64, step: u64, index: u64) -> Self {
        let mut draws = Draws::new(seed, step, index, *b"colour\0\0");
        ColourJitter {
            brightness: draws.signed_unit() * ranges.brightness,
            contrast: 1.0 + draws.signed_unit() * ranges.contrast,
            gamma: (1.0 + ranges.gamma).powf(draws.signed_unit()),
            saturation: 1.0 + draws.signed_unit() * ranges.saturation,
            tint: std::array::from_fn(|_| 1.0 + draws.signed_unit() * ranges.tint),
        }
    }

    /// Changes RGB pixels in place: gamma, contrast, brightness and tint by channel, then saturation
    /// (luma of BT.601).
    pub fn apply(&self, pixels: &mut [u8]) {
        if *self == Self::NONE {
            return;
        }
        let tables: [[f32; 256]; 3] = self.tint.map(|tint| {
            std::array::from_fn(|value| {
                let bent = (value as f64 / 255.0).powf(self.gamma);
                (((bent - 0.5) * self.contrast + 0.5 + self.brightness) * 255.0 * tint) as f32
            })
        });
        let saturation = self.saturation as f32;
        for pixel in pixels.chunks_exact_mut(3) {
            let [r, g, b] = [0, 1, 2].map(|c| tables[c][usize::from(pixel[c])]);
            let luma = 0.299 * r + 0.587 * g + 0.114 * b;
            for (to, from) in pixel.iter_mut().zip([r, g, b]) {
                *to = (luma + (from - luma) * saturation).round().clamp(0.0, 255.0) as u8;
            }
        }
    }
}

/// Is sample `index` of a step mirrored? One half of all are.
pub fn draw_flip(seed: u64, step: u64, index: u64) -> bool {
    Draws::new(seed, step, index, *b"mirror\0\0").below(2) == 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mirroring_twice_changes_nothing() {
        for size in [4, 5] {
            let crop: Vec<u8> = (0..size * size * 3).map(|v| v as u8).collect();
            let mut flipped = crop.clone();
            flip_crop(&mut flipped, size);
            assert_eq!(flipped[..3], crop[(size - 1) * 3..size * 3]);
            flip_crop(&mut flipped, size);
            assert_eq!(flipped, crop);
        }
        let points: Vec<f32> = (0..936).map(|v| v as f32 * 0.25).collect();
        let flipped = flip_landmarks(&points, 128);
        assert_eq!(flip_landmarks(&flipped, 128), points);
        assert_eq!(flipped[33 * 2], 127.0 - points[263 * 2], "eye corners change places");
        assert_eq!(flipped[13 * 2], 127.0 - points[13 * 2], "the middle of the lip stays");
    }

    #[test]
    fn colours_change_as_told() {
        let pixels = [10, 100, 200, 128, 128, 128];
        let changed = |jitter: ColourJitter| {
            let mut copy = pixels;
            jitter.apply(&mut copy);
            copy
        };
        let none = ColourJitter::NONE;
        assert_eq!(changed(none), pixels);
        assert_eq!(changed(ColourJitter { saturation: 1.000_001, ..none }), pixels);
        let grey = changed(ColourJitter { saturation: 0.0, ..none });
        // 0.299 * 10 + 0.587 * 100 + 0.114 * 200 = 84.49
        assert_eq!(grey, [84, 84, 84, 128, 128, 128]);
        let bright = changed(ColourJitter { brightness: 0.2, ..none });
        assert_eq!(bright, [61, 151, 251, 179, 179, 179]);
        let flat = changed(ColourJitter { contrast: 0.0, ..none });
        assert_eq!(flat, [128; 6]);
        let dark = changed(ColourJitter { gamma: 2.0, ..none });
        assert_eq!(dark, [0, 39, 157, 64, 64, 64]);
        let warm = changed(ColourJitter { tint: [1.1, 1.0, 0.5], ..none });
        assert_eq!(warm, [11, 100, 100, 141, 128, 64]);
    }

    #[test]
    fn draws_stay_inside_their_ranges_and_depend_on_the_address() {
        let ranges = JitterRanges::default();
        for index in 0..500 {
            let jitter = ColourJitter::draw(&ranges, 1, 2, index);
            assert_eq!(jitter, ColourJitter::draw(&ranges, 1, 2, index));
            assert!(jitter.brightness.abs() <= 0.08);
            assert!((0.85..=1.15).contains(&jitter.contrast));
            assert!((1.0 / 1.15..=1.15).contains(&jitter.gamma));
            assert!((0.75..=1.25).contains(&jitter.saturation));
            assert_eq!(jitter.tint, [1.0; 3]);
            let wide = ColourJitter::draw(&JitterRanges::WIDE, 1, 2, index);
            assert!(wide.tint.iter().all(|factor| (0.9..=1.1).contains(factor)) && wide.tint[0] != wide.tint[1]);
        }
        let flips = (0..1000).filter(|index| draw_flip(3, 0, *index)).count();
        assert!((430..570).contains(&flips), "{flips}");
    }
}
