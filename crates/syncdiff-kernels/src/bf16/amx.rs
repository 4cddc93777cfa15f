//! The product with AMX-BF16: tile registers of 16 rows of 64 bytes, and an instruction that multiplies two of them.
//!
//! The language has no stable intrinsics for them; the whole sum of a block is one piece of assembly, so that no tile
//! has to live from one piece to the next but by the configuration.

use super::product::{Block, Product, Results, SIDE};
use std::arch::asm;
use std::arch::x86_64::__cpuid_count;
use std::sync::LazyLock;

/// Whether the processor has the tiles, and the system lets this process use them. An interpreter has none.
pub(super) fn is_available() -> bool {
    static AVAILABLE: LazyLock<bool> =
        LazyLock::new(|| cfg!(target_os = "linux") && !cfg!(miri) && in_processor() && permitted());
    *AVAILABLE
}

fn in_processor() -> bool {
    const BF16: u32 = 1 << 22;
    const TILE: u32 = 1 << 24;
    let leaves = std::arch::x86_64::__get_cpuid_max(0).0;
    leaves >= 7 && __cpuid_count(7, 0).edx & (BF16 | TILE) == BF16 | TILE
}

/// Asks Linux for the tile registers, which it saves for the threads of a process that has asked.
fn permitted() -> bool {
    const ARCH_PRCTL: i64 = 158;
    const ARCH_REQ_XCOMP_PERM: u64 = 0x1023;
    const XFEATURE_XTILEDATA: u64 = 18;
    let result: i64;
    // SAFETY: the call reads no memory of ours; of registers it changes those named.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") ARCH_PRCTL => result,
            in("rdi") ARCH_REQ_XCOMP_PERM,
            in("rsi") XFEATURE_XTILEDATA,
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack)
        );
    }
    result == 0
}

/// The tile registers of this thread, laid out for one product; freed when dropped.
pub(super) struct Tiles(());

#[repr(C, align(64))]
struct Palette {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    bytes: [u16; 16],
    rows: [u8; 16],
}

/// Tiles 0 to 3: sums, [row tile][vector]; 4 and 5: weights of the row tiles; 6 and 7: pairs of the vectors.
pub(super) fn configure(product: &Product<'_>) -> Tiles {
    assert!(is_available(), "a product without its unit");
    let (rows, columns) = (product.tile_rows() as u8, 4 * SIDE as u16);
    let mut palette = Palette { palette: 1, start_row: 0, reserved: [0; 14], bytes: [0; 16], rows: [0; 16] };
    for tile in 0..4 {
        (palette.rows[tile], palette.bytes[tile]) = (rows, columns);
    }
    for tile in 4..6 {
        (palette.rows[tile], palette.bytes[tile]) = (rows, 2 * product.inner as u16);
    }
    for tile in 6..8 {
        (palette.rows[tile], palette.bytes[tile]) = (product.inner as u8 / 2, columns);
    }
    // SAFETY: the palette is a valid one (rows at most 16, bytes at most 64), and lives through the instruction.
    unsafe { asm!("ldtilecfg [{}]", in(reg) &raw const palette, options(nostack, readonly)) };
    Tiles(())
}

impl Drop for Tiles {
    fn drop(&mut self) {
        // SAFETY: the registers hold nothing that is still needed.
        unsafe { asm!("tilerelease", options(nostack, nomem)) };
    }
}

/// What the assembly reads from memory, in bytes from the start: 0, 8, 16, ...
#[repr(C)]
struct Sum {
    steps: *const super::product::Step,
    steps_end: *const super::product::Step,
    weights: *const u16,
    /// From the first tile of weights to the second, in bytes.
    weights_apart: usize,
    pairs: *const u32,
    /// From the first vector's pairs to the second's, in bytes.
    pairs_apart: isize,
    bias: *const f32,
    results: *mut f32,
}

/// What the assembly counts on: bytes of a tile of results, and of a step.
const _: () = assert!(size_of::<[f32; SIDE * SIDE]>() == 1024 && size_of::<super::product::Step>() == 16);

macro_rules! sum {
    ($sum:expr, $weights_stride:expr, $pairs_stride:expr, $start:literal, $step:literal, $end:literal) => {
        asm!(
            "mov {row:r}, 64",
            "mov {t}, [{sum} + 48]",
            $start,
            "mov {steps}, [{sum}]",
            "2:",
            // A step's places are counted in values of 2 and in pairs of 4 bytes.
            "mov {t}, [{steps}]",
            "add {t}, {t}",
            "add {t}, [{sum} + 16]",
            "mov {u}, [{steps} + 8]",
            "shl {u}, 2",
            "add {u}, [{sum} + 32]",
            $step,
            "add {steps}, 16",
            "cmp {steps}, [{sum} + 8]",
            "jne 2b",
            "mov {t}, [{sum} + 56]",
            $end,
            sum = in(reg) $sum,
            ws = in(reg) $weights_stride,
            ps = in(reg) $pairs_stride,
            row = out(reg) _,
            steps = out(reg) _,
            t = out(reg) _,
            u = out(reg) _,
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack)
        )
    };
}

