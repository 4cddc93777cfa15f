//! Files that appear only when they are whole.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use crate::error::DataError;

/// How temporary files begin.
const PARTIAL: &str = ".part-";

/// Writes a file beside its final place, forces it to the disk and renames it; on any failure the
/// temporary file is removed and an older file stays as it was. Missing folders are made.
pub(crate) fn write_whole(
    path: &Path,
    write: impl FnOnce(&mut dyn Write) -> std::io::Result<()>,
) -> Result<(), DataError> {
    const STAGE: &str = "write";
    let io = |source| DataError::io(STAGE, path, source);
    let folder = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder).map_err(io)?;
    let mut temporary = tempfile::Builder::new().prefix(PARTIAL).tempfile_in(folder).map_err(io)?;
    let mut buffered = BufWriter::with_capacity(1 << 16, temporary.as_file_mut());
    write(&mut buffered).and_then(|()| buffered.flush()).map_err(io)?;
    drop(buffered);
    make_readable(temporary.as_file()).map_err(io)?;
    temporary.as_file().sync_data().map_err(io)?;
    temporary.persist(path).map_err(|error| io(error.error))?;
    Ok(())
}

/// Removes the temporary files that a killed run has left below a folder. To be called only by the
/// one process that may write there.
pub(crate) fn remove_partials(folder: &Path) -> Result<(), DataError> {
    let io = |error| DataError::io("clean up", folder, error);
    for entry in std::fs::read_dir(folder).map_err(io)? {
        let entry = entry.map_err(io)?;
        let kind = entry.file_type().map_err(io)?;
        if kind.is_dir() {
            remove_partials(&entry.path())?;
        } else if kind.is_file() && entry.file_name().to_string_lossy().starts_with(PARTIAL) {
            std::fs::remove_file(entry.path()).map_err(io)?;
        }
    }
    Ok(())
}

/// Temporary files are private to the user; data are meant to be shared like other files.
#[cfg(unix)]
fn make_readable(file: &File) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    file.set_permissions(std::fs::Permissions::from_mode(0o644))
}

#[cfg(not(unix))]
fn make_readable(_file: &File) -> std::io::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_write_leaves_the_old_file_and_no_trace() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/er/a.bin");
        write_whole(&path, |file| file.write_all(b"old")).unwrap();
        let failed = write_whole(&path, |file| {
            file.write_all(b"new")?;
            Err(std::io::ErrorKind::StorageFull.into())
        });
        assert!(matches!(failed, Err(DataError::DiskFull { .. })));
        assert_eq!(std::fs::read(&path).unwrap(), b"old");
        assert_eq!(std::fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }
}
