//! Which instructions multiply values of 16 bits.

use crate::forcing::{Forced, Forcing};

/// The units that have a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Unit {
    /// Plain Rust: right everywhere, fast nowhere.
    Plain,
    /// AVX512-BF16: 32 products an instruction.
    #[cfg(target_arch = "x86_64")]
    Vector,
    /// AMX-BF16: tiles of 16 rows of 64 bytes, 8,192 products an instruction.
    #[cfg(target_arch = "x86_64")]
    Amx,
}

impl Unit {
    /// From the slowest to the fastest.
    const ALL: &[Self] = &[
        Self::Plain,
        #[cfg(target_arch = "x86_64")]
        Self::Vector,
        #[cfg(target_arch = "x86_64")]
        Self::Amx,
    ];

    fn is_available(self) -> bool {
        match self {
            Self::Plain => true,
            #[cfg(target_arch = "x86_64")]
            Self::Vector => is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bf16"),
            // What surrounds the products is written for AVX-512, which every processor with AMX has.
            #[cfg(target_arch = "x86_64")]
            Self::Amx => Self::Vector.is_available() && super::amx::is_available(),
        }
    }
}

static FORCING: Forcing = Forcing::new();

/// The units of this processor, the plain one first.
pub fn available() -> Vec<Unit> {
    Unit::ALL.iter().copied().filter(|unit| unit.is_available()).collect()
}

/// The unit that products run on: the best of this processor, unless [`force`] chose another.
pub(super) fn chosen() -> Unit {
    let mut units = Unit::ALL.iter().copied();
    let found = match FORCING.get() {
        None => units.rfind(|unit| unit.is_available()),
        Some(forced) => units.find(|&unit| unit as u8 == forced),
    };
    found.unwrap_or(Unit::Plain)
}

/// Makes every product of this process use `unit` until the guard is dropped; a second caller waits for that.
///
/// # Panics
/// If this processor lacks the unit.
pub fn force(unit: Unit) -> Forced {
    assert!(unit.is_available(), "this processor has no {unit:?}: choose one of {:?}", available());
    FORCING.force(unit as u8)
}
