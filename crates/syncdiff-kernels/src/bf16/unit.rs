//! Which instructions multiply values of 16 bits.

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

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

/// 0: the best; otherwise 1 + a unit.
static FORCED: AtomicU8 = AtomicU8::new(0);
static FORCING: Mutex<()> = Mutex::new(());

/// The units of this processor, the plain one first.
pub fn available() -> Vec<Unit> {
    Unit::ALL.iter().copied().filter(|unit| unit.is_available()).collect()
}

/// The unit that products run on: the best of this processor, unless [`force`] chose another.
pub(super) fn chosen() -> Unit {
    let forced = FORCED.load(Ordering::Relaxed);
    let mut units = Unit::ALL.iter().copied();
    let found = if forced == 0 {
        units.rfind(|unit| unit.is_available())
    } else {
        units.find(|&unit| unit as u8 + 1 == forced)
    };
    found.unwrap_or(Unit::Plain)
}

/// Makes every product of this process use `unit` until the guard is dropped; a second caller waits for that.
///
/// # Panics
/// If this processor lacks the unit.
pub fn force(unit: Unit) -> Forced {
    assert!(unit.is_available(), "this processor has no {unit:?}: choose one of {:?}", available());
    // A test that failed has left nothing behind that could be wrong.
    let turn = FORCING.lock().unwrap_or_else(PoisonError::into_inner);
    FORCED.store(unit as u8 + 1, Ordering::Relaxed);
    Forced { _turn: turn }
}

/// From [`force`]; frees the choice when dropped.
#[derive(Debug)]
#[must_use]
pub struct Forced {
    _turn: MutexGuard<'static, ()>,
}

impl Drop for Forced {
    fn drop(&mut self) {
        FORCED.store(0, Ordering::Relaxed);
    }
}
