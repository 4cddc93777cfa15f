//! The register tile of the direct convolution: `O` output channels x up to `V` vectors of neighbouring pixels.
//!
//! The hot loops have no closures: a closure does not take over the instruction set of the function around it, and what
//! the compiler then leaves as a call costs more than the arithmetic.

use super::padded::Padded;
use crate::simd::{Lanes, Level, Scalar4};

/// Most vectors of a register tile, at any level.
const MAX_TILE: usize = 3;

/// Output channels and vectors of a full register tile. Accumulators, the vectors and one weight must leave a register
/// free, or one of them goes to memory and back for every tap: with AVX2 6 x 2 runs 1.7 times as fast as 4 x 3.
pub(crate) const SCALAR_TILE: (usize, usize) = (6, 2);
/// As [`SCALAR_TILE`].
#[cfg(target_arch = "x86_64")]
pub(crate) const AVX2_TILE: (usize, usize) = (6, 2);
/// As [`SCALAR_TILE`], with vectors of 16 and of 8 lanes.
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

/// `V` vectors x `O` output channels from the channel `first` on.
///
/// # Safety
/// `image` is checked, `offsets` are valid for its layout, `out + o * pixels + out_offsets[v]` is writable for every
/// output channel of the block, and the instruction set of `L` is available.
#[inline(always)]
unsafe fn tile<L: Lanes, const O: usize, const V: usize, const T: usize>(
    image: &Image<'_>,
    taps: &[usize; T],
    first: usize,
    offsets: &[usize; MAX_TILE],
    out: *mut f32,
    out_offsets: &[usize; MAX_TILE],
) {
    let pixels = image.out_height * image.out_width;
    let row = image.in_channels * T;
    let mut acc = [[L::splat(0.0); V]; O];
    let mut weights = [image.weights.as_ptr(); O];
    for o in 0..O {
        // A block that reaches beyond the last channel computes that one several times and stores it once.
        let channel = (first + o).min(image.out_channels - 1);
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
                // SAFETY: the padded buffer holds a plane for each input channel; offsets and taps stay inside one plane.
                x[v] = unsafe { L::load(plane.add(taps[k] + offsets[v])) };
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
        if first + o < image.out_channels {
            for v in 0..V {
                // SAFETY: promised by the caller.
                unsafe { acc[o][v].store(out.add((first + o) * pixels + out_offsets[v])) };
            }
        }
    }
}

