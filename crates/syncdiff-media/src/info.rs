//! What is known of a file before it is decoded.

use std::path::PathBuf;

use crate::time::{Rational, Time};

/// Largest accepted picture side in pixels, as stored and as displayed.
pub const MAX_SIDE_PX: usize = 8192;

/// What kind of file it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum MediaKind {
    /// Moving pictures, with or without sound.
    Video,
    /// One picture.
    Still,
    /// Sound without moving pictures (a cover picture does not count).
    AudioOnly,
}

/// What [`crate::probe`] found.
#[derive(Clone, Debug, serde::Serialize)]
pub struct MediaInfo {
    /// The path as given.
    pub path: PathBuf,
    /// The format by its content (the name of ffmpeg's demuxer), never by the file name.
    pub container: &'static str,
    /// What kind of file it is.
    pub kind: MediaKind,
    /// The picture, for [`MediaKind::Video`] and [`MediaKind::Still`].
    pub video: Option<VideoInfo>,
    /// The sound; the default or else the first audio stream.
    pub audio: Option<AudioInfo>,
    /// Where the file's time line starts: the earliest start of its streams.
    pub start: Option<Time>,
}

/// The picture stream.
#[derive(Clone, Debug, serde::Serialize)]
pub struct VideoInfo {
    /// Index of the stream in the file.
    pub stream: usize,
    /// Codec name.
    pub codec: String,
    /// Stored size (width, height), before aspect ratio and rotation.
    pub coded: (usize, usize),
    /// Width of the frames that are read: square pixels, upright.
    pub width: usize,
    /// Height of the frames that are read: square pixels, upright.
    pub height: usize,
    /// Shape of a stored pixel, width to height.
    pub sample_aspect: Rational,
    /// How the stored picture is turned before it is shown.
    pub orientation: Orientation,
    /// Mean frame rate as the header tells; 25 where it tells nothing.
    pub average_rate: Rational,
    /// Unit of `start`, `duration` and of every frame's time stamp, in seconds.
    pub time_base: Rational,
    /// Time stamp of the first frame as the header tells.
    pub start: i64,
    /// Length in ticks as the header tells, if it does.
    pub duration: Option<i64>,
    /// Number of frames as the header tells, if it does.
    pub num_frames: Option<u64>,
    /// Does the header speak of a variable rate? [`crate::FrameIndex::is_variable_rate`] is exact.
    pub variable_rate: bool,
    /// Pixel format by ffmpeg's name.
    pub pixel_format: String,
    /// Bits in one colour component.
    pub bit_depth: u8,
    /// Has the format an alpha channel? Frames are then shown on black.
    pub has_alpha: bool,
    /// Colour description.
    pub colour: Colour,
}

/// The sound stream.
#[derive(Clone, Debug, serde::Serialize)]
pub struct AudioInfo {
    /// Index of the stream in the file.
    pub stream: usize,
    /// Codec name.
    pub codec: String,
    /// Samples a second.
    pub rate: u32,
    /// Number of channels.
    pub channels: u32,
    /// Unit of `start` and `duration` in seconds.
    pub time_base: Rational,
    /// Time stamp of the first sample as the header tells.
    pub start: i64,
    /// Length in ticks as the header tells, if it does.
    pub duration: Option<i64>,
}

/// Colour description of a picture, by ffmpeg's names.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Colour {
    /// RGB to YUV matrix.
    pub matrix: Matrix,
    /// Primaries, if stated.
    pub primaries: Option<String>,
    /// Transfer curve, if stated.
    pub transfer: Option<String>,
    /// Is the transfer curve one of high dynamic range (PQ or HLG)? The 8-bit copy keeps the curve.
    pub high_dynamic_range: bool,
}

/// The matrices between RGB and YUV that are in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Matrix {
    /// BT.601, standard definition.
    Bt601,
    /// BT.709, high definition.
    Bt709,
    /// BT.2020, non-constant luminance.
    Bt2020,
}

impl Colour {
    /// What players assume of a picture of this size that states nothing.
    pub fn for_size(width: usize, height: usize) -> Self {
        let high = height >= 720 || width >= 1280;
        Colour {
            matrix: if high { Matrix::Bt709 } else { Matrix::Bt601 },
            primaries: None,
            transfer: None,
            high_dynamic_range: false,
        }
    }
}

/// One of the eight ways in which a stored picture can lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Orientation {
    /// As stored.
    Upright,
    /// Mirrored left to right.
    FlipHorizontal,
    /// Turned by 180 degrees.
    Rotate180,
    /// Mirrored top to bottom.
    FlipVertical,
    /// Rows and columns exchanged.
    Transpose,
    /// Turned by 90 degrees clockwise.
    Rotate90,
    /// Exchanged along the other diagonal.
    Transverse,
    /// Turned by 90 degrees counter-clockwise.
    Rotate270,
}

impl Orientation {
    /// Does it exchange width and height?
    pub fn swaps_sides(self) -> bool {
        use Orientation::*;
        matches!(self, Transpose | Rotate90 | Transverse | Rotate270)
    }

    /// The filter that shows the picture upright.
    pub(crate) fn filter(self) -> Option<&'static str> {
        use Orientation::*;
        match self {
            Upright => None,
            FlipHorizontal => Some("hflip"),
            Rotate180 => Some("hflip,vflip"),
            FlipVertical => Some("vflip"),
            Transpose => Some("transpose=cclock_flip"),
            Rotate90 => Some("transpose=clock"),
            Transverse => Some("transpose=clock_flip"),
            Rotate270 => Some("transpose=cclock"),
        }
    }

    /// From the orientation number of the Exif standard (tag 0x0112, values 1 to 8).
    pub(crate) fn from_exif(number: u16) -> Self {
        use Orientation::*;
        match number {
            2 => FlipHorizontal,
            3 => Rotate180,
            4 => FlipVertical,
            5 => Transpose,
            6 => Rotate90,
            7 => Transverse,
            8 => Rotate270,
            _ => Upright,
        }
    }

    /// From the display matrix `[a b; c d]` of ISO 14496-12, x' = a x + c y, y' = b x + d y.
    pub(crate) fn from_matrix([a, b, c, d]: [i64; 4]) -> Self {
        use Orientation::*;
        if a.abs() + d.abs() >= b.abs() + c.abs() {
            match (a < 0, d < 0) {
                (false, false) => Upright,
                (true, false) => FlipHorizontal,
                (true, true) => Rotate180,
                (false, true) => FlipVertical,
            }
        } else {
            match (b < 0, c < 0) {
                (false, false) => Transpose,
                (false, true) => Rotate90,
                (true, true) => Transverse,
                (true, false) => Rotate270,
            }
        }
    }
}

impl MediaInfo {
    /// How long after the first frame the sound starts (negative: before it), in nanoseconds; zero
    /// where there is no moving picture.
    pub fn sound_offset(&self) -> Time {
        let base = Rational::new(1, 1_000_000_000);
        let nearest = crate::time::Rounding::Nearest;
        match (&self.video, &self.audio, self.kind) {
            (Some(video), Some(audio), MediaKind::Video) => {
                let sound = Time::new(audio.start, audio.time_base).on(base, nearest);
                let picture = Time::new(video.start, video.time_base).on(base, nearest);
                Time::new(sound - picture, base)
            }
            _ => Time::new(0, base),
        }
    }
}
