//! Which format a file has, by its first bytes. Only named formats are ever opened, each with its
//! demuxer forced, so that no file can make ffmpeg follow a playlist or a network address.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use crate::error::MediaError;
use crate::info::Orientation;

/// How many bytes are looked at.
const SNIFFED_BYTES: u64 = 256 << 10;

/// What the first bytes tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sniffed {
    /// ffmpeg's name of the demuxer.
    pub(crate) demuxer: &'static str,
    /// Is it a format of single pictures?
    pub(crate) picture: bool,
    /// How the picture lies by its Exif data (JPEG only).
    pub(crate) orientation: Orientation,
}

/// Opens a file and recognises its format.
pub(crate) fn sniff(path: &Path) -> Result<Sniffed, MediaError> {
    let owned = || path.to_path_buf();
    let metadata = std::fs::metadata(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory => MediaError::NoSuchFile { path: owned() },
        _ => MediaError::io("open", path, error),
    })?;
    if !metadata.is_file() {
        return Err(MediaError::NotAFile { path: owned() });
    }
    if metadata.len() == 0 {
        return Err(MediaError::EmptyFile { path: owned() });
    }
    let mut head = Vec::new();
    File::open(path)
        .and_then(|file| file.take(SNIFFED_BYTES).read_to_end(&mut head))
        .map_err(|error| MediaError::io("open", path, error))?;
    if let Some(kind) = playlist(&head) {
        return Err(MediaError::Playlist { path: owned(), kind });
    }
    match recognise(&head) {
        Some((demuxer, picture)) => {
            let orientation = if demuxer == "jpeg_pipe" {
                Orientation::from_exif(exif_orientation(&head).unwrap_or(1))
            } else {
                Orientation::Upright
            };
            Ok(Sniffed { demuxer, picture, orientation })
        }
        None => Err(MediaError::NotMedia { path: owned(), detail: describe(&head) }),
    }
}

/// Text formats that name other files.
fn playlist(head: &[u8]) -> Option<&'static str> {
    let text = String::from_utf8_lossy(&head[..head.len().min(1024)]).to_lowercase();
    let text = text.trim_start_matches(['\u{feff}', ' ', '\t', '\r', '\n']);
    let begins = [
        ("#extm3u", "HLS or M3U"),
        ("ffconcat", "ffmpeg concat list"),
        ("[playlist]", "PLS"),
        ("[reference]", "ASF redirect"),
        ("v=0", "SDP session"),
        ("<smil", "SMIL"),
        ("<asx", "ASX"),
        ("<mpd", "DASH"),
    ];
    if let Some((_, kind)) = begins.iter().find(|(begin, _)| text.starts_with(begin)) {
        return Some(kind);
    }
    let inside = [("<mpd", "DASH"), ("<playlist", "XSPF"), ("<smil", "SMIL"), ("<asx", "ASX")];
    let xml = text.starts_with("<?xml");
    inside.iter().find(|(mark, _)| xml && text.contains(mark)).map(|(_, kind)| *kind)
}

fn recognise(head: &[u8]) -> Option<(&'static str, bool)> {
    let at = |offset: usize, bytes: &[u8]| head.get(offset..offset + bytes.len()) == Some(bytes);
    let boxes: [&[u8; 4]; 7] = [b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"styp"];
    if boxes.iter().any(|name| at(4, &name[..])) {
        return Some(("mov", false));
    }
    if at(0, b"RIFF") || at(0, b"RF64") {
        return match head.get(8..12)? {
            b"AVI " => Some(("avi", false)),
            b"WAVE" => Some(("wav", false)),
            b"WEBP" => Some(("webp_pipe", true)),
            _ => None,
        };
    }
    if at(0, b"FORM") && (at(8, b"AIFF") || at(8, b"AIFC")) {
        return Some(("aiff", false));
    }
    let table: [(&[u8], &str, bool); 16] = [
        (b"\x1A\x45\xDF\xA3", "matroska", false),
        (b"OggS", "ogg", false),
        (b"fLaC", "flac", false),
        (b"FLV\x01", "flv", false),
        (b"GIF8", "gif", false),
        (b"\x00\x00\x01\xBA", "mpeg", false),
        (b"\x30\x26\xB2\x75\x8E\x66\xCF\x11", "asf", false),
        (b"caff", "caf", false),
        (b"#!AMR", "amr", false),
        (b".snd", "au", false),
        (b"\x89PNG\r\n\x1A\n", "png_pipe", true),
        (b"\xFF\xD8\xFF", "jpeg_pipe", true),
        (b"II*\0", "tiff_pipe", true),
        (b"MM\0*", "tiff_pipe", true),
        (b"BM", "bmp_pipe", true),
        (b"ID3", "", false),
    ];
    if let Some((_, demuxer, picture)) = table.iter().find(|(magic, ..)| at(0, magic)) {
        if !demuxer.is_empty() {
            return Some((demuxer, *picture));
        }
        return after_id3(head);
    }
    if [188, 376, 564].iter().all(|offset| at(*offset, b"\x47")) && at(0, b"\x47") {
        return Some(("mpegts", false));
    }
    if [4, 196, 388].iter().all(|offset| at(*offset, b"\x47")) {
        return Some(("mpegts", false));
    }
    mpeg_audio(head)
}

