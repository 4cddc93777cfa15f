//! Golden data of the original implementations: find the cases, read them, compare with them.
//!
//! The folder is `SYNCDIFF_GOLDENS`, by default `../shared/goldens` beside the workspace. When it is absent a test
//! says so and passes.
#![allow(dead_code, missing_docs, unreachable_pub)]

use std::path::{Path, PathBuf};

use burn::tensor::{DType, Device, Tensor, TensorData};
use serde_json::Value;
use syncdiff_model::weights::{StoredTensor, TensorMap, open_safetensors};

/// One variant of a golden case.
pub struct Golden {
    pub folder: PathBuf,
    pub case: Value,
    pub io: TensorMap,
    /// `weights.safetensors` of the variant, when it has one.
    pub weights: Option<TensorMap>,
}

/// Where the golden data should be.
pub fn goldens_folder() -> PathBuf {
    match std::env::var_os("SYNCDIFF_GOLDENS") {
        Some(folder) => folder.into(),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/goldens"),
    }
}

/// The folder and the `case.json` of every golden case, of all kinds; none (with a line that says so) where the data is
/// absent.
pub fn cases() -> Vec<(PathBuf, Value)> {
    let root = goldens_folder();
    if !root.is_dir() {
        println!("skipped: golden data {} absent", root.display());
        return Vec::new();
    }
    let mut found = Vec::new();
    let mut folders = vec![(root.clone(), 0)];
    while let Some((folder, depth)) = folders.pop() {
        if let Ok(text) = std::fs::read_to_string(folder.join("case.json")) {
            let case = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
            found.push((folder, case));
        } else if depth < 3 {
            let inside = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
            folders.extend(inside.filter(|path| path.is_dir()).map(|path| (path, depth + 1)));
        }
    }
    assert!(!found.is_empty(), "{} holds no case.json", root.display());
    found.sort_by(|a, b| a.0.cmp(&b.0));
    found
}

/// The kind of a case, as its `case.json` says.
pub fn kind(case: &Value) -> &str {
    case["case"].as_str().expect("case.json names its case")
}

/// Every case of a kind, whatever its folder is called.
pub fn goldens(wanted: &str) -> Vec<Golden> {
    let cases = cases().into_iter().filter(|(_, case)| kind(case) == wanted);
    let found: Vec<Golden> = cases.map(|(folder, case)| open(&folder, case)).collect();
    if found.is_empty() {
        println!("skipped: golden data of {wanted} absent");
    }
    found
}

/// A case whose `case.json` has been read.
pub fn open(folder: &Path, case: Value) -> Golden {
    let weights = folder.join("weights.safetensors");
    Golden {
        folder: folder.to_path_buf(),
        case,
        io: open_safetensors(&folder.join("io.safetensors")).unwrap(),
        weights: weights.is_file().then(|| open_safetensors(&weights).unwrap()),
    }
}

impl Golden {
    pub fn has(&self, name: &str) -> bool {
        self.io.contains_key(name)
    }

    pub fn stored(&self, name: &str) -> &StoredTensor {
        self.io.get(name).unwrap_or_else(|| panic!("{}: no tensor {name}", self.folder.display()))
    }

    pub fn shape(&self, name: &str) -> &[usize] {
        self.stored(name).shape()
    }

    pub fn f32(&self, name: &str) -> Vec<f32> {
        self.stored(name).to_f32().unwrap()
    }

    pub fn f64(&self, name: &str) -> Vec<f64> {
        self.stored(name).to_f64().unwrap()
    }

    pub fn i64(&self, name: &str) -> Vec<i64> {
        self.stored(name).to_i64().unwrap()
    }

    /// A stored tensor on a device, with `D` axes.
    pub fn tensor<const D: usize>(&self, name: &str, device: &Device) -> Tensor<D> {
        let shape = self.shape(name).to_vec();
        assert_eq!(shape.len(), D, "{name} has shape {shape:?}");
        Tensor::from_data(TensorData::new(self.f32(name), shape), (device, DType::F32))
    }

    /// As [`Self::tensor`], in `f64`.
    pub fn tensor_f64<const D: usize>(&self, name: &str, device: &Device) -> Tensor<D> {
        let shape = self.shape(name).to_vec();
        Tensor::from_data(TensorData::new(self.f64(name), shape), (device, DType::F64))
    }

    /// `case.json` value at `path` (JSON pointer, `/config/encoder/dim`) as a number.
    pub fn number(&self, path: &str) -> usize {
        let value = self.case.pointer(path).unwrap_or_else(|| panic!("{}: no {path}", self.folder.display()));
        value.as_u64().unwrap_or_else(|| panic!("{path} is {value}")) as usize
    }

    /// `case.json` value at `path` as a float.
    pub fn float(&self, path: &str) -> f64 {
        let value = self.case.pointer(path).unwrap_or_else(|| panic!("{}: no {path}", self.folder.display()));
        value.as_f64().unwrap_or_else(|| panic!("{path} is {value}"))
    }

    /// What `case.json` says of a tensor: its shape, and after a semicolon its meaning.
    pub fn meaning(&self, name: &str) -> &str {
        self.case["tensors"][name].as_str().unwrap_or_default()
    }

    /// The stored weights; panics for a *formula* case (see [`generated_weights`]).
    pub fn weights(&self) -> &TensorMap {
        self.weights.as_ref().unwrap_or_else(|| panic!("{} holds no weights.safetensors", self.folder.display()))
    }

