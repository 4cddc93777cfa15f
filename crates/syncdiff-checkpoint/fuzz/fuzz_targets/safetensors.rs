//! A safetensors file from a header and data: the length before the header is always right.
#![no_main]

#[path = "../../tests/common/mod.rs"]
mod common;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = common::use_fully(bytes.to_vec());
    // The end of the header is where it would be right, not where the first eight bytes say.
    if let Some(body) = bytes.get(8..) {
        let len = body.iter().rposition(|byte| *byte == b'}').map_or(0, |at| at + 1) as u64;
        let _ = common::use_fully([&len.to_le_bytes()[..], body].concat());
    }
});
