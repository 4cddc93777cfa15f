//! The skin round a generated mouth made like that of its frame.
//!
//! A small network draws a mouth's shape better than a stranger's skin. So the crop takes two things from the frame
//! that it goes into, outside of the lips: its colours, as a ratio that varies slowly over the crop and over time; and
//! its fine texture, wherever both agree in what is coarse. Where they do not, because a chin has sunk or a fold has
//! moved, the crop stays as it was drawn, and so do the lips.

use crate::colour::follow;
use crate::paste::PasteMask;
use crate::{Affine, warp};
use syncdiff_media::Frame;

/// Cells of the grid on which colours are compared, along each side.
const GRID: usize = 32;
/// Added to both sides of a ratio, so that dark pixels do not decide.
const FLOOR: f32 = 16.0;
/// Largest logarithm of a ratio.
const LIMIT: f32 = 0.5;
/// Part of the way to the new ratios that is gone with each frame: what moves with the source's mouth must not show.
const PACE: f32 = 0.1;
/// Deviation of the cells that a ratio is a mean of, in cells.
const SPREAD: f32 = 1.8;
/// What is finer than this deviation is texture, in sides of the crop.
const TEXTURE: f32 = 0.024;
/// Coarse brightness may differ by about so many grey levels where texture is taken over.
const DOUBT: f32 = 18.0;
/// Middle and half axes of the lips and of where they may open to, in sides of the aligned crop.
const LIPS: Ellipse = Ellipse { middle: [0.5, 0.68], axes: [0.19, 0.12] };
/// Most of it: nothing within tells the colour of skin.
const MOUTH: Ellipse = Ellipse { middle: [0.5, 0.67], axes: [0.17, 0.1] };
/// Texture comes in from the edge of the lips to so many times their axes.
const LIPS_RAMP: f32 = 1.35;

struct Ellipse {
    middle: [f32; 2],
    axes: [f32; 2],
}

impl Ellipse {
    /// Distance of a place from the middle, 1 on the edge.
    fn distance(&self, u: f32, v: f32) -> f32 {
        let (x, y) = ((u - self.middle[0]) / self.axes[0], (v - self.middle[1]) / self.axes[1]);
        (x * x + y * y).sqrt()
    }
}

/// What the skin of a face in a clip looks like against what is drawn. One per face; cuts and gaps want a new
/// one.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SkinMatch {
    /// Logarithms of the ratio of frame and crop for each cell and channel.
    state: Option<Vec<[f32; 3]>>,
}

impl SkinMatch {
    /// Without a history: the first frame counts wholly.
    pub fn new() -> Self {
        SkinMatch::default()
    }

    /// A crop, ready to be put into its frame: of each pixel what is shown of the crop in red, green and blue, and the
    /// share of the frame's own pixel that is added.
    ///
    /// # Shapes
    /// -> [size * size], row-major
    pub(crate) fn update(
        &mut self,
        frame: &Frame,
        generated: &Frame,
        crop_from_frame: &Affine,
        mask: &PasteMask,
    ) -> Vec<[f32; 4]> {
        let size = mask.size();
        let seen = warp(frame, crop_from_frame, size);
        if let Some(fresh) = ratios(&seen, generated, mask) {
            match &mut self.state {
                Some(state) => follow(state.as_flattened_mut(), fresh.as_flattened(), PACE),
                None => self.state = Some(fresh),
            }
        }
        let mut drawn: Vec<[f32; 4]> = pixels(generated).map(|[r, g, b]| [r, g, b, 0.0]).collect();
        if let Some(state) = &self.state {
            recolour(&mut drawn, size, state);
        }
        let differ = |(seen, drawn): ([f32; 3], &[f32; 4])| [0, 1, 2].map(|c| seen[c] - drawn[c]);
        let coarse: Vec<[f32; 3]> = pixels(&seen).zip(&drawn).map(differ).collect();
        let coarse = blurred(&coarse, size, TEXTURE * size as f32);
        let shares = shares(&coarse, size);
        for ((pixel, coarse), share) in drawn.iter_mut().zip(&coarse).zip(shares) {
            for c in 0..3 {
                pixel[c] = pixel[c] * (1.0 - share) - coarse[c] * share;
            }
            pixel[3] = share;
        }
        drawn
    }
}

fn pixels(frame: &Frame) -> impl Iterator<Item = [f32; 3]> + '_ {
    frame.data.as_chunks::<3>().0.iter().map(|pixel| pixel.map(f32::from))
}

