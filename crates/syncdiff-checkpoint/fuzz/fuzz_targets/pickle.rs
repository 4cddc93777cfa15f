//! Any bytes as a pickle: bare, and as the `data.pkl` of an archive with a storage, so that tensors are made too.
#![no_main]

#[path = "../../tests/common/mod.rs"]
mod common;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = syncdiff_checkpoint::read_pickle(bytes.to_vec());
    let _ = common::use_fully(common::archive(bytes));
});
