//! The aligned crop out of a frame.

use crate::Affine;
use crate::sample::{Samples, VALUE_BITS, at_least_two, fixed};
use pulp::{Arch, Simd, WithSimd};
use syncdiff_media::Frame;

/// From this many frame pixels to one crop pixel on, the frame is reduced by block means first,
const DIRECT_LIMIT: f64 = 2.0;
/// down to at least this many.
const REDUCED: f64 = 1.25;

/// Cuts the aligned crop of `size` x `size` pixels out of a frame.
///
/// Bilinear where the face is smaller than the crop; the mean over each crop pixel's area where it
/// is larger, so that nothing flickers; the frame's edge is repeated outside. A map without an
/// inverse gives a crop of the frame's first pixel.
pub fn warp(frame: &Frame, crop_from_frame: &Affine, size: usize) -> Frame {
    let inverse = crop_from_frame.invert().unwrap_or(Affine { m: [[0.0; 3]; 2] });
    let step = inverse.scale();
    if step <= DIRECT_LIMIT {
        return sample(frame, &inverse, size);
    }
    // A very large face: block means first, over the part of the frame that the crop needs.
    let factor = (step / REDUCED).floor().clamp(2.0, 64.0) as usize;
    let (reduced, reduced_from_frame) = reduce(frame, &inverse, size, factor);
    sample(&reduced, &inverse.then(&reduced_from_frame), size)
}

/// The crop, each pixel a mean of enough bilinear samples to cover its area.
fn sample(frame: &Frame, map: &Affine, size: usize) -> Frame {
    let num = (map.scale().ceil().max(1.0) as usize).min(4);
    let mut shifts = Vec::with_capacity(num * num);
    for i in 0..num * num {
        let offset = |k: usize| (k as f64 + 0.5) / num as f64 - 0.5;
        let (u, v) = (offset(i % num), offset(i / num));
        shifts.push(map.m.map(|row| fixed(row[0] * u + row[1] * v)));
    }
    let mut out = vec![0; size * size * 3];
    let frame = at_least_two(frame);
    let samples = Samples::new(&frame);
    Arch::new().dispatch(Crop { samples, map, shifts: &shifts, size, out: &mut out });
    Frame { width: size, height: size, data: out }
}

struct Crop<'a> {
    samples: Samples<'a>,
    map: &'a Affine,
    /// Places within a crop pixel, in frame pixels.
    shifts: &'a [[i64; 2]],
    size: usize,
    out: &'a mut [u8],
}

impl WithSimd for Crop<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _simd: S) {
        // Values keep 8 fraction bits, so that 16 of them still fit.
        const SPARE: u32 = VALUE_BITS - 8;
        let [[ax, ..], [ay, ..]] = self.map.m.map(|row| row.map(fixed));
        let num = self.shifts.len() as i32;
        for (v, row) in self.out.chunks_exact_mut(self.size * 3).enumerate() {
            let [mut x, mut y] = self.map.apply([0.0, v as f64]).map(fixed);
            for to in row.as_chunks_mut::<3>().0 {
                let mut sum = [0; 3];
                for [dx, dy] in self.shifts {
                    for (s, value) in sum.iter_mut().zip(self.samples.at(x + dx, y + dy)) {
                        *s += value >> SPARE;
                    }
                }
                *to = sum.map(|s| ((s + num * 128) / (num * 256)) as u8);
                x += ax;
                y += ay;
            }
        }
    }
}

