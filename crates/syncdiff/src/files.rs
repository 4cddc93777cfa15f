//! Small files that appear whole or not at all, and checks of an output's place before the work begins.

use std::io::Write;
use std::path::{Path, PathBuf};

use crate::error::{Error, Outcome};

/// The folder that a path lies in.
fn folder_of(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_path_buf(),
        _ => PathBuf::from("."),
    }
}

/// Writes a file under a hidden name beside its place, then moves it there.
///
/// # Errors
/// [`Error::Io`]; then nothing is left behind, and a file that was there stays.
pub fn write_whole(stage: &'static str, path: &Path, bytes: &[u8]) -> Outcome<()> {
    let io = |source| Error::io(stage, path, source);
    let mut partial = tempfile::Builder::new().prefix(".syncdiff-").tempfile_in(folder_of(path)).map_err(io)?;
    partial.write_all(bytes).map_err(io)?;
    partial.as_file().sync_all().map_err(io)?;
    #[cfg(unix)]
    {
        // Temporary files are private; a result is for whoever may read its folder.
        use std::os::unix::fs::PermissionsExt;
        partial.as_file().set_permissions(std::fs::Permissions::from_mode(0o644)).map_err(io)?;
    }
    partial.persist(path).map_err(|error| io(error.error))?;
    Ok(())
}

/// Checks that a file can be made at this place, so that hours of work do not end at a missing folder.
///
/// # Errors
/// [`Error::Io`] if the folder is missing or may not be written, or something else than a file is there.
pub fn check_place(path: &Path) -> Outcome<()> {
    const STAGE: &str = "check output";
    if path.is_dir() {
        return Err(Error::usage(
            format!("the output {path:?} is a folder"),
            "give the name of a file, for example OUT.mp4",
        ));
    }
    let folder = folder_of(path);
    // Making a file is the only honest test: rights, read-only file systems and quotas all answer.
    tempfile::Builder::new()
        .prefix(".syncdiff-")
        .tempfile_in(&folder)
        .map(drop)
        .map_err(|source| Error::io(STAGE, &folder, source))
}

/// Where a file lies or would lie, whatever links and dots lead there.
pub fn place_of(path: &Path) -> PathBuf {
    let missing = || Some(folder_of(path).canonicalize().ok()?.join(path.file_name()?));
    path.canonicalize().ok().or_else(missing).unwrap_or_else(|| path.to_path_buf())
}

/// Checks that the output is none of the inputs, whether they are there yet or not.
///
/// # Errors
/// [`Error::Usage`].
pub fn check_apart(output: &Path, inputs: &[&Path]) -> Outcome<()> {
    let output_file = place_of(output);
    for input in inputs {
        if place_of(input) == output_file {
            return Err(Error::usage(
                format!("the output {output:?} is the same file as the input {input:?}"),
                "choose another name for the output",
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a b.json");
        write_whole("test", &path, b"one").unwrap();
        write_whole("test", &path, b"two").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"two");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn impossible_places_are_named() {
        let folder = tempfile::tempdir().unwrap();
        assert!(check_place(&folder.path().join("x.mp4")).is_ok());
        assert_eq!(check_place(folder.path()).unwrap_err().exit_code(), 2);
        let error = check_place(&folder.path().join("no/x.mp4")).unwrap_err();
        assert_eq!(error.exit_code(), 7);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn an_input_is_never_the_output() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.mp4");
        std::fs::write(&path, b"x").unwrap();
        let same = folder.path().join(".").join("x.mp4");
        assert_eq!(check_apart(&same, &[&path]).unwrap_err().exit_code(), 2);
        assert!(check_apart(&folder.path().join("y.mp4"), &[&path]).is_ok());
        // Nor a file that is to become an input.
        let later = folder.path().join("later.mp4");
        std::fs::create_dir(folder.path().join("sub")).unwrap();
        assert!(check_apart(&folder.path().join("sub/../later.mp4"), &[&later]).is_err());
    }
}
