//! The directory of a zip archive, and its members as ranges of the file.
//!
//! Written here because the point is *where* a stored member lies, so that a tensor is read from its place, and
//! because nothing in the directory may be believed: its size is bounded, every range must lie before it, and two
//! members of one name are refused.
//!
//! # Source
//! PKWARE APPNOTE 6.3.10, sections 4.3 and 4.5.3 (zip64). Checksums are not compared: PyTorch can write archives
//! without them.

use std::collections::HashMap;
use std::io::Read;

use crate::error::{Outcome, Problem, within};
use crate::limits;
use crate::source::Source;

const END_SIGNATURE: [u8; 4] = *b"PK\x05\x06";
const END_LEN: u64 = 22;
const LONGEST_COMMENT: u64 = 65535;
const ZIP64_LOCATOR_SIGNATURE: [u8; 4] = *b"PK\x06\x07";
const ZIP64_LOCATOR_LEN: u64 = 20;
const ZIP64_END_SIGNATURE: [u8; 4] = *b"PK\x06\x06";
const ZIP64_END_LEN: u64 = 56;
const ENTRY_SIGNATURE: [u8; 4] = *b"PK\x01\x02";
const ENTRY_LEN: usize = 46;
const LOCAL_SIGNATURE: [u8; 4] = *b"PK\x03\x04";
const LOCAL_LEN: u64 = 30;
const STORED: u16 = 0;
const DEFLATED: u16 = 8;

/// One member of an archive.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Member {
    method: u16,
    encrypted: bool,
    packed_len: u64,
    /// Bytes after inflation, as the directory has it.
    pub(crate) len: u64,
    header_offset: u64,
}

/// The members of an archive by name.
#[derive(Debug)]
pub(crate) struct Archive {
    pub(crate) members: HashMap<String, Member>,
    directory_offset: u64,
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    bytes.get(at..at + 2).map_or(0, |part| u16::from_le_bytes([part[0], part[1]]))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..).and_then(|part| part.first_chunk()).map_or(0, |part| u32::from_le_bytes(*part))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..).and_then(|part| part.first_chunk()).map_or(0, |part| u64::from_le_bytes(*part))
}

impl Archive {
    /// Reads the directory.
    pub(crate) fn open(source: &Source) -> Outcome<Self> {
        let (offset, len) = find_directory(source)?;
        within("the size of the zip directory in bytes", len, limits::ZIP_DIRECTORY_BYTES)?;
        let bytes = source.bytes_at(offset, len)?;
        let mut members = HashMap::new();
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let (name, member, size) = parse_entry(rest)?;
            if member.header_offset >= offset || member.packed_len > offset {
                return Err(Problem::damaged(format!("the zip member {name:?} does not lie before the directory")));
            }
            if members.contains_key(&name) {
                return Err(Problem::damaged(format!("two zip members are called {name:?}")));
            }
            members.insert(name, member);
            rest = &rest[size..];
        }
        Ok(Self { members, directory_offset: offset })
    }

    /// Where the bytes of a stored member lie, `None` for a compressed one.
    pub(crate) fn stored_range(&self, source: &Source, name: &str, member: &Member) -> Outcome<Option<(u64, u64)>> {
        let range = self.packed_range(source, name, member)?;
        if member.method != STORED {
            return Ok(None);
        }
        if member.len != member.packed_len {
            return Err(Problem::damaged(format!(
                "the stored zip member {name:?} has two sizes, {} and {}",
                member.packed_len, member.len
            )));
        }
        Ok(Some(range))
    }

    /// All bytes of a member, at most `limit` of them.
    pub(crate) fn read(&self, source: &Source, name: &str, member: &Member, limit: u64) -> Outcome<Vec<u8>> {
        let (offset, packed_len) = self.packed_range(source, name, member)?;
        within("the size of a zip member in bytes", member.len, limit)?;
        if member.method == STORED {
            return source.bytes_at(offset, packed_len.min(limit));
        }
        let packed = RangeReader { source, position: offset, end: offset + packed_len };
        let mut bytes = Vec::new();
        // The directory's size may be a lie: one byte more than it says shows that without inflating the rest.
        flate2::read::DeflateDecoder::new(packed)
            .take(member.len + 1)
            .read_to_end(&mut bytes)
            .map_err(|error| Problem::damaged(format!("the zip member {name:?} does not inflate: {error}")))?;
        if bytes.len() as u64 != member.len {
            return Err(Problem::damaged(format!(
                "the zip member {name:?} inflates to another size than the {} bytes of the directory",
                member.len
            )));
        }
        Ok(bytes)
    }

    /// As [`Self::read`], for weights: refuses what is compressed more than weights can be.
    pub(crate) fn read_storage(&self, source: &Source, name: &str, member: &Member) -> Outcome<Vec<u8>> {
        let ratio = member.len / member.packed_len.max(4096);
        within("the compression ratio of a storage", ratio, limits::COMPRESSION_RATIO)?;
        self.read(source, name, member, u64::MAX - 1)
    }

    fn packed_range(&self, source: &Source, name: &str, member: &Member) -> Outcome<(u64, u64)> {
        if member.encrypted {
            return Err(Problem::Unsupported(format!("the encrypted zip member {name:?}")));
        }
        if member.method != STORED && member.method != DEFLATED {
            return Err(Problem::Unsupported(format!(
                "compression method {} of the zip member {name:?}",
                member.method
            )));
        }
        let header = source.bytes_at(member.header_offset, LOCAL_LEN)?;
        if header[..4] != LOCAL_SIGNATURE {
            return Err(Problem::damaged(format!("the zip member {name:?} has no header at its place")));
        }
        let skipped = LOCAL_LEN + u64::from(u16_at(&header, 26)) + u64::from(u16_at(&header, 28));
        let start = member.header_offset + skipped;
        if start.checked_add(member.packed_len).is_none_or(|end| end > self.directory_offset) {
            return Err(Problem::damaged(format!("the zip member {name:?} reaches into the directory")));
        }
        Ok((start, member.packed_len))
    }
}

