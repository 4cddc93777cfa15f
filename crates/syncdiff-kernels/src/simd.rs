//! Vector types of fixed width behind one trait, so that a kernel is written once and instantiated per instruction set.
//!
//! A kernel is an `#[inline(always)]` generic function over [`Lanes`]; it is called from a function carrying
//! `#[target_feature]`, chosen at run time by [`level`]. A kernel asks for the level once and hands it down, so that a
//! change of the choice in the middle of a call cannot mix two layouts.

use crate::forcing::Forcing;

pub use crate::forcing::Forced;

/// The instruction sets that have a kernel instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Level {
    /// Plain Rust, vectorised by the compiler for the build's base target.
    Scalar,
    /// AVX2 with FMA: 8 lanes.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// AVX-512F: 16 lanes, of two rows where one is no multiple of 16.
    #[cfg(target_arch = "x86_64")]
    Avx512,
    /// NEON: 4 lanes; every 64-bit ARM processor has it.
    #[cfg(target_arch = "aarch64")]
    Neon,
}

impl Level {
    /// From the slowest to the fastest.
    const ALL: &[Self] = &[
        Self::Scalar,
        #[cfg(target_arch = "x86_64")]
        Self::Avx2,
        #[cfg(target_arch = "x86_64")]
        Self::Avx512,
        #[cfg(target_arch = "aarch64")]
        Self::Neon,
    ];

    fn is_available(self) -> bool {
        match self {
            Self::Scalar => true,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma"),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => Self::Avx2.is_available() && is_x86_feature_detected!("avx512f"),
            #[cfg(target_arch = "aarch64")]
            Self::Neon => true,
        }
    }

    /// Lanes of its widest vector.
    pub(crate) fn lanes(self) -> usize {
        match self {
            Self::Scalar => Scalar4::N,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => x86::F32x8::N,
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => x86::F32x16::N,
            #[cfg(target_arch = "aarch64")]
            Self::Neon => neon::F32x4::N,
        }
    }

    /// Neighbouring values of a row that a vector takes at once: all its lanes, or half of 16, the other half being
    /// those that come next, perhaps of the next row ([`Lanes::load_two`]). Whether a row is whole runs is for the
    /// caller to ask. 16 lanes alone would exclude rows of 8, where the lowest level of a U-Net works.
    pub(crate) fn run_of(self, row: usize) -> usize {
        let widest = self.lanes();
        if widest > 8 && !row.is_multiple_of(widest) { widest / 2 } else { widest }
    }
}

static FORCING: Forcing = Forcing::new();

/// The instruction set that kernels use: the best of this processor, unless [`force`] chose another.
pub fn level() -> Level {
    let mut levels = Level::ALL.iter().copied();
    let found = match FORCING.get() {
        None => levels.rfind(|level| level.is_available()),
        Some(forced) => levels.find(|&level| level as u8 == forced),
    };
    found.unwrap_or(Level::Scalar)
}

/// The instruction sets of this processor that have a kernel instance, scalar first.
pub fn available() -> Vec<Level> {
    Level::ALL.iter().copied().filter(|level| level.is_available()).collect()
}

/// Makes every kernel of this process use `level` until the guard is dropped; a second caller waits for that.
///
/// # Panics
/// If this processor lacks the instruction set.
pub fn force(level: Level) -> Forced {
    assert!(level.is_available(), "this processor has no {level:?}: choose one of {:?}", available());
    FORCING.force(level as u8)
}

