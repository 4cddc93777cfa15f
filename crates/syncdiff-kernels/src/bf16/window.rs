//! Images as pairs, laid out for the windows of a 3x3 kernel.

use super::lines::Lines;
use super::pairs::{self, STRIP};
use super::product::Vector;
use rayon::prelude::*;

/// Side of the window.
const KERNEL: usize = 3;

/// Input and output of a layer, and how the pixels that a tap meets are laid. The pairs of a step lie side by side, so
/// that what one tile holds is one piece of memory.
///
/// Where the output's rows are whole tiles, each row of pixels is there three times, once for each column of the
/// window, shifted (and with stride 2 thinned out) so that the pixels that the column meets in a row of the output lie
/// behind each other: `[step][column of the window][padded row][pair of the step][output column]`. Else each tap has
/// its own copy, in strips of the output's pixels: `[step][tap][strip][pair of the step][pixel of the strip]`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Window {
    pub(super) channels: usize,
    /// Pairs of channels in a step.
    pub(super) pairs: usize,
    pub(super) height: usize,
    pub(super) width: usize,
    /// Zeros before the first row and column.
    pub(super) begin: usize,
    pub(super) stride: usize,
    pub(super) out_height: usize,
    pub(super) out_width: usize,
}

impl Window {
    fn in_rows(&self) -> bool {
        self.out_width.is_multiple_of(STRIP)
    }

    /// Of the padded image.
    fn rows(&self) -> usize {
        self.stride * (self.out_height - 1) + KERNEL
    }

    fn strips(&self) -> usize {
        (self.out_height * self.out_width).div_ceil(STRIP)
    }

    /// Between the pairs of a step.
    pub(super) fn pair_stride(&self) -> usize {
        if self.in_rows() { self.out_width } else { STRIP }
    }

    /// Values from one step's pairs to the next one's.
    pub(super) fn of_step(&self) -> usize {
        if self.in_rows() {
            KERNEL * self.rows() * self.pairs * self.out_width
        } else {
            KERNEL * KERNEL * self.strips() * self.pairs * STRIP
        }
    }

    /// Columns of a product, as vectors of a channel's pixels.
    pub(super) fn vectors(&self) -> Vec<Vector> {
        let pixels = self.out_height * self.out_width;
        let vector = |to: usize| {
            let (row, col) = (to / self.out_width, to % self.out_width);
            let in_row = self.stride * row * self.pairs * self.out_width + col;
            let from = if self.in_rows() { in_row } else { to * self.pairs };
            Vector { from, to, count: STRIP.min(pixels - to) }
        };
        (0..pixels).step_by(STRIP).map(vector).collect()
    }

    /// Place of a tap's pairs, before a vector's own.
    pub(super) fn tap(&self, kh: usize, kw: usize) -> usize {
        if self.in_rows() {
            (kw * self.rows() + kh) * self.pairs * self.out_width
        } else {
            (kh * KERNEL + kw) * self.strips() * self.pairs * STRIP
        }
    }

    /// All taps, row by row.
    pub(super) fn taps(&self) -> Vec<usize> {
        (0..KERNEL * KERNEL).map(|k| self.tap(k / KERNEL, k % KERNEL)).collect()
    }

    /// # Shapes
    /// x: [images, channels, height, width] -> [images, steps, ..]; pairs of channels that are not there are zero
    pub(super) fn fill(&self, x: &[f32]) -> Lines {
        let Self { channels, height, width, begin, stride, out_width, .. } = *self;
        let pixels = height * width;
        let (images, steps) = (x.len() / (channels * pixels), channels.div_ceil(2 * self.pairs));
        let mut filled = Lines::new::<u32>(images * steps * self.of_step());
        let reach = (begin + width).max(stride * (out_width - 1) + KERNEL);
        let by_step = filled.values_mut::<u32>().par_chunks_exact_mut(self.of_step()).enumerate();
        by_step.for_each_init(Vec::new, |padded, (index, to)| {
            let (image, step) = (index / steps, index % steps);
            padded.resize(self.rows() * reach, 0u32);
            for pair in 0..self.pairs {
                let channel = 2 * (step * self.pairs + pair);
                if channel >= channels {
                    break;
                }
                let (even, odd) = x[(image * channels + channel) * pixels..].split_at(pixels);
                for (y, row) in padded.chunks_exact_mut(reach).skip(begin).take(height).enumerate() {
                    let (row, even) = (&mut row[begin..begin + width], &even[y * width..][..width]);
                    if channel + 1 < channels {
                        pairs::join(even, &odd[y * width..][..width], row);
                    } else {
                        pairs::join_zero(even, row);
                    }
                }
                if self.in_rows() {
                    self.lay_rows(padded, reach, pair, to);
                } else {
                    self.lay_taps(padded, reach, pair, to);
                }
            }
        });
        filled
    }

