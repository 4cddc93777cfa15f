//! Files of one small network that say what they are: with which seed it was trained, on what, and its terms.

use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;
use syncdiff_checkpoint::{Checkpoint, Value};

use crate::error::{ModelError, ModelResult};
use crate::weights::folder::{Storage, save_safetensors_about};
use crate::weights::tensor_map::TensorMap;

/// Name of the metadata's only entry.
const ABOUT: &str = "about";
const REMEDY: &str = "Train it with this program";

/// What a file says of itself.
///
/// # Errors
/// [`ModelError::Checkpoint`] for a file that cannot be read, [`ModelError::Weights`] for one that says nothing, or what
/// another kind of network says.
pub fn read_about<T: DeserializeOwned>(path: &Path) -> ModelResult<T> {
    let checkpoint = Checkpoint::open(path).map_err(ModelError::Checkpoint)?;
    let text = match checkpoint.value(&[ABOUT]).map_err(ModelError::Checkpoint)? {
        Some(Value::Text(text)) => text,
        _ => return Err(ModelError::weights(path, "it does not say what it is", REMEDY)),
    };
    toml::from_str(&text).map_err(|error| ModelError::weights(path, error.to_string(), REMEDY))
}

/// Writes weights as f16 with what they are; the same bytes every time.
///
/// # Errors
/// [`ModelError::Io`]; [`ModelError::Limit`] when a value does not fit into `f16`.
pub fn save_with_about(tensors: &TensorMap, about: &impl Serialize, path: &Path) -> ModelResult<()> {
    let text = toml::to_string(about).map_err(|error| ModelError::internal("weights", error.to_string()))?;
    save_safetensors_about(tensors, Storage::F16, (ABOUT, &text), path)
}
