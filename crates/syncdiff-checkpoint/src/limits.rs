//! Budgets: how much a file may make this crate do.
//!
//! Each is several times what the largest public checkpoints in this field need (a latent-diffusion file with
//! optimiser state: 0.3 million opcodes, 0.1 million values, 4 MB of pickle), and all of them together keep the
//! reader below about half a gigabyte and a second, whatever the file says.

/// Opcodes of one pickle.
pub const PICKLE_OPCODES: u64 = 5_000_000;
/// Values of one pickle; an element of a container that is copied counts as one, an object as four.
pub const PICKLE_VALUES: u64 = 2_000_000;
/// Bytes of all strings, byte strings and long integers of one pickle.
pub const PICKLE_STRING_BYTES: u64 = 64 << 20;
/// Bytes of a compressed `data.pkl` after inflation.
pub const INFLATED_PICKLE_BYTES: u64 = 64 << 20;
/// Bytes of a compressed storage for each byte that it takes in the file. Weights hardly compress at all.
pub const COMPRESSION_RATIO: u64 = 16;
/// Bytes of the central directory of a zip file.
pub const ZIP_DIRECTORY_BYTES: u64 = 16 << 20;
/// Bytes of the header of a safetensors file.
pub const SAFETENSORS_HEADER_BYTES: u64 = 16 << 20;
/// Levels of containers inside each other.
pub const NESTING: u64 = 64;
/// Values visited while looking for tensors; a value that is reached by two ways counts twice.
pub const VISITED_VALUES: u64 = 2_000_000;
/// Bytes of the names of all tensors.
pub const NAME_BYTES: u64 = 16 << 20;
/// Axes of a tensor.
pub const TENSOR_AXES: u64 = 64;
/// Elements of a tensor that repeats a smaller storage (a stride of 0).
pub const EXPANDED_ELEMENTS: u64 = 1 << 24;
/// Values of a tree that is handed out by [`crate::Checkpoint::value`].
pub const TREE_VALUES: u64 = 500_000;
/// Bytes of text of a tree that is handed out by [`crate::Checkpoint::value`].
pub const TREE_TEXT_BYTES: u64 = 64 << 20;
/// Values of a pickled dictionary of NumPy arrays; those of LPIPS have about 400.
pub const NUMPY_VALUES: u64 = 100_000;
/// Levels of dictionaries inside each other in such a pickle.
pub const NUMPY_NESTING: usize = 16;
/// Bytes of the dotted name of an array.
pub const NUMPY_NAME_BYTES: usize = 1000;
/// Axes of an array.
pub const NUMPY_AXES: usize = 8;
