//! Tells what a file is, with ffprobe: its kind, its streams, the size at which it is shown.

use std::path::Path;

use serde_json::Value;

use crate::error::MediaError;
use crate::info::{AudioInfo, Colour, MAX_SIDE_PX, Matrix, MediaInfo, MediaKind, Orientation, VideoInfo};
use crate::process::{Limits, last_useful_line, run};
use crate::sniff::{Sniffed, sniff};
use crate::time::{Rational, Rounding, Time};
use crate::tools::{Args, Tools};

const STAGE: &str = "probe";

/// Tells what a file is. Nothing is decoded.
///
/// # Errors
/// One variant of [`MediaError`] for each way in which a file can be unfit: missing, a folder,
/// empty, no media, a playlist, damaged, too large, of an unknown codec.
pub fn probe(tools: &Tools, path: &Path) -> Result<MediaInfo, MediaError> {
    let sniffed = sniff(path)?;
    let mut args = Args::default();
    args.add(["-hide_banner", "-loglevel", "error", "-show_streams", "-show_format"]);
    args.add(["-print_format", "json"]);
    args.input(sniffed.demuxer, path);
    let output = run(&tools.ffprobe, &args.0, &Limits::default())?;
    let damaged = |detail: String| MediaError::Damaged { stage: STAGE, path: path.to_path_buf(), detail };
    if !output.success {
        let line = last_useful_line(&output.stderr);
        let detail = if output.stderr.contains("moov atom not found") {
            "moov atom not found: the index of the file is missing, its end was cut off".into()
        } else {
            strip_name(&line, path)
        };
        return Err(damaged(detail));
    }
    let json: Value = serde_json::from_slice(&output.stdout)
        .map_err(|error| damaged(format!("ffprobe's answer is no JSON: {error}")))?;
    let streams = json["streams"].as_array().map(Vec::as_slice).unwrap_or_default();
    if streams.is_empty() {
        return Err(damaged("it holds no streams".into()));
    }
    let video = pick(streams, |stream| stream["codec_type"] == "video" && stream["disposition"]["attached_pic"] != 1);
    let audio = pick(streams, |stream| stream["codec_type"] == "audio");
    let video = match video {
        Some(stream) => Some(video_info(path, stream, sniffed)?),
        None => None,
    };
    let audio = match audio {
        Some(stream) => audio_info(path, stream)?,
        None => None,
    };
    let kind = match (&video, &audio) {
        (Some(_), _) if sniffed.picture => MediaKind::Still,
        (Some(_), _) => MediaKind::Video,
        (None, Some(_)) => MediaKind::AudioOnly,
        (None, None) => return Err(MediaError::NoVideo { path: path.to_path_buf() }),
    };
    let start = json["format"]["start_time"].as_str().and_then(decimal_secs);
    Ok(MediaInfo { path: path.to_path_buf(), container: sniffed.demuxer, kind, video, audio, start })
}

/// The default stream of a kind, or else its first.
fn pick(streams: &[Value], fits: impl Fn(&Value) -> bool) -> Option<&Value> {
    let default = streams.iter().find(|s| fits(s) && s["disposition"]["default"] == 1);
    default.or_else(|| streams.iter().find(|s| fits(s)))
}