/// Offset and length of the directory.
fn find_directory(source: &Source) -> Outcome<(u64, u64)> {
    let tail_len = source.len().min(END_LEN + LONGEST_COMMENT);
    let tail_offset = source.len() - tail_len;
    let tail = source.bytes_at(tail_offset, tail_len)?;
    let ends_here = |at: &usize| {
        let record = &tail[*at..];
        record[..4] == END_SIGNATURE && record.len() as u64 == END_LEN + u64::from(u16_at(record, 20))
    };
    let found = (0..(tail.len() + 1).saturating_sub(END_LEN as usize)).rev().find(ends_here);
    let Some(at) = found else {
        return Err(Problem::damaged("the end record of the zip archive is missing: the file is cut short"));
    };
    let end_offset = tail_offset + at as u64;
    let mut len = u64::from(u32_at(&tail, at + 12));
    let mut offset = u64::from(u32_at(&tail, at + 16));
    if let Some(locator_offset) = end_offset.checked_sub(ZIP64_LOCATOR_LEN) {
        let locator = source.bytes_at(locator_offset, ZIP64_LOCATOR_LEN)?;
        if locator[..4] == ZIP64_LOCATOR_SIGNATURE {
            let record = source.bytes_at(u64_at(&locator, 8), ZIP64_END_LEN)?;
            if record[..4] != ZIP64_END_SIGNATURE {
                return Err(Problem::damaged("the zip64 end record is not at its place"));
            }
            (len, offset) = (u64_at(&record, 40), u64_at(&record, 48));
        }
    }
    if offset.checked_add(len).is_none_or(|end| end > end_offset) {
        return Err(Problem::damaged(format!(
            "the zip directory ({len} bytes at byte {offset}) does not lie before the end record"
        )));
    }
    Ok((offset, len))
}

/// Name, member and size of the first entry of `bytes`.
fn parse_entry(bytes: &[u8]) -> Outcome<(String, Member, usize)> {
    let cut = || Problem::damaged("the zip directory is cut short");
    let head = bytes.get(..ENTRY_LEN).ok_or_else(cut)?;
    if head[..4] != ENTRY_SIGNATURE {
        return Err(Problem::damaged("the zip directory holds something that is no entry"));
    }
    let name_end = ENTRY_LEN + usize::from(u16_at(head, 28));
    let extra_end = name_end + usize::from(u16_at(head, 30));
    let size = extra_end + usize::from(u16_at(head, 32));
    if size > bytes.len() {
        return Err(cut());
    }
    let name = String::from_utf8_lossy(&bytes[ENTRY_LEN..name_end]).into_owned();
    let mut len = u64::from(u32_at(head, 24));
    let mut packed_len = u64::from(u32_at(head, 20));
    let mut header_offset = u64::from(u32_at(head, 42));
    let mut extra = &bytes[name_end..extra_end];
    while extra.len() >= 4 {
        let (kind, field_len) = (u16_at(extra, 0), usize::from(u16_at(extra, 2)));
        let field = extra.get(4..4 + field_len).ok_or_else(cut)?;
        if kind == 1 {
            // Only the values that did not fit are there, in this order.
            let mut at = 0;
            for value in [&mut len, &mut packed_len, &mut header_offset] {
                if *value == u64::from(u32::MAX) {
                    if at + 8 > field.len() {
                        return Err(Problem::damaged(format!("the zip64 sizes of {name:?} are cut short")));
                    }
                    *value = u64_at(field, at);
                    at += 8;
                }
            }
        }
        extra = &extra[4 + field_len..];
    }
    let encrypted = u16_at(head, 8) & 1 == 1;
    Ok((name, Member { method: u16_at(head, 10), encrypted, packed_len, len, header_offset }, size))
}

/// A part of a source as a stream.
struct RangeReader<'a> {
    source: &'a Source,
    position: u64,
    end: u64,
}

impl Read for RangeReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let len = (self.end - self.position).min(buffer.len() as u64);
        self.source.read_at(&mut buffer[..len as usize], self.position).map_err(|problem| match problem {
            Problem::Io(error) => error,
            _ => std::io::ErrorKind::UnexpectedEof.into(),
        })?;
        self.position += len;
        Ok(len as usize)
    }
}
