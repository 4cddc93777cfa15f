//! Any bytes that are no zip archive: the form before PyTorch 1.6, and foreign files.
#![no_main]

#[path = "../../tests/common/mod.rs"]
mod common;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    common::fuzz_legacy(bytes);
});
