//! Copies of a clip that look like other people before other cameras: faces longer or wider, a little off their place,
//! in other colours, blurred or compressed, left and right exchanged. When the mouth moves stays as it is.

use std::io::Cursor;
use std::ops::RangeInclusive;

use image::codecs::jpeg::{JpegDecoder, JpegEncoder};
use image::{ExtendedColorType, ImageDecoder};
use sha2::{Digest, Sha256};

use crate::Clip;
use crate::augment::{ColourJitter, JitterRanges, draw_flip, flip_crop};
use crate::rng::Draws;

/// How all frames of a copy of a clip differ from the clip: one change for them all.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Look {
    /// Form and place of the face.
    pub shape: Shape,
    /// Left and right exchanged.
    pub mirrored: bool,
    /// Colours.
    pub colour: ColourJitter,
    /// Deviation of a Gaussian blur, in sides of the crop; 0 leaves it sharp.
    pub blur: f64,
    /// Quality of JPEG, 1 to 100; `None` leaves it as it is.
    pub jpeg: Option<u8>,
}

impl Look {
    /// Names the way in which looks are drawn; another way gets another name.
    pub(crate) const DRAWN: &'static str = "looks-3";
    /// The clip as it is.
    pub const PLAIN: Look =
        Look { shape: Shape::PLAIN, mirrored: false, colour: ColourJitter::NONE, blur: 0.0, jpeg: None };

    /// Copy `copy` of the clip of this name: another shape, other colours within [`JitterRanges::WIDE`], mirrored or not,
    /// one in three blurred, one in three compressed; copy 0 is the clip itself. The same address gives the same look.
    pub fn of_copy(clip: &str, copy: usize) -> Self {
        if copy == 0 {
            return Self::PLAIN;
        }
        Self::other(seed_of_clip(clip), 0, copy as u64)
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
        let mut draws = Draws::new(seed, step, index, *b"camera\0\0");
        let (blurred, compressed) = (draws.below(3) == 0, draws.below(3) == 0);
        let (blur, jpeg) = (draws.unit() * MOST_BLUR, JPEG.start() + draws.below(JPEG.len() as u64) as u8);
        Look {
            shape: Shape::draw(seed, step, index),
            mirrored: draw_flip(seed, step, index),
            colour: ColourJitter::draw(&JitterRanges::WIDE, seed, step, index),
            blur: if blurred { blur } else { 0.0 },
            jpeg: compressed.then_some(jpeg),
        }
    }

    /// A frame's crop in this look.
    ///
    /// # Shapes
    /// -> u8 [size, size, 3].
    ///
    /// # Panics
    /// If the clip has no such frame.
    pub fn of_frame(&self, clip: &Clip, frame: usize) -> Vec<u8> {
        let mut crop = clip.frame(frame).to_vec();
        self.apply(&mut crop, clip.crop_size());
        crop
    }

    /// Changes a crop in place.
    ///
    /// # Shapes
    /// u8 [size, size, 3].
    ///
    /// # Panics
    /// If the length is not `size * size * 3`.
    pub fn apply(&self, crop: &mut [u8], size: usize) {
        self.place(crop, size);
        self.colour.apply(crop);
        blur(crop, size, self.blur * size as f64);
        if let Some(quality) = self.jpeg {
            compress(crop, size, quality);
        }
    }

    /// Of [`Look::apply`] what changes where things are: for pictures that say something of places in the crop.
    ///
    /// # Shapes
    /// u8 [size, size, 3].
    ///
    /// # Panics
    /// If the length is not `size * size * 3`.
    pub fn place(&self, picture: &mut [u8], size: usize) {
        assert_eq!(picture.len(), size * size * 3, "a crop of {size} x {size} pixels");
        self.shape.apply(picture, size);
        if self.mirrored {
            flip_crop(picture, size);
        }
    }
}

/// The seed of all that is drawn for a clip of this name.
pub fn seed_of_clip(clip: &str) -> u64 {
    let hash = Sha256::digest(clip);
    u64::from_le_bytes(std::array::from_fn(|i| hash[i]))
}

/// In sides of the crop; in one of 128 pixels, what a face of a third of its size looks like, brought to it.
const MOST_BLUR: f64 = 0.01;
/// From the blocks of a poor video call to what one has to look for.
const JPEG: RangeInclusive<u8> = 25..=90;