/// Of each cell the mean logarithm of frame over crop round about, where the crop is shown and no lips are; `None`
/// where that is nowhere.
fn ratios(seen: &Frame, generated: &Frame, mask: &PasteMask) -> Option<Vec<[f32; 3]>> {
    let size = mask.size();
    let cell = |pixel: usize| pixel * GRID / size;
    // Sums of both pictures, and the number of pixels.
    let mut sums = vec![([0f32; 3], [0f32; 3], 0f32); GRID * GRID];
    for (i, (seen, drawn)) in pixels(seen).zip(pixels(generated)).enumerate() {
        let (x, y) = (i % size, i / size);
        if mask.weight()[i] > 0.0
            && MOUTH.distance((x as f32 + 0.5) / size as f32, (y as f32 + 0.5) / size as f32) > 1.0
        {
            let (want, have, count) = &mut sums[cell(y) * GRID + cell(x)];
            for c in 0..3 {
                want[c] += seen[c];
                have[c] += drawn[c];
            }
            *count += 1.0;
        }
    }
    // Logarithms times their weight, and the weight.
    let logarithms = sums.into_iter().map(|(want, have, count)| {
        let of = |c: usize| ((want[c] + FLOOR * count) / (have[c] + FLOOR * count)).ln().clamp(-LIMIT, LIMIT) * count;
        if count > 0.0 { [of(0), of(1), of(2), count] } else { [0.0; 4] }
    });
    let spread = blurred(&logarithms.collect::<Vec<_>>(), GRID, SPREAD);
    // Far from all skin the mean of it all stands in.
    let mut all = [0f32; 4];
    for cell in &spread {
        for c in 0..4 {
            all[c] += cell[c];
        }
    }
    if all[3] <= 0.0 {
        return None;
    }
    let little = 1e-3 * all[3] / (GRID * GRID) as f32;
    let mean = [0, 1, 2].map(|c| all[c] / all[3]);
    Some(spread.iter().map(|cell| [0, 1, 2].map(|c| (cell[c] + little * mean[c]) / (cell[3] + little))).collect())
}

/// Multiplies a crop by the ratios, which vary smoothly between the middles of the cells.
fn recolour(drawn: &mut [[f32; 4]], size: usize, ratios: &[[f32; 3]]) {
    let gains: Vec<[f32; 3]> = ratios.iter().map(|cell| cell.map(f32::exp)).collect();
    let place = |pixel: usize| {
        let at = ((pixel as f32 + 0.5) * GRID as f32 / size as f32 - 0.5).clamp(0.0, (GRID - 1) as f32);
        let cell = (at as usize).min(GRID - 2);
        (cell, at - cell as f32)
    };
    let columns: Vec<(usize, f32)> = (0..size).map(place).collect();
    for (y, row) in drawn.chunks_exact_mut(size).enumerate() {
        let (cell_y, part_y) = place(y);
        let between = |column: usize, c: usize| {
            let (top, bottom) = (gains[cell_y * GRID + column][c], gains[(cell_y + 1) * GRID + column][c]);
            top + (bottom - top) * part_y
        };
        let line: Vec<[f32; 3]> = (0..GRID).map(|column| [0, 1, 2].map(|c| between(column, c))).collect();
        for (pixel, &(cell, part)) in row.iter_mut().zip(&columns) {
            for c in 0..3 {
                let gain = line[cell][c] + (line[cell + 1][c] - line[cell][c]) * part;
                pixel[c] = (pixel[c] + FLOOR) * gain - FLOOR;
            }
        }
    }
}

/// Of each pixel the share of the frame's texture, by how little both differ in coarse brightness.
fn shares(coarse: &[[f32; 3]], size: usize) -> Vec<f32> {
    let luma = |[r, g, b]: &[f32; 3]| 0.299 * r + 0.587 * g + 0.114 * b;
    let agree: Vec<f32> = coarse.iter().map(|pixel| (-(luma(pixel) / DOUBT).powi(2)).exp()).collect();
    let reach = (TEXTURE * size as f32).round().max(1.0) as usize;
    // The worst nearby decides, so that no edge of a mouth is copied beside the drawn one.
    let agree = worst(&agree, size, reach);
    let agree = blurred(agree.as_chunks::<1>().0, size, 0.5 * TEXTURE * size as f32);
    let lips = |i: usize| {
        let unit = |pixel: usize| (pixel as f32 + 0.5) / size as f32;
        let t = ((LIPS.distance(unit(i % size), unit(i / size)) - 1.0) / (LIPS_RAMP - 1.0)).clamp(0.0, 1.0);
        t * t * (3.0 - 2.0 * t)
    };
    agree.iter().enumerate().map(|(i, agree)| agree[0] * lips(i)).collect()
}