/// A vector of `N` f32 lanes.
pub(crate) trait Lanes: Copy {
    const N: usize;
    fn splat(value: f32) -> Self;
    /// Loads `N` values starting at `from[0]`.
    ///
    /// # Safety
    /// `from` must be valid for reading `N` values, and the instruction set must be available.
    unsafe fn load(from: *const f32) -> Self;
    /// Stores `N` values starting at `to[0]`.
    ///
    /// # Safety
    /// `to` must be valid for writing `N` values, and the instruction set must be available.
    unsafe fn store(self, to: *mut f32);
    /// `self * a + b` in one rounding where the hardware has it.
    fn mul_add(self, a: Self, b: Self) -> Self;
    fn add(self, other: Self) -> Self;
    fn sub(self, other: Self) -> Self;
    /// Loads `N / 2` values from each of two places.
    ///
    /// # Safety
    /// Both must be valid for reading so many values, and the instruction set must be available.
    unsafe fn load_two(from: [*const f32; 2]) -> Self;
    /// The inverse of [`Lanes::load_two`].
    ///
    /// # Safety
    /// Both must be valid for writing `N / 2` values, and the instruction set must be available.
    unsafe fn store_two(self, to: [*mut f32; 2]);
    /// Of `N` values from each of two places, those at even places and those at odd ones.
    ///
    /// # Safety
    /// Both must be valid for reading `N` values, and the instruction set must be available.
    unsafe fn load_pairs(from: [*const f32; 2]) -> (Self, Self);
    /// The inverse of [`Lanes::load_pairs`].
    ///
    /// # Safety
    /// Both must be valid for writing `N` values, and the instruction set must be available.
    unsafe fn store_pairs(even: Self, odd: Self, to: [*mut f32; 2]);
}

/// Four lanes of plain Rust.
#[derive(Clone, Copy)]
pub(crate) struct Scalar4([f32; 4]);

impl Lanes for Scalar4 {
    const N: usize = 4;
    #[inline(always)]
    fn splat(value: f32) -> Self {
        Self([value; 4])
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the caller promises four readable values.
        Self(unsafe { from.cast::<[f32; 4]>().read_unaligned() })
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: the caller promises four writable values.
        unsafe { to.cast::<[f32; 4]>().write_unaligned(self.0) }
    }
    #[inline(always)]
    fn mul_add(self, a: Self, b: Self) -> Self {
        Self(std::array::from_fn(|i| self.0[i] * a.0[i] + b.0[i]))
    }
    #[inline(always)]
    fn add(self, other: Self) -> Self {
        Self(std::array::from_fn(|i| self.0[i] + other.0[i]))
    }
    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        Self(std::array::from_fn(|i| self.0[i] - other.0[i]))
    }
    #[inline(always)]
    unsafe fn load_two(from: [*const f32; 2]) -> Self {
        // SAFETY: the caller promises two readable values at each place.
        let [[a, b], [c, d]] = from.map(|from| unsafe { from.cast::<[f32; 2]>().read_unaligned() });
        Self([a, b, c, d])
    }
    #[inline(always)]
    unsafe fn store_two(self, to: [*mut f32; 2]) {
        let [a, b, c, d] = self.0;
        // SAFETY: the caller promises two writable values at each place.
        unsafe {
            to[0].cast::<[f32; 2]>().write_unaligned([a, b]);
            to[1].cast::<[f32; 2]>().write_unaligned([c, d]);
        }
    }
    #[inline(always)]
    unsafe fn load_pairs(from: [*const f32; 2]) -> (Self, Self) {
        // SAFETY: the caller promises four readable values at each place.
        let [[a, b], [c, d]] = from.map(|from| unsafe { from.cast::<[[f32; 2]; 2]>().read_unaligned() });
        let pairs = [a, b, c, d];
        (Self(pairs.map(|[even, _]| even)), Self(pairs.map(|[_, odd]| odd)))
    }
    #[inline(always)]
    unsafe fn store_pairs(even: Self, odd: Self, to: [*mut f32; 2]) {
        let pair = |i: usize| [even.0[i], odd.0[i]];
        // SAFETY: the caller promises four writable values at each place.
        unsafe {
            to[0].cast::<[[f32; 2]; 2]>().write_unaligned([pair(0), pair(1)]);
            to[1].cast::<[[f32; 2]; 2]>().write_unaligned([pair(2), pair(3)]);
        }
    }
}