fn video_info(path: &Path, stream: &Value, sniffed: Sniffed) -> Result<VideoInfo, MediaError> {
    let coded = (number(stream, "width"), number(stream, "height"));
    let (Some(coded_width), Some(coded_height)) = coded else {
        return Err(MediaError::Damaged {
            stage: STAGE,
            path: path.to_path_buf(),
            detail: "the picture has no size".into(),
        });
    };
    let codec = codec_of(path, stream)?;
    let limit = |width: usize, height: usize| {
        if width.max(height) <= MAX_SIDE_PX {
            return Ok(());
        }
        Err(MediaError::Limit {
            path: path.to_path_buf(),
            what: "the picture size",
            value: format!("{width}x{height}"),
            limit: format!("{MAX_SIDE_PX}x{MAX_SIDE_PX}"),
            remedy: "scale it down first",
        })
    };
    limit(coded_width, coded_height)?;
    let sample_aspect = ratio(stream, "sample_aspect_ratio").map_or(Rational::new(1, 1), Rational::reduced);
    let orientation = match display_matrix(stream) {
        Some(matrix) => Orientation::from_matrix(matrix),
        None => sniffed.orientation,
    };
    // Square pixels by enlarging the short side, so that no detail is lost.
    let enlarged = |side: usize, by: Rational| {
        let side = i128::from(side as i64) * i128::from(by.num);
        let den = i128::from(by.den);
        usize::try_from((side + den / 2) / den).unwrap_or(usize::MAX)
    };
    let upright = if sample_aspect.num >= sample_aspect.den {
        (enlarged(coded_width, sample_aspect), coded_height)
    } else {
        (coded_width, enlarged(coded_height, sample_aspect.recip()))
    };
    limit(upright.0, upright.1)?;
    let (width, height) = if orientation.swaps_sides() { (upright.1, upright.0) } else { upright };
    let (average, lowest) = (ratio(stream, "avg_frame_rate"), ratio(stream, "r_frame_rate"));
    let average_rate = average.or(lowest).unwrap_or(Rational::new(25, 1)).reduced();
    let variable_rate = match (average, lowest) {
        (Some(a), Some(b)) => (a.to_f64() - b.to_f64()).abs() > 0.005 * b.to_f64(),
        _ => false,
    };
    let time_base = time_base(stream);
    let pixel_format = stream["pix_fmt"].as_str().unwrap_or("unknown").to_owned();
    Ok(VideoInfo {
        stream: number(stream, "index").unwrap_or(0),
        codec,
        coded: (coded_width, coded_height),
        width,
        height,
        sample_aspect,
        orientation,
        average_rate,
        time_base,
        start: stream["start_pts"].as_i64().unwrap_or(0),
        duration: duration(stream, time_base),
        num_frames: stream["nb_frames"].as_str().and_then(|n| n.parse().ok()),
        variable_rate,
        bit_depth: bit_depth(&pixel_format),
        has_alpha: has_alpha(&pixel_format),
        pixel_format,
        colour: colour(stream, coded_width, coded_height, sniffed.picture),
    })
}

fn audio_info(path: &Path, stream: &Value) -> Result<Option<AudioInfo>, MediaError> {
    let rate = stream["sample_rate"].as_str().and_then(|rate| rate.parse::<u32>().ok());
    let channels = number(stream, "channels").unwrap_or(0) as u32;
    let Some(rate) = rate.filter(|rate| *rate > 0 && channels > 0) else { return Ok(None) };
    let time_base = time_base(stream);
    Ok(Some(AudioInfo {
        stream: number(stream, "index").unwrap_or(0),
        codec: codec_of(path, stream)?,
        rate,
        channels,
        time_base,
        start: stream["start_pts"].as_i64().unwrap_or(0),
        duration: duration(stream, time_base),
    }))
}

fn codec_of(path: &Path, stream: &Value) -> Result<String, MediaError> {
    match stream["codec_name"].as_str() {
        Some(name) if name != "unknown" && name != "none" => Ok(name.to_owned()),
        _ => Err(MediaError::Unsupported {
            stage: STAGE,
            path: path.to_path_buf(),
            detail: format!(
                "the {} codec `{}` is not known to ffmpeg; convert the file to H.264 and AAC",
                stream["codec_type"].as_str().unwrap_or("stream's"),
                stream["codec_tag_string"].as_str().unwrap_or("?")
            ),
        }),
    }
}

fn number(stream: &Value, key: &str) -> Option<usize> {
    stream[key].as_u64().and_then(|value| usize::try_from(value).ok()).filter(|v| *v > 0 || key == "index")
}

/// A ratio above zero.
fn ratio(stream: &Value, key: &str) -> Option<Rational> {
    stream[key].as_str()?.parse::<Rational>().ok().filter(|ratio| ratio.is_positive())
}

fn time_base(stream: &Value) -> Rational {
    ratio(stream, "time_base").unwrap_or(Rational::new(1, 1000))
}

/// Length of a stream in its ticks, from its own header or its tag (Matroska).
fn duration(stream: &Value, base: Rational) -> Option<i64> {
    if let Some(ticks) = stream["duration_ts"].as_i64() {
        return Some(ticks).filter(|ticks| *ticks > 0);
    }
    let tag = stream["tags"]["DURATION"].as_str()?;
    let mut parts = tag.splitn(3, ':');
    let (hours, minutes) = (parts.next()?.parse::<i64>().ok()?, parts.next()?.parse::<i64>().ok()?);
    let secs = decimal_secs(parts.next()?)?;
    let whole = hours.checked_mul(3600)?.checked_add(minutes.checked_mul(60)?)?;
    let ticks = Time::new(whole, Rational::new(1, 1)).on(base, Rounding::Nearest);
    Some(ticks + secs.on(base, Rounding::Nearest)).filter(|ticks| *ticks > 0)
}

