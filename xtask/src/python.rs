//! A Python that has PyTorch.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Failure;

/// The root of the repository.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate lies in the root")
}

/// `SYNCDIFF_TORCH_PYTHON`, or the interpreter of a virtual environment under the target folder, made at the first call.
///
/// # Errors
/// When there is no Python 3, or its packages cannot be installed.
pub(crate) fn with_torch() -> Result<PathBuf, Failure> {
    if let Some(python) = std::env::var_os("SYNCDIFF_TORCH_PYTHON") {
        return Ok(python.into());
    }
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from);
    let folder = target.join("torch-venv");
    let python = folder.join(if cfg!(windows) { "Scripts/python.exe" } else { "bin/python" });
    // Written last, so that an environment that was interrupted is made again.
    let complete = folder.join("complete");
    if !complete.is_file() {
        eprintln!("setting up PyTorch in {}", folder.display());
        call(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&folder))?;
        let requirements = root().join("tools/torch/requirements.txt");
        call(Command::new(&python).args(["-m", "pip", "install", "--quiet", "--requirement"]).arg(requirements))?;
        std::fs::write(&complete, "")?;
    }
    Ok(python)
}

fn call(command: &mut Command) -> Result<(), Failure> {
    let status = command.status().map_err(|error| format!("{:?} does not start: {error}", command.get_program()))?;
    if status.success() { Ok(()) } else { Err(format!("{:?} ended with {status}", command.get_program()).into()) }
}
