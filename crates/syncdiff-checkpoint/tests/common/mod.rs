//! What several tests and the fuzz targets need: a writer of zip archives that can lie, and a full use of the reader.

#![allow(dead_code, unreachable_pub)]

use std::path::{Path, PathBuf};

use syncdiff_checkpoint::{Checkpoint, CheckpointResult, read_numpy_pickle, read_pickle};

/// Folder of the checkpoints that `tools/make_checkpoints.py` wrote.
pub fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

/// A member to write: name, method (0 stored, 8 deflated), bytes as they are in the file, size that is claimed.
pub struct Member<'a> {
    pub name: &'a str,
    pub method: u16,
    pub packed: Vec<u8>,
    pub claimed_len: u64,
}

impl<'a> Member<'a> {
    pub fn stored(name: &'a str, bytes: &[u8]) -> Self {
        Self { name, method: 0, packed: bytes.to_vec(), claimed_len: bytes.len() as u64 }
    }
}

/// A zip archive of these members; sizes beyond 32 bits go into zip64 fields.
pub fn zip(members: &[Member<'_>]) -> Vec<u8> {
    let mut file = Vec::new();
    let mut directory = Vec::new();
    for member in members {
        let offset = file.len() as u32;
        let mut middle = Vec::new();
        middle.extend([20, 0, 0, 0]);
        middle.extend(member.method.to_le_bytes());
        middle.extend([0; 8]);
        middle.extend((member.packed.len() as u32).to_le_bytes());
        let long = member.claimed_len > u64::from(u32::MAX) - 1;
        let extra: Vec<u8> =
            if long { [&[1, 0, 8, 0][..], &member.claimed_len.to_le_bytes()].concat() } else { Vec::new() };
        middle.extend((if long { u32::MAX } else { member.claimed_len as u32 }).to_le_bytes());
        middle.extend((member.name.len() as u16).to_le_bytes());
        middle.extend((extra.len() as u16).to_le_bytes());
        file.extend(b"PK\x03\x04");
        file.extend(&middle);
        file.extend(member.name.as_bytes());
        file.extend(&extra);
        file.extend(&member.packed);
        directory.extend(b"PK\x01\x02");
        directory.extend([20, 0]);
        directory.extend(&middle);
        directory.extend([0; 10]);
        directory.extend(offset.to_le_bytes());
        directory.extend(member.name.as_bytes());
        directory.extend(&extra);
    }
    let (start, len, count) = (file.len() as u32, directory.len() as u32, members.len() as u16);
    file.extend(directory);
    file.extend(b"PK\x05\x06\0\0\0\0");
    file.extend(count.to_le_bytes());
    file.extend(count.to_le_bytes());
    file.extend(len.to_le_bytes());
    file.extend(start.to_le_bytes());
    file.extend([0, 0]);
    file
}

/// A PyTorch archive with this pickle and a storage `0` of 24 bytes.
pub fn archive(pickle: &[u8]) -> Vec<u8> {
    zip(&[
        Member::stored("a/data.pkl", pickle),
        Member::stored("a/byteorder", b"little"),
        Member::stored("a/data/0", &[1; 24]),
        Member::stored("a/version", b"3\n"),
    ])
}

/// Does with a file all that a user can do.
pub fn use_fully(bytes: Vec<u8>) -> CheckpointResult<usize> {
    let checkpoint = Checkpoint::from_bytes("fuzzed", bytes)?;
    let mut elements = 0;
    for tensor in checkpoint.tensors() {
        let len = checkpoint.read_bytes(&tensor.name)?.len();
        assert_eq!(len, tensor.shape.iter().product::<usize>() * tensor.dtype.size());
        if let Ok(values) = checkpoint.read_f32(&tensor.name) {
            assert_eq!(values.len() * tensor.dtype.size(), len);
            elements += values.len();
        }
    }
    let _ = (checkpoint.all_tensors(), checkpoint.roots(), checkpoint.foreign_classes());
    if let Ok(Some(value)) = checkpoint.value(&[]) {
        let _ = value.to_json().to_string();
    }
    Ok(elements)
}

/// What a fuzz target does with its bytes; whether anything could be read.
pub type Target = fn(&[u8]) -> bool;

/// The fuzz targets by name, for the short run among the ordinary tests.
pub const TARGETS: [(&str, Target); 4] =
    [("legacy", fuzz_legacy), ("pickle", fuzz_pickle), ("safetensors", fuzz_safetensors), ("zip", fuzz_zip)];

const ZIP: &[u8] = b"PK\x03\x04";

/// Any bytes that are no zip archive: the form before PyTorch 1.6, and foreign files.
pub fn fuzz_legacy(bytes: &[u8]) -> bool {
    !bytes.starts_with(ZIP) && use_fully(bytes.to_vec()).is_ok()
}

/// Any bytes as a pickle: bare, as a dictionary of NumPy arrays, and as the `data.pkl` of an archive with a storage,
/// so that tensors are made too.
pub fn fuzz_pickle(bytes: &[u8]) -> bool {
    let bare = read_pickle(bytes.to_vec()).is_ok();
    let arrays = read_numpy_pickle(Path::new("fuzzed"), bytes.to_vec());
    for array in arrays.iter().flatten() {
        assert_eq!(array.values.len(), array.shape.iter().product::<usize>());
    }
    let archived = use_fully(archive(bytes)).is_ok();
    bare || arrays.is_ok() || archived
}

/// Any bytes as a safetensors file, then with the length before the header put right.
pub fn fuzz_safetensors(bytes: &[u8]) -> bool {
    let whole = use_fully(bytes.to_vec()).is_ok();
    let Some(body) = bytes.get(8..) else { return whole };
    let len = body.iter().rposition(|byte| *byte == b'}').map_or(0, |at| at + 1) as u64;
    use_fully([&len.to_le_bytes()[..], body].concat()).is_ok() || whole
}

/// Any bytes that begin as a zip archive does.
pub fn fuzz_zip(bytes: &[u8]) -> bool {
    bytes.starts_with(ZIP) && use_fully(bytes.to_vec()).is_ok()
}
