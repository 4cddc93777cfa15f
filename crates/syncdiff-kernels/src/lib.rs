//! The CPU operations that decide the speed of syncdiff, as Burn extension operations with gradients.
//!
//! Each operation exists three times: a fast body for `Flex` (the CPU backend), a default body of plain Burn
//! operations for every other backend, and a backward node. The default bodies are also the oracle of the tests.
//! This room knows tensors, not models.

mod adamw;
mod attention;
#[doc(hidden)]
pub mod bf16;
mod conv;
mod elementwise;
mod forcing;
mod gemm_call;
mod linear;
mod matmul;
mod nearest;
mod norm;
mod ops;
#[cfg(feature = "mimalloc")]
mod pages;
mod pointwise;
mod pool;
#[doc(hidden)]
pub mod simd;
mod square;
#[cfg(test)]
mod tests;

use burn::tensor::Device;

pub use adamw::AdamWStep;
pub use conv::Conv3x3;
pub use linear::transposed;
pub use nearest::nearest_rows;
pub use ops::{
    KernelOps, adamw, attention, bf16_weights, conv1x1, conv3x3, conv3x3_upsampled, geglu, group_norm, layer_norm,
    linear, silu,
};
#[cfg(feature = "mimalloc")]
pub use pages::keep_pages;

/// Whether this processor has an instruction that multiplies values of 16 bits (AMX-BF16 or AVX512-BF16).
pub fn cpu_has_bf16() -> bool {
    bf16::available().len() > 1
}

/// Runs `work` on a thread of the pool that the kernels share, where `device` is the CPU, and keeps the pool's other
/// threads awake meanwhile.
///
/// A kernel that is called from another thread hands its work over and sleeps until it is done, and a thread of the
/// pool that has nothing to do sleeps until it is woken. For the hundreds of small operations of a network these
/// hand-overs take longer than the work; within this they cost nothing. The work may not wait for anything but itself:
/// it holds a thread of the pool.
pub fn in_pool<R: Send>(device: &Device, work: impl FnOnce() -> R + Send) -> R {
    if device.clone().inner() != Device::flex() {
        return work();
    }
    rayon::scope(|_| {
        let _awake = pool::Awake::new();
        work()
    })
}
