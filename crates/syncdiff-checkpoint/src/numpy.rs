//! A pickle of nested dictionaries of NumPy arrays: the form in which Flax projects of 2022 kept their weights.
//!
//! The machine records the calls by which NumPy spells an array, `_reconstruct(ndarray, ...)` with a state of shape,
//! element type and bytes; here they are read off. A file that mentions any other class or function is refused whole.
//!
//! # Source
//! `numpy.ndarray.__reduce__` and `numpy.dtype.__reduce__`.

use std::collections::HashSet;
use std::path::Path;

use crate::error::{CheckpointResult, Outcome, Problem};
use crate::limits;
use crate::pickle::input::Input;
use crate::pickle::machine;
use crate::pickle::{Arena, Id, Node, Object};
use crate::source::Source;

/// Classes and functions that an array is made of; NumPy 2 has moved one of them.
const KNOWN: [&str; 4] =
    ["numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct", "numpy.ndarray", "numpy.dtype"];

/// An array of a pickled dictionary.
#[derive(Debug, Clone, PartialEq)]
pub struct NumpyArray {
    /// Keys from the top, with dots between them.
    pub name: String,
    /// Length of each axis, outermost first.
    pub shape: Vec<usize>,
    /// The elements in the order of the shape.
    pub values: Vec<f32>,
}

/// The arrays of a pickled dictionary in the order of the file, under the dotted path of their keys
/// (`AlexNet_0.Conv_0.kernel`), with the axes as they are in the file; errors call it `path`.
///
/// # Errors
/// `Damaged` for anything but nested dictionaries of little-endian `f32` arrays in row-major order; `Refused` and
/// `Unsupported` as for a checkpoint.
pub fn read_numpy_pickle(path: &Path, bytes: Vec<u8>) -> CheckpointResult<Vec<NumpyArray>> {
    arrays(bytes).map_err(|problem| problem.at(path))
}

fn arrays(bytes: Vec<u8>) -> Outcome<Vec<NumpyArray>> {
    let len = bytes.len() as u64;
    let pickle = machine::run(&mut Input::new(&Source::memory(bytes), 0, len))?;
    if let Some(name) = pickle.arena.globals().into_iter().find(|name| !KNOWN.contains(name)) {
        return Err(Problem::damaged(format!("it asks for {name}")));
    }
    if pickle.arena.len() as u64 > limits::NUMPY_VALUES {
        return Err(Problem::damaged(format!("more than {} values", limits::NUMPY_VALUES)));
    }
    let mut walk =
        Walk { arena: &pickle.arena, arrays: Vec::new(), names: HashSet::new(), visited: 0, bytes_left: len };
    walk.visit(pickle.top, "", 0)?;
    Ok(walk.arrays)
}

struct Walk<'a> {
    arena: &'a Arena,
    arrays: Vec<NumpyArray>,
    names: HashSet<String>,
    visited: u64,
    /// Bytes of the file that no array has taken: an array under many names would be larger than the file.
    bytes_left: u64,
}

impl<'a> Walk<'a> {
    fn visit(&mut self, id: Id, path: &str, depth: usize) -> Outcome<()> {
        self.visited += 1;
        // A dictionary may hold itself, or another many times.
        if depth > limits::NUMPY_NESTING || self.visited > limits::NUMPY_VALUES {
            return Err(Problem::damaged(format!(
                "dictionaries nested more than {} deep or {} values",
                limits::NUMPY_NESTING,
                limits::NUMPY_VALUES
            )));
        }
        let arena = self.arena;
        match arena.node(id) {
            Node::Dict(pairs) => {
                for (key, value) in pairs {
                    let Some(key) = arena.text(*key) else {
                        return Err(Problem::damaged(format!("{} as a key below {path:?}", kind(arena.node(*key)))));
                    };
                    if path.len() + key.len() >= limits::NUMPY_NAME_BYTES {
                        return Err(Problem::damaged(format!("keys of more than {} bytes", limits::NUMPY_NAME_BYTES)));
                    }
                    let path = if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
                    self.visit(*value, &path, depth + 1)?;
                }
                Ok(())
            }
            Node::Object(object) => {
                let (shape, bytes) = self.array(object)?;
                let left = self.bytes_left.checked_sub(bytes.len() as u64);
                self.bytes_left = left.ok_or_else(|| Problem::damaged("the same array under many names"))?;
                if !self.names.insert(path.to_owned()) {
                    return Err(Problem::damaged(format!("two arrays are called {path}")));
                }
                let values = bytes.as_chunks().0.iter().map(|element| f32::from_le_bytes(*element)).collect();
                self.arrays.push(NumpyArray { name: path.to_owned(), shape, values });
                Ok(())
            }
            other => Err(Problem::damaged(format!("{} at {path:?}", kind(other)))),
        }
    }

