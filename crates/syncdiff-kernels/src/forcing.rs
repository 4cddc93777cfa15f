//! A choice among instruction sets that tests can take over.

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// What all kernels of the process use, if that is not left to them.
pub(crate) struct Forcing {
    /// 0: nothing is forced; otherwise 1 + the choice.
    forced: AtomicU8,
    turn: Mutex<()>,
}

impl Forcing {
    pub(crate) const fn new() -> Self {
        Self { forced: AtomicU8::new(0), turn: Mutex::new(()) }
    }

    pub(crate) fn get(&self) -> Option<u8> {
        self.forced.load(Ordering::Relaxed).checked_sub(1)
    }

    /// Until the guard is dropped; a second caller waits for that.
    pub(crate) fn force(&'static self, choice: u8) -> Forced {
        // A test that failed has left nothing behind that could be wrong.
        let turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        self.forced.store(choice + 1, Ordering::Relaxed);
        Forced { forced: &self.forced, _turn: turn }
    }
}

/// Frees the choice when dropped.
#[derive(Debug)]
#[must_use]
pub struct Forced {
    forced: &'static AtomicU8,
    _turn: MutexGuard<'static, ()>,
}

impl Drop for Forced {
    fn drop(&mut self) {
        self.forced.store(0, Ordering::Relaxed);
    }
}
