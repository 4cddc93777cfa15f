//! The CPU operations that decide the speed of syncdiff, as Burn extension operations with gradients.
//!
//! Each operation exists three times: a fast body for `Flex` (the CPU backend), a default body of plain Burn
//! operations for every other backend, and a backward node. The default bodies are also the oracle of the tests.
//! This room knows tensors, not models.

mod attention;
mod conv;
mod elementwise;
mod gemm_call;
mod nearest;
mod norm;
mod ops;
mod pointwise;
#[doc(hidden)]
pub mod simd;
#[cfg(test)]
mod tests;

pub use conv::Conv3x3;
pub use nearest::nearest_rows;
pub use ops::{KernelOps, attention, conv1x1, conv3x3, conv3x3_upsampled, geglu, group_norm, layer_norm, silu};
