//! The pool that the kernels share.

use rayon::Yield;
use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Waiting for the other threads to come takes at most so long: those that are busy are not needed.
const PATIENCE: Duration = Duration::from_micros(50);

thread_local! {
    static OWNS: Cell<bool> = const { Cell::new(false) };
}

/// While it lives, threads of the pool that had nothing to do look for work instead of sleeping; between looks they let
/// other threads of the system run.
pub(crate) struct Awake(Arc<Watch>);

#[derive(Default)]
struct Watch {
    entered: AtomicUsize,
    begun: AtomicBool,
    over: AtomicBool,
}

impl Awake {
    /// To be called on a thread of the pool; `None` where this thread keeps the others awake already.
    pub(crate) fn new() -> Option<Self> {
        let others = rayon::current_num_threads() - 1;
        if others == 0 || OWNS.replace(true) {
            return None;
        }
        let watch = Arc::new(Watch::default());
        let (owner, seen) = (rayon::current_thread_index(), Arc::clone(&watch));
        // Detached: whoever watches may be in the middle of other work when this is over, and nobody waits for that.
        rayon::spawn_broadcast(move |thread| {
            // A watcher that began later could lie on top of a part of the very work whose end it waits for.
            if Some(thread.index()) == owner || seen.begun.load(Ordering::Acquire) {
                return;
            }
            seen.entered.fetch_add(1, Ordering::Release);
            while !seen.over.load(Ordering::Acquire) {
                if !matches!(rayon::yield_now(), Some(Yield::Executed)) {
                    std::thread::yield_now();
                }
            }
        });
        // No call of the pool here: this thread may not take other work before its own has begun.
        let from = Instant::now();
        while watch.entered.load(Ordering::Acquire) < others && from.elapsed() < PATIENCE {
            std::thread::yield_now();
        }
        watch.begun.store(true, Ordering::Release);
        Some(Self(watch))
    }
}

impl Drop for Awake {
    fn drop(&mut self) {
        self.0.over.store(true, Ordering::Release);
        OWNS.set(false);
    }
}
