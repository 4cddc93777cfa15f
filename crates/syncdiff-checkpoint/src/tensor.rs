//! Tensors as views of storages: element types, bounds, and their values as contiguous bytes.

use crate::error::{Outcome, Problem, within};
use crate::limits;

/// Type of the elements of a tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum Dtype {
    F64,
    F32,
    F16,
    BF16,
    F8E4M3,
    F8E5M2,
    I64,
    I32,
    I16,
    I8,
    U64,
    U32,
    U16,
    U8,
    Bool,
    /// Two `f32`.
    C64,
    /// Two `f64`.
    C128,
}

impl Dtype {
    /// Bytes of one element.
    pub fn size(self) -> usize {
        match self {
            Self::C128 => 16,
            Self::F64 | Self::I64 | Self::U64 | Self::C64 => 8,
            Self::F32 | Self::I32 | Self::U32 => 4,
            Self::F16 | Self::BF16 | Self::I16 | Self::U16 => 2,
            Self::F8E4M3 | Self::F8E5M2 | Self::I8 | Self::U8 | Self::Bool => 1,
        }
    }

    /// Whether the elements are real floating-point numbers of a common kind.
    pub fn is_float(self) -> bool {
        matches!(self, Self::F64 | Self::F32 | Self::F16 | Self::BF16)
    }

    /// The name that safetensors gives it.
    pub fn name(self) -> &'static str {
        match self {
            Self::F64 => "F64",
            Self::F32 => "F32",
            Self::F16 => "F16",
            Self::BF16 => "BF16",
            Self::F8E4M3 => "F8_E4M3",
            Self::F8E5M2 => "F8_E5M2",
            Self::I64 => "I64",
            Self::I32 => "I32",
            Self::I16 => "I16",
            Self::I8 => "I8",
            Self::U64 => "U64",
            Self::U32 => "U32",
            Self::U16 => "U16",
            Self::U8 => "U8",
            Self::Bool => "BOOL",
            Self::C64 => "C64",
            Self::C128 => "C128",
        }
    }

    /// By the name that safetensors gives it.
    pub(crate) fn from_name(name: &str) -> Option<Self> {
        const ALL: [Dtype; 17] = [
            Dtype::F64,
            Dtype::F32,
            Dtype::F16,
            Dtype::BF16,
            Dtype::F8E4M3,
            Dtype::F8E5M2,
            Dtype::I64,
            Dtype::I32,
            Dtype::I16,
            Dtype::I8,
            Dtype::U64,
            Dtype::U32,
            Dtype::U16,
            Dtype::U8,
            Dtype::Bool,
            Dtype::C64,
            Dtype::C128,
        ];
        ALL.into_iter().find(|dtype| dtype.name() == name)
    }

    /// `float32`, as in `torch.float32`.
    pub(crate) fn from_torch(name: &str) -> Option<Self> {
        Some(match name {
            "float64" => Self::F64,
            "float32" => Self::F32,
            "float16" => Self::F16,
            "bfloat16" => Self::BF16,
            "float8_e4m3fn" => Self::F8E4M3,
            "float8_e5m2" => Self::F8E5M2,
            "int64" => Self::I64,
            "int32" => Self::I32,
            "int16" => Self::I16,
            "int8" => Self::I8,
            "uint64" => Self::U64,
            "uint32" => Self::U32,
            "uint16" => Self::U16,
            "uint8" => Self::U8,
            "bool" => Self::Bool,
            "complex64" => Self::C64,
            "complex128" => Self::C128,
            _ => return None,
        })
    }

    /// `FloatStorage`, as in `torch.FloatStorage`; an untyped storage has bytes.
    pub(crate) fn from_storage_class(name: &str) -> Option<Self> {
        Some(match name {
            "DoubleStorage" => Self::F64,
            "FloatStorage" => Self::F32,
            "HalfStorage" => Self::F16,
            "BFloat16Storage" => Self::BF16,
            "LongStorage" => Self::I64,
            "IntStorage" => Self::I32,
            "ShortStorage" => Self::I16,
            "CharStorage" => Self::I8,
            "ByteStorage" | "UntypedStorage" | "_UntypedStorage" => Self::U8,
            "BoolStorage" => Self::Bool,
            "ComplexFloatStorage" => Self::C64,
            "ComplexDoubleStorage" => Self::C128,
            _ => return None,
        })
    }
}

