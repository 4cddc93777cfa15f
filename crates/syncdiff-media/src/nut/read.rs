//! Reads one video stream from a NUT pipe, as ffmpeg's muxer writes it.

use std::io::{self, Read};

use super::{FILE_ID, MAIN, STREAM, SYNCPOINT, checksum, flag, full_pts};
use crate::time::{Rational, Rounding, rescale};

/// Largest accepted header packet in bytes.
const MAX_HEADER: u64 = 1 << 20;

/// Pictures and time stamps from a pipe.
pub(crate) struct NutReader<R> {
    input: R,
    codes: Vec<Code>,
    bases: Vec<Rational>,
    /// Bytes that small frames leave out; entry 0 is empty.
    elided: Vec<Vec<u8>>,
    stream: Option<StreamHeader>,
    last_pts: i64,
}

#[derive(Clone, Copy)]
struct Code {
    flags: u64,
    stream: u64,
    size_mul: u64,
    size_lsb: u64,
    pts_delta: i64,
    reserved: u64,
    header: u64,
}

#[derive(Clone, Copy)]
struct StreamHeader {
    base: Rational,
    shift: u32,
}

impl<R: Read> NutReader<R> {
    /// Reads the headers.
    pub(crate) fn new(mut input: R) -> io::Result<Self> {
        let mut id = [0; FILE_ID.len()];
        input.read_exact(&mut id)?;
        if &id != FILE_ID {
            return Err(wrong("no NUT stream"));
        }
        let (bases, elided) = (Vec::new(), vec![Vec::new()]);
        let mut reader = NutReader { input, codes: Vec::new(), bases, elided, stream: None, last_pts: 0 };
        while reader.stream.is_none() {
            match reader.byte()? {
                Some(b'N') => reader.packet()?,
                _ => return Err(wrong("a frame before the headers")),
            }
        }
        Ok(reader)
    }

    /// Seconds of one tick.
    pub(crate) fn time_base(&self) -> Rational {
        self.stream.map_or(Rational::new(1, 1), |stream| stream.base)
    }

    /// Reads the next picture into `data`, whose length must be that of the picture, and gives its
    /// time stamp; none at the end.
    pub(crate) fn frame(&mut self, data: &mut [u8]) -> io::Result<Option<i64>> {
        loop {
            match self.byte()? {
                None => return Ok(None),
                Some(b'N') => self.packet()?,
                Some(code) => return self.body(code, data).map(Some),
            }
        }
    }

    fn body(&mut self, code: u8, data: &mut [u8]) -> io::Result<i64> {
        let code = *self.codes.get(usize::from(code)).ok_or_else(|| wrong("frame code"))?;
        let stream = self.stream.ok_or_else(|| wrong("no stream"))?;
        let mut flags = code.flags;
        if flags & flag::INVALID != 0 {
            return Err(wrong("an invalid frame code"));
        }
        if flags & flag::CODED != 0 {
            flags ^= self.number()?;
        }
        let id = if flags & flag::STREAM_ID != 0 { self.number()? } else { code.stream };
        if id != 0 {
            return Err(wrong("a second stream"));
        }
        let pts = if flags & flag::CODED_PTS != 0 {
            let coded = self.number()?;
            let coded = i64::try_from(coded).map_err(|_| wrong("time stamp"))?;
            let full = 1i64 << stream.shift;
            if coded < full { full_pts(coded, stream.shift, self.last_pts) } else { coded - full }
        } else {
            self.last_pts.saturating_add(code.pts_delta)
        };
        let mut size = code.size_lsb;
        if flags & flag::SIZE_MSB != 0 {
            let high = self.number()?;
            size = high
                .checked_mul(code.size_mul)
                .and_then(|high| high.checked_add(size))
                .ok_or_else(|| wrong("frame size"))?;
        }
        if flags & flag::MATCH_TIME != 0 {
            self.number()?;
        }
        let header = if flags & flag::HEADER_IDX != 0 { self.number()? } else { code.header };
        let reserved = if flags & flag::RESERVED != 0 { self.number()? } else { code.reserved };
        for _ in 0..reserved {
            self.number()?;
        }
        if flags & flag::CHECKSUM != 0 {
            self.input.read_exact(&mut [0; 4])?;
        }
        if size != data.len() as u64 {
            return Err(wrong("the size of a picture"));
        }
        // The specification leaves bytes out of small frames only.
        let header = if size > 4096 { 0 } else { header };
        let elided = self.elided.get(header as usize).ok_or_else(|| wrong("elision header"))?;
        let (head, tail) = data.split_at_mut_checked(elided.len()).ok_or_else(|| wrong("elision header"))?;
        head.copy_from_slice(elided);
        self.input.read_exact(tail)?;
        self.last_pts = pts;
        Ok(pts)
    }

    /// A packet after the `N` of its start code.
    fn packet(&mut self) -> io::Result<()> {
        let mut rest = [0; 8];
        rest[0] = b'N';
        self.input.read_exact(&mut rest[1..])?;
        let code = u64::from_be_bytes(rest);
        let length = self.number()?;
        if length > 4096 {
            self.input.read_exact(&mut [0; 4])?;
        }
        if ![MAIN, STREAM, SYNCPOINT].contains(&code) {
            // Tags and the index at the end.
            let skipped = io::copy(&mut (&mut self.input).take(length), &mut io::sink())?;
            return if skipped == length { Ok(()) } else { Err(wrong("the end of a packet")) };
        }
        if !(4..=MAX_HEADER).contains(&length) {
            return Err(wrong("header size"));
        }
        let mut payload = vec![0; length as usize];
        self.input.read_exact(&mut payload)?;
        if checksum(&payload) != 0 {
            return Err(wrong("a header's checksum"));
        }
        payload.truncate(payload.len() - 4);
        let mut cursor = Cursor { bytes: &payload, at: 0 };
        match code {
            MAIN if self.codes.is_empty() => self.main_header(&mut cursor),
            STREAM if self.stream.is_none() => self.stream_header(&mut cursor),
            SYNCPOINT => self.syncpoint(&mut cursor),
            _ => Ok(()),
        }
    }

