//! Square network inputs out of frames: plain bilinear sampling, as the face networks expect it.

use crate::Affine;
use syncdiff_media::Frame;

/// What lies outside the picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Border {
    /// Zero bytes.
    Black,
    /// The nearest pixel of the edge.
    Repeat,
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
    let [[ax, bx, cx], [ay, by, cy]] = frame_from_input.m.map(|row| row.map(|v| v as f32));
    let (last_x, last_y) = ((frame.width - 1) as f32, (frame.height - 1) as f32);
    let stride = frame.width * 3;
    for (v, row) in out.chunks_exact_mut(side * 3).enumerate() {
        let v = v as f32;
        for (u, to) in row.as_chunks_mut::<3>().0.iter_mut().enumerate() {
            let u = u as f32;
            let (x, y) = (ax * u + bx * v + cx, ay * u + by * v + cy);
            let (kx, ky) = (x.clamp(0.0, last_x), y.clamp(0.0, last_y));
            // Casts of non-negative numbers cut off the fraction.
            let (ix, iy) = (kx as i32, ky as i32);
            let (fx, fy) = (kx - ix as f32, ky - iy as f32);
            let (ix, iy) = (ix as usize, iy as usize);
            let at = iy * stride + ix * 3;
            let right = if ix + 1 < frame.width { 3 } else { 0 };
            let below = if iy + 1 < frame.height { stride } else { 0 };
            let top = &frame.data[at..at + right + 3];
            let bottom = &frame.data[at + below..at + below + right + 3];
            // Towards the outside the picture fades to black within one pixel.
            let visible = match border {
                Border::Repeat => 1.0,
                Border::Black => {
                    (1.0 - (x - kx).abs()).max(0.0) * (1.0 - (y - ky).abs()).max(0.0)
                }
            };
            for c in 0..3 {
                let (a, b) = (f32::from(top[c]), f32::from(top[right + c]));
                let (d, e) = (f32::from(bottom[c]), f32::from(bottom[right + c]));
                let upper = a + (b - a) * fx;
                let lower = d + (e - d) * fx;
                let value = (upper + (lower - upper) * fy) * visible;
                to[c] = value * scale + offset;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        assert_eq!(out[..3], [5.0, 0.0, 200.0]);
        assert_eq!(out[4 * 3 + 3..][..3], [15.0, 20.0, 200.0]);
        // Half outside, then wholly outside.
        assert_eq!(out[9..12], [15.0, 0.0, 100.0]);
        assert_eq!(out[3 * 4 * 3..][..3], [0.0, 0.0, 0.0]);
        sample_square(&frame, &map, 4, Border::Repeat, (1.0, 0.0), &mut out);
        assert_eq!(out[9..12], [30.0, 0.0, 200.0]);
    }
}