/// The least value within `reach` pixels along both axes.
fn worst(values: &[f32], size: usize, reach: usize) -> Vec<f32> {
    let lower = |to: &mut [f32], from: &[f32]| {
        for (to, from) in to.iter_mut().zip(from) {
            *to = if from < to { *from } else { *to };
        }
    };
    let mut across = values.to_vec();
    for (row, to) in values.chunks_exact(size).zip(across.chunks_exact_mut(size)) {
        for step in 1..=reach.min(size - 1) {
            lower(&mut to[step..], &row[..size - step]);
            lower(&mut to[..size - step], &row[step..]);
        }
    }
    let mut both = across.clone();
    for (y, to) in both.chunks_exact_mut(size).enumerate() {
        for from in y.saturating_sub(reach)..(y + reach + 1).min(size) {
            lower(to, &across[from * size..(from + 1) * size]);
        }
    }
    both
}

/// Smoothed by a Gaussian; beyond its edges a picture counts for nothing.
fn blurred<const C: usize>(values: &[[f32; C]], size: usize, sigma: f32) -> Vec<[f32; C]> {
    let reach = (2.5 * sigma).ceil() as usize;
    let weight = |from: usize, to: usize| (-0.5 * (from.abs_diff(to) as f32 / sigma).powi(2)).exp();
    let near = |at: usize| at.saturating_sub(reach)..(at + reach + 1).min(size);
    let all: Vec<f32> = (0..size).map(|at| near(at).map(|from| weight(from, at)).sum()).collect();
    let mut across = vec![[0f32; C]; values.len()];
    for (row, to) in values.chunks_exact(size).zip(across.chunks_exact_mut(size)) {
        for step in 0..=2 * reach {
            // Whole rows beside each other, so that the inner loop has no ends to ask for.
            let (left, right) = (reach.saturating_sub(step), step.saturating_sub(reach));
            if left.max(right) < size {
                let count = size - left.max(right);
                add_scaled(&mut to[left..left + count], &row[right..right + count], weight(step, reach));
            }
        }
        for (to, all) in to.iter_mut().zip(&all) {
            *to = to.map(|value| value / all);
        }
    }
    let mut both = vec![[0f32; C]; values.len()];
    for (y, to) in both.chunks_exact_mut(size).enumerate() {
        for from in near(y) {
            add_scaled(to, &across[from * size..(from + 1) * size], weight(from, y) / all[y]);
        }
    }
    both
}

