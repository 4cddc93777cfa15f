//! A checkpoint is read with its tensors in memory once: what is held is what was asked for.

mod common;

use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use common::{Member, zip};
use peak_alloc::PeakAlloc;
use syncdiff_checkpoint::{Checkpoint, Format};

/// Counts the bytes that are allocated.
#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

const TENSORS: usize = 16;
/// Elements of each tensor: 64 MiB in all.
const ELEMENTS: usize = 1 << 20;
const FILE_BYTES: usize = 4 * TENSORS * ELEMENTS;
/// What may come on top: a buffer for a part of a tensor, names, the parsed header.
const BESIDES: usize = 2 << 20;

/// Memory is counted for the whole process: tests take turns.
fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

fn values(tensor: usize) -> Vec<u8> {
    (0..ELEMENTS).flat_map(|i| ((i + tensor) as f32).to_le_bytes()).collect()
}

fn write_safetensors(path: &Path) {
    let (mut header, mut data) = (serde_json::Map::new(), Vec::new());
    for tensor in 0..TENSORS {
        let start = data.len();
        data.extend(values(tensor));
        let entry = serde_json::json!({"dtype": "F32", "shape": [ELEMENTS], "data_offsets": [start, data.len()]});
        header.insert(format!("w{tensor:02}"), entry);
    }
    let header = serde_json::to_vec(&header).unwrap();
    std::fs::write(path, [&(header.len() as u64).to_le_bytes()[..], &header, &data].concat()).unwrap();
}

fn write_torch_zip(path: &Path) {
    let mut pickle = String::from("}");
    for tensor in 0..TENSORS {
        pickle.push_str(&format!(
            "Vw{tensor:02}\nctorch._utils\n_rebuild_tensor_v2\n((Vstorage\nctorch\nFloatStorage\nV{tensor}\nVcpu\n\
             L{ELEMENTS}L\ntQL0L\n(L{ELEMENTS}L\nt(L1L\ntI00\n}}tRs"
        ));
    }
    pickle.push('.');
    let names: Vec<String> = (0..TENSORS).map(|tensor| format!("a/data/{tensor}")).collect();
    let mut members = vec![Member::stored("a/data.pkl", pickle.as_bytes()), Member::stored("a/byteorder", b"little")];
    members.extend(names.iter().enumerate().map(|(tensor, name)| Member::stored(name, &values(tensor))));
    std::fs::write(path, zip(&members)).unwrap();
}

/// The most bytes alive while `work` ran, beyond those before it; what `work` returns is alive too.
fn most_bytes<T>(work: impl FnOnce() -> T) -> (usize, T) {
    MEMORY.reset_peak_usage();
    let before = MEMORY.current_usage();
    let result = work();
    (MEMORY.peak_usage() - before, result)
}

fn assert_once(write: fn(&Path), format: Format) {
    let _turn = turn();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("checkpoint");
    write(&path);
    let (opening, checkpoint) = most_bytes(|| Checkpoint::open(&path).unwrap());
    assert_eq!(checkpoint.format(), format);
    let names: Vec<String> = checkpoint.tensors().into_iter().map(|tensor| tensor.name).collect();
    assert_eq!(names.len(), TENSORS);
    let (as_bytes, all) =
        most_bytes(|| names.iter().map(|name| checkpoint.read_bytes(name).unwrap()).collect::<Vec<_>>());
    assert_eq!(all.iter().map(Vec::len).sum::<usize>(), FILE_BYTES);
    drop(all);
    let (as_floats, all) =
        most_bytes(|| names.iter().map(|name| checkpoint.read_f32(name).unwrap()).collect::<Vec<_>>());
    assert_eq!((all[3][5], all[15][0]), (8.0, 15.0));
    println!("{format:?}: {FILE_BYTES} bytes; opened {opening}, as bytes {as_bytes}, as floats {as_floats}");
    assert!(opening < BESIDES, "opening the file took {opening} bytes");
    assert!(as_bytes < FILE_BYTES + BESIDES, "{as_bytes} bytes for a file of {FILE_BYTES}");
    assert!(as_floats < FILE_BYTES + BESIDES, "{as_floats} bytes for a file of {FILE_BYTES}");
}

#[test]
fn a_safetensors_file_is_held_once() {
    assert_once(write_safetensors, Format::Safetensors);
}

#[test]
fn a_pytorch_file_is_held_once() {
    assert_once(write_torch_zip, Format::TorchZip);
}
