//! The pool that the kernels share.

use rayon::Yield;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// While it lives, threads of the pool look for work instead of sleeping; between looks they let other threads of the
/// system run.
pub(crate) struct Awake(Arc<AtomicBool>);

impl Awake {
    /// To be called on a thread of the pool.
    pub(crate) fn new() -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let (owner, until) = (rayon::current_thread_index(), Arc::clone(&over));
        // Detached: whoever watches may be in the middle of other work when this is over, and nobody waits for that.
        rayon::spawn_broadcast(move |thread| {
            // The owner gets here while it waits for a part of its work, which it must not do for long.
            if Some(thread.index()) == owner {
                return;
            }
            while !until.load(Ordering::Acquire) {
                if !matches!(rayon::yield_now(), Some(Yield::Executed)) {
                    std::thread::yield_now();
                }
            }
        });
        Self(over)
    }
}

impl Drop for Awake {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}