/// # Safety
/// The product is checked, and the tiles are configured for it.
pub(super) unsafe fn block(product: &Product<'_>, pairs: &[u32], block: &Block<'_>, results: &mut Results) {
    let from = block.vectors.first().map_or(0, |vector| vector.from);
    let second = block.vectors.get(1).map_or(from, |vector| vector.from);
    let steps = product.steps.as_ptr_range();
    let sum = Sum {
        steps: steps.start,
        steps_end: steps.end,
        weights: product.weights[block.rows[0] * product.row_stride..].as_ptr(),
        weights_apart: 2 * (block.rows[1] - block.rows[0]) * product.row_stride,
        pairs: pairs[from..].as_ptr(),
        pairs_apart: 4 * (second as isize - from as isize),
        bias: block.bias.0.as_ptr().cast(),
        results: results.0.as_mut_ptr().cast(),
    };
    let sum = &raw const sum;
    let (ws, ps) = (2 * product.row_stride, 4 * product.pair_stride);
    // SAFETY: the product is checked: all rows of all steps' tiles lie in the weights and in the pairs; bias and
    // results have room for their tiles.
    unsafe {
        match (block.num_rows, block.vectors.len()) {
            (1, 1) => sum!(
                sum,
                ws,
                ps,
                "tileloadd tmm0, [{t} + {row}*1]",
                "tileloadd tmm4, [{t} + {ws}*1]
                 tileloadd tmm6, [{u} + {ps}*1]
                 tdpbf16ps tmm0, tmm4, tmm6",
                "tilestored [{t} + {row}*1], tmm0"
            ),
            (1, _) => sum!(
                sum,
                ws,
                ps,
                "tileloadd tmm0, [{t} + {row}*1]
                 tileloadd tmm1, [{t} + {row}*1]",
                "tileloadd tmm4, [{t} + {ws}*1]
                 tileloadd tmm6, [{u} + {ps}*1]
                 tdpbf16ps tmm0, tmm4, tmm6
                 add {u}, [{sum} + 40]
                 tileloadd tmm7, [{u} + {ps}*1]
                 tdpbf16ps tmm1, tmm4, tmm7",
                "tilestored [{t} + {row}*1], tmm0
                 tilestored [{t} + {row}*1 + 1024], tmm1"
            ),
            (_, 1) => sum!(
                sum,
                ws,
                ps,
                "tileloadd tmm0, [{t} + {row}*1]
                 tileloadd tmm2, [{t} + {row}*1 + 1024]",
                "tileloadd tmm6, [{u} + {ps}*1]
                 tileloadd tmm4, [{t} + {ws}*1]
                 tdpbf16ps tmm0, tmm4, tmm6
                 add {t}, [{sum} + 24]
                 tileloadd tmm5, [{t} + {ws}*1]
                 tdpbf16ps tmm2, tmm5, tmm6",
                "tilestored [{t} + {row}*1], tmm0
                 tilestored [{t} + {row}*1 + 2048], tmm2"
            ),
            (_, _) => sum!(
                sum,
                ws,
                ps,
                "tileloadd tmm0, [{t} + {row}*1]
                 tileloadd tmm1, [{t} + {row}*1]
                 tileloadd tmm2, [{t} + {row}*1 + 1024]
                 tileloadd tmm3, [{t} + {row}*1 + 1024]",
                "tileloadd tmm4, [{t} + {ws}*1]
                 tileloadd tmm6, [{u} + {ps}*1]
                 tdpbf16ps tmm0, tmm4, tmm6
                 add {u}, [{sum} + 40]
                 tileloadd tmm7, [{u} + {ps}*1]
                 tdpbf16ps tmm1, tmm4, tmm7
                 add {t}, [{sum} + 24]
                 tileloadd tmm5, [{t} + {ws}*1]
                 tdpbf16ps tmm2, tmm5, tmm6
                 tdpbf16ps tmm3, tmm5, tmm7",
                "tilestored [{t} + {row}*1], tmm0
                 tilestored [{t} + {row}*1 + 1024], tmm1
                 tilestored [{t} + {row}*1 + 2048], tmm2
                 tilestored [{t} + {row}*1 + 3072], tmm3"
            ),
        }
    }
}