    /// Stored weights whose names begin with `prefix`, without it.
    pub fn weights_under(&self, prefix: &str) -> TensorMap {
        let names = self.weights().iter();
        names.filter_map(|(name, t)| Some((name.strip_prefix(prefix)?.to_owned(), t.clone()))).collect()
    }

    /// The weights of a *formula* case: the table at JSON pointer `table` (`/weight_generator/model_tensors`) with the
    /// seed at `seed` (`/weight_generator/seed`).
    pub fn generated_weights(&self, table: &str, seed: &str) -> TensorMap {
        let seed = self.number(seed) as u64;
        let table = self.case.pointer(table).and_then(Value::as_array).unwrap_or_else(|| panic!("no {table}"));
        table
            .iter()
            .map(|entry| {
                let name = entry["name"].as_str().unwrap();
                let shape: Vec<usize> =
                    entry["shape"].as_array().unwrap().iter().map(|axis| axis.as_u64().unwrap() as usize).collect();
                let (scale, offset) = (entry["scale"].as_f64().unwrap(), entry["offset"].as_f64().unwrap());
                let values = generated(name, seed, shape.iter().product(), scale, offset);
                (name.to_owned(), StoredTensor::from_f32(&shape, &values))
            })
            .collect()
    }

    /// Compares with the stored tensor `name`: every `|a - e| <= abs + rel * |e|`.
    pub fn assert_close<const D: usize>(&self, name: &str, actual: Tensor<D>, abs: f64, rel: f64) {
        let (shape, expected) = (self.shape(name), self.f32(name));
        assert_eq!(actual.dims().as_slice(), shape, "{name}: shape");
        assert_close(&self.label(name), &values(actual), &expected, abs, rel);
    }

    /// Compares a gradient: every error at most `rel` of the largest absolute value.
    pub fn assert_grad_close<const D: usize>(&self, name: &str, actual: Tensor<D>, rel: f64) {
        let expected = self.f32(name);
        assert_eq!(actual.dims().as_slice(), self.shape(name), "{name}: shape");
        let largest = expected.iter().fold(0.0f32, |most, value| most.max(value.abs()));
        assert_close(&self.label(name), &values(actual), &expected, rel * f64::from(largest), 0.0);
    }

    fn label(&self, name: &str) -> String {
        let tail: Vec<_> = self.folder.components().rev().take(2).map(|c| c.as_os_str().to_string_lossy()).collect();
        format!("{}/{} {name}", tail[1], tail[0])
    }
}

/// All elements of a tensor as `f32`.
pub fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().convert_dtype(DType::F32).try_to_vec::<f32>().unwrap()
}

/// All elements of a tensor as `f64`.
pub fn values_f64<const D: usize>(tensor: Tensor<D>) -> Vec<f64> {
    tensor.into_data().convert_dtype(DType::F64).try_to_vec::<f64>().unwrap()
}

/// Every `|actual - expected| <= abs + rel * |expected|`; says where the worst value is and how bad.
#[track_caller]
pub fn assert_close(what: &str, actual: &[f32], expected: &[f32], abs: f64, rel: f64) {
    let actual: Vec<f64> = actual.iter().map(|value| f64::from(*value)).collect();
    let expected: Vec<f64> = expected.iter().map(|value| f64::from(*value)).collect();
    assert_close_f64(what, &actual, &expected, abs, rel);
}

/// As [`assert_close`] in `f64`.
#[track_caller]
pub fn assert_close_f64(what: &str, actual: &[f64], expected: &[f64], abs: f64, rel: f64) {
    assert_eq!(actual.len(), expected.len(), "{what}: number of elements");
    let (mut worst, mut bad) = ((0, 0.0f64), 0);
    for (i, (a, e)) in actual.iter().zip(expected).enumerate() {
        // A NaN fails and is the worst there is.
        let error = if a.is_nan() { f64::INFINITY } else { (a - e).abs() };
        bad += usize::from(error > abs + rel * e.abs());
        if error > worst.1 {
            worst = (i, error);
        }
    }
    let (i, error) = worst;
    assert!(
        bad == 0,
        "{what}: {bad} of {} elements outside abs {abs:e} + rel {rel:e}; worst at {i}: got {}, expected {}, off by {error:e}",
        actual.len(),
        actual[i],
        expected[i],
    );
}

/// Values of the generator "SM" (SplitMix64) that the golden data uses in place of stored weights.
pub fn generated(name: &str, seed: u64, count: usize, scale: f64, offset: f64) -> Vec<f32> {
    (0..count as u64)
        .map(|i| {
            let unit = (split_mix(name, seed, i) >> 40) as f64 / f64::from(1 << 24);
            (offset + scale * (2.0 * unit - 1.0)) as f32
        })
        .collect()
}

/// The byte variant of [`generated`].
pub fn generated_bytes(name: &str, seed: u64, count: usize) -> Vec<u8> {
    (0..count as u64).map(|i| (split_mix(name, seed, i) >> 56) as u8).collect()
}

fn split_mix(name: &str, seed: u64, index: u64) -> u64 {
    const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;
    let hash = name
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    let key = hash ^ seed.wrapping_mul(GOLDEN);
    let mut z = key.wrapping_add((index + 1).wrapping_mul(GOLDEN));
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}
