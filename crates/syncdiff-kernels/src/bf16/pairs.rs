//! Activations in bf16, values of two neighbouring channels in each 32 bits: the even one in the lower half.

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

/// Planes of channels as pairs, each plane `stride` apart; planes of channels that are not there stay zero.
///
/// # Shapes
/// x: [channels, pixels] -> [pairs, stride]
pub(super) fn of_planes(x: &[f32], pixels: usize, stride: usize, to: &mut [u32]) {
    for (to, planes) in to.chunks_exact_mut(stride).zip(x.chunks(2 * pixels)) {
        let to = &mut to[..pixels];
        match planes.split_at_checked(pixels) {
            Some((even, odd)) if !odd.is_empty() => join(even, odd, to),
            _ => join_zero(planes, to),
        }
    }
}

/// Tokens as pairs of channels by columns.
///
/// # Shapes
/// x: [tokens, channels] -> [pairs, stride], with a token in each column
pub(super) fn of_tokens(x: &[f32], channels: usize, stride: usize, to: &mut [u32]) {
    /// Tokens at once: as many values as a line of the cache holds.
    const BLOCK: usize = 16;
    let of_row = channels.div_ceil(2);
    let tokens = x.len() / channels;
    let blocks: Vec<Vec<u32>> = x
        .par_chunks(BLOCK * channels)
        .map(|rows| {
            let mut joined = vec![0u32; BLOCK * of_row];
            for (row, to) in rows.chunks_exact(channels).zip(joined.chunks_exact_mut(of_row)) {
                join_row(row, to);
            }
            joined
        })
        .collect();
    to.par_chunks_exact_mut(stride).take(of_row).enumerate().with_min_len(16).for_each(|(pair, to)| {
        for (to, block) in to[..tokens].chunks_mut(BLOCK).zip(&blocks) {
            for (to, row) in to.iter_mut().zip(block.chunks_exact(of_row)) {
                *to = row[pair];
            }
        }
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
