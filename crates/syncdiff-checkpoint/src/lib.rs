//! Reads checkpoints of other projects as data: PyTorch's two file forms and safetensors.
//!
//! A PyTorch checkpoint is a pickle, and a pickle is a program: `torch.load` of a file from a stranger runs the
//! stranger's code. Here a small machine follows the same opcodes and builds a tree of values; it knows the handful
//! of functions that stand for tensors, and every other class or function stays a name with its arguments beside it.
//! Nothing is imported, called or instantiated. What a file may make the reader do is bounded by [`limits`].
//!
//! Tensors stay in the file. Opening reads the directory and the pickle and checks that every tensor lies inside its
//! storage; [`Checkpoint::read_f32`] and [`Checkpoint::read_bytes`] read one tensor from its place.
//!
//! Layers: `source` (bytes at positions), `zip` (directory of an archive), `pickle` (the machine), `legacy` and
//! `safetensors` (the other two forms), `numpy` (pickled dictionaries of NumPy arrays), `state_dict` (where the tensors
//! are), [`Checkpoint`] (all of it).

#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod checkpoint;
mod error;
mod legacy;
pub mod limits;
mod numpy;
mod pickle;
mod safetensors;
mod source;
mod state_dict;
mod tensor;
mod value;
mod zip;

pub use checkpoint::{Checkpoint, Format, RootInfo, TensorInfo, read_pickle};
pub use error::{CheckpointError, CheckpointResult};
pub use numpy::{NumpyArray, read_numpy_pickle};
pub use tensor::Dtype;
pub use value::Value;
