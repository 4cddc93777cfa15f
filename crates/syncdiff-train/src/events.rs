//! The log as an event file for TensorBoard.
//!
//! # Source
//! TensorFlow `core/lib/io/record_writer` (length, masked CRC-32C of the length, data, masked CRC-32C of the data; all
//! little endian), `core/util/event.proto` and `core/framework/summary.proto`, of which a few fields are used.

use crate::error::{TrainError, TrainResult};
use crate::trainer::Stats;
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// TensorBoard looks for `tfevents` in the name.
const FILE: &str = "events.out.tfevents.0.syncdiff";
/// What a picture is made of, by the number of its channels.
const RGB: u64 = 3;
/// Bytes of a record around its data.
const FRAME_BYTES: u64 = 16;

pub(crate) struct Events {
    file: File,
    path: PathBuf,
}

impl Events {
    /// Opens the run's file behind its last whole record: a kill may have left a part of another.
    pub(crate) fn open(run: &Path) -> TrainResult<Self> {
        let path = run.join(FILE);
        let io = |error| TrainError::io(&path, error);
        let mut file =
            OpenOptions::new().create(true).read(true).write(true).truncate(false).open(&path).map_err(io)?;
        let end = whole(&mut file).map_err(io)?;
        file.set_len(end).and_then(|()| file.seek(SeekFrom::Start(end))).map_err(io)?;
        let mut events = Self { file, path };
        if end == 0 {
            let mut event = Vec::new();
            double(&mut event, 1, 0.0);
            bytes(&mut event, 3, b"brain.Event:2");
            events.record(&event)?;
        }
        Ok(events)
    }

    /// Appends all figures of a line; the wall time is the seconds of training.
    pub(crate) fn write(&mut self, stats: &Stats) -> TrainResult<()> {
        let mut summary = Vec::new();
        let mut add = |tag: &str, value: f32| {
            let mut entry = Vec::new();
            bytes(&mut entry, 1, tag.as_bytes());
            key(&mut entry, 2, 5);
            entry.extend(value.to_le_bytes());
            bytes(&mut summary, 1, &entry);
        };
        add("loss", stats.loss);
        add("gradient_norm", stats.gradient_norm as f32);
        stats.loss_scale.iter().for_each(|scale| add("loss_scale", *scale as f32));
        add("rate", stats.rate as f32);
        stats.parts.iter().for_each(|(name, value)| add(&format!("parts/{name}"), *value));
        stats.valid.iter().for_each(|(name, value)| add(&format!("valid/{name}"), *value));
        self.summary(stats.step, stats.seconds, &summary)
    }

    /// Appends a picture, which is shown under the tag `samples`; `png` is the content of a file of this size.
    pub(crate) fn draw(&mut self, step: u64, seconds: f64, [width, height]: [usize; 2], png: &[u8]) -> TrainResult<()> {
        let mut image = Vec::new();
        for (field, value) in [(1, height as u64), (2, width as u64), (3, RGB)] {
            key(&mut image, field, 0);
            varint(&mut image, value);
        }
        bytes(&mut image, 4, png);
        let (mut entry, mut summary) = (Vec::new(), Vec::new());
        bytes(&mut entry, 1, b"samples");
        bytes(&mut entry, 4, &image);
        bytes(&mut summary, 1, &entry);
        self.summary(step, seconds, &summary)
    }

    fn summary(&mut self, step: u64, seconds: f64, summary: &[u8]) -> TrainResult<()> {
        let mut event = Vec::new();
        double(&mut event, 1, seconds);
        key(&mut event, 2, 0);
        varint(&mut event, step);
        bytes(&mut event, 5, summary);
        self.record(&event)
    }

    fn record(&mut self, data: &[u8]) -> TrainResult<()> {
        let length = (data.len() as u64).to_le_bytes();
        let (before, behind) = (masked_crc(&length).to_le_bytes(), masked_crc(data).to_le_bytes());
        self.file.write_all(&[&length[..], &before, data, &behind].concat()).map_err(|e| TrainError::io(&self.path, e))
    }
}

