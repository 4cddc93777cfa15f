//! Any bytes as a safetensors file.
#![no_main]

#[path = "../../tests/common/mod.rs"]
mod common;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    common::fuzz_safetensors(bytes);
});
