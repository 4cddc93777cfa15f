//! A pickle of nested dictionaries of NumPy arrays, read as data.
//!
//! This is the form in which Flax projects of 2022 kept their weights. A pickle is a program for a stack machine that
//! may call any Python function; here only the handful of instructions that such a dictionary needs exist, and the
//! only "functions" are those that describe an array. Everything else ends in an error, and nothing is ever executed.
//! Values live in one list of bounded length and refer to each other by index, so that neither depth nor repetition
//! costs more than the file's own bytes.
//!
//! # Source
//! Python's `pickle` protocols 2 and 3; `numpy.ndarray.__reduce__`.

use std::collections::BTreeMap;
use std::path::Path;

use crate::error::{ModelError, ModelResult};
use crate::weights::tensor_map::{StoredTensor, TensorMap};

/// Largest number of values in a file; those of LPIPS have about 400.
const VALUE_LIMIT: usize = 100_000;
/// Deepest nesting of dictionaries.
const DEPTH_LIMIT: usize = 16;
/// Longest dotted path.
const PATH_LIMIT_BYTES: usize = 1000;
/// Most axes of an array.
const AXES_LIMIT: usize = 8;

/// The arrays of a pickled dictionary, as `f32`, under the dotted path of their keys (`AlexNet_0.Conv_0.kernel`), with
/// the axes as they are in the file.
///
/// # Errors
/// [`ModelError::Weights`] for anything but nested dictionaries of little-endian `f32` arrays in row-major order.
pub fn read_numpy_pickle(path: &Path, bytes: &[u8]) -> ModelResult<TensorMap> {
    let fail = |reason: String| {
        let reason = format!("no dictionary of arrays: {reason}");
        ModelError::weights(path, reason, "Use the file of the package that this program names")
    };
    let mut machine = Machine { bytes, at: 0, values: Vec::new(), stack: Vec::new(), memo: BTreeMap::new() };
    let root = machine.run().map_err(|reason| fail(format!("byte {}: {reason}", machine.at)))?;
    let mut found = Found { tensors: TensorMap::new(), values: 0, bytes: 0 };
    machine.collect(root, "", 0, &mut found).map_err(fail)?;
    Ok(found.tensors)
}

type Step<T> = Result<T, String>;

#[derive(Debug, Clone)]
enum Value<'a> {
    Nothing,
    Flag(bool),
    Number(i64),
    Text(&'a str),
    Bytes(&'a [u8]),
    Tuple(Vec<usize>),
    Dictionary(Vec<(usize, usize)>),
    Mark,
    Reconstruct,
    ArrayClass,
    DtypeClass,
    /// Element type; complete only once its byte order has been set.
    Dtype {
        little_endian: bool,
    },
    Array {
        shape: Vec<usize>,
        data: &'a [u8],
    },
}

struct Machine<'a> {
    bytes: &'a [u8],
    at: usize,
    values: Vec<Value<'a>>,
    stack: Vec<usize>,
    memo: BTreeMap<u32, usize>,
}

/// The arrays of a dictionary, and how much was met on the way to them.
struct Found {
    tensors: TensorMap,
    values: usize,
    bytes: usize,
}

impl<'a> Machine<'a> {
    fn run(&mut self) -> Step<usize> {
        loop {
            match self.take(1)?[0] {
                0x80 => match self.take(1)?[0] {
                    2 | 3 => {}
                    version => return Err(format!("protocol {version}, not 2 or 3")),
                },
                b'.' => return self.pop(),
                b'q' => self.remember(1)?,
                b'r' => self.remember(4)?,
                b'h' => self.recall(1)?,
                b'j' => self.recall(4)?,
                b'N' => self.push(Value::Nothing)?,
                0x88 => self.push(Value::Flag(true))?,
                0x89 => self.push(Value::Flag(false))?,
                b'K' => self.number(1)?,
                b'M' => self.number(2)?,
                b'J' => self.number(4)?,
                b'X' => {
                    let bytes = self.counted(4)?;
                    let text = std::str::from_utf8(bytes).map_err(|_| "a text that is not UTF-8".to_owned())?;
                    self.push(Value::Text(text))?;
                }
                b'C' => {
                    let bytes = self.counted(1)?;
                    self.push(Value::Bytes(bytes))?;
                }
                b'B' => {
                    let bytes = self.counted(4)?;
                    self.push(Value::Bytes(bytes))?;
                }
                b'(' => self.push(Value::Mark)?,
                b'}' => self.push(Value::Dictionary(Vec::new()))?,
                b')' => self.push(Value::Tuple(Vec::new()))?,
                count @ 0x85..=0x87 => {
                    let from = self.stack.len().checked_sub(usize::from(count - 0x84)).ok_or("an empty stack")?;
                    let items = self.stack.split_off(from);
                    self.push(Value::Tuple(items))?;
                }
                b't' => {
                    let items = self.since_mark()?;
                    self.push(Value::Tuple(items))?;
                }
                b's' => {
                    let (value, key) = (self.pop()?, self.pop()?);
                    self.set_items(&[key, value])?;
                }
                b'u' => {
                    let items = self.since_mark()?;
                    self.set_items(&items)?;
                }
                b'c' => {
                    let class = match (self.line()?, self.line()?) {
                        (b"numpy.core.multiarray" | b"numpy._core.multiarray", b"_reconstruct") => Value::Reconstruct,
                        (b"numpy", b"ndarray") => Value::ArrayClass,
                        (b"numpy", b"dtype") => Value::DtypeClass,
                        (module, name) => {
                            let text =
                                |bytes: &[u8]| String::from_utf8_lossy(&bytes[..bytes.len().min(60)]).into_owned();
                            return Err(format!("it asks for {}.{}", text(module), text(name)));
                        }
                    };
                    self.push(class)?;
                }
                b'R' => self.reduce()?,
                b'b' => self.build()?,
                other => return Err(format!("instruction {other:#04x}")),
            }
        }
    }