/// Where the last whole record ends.
fn whole(file: &mut File) -> std::io::Result<u64> {
    let size = file.metadata()?.len();
    let mut end = 0;
    while end + FRAME_BYTES <= size {
        let mut length = [0; 8];
        file.seek(SeekFrom::Start(end))?;
        file.read_exact(&mut length)?;
        let next = u64::from_le_bytes(length).checked_add(end + FRAME_BYTES);
        match next {
            Some(next) if next <= size => end = next,
            _ => break,
        }
    }
    Ok(end)
}

/// Number and wire type of a field.
fn key(out: &mut Vec<u8>, field: u64, wire: u64) {
    varint(out, field << 3 | wire);
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn bytes(out: &mut Vec<u8>, field: u64, value: &[u8]) {
    key(out, field, 2);
    varint(out, value.len() as u64);
    out.extend_from_slice(value);
}

fn double(out: &mut Vec<u8>, field: u64, value: f64) {
    key(out, field, 1);
    out.extend(value.to_le_bytes());
}

/// CRC-32C (Castagnoli), rotated and shifted as records have it.
fn masked_crc(data: &[u8]) -> u32 {
    let crc = !data.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0x82F6_3B78 } else { crc >> 1 })
    });
    crc.rotate_right(15).wrapping_add(0xA282_EAD8)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stats(step: u64) -> Stats {
        Stats {
            step,
            steps: 300,
            loss: 0.5,
            gradient_norm: 2.0,
            loss_scale: Some(1024.0),
            rate: 0.25,
            seconds: 1.5,
            parts: vec![("l1", 0.125)],
            valid: vec![("psnr", 30.0)],
            best: None,
        }
    }

    #[test]
    fn checksums_are_castagnoli() {
        // "123456789" has the CRC-32C E3069283.
        assert_eq!(masked_crc(b"123456789"), 0xE306_9283u32.rotate_right(15).wrapping_add(0xA282_EAD8));
    }

    #[test]
    fn records_hold_step_time_and_figures() {
        let folder = tempfile::tempdir().unwrap();
        Events::open(folder.path()).unwrap().write(&stats(200)).unwrap();
        let written = std::fs::read(folder.path().join(FILE)).unwrap();
        let first = u64::from_le_bytes(written[..8].try_into().unwrap()) as usize;
        assert_eq!(written[12..12 + first][9..], *b"\x1a\x0dbrain.Event:2");
        let data = &written[16 + first + 12..written.len() - 4];
        let mut expected = b"\x09".to_vec();
        expected.extend(1.5f64.to_le_bytes());
        // Step 200, a summary, and in it the first value.
        expected.extend(b"\x10\xc8\x01\x2a");
        assert_eq!(data[..13], expected);
        assert_eq!(data[14..28], *b"\x0a\x0b\x0a\x04loss\x15\x00\x00\x00\x3f\x0a");
        for name in ["gradient_norm", "loss_scale", "rate", "parts/l1", "valid/psnr"] {
            assert!(data.windows(name.len()).any(|w| w == name.as_bytes()), "{name}");
        }
    }

    #[test]
    fn pictures_are_told_with_their_size() {
        let folder = tempfile::tempdir().unwrap();
        Events::open(folder.path()).unwrap().draw(7, 2.5, [300, 20], b"PNG").unwrap();
        let written = std::fs::read(folder.path().join(FILE)).unwrap();
        let first = u64::from_le_bytes(written[..8].try_into().unwrap()) as usize;
        let data = &written[16 + first + 12..written.len() - 4];
        // Step 7, a summary of one value: its tag, and an image of 20 lines of 300 pixels in three channels.
        let mut expected = b"\x09".to_vec();
        expected.extend(2.5f64.to_le_bytes());
        expected.extend(b"\x10\x07\x2a\x19\x0a\x17\x0a\x07samples\x22\x0c\x08\x14\x10\xac\x02\x18\x03\x22\x03PNG");
        assert_eq!(data, expected);
    }

    #[test]
    fn half_a_record_is_cut_off_and_the_file_goes_on() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(FILE);
        Events::open(folder.path()).unwrap().write(&stats(1)).unwrap();
        let one = std::fs::read(&path).unwrap();
        Events::open(folder.path()).unwrap().write(&stats(2)).unwrap();
        let two = std::fs::read(&path).unwrap();
        assert_eq!(two[..one.len()], one);
        std::fs::write(&path, &two[..two.len() - 5]).unwrap();
        Events::open(folder.path()).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), one);
    }
}
