//! Any bytes that are no zip archive: the form before PyTorch 1.6, and foreign files.
#![no_main]

#[path = "../../tests/common/mod.rs"]
mod common;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if bytes.starts_with(b"PK\x03\x04") {
        return;
    }
    let _ = common::use_fully(bytes.to_vec());
});
