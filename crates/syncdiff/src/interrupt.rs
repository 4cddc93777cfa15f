//! Ctrl-C and the wish of the system to stop.

use std::sync::atomic::{AtomicUsize, Ordering};

use syncdiff::progress::Cancel;

/// Listens for interrupts. The first one asks the work to stop at its next step and to clean up; the second one ends
/// the program at once.
pub(crate) fn listen() -> Cancel {
    let cancel = Cancel::default();
    let raised = cancel.clone();
    let count = AtomicUsize::new(0);
    let handler = move || {
        raised.raise();
        if count.fetch_add(1, Ordering::SeqCst) > 0 {
            std::process::exit(8);
        }
    };
    // Without a handler an interrupt ends the program at once: worse, but no reason to refuse the work.
    if ctrlc::set_handler(handler).is_err() {
        eprintln!("warning: interrupts cannot be caught; stopping may leave a hidden partial file");
    }
    cancel
}
