//! stub
use std::path::Path;
use crate::{Tools, MediaInfo, MediaError};
/// Tells what a file is.
pub fn probe(_tools: &Tools, _path: &Path) -> Result<MediaInfo, MediaError> { unimplemented!() }
