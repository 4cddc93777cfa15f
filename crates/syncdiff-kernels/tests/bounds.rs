//! No kernel reads or writes beside its buffers: every allocation of these tests, of inputs, outputs and scratch alike,
//! touches a page that may not be accessed, first behind its end and then before its start. A step beside a buffer, or
//! into one that was freed, ends the test with a segmentation fault.
#![cfg(target_os = "linux")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use burn::tensor::{Device, Tensor, TensorData};
use syncdiff_kernels::{
    Conv3x3, attention, bf16, bf16_weights, conv1x1, conv3x3, conv3x3_upsampled, geglu, group_norm, layer_norm, linear,
    nearest_rows, silu, simd,
};

/// Addresses from which guarded allocations are cut, each once.
const RESERVED: usize = 1 << 36;
/// A multiple of the page size of every common system.
const PAGE: usize = 1 << 16;

struct Guarded {
    start: AtomicUsize,
    used: AtomicUsize,
    active: AtomicBool,
    /// Whether allocations begin, rather than end, at a forbidden page.
    guard_before: AtomicBool,
}

#[global_allocator]
static ALLOCATOR: Guarded = Guarded {
    start: AtomicUsize::new(0),
    used: AtomicUsize::new(0),
    active: AtomicBool::new(false),
    guard_before: AtomicBool::new(false),
};

impl Guarded {
    fn reserve(&self) {
        // SAFETY: an anonymous mapping at an address of the system's choice touches no other memory.
        let start = unsafe {
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
            libc::mmap(std::ptr::null_mut(), RESERVED + PAGE, libc::PROT_NONE, flags, -1, 0)
        };
        assert_ne!(start, libc::MAP_FAILED, "no room for guarded memory");
        self.start.store((start as usize).next_multiple_of(PAGE), Ordering::SeqCst);
    }

    /// Everything allocated while `run` runs is guarded.
    fn during(&self, guard_before: bool, run: impl FnOnce()) {
        self.guard_before.store(guard_before, Ordering::SeqCst);
        self.active.store(true, Ordering::SeqCst);
        run();
        self.active.store(false, Ordering::SeqCst);
    }

    fn holds(&self, pointer: *const u8) -> bool {
        let start = self.start.load(Ordering::Relaxed);
        start != 0 && (start..start + RESERVED).contains(&(pointer as usize))
    }
}

// SAFETY: memory comes from the system's allocator, or from pages of the reserved range that no other allocation has.
unsafe impl GlobalAlloc for Guarded {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if !self.active.load(Ordering::Relaxed) || layout.size() < 4 || layout.align() > PAGE {
            // SAFETY: forwarded.
            return unsafe { System.alloc(layout) };
        }
        let len = layout.size().next_multiple_of(PAGE);
        // A forbidden page lies behind each allocation, and so before the next.
        let from = self.used.fetch_add(len + PAGE, Ordering::Relaxed) + PAGE;
        if from + len + PAGE > RESERVED {
            return std::ptr::null_mut();
        }
        let from = (self.start.load(Ordering::Relaxed) + from) as *mut u8;
        // SAFETY: these pages are inside the reserved range and were never handed out.
        if unsafe { libc::mprotect(from.cast(), len, libc::PROT_READ | libc::PROT_WRITE) } != 0 {
            return std::ptr::null_mut();
        }
        let offset = if self.guard_before.load(Ordering::Relaxed) { 0 } else { len - layout.size() };
        // SAFETY: at most `len`. Rounded down for the alignment, which leaves a gap behind a buffer whose size is no
        // multiple of it: vectors of f32 have none.
        unsafe { from.add(offset / layout.align() * layout.align()) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        if !self.holds(pointer) {
            // SAFETY: forwarded.
            return unsafe { System.dealloc(pointer, layout) };
        }
        let from = (pointer as usize / PAGE * PAGE) as *mut libc::c_void;
        let len = layout.size().next_multiple_of(PAGE);
        // SAFETY: the pages of this allocation alone. They are given back and never used again.
        unsafe {
            libc::madvise(from, len, libc::MADV_DONTNEED);
            libc::mprotect(from, len, libc::PROT_NONE);
        }
    }
}

fn values(n: usize, seed: usize) -> Vec<f32> {
    (0..n).map(|i| ((i * 7919 + seed * 104_729) % 1013) as f32 / 506.0 - 1.0).collect()
}

fn tensor<const D: usize>(shape: [usize; D], seed: usize) -> Tensor<D> {
    let device = Device::flex().autodiff();
    Tensor::from_data(TensorData::new(values(shape.iter().product(), seed), shape), &device).require_grad()
}

/// Value and gradients are computed and must be numbers.
fn differentiate<const D: usize>(what: &str, y: Tensor<D>) {
    let sum = (y.clone() * y).sum();
    let value = sum.clone().into_scalar::<f32>();
    assert!(value.is_finite() && value > 0.0, "{what}: {value}");
    drop(sum.backward());
}