    fn main_header(&mut self, cursor: &mut Cursor<'_>) -> io::Result<()> {
        let version = cursor.number()?;
        if !(2..=4).contains(&version) {
            return Err(wrong("version"));
        }
        if version > 3 {
            cursor.number()?;
        }
        if cursor.number()? != 1 {
            return Err(wrong("the number of streams"));
        }
        cursor.number()?; // greatest distance of syncpoints
        for _ in 0..cursor.number()?.min(256) {
            let (num, den) = (cursor.number()?, cursor.number()?);
            let part = |v: u64| i64::try_from(v).ok().filter(|v| (1..1 << 32).contains(v));
            match (part(num), part(den)) {
                (Some(num), Some(den)) => self.bases.push(Rational::new(num, den)),
                _ => return Err(wrong("a time base")),
            }
        }
        let invalid =
            Code { flags: flag::INVALID, stream: 0, size_mul: 1, size_lsb: 0, pts_delta: 0, reserved: 0, header: 0 };
        let mut codes = Vec::with_capacity(256);
        let (mut pts_delta, mut size_mul, mut stream, mut header) = (0, 1, 0, 0);
        while codes.len() < 256 {
            let flags = cursor.number()?;
            let fields = cursor.number()?;
            if fields > 0 {
                pts_delta = cursor.signed()?;
            }
            if fields > 1 {
                size_mul = cursor.number()?;
            }
            if fields > 2 {
                stream = cursor.number()?;
            }
            let size = if fields > 3 { cursor.number()? } else { 0 };
            let reserved = if fields > 4 { cursor.number()? } else { 0 };
            let count = if fields > 5 { cursor.number()? } else { size_mul.saturating_sub(size) };
            if fields > 6 {
                cursor.signed()?;
            }
            if fields > 7 {
                header = cursor.number()?;
            }
            for _ in 8..fields.min(64) {
                cursor.number()?;
            }
            if count == 0 || count > 256 {
                return Err(wrong("the frame codes"));
            }
            for step in 0..count {
                if codes.len() == usize::from(b'N') {
                    codes.push(invalid);
                }
                let size_lsb = size + step;
                codes.push(Code { flags, stream, size_mul, size_lsb, pts_delta, reserved, header });
            }
        }
        codes.truncate(256);
        self.codes = codes;
        let count = cursor.number()?;
        for _ in 0..count.min(127) {
            self.elided.push(cursor.bytes()?.to_vec());
        }
        Ok(())
    }

    fn stream_header(&mut self, cursor: &mut Cursor<'_>) -> io::Result<()> {
        let (_id, _class) = (cursor.number()?, cursor.number()?);
        cursor.bytes()?; // four-character code
        let base = cursor.number()? as usize;
        let shift = cursor.number()?;
        let base = *self.bases.get(base).ok_or_else(|| wrong("the stream's time base"))?;
        if shift > 16 {
            return Err(wrong("the stream's time stamps"));
        }
        self.stream = Some(StreamHeader { base, shift: shift as u32 });
        Ok(())
    }

    fn syncpoint(&mut self, cursor: &mut Cursor<'_>) -> io::Result<()> {
        let coded = cursor.number()?;
        let count = self.bases.len() as u64;
        if count == 0 {
            return Err(wrong("a syncpoint before the headers"));
        }
        let pts = i64::try_from(coded / count).map_err(|_| wrong("a syncpoint"))?;
        let base = self.bases[(coded % count) as usize];
        self.last_pts = rescale(pts, base, self.time_base(), Rounding::Down);
        Ok(())
    }

    fn byte(&mut self) -> io::Result<Option<u8>> {
        let mut byte = [0];
        loop {
            match self.input.read(&mut byte) {
                Ok(0) => return Ok(None),
                Ok(_) => return Ok(Some(byte[0])),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn number(&mut self) -> io::Result<u64> {
        number(|| {
            let mut byte = [0];
            self.input.read_exact(&mut byte)?;
            Ok(byte[0])
        })
    }
}

/// A position in a header packet.
struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    fn number(&mut self) -> io::Result<u64> {
        number(|| {
            let byte = *self.bytes.get(self.at).ok_or_else(|| wrong("the end of a header"))?;
            self.at += 1;
            Ok(byte)
        })
    }

    fn signed(&mut self) -> io::Result<i64> {
        let value = self.number()?.wrapping_add(1);
        let half = (value >> 1) as i64;
        Ok(if value & 1 == 1 { -half } else { half })
    }

    fn bytes(&mut self) -> io::Result<&'a [u8]> {
        let length = self.number()? as usize;
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let bytes = rest.get(..length).ok_or_else(|| wrong("the end of a header"))?;
        self.at += length;
        Ok(bytes)
    }
}

/// A number in groups of seven bits, most significant first, the high bit on all but the last.
fn number(mut next: impl FnMut() -> io::Result<u8>) -> io::Result<u64> {
    let mut value = 0u64;
    for _ in 0..10 {
        let byte = next()?;
        value = (value << 7) | u64::from(byte & 0x7F);
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(wrong("a number"))
}

fn wrong(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the picture stream is broken at {what}"))
}