/// Seconds such as `-0.021333`, as written.
fn decimal_secs(text: &str) -> Option<Time> {
    let negative = text.starts_with('-');
    let value: Rational = text.trim_start_matches('-').parse().ok()?;
    let ticks = if negative { -value.num } else { value.num };
    Some(Time::new(ticks, Rational::new(1, value.den)))
}

/// The turning part `[a, b, c, d]` of a display matrix in 16.16 fixed point.
fn display_matrix(stream: &Value) -> Option<[i64; 4]> {
    let list = stream["side_data_list"].as_array()?;
    let text = list.iter().find_map(|data| data["displaymatrix"].as_str())?;
    let mut rows = text
        .lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(_, row)| row.split_whitespace().filter_map(|number| number.parse().ok()).collect::<Vec<i64>>());
    match (rows.next()?.as_slice(), rows.next()?.as_slice()) {
        ([a, b, ..], [c, d, ..]) => Some([*a, *b, *c, *d]),
        _ => None,
    }
}

fn bit_depth(pixel_format: &str) -> u8 {
    let name = pixel_format.trim_end_matches("le").trim_end_matches("be");
    let digits: String = name.chars().rev().take_while(char::is_ascii_digit).collect::<Vec<_>>().iter().rev().collect();
    match (name, digits.parse::<u8>()) {
        (name, Ok(48 | 64)) if name.contains("rgb") || name.contains("bgr") => 16,
        (name, Ok(10)) if name.starts_with('p') || name.starts_with('x') => 10,
        (name, Ok(_)) if name.starts_with("nv") => 8 + 2 * u8::from(name.starts_with("nv20")),
        (_, Ok(depth @ 9..=16)) => depth,
        _ => 8,
    }
}

fn has_alpha(pixel_format: &str) -> bool {
    ["yuva", "rgba", "bgra", "argb", "abgr", "gbrap", "ya8", "ya16", "pal8", "ayuv"]
        .iter()
        .any(|begin| pixel_format.starts_with(begin))
}

fn colour(stream: &Value, width: usize, height: usize, picture: bool) -> Colour {
    let stated = |key: &str| {
        let value = stream[key].as_str()?;
        (!matches!(value, "unknown" | "reserved" | "unspecified")).then(|| value.to_owned())
    };
    let assumed = Colour::for_size(width, height);
    let matrix = match stated("color_space").as_deref() {
        Some("bt709") => Matrix::Bt709,
        Some("smpte170m" | "bt470bg" | "fcc") => Matrix::Bt601,
        Some("bt2020nc" | "bt2020c") => Matrix::Bt2020,
        // JPEG and WebP pictures use BT.601 at every size.
        _ if picture => Matrix::Bt601,
        _ => assumed.matrix,
    };
    let transfer = stated("color_transfer");
    let high_dynamic_range = matches!(transfer.as_deref(), Some("smpte2084" | "arib-std-b67"));
    Colour { matrix, primaries: stated("color_primaries"), transfer, high_dynamic_range }
}

/// ffprobe puts the name before its last message; ours does so already.
fn strip_name(line: &str, path: &Path) -> String {
    line.replace(&format!("file:{}: ", path.display()), "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn depth_and_alpha_by_format_name() {
        let cases = [
            ("yuv420p", 8, false),
            ("yuv420p10le", 10, false),
            ("yuva444p12le", 12, true),
            ("p010le", 10, false),
            ("rgb48be", 16, false),
            ("gray16le", 16, false),
            ("rgba", 8, true),
            ("pal8", 8, true),
            ("gbrap10le", 10, true),
            ("nv12", 8, false),
            ("rgb24", 8, false),
            ("yuvj420p", 8, false),
        ];
        for (name, depth, alpha) in cases {
            assert_eq!((bit_depth(name), has_alpha(name)), (depth, alpha), "{name}");
        }
    }

    #[test]
    fn seconds_are_read_as_written() {
        assert_eq!(decimal_secs("-0.021333").map(|t| t.ticks), Some(-21_333));
        assert_eq!(decimal_secs("1.5").map(Time::millis), Some(1500));
        assert!(decimal_secs("N/A").is_none());
        let tagged = serde_json::json!({"tags": {"DURATION": "01:02:03.500000000"}});
        assert_eq!(duration(&tagged, Rational::new(1, 1000)), Some(3_723_500));
    }
}
