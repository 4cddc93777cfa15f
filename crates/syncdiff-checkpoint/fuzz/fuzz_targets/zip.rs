//! Any bytes that begin as a zip archive does.
#![no_main]

#[path = "../../tests/common/mod.rs"]
mod common;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    common::fuzz_zip(bytes);
});