#[cfg(target_arch = "x86_64")]
pub(crate) mod x86 {
    use super::Lanes;
    use std::arch::x86_64::*;

    #[derive(Clone, Copy)]
    pub(crate) struct F32x8(__m256);

    impl Lanes for F32x8 {
        const N: usize = 8;
        #[inline(always)]
        fn splat(value: f32) -> Self {
            // SAFETY: only instantiated inside functions that carry target_feature "avx2,fma".
            Self(unsafe { _mm256_set1_ps(value) })
        }
        #[inline(always)]
        unsafe fn load(from: *const f32) -> Self {
            // SAFETY: the caller promises eight readable values; the load is unaligned.
            Self(unsafe { _mm256_loadu_ps(from) })
        }
        #[inline(always)]
        unsafe fn store(self, to: *mut f32) {
            // SAFETY: the caller promises eight writable values; the store is unaligned.
            unsafe { _mm256_storeu_ps(to, self.0) }
        }
        #[inline(always)]
        fn mul_add(self, a: Self, b: Self) -> Self {
            // SAFETY: only instantiated inside functions that carry target_feature "avx2,fma".
            Self(unsafe { _mm256_fmadd_ps(self.0, a.0, b.0) })
        }
        #[inline(always)]
        fn add(self, other: Self) -> Self {
            // SAFETY: only instantiated inside functions that carry target_feature "avx2,fma".
            Self(unsafe { _mm256_add_ps(self.0, other.0) })
        }
        #[inline(always)]
        fn sub(self, other: Self) -> Self {
            // SAFETY: only instantiated inside functions that carry target_feature "avx2,fma".
            Self(unsafe { _mm256_sub_ps(self.0, other.0) })
        }
        #[inline(always)]
        unsafe fn load_two(from: [*const f32; 2]) -> Self {
            // SAFETY: the caller promises four readable values at each place and the instruction set.
            Self(unsafe { _mm256_loadu2_m128(from[1], from[0]) })
        }
        #[inline(always)]
        unsafe fn store_two(self, to: [*mut f32; 2]) {
            // SAFETY: the caller promises four writable values at each place and the instruction set.
            unsafe { _mm256_storeu2_m128(to[1], to[0], self.0) }
        }
        #[inline(always)]
        unsafe fn load_pairs(from: [*const f32; 2]) -> (Self, Self) {
            // SAFETY: the caller promises eight readable values at each place and the instruction set.
            unsafe {
                let [a, b] = [_mm256_loadu_ps(from[0]), _mm256_loadu_ps(from[1])];
                // Within each half: two values of `a`, two of `b`; then the pairs are put in order.
                let in_order =
                    |mixed: __m256| _mm256_castpd_ps(_mm256_permute4x64_pd::<0b11_01_10_00>(_mm256_castps_pd(mixed)));
                let even = in_order(_mm256_shuffle_ps::<0b10_00_10_00>(a, b));
                (Self(even), Self(in_order(_mm256_shuffle_ps::<0b11_01_11_01>(a, b))))
            }
        }
        #[inline(always)]
        unsafe fn store_pairs(even: Self, odd: Self, to: [*mut f32; 2]) {
            // SAFETY: the caller promises eight writable values at each place and the instruction set.
            unsafe {
                let (low, high) = (_mm256_unpacklo_ps(even.0, odd.0), _mm256_unpackhi_ps(even.0, odd.0));
                _mm256_storeu_ps(to[0], _mm256_permute2f128_ps::<0x20>(low, high));
                _mm256_storeu_ps(to[1], _mm256_permute2f128_ps::<0x31>(low, high));
            }
        }
    }

    #[derive(Clone, Copy)]
    pub(crate) struct F32x16(__m512);

