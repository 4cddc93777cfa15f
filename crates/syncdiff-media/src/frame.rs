//! One decoded picture: 8-bit RGB in memory, with the few operations that need no codec.

use crate::error::MediaError;

/// A picture as `u8` RGB, row-major, height x width x channel, without padding.
#[derive(Clone, PartialEq, Eq)]
pub struct Frame {
    /// Columns.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// `height * width * 3` bytes.
    pub data: Vec<u8>,
}

impl std::fmt::Debug for Frame {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Frame({}x{})", self.width, self.height)
    }
}

impl Frame {
    /// A picture of one colour.
    pub fn filled(width: usize, height: usize, rgb: [u8; 3]) -> Self {
        Frame { width, height, data: rgb.repeat(width * height) }
    }

    /// Wraps bytes.
    ///
    /// # Errors
    /// [`MediaError::Internal`] if the length is not `height * width * 3`.
    pub fn from_rgb(width: usize, height: usize, data: Vec<u8>) -> Result<Self, MediaError> {
        if width == 0 || height == 0 || data.len() != width * height * 3 {
            return Err(MediaError::Internal {
                stage: "frame",
                detail: format!("{} bytes for a {width}x{height} RGB picture", data.len()),
            });
        }
        Ok(Frame { width, height, data })
    }

    /// The pixel at column `x`, row `y`.
    ///
    /// # Panics
    /// Outside the picture.
    pub fn pixel(&self, x: usize, y: usize) -> [u8; 3] {
        assert!(x < self.width, "column {x} of {}", self.width);
        let at = (y * self.width + x) * 3;
        [self.data[at], self.data[at + 1], self.data[at + 2]]
    }

    /// Sets the pixel at column `x`, row `y`.
    ///
    /// # Panics
    /// Outside the picture.
    pub fn set_pixel(&mut self, x: usize, y: usize, rgb: [u8; 3]) {
        assert!(x < self.width, "column {x} of {}", self.width);
        let at = (y * self.width + x) * 3;
        self.data[at..at + 3].copy_from_slice(&rgb);
    }

    /// One row of `width * 3` bytes.
    pub fn row(&self, y: usize) -> &[u8] {
        &self.data[y * self.width * 3..(y + 1) * self.width * 3]
    }

    /// The part with its upper left corner at `(x, y)`; what lies outside repeats the edge.
    pub fn crop(&self, x: i64, y: i64, width: usize, height: usize) -> Frame {
        let mut data = Vec::with_capacity(width * height * 3);
        for row in 0..height as i64 {
            let source_y = (y + row).clamp(0, self.height as i64 - 1) as usize;
            for column in 0..width as i64 {
                let source_x = (x + column).clamp(0, self.width as i64 - 1) as usize;
                data.extend_from_slice(&self.pixel(source_x, source_y));
            }
        }
        Frame { width, height, data }
    }

    /// Another size: mean over the covered area when smaller, bilinear when larger, per axis.
    ///
    /// Made for thumbnails and contact sheets; models align their crops by their own transform.
    pub fn resized(&self, width: usize, height: usize) -> Frame {
        let columns = weights(self.width, width);
        let rows = weights(self.height, height);
        // Columns first, into floats, so that the second pass rounds once.
        let mut narrow = vec![0f32; self.height * width * 3];
        for y in 0..self.height {
            let row = self.row(y);
            for (x, (first, taps)) in columns.iter().enumerate() {
                for (tap, weight) in taps.iter().enumerate() {
                    for c in 0..3 {
                        narrow[(y * width + x) * 3 + c] += weight * f32::from(row[(first + tap) * 3 + c]);
                    }
                }
            }
        }
        let mut data = Vec::with_capacity(width * height * 3);
        let mut sum = vec![0f32; width * 3];
        for (first, taps) in &rows {
            sum.fill(0.0);
            for (tap, weight) in taps.iter().enumerate() {
                let row = &narrow[(first + tap) * width * 3..(first + tap + 1) * width * 3];
                for (to, from) in sum.iter_mut().zip(row) {
                    *to += weight * from;
                }
            }
            data.extend(sum.iter().map(|v| v.round().clamp(0.0, 255.0) as u8));
        }
        Frame { width, height, data }
    }

    /// Copies `other` into this picture with its upper left corner at `(x, y)`, cut at the edges.
    pub fn paste(&mut self, other: &Frame, x: usize, y: usize) {
        let columns = other.width.min(self.width.saturating_sub(x));
        let rows = other.height.min(self.height.saturating_sub(y));
        for row in 0..rows {
            let to = ((y + row) * self.width + x) * 3;
            self.data[to..to + columns * 3].copy_from_slice(&other.row(row)[..columns * 3]);
        }
    }
}

/// For each output position: the first source position and the weights of it and its followers.
fn weights(source: usize, target: usize) -> Vec<(usize, Vec<f32>)> {
    let scale = source as f64 / target as f64;
    (0..target)
        .map(|i| {
            if scale > 1.0 {
                let (start, end) = (i as f64 * scale, (i + 1) as f64 * scale);
                let first = (start.floor() as usize).min(source - 1);
                let last = (end.ceil() as usize).clamp(first + 1, source);
                let taps = (first..last)
                    .map(|s| {
                        let cover = end.min(s as f64 + 1.0) - start.max(s as f64);
                        (cover.max(0.0) / scale) as f32
                    })
                    .collect();
                (first, taps)
            } else {
                let centre = ((i as f64 + 0.5) * scale - 0.5).clamp(0.0, source as f64 - 1.0);
                let first = (centre.floor() as usize).min(source.saturating_sub(2));
                let part = (centre - first as f64) as f32;
                if source == 1 { (0, vec![1.0]) } else { (first, vec![1.0 - part, part]) }
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ramp(width: usize, height: usize) -> Frame {
        let mut frame = Frame::filled(width, height, [0; 3]);
        for y in 0..height {
            for x in 0..width {
                frame.set_pixel(x, y, [(x * 20) as u8, (y * 20) as u8, 7]);
            }
        }
        frame
    }

    #[test]
    fn resizing_keeps_flat_colour_and_the_identity() {
        let flat = Frame::filled(7, 5, [9, 99, 199]);
        assert_eq!(flat.resized(3, 11), Frame::filled(3, 11, [9, 99, 199]));
        let frame = ramp(8, 6);
        assert_eq!(frame.resized(8, 6), frame);
    }

    #[test]
    fn halving_is_the_mean_of_two_by_two() {
        let frame = ramp(4, 4);
        assert_eq!(frame.resized(2, 2).pixel(1, 0), [50, 10, 7]);
    }

    #[test]
    fn crop_repeats_the_edge_and_paste_puts_back() {
        let frame = ramp(5, 4);
        let crop = frame.crop(-1, 2, 3, 4);
        assert_eq!(crop.pixel(0, 0), frame.pixel(0, 2));
        assert_eq!(crop.pixel(2, 3), frame.pixel(1, 3));
        let mut copy = Frame::filled(5, 4, [0; 3]);
        copy.paste(&frame.crop(0, 0, 5, 4), 0, 0);
        assert_eq!(copy, frame);
        copy.paste(&frame, 3, 3);
        assert_eq!(copy.pixel(4, 3), frame.pixel(1, 0));
    }

    #[test]
    fn wrong_length_is_refused() {
        assert!(Frame::from_rgb(2, 2, vec![0; 11]).is_err());
        assert!(Frame::from_rgb(0, 2, vec![]).is_err());
    }
}
