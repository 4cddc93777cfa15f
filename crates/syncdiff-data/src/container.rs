//! One safetensors file: named arrays and a table of words, written whole and read into one buffer.
//!
//! The writer is our own because the bytes must not depend on the order of a hash table: equal
//! content gives equal files. The reader is that of the `safetensors` crate, with its checks.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::path::{Path, PathBuf};

use safetensors::{Dtype, SafeTensors};

use crate::atomic::write_whole;
use crate::error::DataError;

/// An array to be written.
pub(crate) struct Array<'a> {
    pub(crate) name: &'a str,
    pub(crate) dtype: Dtype,
    pub(crate) shape: Vec<usize>,
    pub(crate) bytes: &'a [u8],
}

fn dtype_name(dtype: Dtype) -> Result<&'static str, DataError> {
    Ok(match dtype {
        Dtype::U8 => "U8",
        Dtype::I16 => "I16",
        Dtype::F16 => "F16",
        Dtype::F32 => "F32",
        other => {
            let detail = format!("arrays of {other:?} are not written");
            return Err(DataError::Internal { stage: "write arrays", detail });
        }
    })
}

/// Writes the arrays in the given order (wide types first keep all of them aligned).
pub(crate) fn write_container(
    path: &Path,
    words: &BTreeMap<String, String>,
    arrays: &[Array<'_>],
) -> Result<(), DataError> {
    let mut header = serde_json::Map::new();
    header.insert("__metadata__".into(), serde_json::json!(words));
    let mut offset = 0;
    for array in arrays {
        let end = offset + array.bytes.len();
        let entry = serde_json::json!({
            "dtype": dtype_name(array.dtype)?,
            "shape": array.shape,
            "data_offsets": [offset, end],
        });
        header.insert(array.name.into(), entry);
        offset = end;
    }
    let mut header = serde_json::Value::Object(header).to_string().into_bytes();
    // The format allows spaces behind the header, so that the data begin on a multiple of 8.
    header.resize(header.len().next_multiple_of(8), b' ');
    write_whole(path, |file| {
        file.write_all(&(header.len() as u64).to_le_bytes())?;
        file.write_all(&header)?;
        arrays.iter().try_for_each(|array| file.write_all(array.bytes))
    })
}

/// A file in memory.
#[derive(Debug)]
pub(crate) struct Container {
    stage: &'static str,
    path: PathBuf,
    pub(crate) bytes: Vec<u8>,
    pub(crate) words: HashMap<String, String>,
    arrays: HashMap<String, (Dtype, Vec<usize>, Range<usize>)>,
}

impl Container {
    pub(crate) fn read(stage: &'static str, path: &Path) -> Result<Self, DataError> {
        let bytes = std::fs::read(path).map_err(|error| DataError::io(stage, path, error))?;
        Self::parse(stage, path, bytes)
    }

    /// The arrays and words in the bytes of a file, or of a part of one; `path` is for messages.
    pub(crate) fn parse(stage: &'static str, path: &Path, bytes: Vec<u8>) -> Result<Self, DataError> {
        let bad = |error: safetensors::SafeTensorError| {
            DataError::bad_file(stage, path, format!("not a whole safetensors file: {error}"))
        };
        let (header_len, metadata) = SafeTensors::read_metadata(&bytes).map_err(bad)?;
        let data = header_len + 8;
        let arrays: HashMap<_, _> = metadata
            .tensors()
            .into_iter()
            .map(|(name, info)| {
                let (start, end) = info.data_offsets;
                (name, (info.dtype, info.shape.clone(), data + start..data + end))
            })
            .collect();
        if let Some((name, _)) = arrays.iter().find(|(_, (_, _, at))| at.end > bytes.len()) {
            return Err(DataError::bad_file(stage, path, format!("array `{name}` is cut off")));
        }
        let words = metadata.metadata().clone().unwrap_or_default();
        Ok(Container { stage, path: path.to_path_buf(), bytes, words, arrays })
    }

    /// Type, shape and place of an array.
    pub(crate) fn array(&self, name: &str) -> Result<(Dtype, &[usize], Range<usize>), DataError> {
        match self.arrays.get(name) {
            Some((dtype, shape, range)) => Ok((*dtype, shape, range.clone())),
            None => Err(self.bad(format!("there is no array `{name}`"))),
        }
    }

    /// Place of an array of known type and shape.
    pub(crate) fn expect(&self, name: &str, dtype: Dtype, shape: &[usize]) -> Result<Range<usize>, DataError> {
        let (found_dtype, found_shape, range) = self.array(name)?;
        if found_dtype != dtype || found_shape != shape {
            return Err(
                self.bad(format!("array `{name}` is {found_dtype:?} {found_shape:?}, expected {dtype:?} {shape:?}"))
            );
        }
        Ok(range)
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.arrays.keys().map(String::as_str)
    }

    pub(crate) fn word(&self, name: &str) -> Result<&str, DataError> {
        match self.words.get(name) {
            Some(word) => Ok(word),
            None => Err(self.bad(format!("the header does not tell `{name}`"))),
        }
    }

    pub(crate) fn bad(&self, detail: String) -> DataError {
        DataError::bad_file(self.stage, &self.path, detail)
    }
}

/// Little-endian bytes.
pub(crate) fn f32_bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

/// From little-endian bytes.
pub(crate) fn f32_values(bytes: &[u8]) -> Vec<f32> {
    bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
}

/// Little-endian bytes.
pub(crate) fn i16_bytes(values: &[i16]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

/// From little-endian bytes.
pub(crate) fn i16_values(bytes: &[u8]) -> Vec<i16> {
    bytes.chunks_exact(2).map(|b| i16::from_le_bytes([b[0], b[1]])).collect()
}