    fn take(&mut self, count: usize) -> Step<&'a [u8]> {
        let bytes = self.bytes;
        let end = self.at.checked_add(count).filter(|end| *end <= bytes.len()).ok_or("the file ends too early")?;
        let taken = &bytes[self.at..end];
        self.at = end;
        Ok(taken)
    }

    /// An unsigned little-endian number of `width` bytes.
    fn unsigned(&mut self, width: usize) -> Step<u32> {
        Ok(self.take(width)?.iter().rev().fold(0, |value, byte| (value << 8) | u32::from(*byte)))
    }

    /// A number; four bytes are signed.
    fn number(&mut self, width: usize) -> Step<()> {
        let value = self.unsigned(width)?;
        let value = if width == 4 { i64::from(value as i32) } else { i64::from(value) };
        self.push(Value::Number(value))
    }

    fn counted(&mut self, width: usize) -> Step<&'a [u8]> {
        let count = self.unsigned(width)?;
        self.take(count as usize)
    }

    fn line(&mut self) -> Step<&'a [u8]> {
        let rest = &self.bytes[self.at..];
        let end = rest.iter().position(|byte| *byte == b'\n').ok_or("a name without an end")?;
        self.at += end + 1;
        Ok(&rest[..end])
    }

    fn push(&mut self, value: Value<'a>) -> Step<()> {
        if self.values.len() >= VALUE_LIMIT {
            return Err(format!("more than {VALUE_LIMIT} values"));
        }
        self.stack.push(self.values.len());
        self.values.push(value);
        Ok(())
    }

    fn pop(&mut self) -> Step<usize> {
        self.stack.pop().ok_or_else(|| "an empty stack".to_owned())
    }

    fn top(&self) -> Step<usize> {
        self.stack.last().copied().ok_or_else(|| "an empty stack".to_owned())
    }

    fn remember(&mut self, width: usize) -> Step<()> {
        let key = self.unsigned(width)?;
        let top = self.top()?;
        if self.memo.len() >= VALUE_LIMIT {
            return Err(format!("more than {VALUE_LIMIT} remembered values"));
        }
        self.memo.insert(key, top);
        Ok(())
    }

    fn recall(&mut self, width: usize) -> Step<()> {
        let key = self.unsigned(width)?;
        let value = *self.memo.get(&key).ok_or_else(|| format!("nothing was remembered as {key}"))?;
        // Recalling makes no new value, so that the stack needs a bound of its own.
        if self.stack.len() >= VALUE_LIMIT {
            return Err(format!("a stack of more than {VALUE_LIMIT} values"));
        }
        self.stack.push(value);
        Ok(())
    }

    /// Everything above the last mark, which goes.
    fn since_mark(&mut self) -> Step<Vec<usize>> {
        let mark = self.stack.iter().rposition(|at| matches!(self.values[*at], Value::Mark)).ok_or("no mark")?;
        let items = self.stack.split_off(mark + 1);
        self.stack.pop();
        Ok(items)
    }

    fn set_items(&mut self, items: &[usize]) -> Step<()> {
        let (pairs, rest) = items.as_chunks::<2>();
        let top = self.top()?;
        match &mut self.values[top] {
            Value::Dictionary(entries) if rest.is_empty() && entries.len() + pairs.len() <= VALUE_LIMIT => {
                entries.extend(pairs.iter().map(|[key, value]| (*key, *value)));
                Ok(())
            }
            _ => Err("entries for something that is no dictionary".to_owned()),
        }
    }

    fn tuple(&self, at: usize) -> Step<&[usize]> {
        match &self.values[at] {
            Value::Tuple(items) => Ok(items),
            other => Err(format!("{} where a tuple should be", kind(other))),
        }
    }

    /// `_reconstruct(ndarray, (0,), b'b')` makes an empty array, `dtype('f4', ..)` an element type.
    fn reduce(&mut self) -> Step<()> {
        let (arguments, function) = (self.pop()?, self.pop()?);
        let first = self.tuple(arguments)?.first().map(|at| &self.values[*at]);
        let made = match (&self.values[function], first) {
            (Value::Reconstruct, Some(Value::ArrayClass)) => Value::Array { shape: vec![0], data: &[] },
            (Value::DtypeClass, Some(Value::Text("f4"))) => Value::Dtype { little_endian: false },
            (Value::DtypeClass, Some(Value::Text(name))) => {
                return Err(format!("elements of type {:?}, not f4", name.chars().take(20).collect::<String>()));
            }
            (function, _) => return Err(format!("a call of {}", kind(function))),
        };
        self.push(made)
    }

    /// Completes the array or element type on the stack.
    fn build(&mut self) -> Step<()> {
        let (state, top) = (self.pop()?, self.top()?);
        let state = self.tuple(state)?;
        let part = |i: usize| state.get(i).map(|at| &self.values[*at]);
        let built = match (&self.values[top], part(1), part(2), part(3), part(4)) {
            (Value::Dtype { .. }, Some(Value::Text("<")), ..) => Value::Dtype { little_endian: true },
            (
                Value::Array { .. },
                Some(Value::Tuple(shape)),
                Some(Value::Dtype { little_endian: true }),
                Some(Value::Flag(false)),
                Some(Value::Bytes(data)),
            ) => {
                let shape = self.shape(shape)?;
                let bytes = shape.iter().try_fold(4usize, |size, axis| size.checked_mul(*axis));
                if bytes != Some(data.len()) {
                    return Err(format!("{} bytes for an array of shape {shape:?}", data.len()));
                }
                Value::Array { shape, data }
            }
            (Value::Array { .. }, ..) => {
                return Err("an array that is not of little-endian f32 in row-major order".to_owned());
            }
            (other, ..) => return Err(format!("a state that does not fit {}", kind(other))),
        };
        self.values[top] = built;
        Ok(())
    }

    fn shape(&self, axes: &[usize]) -> Step<Vec<usize>> {
        if axes.len() > AXES_LIMIT {
            return Err(format!("an array of {} axes", axes.len()));
        }
        let axis = |at: &usize| match self.values[*at] {
            Value::Number(axis) => usize::try_from(axis).map_err(|_| format!("an axis of length {axis}")),
            ref other => Err(format!("{} for the length of an axis", kind(other))),
        };
        axes.iter().map(axis).collect()
    }

    fn collect(&self, at: usize, path: &str, depth: usize, found: &mut Found) -> Step<()> {
        found.values += 1;
        // A dictionary may hold itself, or another many times.
        if depth > DEPTH_LIMIT || found.values > VALUE_LIMIT {
            return Err(format!("dictionaries nested more than {DEPTH_LIMIT} deep or {VALUE_LIMIT} values"));
        }
        match &self.values[at] {
            Value::Dictionary(entries) => {
                for (key, value) in entries {
                    let Value::Text(key) = self.values[*key] else {
                        return Err(format!("{} as a key below {path:?}", kind(&self.values[*key])));
                    };
                    if path.len() + key.len() >= PATH_LIMIT_BYTES {
                        return Err(format!("keys of more than {PATH_LIMIT_BYTES} bytes"));
                    }
                    let path = if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
                    self.collect(*value, &path, depth + 1, found)?;
                }
                Ok(())
            }
            Value::Array { shape, data } => {
                found.bytes += data.len();
                if found.bytes > self.bytes.len() {
                    return Err("the same array under many names".to_owned());
                }
                let (elements, _) = data.as_chunks::<4>();
                let values: Vec<f32> = elements.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
                if found.tensors.insert(path.to_owned(), StoredTensor::from_f32(shape, &values)).is_some() {
                    return Err(format!("two arrays are called {path}"));
                }
                Ok(())
            }
            other => Err(format!("{} at {path:?}", kind(other))),
        }
    }
}

fn kind(value: &Value<'_>) -> &'static str {
    match value {
        Value::Nothing => "None",
        Value::Flag(_) => "a truth value",
        Value::Number(_) => "a number",
        Value::Text(_) => "a text",
        Value::Bytes(_) => "bytes",
        Value::Tuple(_) => "a tuple",
        Value::Dictionary(_) => "a dictionary",
        Value::Mark => "a mark",
        Value::Reconstruct | Value::ArrayClass | Value::DtypeClass => "a class",
        Value::Dtype { .. } => "an element type",
        Value::Array { .. } => "an array",
    }
}
