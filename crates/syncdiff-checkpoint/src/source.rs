//! Bytes at positions: a file that is read where it is asked for, or memory.
//!
//! Positioned reads rather than a memory map: a map of a file that another program cuts short ends in a signal, and
//! making one needs `unsafe`. Only what is asked for is ever in memory.

use std::fs::File;
use std::io::ErrorKind;

use crate::error::{Outcome, Problem};

#[derive(Debug)]
enum Kind {
    File(File),
    Memory(Vec<u8>),
}

/// A readable thing of known length.
#[derive(Debug)]
pub(crate) struct Source {
    kind: Kind,
    len: u64,
}

impl Source {
    pub(crate) fn file(file: File) -> Outcome<Self> {
        let metadata = file.metadata().map_err(Problem::Io)?;
        if metadata.is_dir() {
            return Err(Problem::NotACheckpoint("a folder".into()));
        }
        Ok(Self { len: metadata.len(), kind: Kind::File(file) })
    }

    pub(crate) fn memory(bytes: Vec<u8>) -> Self {
        Self { len: bytes.len() as u64, kind: Kind::Memory(bytes) }
    }

    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// Fills `buffer` with the bytes from `offset` on.
    pub(crate) fn read_at(&self, buffer: &mut [u8], offset: u64) -> Outcome<()> {
        let wanted = buffer.len() as u64;
        let end = offset.checked_add(wanted).filter(|end| *end <= self.len);
        let Some(end) = end else {
            return Err(Problem::damaged(format!(
                "{wanted} bytes at byte {offset} are needed, the file ends at byte {}",
                self.len
            )));
        };
        match &self.kind {
            Kind::Memory(bytes) => {
                buffer.copy_from_slice(&bytes[offset as usize..end as usize]);
                Ok(())
            }
            Kind::File(file) => read_file_at(file, buffer, offset).map_err(|error| match error.kind() {
                ErrorKind::UnexpectedEof => Problem::damaged("the file became shorter while it was read"),
                _ => Problem::Io(error),
            }),
        }
    }

    /// The bytes from `offset` on; nothing is reserved before the range is known to lie inside.
    pub(crate) fn bytes_at(&self, offset: u64, len: u64) -> Outcome<Vec<u8>> {
        if offset.checked_add(len).is_none_or(|end| end > self.len) {
            return Err(Problem::damaged(format!(
                "{len} bytes at byte {offset} are needed, the file ends at byte {}",
                self.len
            )));
        }
        let mut bytes = vec![0; len as usize];
        self.read_at(&mut bytes, offset)?;
        Ok(bytes)
    }
}

#[cfg(unix)]
fn read_file_at(file: &File, buffer: &mut [u8], offset: u64) -> std::io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, buffer, offset)
}

#[cfg(windows)]
fn read_file_at(file: &File, mut buffer: &mut [u8], mut offset: u64) -> std::io::Result<()> {
    while !buffer.is_empty() {
        let count = std::os::windows::fs::FileExt::seek_read(file, buffer, offset)?;
        if count == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        buffer = &mut buffer[count..];
        offset += count as u64;
    }
    Ok(())
}
