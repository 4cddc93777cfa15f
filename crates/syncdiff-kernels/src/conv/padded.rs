//! The zero-bordered copy of one image.

use crate::simd;

/// Layout of the copy: `[channel][row][phase][col]`, phase = column parity when the stride is 2, so that every tap of
/// neighbouring output pixels is one contiguous load.
#[derive(Clone, Copy, Debug)]
pub(super) struct Padded {
    rows: usize,
    phases: usize,
    cols: usize,
}

impl Padded {
    /// Room for all taps of a `kernel` x `kernel` window at every output pixel.
    pub(super) fn new(out_height: usize, out_width: usize, stride: usize, kernel: usize) -> Self {
        Self {
            rows: stride * (out_height - 1) + kernel,
            phases: stride,
            cols: (stride * (out_width - 1) + kernel).div_ceil(stride),
        }
    }

    pub(super) fn row_stride(&self) -> usize {
        self.phases * self.cols
    }

    pub(super) fn plane(&self) -> usize {
        self.rows * self.row_stride()
    }

    /// Offset of tap (kh, kw) relative to an output pixel's own offset.
    pub(super) fn tap(&self, kh: usize, kw: usize) -> usize {
        kh * self.row_stride() + (kw % self.phases) * self.cols + kw / self.phases
    }

    /// Offsets of all taps of a `kernel` x `kernel` window, row by row.
    pub(super) fn taps(&self, kernel: usize) -> Vec<usize> {
        (0..kernel * kernel).map(|k| self.tap(k / kernel, k % kernel)).collect()
    }

    /// Fills `to` with `from` ([channels, height, width]); source pixel (y, x) lands at padded
    /// (begin + dilation * y, begin + dilation * x). Pixels that fall outside are dropped (they meet no tap). `to` must
    /// hold zeros, or what another image of this source has left there: only its pixels are written.
    pub(super) fn fill(&self, from: &[f32], to: &mut [f32], source: Source) {
        let Source { height, width, .. } = source;
        for (plane, padded) in from.chunks_exact(height * width).zip(to.chunks_exact_mut(self.plane())) {
            for (y, row) in plane.chunks_exact(width).enumerate() {
                self.lay(row, y, padded, source);
            }
        }
    }

    /// Lays row `y` of a source image into a plane whose border is there already.
    fn lay(&self, row: &[f32], y: usize, plane: &mut [f32], source: Source) {
        let Source { width, dilation, begin, .. } = source;
        assert!(self.phases == 1 || dilation == 1, "a strided kernel over a dilated source has no use");
        let at = begin + dilation * y;
        if at >= self.rows {
            return;
        }
        let out = &mut plane[at * self.row_stride()..(at + 1) * self.row_stride()];
        if self.phases == 1 && dilation == 1 {
            let n = width.min(self.cols - begin);
            simd::copy(&row[..n], &mut out[begin..begin + n]);
        } else if self.phases == 1 {
            for (to, &value) in out[begin..].iter_mut().step_by(dilation).zip(row) {
                *to = value;
            }
        } else {
            for (phase, out) in out.chunks_exact_mut(self.cols).enumerate() {
                // The first source column of this parity.
                let first = (phase + self.phases - begin % self.phases) % self.phases;
                let values = row.iter().skip(first).step_by(self.phases);
                for (to, &value) in out[(begin + first) / self.phases..].iter_mut().zip(values) {
                    *to = value;
                }
            }
        }
    }
}

/// A source image and how it is laid into the padded buffer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Source {
    pub(super) channels: usize,
    pub(super) height: usize,
    pub(super) width: usize,
    /// Distance of neighbouring source pixels in the buffer.
    pub(super) dilation: usize,
    /// Zeros before the first row and column.
    pub(super) begin: usize,
}

impl Source {
    pub(super) fn len(&self) -> usize {
        self.channels * self.height * self.width
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every tap of every output pixel must find the source value that the definition of a convolution names.
    #[test]
    fn taps_find_their_source_pixels() {
        for (kernel, stride, dilation, begin) in
            [(3, 1, 1, 1), (3, 1, 1, 2), (3, 2, 1, 1), (3, 2, 1, 0), (3, 1, 2, 1), (3, 1, 2, 2), (4, 2, 1, 1)]
        {
            let (height, width) = (6, 10);
            let spread = |size: usize| dilation * (size - 1) + 1;
            let out = |size: usize| (spread(size) + begin + 1 - kernel) / stride + 1;
            let layout = Padded::new(out(height), out(width), stride, kernel);
            let source = Source { channels: 2, height, width, dilation, begin };
            let from: Vec<f32> = (1..=source.len()).map(|v| v as f32).collect();
            let mut to = vec![0.0; 2 * layout.plane()];
            layout.fill(&vec![f32::NAN; source.len()], &mut to, source);
            layout.fill(&from, &mut to, source);
            for (c, r, col) in
                (0..2).flat_map(|c| (0..out(height)).flat_map(move |r| (0..out(width)).map(move |x| (c, r, x))))
            {
                for (kh, kw) in (0..kernel).flat_map(|kh| (0..kernel).map(move |kw| (kh, kw))) {
                    let at = |out: usize, tap: usize, size: usize| {
                        let place = (stride * out + tap).checked_sub(begin)?;
                        (place.is_multiple_of(dilation) && place / dilation < size).then_some(place / dilation)
                    };
                    let expected = at(r, kh, height).zip(at(col, kw, width));
                    let expected = expected.map_or(0.0, |(y, x)| from[(c * height + y) * width + x]);
                    let found = to[c * layout.plane() + stride * r * layout.row_stride() + col + layout.tap(kh, kw)];
                    assert_eq!(found, expected, "kernel {kernel} stride {stride} dilation {dilation} begin {begin}");
                }
            }
        }
    }
}
