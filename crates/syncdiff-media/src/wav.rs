//! 16-bit PCM WAVE files, and files that appear only when they are whole.

use std::fs::File;
use std::io::Write;
use std::path::Path;

use crate::error::MediaError;

const STAGE: &str = "write sound";

/// Writes 16-bit PCM samples (interleaved if there are several channels).
///
/// # Errors
/// [`MediaError::Parameter`] above 4 GiB or without channels, [`MediaError::Io`],
/// [`MediaError::DiskFull`].
pub fn write_wav(path: &Path, samples: &[i16], rate: u32, channels: u16) -> Result<(), MediaError> {
    let bytes = wav_bytes(samples, rate, channels)?;
    write_whole(path, STAGE, |file| Ok(file.write_all(&bytes)?))
}

/// The bytes of the file that [`write_wav`] writes.
///
/// # Errors
/// [`MediaError::Parameter`] above 4 GiB or without channels.
pub fn wav_bytes(samples: &[i16], rate: u32, channels: u16) -> Result<Vec<u8>, MediaError> {
    let bytes = samples.len() * 2;
    let (Ok(data_len), true) = (u32::try_from(bytes + 36), channels > 0) else {
        return Err(MediaError::Parameter {
            stage: STAGE,
            detail: format!("{bytes} bytes in {channels} channels do not fit a WAVE file"),
        });
    };
    let frame_bytes = channels * 2;
    let mut out = Vec::with_capacity(44 + bytes);
    out.extend_from_slice(b"RIFF");
    out.extend_from_slice(&data_len.to_le_bytes());
    out.extend_from_slice(b"WAVEfmt \x10\0\0\0\x01\0");
    out.extend_from_slice(&channels.to_le_bytes());
    out.extend_from_slice(&rate.to_le_bytes());
    out.extend_from_slice(&(rate * u32::from(frame_bytes)).to_le_bytes());
    out.extend_from_slice(&frame_bytes.to_le_bytes());
    out.extend_from_slice(b"\x10\0data");
    out.extend_from_slice(&(data_len - 36).to_le_bytes());
    out.extend(samples.iter().flat_map(|sample| sample.to_le_bytes()));
    Ok(out)
}

/// The failures that a writing closure can meet.
pub(crate) enum WriteFailure {
    Io(std::io::Error),
}

impl From<std::io::Error> for WriteFailure {
    fn from(error: std::io::Error) -> Self {
        WriteFailure::Io(error)
    }
}

impl From<png::EncodingError> for WriteFailure {
    fn from(error: png::EncodingError) -> Self {
        match error {
            png::EncodingError::IoError(error) => WriteFailure::Io(error),
            other => WriteFailure::Io(std::io::Error::other(other)),
        }
    }
}

/// Lets `fill` write a hidden file beside `path` and renames it when it is whole and on the disk.
pub(crate) fn write_whole(
    path: &Path,
    stage: &'static str,
    fill: impl FnOnce(&mut File) -> Result<(), WriteFailure>,
) -> Result<(), MediaError> {
    let mut partial = hidden_beside(path, stage)?;
    fill(partial.as_file_mut()).map_err(|WriteFailure::Io(source)| MediaError::io(stage, path, source))?;
    put_in_place(partial, path, stage)
}

/// A hidden temporary file in the folder of `path`; dropped, it is deleted.
pub(crate) fn hidden_beside(path: &Path, stage: &'static str) -> Result<tempfile::NamedTempFile, MediaError> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let mut builder = tempfile::Builder::new();
    builder.prefix(".syncdiff-").suffix(".part");
    builder.tempfile_in(folder).map_err(|source| {
        // The random name would tell the reader nothing: name the folder.
        let source = std::io::Error::from(source.kind());
        MediaError::io(stage, folder, source)
    })
}

/// Syncs a finished temporary file and renames it onto `path`, with ordinary permissions.
pub(crate) fn put_in_place(
    partial: tempfile::NamedTempFile,
    path: &Path,
    stage: &'static str,
) -> Result<(), MediaError> {
    if path.is_dir() {
        let source = std::io::Error::from(std::io::ErrorKind::IsADirectory);
        return Err(MediaError::io(stage, path, source));
    }
    let wrap = |source| MediaError::io(stage, path, source);
    partial.as_file().sync_all().map_err(wrap)?;
    #[cfg(unix)]
    {
        // Temporary files are private; a result is as readable as the file it replaces, or by all.
        use std::os::unix::fs::PermissionsExt;
        let old = path.metadata().ok().map(|data| data.permissions().mode() & 0o777);
        let mode = std::fs::Permissions::from_mode(old.unwrap_or(0o644));
        partial.as_file().set_permissions(mode).map_err(wrap)?;
    }
    partial.persist(path).map_err(|error| wrap(error.error))?;
    Ok(())
}

/// Reads a 16-bit PCM WAVE file: samples (interleaved), rate, channels. For files of our own;
/// foreign sound goes through [`crate::decode_speech`].
///
/// # Errors
/// [`MediaError::Io`] or [`MediaError::Damaged`].
pub fn read_wav(path: &Path) -> Result<(Vec<i16>, u32, u16), MediaError> {
    const STAGE: &str = "read sound";
    let bytes = std::fs::read(path).map_err(|source| MediaError::io(STAGE, path, source))?;
    parse_wav(&bytes).ok_or_else(|| MediaError::Damaged {
        stage: STAGE,
        path: path.to_path_buf(),
        detail: "it is no whole 16-bit PCM WAVE file".into(),
    })
}

fn parse_wav(bytes: &[u8]) -> Option<(Vec<i16>, u32, u16)> {
    if bytes.get(..4)? != b"RIFF" || bytes.get(8..12)? != b"WAVE" {
        return None;
    }
    let mut at = 12;
    let mut format = None;
    loop {
        let name = bytes.get(at..at + 4)?;
        let len = u32::from_le_bytes(bytes.get(at + 4..at + 8)?.try_into().ok()?) as usize;
        let body = bytes.get(at + 8..at.checked_add(8)?.checked_add(len)?)?;
        if name == b"fmt " {
            let word = |at: usize| Some(u16::from_le_bytes(body.get(at..at + 2)?.try_into().ok()?));
            let rate = u32::from_le_bytes(body.get(4..8)?.try_into().ok()?);
            format = (word(0)? == 1 && word(14)? == 16).then_some((rate, word(2)?));
        } else if name == b"data" {
            let (rate, channels) = format?;
            let samples = body.chunks_exact(2).map(|b| i16::from_le_bytes([b[0], b[1]])).collect();
            return Some((samples, rate, channels));
        }
        at += 8 + len + len % 2;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_survive() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("-a.wav");
        let samples = [0, 1, -1, i16::MAX, i16::MIN, 300];
        write_wav(&path, &samples, 44_100, 2).unwrap();
        assert_eq!(read_wav(&path).unwrap(), (samples.to_vec(), 44_100, 2));
        let bytes = std::fs::read(&path).unwrap();
        for len in [0, 11, 20, 43, bytes.len() - 1] {
            assert!(parse_wav(&bytes[..len]).is_none(), "{len}");
        }
        assert!(write_wav(&path, &samples, 16_000, 0).is_err());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "no temporary file stays");
    }
}
