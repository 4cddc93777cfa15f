//! Copies of a clip that look like other people before other cameras: faces longer or wider, other colours, less
//! sharpness, left and right exchanged. How and when the mouth moves stays as it is.

use sha2::{Digest, Sha256};

use crate::augment::{ColourJitter, JitterRanges, draw_flip, flip_crop};
use crate::rng::Draws;

/// How all frames of a copy of a clip differ from the clip: one change for them all.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Look {
    /// Form of the lower face.
    pub shape: Shape,
    /// Left and right exchanged.
    pub mirrored: bool,
    /// Colours.
    pub colour: ColourJitter,
    /// Deviation of a Gaussian blur, in sides of the crop; 0 leaves it sharp.
    pub blur: f64,
}

impl Look {
    /// Names the way in which looks are drawn; another way gets another name.
    pub(crate) const DRAWN: &'static str = "looks-2";
    /// The clip as it is.
    pub const PLAIN: Look = Look { shape: Shape::PLAIN, mirrored: false, colour: ColourJitter::NONE, blur: 0.0 };

    /// Copy `copy` of the clip of this name: another shape, other colours within [`JitterRanges::WIDE`], mirrored or not,
    /// and in one of three blurred; copy 0 is the clip itself. The same address gives the same look.
    pub fn of_copy(clip: &str, copy: usize) -> Self {
        if copy == 0 {
            return Self::PLAIN;
        }
        let hash = Sha256::digest(clip);
        Self::other(u64::from_le_bytes(std::array::from_fn(|i| hash[i])), 0, copy as u64)
    }

    /// For sample `index` of a step: in a `share` of all samples a look like those of copies, else the clip as it is. The
    /// same address gives the same look.
    pub fn draw(share: f64, seed: u64, step: u64, index: u64) -> Self {
        if Draws::new(seed, step, index, *b"varied\0\0").unit() < share {
            Self::other(seed, step, index)
        } else {
            Self::PLAIN
        }
    }

    fn other(seed: u64, step: u64, index: u64) -> Self {
        let mut draws = Draws::new(seed, step, index, *b"blur\0\0\0\0");
        let blurred = draws.below(3) == 0;
        Look {
            shape: Shape::draw(seed, step, index),
            mirrored: draw_flip(seed, step, index),
            colour: ColourJitter::draw(&JitterRanges::WIDE, seed, step, index),
            blur: if blurred { draws.unit() * MOST_BLUR } else { 0.0 },
        }
    }

    /// Changes a crop in place.
    ///
    /// # Shapes
    /// u8 [size, size, 3].
    ///
    /// # Panics
    /// If the length is not `size * size * 3`.
    pub fn apply(&self, crop: &mut [u8], size: usize) {
        assert_eq!(crop.len(), size * size * 3, "a crop of {size} x {size} pixels");
        self.shape.apply(crop, size);
        if self.mirrored {
            flip_crop(crop, size);
        }
        self.colour.apply(crop);
        blur(crop, size, self.blur * size as f64);
    }
}

/// In sides of the crop: what a face of a third of the crop's size looks like, brought to it.
const MOST_BLUR: f64 = 0.01;

/// Another form of the face below the points that the crop is aligned to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shape {
    /// Factor of lengths below the bridge of the nose.
    pub length: f64,
    /// Factor of widths at the mouth and below, from the middle of the crop.
    pub width: f64,
}

impl Shape {
    /// As it is.
    pub const PLAIN: Shape = Shape { length: 1.0, width: 1.0 };
    /// Largest factors; the least are their inverses. Among 22 people chins lie between 0.77 and 0.93 of the crop.
    const MOST: Shape = Shape { length: 1.12, width: 1.08 };
    /// Row, in sides of the crop, above which nothing changes: the end of the bridge of the nose
    /// ([`syncdiff_face::TEMPLATE`]).
    const TOP: f64 = 0.36;
    /// Row from which on widths have changed wholly: above the upper lip.
    const WIDE_FROM: f64 = 0.55;

    fn draw(seed: u64, step: u64, index: u64) -> Self {
        let mut draws = Draws::new(seed, step, index, *b"shape\0\0\0");
        Shape { length: Self::MOST.length.powf(draws.signed_unit()), width: Self::MOST.width.powf(draws.signed_unit()) }
    }