    impl Lanes for F32x16 {
        const N: usize = 16;
        #[inline(always)]
        fn splat(value: f32) -> Self {
            // SAFETY: only instantiated inside functions that carry target_feature "avx512f".
            Self(unsafe { _mm512_set1_ps(value) })
        }
        #[inline(always)]
        unsafe fn load(from: *const f32) -> Self {
            // SAFETY: the caller promises sixteen readable values; the load is unaligned.
            Self(unsafe { _mm512_loadu_ps(from) })
        }
        #[inline(always)]
        unsafe fn store(self, to: *mut f32) {
            // SAFETY: the caller promises sixteen writable values; the store is unaligned.
            unsafe { _mm512_storeu_ps(to, self.0) }
        }
        #[inline(always)]
        fn mul_add(self, a: Self, b: Self) -> Self {
            // SAFETY: only instantiated inside functions that carry target_feature "avx512f".
            Self(unsafe { _mm512_fmadd_ps(self.0, a.0, b.0) })
        }
        #[inline(always)]
        fn add(self, other: Self) -> Self {
            // SAFETY: only instantiated inside functions that carry target_feature "avx512f".
            Self(unsafe { _mm512_add_ps(self.0, other.0) })
        }
        #[inline(always)]
        fn sub(self, other: Self) -> Self {
            // SAFETY: only instantiated inside functions that carry target_feature "avx512f".
            Self(unsafe { _mm512_sub_ps(self.0, other.0) })
        }
        #[inline(always)]
        unsafe fn load_two(from: [*const f32; 2]) -> Self {
            // SAFETY: the caller promises eight readable values at each place and the instruction set.
            unsafe {
                let [low, high] = [_mm256_loadu_pd(from[0].cast()), _mm256_loadu_pd(from[1].cast())];
                Self(_mm512_castpd_ps(_mm512_insertf64x4::<1>(_mm512_castpd256_pd512(low), high)))
            }
        }
        #[inline(always)]
        unsafe fn store_two(self, to: [*mut f32; 2]) {
            // SAFETY: the caller promises eight writable values at each place and the instruction set.
            unsafe {
                let both = _mm512_castps_pd(self.0);
                _mm256_storeu_pd(to[0].cast(), _mm512_castpd512_pd256(both));
                _mm256_storeu_pd(to[1].cast(), _mm512_extractf64x4_pd::<1>(both));
            }
        }
        #[inline(always)]
        unsafe fn load_pairs(from: [*const f32; 2]) -> (Self, Self) {
            // SAFETY: the caller promises sixteen readable values at each place and the instruction set.
            unsafe {
                let [a, b] = [_mm512_loadu_ps(from[0]), _mm512_loadu_ps(from[1])];
                let even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
                let odd = _mm512_setr_epi32(1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31);
                (Self(_mm512_permutex2var_ps(a, even, b)), Self(_mm512_permutex2var_ps(a, odd, b)))
            }
        }
        #[inline(always)]
        unsafe fn store_pairs(even: Self, odd: Self, to: [*mut f32; 2]) {
            // SAFETY: the caller promises sixteen writable values at each place and the instruction set.
            unsafe {
                let low = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
                let high = _mm512_setr_epi32(8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
                _mm512_storeu_ps(to[0], _mm512_permutex2var_ps(even.0, low, odd.0));
                _mm512_storeu_ps(to[1], _mm512_permutex2var_ps(even.0, high, odd.0));
            }
        }
    }
}

#[cfg(target_arch = "aarch64")]
pub(crate) mod neon {
    use super::Lanes;
    use std::arch::aarch64::*;

    #[derive(Clone, Copy)]
    pub(crate) struct F32x4(float32x4_t);

