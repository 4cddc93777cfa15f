//! Writes one stream of RGB pictures as NUT, with a syncpoint and a full time stamp before each.

use std::io::{self, Write};

use super::{FILE_ID, INFO, MAIN, STREAM, SYNCPOINT, checksum, flag};
use crate::time::Rational;

/// Pictures and time stamps into a pipe.
pub(crate) struct NutWriter<W> {
    output: W,
}

impl<W: Write> NutWriter<W> {
    /// Writes the headers for RGB24 pictures of `size` (width, height). The rate is a hint for the
    /// encoder (it chooses the codec level); the time stamps alone say when a picture is shown.
    pub(crate) fn new(output: W, size: (usize, usize), base: Rational, rate: Rational) -> io::Result<Self> {
        let mut writer = NutWriter { output };
        writer.output.write_all(FILE_ID)?;
        let base = base.reduced();

        let mut main = Vec::new();
        for value in [3, 1, 65_536, 1, base.num as u64, base.den as u64] {
            number(&mut main, value); // version, streams, syncpoint distance, time bases
        }
        // Frame code 0 is a key frame with coded time stamp, coded size and checksum (pts delta 0,
        // size multiplier 1, stream 0, size 0, reserved 0, used once); all others are invalid.
        let used = flag::KEY | flag::CODED_PTS | flag::SIZE_MSB | flag::CHECKSUM;
        for (flags, count) in [(used, 1), (flag::INVALID, 254)] {
            for value in [flags, 6, 0, 1, 0, 0, 0, count] {
                number(&mut main, value);
            }
        }
        number(&mut main, 0); // no elided bytes
        writer.packet(MAIN, &main)?;

        let mut stream = Vec::new();
        number(&mut stream, 0); // stream 0
        number(&mut stream, 0); // class: video
        bytes(&mut stream, b"RGB\x18"); // raw RGB, 24 bits
        for value in [0, 0, 1 << 40, 0, 0] {
            number(&mut stream, value); // base 0, full stamps, stamp distance, no delay, flags
        }
        bytes(&mut stream, b""); // codec data
        for value in [size.0 as u64, size.1 as u64, 1, 1, 0] {
            number(&mut stream, value); // width, height, square pixels, colour unknown
        }
        writer.packet(STREAM, &stream)?;

        let mut info = Vec::new();
        for value in [1, 0, 0, 0, 1] {
            number(&mut info, value); // of stream 0, whole file, one entry
        }
        bytes(&mut info, b"r_frame_rate");
        number(&mut info, 2); // signed -1: text follows
        bytes(&mut info, rate.to_string().as_bytes());
        writer.packet(INFO, &info)?;
        Ok(writer)
    }

    /// Writes one picture; `pts` is not below zero.
    pub(crate) fn frame(&mut self, pts: i64, data: &[u8]) -> io::Result<()> {
        let pts =
            u64::try_from(pts).map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "a negative time stamp"))?;
        let mut point = Vec::new();
        number(&mut point, pts); // on time base 0 of 1
        number(&mut point, 0); // no earlier syncpoint is needed
        self.packet(SYNCPOINT, &point)?;
        let mut header = vec![0]; // frame code
        number(&mut header, pts + 1); // above the (empty) range of short stamps
        number(&mut header, data.len() as u64);
        let crc = checksum(&header);
        header.extend_from_slice(&crc.to_be_bytes());
        self.output.write_all(&header)?;
        self.output.write_all(data)
    }

    /// Gives the pipe back.
    pub(crate) fn into_inner(self) -> W {
        self.output
    }

    fn packet(&mut self, code: u64, payload: &[u8]) -> io::Result<()> {
        // All packets of this writer are far below the 4096 bytes that need a second checksum.
        let mut packet = code.to_be_bytes().to_vec();
        number(&mut packet, payload.len() as u64 + 4);
        packet.extend_from_slice(payload);
        packet.extend_from_slice(&checksum(payload).to_be_bytes());
        self.output.write_all(&packet)
    }
}

fn number(out: &mut Vec<u8>, value: u64) {
    let groups = (64 - value.leading_zeros()).div_ceil(7).max(1);
    for group in (0..groups).rev() {
        let more = if group > 0 { 0x80 } else { 0 };
        out.push(((value >> (7 * group)) & 0x7F) as u8 | more);
    }
}

fn bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    number(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}