/// All output channels of the pixel vectors `from..to`, in tiles of `O` x `V`.
///
/// # Safety
/// As [`tile`]; no other thread writes these pixels.
#[inline(always)]
unsafe fn span<L: Lanes, const O: usize, const V: usize, const T: usize>(
    image: &Image<'_>,
    from: usize,
    to: usize,
    out: *mut f32,
) {
    let taps: &[usize; T] = image.taps.try_into().expect("chosen by the number of taps");
    let per_row = image.out_width / L::N;
    let mut first = 0;
    while first < image.out_channels {
        let left = image.out_channels - first;
        let mut vector = from;
        while vector < to {
            let n = V.min(to - vector);
            let (mut offsets, mut out_offsets) = ([0usize; MAX_TILE], [0usize; MAX_TILE]);
            for v in 0..n {
                let (row, col) = ((vector + v) / per_row, (vector + v) % per_row * L::N);
                // With stride 2 the parity split makes column c of the output column c of its phase.
                offsets[v] = image.stride * row * image.layout.row_stride() + col;
                out_offsets[v] = row * image.out_width + col;
            }
            // SAFETY: vectors below `out_height * per_row` address pixels inside the image; forwarded from the caller.
            unsafe {
                match n {
                    3 => tiles::<L, O, 3, T>(image, taps, first, &offsets, out, &out_offsets),
                    2 => tiles::<L, O, 2, T>(image, taps, first, &offsets, out, &out_offsets),
                    _ => tiles::<L, O, 1, T>(image, taps, first, &offsets, out, &out_offsets),
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
unsafe fn tiles<L: Lanes, const O: usize, const V: usize, const T: usize>(
    image: &Image<'_>,
    taps: &[usize; T],
    first: usize,
    offsets: &[usize; MAX_TILE],
    out: *mut f32,
    out_offsets: &[usize; MAX_TILE],
) {
    // SAFETY: forwarded.
    unsafe {
        match image.out_channels - first {
            1 | 2 => tile::<L, 2, V, T>(image, taps, first, offsets, out, out_offsets),
            3 | 4 => tile::<L, 4, V, T>(image, taps, first, offsets, out, out_offsets),
            _ => tile::<L, O, V, T>(image, taps, first, offsets, out, out_offsets),
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{AVX2_TILE, AVX512_TILE, Image, span};
    use crate::simd::x86::{F32x8, F32x16};

    #[target_feature(enable = "avx2,fma")]
    pub(super) unsafe fn avx2<const T: usize>(image: &Image<'_>, from: usize, to: usize, out: *mut f32) {
        // SAFETY: forwarded; the instruction set is enabled here.
        unsafe { span::<F32x8, { AVX2_TILE.0 }, { AVX2_TILE.1 }, T>(image, from, to, out) }
    }

    #[target_feature(enable = "avx512f")]
    pub(super) unsafe fn avx512<const T: usize>(image: &Image<'_>, from: usize, to: usize, out: *mut f32) {
        // SAFETY: forwarded; the instruction set is enabled here.
        unsafe { span::<F32x16, { AVX512_TILE.0 }, { AVX512_TILE.1 }, T>(image, from, to, out) }
    }

    #[target_feature(enable = "avx512f,avx2,fma")]
    pub(super) unsafe fn avx512_narrow<const T: usize>(image: &Image<'_>, from: usize, to: usize, out: *mut f32) {
        // SAFETY: forwarded; the instruction set is enabled here.
        unsafe { span::<F32x8, { AVX512_TILE.0 }, { AVX512_TILE.1 }, T>(image, from, to, out) }
    }
}

impl Image<'_> {
    fn lanes(&self) -> usize {
        self.level.lanes_for(self.out_width)
    }

    /// Pixel vectors of the output.
    pub(super) fn vectors(&self) -> usize {
        self.out_height * self.out_width / self.lanes()
    }

    /// Panics where the kernel would leave its buffers.
    fn check(&self) {
        let rows = self.out_width.is_multiple_of(self.lanes());
        assert!(rows && self.out_channels > 0, "a kernel for whole vectors, not for a width of {}", self.out_width);
        assert_eq!(self.weights.len(), self.out_channels * self.in_channels * self.taps.len(), "weights");
        assert!(self.padded.len() >= self.in_channels * self.layout.plane(), "the padded image");
        assert!(self.bias.is_none_or(|bias| bias.len() == self.out_channels), "bias");
        let last_tap = self.taps.iter().max().expect("a kernel has taps");
        let last = self.stride * (self.out_height - 1) * self.layout.row_stride() + self.out_width - 1;
        assert!(last + last_tap < self.layout.plane(), "taps");
    }

    /// Convolves the pixel vectors `from..to` into `out`, [out channels, out height, out width].
    ///
    /// # Safety
    /// All of `out` is writable, and no other thread writes these pixels.
    pub(super) unsafe fn run(&self, from: usize, to: usize, out: OutPtr) {
        self.check();
        assert!(to <= self.vectors(), "pixel vectors {from}..{to} of {}", self.vectors());
        // SAFETY: forwarded; the image is checked.
        unsafe {
            match self.taps.len() {
                4 => self.run_taps::<4>(from, to, out.0),
                9 => self.run_taps::<9>(from, to, out.0),
                16 => self.run_taps::<16>(from, to, out.0),
                other => panic!("no kernel of {other} taps"),
            }
        }
    }

    /// # Safety
    /// As [`Image::run`], for a checked image.
    unsafe fn run_taps<const T: usize>(&self, from: usize, to: usize, out: *mut f32) {
        // SAFETY: forwarded; a level is only chosen where its instruction set was detected.
        unsafe {
            match self.level {
                Level::Scalar => span::<Scalar4, { SCALAR_TILE.0 }, { SCALAR_TILE.1 }, T>(self, from, to, out),
                #[cfg(target_arch = "x86_64")]
                Level::Avx2 => x86::avx2::<T>(self, from, to, out),
                #[cfg(target_arch = "x86_64")]
                Level::Avx512 if self.lanes() == 16 => x86::avx512::<T>(self, from, to, out),
                #[cfg(target_arch = "x86_64")]
                Level::Avx512 => x86::avx512_narrow::<T>(self, from, to, out),
                #[cfg(target_arch = "aarch64")]
                Level::Neon => {
                    span::<crate::simd::neon::F32x4, { NEON_TILE.0 }, { NEON_TILE.1 }, T>(self, from, to, out)
                }
            }
        }
    }
}
