//! Any bytes as a pickle: bare, as arrays, and as the `data.pkl` of an archive.
#![no_main]

#[path = "../../tests/common/mod.rs"]
mod common;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    common::fuzz_pickle(bytes);
});
