//! The register tile of the direct convolution: `O` output channels x up to `V` vectors of neighbouring pixels.
//!
//! The hot loops have no closures: a closure does not take over the instruction set of the function around it, and what
//! the compiler then leaves as a call costs more than the arithmetic.

use super::padded::Padded;
use crate::simd::{Lanes, Level, Scalar4};
use std::ops::Range;

/// Most vectors of a register tile, at any level.
pub(super) const MAX_TILE: usize = 3;

/// Output channels and vectors of a full register tile. Accumulators, the vectors and one weight must leave a register
/// free, or one of them goes to memory and back for every tap: with AVX2 6 x 2 runs 1.7 times as fast as 4 x 3.
pub(crate) const SCALAR_TILE: (usize, usize) = (6, 2);
/// As [`SCALAR_TILE`].
#[cfg(target_arch = "x86_64")]
pub(crate) const AVX2_TILE: (usize, usize) = (6, 2);
/// As [`SCALAR_TILE`].
#[cfg(target_arch = "x86_64")]
pub(crate) const AVX512_TILE: (usize, usize) = (8, 3);
/// As [`SCALAR_TILE`].
#[cfg(target_arch = "aarch64")]
pub(crate) const NEON_TILE: (usize, usize) = (4, 3);

/// Output channels and vectors of a level's full register tile.
pub(crate) fn tile_size(level: Level) -> (usize, usize) {
    match level {
        Level::Scalar => SCALAR_TILE,
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => AVX2_TILE,
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 => AVX512_TILE,
        #[cfg(target_arch = "aarch64")]
        Level::Neon => NEON_TILE,
    }
}

/// One image's convolution with one set of weights.
#[derive(Clone, Copy)]
pub(super) struct Image<'a> {
    pub(super) level: Level,
    pub(super) padded: &'a [f32],
    pub(super) layout: Padded,
    pub(super) stride: usize,
    pub(super) out_height: usize,
    pub(super) out_width: usize,
    pub(super) in_channels: usize,
    pub(super) out_channels: usize,
    /// [out channels, in channels, taps]
    pub(super) weights: &'a [f32],
    /// Offsets in the padded image.
    pub(super) taps: &'a [usize],
    pub(super) bias: Option<&'a [f32]>,
}

/// A pointer to output, shared between tasks that write disjoint parts of it.
#[derive(Clone, Copy)]
pub(crate) struct OutPtr(pub(crate) *mut f32);

impl OutPtr {
    /// # Safety
    /// As `<*mut f32>::add`.
    pub(crate) unsafe fn add(self, count: usize) -> Self {
        // SAFETY: forwarded.
        Self(unsafe { self.0.add(count) })
    }
}

// SAFETY: every task writes values of its own of the buffer behind the pointer, as all uses say.
unsafe impl Send for OutPtr {}
// SAFETY: as above.
unsafe impl Sync for OutPtr {}

/// `V` vectors x `O` output channels from the channel `first` on, before `end`. Under `TWO` a vector holds two runs of
/// pixels, each with an offset of its own; else the second offset has no meaning.
///
/// # Safety
/// `image` is checked, `offsets` are valid for its layout, `out + o * pixels + out_offsets[v]` is writable for every
/// output channel of the block, and the instruction set of `L` is available.
#[inline(always)]
unsafe fn tile<L: Lanes, const O: usize, const V: usize, const T: usize, const TWO: bool>(
    image: &Image<'_>,
    taps: &[usize; T],
    first: usize,
    end: usize,
    offsets: &[[usize; 2]; MAX_TILE],
    out: *mut f32,
    out_offsets: &[[usize; 2]; MAX_TILE],
) {
    let pixels = image.out_height * image.out_width;
    let row = image.in_channels * T;
    let mut acc = [[L::splat(0.0); V]; O];
    let mut weights = [image.weights.as_ptr(); O];
    for o in 0..O {
        // A block that reaches beyond the last of these channels computes that one several times and stores it once.
        let channel = (first + o).min(end - 1);
        if let Some(bias) = image.bias {
            acc[o] = [L::splat(bias[channel]); V];
        }
        // SAFETY: the weights hold `row` values for each output channel.
        weights[o] = unsafe { weights[o].add(channel * row) };
    }
    let mut plane = image.padded.as_ptr();
    for _ in 0..image.in_channels {
        for k in 0..T {
            let mut x = [L::splat(0.0); V];
            for v in 0..V {
                // SAFETY: the padded buffer holds a plane for each input channel; offsets and taps stay inside one
                // plane.
                x[v] = unsafe {
                    let from = plane.add(taps[k]);
                    if TWO {
                        L::load_two([from.add(offsets[v][0]), from.add(offsets[v][1])])
                    } else {
                        L::load(from.add(offsets[v][0]))
                    }
                };
            }
            for o in 0..O {
                // SAFETY: `T` values for each input channel, see above.
                let c = L::splat(unsafe { *weights[o].add(k) });
                for v in 0..V {
                    acc[o][v] = c.mul_add(x[v], acc[o][v]);
                }
            }
        }
        for o in 0..O {
            // SAFETY: at most one past the end of the channel's row of weights.
            weights[o] = unsafe { weights[o].add(T) };
        }
        // SAFETY: at most one past the end of the buffer.
        plane = unsafe { plane.add(image.layout.plane()) };
    }
    for o in 0..O {
        if first + o < end {
            for v in 0..V {
                // SAFETY: promised by the caller.
                unsafe {
                    let to = out.add((first + o) * pixels);
                    if TWO {
                        acc[o][v].store_two([to.add(out_offsets[v][0]), to.add(out_offsets[v][1])]);
                    } else {
                        acc[o][v].store(to.add(out_offsets[v][0]));
                    }
                }
            }
        }
    }
}