    /// Shape and elements of what `_reconstruct(ndarray, (0,), b'b')` with its state would make.
    fn array(&self, object: &'a Object) -> Outcome<(Vec<usize>, &'a [u8])> {
        let arena = self.arena;
        let called = arena.global(object.class).filter(|name| name.ends_with("._reconstruct"));
        let made = object.args.first().and_then(|class| arena.global(*class));
        if called.is_none() || made != Some("numpy.ndarray") {
            let called = arena.global(object.class).unwrap_or("a value");
            return Err(Problem::damaged(format!("a call of {called} where an array should be")));
        }
        // (version, shape, element type, whether columns come first, elements)
        let state = object.state.and_then(|state| arena.sequence(state)).unwrap_or_default();
        let [_, shape, dtype, columns_first, elements] = state else {
            return Err(Problem::damaged("an array without shape and elements"));
        };
        self.check_dtype(*dtype)?;
        let (Some(axes), Node::Bool(false), Node::Bytes(bytes)) =
            (arena.sequence(*shape), arena.node(*columns_first), arena.node(*elements))
        else {
            return Err(Problem::damaged("an array that is not of little-endian f32 in row-major order"));
        };
        if axes.len() > limits::NUMPY_AXES {
            return Err(Problem::damaged(format!("an array of {} axes", axes.len())));
        }
        let axis = |axis: &Id| arena.int(*axis).and_then(|axis| usize::try_from(axis).ok());
        let shape: Option<Vec<usize>> = axes.iter().map(axis).collect();
        let shape = shape.ok_or_else(|| Problem::damaged("an array with an axis of no length"))?;
        let len = shape.iter().try_fold(size_of::<f32>(), |size, axis| size.checked_mul(*axis));
        if len != Some(bytes.len()) {
            return Err(Problem::damaged(format!("{} bytes for an array of shape {shape:?}", bytes.len())));
        }
        Ok((shape, bytes))
    }

    /// `dtype('f4', ...)` with a state whose second element is the byte order.
    fn check_dtype(&self, id: Id) -> Outcome<()> {
        let Node::Object(object) = self.arena.node(id) else {
            return Err(Problem::damaged(format!("{} as the type of an array", kind(self.arena.node(id)))));
        };
        let name = object.args.first().and_then(|name| self.arena.text(*name)).unwrap_or("unknown");
        let state = object.state.and_then(|state| self.arena.sequence(state)).unwrap_or_default();
        let order = state.get(1).and_then(|order| self.arena.text(*order));
        match (self.arena.global(object.class), name, order) {
            (Some("numpy.dtype"), "f4", Some("<")) => Ok(()),
            (Some("numpy.dtype"), "f4", _) => Err(Problem::damaged("elements whose byte order is not little-endian")),
            _ => Err(Problem::damaged(format!("elements of type {name:?}, not f4"))),
        }
    }
}

fn kind(node: &Node) -> &'static str {
    match node {
        Node::None => "None",
        Node::Bool(_) => "a truth value",
        Node::Int(_) | Node::Long(_) | Node::Float(_) => "a number",
        Node::Text(_) => "a text",
        Node::Bytes(_) => "bytes",
        Node::Tuple(_) | Node::List(_) | Node::Set(_) => "a sequence",
        Node::Dict(_) => "a dictionary",
        Node::Global(_) => "a class",
        Node::Object(_) | Node::Storage(_) | Node::Tensor(_) => "an object",
    }
}