/// Another form of the face below the points that the crop is aligned to, and another place.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shape {
    /// Factor of lengths from the bridge of the nose to the chin.
    pub length: f64,
    /// Factor of the lower face's widths, from the middle of the crop.
    pub width: f64,
    /// Move of all, right and down, in sides of the crop.
    pub shift: [f64; 2],
}

impl Shape {
    /// As it is.
    pub const PLAIN: Shape = Shape { length: 1.0, width: 1.0, shift: [0.0; 2] };
    /// Largest factors, the least being their inverses, and largest moves. Among 22 people chins lie between 0.77 and
    /// 0.93 of the crop; with these no chin comes below 0.97, where the region that is hidden from the network goes on.
    const MOST: Shape = Shape { length: 1.12, width: 1.08, shift: [0.015; 2] };
    /// Row, in sides of the crop, above which nothing changes: the end of the bridge of the nose
    /// ([`syncdiff_face::TEMPLATE`]).
    const TOP: f64 = 0.36;
    /// From [`Shape::TOP`] down to where lengths have the full factor: by the crop's end all is where it was.
    const LONG: f64 = 0.49;
    /// Row from which on widths have changed wholly: above the upper lip.
    const WIDE_FROM: f64 = 0.55;
    /// From the middle to where widths have the full factor: at the crop's edge all is where it was.
    const WIDE: f64 = 0.38;

    fn draw(seed: u64, step: u64, index: u64) -> Self {
        let mut draws = Draws::new(seed, step, index, *b"shape\0\0\0");
        let most = Self::MOST;
        Shape {
            length: most.length.powf(draws.signed_unit()),
            width: most.width.powf(draws.signed_unit()),
            shift: most.shift.map(|most| draws.signed_unit() * most),
        }
    }

