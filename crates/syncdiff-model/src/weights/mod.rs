//! Weights: between networks in memory and safetensors on disk.
//!
//! On disk every tensor has PyTorch's layout and an upstream-like dotted name (`denoiser.input_blocks.0.0.weight`),
//! so that weights of the original projects and ours look alike. A [`Remap`] beside each network turns the names of
//! its fields into those names. Reading checks everything before it changes anything: [`load_into`] reports all
//! missing, extra and misshapen tensors in one error.
//!
//! Layers: [`tensor_map`] (a file as a map of lazily read tensors), [`remap`] (names), [`module_io`] (map <-> Burn
//! module), [`about`] (one file that says what it is), [`folder`] (a folder with configuration, checksums, licence and
//! model card), [`import`] (checkpoints of other projects as such a map).

pub mod about;
pub mod folder;
pub mod import;
pub mod module_io;
pub mod remap;
pub mod tensor_map;

pub use about::{read_about, save_with_about};
pub use folder::{FileEntry, FolderManifest, FolderText, Storage, WeightsFolder, WeightsWriter, sha256_of_file};
pub use module_io::{check_into, load_into, load_into_from, module_shapes, module_tensors, sha256_of_module};
pub use remap::Remap;
pub use tensor_map::{Dtype, StoredTensor, TensorMap, open_safetensors};