    /// Where the colour at a place comes from; both in sides of the crop.
    fn source(&self, [x, y]: [f64; 2]) -> [f64; 2] {
        let below = (y - Self::TOP).max(0.0);
        let share = (below / (Self::WIDE_FROM - Self::TOP)).min(1.0);
        let width = 1.0 + (self.width - 1.0) * share;
        [0.5 + (x - 0.5) / width, y.min(Self::TOP) + below / self.length]
    }

    /// Changes RGB pixels in place, bilinear; edges go on beyond the crop.
    fn apply(&self, crop: &mut [u8], size: usize) {
        if *self == Self::PLAIN {
            return;
        }
        let (from, last) = (crop.to_vec(), (size - 1) as f64);
        // Pixel centres lie at halves.
        let unit = |i: usize| (i as f64 + 0.5) / size as f64;
        let pixel = |unit: f64| (unit * size as f64 - 0.5).clamp(0.0, last);
        for (y, row) in crop.chunks_exact_mut(size * 3).enumerate() {
            for (x, to) in row.chunks_exact_mut(3).enumerate() {
                let [u, v] = self.source([unit(x), unit(y)]).map(pixel);
                let (left, top) = (u as usize, v as usize);
                let (right, bottom) = ((left + 1).min(size - 1), (top + 1).min(size - 1));
                let (across, down) = (u.fract(), v.fract());
                for (c, to) in to.iter_mut().enumerate() {
                    let at = |y: usize, x: usize| f64::from(from[(y * size + x) * 3 + c]);
                    let upper = at(top, left) * (1.0 - across) + at(top, right) * across;
                    let lower = at(bottom, left) * (1.0 - across) + at(bottom, right) * across;
                    *to = (upper * (1.0 - down) + lower * down).round() as u8;
                }
            }
        }
    }
}

