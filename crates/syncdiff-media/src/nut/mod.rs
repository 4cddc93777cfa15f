//! Raw pictures with exact time stamps through a pipe: the NUT container, one video stream.
//!
//! ffmpeg's raw video formats have no time stamps, and Matroska rounds them to milliseconds. NUT
//! carries them on any rational base, so it serves both directions: [`NutReader`] reads what
//! ffmpeg decodes, [`NutWriter`] writes what ffmpeg encodes.
//!
//! Source: the NUT Open Container Format specification (2008), sections "Definition" and
//! "Structures". Variable-length numbers, checksums and packets are shared here.

mod read;
mod write;

pub(crate) use read::NutReader;
pub(crate) use write::NutWriter;

const FILE_ID: &[u8; 25] = b"nut/multimedia container\0";
const MAIN: u64 = 0x4E4D_7A56_1F5F_04AD;
const STREAM: u64 = 0x4E53_1140_5BF2_F9DB;
const SYNCPOINT: u64 = 0x4E4B_E4AD_EECA_4569;
const INFO: u64 = 0x4E49_AB68_B596_BA78;

/// Flags of a frame code.
mod flag {
    pub(super) const KEY: u64 = 1;
    pub(super) const CODED_PTS: u64 = 8;
    pub(super) const STREAM_ID: u64 = 16;
    pub(super) const SIZE_MSB: u64 = 32;
    pub(super) const CHECKSUM: u64 = 64;
    pub(super) const RESERVED: u64 = 128;
    pub(super) const HEADER_IDX: u64 = 1024;
    pub(super) const MATCH_TIME: u64 = 2048;
    pub(super) const CODED: u64 = 4096;
    pub(super) const INVALID: u64 = 8192;
}

/// CRC-32, polynomial 0x04C11DB7, most significant bit first, start value 0.
fn checksum(bytes: &[u8]) -> u32 {
    const TABLE: [u32; 256] = {
        let mut table = [0; 256];
        let mut i = 0;
        while i < 256 {
            let mut crc = (i as u32) << 24;
            let mut bit = 0;
            while bit < 8 {
                crc = if crc & 0x8000_0000 != 0 { (crc << 1) ^ 0x04C1_1DB7 } else { crc << 1 };
                bit += 1;
            }
            table[i] = crc;
            i += 1;
        }
        table
    };
    bytes.iter().fold(0, |crc, byte| (crc << 8) ^ TABLE[((crc >> 24) as u8 ^ byte) as usize])
}

/// Most significant part of `pts` that a short code leaves out, filled in from the last one.
fn full_pts(short: i64, shift: u32, last: i64) -> i64 {
    let mask = (1i64 << shift) - 1;
    let delta = last - mask / 2;
    ((short.wrapping_sub(delta)) & mask) + delta
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Rational;

    #[test]
    fn the_checksum_is_the_one_of_ffmpeg() {
        // The CRC over a block and its own CRC is zero.
        let crc = checksum(b"123456789");
        let mut with = b"123456789".to_vec();
        with.extend_from_slice(&crc.to_be_bytes());
        assert_eq!(checksum(&with), 0);
        assert_eq!(crc, 0x89A1_897F);
    }

    #[test]
    fn short_time_stamps_are_completed() {
        for pts in [0i64, 5, 127, 128, 1000, 1 << 40] {
            for last in [pts - 30, pts, pts + 30] {
                assert_eq!(full_pts(pts & 127, 7, last), pts);
            }
        }
    }

    #[test]
    fn what_is_written_is_read_back() {
        let base = Rational::new(1, 30_000);
        let times = [0, 1001, 2002, 2003, 900_000_000_000];
        let mut writer = NutWriter::new(Vec::new(), (4, 2), base, Rational::new(25, 1)).unwrap();
        for (i, pts) in times.iter().enumerate() {
            writer.frame(*pts, &[i as u8; 24]).unwrap();
        }
        let bytes = writer.into_inner();
        let mut reader = NutReader::new(bytes.as_slice()).unwrap();
        assert_eq!(reader.time_base(), base);
        for (i, pts) in times.iter().enumerate() {
            let mut data = vec![9; 24];
            assert_eq!(reader.frame(&mut data).unwrap(), Some(*pts));
            assert_eq!(data, [i as u8; 24]);
        }
        assert_eq!(reader.frame(&mut [0; 24]).unwrap(), None);
    }

    #[test]
    fn cut_and_changed_bytes_are_errors_and_never_panics() {
        let base = Rational::new(1, 25);
        let mut writer = NutWriter::new(Vec::new(), (2, 1), base, Rational::new(25, 1)).unwrap();
        writer.frame(0, &[1; 6]).unwrap();
        writer.frame(1, &[2; 6]).unwrap();
        let bytes = writer.into_inner();
        let read_all = |bytes: &[u8]| {
            let mut reader = NutReader::new(bytes)?;
            let mut data = [0; 6];
            while reader.frame(&mut data)?.is_some() {}
            Ok::<(), std::io::Error>(())
        };
        assert!(read_all(&bytes).is_ok());
        assert!(read_all(&bytes[..bytes.len() - 1]).is_err());
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 0x55;
            let _ = read_all(&changed);
            let _ = read_all(&bytes[..at]);
        }
    }
}