    /// Where the colour at a place comes from; both in sides of the crop.
    fn source(&self, [x, y]: [f64; 2]) -> [f64; 2] {
        let [x, y] = [x - self.shift[0], y - self.shift[1]];
        let below = (y - Self::TOP).max(0.0);
        let share = (below / (Self::WIDE_FROM - Self::TOP)).min(1.0);
        let width = 1.0 + (self.width - 1.0) * share;
        let aside = x - 0.5;
        let aside = eased(aside.abs(), Self::WIDE, 0.5, width).copysign(aside);
        [0.5 + aside, y.min(Self::TOP) + eased(below, Self::LONG, 1.0 - Self::TOP, self.length)]
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

/// The distance that `to` was grown from: by `factor` up to `knee`, and from there so that `end` stays.
fn eased(to: f64, knee: f64, end: f64, factor: f64) -> f64 {
    let grown = knee / factor;
    match to {
        to if to <= knee => to / factor,
        to => grown + (to - knee) * (end - grown) / (end - knee),
    }
}

/// Compresses RGB pixels as JPEG and takes what comes back.
fn compress(crop: &mut [u8], size: usize, quality: u8) {
    let mut file = Vec::new();
    let side = u32::try_from(size).expect("crops are small");
    JpegEncoder::new_with_quality(&mut file, quality)
        .encode(crop, side, side, ExtendedColorType::Rgb8)
        .expect("a picture in memory is compressed");
    let decoder = JpegDecoder::new(Cursor::new(&file)).expect("a picture just compressed is read");
    decoder.read_image(crop).expect("a picture just compressed is read");
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

    fn close(at: [f64; 2], wanted: [f64; 2], most: f64) {
        assert!(at.iter().zip(wanted).all(|(at, wanted)| (at - wanted).abs() < most), "{at:?} {wanted:?}");
    }

    #[test]
    fn the_lower_face_becomes_longer_and_wider_and_the_upper_stays() {
        let shape = Shape { length: 1.1, width: 1.05, ..Shape::PLAIN };
        let eye = dot(18, 17);
        assert_eq!(shaped(shape, eye.clone()), eye);
        // Rows: 0.36 + (40 / 64 - 0.36) * 1.1; columns: 0.5 + (16 / 64 - 0.5) * 1.05.
        close(centre(&shaped(shape, dot(15, 39))).0, [64.0 * 0.2375, 64.0 * 0.6515], 0.1);
        let short = Shape { length: 1.0 / 1.1, ..Shape::PLAIN };
        close(centre(&shaped(short, dot(15, 39))).0, [16.0, 64.0 * (0.36 + 0.265 / 1.1)], 0.1);
        let moved = Shape { shift: [2.0 / 64.0, -1.0 / 64.0], ..Shape::PLAIN };
        assert_eq!(shaped(moved, dot(15, 39)), dot(17, 38));
    }

    #[test]
    fn left_is_treated_as_right() {
        let shape = Shape { length: 1.07, width: 1.08, ..Shape::PLAIN };
        let flipped = |mut crop: Vec<u8>| {
            flip_crop(&mut crop, SIZE);
            crop
        };
        let (one, other) = (flipped(shaped(shape, dot(11, 45))), shaped(shape, flipped(dot(11, 45))));
        assert!(one.iter().zip(&other).all(|(a, b)| a.abs_diff(*b) <= 1));
    }

    #[test]
    fn the_edges_of_the_crop_stay_and_no_chin_leaves_the_hidden_region() {
        for (length, width) in [(1.12, 1.08), (1.0 / 1.12, 1.0 / 1.08), (1.0, 1.0)] {
            let shape = Shape { length, width, ..Shape::PLAIN };
            close(shape.source([0.0, 1.0]), [0.0, 1.0], 1e-12);
            close(shape.source([1.0, 0.2]), [1.0, 0.2], 1e-12);
            let rows: Vec<f64> = (0..=100).map(|row| shape.source([0.5, f64::from(row) / 100.0])[1]).collect();
            assert!(rows.windows(2).all(|pair| pair[0] < pair[1]), "order stays: {rows:?}");
        }
        let longest = Shape { shift: [0.0, Shape::MOST.shift[1]], ..Shape::MOST };
        assert!(longest.source([0.5, 0.97])[1] > 0.93, "chins at 0.93 come no lower than 0.97");
    }

    #[test]
    fn a_blur_spreads_light_and_loses_none() {
        let mut crop = dot(30, 40);
        blur(&mut crop, SIZE, 1.5);
        let (at, light) = centre(&crop);
        close(at, [31.0, 41.0], 1e-6);
        assert!((light - 4.0).abs() < 0.1, "{light}");
        let at = |x: usize, y: usize| i32::from(crop[(y * SIZE + x) * 3]);
        // Per direction (1 + 0.801) / 3.759: the weights at 0 and 1 over the sum of all.
        assert!((at(30, 40) - 59).abs() <= 1, "{}", at(30, 40));
        assert_eq!(at(30, 38), at(28, 40), "alike in both directions");
        let sharp = dot(30, 40);
        let mut same = sharp.clone();
        blur(&mut same, SIZE, 0.0);
        assert_eq!(same, sharp);
    }

    #[test]
    fn a_blur_takes_the_edges_to_go_on() {
        let mut crop = vec![0; SIZE * SIZE * 3];
        crop.chunks_exact_mut(SIZE * 3).for_each(|row| row[..3].fill(255));
        blur(&mut crop, SIZE, 1.5);
        // Half of the Gaussian and half of the weight at 0, then ever less of it.
        for (x, wanted) in [161, 94, 39, 11].into_iter().enumerate() {
            assert!(crop[(20 * SIZE + x) * 3].abs_diff(wanted) <= 1, "{x}: {}", crop[(20 * SIZE + x) * 3]);
        }
        assert_eq!(crop[(20 * SIZE + SIZE - 1) * 3], 0, "the other side is far");
    }

    #[test]
    fn compression_loses_more_at_less_quality() {
        let loss = |quality| {
            let sharp = dot(30, 40);
            let mut crop = sharp.clone();
            compress(&mut crop, SIZE, quality);
            sharp.iter().zip(&crop).map(|(a, b)| f64::from(a.abs_diff(*b)).powi(2)).sum::<f64>()
        };
        assert!(loss(25) > 4.0 * loss(90) && loss(90) > 0.0, "{} {}", loss(25), loss(90));
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
        assert!((60..140).contains(&count(|look| look.jpeg.is_some())));
        assert!((100..200).contains(&count(|look| look.shape.length > 1.0)));
        for Look { shape, blur, jpeg, .. } in looks {
            assert!((1.0 / 1.12..=1.12).contains(&shape.length) && (1.0 / 1.08..=1.08).contains(&shape.width));
            assert!(shape.shift.iter().all(|shift| shift.abs() <= 0.015));
            assert!((0.0..=MOST_BLUR).contains(&blur) && jpeg.is_none_or(|quality| JPEG.contains(&quality)));
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