fn run_all() {
    for (n, i, o, h, w) in [(2, 3, 5, 4, 16), (1, 9, 10, 3, 8), (3, 1, 1, 2, 24), (1, 2, 3, 5, 48), (2, 9, 13, 6, 96)] {
        for kind in [Conv3x3::SAME, Conv3x3::DOWN, Conv3x3::DOWN_ASYMMETRIC] {
            let y = conv3x3(tensor([n, i, h, w], 1), tensor([o, i, 3, 3], 2), tensor([o], 3), kind);
            differentiate("conv3x3", y);
        }
        differentiate(
            "conv3x3_upsampled",
            conv3x3_upsampled(tensor([n, i, h, w], 1), tensor([o, i, 3, 3], 2), tensor([o], 3)),
        );
        differentiate("conv1x1", conv1x1(tensor([n, i, h, w], 1), tensor([o, i, 1, 1], 2), tensor([o], 3)));
    }
    differentiate("linear", linear(tensor([2, 7, 9], 17), tensor([9, 20], 18), Some(tensor([20], 19))));
    for silu_after in [false, true] {
        let y = group_norm(tensor([2, 6, 3, 7], 4), tensor([6], 5), tensor([6], 6), 3, 1e-5, silu_after);
        differentiate("group_norm", y);
    }
    differentiate("layer_norm", layer_norm(tensor([3, 5, 37], 14), tensor([37], 15), tensor([37], 16), 1e-5));
    for (queries, keys) in [(65, 9), (3, 33), (1, 1)] {
        let q = tensor([2, queries, 10], 7);
        differentiate("attention", attention(q, tensor([2, keys, 10], 8), tensor([2, keys, 10], 9), 2));
    }
    differentiate("geglu", geglu(tensor([3, 7, 2, 10], 10)));
    differentiate("silu", silu(tensor([3, 7, 2, 5], 11)));
    assert_eq!(nearest_rows(&values(11 * 3, 12), &values(37 * 3, 13), 3).len(), 11);
}

/// Layers with bf16 weights, and their gradients: tiles that are whole, narrow, and of few rows.
fn run_bf16() {
    for (n, i, o, h, w) in [(2, 3, 5, 4, 16), (1, 33, 41, 3, 8), (1, 64, 32, 2, 32), (1, 16, 3, 6, 24), (1, 1, 1, 2, 8)]
    {
        let x = || tensor([n, i, h, w], 1);
        let bias = || tensor([o], 3);
        let weights = |side| bf16_weights(tensor([o, i, side, side], 2));
        for kind in [Conv3x3::SAME, Conv3x3::DOWN, Conv3x3::DOWN_ASYMMETRIC] {
            differentiate("conv3x3 in bf16", conv3x3(x(), weights(3), bias(), kind));
        }
        differentiate("conv3x3_upsampled in bf16", conv3x3_upsampled(x(), weights(3), bias()));
        differentiate("conv1x1 in bf16", conv1x1(x(), weights(1), bias()));
        for tokens in [1, 7, 33] {
            let weights = bf16_weights(tensor([i, o], 5));
            differentiate("linear in bf16", linear(tensor([n, tokens, i], 4), weights, Some(bias())));
        }
    }
}

/// One test, so that nothing else runs in the process while allocations are guarded.
#[test]
fn kernels_stay_inside_their_buffers() {
    ALLOCATOR.reserve();
    // The guard itself: one value before or behind a vector must not be readable.
    for guard_before in [false, true] {
        ALLOCATOR.during(guard_before, || {
            let buffer = values(5, 1);
            assert!(ALLOCATOR.holds(buffer.as_ptr().cast()), "the allocator is not in use");
            let beside = if guard_before { buffer.as_ptr().wrapping_sub(1) } else { buffer.as_ptr().wrapping_add(5) };
            assert!(reads(buffer.as_ptr()) && !reads(beside), "a value beside a buffer can be read");
        });
    }
    for level in simd::available() {
        let _forced = simd::force(level);
        for guard_before in [false, true] {
            ALLOCATOR.during(guard_before, run_all);
        }
    }
    for unit in bf16::available() {
        let _forced = bf16::force(unit);
        for guard_before in [false, true] {
            ALLOCATOR.during(guard_before, run_bf16);
        }
    }
}

/// Whether a value can be read, found out by a child process that tries.
fn reads(from: *const f32) -> bool {
    // SAFETY: the child reads one value, which may end it, and leaves without running anything else.
    unsafe {
        let child = libc::fork();
        if child == 0 {
            from.read_volatile();
            libc::_exit(0);
        }
        assert!(child > 0, "no child process");
        let mut status = 0;
        assert_eq!(libc::waitpid(child, &mut status, 0), child);
        libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0
    }
}
