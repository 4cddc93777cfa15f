//! Squares of values that are transposed in registers: whole lines of the cache in and out.

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;

/// Rows and columns: values of a line of the cache, and of a vector.
pub(crate) const SIDE: usize = 16;

/// Rows and columns exchanged.
pub(crate) fn transposed(from: &[f32; SIDE * SIDE]) -> [f32; SIDE * SIDE] {
    #[cfg(target_arch = "x86_64")]
    if crate::simd::level() == crate::simd::Level::Avx512 {
        // SAFETY: the level is only chosen where its instruction set was detected.
        return unsafe { avx512(from) };
    }
    let mut to = [0f32; SIDE * SIDE];
    for (r, row) in from.chunks_exact(SIDE).enumerate() {
        for (c, &value) in row.iter().enumerate() {
            to[c * SIDE + r] = value;
        }
    }
    to
}

/// # Safety
/// AVX-512F is available.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
unsafe fn avx512(from: &[f32; SIDE * SIDE]) -> [f32; SIDE * SIDE] {
    let mut rows = [_mm512_setzero_ps(); SIDE];
    for (row, from) in rows.iter_mut().zip(from.as_chunks::<SIDE>().0) {
        // SAFETY: a row has 16 values.
        *row = unsafe { _mm512_loadu_ps(from.as_ptr()) };
    }
    // Squares of 2, then of 4 within each 128 bits; then the squares of 4 change places.
    let mut twos = rows;
    for i in (0..SIDE).step_by(2) {
        twos[i] = _mm512_unpacklo_ps(rows[i], rows[i + 1]);
        twos[i + 1] = _mm512_unpackhi_ps(rows[i], rows[i + 1]);
    }
    let mut fours = rows;
    for i in (0..SIDE).step_by(4) {
        let [a, b, c, d] = [twos[i], twos[i + 1], twos[i + 2], twos[i + 3]].map(|row| _mm512_castps_pd(row));
        fours[i] = _mm512_castpd_ps(_mm512_unpacklo_pd(a, c));
        fours[i + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(a, c));
        fours[i + 2] = _mm512_castpd_ps(_mm512_unpacklo_pd(b, d));
        fours[i + 3] = _mm512_castpd_ps(_mm512_unpackhi_pd(b, d));
    }
    let mut to = [0f32; SIDE * SIDE];
    for c in 0..4 {
        let [a, b, e, f] = [fours[c], fours[c + 4], fours[c + 8], fours[c + 12]];
        let (ab_even, ab_odd) =
            (_mm512_shuffle_f32x4::<0b10_00_10_00>(a, b), _mm512_shuffle_f32x4::<0b11_01_11_01>(a, b));
        let (ef_even, ef_odd) =
            (_mm512_shuffle_f32x4::<0b10_00_10_00>(e, f), _mm512_shuffle_f32x4::<0b11_01_11_01>(e, f));
        let columns = [
            _mm512_shuffle_f32x4::<0b10_00_10_00>(ab_even, ef_even),
            _mm512_shuffle_f32x4::<0b10_00_10_00>(ab_odd, ef_odd),
            _mm512_shuffle_f32x4::<0b11_01_11_01>(ab_even, ef_even),
            _mm512_shuffle_f32x4::<0b11_01_11_01>(ab_odd, ef_odd),
        ];
        for (group, column) in columns.into_iter().enumerate() {
            // SAFETY: a column of results has 16 values.
            unsafe { _mm512_storeu_ps(to[(group * 4 + c) * SIDE..][..SIDE].as_mut_ptr(), column) };
        }
    }
    to
}
