//! Golden data of the metrics: `SYNCDIFF_GOLDENS`, by default `../shared/goldens` beside the workspace.

use std::path::{Path, PathBuf};

/// The folders of all variants; none (with a line that says so) where the data is absent.
pub(crate) fn variants(kind: &str) -> Vec<PathBuf> {
    let folder = std::env::var_os("SYNCDIFF_GOLDENS")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/goldens"), PathBuf::from)
        .join(kind);
    match std::fs::read_dir(&folder) {
        Ok(entries) => entries.map(|e| e.unwrap().path()).filter(|p| p.join("case.json").is_file()).collect(),
        Err(_) => {
            println!("skipped: golden data {} absent", folder.display());
            Vec::new()
        }
    }
}
