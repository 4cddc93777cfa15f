//! Any bytes that begin as a zip archive does.
#![no_main]

#[path = "../../tests/common/mod.rs"]
mod common;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if !bytes.starts_with(b"PK\x03\x04") {
        return;
    }
    let _ = common::use_fully(bytes.to_vec());
});