    impl Lanes for F32x4 {
        const N: usize = 4;
        #[inline(always)]
        fn splat(value: f32) -> Self {
            // SAFETY: NEON is part of the base of 64-bit ARM.
            Self(unsafe { vdupq_n_f32(value) })
        }
        #[inline(always)]
        unsafe fn load(from: *const f32) -> Self {
            // SAFETY: the caller promises four readable values; the load is unaligned.
            Self(unsafe { vld1q_f32(from) })
        }
        #[inline(always)]
        unsafe fn store(self, to: *mut f32) {
            // SAFETY: the caller promises four writable values; the store is unaligned.
            unsafe { vst1q_f32(to, self.0) }
        }
        #[inline(always)]
        fn mul_add(self, a: Self, b: Self) -> Self {
            // SAFETY: as for `splat`.
            Self(unsafe { vfmaq_f32(b.0, self.0, a.0) })
        }
        #[inline(always)]
        fn add(self, other: Self) -> Self {
            // SAFETY: as for `splat`.
            Self(unsafe { vaddq_f32(self.0, other.0) })
        }
        #[inline(always)]
        fn sub(self, other: Self) -> Self {
            // SAFETY: as for `splat`.
            Self(unsafe { vsubq_f32(self.0, other.0) })
        }
        #[inline(always)]
        unsafe fn load_two(from: [*const f32; 2]) -> Self {
            // SAFETY: the caller promises two readable values at each place.
            Self(unsafe { vcombine_f32(vld1_f32(from[0]), vld1_f32(from[1])) })
        }
        #[inline(always)]
        unsafe fn store_two(self, to: [*mut f32; 2]) {
            // SAFETY: the caller promises two writable values at each place.
            unsafe {
                vst1_f32(to[0], vget_low_f32(self.0));
                vst1_f32(to[1], vget_high_f32(self.0));
            }
        }
        #[inline(always)]
        unsafe fn load_pairs(from: [*const f32; 2]) -> (Self, Self) {
            // SAFETY: the caller promises four readable values at each place.
            unsafe {
                let [a, b] = [vld1q_f32(from[0]), vld1q_f32(from[1])];
                (Self(vuzp1q_f32(a, b)), Self(vuzp2q_f32(a, b)))
            }
        }
        #[inline(always)]
        unsafe fn store_pairs(even: Self, odd: Self, to: [*mut f32; 2]) {
            // SAFETY: the caller promises four writable values at each place.
            unsafe {
                vst1q_f32(to[0], vzip1q_f32(even.0, odd.0));
                vst1q_f32(to[1], vzip2q_f32(even.0, odd.0));
            }
        }
    }
}

/// Copies, in vectors where there are whole ones: a call that copies a few of them takes longer than the copy.
#[inline(always)]
pub(crate) fn copy(from: &[f32], to: &mut [f32]) {
    let (from, from_rest) = from.as_chunks::<8>();
    let (to, to_rest) = to.as_chunks_mut::<8>();
    for (to, from) in to.iter_mut().zip(from) {
        *to = *from;
    }
    for (to, from) in to_rest.iter_mut().zip(from_rest) {
        *to = *from;
    }
}

/// Runs a flat-loop function compiled for the best instruction set: the same body under each `target_feature`,
/// so that the compiler vectorises it for that width.
macro_rules! dispatch {
    ($(#[$meta:meta])* fn $name:ident ( $($arg:ident : $ty:ty),* $(,)? ) $(-> $ret:ty)? $body:block) => {
        $(#[$meta])*
        pub(crate) fn $name($($arg: $ty),*) $(-> $ret)? {
            #[inline(always)]
            fn body($($arg: $ty),*) $(-> $ret)? $body
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx2,fma")]
                fn avx2($($arg: $ty),*) $(-> $ret)? { body($($arg),*) }
                #[target_feature(enable = "avx512f")]
                fn avx512($($arg: $ty),*) $(-> $ret)? { body($($arg),*) }
                match $crate::simd::level() {
                    // SAFETY: the instruction set was detected on this processor.
                    $crate::simd::Level::Avx512 => return unsafe { avx512($($arg),*) },
                    // SAFETY: as above.
                    $crate::simd::Level::Avx2 => return unsafe { avx2($($arg),*) },
                    $crate::simd::Level::Scalar => {}
                }
            }
            body($($arg),*)
        }
    };
}
pub(crate) use dispatch;
