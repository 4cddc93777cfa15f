//! A golden case read without the tensor library, for the crates that do not know it.
#![allow(dead_code, missing_docs, unreachable_pub)]

use std::path::{Path, PathBuf};

use safetensors::{Dtype, SafeTensors};
use serde_json::Value;

use super::find::{self, Reads, Tolerance};

/// One case.
pub struct Case {
    pub folder: PathBuf,
    pub case: Value,
    bytes: Vec<u8>,
    reads: Reads,
}

impl Case {
    /// Every case of a kind.
    pub fn all(kind: &str) -> Vec<Self> {
        find::of_kind(find::cases(), kind).into_iter().map(|(folder, case)| Self::open(&folder, case)).collect()
    }

    /// Every case of a kind below a folder.
    pub fn all_in(root: &Path, kind: &str) -> Vec<Self> {
        let cases = find::of_kind(find::cases_in(root), kind);
        cases.into_iter().map(|(folder, case)| Self::open(&folder, case)).collect()
    }

    fn open(folder: &Path, case: Value) -> Self {
        let path = folder.join("io.safetensors");
        let bytes = std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        Self { folder: folder.to_path_buf(), case, bytes, reads: Reads::default() }
    }

    fn file(&self) -> SafeTensors<'_> {
        SafeTensors::deserialize(&self.bytes).unwrap()
    }

    pub fn names(&self) -> Vec<String> {
        self.file().names().into_iter().map(str::to_owned).collect()
    }

    pub fn shape(&self, name: &str) -> Vec<usize> {
        self.file().tensor(name).unwrap_or_else(|e| panic!("{name}: {e}")).shape().to_vec()
    }

    /// The bytes of a tensor, which must be of this type.
    fn raw(&self, name: &str, dtype: Dtype) -> Vec<u8> {
        let file = self.file();
        let tensor = file.tensor(name).unwrap_or_else(|e| panic!("{}: {name}: {e}", self.folder.display()));
        assert_eq!(tensor.dtype(), dtype, "{name}");
        self.reads.note(name);
        tensor.data().to_vec()
    }

    pub fn bytes(&self, name: &str) -> Vec<u8> {
        self.raw(name, Dtype::U8)
    }

    pub fn f32(&self, name: &str) -> Vec<f32> {
        self.raw(name, Dtype::F32).as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
    }

    pub fn f64(&self, name: &str) -> Vec<f64> {
        self.raw(name, Dtype::F64).as_chunks().0.iter().map(|b| f64::from_le_bytes(*b)).collect()
    }

    pub fn i32(&self, name: &str) -> Vec<i32> {
        self.raw(name, Dtype::I32).as_chunks().0.iter().map(|b| i32::from_le_bytes(*b)).collect()
    }

    pub fn i64(&self, name: &str) -> Vec<i64> {
        self.raw(name, Dtype::I64).as_chunks().0.iter().map(|b| i64::from_le_bytes(*b)).collect()
    }

    pub fn tolerance(&self, what: &str) -> Tolerance {
        Tolerance::of(&self.case, what)
    }

    /// As [`Reads::assert_all`].
    pub fn assert_all_read(&self, left: &[(&str, &str)]) {
        self.reads.assert_all(&self.folder, self.file().names().into_iter(), left);
    }
}