/// Some output channels of the pixel vectors `vectors`, in tiles of `O` x `V`.
///
/// # Safety
/// As [`tile`]; no other thread writes these pixels of these channels.
#[inline(always)]
unsafe fn span<L: Lanes, const O: usize, const V: usize, const T: usize, const TWO: bool>(
    image: &Image<'_>,
    vectors: Range<usize>,
    channels: Range<usize>,
    out: *mut f32,
) {
    let taps: &[usize; T] = image.taps.try_into().expect("chosen by the number of taps");
    let run = if TWO { L::N / 2 } else { L::N };
    let per_row = image.out_width / run;
    let runs = per_row * image.out_height;
    let place = |index: usize| {
        let (row, col) = (index / per_row, index % per_row * run);
        // With stride 2 the parity split makes column c of the output column c of its phase.
        (image.stride * row * image.layout.row_stride() + col, row * image.out_width + col)
    };
    let mut first = channels.start;
    while first < channels.end {
        let left = channels.end - first;
        let mut vector = vectors.start;
        while vector < vectors.end {
            // Four vectors are better cut in halves.
            let n = if vectors.end - vector == 4 { 2 } else { V.min(vectors.end - vector) };
            let (mut offsets, mut out_offsets) = ([[0usize; 2]; MAX_TILE], [[0usize; 2]; MAX_TILE]);
            for v in 0..n {
                for half in 0..if TWO { 2 } else { 1 } {
                    // The last vector may lack its second run, and then has the first one twice.
                    let index = if TWO { (2 * (vector + v) + half).min(runs - 1) } else { vector + v };
                    (offsets[v][half], out_offsets[v][half]) = place(index);
                }
            }
            // SAFETY: runs of the image's rows address pixels inside the image; forwarded from the caller.
            unsafe {
                match n {
                    3 => tiles::<L, O, 3, T, TWO>(image, taps, first, channels.end, &offsets, out, &out_offsets),
                    2 => tiles::<L, O, 2, T, TWO>(image, taps, first, channels.end, &offsets, out, &out_offsets),
                    _ => tiles::<L, O, 1, T, TWO>(image, taps, first, channels.end, &offsets, out, &out_offsets),
                }
            }
            vector += n;
        }
        first += if left > 4 { O } else { 4 };
    }
}