    fn lay_rows(&self, padded: &[u32], reach: usize, pair: usize, to: &mut [u32]) {
        for (kw, (y, row)) in
            (0..KERNEL).flat_map(|kw| padded.chunks_exact(reach).enumerate().map(move |row| (kw, row)))
        {
            let to = &mut to[self.tap(y, kw) + pair * self.out_width..][..self.out_width];
            if self.stride == 1 {
                to.copy_from_slice(&row[kw..kw + self.out_width]);
            } else {
                for (to, &pair) in to.iter_mut().zip(row[kw..].iter().step_by(self.stride)) {
                    *to = pair;
                }
            }
        }
    }

    fn lay_taps(&self, padded: &[u32], reach: usize, pair: usize, to: &mut [u32]) {
        for (kh, kw) in (0..KERNEL * KERNEL).map(|k| (k / KERNEL, k % KERNEL)) {
            let tap = self.tap(kh, kw) + pair * STRIP;
            for row in 0..self.out_height {
                let mut from = &padded[(self.stride * row + kh) * reach + kw..];
                let (mut pixel, end) = (row * self.out_width, (row + 1) * self.out_width);
                // The parts of the row that lie in one strip each.
                while pixel < end {
                    let count = (STRIP - pixel % STRIP).min(end - pixel);
                    let to = &mut to[tap + pixel / STRIP * self.pairs * STRIP + pixel % STRIP..][..count];
                    if self.stride == 1 {
                        for (to, &value) in to.iter_mut().zip(from) {
                            *to = value;
                        }
                    } else {
                        for (to, &value) in to.iter_mut().zip(from.iter().step_by(self.stride)) {
                            *to = value;
                        }
                    }
                    pixel += count;
                    from = from.get(self.stride * count..).unwrap_or_default();
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bf16::pairs::round;

    /// Every tap of every output pixel must find the source pixel that the definition of a convolution names.
    #[test]
    fn taps_find_their_source_pixels() {
        for (stride, begin, width) in [(1, 1, 10), (2, 1, 10), (2, 0, 10), (1, 1, 16), (2, 1, 32), (2, 0, 32)] {
            let (channels, pairs, height) = (3, 2, 6);
            let out = |size: usize| (size + begin + 1 - KERNEL) / stride + 1;
            let (out_height, out_width) = (out(height), out(width));
            let window = Window { channels, pairs, height, width, begin, stride, out_height, out_width };
            let x: Vec<f32> = (1..=channels * height * width).map(|v| v as f32).collect();
            let filled = window.fill(&x);
            let pixel = |channel: usize, y: Option<usize>, x_at: Option<usize>| match (y, x_at) {
                (Some(y), Some(at)) if channel < channels && y < height && at < width => {
                    round(x[(channel * height + y) * width + at])
                }
                _ => 0,
            };
            let vectors = window.vectors();
            for (pair, vector, k) in
                (0..2).flat_map(|pair| vectors.iter().flat_map(move |vector| (0..9).map(move |k| (pair, vector, k))))
            {
                for column in 0..vector.count {
                    let (row, col) = ((vector.to + column) / out_width, (vector.to + column) % out_width);
                    let at = |out: usize, tap: usize| (stride * out + tap).checked_sub(begin);
                    let (y, x_at) = (at(row, k / 3), at(col, k % 3));
                    let expected = pixel(2 * pair, y, x_at) | pixel(2 * pair + 1, y, x_at) << 16;
                    let place = pair * window.pair_stride() + vector.from + column + window.tap(k / 3, k % 3);
                    assert_eq!(filled.values::<u32>()[place], expected, "{window:?}, tap {k}");
                }
            }
        }
    }
}
