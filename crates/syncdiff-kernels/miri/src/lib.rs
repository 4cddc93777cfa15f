//! The modules of `syncdiff-kernels` that know no Burn, with their tests.

#![allow(dead_code, unreachable_pub, unused_imports)]

#[path = "../../src/adamw.rs"]
mod adamw;
#[path = "../../src/attention.rs"]
mod attention;
#[path = "../../src/bf16/mod.rs"]
mod bf16;
#[path = "../../src/conv/mod.rs"]
mod conv;
#[path = "../../src/elementwise.rs"]
mod elementwise;
#[path = "../../src/forcing.rs"]
mod forcing;
#[path = "../../src/gemm_call.rs"]
mod gemm_call;
#[path = "../../src/linear.rs"]
mod linear;
#[path = "../../src/matmul.rs"]
mod matmul;
#[path = "../../src/nearest.rs"]
mod nearest;
#[path = "../../src/norm.rs"]
mod norm;
#[path = "../../src/pointwise.rs"]
mod pointwise;
#[path = "../../src/simd.rs"]
mod simd;
#[path = "../../src/square.rs"]
mod square;
#[cfg(test)]
#[path = "../../src/tests.rs"]
mod tests;
