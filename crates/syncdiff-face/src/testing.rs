//! Where tests find models, golden data and clips; each says so when something is absent.

use crate::FaceModels;
use std::path::{Path, PathBuf};

fn folder(variable: &str, default: &str) -> Option<PathBuf> {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let path = std::env::var_os(variable).map_or_else(|| workspace.join(default), PathBuf::from);
    if path.is_dir() {
        return Some(path);
    }
    println!("skipped: {} absent (set {variable})", path.display());
    None
}

/// The face models, if they are on disk; files that are there but damaged are a failure.
pub(crate) fn models() -> Option<FaceModels> {
    let folder = folder("SYNCDIFF_MODELS", ".cache/models/face")?;
    Some(FaceModels::load(&folder).unwrap())
}

/// The folder of one golden case.
pub(crate) fn goldens(case: &str) -> Option<PathBuf> {
    Some(folder("SYNCDIFF_GOLDENS", "../shared/goldens")?.join(case)).filter(|p| p.is_dir())
}

/// The folder of real clips.
pub(crate) fn clips() -> Option<PathBuf> {
    folder("SYNCDIFF_DATA", "../shared/data")
}