fn add_scaled<const C: usize>(to: &mut [[f32; C]], from: &[[f32; C]], factor: f32) {
    for (to, from) in to.as_flattened_mut().iter_mut().zip(from.as_flattened()) {
        *to += factor * from;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::KeepMask;

    const SIZE: usize = 128;

    /// Coarse and fine structure.
    fn face(texture: f32) -> Frame {
        let mut frame = Frame::filled(SIZE, SIZE, [0; 3]);
        for (i, pixel) in frame.data.as_chunks_mut::<3>().0.iter_mut().enumerate() {
            let (x, y) = ((i % SIZE) as f32, (i / SIZE) as f32);
            let value =
                130.0 + 20.0 * (x / 40.0).sin() * (y / 50.0).cos() + texture * (x * 1.9).sin() * (y * 2.3).cos();
            *pixel = [value * 1.1, value * 0.9, value * 0.8].map(|v| v as u8);
        }
        frame
    }

    fn changed(frame: &Frame, change: impl Fn(usize, usize, [f32; 3]) -> [f32; 3]) -> Frame {
        let mut frame = frame.clone();
        for (i, pixel) in frame.data.as_chunks_mut::<3>().0.iter_mut().enumerate() {
            *pixel = change(i % SIZE, i / SIZE, pixel.map(f32::from)).map(|v| v as u8);
        }
        frame
    }

    /// What is shown of a crop in a frame of its own size.
    fn shown(skin: &mut SkinMatch, frame: &Frame, generated: &Frame) -> Vec<[f32; 3]> {
        let mask = PasteMask::from_keep(&KeepMask::aligned_fixed(SIZE), 0.06);
        let crop = skin.update(frame, generated, &Affine::IDENTITY, &mask);
        pixels(frame)
            .zip(crop)
            .map(|(old, [r, g, b, share])| [r + share * old[0], g + share * old[1], b + share * old[2]])
            .collect()
    }

    /// Largest and mean difference of brightness over some pixels.
    fn difference(shown: &[[f32; 3]], frame: &Frame, of: impl Fn(f32, f32) -> bool) -> (f32, f32) {
        let unit = |pixel: usize| (pixel as f32 + 0.5) / SIZE as f32;
        let (mut most, mut sum, mut count) = (0f32, 0.0, 0.0);
        for (i, (a, b)) in shown.iter().zip(pixels(frame)).enumerate() {
            if of(unit(i % SIZE), unit(i / SIZE)) {
                let difference = (0..3).map(|c| (a[c] - b[c]).abs()).sum::<f32>() / 3.0;
                (most, sum, count) = (most.max(difference), sum + difference, count + 1.0);
            }
        }
        (most, sum / count)
    }

    fn skin(u: f32, v: f32) -> bool {
        (0.2..0.8).contains(&u) && (0.5..0.95).contains(&v) && LIPS.distance(u, v) > 1.5
    }

    #[test]
    fn skin_of_other_colour_and_without_texture_becomes_that_of_the_frame() {
        let frame = face(12.0);
        let drawn = changed(&face(0.0), |_, _, [r, g, b]| [r * 0.85, g, b * 1.15]);
        let unchanged: Vec<[f32; 3]> = pixels(&drawn).collect();
        let shown = shown(&mut SkinMatch::new(), &frame, &drawn);
        let (before, after) = (difference(&unchanged, &frame, skin).1, difference(&shown, &frame, skin).1);
        assert!(before > 8.0 && after < 2.0, "{before} {after}");
        // Lips take the colour, not the texture.
        let middle = |u: f32, v: f32| LIPS.distance(u, v) < 0.9;
        let (of_frame, of_lips) = (difference(&shown, &frame, middle), difference(&shown, &face(0.0), middle));
        assert!(of_frame.0 > 6.0 && of_lips.0 < 4.0, "{of_frame:?} {of_lips:?}");
    }

    #[test]
    fn what_is_drawn_otherwise_stays_as_it_was_drawn() {
        // A dark patch comes into the frame, wider than texture, that the crop has not.
        let patch = |x: usize, y: usize| (30..46).contains(&x) && (96..112).contains(&y);
        let darkened = |x, y, pixel: [f32; 3]| if patch(x, y) { pixel.map(|v| v * 0.4) } else { pixel };
        let frame = changed(&face(0.0), darkened);
        let mut skin_match = SkinMatch::new();
        shown(&mut skin_match, &face(0.0), &face(0.0));
        let shown = shown(&mut skin_match, &frame, &face(0.0));
        let middle = 104 * SIZE + 38;
        let (found, drawn, filmed) = (shown[middle][0], face(0.0).data[3 * middle], frame.data[3 * middle]);
        assert!(found > f32::from(filmed) + 0.6 * f32::from(drawn - filmed), "{found} between {filmed} and {drawn}");
    }

    #[test]
    fn colours_follow_slowly_and_a_reset_forgets() {
        let (frame, darker) = (face(0.0), changed(&face(0.0), |_, _, pixel| pixel.map(|v| v * 0.8)));
        let mut skin_match = SkinMatch::new();
        let first = difference(&shown(&mut skin_match, &frame, &darker), &frame, skin).1;
        // One frame in which source and crop are alike moves little.
        let jump = difference(&shown(&mut skin_match, &frame, &frame), &frame, skin).1;
        assert!(first < 2.0 && jump > 5.0, "{first} {jump}");
        skin_match = SkinMatch::new();
        assert!(difference(&shown(&mut skin_match, &frame, &frame), &frame, skin).1 < 1.0);
    }

    #[test]
    fn a_crop_that_shows_nothing_is_left_as_it_is() {
        let keep = KeepMask { size: SIZE, keep: vec![1; SIZE * SIZE] };
        let mask = PasteMask::from_keep(&keep, 0.06);
        let mut skin_match = SkinMatch::new();
        let crop = skin_match.update(&face(0.0), &face(0.0), &Affine::IDENTITY, &mask);
        assert!(skin_match.state.is_none() && crop.iter().flatten().all(|v| v.is_finite()));
    }

    #[test]
    fn smoothing_and_the_worst_nearby_are_what_their_definitions_say() {
        let size = 9;
        let values: Vec<f32> = (0..size * size).map(|i| ((i * 37) % 23) as f32).collect();
        let near = |at: usize, reach: usize| at.saturating_sub(reach)..(at + reach + 1).min(size);
        let weight = |a: usize, b: usize| (-0.5 * (a.abs_diff(b) as f32 / 1.2).powi(2)).exp();
        let (smooth, least) = (blurred(values.as_chunks::<1>().0, size, 1.2), worst(&values, size, 2));
        for (i, smooth) in smooth.iter().enumerate() {
            let (x, y) = (i % size, i / size);
            let (mut sum, mut all) = (0.0, 0.0);
            for (v, u) in near(y, 3).flat_map(|v| near(x, 3).map(move |u| (v, u))) {
                sum += weight(u, x) * weight(v, y) * values[v * size + u];
                all += weight(u, x) * weight(v, y);
            }
            assert!((smooth[0] - sum / all).abs() < 1e-4, "{i}: {} {}", smooth[0], sum / all);
            let around = near(y, 2).flat_map(|v| near(x, 2).map(move |u| (v, u)));
            let expected = around.map(|(v, u)| values[v * size + u]).fold(f32::INFINITY, f32::min);
            assert_eq!(least[i], expected, "{i}");
        }
    }
}