/// Blurs RGB pixels in place: a Gaussian of this deviation in pixels, cut off at three; edges go on beyond the crop.
fn blur(crop: &mut [u8], size: usize, sigma: f64) {
    let reach = (3.0 * sigma).ceil() as usize;
    if reach == 0 {
        return;
    }
    let weight = |d: usize| (-0.5 * (d as f64 / sigma).powi(2)).exp();
    let sum: f64 = weight(0) + 2.0 * (1..=reach).map(weight).sum::<f64>();
    let weights: Vec<f32> = (0..=2 * reach).map(|i| (weight(i.abs_diff(reach)) / sum) as f32).collect();
    // Columns become lines and lines columns, twice.
    let pass = |from: &[f32]| -> Vec<f32> {
        let mut to = vec![0.0; from.len()];
        for line in 0..size {
            for at in 0..size {
                for c in 0..3 {
                    let value = |i: usize| from[(line * size + (at + i).saturating_sub(reach).min(size - 1)) * 3 + c];
                    to[(at * size + line) * 3 + c] = weights.iter().enumerate().map(|(i, w)| w * value(i)).sum();
                }
            }
        }
        to
    };
    let blurred = pass(&pass(&crop.iter().map(|v| f32::from(*v)).collect::<Vec<_>>()));
    crop.iter_mut().zip(blurred).for_each(|(to, value)| *to = value.round() as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: usize = 64;

    /// Black with a white dot of 2 x 2 pixels at this pixel.
    fn dot(x: usize, y: usize) -> Vec<u8> {
        let mut crop = vec![0; SIZE * SIZE * 3];
        for (dx, dy) in [(0, 0), (1, 0), (0, 1), (1, 1)] {
            crop[((y + dy) * SIZE + x + dx) * 3..][..3].fill(255);
        }
        crop
    }

    /// Centre of what is bright, in pixels, and how bright all is together.
    fn centre(crop: &[u8]) -> ([f64; 2], f64) {
        let mut sums = [0.0; 3];
        for (i, pixel) in crop.chunks_exact(3).enumerate() {
            let value = f64::from(pixel[0]) / 255.0;
            let at = [(i % SIZE) as f64 + 0.5, (i / SIZE) as f64 + 0.5, 1.0];
            sums.iter_mut().zip(at).for_each(|(sum, at)| *sum += value * at);
        }
        ([sums[0] / sums[2], sums[1] / sums[2]], sums[2])
    }

    fn shaped(shape: Shape, mut crop: Vec<u8>) -> Vec<u8> {
        shape.apply(&mut crop, SIZE);
        crop
    }

    #[test]
    fn the_lower_face_becomes_longer_and_wider_and_the_upper_stays() {
        let shape = Shape { length: 1.1, width: 1.05 };
        let eye = dot(18, 17);
        assert_eq!(shaped(shape, eye.clone()), eye);
        // Rows: 0.36 + (40 / 64 - 0.36) * 1.1; columns: 0.5 + (16 / 64 - 0.5) * 1.05.
        let ([x, y], _) = centre(&shaped(shape, dot(15, 39)));
        assert!((x - 64.0 * 0.2375).abs() < 0.1 && (y - 64.0 * 0.6515).abs() < 0.1, "{x} {y}");
        let ([x, y], _) = centre(&shaped(Shape { length: 1.0 / 1.1, width: 1.0 }, dot(15, 39)));
        assert!((x - 16.0).abs() < 1e-6 && (y - 64.0 * (0.36 + 0.265 / 1.1)).abs() < 0.1, "{x} {y}");
        let grey = vec![90; SIZE * SIZE * 3];
        assert_eq!(shaped(Shape { length: 1.0 / 1.12, width: 1.0 / 1.08 }, grey.clone()), grey, "edges go on");
    }

    #[test]
    fn a_blur_spreads_light_and_loses_none() {
        let mut crop = dot(30, 40);
        blur(&mut crop, SIZE, 1.5);
        let ([x, y], light) = centre(&crop);
        assert!((x - 31.0).abs() < 1e-6 && (y - 41.0).abs() < 1e-6 && (light - 4.0).abs() < 0.1, "{x} {y} {light}");
        let at = |x: usize, y: usize| i32::from(crop[(y * SIZE + x) * 3]);
        // Per direction (1 + 0.801) / 3.759: the weights at 0 and 1 over the sum of all.
        assert!((at(30, 40) - 59).abs() <= 1, "{}", at(30, 40));
        assert_eq!(at(30, 38), at(28, 40), "alike in both directions");
        let sharp = dot(30, 40);
        let mut same = sharp.clone();
        blur(&mut same, SIZE, 0.0);
        assert_eq!(same, sharp);
        let mut grey = vec![90; SIZE * SIZE * 3];
        blur(&mut grey, SIZE, 2.0);
        assert!(grey.iter().all(|v| *v == 90), "edges go on");
    }

    #[test]
    fn a_copy_has_one_look_and_the_clip_itself_none() {
        let crop: Vec<u8> = (0..8 * 8 * 3).map(|v| v as u8).collect();
        let seen = |clip: &str, copy: usize| {
            let mut crop = crop.clone();
            Look::of_copy(clip, copy).apply(&mut crop, 8);
            crop
        };
        assert_eq!(seen("a", 0), crop);
        assert_eq!(seen("a", 1), seen("a", 1));
        for (one, other) in [(("a", 1), ("a", 0)), (("a", 1), ("a", 2)), (("a", 1), ("b", 1))] {
            assert_ne!(seen(one.0, one.1), seen(other.0, other.1), "{one:?} {other:?}");
        }
        let looks: Vec<Look> = (1..=300).map(|copy| Look::of_copy("a", copy)).collect();
        let count = |of: fn(&Look) -> bool| looks.iter().filter(|look| of(look)).count();
        assert!((100..200).contains(&count(|look| look.mirrored)));
        assert!((60..140).contains(&count(|look| look.blur > 0.0)));
        assert!((100..200).contains(&count(|look| look.shape.length > 1.0)));
        for look in looks {
            assert!(
                (1.0 / 1.12..=1.12).contains(&look.shape.length) && (1.0 / 1.08..=1.08).contains(&look.shape.width)
            );
            assert!((0.0..=MOST_BLUR).contains(&look.blur));
        }
    }

    #[test]
    fn a_share_of_samples_looks_otherwise() {
        let varied = |share: f64| (0..1000).filter(|i| Look::draw(share, 1, 2, *i) != Look::PLAIN).count();
        assert_eq!((varied(0.0), varied(1.0)), (0, 1000));
        assert!((220..280).contains(&varied(0.25)), "{}", varied(0.25));
        assert_eq!(Look::draw(1.0, 1, 2, 3), Look::draw(1.0, 1, 2, 3));
        for other in [Look::draw(1.0, 2, 2, 3), Look::draw(1.0, 1, 3, 3), Look::draw(1.0, 1, 2, 4)] {
            assert_ne!(other, Look::draw(1.0, 1, 2, 3));
        }
    }
}