/// A storage as a pickle names it: its bytes lie elsewhere in the file.
#[derive(Debug, Clone)]
pub(crate) struct StorageRef {
    pub(crate) key: Box<str>,
    pub(crate) dtype: Dtype,
    /// First element, where this is a part of the storage called `key`.
    pub(crate) first: u64,
    pub(crate) elements: u64,
}

/// A tensor: which elements of a storage, in which order.
#[derive(Debug, Clone)]
pub(crate) struct View {
    pub(crate) key: Box<str>,
    pub(crate) dtype: Dtype,
    pub(crate) sizes: Box<[u64]>,
    strides: Box<[u64]>,
    /// First byte of the storage that belongs to the view, and the byte behind its last one.
    start: u64,
    end: u64,
    /// Elements of the view.
    pub(crate) elements: u64,
}

fn too_large(sizes: &[u64]) -> Problem {
    Problem::damaged(format!("a tensor of shape {sizes:?} is larger than any file"))
}

impl View {
    /// Checks that every element lies inside the storage, as far as the pickle tells its size.
    pub(crate) fn new(
        storage: StorageRef,
        dtype: Dtype,
        offset: u64,
        sizes: Vec<u64>,
        strides: Vec<u64>,
    ) -> Outcome<Self> {
        if sizes.len() != strides.len() {
            return Err(Problem::damaged(format!("a tensor with {} sizes and {} strides", sizes.len(), strides.len())));
        }
        let elements = sizes.iter().try_fold(1u64, |product, size| product.checked_mul(*size));
        let elements = elements.ok_or_else(|| too_large(&sizes))?;
        let size = dtype.size() as u64;
        let storage_start = storage.first.checked_mul(storage.dtype.size() as u64);
        let storage_len = storage.elements.checked_mul(storage.dtype.size() as u64);
        let (Some(storage_start), Some(storage_len)) = (storage_start, storage_len) else {
            return Err(Problem::damaged(format!(
                "a storage of {} elements is larger than any file",
                storage.elements
            )));
        };
        // Index behind the last element, all counted from the first of the storage.
        let last = sizes.iter().zip(&strides).try_fold(offset, |last, (size, stride)| {
            size.saturating_sub(1).checked_mul(*stride).and_then(|steps| last.checked_add(steps))
        });
        let end_index = if elements == 0 { Some(0) } else { last.and_then(|last| last.checked_add(1)) };
        let len = end_index.and_then(|end| end.checked_mul(size));
        let Some(len) = len.filter(|len| *len <= storage_len) else {
            return Err(Problem::damaged(format!(
                "a tensor of shape {sizes:?} with strides {strides:?} from element {offset} on reaches beyond its \
                 storage of {storage_len} bytes"
            )));
        };
        // A stride of 0 makes more elements than there are numbers in the file.
        if elements > storage_len / size {
            within("the number of elements of an expanded tensor", elements, limits::EXPANDED_ELEMENTS)?;
        }
        let start = if elements == 0 { 0 } else { offset * size };
        let Some(end) = storage_start.checked_add(len.max(start)) else { return Err(too_large(&sizes)) };
        Ok(Self {
            key: storage.key,
            dtype,
            sizes: sizes.into(),
            strides: strides.into(),
            start: storage_start + start,
            end,
            elements,
        })
    }

    /// A view of all of a range of bytes, in order (safetensors).
    pub(crate) fn whole(dtype: Dtype, sizes: Vec<u64>, start: u64, end: u64) -> Outcome<Self> {
        let elements = sizes.iter().try_fold(1u64, |product, size| product.checked_mul(*size));
        let len = elements.and_then(|elements| elements.checked_mul(dtype.size() as u64));
        let (Some(elements), Some(_)) = (elements, len.filter(|len| start.checked_add(*len) == Some(end))) else {
            return Err(Problem::damaged(format!(
                "a tensor of {} elements of shape {sizes:?} in the bytes {start} to {end}",
                dtype.name()
            )));
        };
        let mut strides = vec![1; sizes.len()];
        for axis in (1..sizes.len()).rev() {
            // Overflows only where an outer axis is 0 and no stride is used.
            strides[axis - 1] = sizes[axis].wrapping_mul(strides[axis]);
        }
        Ok(Self { key: "".into(), dtype, sizes: sizes.into(), strides: strides.into(), start, end, elements })
    }

