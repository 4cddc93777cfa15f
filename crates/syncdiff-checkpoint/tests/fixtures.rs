//! Checkpoints that PyTorch wrote, compared with what PyTorch reads from them.

mod common;

use std::path::Path;

use serde_json::Value as Json;
use syncdiff_checkpoint::{Checkpoint, CheckpointError, Format, Value};

fn expected(path: &Path) -> Json {
    serde_json::from_slice(&std::fs::read(path).expect("readable")).expect("JSON")
}

fn value_at(checkpoint: &Checkpoint, path: &str) -> Value {
    let keys: Vec<&str> = path.split('.').filter(|key| !key.is_empty()).collect();
    checkpoint.value(&keys).unwrap().unwrap_or_else(|| panic!("nothing at {path}"))
}

#[test]
fn every_fixture_reads_as_pytorch_reads_it() {
    let mut compared = 0;
    for entry in std::fs::read_dir(common::fixtures()).expect("fixtures").flatten() {
        let path = entry.path();
        if path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        let expected = expected(&path);
        let file = common::fixtures().join(expected["file"].as_str().expect("a name"));
        let checkpoint = Checkpoint::open(&file).unwrap_or_else(|error| panic!("{error}"));
        let form = match checkpoint.format() {
            Format::TorchZip => "zip",
            Format::TorchLegacy => "legacy",
            Format::Safetensors => "safetensors",
        };
        assert_eq!(form, expected["form"], "{file:?}");
        assert_eq!(checkpoint.root().expect("a root").path, expected["root"].as_str().unwrap(), "{file:?}");
        let tensors = checkpoint.tensors();
        let listed = expected["tensors"].as_array().expect("tensors");
        let sorted = |mut names: Vec<String>| {
            // A safetensors header has no order.
            names.sort();
            names
        };
        assert_eq!(
            sorted(tensors.iter().map(|tensor| tensor.name.clone()).collect()),
            sorted(listed.iter().map(|tensor| tensor["name"].as_str().unwrap().to_owned()).collect()),
            "{file:?}"
        );
        for tensor in listed {
            let name = tensor["name"].as_str().unwrap();
            let found = tensors.iter().find(|found| found.name == name).unwrap();
            assert_eq!(found.dtype.name(), tensor["dtype"], "{file:?} {name}");
            assert_eq!(serde_json::json!(found.shape), tensor["shape"], "{file:?} {name}");
            let values: Vec<f32> = serde_json::from_value(tensor["values"].clone()).unwrap();
            assert_eq!(checkpoint.read_f32(name).unwrap(), values, "{file:?} {name}");
            let bytes = checkpoint.read_bytes(name).unwrap();
            assert_eq!(bytes.len(), values.len() * found.dtype.size(), "{file:?} {name}");
            compared += 1;
        }
        for (path, value) in expected["values"].as_object().expect("values") {
            assert_eq!(&value_at(&checkpoint, path).to_json(), value, "{file:?} {path}");
        }
    }
    assert!(compared > 150, "only {compared} tensors were compared");
}

#[test]
fn other_mappings_can_be_chosen_and_foreign_classes_are_named() {
    let mut checkpoint = Checkpoint::open(&common::fixtures().join("fairseq.pt")).unwrap();
    let foreign = checkpoint.foreign_classes();
    for name in ["argparse.Namespace", "fairseq.data.dictionary.Dictionary", "some.project.config.AttributeDict"] {
        assert!(foreign.contains(&name), "{foreign:?}");
    }
    let symbols = value_at(&checkpoint, "task_state");
    let Value::List(dictionaries) = symbols.get("dictionaries").unwrap() else { panic!("{symbols:?}") };
    assert_eq!(dictionaries[0].get("indices").and_then(|map| map.get("AH")), Some(&Value::Int(4)));
    assert!(checkpoint.all_tensors().iter().any(|tensor| tensor.name == "last_optimizer_state.state.3.exp_avg"));
    // No tensor lies in this one itself.
    assert!(matches!(checkpoint.choose_root("task_state.seen"), Err(CheckpointError::Absent { .. })));
    checkpoint.choose_root("task_state.seen.valid").unwrap();
    assert_eq!(checkpoint.read_f32("0").unwrap(), [1.0, 2.0]);
    assert!(matches!(checkpoint.choose_root("nowhere"), Err(CheckpointError::Absent { .. })));
    assert_eq!(checkpoint.root().unwrap().path, "task_state.seen.valid");
}

#[test]
fn names_of_parallel_training_are_read_with_and_without_their_prefix_in_place() {
    let checkpoint = Checkpoint::open(&common::fixtures().join("parallel.pth")).unwrap();
    assert!(checkpoint.tensors().iter().all(|tensor| tensor.name.starts_with("layer.")));
    assert!(checkpoint.all_tensors().iter().any(|tensor| tensor.name == "state_dict.module.layer.float32"));
    assert!(matches!(checkpoint.read_f32("module.layer.float32"), Err(CheckpointError::Absent { .. })));
}

#[test]
fn files_of_other_kinds_are_named_for_what_they_are() {
    for (bytes, words) in [
        (&b""[..], "empty"),
        (b"<!DOCTYPE html><html>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        (b"\x1f\x8b\x08\0\0\0\0\0", "gzip"),
        (b"just text\n", "no known form"),
        (b"\x80\x02}q\0.", "magic number"),
        (&common::zip(&[common::Member::stored("a.npy", b"x")]), "data.pkl"),
    ] {
        let error = Checkpoint::from_bytes("x.pt", bytes.to_vec()).unwrap_err();
        assert!(matches!(error, CheckpointError::NotACheckpoint { .. }), "{error}");
        assert!(error.to_string().contains(words) && error.to_string().starts_with("x.pt: "), "{error}");
    }
    let missing = Checkpoint::open(Path::new("/nowhere/x.pt")).unwrap_err();
    assert!(matches!(missing, CheckpointError::Io { .. }), "{missing}");
    let folder = Checkpoint::open(&common::fixtures()).unwrap_err();
    assert!(matches!(folder, CheckpointError::NotACheckpoint { .. }), "{folder}");
}