/// A tile of the block that begins at the channel `first`: of fewer channels than `O` where only those are left.
///
/// # Safety
/// As [`tile`].
#[inline(always)]
unsafe fn tiles<L: Lanes, const O: usize, const V: usize, const T: usize, const TWO: bool>(
    image: &Image<'_>,
    taps: &[usize; T],
    first: usize,
    end: usize,
    offsets: &[[usize; 2]; MAX_TILE],
    out: *mut f32,
    out_offsets: &[[usize; 2]; MAX_TILE],
) {
    // SAFETY: forwarded.
    unsafe {
        match end - first {
            1 | 2 => tile::<L, 2, V, T, TWO>(image, taps, first, end, offsets, out, out_offsets),
            3 | 4 => tile::<L, 4, V, T, TWO>(image, taps, first, end, offsets, out, out_offsets),
            _ => tile::<L, O, V, T, TWO>(image, taps, first, end, offsets, out, out_offsets),
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{AVX2_TILE, AVX512_TILE, Image, Range, span};
    use crate::simd::x86::{F32x8, F32x16};

    macro_rules! instance {
        ($name:ident, $features:literal, $lanes:ty, $tile:ident, $two:literal) => {
            #[target_feature(enable = $features)]
            pub(super) unsafe fn $name<const T: usize>(
                image: &Image<'_>,
                vectors: Range<usize>,
                channels: Range<usize>,
                out: *mut f32,
            ) {
                // SAFETY: forwarded; the instruction set is enabled here.
                unsafe { span::<$lanes, { $tile.0 }, { $tile.1 }, T, $two>(image, vectors, channels, out) }
            }
        };
    }
    instance!(avx2, "avx2,fma", F32x8, AVX2_TILE, false);
    instance!(avx512, "avx512f", F32x16, AVX512_TILE, false);
    instance!(avx512_two, "avx512f", F32x16, AVX512_TILE, true);
}

impl Image<'_> {
    /// Neighbouring pixels of a vector.
    fn run_length(&self) -> usize {
        self.level.run_of(self.out_width)
    }

    /// Pixel vectors of the output.
    pub(super) fn vectors(&self) -> usize {
        (self.out_height * self.out_width).div_ceil(self.level.lanes())
    }

    /// Panics where the kernel would leave its buffers.
    fn check(&self) {
        let rows = self.out_width.is_multiple_of(self.run_length());
        assert!(rows && self.out_channels > 0, "a kernel for whole vectors, not for a width of {}", self.out_width);
        assert_eq!(self.weights.len(), self.out_channels * self.in_channels * self.taps.len(), "weights");
        assert!(self.padded.len() >= self.in_channels * self.layout.plane(), "the padded image");
        assert!(self.bias.is_none_or(|bias| bias.len() == self.out_channels), "bias");
        let last_tap = self.taps.iter().max().expect("a kernel has taps");
        let last = self.stride * (self.out_height - 1) * self.layout.row_stride() + self.out_width - 1;
        assert!(last + last_tap < self.layout.plane(), "taps");
    }

    /// Convolves some pixel vectors into some channels of `out`, [out channels, out height, out width].
    ///
    /// # Safety
    /// All of `out` is writable, and no other thread writes these pixels of these channels.
    pub(super) unsafe fn run(&self, vectors: Range<usize>, channels: Range<usize>, out: OutPtr) {
        self.check();
        assert!(vectors.end <= self.vectors(), "pixel vectors {vectors:?} of {}", self.vectors());
        assert!(channels.end <= self.out_channels, "channels {channels:?} of {}", self.out_channels);
        // SAFETY: forwarded; the image is checked.
        unsafe {
            match self.taps.len() {
                4 => self.run_taps::<4>(vectors, channels, out.0),
                9 => self.run_taps::<9>(vectors, channels, out.0),
                16 => self.run_taps::<16>(vectors, channels, out.0),
                other => panic!("no kernel of {other} taps"),
            }
        }
    }

    /// # Safety
    /// As [`Image::run`], for a checked image.
    unsafe fn run_taps<const T: usize>(&self, vectors: Range<usize>, channels: Range<usize>, out: *mut f32) {
        // SAFETY: forwarded; a level is only chosen where its instruction set was detected.
        unsafe {
            match self.level {
                Level::Scalar => {
                    span::<Scalar4, { SCALAR_TILE.0 }, { SCALAR_TILE.1 }, T, false>(self, vectors, channels, out)
                }
                #[cfg(target_arch = "x86_64")]
                Level::Avx2 => x86::avx2::<T>(self, vectors, channels, out),
                #[cfg(target_arch = "x86_64")]
                Level::Avx512 if self.run_length() == 16 => x86::avx512::<T>(self, vectors, channels, out),
                #[cfg(target_arch = "x86_64")]
                Level::Avx512 => x86::avx512_two::<T>(self, vectors, channels, out),
                #[cfg(target_arch = "aarch64")]
                Level::Neon => {
                    use crate::simd::neon::F32x4;
                    span::<F32x4, { NEON_TILE.0 }, { NEON_TILE.1 }, T, false>(self, vectors, channels, out)
                }
            }
        }
    }
}