/// Means of `factor` x `factor` blocks of the part of the frame under the crop, and the
/// map from frame pixels to it. Blocks lie on a grid fixed in the frame.
fn reduce(frame: &Frame, frame_from_crop: &Affine, size: usize, factor: usize) -> (Frame, Affine) {
    let far = size as f64;
    let corners = [[-1.0, -1.0], [far, -1.0], [-1.0, far], [far, far]].map(|corner| frame_from_crop.apply(corner));
    let span = |axis: usize, len: usize| {
        let low = corners.iter().map(|c| c[axis]).fold(f64::INFINITY, f64::min);
        let high = corners.iter().map(|c| c[axis]).fold(f64::NEG_INFINITY, f64::max);
        let blocks = len.div_ceil(factor);
        let first = ((low.max(0.0) as usize) / factor).min(blocks - 1);
        let end = (high.max(0.0) as usize / factor + 2).clamp(first + 1, blocks);
        (first, end)
    };
    let ((x0, x1), (y0, y1)) = (span(0, frame.width), span(1, frame.height));
    let (width, height) = (x1 - x0, y1 - y0);
    let mut data = Vec::with_capacity(width * height * 3);
    let columns = x0 * factor..(x1 * factor).min(frame.width);
    // Rows are added up first: 64 rows of bytes fit into 16 bits.
    let mut sums = vec![0u16; columns.len() * 3];
    for block_y in y0..y1 {
        sums.fill(0);
        let rows = block_y * factor..((block_y + 1) * factor).min(frame.height);
        let num_rows = rows.len();
        for y in rows {
            let row = &frame.row(y)[columns.start * 3..columns.end * 3];
            for (sum, &byte) in sums.iter_mut().zip(row) {
                *sum += u16::from(byte);
            }
        }
        for block in sums.chunks(factor * 3) {
            let mut sum = [0u32; 3];
            for pixel in block.as_chunks::<3>().0 {
                for (s, &p) in sum.iter_mut().zip(pixel) {
                    *s += u32::from(p);
                }
            }
            let count = (num_rows * block.len() / 3) as u32;
            data.extend(sum.map(|s| ((s + count / 2) / count) as u8));
        }
    }
    let scale = 1.0 / factor as f64;
    // The middle of a block of pixels a..a+f is a + (f - 1) / 2.
    let middle = (factor as f64 - 1.0) / 2.0 * scale;
    let map = Affine { m: [[scale, 0.0, -middle - x0 as f64], [0.0, scale, -middle - y0 as f64]] };
    (Frame { width, height, data }, map)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A smooth picture that both axes and all channels vary in.
    fn picture(width: usize, height: usize) -> Frame {
        let mut frame = Frame::filled(width, height, [0; 3]);
        for y in 0..height {
            for x in 0..width {
                let (u, v) = (x as f32 / width as f32, y as f32 / height as f32);
                frame.set_pixel(x, y, [(u * 250.0) as u8, (v * 250.0) as u8, 77]);
            }
        }
        frame
    }

    #[test]
    fn a_shift_by_whole_pixels_copies() {
        let frame = picture(90, 70);
        let crop = warp(&frame, &Affine::scale_shift(1.0, -20.0, -10.0), 32);
        assert_eq!(crop, frame.crop(20, 10, 32, 32));
        let outside = warp(&frame, &Affine::scale_shift(1.0, 5.0, 5.0), 16);
        assert_eq!(outside, frame.crop(-5, -5, 16, 16));
    }

    #[test]
    fn large_and_very_large_faces_are_averaged() {
        for step in [1.7, 3.0, 6.5, 11.0] {
            let mut frame = picture(1500, 1500);
            // A checkerboard of single pixels: its mean must come out, not its moire.
            for y in 0..1500 {
                for x in 0..1500 {
                    let on = (x + y) % 2 * 200;
                    let [r, g, _] = frame.pixel(x, y);
                    frame.set_pixel(x, y, [r, g, on as u8]);
                }
            }
            let map = Affine::scale_shift(1.0 / step, 0.0, 0.0);
            let crop = warp(&frame, &map, 120);
            for (x, y) in [(10, 10), (60, 30), (100, 110)] {
                let [r, g, b] = crop.pixel(x, y).map(f32::from);
                let want = |at: usize| at as f32 * step as f32 / 1500.0 * 250.0;
                assert!((r - want(x)).abs() < 2.0 && (g - want(y)).abs() < 2.0, "step {step}");
                assert!((b - 100.0).abs() < 26.0, "step {step}: {b}");
            }
        }
    }

    #[test]
    fn a_flat_map_and_far_places_do_not_panic() {
        let frame = picture(20, 20);
        warp(&frame, &Affine { m: [[0.0; 3]; 2] }, 8);
        warp(&frame, &Affine::scale_shift(1.0, 1e9, -1e9), 8);
        warp(&frame, &Affine::scale_shift(0.01, 1e9, -1e9), 8);
        warp(&Frame::filled(1, 1, [5; 3]), &Affine::scale_shift(0.1, 0.0, 0.0), 8);
    }
}
