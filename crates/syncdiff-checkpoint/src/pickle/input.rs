//! The bytes of a pickle, in order, through a small window onto their source.

use crate::error::{Outcome, Problem};
use crate::source::Source;

const WINDOW_LEN: u64 = 1 << 16;
/// Longest line of the text opcodes of protocol 0.
const LINE_LEN: u64 = 1 << 20;

/// A cursor over a part of a source.
pub(crate) struct Input<'a> {
    source: &'a Source,
    window: Vec<u8>,
    /// Position of the window's first byte in the source.
    start: u64,
    /// Bytes of the window that were taken.
    taken: usize,
    end: u64,
}

impl<'a> Input<'a> {
    /// The bytes of `source` from `start` to before `end`.
    pub(crate) fn new(source: &'a Source, start: u64, end: u64) -> Self {
        Self { source, window: Vec::new(), start, taken: 0, end }
    }

    /// Position in the source of the next byte.
    pub(crate) fn position(&self) -> u64 {
        self.start + self.taken as u64
    }

    /// Bytes that are left.
    pub(crate) fn left(&self) -> u64 {
        self.end.saturating_sub(self.position())
    }

    fn cut(&self) -> Problem {
        Problem::damaged(format!("the pickle is cut short at byte {}", self.end))
    }

    pub(crate) fn byte(&mut self) -> Outcome<u8> {
        if self.taken == self.window.len() {
            let len = self.left().min(WINDOW_LEN);
            if len == 0 {
                return Err(self.cut());
            }
            self.start = self.position();
            self.taken = 0;
            self.window.clear();
            self.window = self.source.bytes_at(self.start, len)?;
        }
        let byte = self.window[self.taken];
        self.taken += 1;
        Ok(byte)
    }

    /// The next `len` bytes; nothing is reserved before they are known to be there.
    pub(crate) fn bytes(&mut self, len: u64) -> Outcome<Vec<u8>> {
        if len > self.left() {
            return Err(self.cut());
        }
        let inside = self.window.len() - self.taken;
        if len <= inside as u64 {
            let bytes = self.window[self.taken..self.taken + len as usize].to_vec();
            self.taken += len as usize;
            return Ok(bytes);
        }
        let bytes = self.source.bytes_at(self.position(), len)?;
        self.start = self.position() + len;
        self.taken = 0;
        self.window.clear();
        Ok(bytes)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Outcome<[u8; N]> {
        let mut array = [0; N];
        for byte in &mut array {
            *byte = self.byte()?;
        }
        Ok(array)
    }

    /// The next line, without its end.
    pub(crate) fn line(&mut self) -> Outcome<Vec<u8>> {
        let mut line = Vec::new();
        loop {
            let byte = self.byte()?;
            if byte == b'\n' {
                return Ok(line);
            }
            if line.len() as u64 == LINE_LEN {
                return Err(Problem::damaged("a line of a text opcode has no end"));
            }
            line.push(byte);
        }
    }
}
