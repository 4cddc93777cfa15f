//! A safetensors file as a map of tensors that are read when asked for.
//!
//! The header is parsed here rather than by a library because nothing in it may be believed: its length is bounded,
//! the ranges must tile the data exactly, and each range must fit its shape and element type.
//!
//! # Source
//! The safetensors format: eight bytes little-endian header length, a JSON header, then the data.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use serde::Deserialize;
use syncdiff_checkpoint::Checkpoint;

use crate::error::{ModelError, ModelResult};

/// Largest header accepted; that of the largest model here (about 1200 tensors) is below 200 KB.
pub const HEADER_LIMIT_BYTES: u64 = 16 * 1024 * 1024;

/// Tensors by their name on disk.
pub type TensorMap = BTreeMap<String, StoredTensor>;

/// Element types that can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[allow(missing_docs)]
pub enum Dtype {
    F64,
    F32,
    F16,
    BF16,
    I64,
    I32,
    I16,
    I8,
    U8,
    #[serde(rename = "BOOL")]
    Bool,
}

impl Dtype {
    /// Bytes of one element.
    pub fn size(self) -> usize {
        match self {
            Self::F64 | Self::I64 => 8,
            Self::F32 | Self::I32 => 4,
            Self::F16 | Self::BF16 | Self::I16 => 2,
            Self::I8 | Self::U8 | Self::Bool => 1,
        }
    }

    /// The same type of a checkpoint, where this program has it.
    pub(crate) fn from_checkpoint(dtype: syncdiff_checkpoint::Dtype) -> Option<Self> {
        use syncdiff_checkpoint::Dtype as Theirs;
        Some(match dtype {
            Theirs::F64 => Self::F64,
            Theirs::F32 => Self::F32,
            Theirs::F16 => Self::F16,
            Theirs::BF16 => Self::BF16,
            Theirs::I64 => Self::I64,
            Theirs::I32 => Self::I32,
            Theirs::I16 => Self::I16,
            Theirs::I8 => Self::I8,
            Theirs::U8 => Self::U8,
            Theirs::Bool => Self::Bool,
            _ => return None,
        })
    }

    /// Whether the elements are floating-point numbers.
    pub fn is_float(self) -> bool {
        matches!(self, Self::F64 | Self::F32 | Self::F16 | Self::BF16)
    }
}

#[derive(Debug, Clone)]
enum Source {
    Memory(Arc<Vec<u8>>),
    File {
        file: Arc<Mutex<File>>,
        path: Arc<PathBuf>,
        offset: u64,
    },
    /// A tensor of the chosen mapping, by its name there.
    Checkpoint {
        checkpoint: Arc<Checkpoint>,
        name: String,
    },
}

/// One tensor of a file or of memory.
#[derive(Debug, Clone)]
pub struct StoredTensor {
    dtype: Dtype,
    shape: Vec<usize>,
    source: Source,
}

impl StoredTensor {
    /// A tensor in memory.
    ///
    /// # Panics
    ///
    /// When `values` does not fill `shape`.
    pub fn from_f32(shape: &[usize], values: &[f32]) -> Self {
        assert_eq!(shape.iter().product::<usize>(), values.len(), "values do not fill {shape:?}");
        let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        Self { dtype: Dtype::F32, shape: shape.to_vec(), source: Source::Memory(Arc::new(bytes)) }
    }

    /// A tensor of a checkpoint of another project.
    pub(crate) fn in_checkpoint(checkpoint: Arc<Checkpoint>, name: &str, dtype: Dtype, shape: &[usize]) -> Self {
        Self { dtype, shape: shape.to_vec(), source: Source::Checkpoint { checkpoint, name: name.to_owned() } }
    }

    /// Element type.
    pub fn dtype(&self) -> Dtype {
        self.dtype
    }

    /// Shape, outermost axis first; empty for a scalar.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Number of elements.
    pub fn num_elements(&self) -> usize {
        self.shape.iter().product()
    }

    /// The raw little-endian bytes.
    ///
    /// # Errors
    ///
    /// [`ModelError::Io`] or [`ModelError::Checkpoint`] when the file cannot be read any more.
    pub fn bytes(&self) -> ModelResult<Vec<u8>> {
        match &self.source {
            Source::Memory(bytes) => Ok(bytes.as_ref().clone()),
            Source::Checkpoint { checkpoint, name } => Ok(checkpoint.read_bytes(name)?),
            Source::File { file, path, offset } => {
                let mut bytes = vec![0; self.num_elements() * self.dtype.size()];
                let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
                file.seek(SeekFrom::Start(*offset))
                    .and_then(|_| file.read_exact(&mut bytes))
                    .map_err(|source| ModelError::io("read", path, source))?;
                Ok(bytes)
            }
        }
    }