/// The sound behind a tag of the ID3v2 standard.
fn after_id3(head: &[u8]) -> Option<(&'static str, bool)> {
    let size = head.get(6..10)?.iter().fold(0usize, |n, b| (n << 7) | usize::from(b & 0x7F));
    match head.get(10 + size..) {
        Some([b'f', b'L', b'a', b'C', ..]) => Some(("flac", false)),
        Some(rest) if rest.len() >= 2 => mpeg_audio(rest).or(Some(("mp3", false))),
        // A large picture hides the sound; such tags are written by music programs, for mp3.
        _ => Some(("mp3", false)),
    }
}

/// A frame header of MPEG audio or of AAC in ADTS.
fn mpeg_audio(head: &[u8]) -> Option<(&'static str, bool)> {
    match head {
        [0xFF, second, third, ..] if second & 0xF6 == 0xF0 && third >> 2 & 15 < 13 => Some(("aac", false)),
        [0xFF, second, third, ..]
            if second & 0xE0 == 0xE0
                && second >> 3 & 3 != 1
                && matches!(second >> 1 & 3, 1..=3)
                && third >> 4 != 15
                && third >> 2 & 3 != 3 =>
        {
            Some(("mp3", false))
        }
        _ => None,
    }
}

fn describe(head: &[u8]) -> String {
    let begin = &head[..head.len().min(256)];
    if std::str::from_utf8(begin).is_ok_and(|text| !text.contains('\0')) {
        return "it is text".into();
    }
    if begin.starts_with(b"PK\x03\x04") {
        return "it is a zip archive".into();
    }
    if head.iter().all(|byte| *byte == 0) {
        return "it holds only zeros; the copy may have failed".into();
    }
    let bytes: Vec<String> = head.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    format!("its first bytes are {}", bytes.join(" "))
}

/// Orientation number in the Exif block of a JPEG file (tag 0x0112 of the first directory).
fn exif_orientation(jpeg: &[u8]) -> Option<u16> {
    let mut at = 2;
    loop {
        let marker = jpeg.get(at..at + 2)?;
        if marker[0] != 0xFF || matches!(marker[1], 0xDA | 0xD9) {
            return None;
        }
        let length = usize::from(u16::from_be_bytes(jpeg.get(at + 2..at + 4)?.try_into().ok()?));
        let body = jpeg.get(at + 4..at + 2 + length.max(2))?;
        if let (0xE1, Some(tiff)) = (marker[1], body.strip_prefix(b"Exif\0\0")) {
            let little = tiff.starts_with(b"II");
            let word = |at: usize| {
                let pair: [u8; 2] = tiff.get(at..at + 2)?.try_into().ok()?;
                Some(if little { u16::from_le_bytes(pair) } else { u16::from_be_bytes(pair) })
            };
            let long = |at: usize| {
                let (a, b) = (u32::from(word(at)?), u32::from(word(at + 2)?));
                Some(if little { a | b << 16 } else { a << 16 | b } as usize)
            };
            let directory = long(4)?;
            return (0..usize::from(word(directory)?)).find_map(|entry| {
                let entry = directory + 2 + entry * 12;
                if word(entry)? == 0x0112 { word(entry + 8) } else { None }
            });
        }
        at += 2 + length.max(2);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_by_content() {
        let cases: [(&[u8], Option<&str>); 10] = [
            (b"\0\0\0\x20ftypisom", Some("mov")),
            (b"RIFF\0\0\0\0WAVEfmt ", Some("wav")),
            (b"RIFF\0\0\0\0JUNK", None),
            (b"ID3\x04\0\0\0\0\0\x02xxfLaC", Some("flac")),
            (b"ID3\x04\0\0\0\0\x7F\x02xx", Some("mp3")),
            (b"\xFF\xFB\x90\x64", Some("mp3")),
            (b"\xFF\xF1\x50\x80", Some("aac")),
            (b"\xFF\xFF\xFF\xFF", None),
            (b"hello world", None),
            (b"R", None),
        ];
        for (bytes, expected) in cases {
            assert_eq!(recognise(bytes).map(|found| found.0), expected, "{bytes:?}");
        }
    }

    #[test]
    fn playlists_are_seen() {
        for text in ["#EXTM3U\n", "\u{feff} ffconcat version 1.0", "<?xml?><MPD>", "v=0\r\no=x"] {
            assert!(playlist(text.as_bytes()).is_some(), "{text}");
        }
        assert!(playlist(b"just text").is_none());
    }

    #[test]
    fn exif_orientation_in_both_byte_orders() {
        for little in [true, false] {
            let word = |v: u16| if little { v.to_le_bytes() } else { v.to_be_bytes() };
            let long = |v: u32| if little { v.to_le_bytes() } else { v.to_be_bytes() };
            let mut body = b"Exif\0\0".to_vec();
            body.extend_from_slice(if little { b"II" } else { b"MM" });
            body.extend_from_slice(&word(42));
            body.extend_from_slice(&long(8));
            body.extend_from_slice(&word(1));
            body.extend_from_slice(&word(0x0112));
            body.extend_from_slice(&word(3));
            body.extend_from_slice(&long(1));
            body.extend_from_slice(&word(6));
            body.extend_from_slice(&word(0));
            let mut jpeg = vec![0xFF, 0xD8, 0xFF, 0xE1];
            jpeg.extend_from_slice(&(body.len() as u16 + 2).to_be_bytes());
            jpeg.extend_from_slice(&body);
            assert_eq!(exif_orientation(&jpeg), Some(6));
            for len in 0..jpeg.len() {
                assert_eq!(exif_orientation(&jpeg[..len]), None, "cut at {len}");
            }
        }
    }
}
