//! Tensors by their name, each read from its file when it is asked for.
//!
//! Files are read by `syncdiff-checkpoint`, which believes nothing in them; here are the tensors that this program can
//! compute with, from a file or from memory.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use syncdiff_checkpoint::{Checkpoint, CheckpointError, TensorInfo, read_numpy_pickle};

use crate::error::{ModelError, ModelResult};

pub use syncdiff_checkpoint::Dtype;

/// Tensors by their name on disk.
pub type TensorMap = BTreeMap<String, StoredTensor>;

/// Whether this program makes numbers of such elements.
fn is_read(dtype: Dtype) -> bool {
    !matches!(dtype, Dtype::F8E4M3 | Dtype::F8E5M2 | Dtype::U64 | Dtype::U32 | Dtype::U16 | Dtype::C64 | Dtype::C128)
}

#[derive(Debug, Clone)]
enum Source {
    /// `f32` elements.
    Memory(Arc<Vec<f32>>),
    /// A tensor of the chosen mapping, by its name there.
    Checkpoint { checkpoint: Arc<Checkpoint>, name: String },
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
        Self::of_values(shape.to_vec(), values.to_vec())
    }

    fn of_values(shape: Vec<usize>, values: Vec<f32>) -> Self {
        assert_eq!(shape.iter().product::<usize>(), values.len(), "values do not fill {shape:?}");
        Self { dtype: Dtype::F32, shape, source: Source::Memory(Arc::new(values)) }
    }

    /// A tensor of the chosen mapping of a checkpoint.
    ///
    /// # Errors
    /// [`ModelError::Weights`] for elements that this program makes no numbers of.
    pub(crate) fn in_checkpoint(checkpoint: &Arc<Checkpoint>, tensor: TensorInfo) -> ModelResult<Self> {
        let TensorInfo { name, dtype, shape } = tensor;
        if !is_read(dtype) {
            let reason = format!("{name} has elements of type {}", dtype.name());
            return Err(ModelError::weights(checkpoint.path(), reason, "Save it as f32 first"));
        }
        Ok(Self { dtype, shape, source: Source::Checkpoint { checkpoint: Arc::clone(checkpoint), name } })
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
    /// [`ModelError::Io`] or [`ModelError::Weights`] when the file cannot be read any more.
    pub fn bytes(&self) -> ModelResult<Vec<u8>> {
        match &self.source {
            Source::Memory(values) => Ok(values.iter().flat_map(|value| value.to_le_bytes()).collect()),
            Source::Checkpoint { checkpoint, name } => {
                checkpoint.read_bytes(name).map_err(|error| unusable(checkpoint.path(), error, COPY_AGAIN))
            }
        }
    }

    /// All elements as `f32`; wider types are rounded to nearest.
    ///
    /// # Errors
    ///
    /// As [`Self::bytes`].
    pub fn to_f32(&self) -> ModelResult<Vec<f32>> {
        match &self.source {
            Source::Memory(values) => Ok(values.as_ref().clone()),
            Source::Checkpoint { checkpoint, name } => {
                checkpoint.read_f32(name).map_err(|error| unusable(checkpoint.path(), error, COPY_AGAIN))
            }
        }
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

const COPY_AGAIN: &str = "Copy or download the file again";

/// What the reader of files says, in the terms of this crate.
fn unusable(path: &Path, error: CheckpointError, remedy: &str) -> ModelError {
    match error {
        CheckpointError::Io { source, .. } => ModelError::io("read", path, source),
        CheckpointError::Refused { budget, found, limit, .. } => ModelError::Limit {
            stage: "weights",
            name: format!("{}: {budget}", path.display()),
            value: found.to_string(),
            limit: limit.to_string(),
            remedy: "This is no file of this program; use other weights".into(),
        },
        CheckpointError::Damaged { reason, .. } | CheckpointError::NotACheckpoint { reason, .. } => {
            ModelError::weights(path, reason, remedy)
        }
        CheckpointError::Unsupported { feature, .. } => ModelError::weights(path, feature, remedy),
        other => ModelError::Checkpoint(other),
    }
}

/// Opens a safetensors file and checks its whole header; the data stays on disk until a tensor is asked for.
///
/// # Errors
///
/// [`ModelError::Io`] when the file cannot be read, [`ModelError::Weights`] when it is not a sound safetensors file,
/// [`ModelError::Limit`] when its header is longer than any honest one.
pub fn open_safetensors(path: &Path) -> ModelResult<TensorMap> {
    let file = File::open(path).map_err(|source| ModelError::io("open", path, source))?;
    open_safetensors_file(file, path)
}

/// As [`open_safetensors`], for a file that is open already (and whose checksum was taken through the same handle).
pub(crate) fn open_safetensors_file(file: File, path: &Path) -> ModelResult<TensorMap> {
    let checkpoint = Checkpoint::from_safetensors_file(path, file);
    let checkpoint = Arc::new(checkpoint.map_err(|error| unusable(path, error, COPY_AGAIN))?);
    let tensor = |info: TensorInfo| Ok((info.name.clone(), StoredTensor::in_checkpoint(&checkpoint, info)?));
    checkpoint.tensors().into_iter().map(tensor).collect()
}

/// The arrays of a pickled dictionary, under the dotted path of their keys, with the axes as they are in the file.
///
/// # Errors
/// [`ModelError::Weights`] for anything but nested dictionaries of little-endian `f32` arrays in row-major order,
/// [`ModelError::Limit`] for a file that asks for more than any honest one.
pub(crate) fn numpy_arrays(path: &Path, bytes: Vec<u8>) -> ModelResult<TensorMap> {
    let remedy = "Use the file of the package that this program names";
    let arrays = read_numpy_pickle(path, bytes).map_err(|error| unusable(path, error, remedy))?;
    Ok(arrays.into_iter().map(|array| (array.name, StoredTensor::of_values(array.shape, array.values))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Seek, Write};
    use syncdiff_checkpoint::limits::SAFETENSORS_HEADER_BYTES;

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
            (r#"{"a":{"dtype":"C64","shape":[],"data_offsets":[0,8]}}"#.to_owned(), 8),
        ] {
            let file = file_of(&header, &vec![0; data_len]);
            let error = open_safetensors(file.path()).unwrap_err();
            assert!(matches!(error, ModelError::Weights { .. }), "{header}: {error}");
            assert!(error.to_string().contains(&*file.path().to_string_lossy()));
        }
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(&u64::MAX.to_le_bytes()).unwrap();
        assert!(matches!(open_safetensors(file.path()), Err(ModelError::Limit { .. })));
        file.as_file_mut().set_len(8 + SAFETENSORS_HEADER_BYTES + 1).unwrap();
        file.rewind().unwrap();
        file.write_all(&(SAFETENSORS_HEADER_BYTES + 1).to_le_bytes()).unwrap();
        assert!(matches!(open_safetensors(file.path()), Err(ModelError::Limit { .. })));
    }

    #[test]
    fn names_stay_and_pickles_are_not_opened() {
        let header = r#"{"module.a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#;
        let map = open_safetensors(file_of(header, &2f32.to_le_bytes()).path()).unwrap();
        assert_eq!(map["module.a"].to_f32().unwrap(), [2.0]);
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(b"\x80\x02}q\x00.").unwrap();
        assert!(matches!(open_safetensors(file.path()), Err(ModelError::Weights { .. })));
    }

    #[test]
    fn foreign_pickles_are_no_arrays() {
        let error = numpy_arrays(Path::new("some.ckpt"), b"\x80\x03cos\nsystem\n.".to_vec()).unwrap_err();
        assert!(matches!(error, ModelError::Weights { .. }), "{error}");
        assert!(error.to_string().contains("os.system") && error.to_string().contains("some.ckpt"), "{error}");
    }
}