    /// First byte of the storage that is needed, and the byte behind the last one.
    pub(crate) fn range(&self) -> (u64, u64) {
        (self.start, self.end)
    }

    /// Bytes of all elements side by side.
    pub(crate) fn byte_len(&self) -> u64 {
        self.elements * self.dtype.size() as u64
    }

    /// Whether the elements lie side by side in the order of the shape.
    pub(crate) fn is_contiguous(&self) -> bool {
        let mut expected = 1;
        for (size, stride) in self.sizes.iter().zip(&self.strides).rev() {
            if *size != 1 && *stride != expected {
                return self.elements == 0;
            }
            expected = size.saturating_mul(expected);
        }
        true
    }

    /// Puts elements side by side: `span` is what [`Self::range`] names.
    pub(crate) fn gather(&self, span: &[u8]) -> Vec<u8> {
        let size = self.dtype.size();
        let mut bytes = Vec::with_capacity(self.byte_len() as usize);
        let mut index = vec![0u64; self.sizes.len()];
        let mut at = 0u64;
        for _ in 0..self.elements {
            let start = at as usize * size;
            bytes.extend_from_slice(&span[start..start + size]);
            for axis in (0..self.sizes.len()).rev() {
                index[axis] += 1;
                at += self.strides[axis];
                if index[axis] < self.sizes[axis] {
                    break;
                }
                at -= self.strides[axis] * self.sizes[axis];
                index[axis] = 0;
            }
        }
        bytes
    }
}

/// Little-endian elements of a common kind as `f32`, wider ones rounded to nearest.
pub(crate) fn extend_f32(values: &mut Vec<f32>, dtype: Dtype, bytes: &[u8]) -> Outcome<()> {
    fn chunks<const N: usize>(values: &mut Vec<f32>, bytes: &[u8], convert: impl Fn([u8; N]) -> f32) {
        values.extend(bytes.as_chunks::<N>().0.iter().map(|chunk| convert(*chunk)));
    }
    match dtype {
        Dtype::F32 => chunks(values, bytes, f32::from_le_bytes),
        Dtype::F64 => chunks(values, bytes, |chunk| f64::from_le_bytes(chunk) as f32),
        Dtype::F16 => chunks(values, bytes, |chunk| half::f16::from_le_bytes(chunk).to_f32()),
        Dtype::BF16 => chunks(values, bytes, |chunk| half::bf16::from_le_bytes(chunk).to_f32()),
        Dtype::I64 => chunks(values, bytes, |chunk| i64::from_le_bytes(chunk) as f32),
        Dtype::I32 => chunks(values, bytes, |chunk| i32::from_le_bytes(chunk) as f32),
        Dtype::I16 => chunks(values, bytes, |chunk| i16::from_le_bytes(chunk).into()),
        Dtype::I8 => chunks(values, bytes, |chunk| i8::from_le_bytes(chunk).into()),
        Dtype::U64 => chunks(values, bytes, |chunk| u64::from_le_bytes(chunk) as f32),
        Dtype::U32 => chunks(values, bytes, |chunk| u32::from_le_bytes(chunk) as f32),
        Dtype::U16 => chunks(values, bytes, |chunk| u16::from_le_bytes(chunk).into()),
        Dtype::U8 | Dtype::Bool => values.extend(bytes.iter().map(|byte| f32::from(*byte))),
        Dtype::F8E4M3 | Dtype::F8E5M2 | Dtype::C64 | Dtype::C128 => {
            return Err(Problem::Unsupported(format!("{} elements as f32", dtype.name())));
        }
    }
    Ok(())
}

/// Turns big-endian elements into little-endian ones; complex numbers are two elements.
pub(crate) fn swap_bytes(dtype: Dtype, bytes: &mut [u8]) {
    let size = match dtype {
        Dtype::C64 => 4,
        Dtype::C128 => 8,
        other => other.size(),
    };
    for element in bytes.chunks_exact_mut(size) {
        element.reverse();
    }
}
