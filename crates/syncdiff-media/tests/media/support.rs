//! Small media files made on the spot, and looks at files through ffprobe.

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use syncdiff_media::process::{Limits, run};
use syncdiff_media::{Frame, FrameIndex, FrameReader, MediaInfo, ReadOptions, Tools, Warning, probe};

/// One value for all tests: it remembers the programs' versions.
pub(crate) fn tools() -> Tools {
    static TOOLS: LazyLock<Tools> = LazyLock::new(Tools::default);
    TOOLS.clone()
}

pub(crate) fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary folder")
}

/// Runs ffmpeg with arguments split at spaces; `OUT` stands for the path.
pub(crate) fn make(out: &Path, args: &str) -> PathBuf {
    let mut list: Vec<std::ffi::OsString> = ["-v", "error", "-nostdin", "-y"].map(Into::into).to_vec();
    for arg in args.split_whitespace() {
        list.push(arg.into());
    }
    let mut url = std::ffi::OsString::from("file:");
    url.push(out);
    list.push(url);
    let output = run(&tools().ffmpeg, &list, &Limits::default()).expect("ffmpeg runs");
    assert!(output.success, "{args}: {}", output.stderr);
    out.to_path_buf()
}

/// Short arguments: a moving test picture, x264 in its fastest preset.
pub(crate) const X264: &str = "-c:v libx264 -preset ultrafast -pix_fmt yuv420p";

/// Prints the wanted entries, one stream or packet a line.
pub(crate) fn entries(path: &Path, select: &str, show: &str) -> Vec<String> {
    let mut args: Vec<std::ffi::OsString> =
        ["-v", "error", "-select_streams", select, "-show_entries", show, "-of", "csv=p=0"].map(Into::into).to_vec();
    args.push(path.into());
    let output = run(&tools().ffprobe, &args, &Limits::default()).expect("ffprobe runs");
    assert!(output.success, "{}", output.stderr);
    let text = String::from_utf8(output.stdout).expect("text");
    text.lines().map(|l| l.trim_end_matches(',').to_owned()).filter(|l| !l.is_empty()).collect()
}

/// Presentation time stamps of all video packets, in order of presentation.
pub(crate) fn packet_pts(path: &Path) -> Vec<i64> {
    let lines = entries(path, "v:0", "packet=pts");
    let mut pts: Vec<i64> = lines.iter().filter_map(|line| line.split(',').next()?.parse().ok()).collect();
    pts.sort_unstable();
    pts
}

/// Everything of a clip.
pub(crate) struct Whole {
    pub(crate) info: MediaInfo,
    pub(crate) frames: Vec<Frame>,
    pub(crate) index: FrameIndex,
    pub(crate) warnings: Vec<Warning>,
}

pub(crate) fn read_whole(path: &Path) -> Whole {
    let info = probe(&tools(), path).expect("probe");
    let mut reader = FrameReader::open(&tools(), &info, &ReadOptions::default()).expect("open");
    let mut frames = Vec::new();
    for (at, frame) in reader.by_ref().enumerate() {
        let frame = frame.expect("a frame");
        assert_eq!(frame.index, at);
        frames.push(frame.frame);
    }
    let (index, warnings) = reader.into_index().expect("index");
    assert_eq!(index.len(), frames.len());
    Whole { info, frames, index, warnings }
}

/// Time stamps of an index.
pub(crate) fn times(index: &FrameIndex) -> Vec<i64> {
    (0..index.len()).map(|frame| index.pts(frame)).collect()
}

/// Is a pixel within a distance of a colour?
pub(crate) fn near(pixel: [u8; 3], colour: [u8; 3], distance: u8) -> bool {
    pixel.iter().zip(colour).all(|(a, b)| a.abs_diff(b) <= distance)
}

/// Names in a folder.
pub(crate) fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(folder)
        .expect("folder")
        .map(|entry| entry.expect("entry").file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}