    /// All elements as `f32`; wider types are rounded to nearest.
    ///
    /// # Errors
    ///
    /// As [`Self::bytes`].
    pub fn to_f32(&self) -> ModelResult<Vec<f32>> {
        if self.dtype == Dtype::F32 {
            return Ok(elements(&self.bytes()?, f32::from_le_bytes).collect());
        }
        Ok(self.to_f64()?.into_iter().map(|value| value as f32).collect())
    }

    /// All elements as `f64`.
    ///
    /// # Errors
    ///
    /// As [`Self::bytes`].
    pub fn to_f64(&self) -> ModelResult<Vec<f64>> {
        let bytes = self.bytes()?;
        Ok(match self.dtype {
            Dtype::F64 => elements(&bytes, f64::from_le_bytes).collect(),
            Dtype::F32 => elements(&bytes, f32::from_le_bytes).map(f64::from).collect(),
            Dtype::F16 => elements(&bytes, half::f16::from_le_bytes).map(f64::from).collect(),
            Dtype::BF16 => elements(&bytes, half::bf16::from_le_bytes).map(f64::from).collect(),
            _ => self.to_i64()?.into_iter().map(|value| value as f64).collect(),
        })
    }

    /// All elements as `i64`.
    ///
    /// # Errors
    ///
    /// As [`Self::bytes`]; [`ModelError::Internal`] for floating-point elements.
    pub fn to_i64(&self) -> ModelResult<Vec<i64>> {
        let bytes = self.bytes()?;
        Ok(match self.dtype {
            Dtype::I64 => elements(&bytes, i64::from_le_bytes).collect(),
            Dtype::I32 => elements(&bytes, i32::from_le_bytes).map(i64::from).collect(),
            Dtype::I16 => elements(&bytes, i16::from_le_bytes).map(i64::from).collect(),
            Dtype::I8 => elements(&bytes, i8::from_le_bytes).map(i64::from).collect(),
            Dtype::U8 | Dtype::Bool => bytes.into_iter().map(i64::from).collect(),
            _ => return Err(ModelError::internal("weights", format!("{:?} read as integers", self.dtype))),
        })
    }
}

fn elements<T, const N: usize>(bytes: &[u8], convert: impl Fn([u8; N]) -> T) -> impl Iterator<Item = T> {
    let (chunks, _) = bytes.as_chunks::<N>();
    chunks.iter().map(move |chunk| convert(*chunk))
}

#[derive(Deserialize)]
struct HeaderEntry {
    dtype: Dtype,
    shape: Vec<u64>,
    data_offsets: [u64; 2],
}

/// Opens a safetensors file and checks its whole header; the data stays on disk until a tensor is asked for.
///
/// # Errors
///
/// [`ModelError::Io`] when the file cannot be read, [`ModelError::Weights`] when it is not a sound safetensors file,
/// [`ModelError::Limit`] when its header is longer than [`HEADER_LIMIT_BYTES`].
pub fn open_safetensors(path: &Path) -> ModelResult<TensorMap> {
    let file = File::open(path).map_err(|source| ModelError::io("open", path, source))?;
    open_safetensors_file(file, path)
}

