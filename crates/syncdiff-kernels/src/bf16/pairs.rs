//! Activations in bf16, values of two neighbouring channels in each 32 bits: the even one in the lower half.

use super::product::SIDE;
use crate::simd::dispatch;
use rayon::prelude::*;

/// The upper half of an f32, rounded to nearest, ties to even; a NaN stays one.
#[inline(always)]
pub(super) fn round(value: f32) -> u32 {
    let bits = value.to_bits();
    let rounded = bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16;
    let quiet = bits >> 16 | 0x40;
    if bits & 0x7fff_ffff > 0x7f80_0000 { quiet } else { rounded }
}

/// The f32 of 16 bits.
#[inline(always)]
pub(super) fn widen(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}

dispatch! {
    /// Pairs of the values of two channels.
    fn join(even: &[f32], odd: &[f32], to: &mut [u32]) {
        for ((to, &even), &odd) in to.iter_mut().zip(even).zip(odd) {
            *to = round(even) | round(odd) << 16;
        }
    }
}

dispatch! {
    /// Pairs of the values of a channel and zeros: the last of an odd number of channels.
    fn join_zero(even: &[f32], to: &mut [u32]) {
        for (to, &even) in to.iter_mut().zip(even) {
            *to = round(even);
        }
    }
}

/// Weights whose sums are held at once.
const AT_ONCE: usize = 64;

dispatch! {
    /// Sums of some weights, rounded.
    fn sum(of: &[&[u16]], to: &mut [u16]) {
        for (block, to) in to.chunks_mut(AT_ONCE).enumerate() {
            let mut sums = [0f32; AT_ONCE];
            for of in of {
                for (sum, &bits) in sums.iter_mut().zip(&of[block * AT_ONCE..]) {
                    *sum += widen(bits);
                }
            }
            for (to, sum) in to.iter_mut().zip(sums) {
                *to = round(sum) as u16;
            }
        }
    }
}

dispatch! {
    /// Neighbouring values of a row of tokens, joined; the last of an odd number with zero.
    fn join_row(row: &[f32], to: &mut [u32]) {
        let (whole, rest) = row.as_chunks::<2>();
        for (to, [even, odd]) in to.iter_mut().zip(whole) {
            *to = round(*even) | round(*odd) << 16;
        }
        if let [last] = rest {
            to[whole.len()] = round(*last);
        }
    }
}

dispatch! {
    /// Rows of so many pairs, with a row's pairs below each other.
    ///
    /// # Shapes
    /// rows: [STRIP or fewer, pairs] -> [pairs, STRIP]
    fn turn(rows: &[u32], pairs: usize, to: &mut [u32]) {
        for (column, row) in rows.chunks_exact(pairs).enumerate() {
            for (to, &pair) in to.as_chunks_mut::<STRIP>().0.iter_mut().zip(row) {
                to[column] = pair;
            }
        }
    }
}

dispatch! {
    /// Values of a row, rounded.
    fn round_row(row: &[f32], to: &mut [u16]) {
        for (to, &value) in to.iter_mut().zip(row) {
            *to = round(value) as u16;
        }
    }
}

/// Columns that lie together: those of a tile.
pub(super) const STRIP: usize = SIDE;

/// Planes of channels as pairs, in strips of columns; pairs of channels that are not there stay zero.
///
/// # Shapes
/// x: [channels, pixels] -> [strips, pairs, STRIP]
pub(super) fn of_planes(x: &[f32], pixels: usize, pairs: usize, to: &mut [u32]) {
    to.par_chunks_exact_mut(pairs * STRIP).enumerate().with_min_len(4).for_each(|(strip, to)| {
        let columns = strip * STRIP..((strip + 1) * STRIP).min(pixels);
        for (to, planes) in to.as_chunks_mut::<STRIP>().0.iter_mut().zip(x.chunks(2 * pixels)) {
            let (even, odd) = planes.split_at(pixels);
            if odd.is_empty() {
                join_zero(&even[columns.clone()], to);
            } else {
                join(&even[columns.clone()], &odd[columns.clone()], to);
            }
        }
    });
}

/// Tokens as pairs of channels, in strips of tokens.
///
/// # Shapes
/// x: [tokens, channels] -> [strips, pairs, STRIP]
pub(super) fn of_tokens(x: &[f32], channels: usize, pairs: usize, to: &mut [u32]) {
    let used = channels.div_ceil(2);
    let strips = to.par_chunks_exact_mut(pairs * STRIP).zip(x.par_chunks(STRIP * channels));
    strips.for_each_init(Vec::new, |joined, (to, rows)| {
        joined.resize(STRIP * used, 0);
        let count = rows.len() / channels;
        for (row, to) in rows.chunks_exact(channels).zip(joined.chunks_exact_mut(used)) {
            join_row(row, to);
        }
        turn(&joined[..count * used], used, to);
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_rounded_to_even() {
        for (value, bits) in [
            (1.0, 0x3f80),
            (-2.5, 0xc020),
            (f32::from_bits(0x3f80_8000), 0x3f80), // half way, down to even
            (f32::from_bits(0x3f81_8000), 0x3f82), // half way, up to even
            (f32::from_bits(0x3f80_8001), 0x3f81),
            (f32::MAX, 0x7f80),
            (f32::NEG_INFINITY, 0xff80),
        ] {
            assert_eq!(round(value), bits, "{value}");
        }
        assert!(widen(round(f32::from_bits(0x7f80_0001)) as u16).is_nan());
        assert!(widen(round(f32::from_bits(0xffff_ffff)) as u16).is_nan());
    }
}
