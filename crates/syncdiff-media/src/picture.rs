//! PNG pictures in and out, without a child process.

use std::fs::File;
use std::io::{BufReader, BufWriter};
use std::path::Path;

use crate::error::MediaError;
use crate::frame::Frame;
use crate::info::MAX_SIDE_PX;

/// Most bytes that a PNG decoder may take.
const MAX_DECODER_BYTES: usize = 1 << 30;

/// Reads a PNG of any colour type as RGB; transparency is shown on black, 16 bits become 8.
///
/// # Errors
/// [`MediaError::Io`] if it cannot be opened, [`MediaError::Limit`] above [`MAX_SIDE_PX`],
/// [`MediaError::Damaged`] if it is no whole PNG.
pub fn read_png(path: &Path) -> Result<Frame, MediaError> {
    const STAGE: &str = "read picture";
    let file = File::open(path).map_err(|source| MediaError::io(STAGE, path, source))?;
    let damaged = |error: png::DecodingError| MediaError::Damaged {
        stage: STAGE,
        path: path.to_path_buf(),
        detail: error.to_string(),
    };
    let limits = png::Limits { bytes: MAX_DECODER_BYTES };
    let mut decoder = png::Decoder::new_with_limits(BufReader::new(file), limits);
    decoder.set_transformations(png::Transformations::EXPAND | png::Transformations::STRIP_16);
    let header = decoder.read_header_info().map_err(damaged)?;
    let (width, height) = (header.width as usize, header.height as usize);
    if width.max(height) > MAX_SIDE_PX {
        return Err(MediaError::Limit {
            path: path.to_path_buf(),
            what: "the picture size",
            value: format!("{width}x{height}"),
            limit: format!("{MAX_SIDE_PX}x{MAX_SIDE_PX}"),
            remedy: "scale it down first",
        });
    }
    let mut reader = decoder.read_info().map_err(damaged)?;
    let channels = reader.output_color_type().0.samples();
    let mut raw = vec![0; width * height * channels];
    reader.next_frame(&mut raw).map_err(damaged)?;
    let data = match channels {
        1 => raw.iter().flat_map(|v| [*v; 3]).collect(),
        2 => raw.chunks_exact(2).flat_map(|p| [over_black(p[0], p[1]); 3]).collect(),
        3 => raw,
        _ => raw.chunks_exact(4).flat_map(|p| [0, 1, 2].map(|c| over_black(p[c], p[3]))).collect(),
    };
    Frame::from_rgb(width, height, data)
}

/// A straight-alpha component on black, rounded.
pub(crate) fn over_black(value: u8, alpha: u8) -> u8 {
    ((u32::from(value) * u32::from(alpha) + 127) / 255) as u8
}

/// Writes an RGB PNG. An existing file is replaced only when the new one is whole.
///
/// # Errors
/// [`MediaError::Io`] or [`MediaError::DiskFull`].
pub fn write_png(path: &Path, frame: &Frame) -> Result<(), MediaError> {
    crate::wav::write_whole(path, "write picture", |file| {
        let (width, height) = (frame.width as u32, frame.height as u32);
        let mut encoder = png::Encoder::new(BufWriter::new(file), width, height);
        encoder.set_color(png::ColorType::Rgb);
        encoder.set_depth(png::BitDepth::Eight);
        let mut writer = encoder.write_header()?;
        writer.write_image_data(&frame.data)?;
        writer.finish()?;
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_survives_and_damage_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a b'.png");
        let mut frame = Frame::filled(5, 3, [1, 2, 3]);
        frame.set_pixel(4, 2, [200, 100, 0]);
        write_png(&path, &frame).unwrap();
        assert_eq!(read_png(&path).unwrap(), frame);
        let bytes = std::fs::read(&path).unwrap();
        std::fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
        assert!(matches!(read_png(&path), Err(MediaError::Damaged { .. })));
        assert!(matches!(read_png(folder.path()), Err(MediaError::Io { .. } | MediaError::Damaged { .. })));
        let missing = folder.path().join("no/such/folder.png");
        assert!(matches!(write_png(&missing, &frame), Err(MediaError::Io { .. })));
    }
}