/// As [`open_safetensors`], for a file that is open already (and whose checksum was taken through the same handle).
pub(crate) fn open_safetensors_file(mut file: File, path: &Path) -> ModelResult<TensorMap> {
    let broken = |reason: String| {
        ModelError::weights(path, format!("not a sound safetensors file: {reason}"), "Copy or download the file again")
    };
    let io = |source| ModelError::io("read", path, source);
    let file_len = file.metadata().map_err(io)?.len();
    if file_len < 8 {
        return Err(broken(format!("{file_len} bytes, shorter than the eight of the header length")));
    }
    let mut length = [0; 8];
    file.seek(SeekFrom::Start(0)).and_then(|_| file.read_exact(&mut length)).map_err(io)?;
    let header_len = u64::from_le_bytes(length);
    if header_len > file_len - 8 {
        return Err(broken(format!("a header of {header_len} bytes in a file of {file_len}")));
    }
    if header_len > HEADER_LIMIT_BYTES {
        return Err(ModelError::Limit {
            stage: "weights",
            name: format!("header of {} in bytes", path.display()),
            value: header_len.to_string(),
            limit: HEADER_LIMIT_BYTES.to_string(),
            remedy: "This is no file of this program; use other weights".into(),
        });
    }
    let mut header = vec![0; header_len as usize];
    file.read_exact(&mut header).map_err(io)?;
    let mut entries: BTreeMap<String, serde_json::Value> =
        serde_json::from_slice(&header).map_err(|error| broken(format!("header: {error}")))?;
    entries.remove("__metadata__");

    let data_len = file_len - 8 - header_len;
    let (file, shared_path) = (Arc::new(Mutex::new(file)), Arc::new(path.to_path_buf()));
    let mut ranges = Vec::with_capacity(entries.len());
    let mut map = TensorMap::new();
    for (name, entry) in entries {
        let entry: HeaderEntry =
            serde_json::from_value(entry).map_err(|error| broken(format!("tensor {name:?}: {error}")))?;
        let [start, end] = entry.data_offsets;
        let size = entry
            .shape
            .iter()
            .try_fold(entry.dtype.size() as u64, |size, axis| size.checked_mul(*axis))
            .filter(|size| end.checked_sub(start) == Some(*size) && end <= data_len)
            .ok_or_else(|| broken(format!("tensor {name:?}: range {start}..{end} does not fit {:?}", entry.shape)))?;
        ranges.push((start, size));
        let shape = entry.shape.iter().map(|axis| *axis as usize).collect();
        let source =
            Source::File { file: Arc::clone(&file), path: Arc::clone(&shared_path), offset: 8 + header_len + start };
        map.insert(name, StoredTensor { dtype: entry.dtype, shape, source });
    }
    ranges.sort_unstable();
    let mut position = 0;
    for (start, size) in ranges {
        if start != position {
            return Err(broken(format!("a hole or an overlap at byte {position} of the data")));
        }
        position += size;
    }
    if position != data_len {
        return Err(broken(format!("{data_len} bytes of data, {position} of them in tensors")));
    }
    Ok(map)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn file_of(header: &str, data: &[u8]) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(&(header.len() as u64).to_le_bytes()).unwrap();
        file.write_all(header.as_bytes()).unwrap();
        file.write_all(data).unwrap();
        file
    }

    #[test]
    fn reads_every_number_type_as_f32() {
        let header = r#"{"__metadata__":{"format":"pt"},"a":{"dtype":"F16","shape":[1],"data_offsets":[0,2]},
            "b":{"dtype":"BF16","shape":[],"data_offsets":[2,4]},"c":{"dtype":"I16","shape":[1],"data_offsets":[4,6]},
            "d":{"dtype":"F64","shape":[1],"data_offsets":[6,14]}}"#;
        let mut data = half::f16::from_f32(1.5).to_le_bytes().to_vec();
        data.extend(half::bf16::from_f32(-2.0).to_le_bytes());
        data.extend((-7i16).to_le_bytes());
        data.extend(0.1f64.to_le_bytes());
        let map = open_safetensors(file_of(header, &data).path()).unwrap();
        let values: Vec<f32> = map.values().flat_map(|tensor| tensor.to_f32().unwrap()).collect();
        assert_eq!(values, [1.5, -2.0, -7.0, 0.1]);
        assert_eq!(map["b"].shape(), &[] as &[usize]);
    }

    #[test]
    fn hostile_files_are_refused_with_the_path_in_the_message() {
        let entry = |range: &str| format!(r#"{{"a":{{"dtype":"F32","shape":[1],"data_offsets":{range}}}}}"#);
        let huge = r#"{"a":{"dtype":"F32","shape":[4611686018427387905,4],"data_offsets":[0,16]}}"#;
        for (header, data_len) in [
            (entry("[0,4]"), 3),
            (entry("[0,4]"), 5),
            (entry("[1,5]"), 5),
            (entry("[4,0]"), 4),
            (entry("[0,8]"), 8),
            (huge.to_owned(), 16),
            ("{".to_owned(), 0),
            (r#"{"a":3}"#.to_owned(), 0),
            (r#"{"a":{"dtype":"Q9","shape":[],"data_offsets":[0,1]}}"#.to_owned(), 1),
        ] {
            let file = file_of(&header, &vec![0; data_len]);
            let error = open_safetensors(file.path()).unwrap_err();
            assert!(matches!(error, ModelError::Weights { .. }), "{header}: {error}");
            assert!(error.to_string().contains(&*file.path().to_string_lossy()));
        }
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(&u64::MAX.to_le_bytes()).unwrap();
        assert!(matches!(open_safetensors(file.path()), Err(ModelError::Weights { .. })));
        file.as_file_mut().set_len(8 + HEADER_LIMIT_BYTES + 1).unwrap();
        file.rewind().unwrap();
        file.write_all(&(HEADER_LIMIT_BYTES + 1).to_le_bytes()).unwrap();
        assert!(matches!(open_safetensors(file.path()), Err(ModelError::Limit { .. })));
    }
}
