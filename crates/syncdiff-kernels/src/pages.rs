//! Memory that a program keeps for its next tensors.

use libmimalloc_sys::{mi_option_set_default, mi_option_t};

/// `mi_option_purge_delay` of mimalloc 2 and 3, which the bindings do not name.
const PURGE_DELAY: mi_option_t = 15;
/// Never.
const KEEP: std::ffi::c_long = -1;

/// Lets mimalloc keep what tensors free. By default it gives pages back to the system after some milliseconds, and a
/// network that runs again pays for each of them anew: a sixth of a U-Net's pass at `paper` on the CPU. What a program
/// holds is then its peak. `MIMALLOC_PURGE_DELAY` in the environment goes before.
///
/// Does nothing for a program with another allocator.
pub fn keep_pages() {
    // SAFETY: any number is a valid option for any value; the call changes one integer of the allocator.
    unsafe { mi_option_set_default(PURGE_DELAY, KEEP) }
}
