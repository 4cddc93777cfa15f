//! Bilinear sampling of frames in whole numbers, and the square network inputs made with it.

use crate::Affine;
use pulp::{Arch, Simd, WithSimd};
use std::borrow::Cow;
use syncdiff_media::Frame;

/// Fraction bits of a coordinate.
const PLACE_BITS: u32 = 24;
/// Fraction bits of a weight; two weights and a byte fill 30 bits.
const WEIGHT_BITS: u32 = 11;
/// Fraction bits of a sampled value.
pub(crate) const VALUE_BITS: u32 = 2 * WEIGHT_BITS;

/// What lies outside the picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Border {
    /// Zero bytes.
    Black,
    /// The nearest pixel of the edge.
    Repeat,
}

/// A coordinate or a step with [`PLACE_BITS`] fraction bits; a cast saturates, so anything far
/// outside stays outside.
#[inline(always)]
pub(crate) fn fixed(value: f64) -> i64 {
    // Far enough from the limits that sums of a few thousand steps cannot overflow.
    (value.clamp(-1e6, 1e6) * f64::from(1 << PLACE_BITS)) as i64
}

/// The frame itself, or made 2 x 2 by repeating if it is a single row or column.
pub(crate) fn at_least_two(frame: &Frame) -> Cow<'_, Frame> {
    if frame.width >= 2 && frame.height >= 2 {
        Cow::Borrowed(frame)
    } else {
        Cow::Owned(frame.crop(0, 0, frame.width.max(2), frame.height.max(2)))
    }
}

/// A picture of [`at_least_two`] rows and columns, to be sampled between the pixels.
pub(crate) struct Samples<'a> {
    data: &'a [u8],
    stride: usize,
    last_x: i64,
    last_y: i64,
}

impl<'a> Samples<'a> {
    pub(crate) fn new(frame: &'a Frame) -> Self {
        // One unit short of the last pixel, so that the neighbour to the right always exists.
        let last = |len: usize| ((len as i64 - 1) << PLACE_BITS) - 1;
        Samples { data: &frame.data, stride: frame.width * 3, last_x: last(frame.width), last_y: last(frame.height) }
    }

    /// The nearest place inside.
    #[inline(always)]
    fn inside(&self, x: i64, y: i64) -> (i64, i64) {
        (x.clamp(0, self.last_x), y.clamp(0, self.last_y))
    }

    /// The picture at a place given by [`fixed`], edges repeated, with [`VALUE_BITS`] fraction bits.
    #[inline(always)]
    pub(crate) fn at(&self, x: i64, y: i64) -> [i32; 3] {
        let (x, y) = self.inside(x, y);
        let at = (y >> PLACE_BITS) as usize * self.stride + (x >> PLACE_BITS) as usize * 3;
        let part = |v: i64| (v >> (PLACE_BITS - WEIGHT_BITS)) as i32 & ((1 << WEIGHT_BITS) - 1);
        let (fx, fy) = (part(x), part(y));
        let (gx, gy) = ((1 << WEIGHT_BITS) - fx, (1 << WEIGHT_BITS) - fy);
        let (top, bottom) = (&self.data[at..at + 6], &self.data[at + self.stride..][..6]);
        let mut value = [0; 3];
        for c in 0..3 {
            let upper = i32::from(top[c]) * gx + i32::from(top[c + 3]) * fx;
            let lower = i32::from(bottom[c]) * gx + i32::from(bottom[c + 3]) * fx;
            value[c] = upper * gy + lower * fy;
        }
        value
    }
}

/// Fills `out` (`side x side x 3`) with `value * scale + offset` of the frame's bytes at the places
/// of the input's pixel indices.
pub(crate) fn sample_square(
    frame: &Frame,
    frame_from_input: &Affine,
    side: usize,
    border: Border,
    (scale, offset): (f32, f32),
    out: &mut [f32],
) {
    Arch::new().dispatch(Square {
        samples: Samples::new(&at_least_two(frame)),
        map: frame_from_input,
        side,
        border,
        scale: scale / (1 << VALUE_BITS) as f32,
        offset,
        out,
    });
}

struct Square<'a> {
    samples: Samples<'a>,
    map: &'a Affine,
    side: usize,
    border: Border,
    scale: f32,
    offset: f32,
    out: &'a mut [f32],
}

impl WithSimd for Square<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _simd: S) {
        let [[ax, _, _], [ay, _, _]] = self.map.m.map(|row| row.map(fixed));
        for (v, row) in self.out.chunks_exact_mut(self.side * 3).enumerate() {
            let [mut x, mut y] = self.map.apply([0.0, v as f64]).map(fixed);
            for to in row.as_chunks_mut::<3>().0 {
                // Towards the outside the picture fades to black within one pixel.
                let mut scale = self.scale;
                if self.border == Border::Black {
                    let (kx, ky) = self.samples.inside(x, y);
                    if (kx, ky) != (x, y) {
                        let far = |d: i64| d.abs() as f32 / (1 << PLACE_BITS) as f32;
                        scale *= (1.0 - far(x - kx)).max(0.0) * (1.0 - far(y - ky)).max(0.0);
                    }
                }
                for (to, value) in to.iter_mut().zip(self.samples.at(x, y)) {
                    *to = value as f32 * scale + self.offset;
                }
                x += ax;
                y += ay;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(found: &[f32], want: [f32; 3]) {
        for (a, b) in found.iter().zip(want) {
            assert!((a - b).abs() < 0.05, "{found:?} {want:?}");
        }
    }

    #[test]
    fn pixel_indices_are_sampled_without_a_shift() {
        let mut frame = Frame::filled(4, 3, [0; 3]);
        for y in 0..3 {
            for x in 0..4 {
                frame.set_pixel(x, y, [(10 * x) as u8, (20 * y) as u8, 200]);
            }
        }
        let mut out = [0.0; 4 * 4 * 3];
        let map = Affine::scale_shift(1.0, 0.5, 0.0);
        sample_square(&frame, &map, 4, Border::Black, (1.0, 0.0), &mut out);
        close(&out[..3], [5.0, 0.0, 200.0]);
        close(&out[4 * 3 + 3..][..3], [15.0, 20.0, 200.0]);
        // Half outside, then wholly outside.
        close(&out[9..12], [15.0, 0.0, 100.0]);
        close(&out[3 * 4 * 3..][..3], [0.0, 0.0, 0.0]);
        sample_square(&frame, &map, 4, Border::Repeat, (1.0, 0.0), &mut out);
        close(&out[9..12], [30.0, 0.0, 200.0]);
    }
}
