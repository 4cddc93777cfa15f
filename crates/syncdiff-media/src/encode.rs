//! What the encoder is told: container, time base, stored size, colour, sound.

use std::path::Path;

use crate::error::MediaError;
use crate::frame::Frame;
use crate::info::{Colour, Matrix};
use crate::plan::Plan;
use crate::speech::{ALIGN_OPTIONS, promised_end, sound_input, sound_start};
use crate::time::{Rational, Rounding, Time, rescale};
use crate::tools::{Args, Tools, file_url};
use crate::writer::{OddSize, Sound, WriterOptions};

const STAGE: &str = "write video";
/// The presets of x264.
const PRESETS: [&str; 9] =
    ["ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow"];

/// The file that is to be written.
pub(crate) struct Target {
    muxer: &'static str,
    /// Time base in the file, in the pipe and in the encoder.
    pub(crate) base: Rational,
    source_base: Rational,
    /// Stored width and height.
    pub(crate) stored: (usize, usize),
    chroma: &'static str,
}

impl Target {
    pub(crate) fn new(
        path: &Path,
        size: (usize, usize),
        plan: &Plan,
        options: &WriterOptions,
    ) -> Result<Self, MediaError> {
        let wrong = |detail: String| Err(MediaError::Parameter { stage: STAGE, detail });
        let extension = path.extension().and_then(|e| e.to_str()).unwrap_or("").to_lowercase();
        let muxer = match extension.as_str() {
            "mp4" | "m4v" => "mp4",
            "mov" => "mov",
            "mkv" => "matroska",
            _ => {
                return wrong(format!(
                    "{path:?}: the extension `.{extension}` is not supported; use .mp4, .m4v, \
                     .mov or .mkv"
                ));
            }
        };
        if options.crf > 51 {
            return wrong(format!("crf is {}; allowed are 0 to 51", options.crf));
        }
        if !PRESETS.contains(&options.preset.as_str()) {
            let presets = PRESETS.join(", ");
            return wrong(format!("the preset is `{}`; allowed are {presets}", options.preset));
        }
        let (width, height) = size;
        if width == 0 || height == 0 || width.max(height) > crate::MAX_SIDE_PX {
            let limit = crate::MAX_SIDE_PX;
            return wrong(format!("the size is {width}x{height}; allowed are 1 to {limit}"));
        }
        let (stored, chroma) = match options.odd_size {
            OddSize::Keep if width % 2 + height % 2 > 0 => (size, "yuv444p"),
            _ => ((width.next_multiple_of(2), height.next_multiple_of(2)), "yuv420p"),
        };
        let source_base = plan.time_base().reduced();
        // Whole ticks of the source on a base 1/n. The muxer would refine a coarse one by itself,
        // and then the duration of the last frame would be told in other ticks than it expects.
        let base = if muxer == "matroska" {
            Rational::new(1, 1000)
        } else {
            let mut den = source_base.den;
            while den < 10_000 {
                den *= 2;
            }
            Rational::new(1, den)
        };
        if muxer != "matroska" && base.den > i64::from(i32::MAX) {
            return wrong(format!("the time base {source_base} does not fit into {muxer}"));
        }
        Ok(Target { muxer, base, source_base, stored, chroma })
    }

    /// Ticks of the file: exact in mp4 and mov, whole milliseconds in mkv.
    pub(crate) fn ticks(&self, source_ticks: i64) -> i64 {
        rescale(source_ticks, self.source_base, self.base, Rounding::Nearest)
    }

    /// The bytes of a frame at the stored size: the last column and row are repeated as needed.
    pub(crate) fn stored_bytes(&self, frame: &Frame) -> Vec<u8> {
        if (frame.width, frame.height) == self.stored {
            return frame.data.clone();
        }
        let mut data = Vec::with_capacity(self.stored.0 * self.stored.1 * 3);
        for y in 0..self.stored.1 {
            let row = frame.row(y.min(frame.height - 1));
            data.extend_from_slice(row);
            if self.stored.0 > frame.width {
                data.extend_from_slice(&row[row.len() - 3..]);
            }
        }
        data
    }

    fn is_mov(&self) -> bool {
        self.muxer != "matroska"
    }
}

/// The arguments of the encoder, and whether the sound is copied.
pub(crate) fn encoder_args(
    tools: &Tools,
    target: &Target,
    plan: &Plan,
    sound: Option<&Sound>,
    options: &WriterOptions,
    output: &Path,
) -> Result<(Args, Option<bool>), MediaError> {
    let mut args = Args::default();
    args.add(["-protocol_whitelist", "file,pipe", "-f", "nut", "-i", "pipe:0"]);
    if let Some(Sound(info)) = sound {
        sound_input(&mut args, info);
    }
    args.add(["-map", "0:v:0"]);
    let copied = match sound {
        Some(sound) => Some(sound_args(&mut args, target, plan, sound, options)?),
        None => None,
    };
    args.add(["-map_metadata", "-1", "-map_chapters", "-1", "-max_muxing_queue_size", "4096"]);

    let sizes = (target.stored.0, target.stored.1);
    let assumed = Colour::for_size(sizes.0, sizes.1);
    picture_args(&mut args, options.colour.as_ref().unwrap_or(&assumed), target.chroma);
    args.add(tools.passthrough()?);
    args.add(["-enc_time_base".to_owned(), target.base.to_string()]);
    // Without B-frames, coding order is display order: every duration in the file is exact, also
    // the last one and with a variable rate.
    args.add(["-c:v", "libx264", "-bf", "0", "-preset"]);
    args.add([options.preset.clone(), "-crf".into(), options.crf.to_string()]);
    let last = target.ticks(plan.last_pts());
    let tail = (target.ticks(plan.end_pts()) - last).max(1);
    // The last frame ends with the output, so that picture and sound end together.
    args.add(["-bsf:v".to_owned(), format!("setts=duration='if(eq(PTS,{last}),{tail},DURATION)'")]);
    if target.is_mov() {
        args.add(["-video_track_timescale".to_owned(), target.base.den.to_string()]);
        args.add(["-movflags", "+faststart"]);
    }
    args.add(["-f", target.muxer]);
    args.0.push(file_url(output));
    Ok((args, copied))
}

/// Colour conversion and the tags that tell players of it.
fn picture_args(args: &mut Args, colour: &Colour, chroma: &str) {
    let (matrix, space) = match colour.matrix {
        Matrix::Bt601 => ("bt601", "smpte170m"),
        Matrix::Bt709 => ("bt709", "bt709"),
        Matrix::Bt2020 => ("bt2020", "bt2020nc"),
    };
    const PRIMARIES: [&str; 8] =
        ["bt709", "bt470m", "bt470bg", "smpte170m", "smpte240m", "bt2020", "smpte431", "smpte432"];
    const TRANSFERS: [&str; 9] = [
        "bt709",
        "smpte170m",
        "smpte240m",
        "linear",
        "iec61966-2-1",
        "bt2020-10",
        "bt2020-12",
        "smpte2084",
        "arib-std-b67",
    ];
    let known = |stated: &Option<String>, names: &[&'static str]| {
        let stated = stated.as_deref();
        let high_definition = (colour.matrix == Matrix::Bt709).then_some("bt709");
        names.iter().copied().find(|name| Some(*name) == stated).or(high_definition)
    };
    let mut tags = format!("setparams=range=tv:colorspace={space}");
    args.add(["-colorspace", space, "-color_range", "tv"]);
    if let Some(primaries) = known(&colour.primaries, &PRIMARIES) {
        tags += &format!(":color_primaries={primaries}");
        args.add(["-color_primaries", primaries]);
    }
    if let Some(transfer) = known(&colour.transfer, &TRANSFERS) {
        tags += &format!(":color_trc={transfer}");
        args.add(["-color_trc", transfer]);
    }
    args.add([
        "-vf".to_owned(),
        format!(
            "scale=flags=bicubic+accurate_rnd+full_chroma_int+full_chroma_inp:out_color_matrix={matrix}\
         :out_range=tv,format={chroma},{tags}"
        ),
    ]);
    args.add(["-pix_fmt", chroma]);
}

/// Sound: copied where that is exact, else encoded at its own rate, cut and padded to the end.
fn sound_args(
    args: &mut Args,
    target: &Target,
    plan: &Plan,
    Sound(info): &Sound,
    options: &WriterOptions,
) -> Result<bool, MediaError> {
    let Some(audio) = &info.audio else {
        return Err(MediaError::NoAudio { path: info.path.clone() });
    };
    args.add(["-map".to_owned(), format!("1:{}", audio.stream)]);
    let same_family = match info.container {
        "mov" => target.is_mov() && matches!(audio.codec.as_str(), "aac" | "ac3" | "eac3" | "alac"),
        "matroska" => !target.is_mov(),
        _ => false,
    };
    let millisecond = Time::new(1, Rational::new(1, 1000));
    let offset = info.sound_offset();
    let starts_with_picture = Time::new(offset.ticks.abs(), offset.base) < millisecond;
    let ends_with_picture = promised_end(info, audio).is_some_and(|end| {
        let base = end.base;
        let gap = (end.ticks - plan.duration().on(base, Rounding::Nearest)).abs();
        Time::new(2 * gap, base) <= Time::new(1, plan.average_rate().recip())
    });
    if options.copy_sound && same_family && starts_with_picture && ends_with_picture {
        args.add(["-c:a", "copy"]);
        return Ok(true);
    }
    let rate = i64::from(audio.rate);
    let samples = plan.duration().on(Rational::new(1, rate), Rounding::Nearest);
    args.add([
        "-af".to_owned(),
        format!(
            "{}aresample={rate}:{ALIGN_OPTIONS},apad=whole_len={samples},atrim=end_sample={samples}",
            sound_start(info)
        ),
    ]);
    if !target.is_mov() {
        // Matroska has no field for the end of AAC sound within a packet; FLAC ends exactly.
        args.add(["-c:a", "flac"]);
        return Ok(false);
    }
    let kilobits = match audio.channels {
        1 => 128,
        2 => 192,
        more => 64 * more.min(8),
    };
    args.add(["-c:a", "aac", "-b:a"]);
    args.add([format!("{kilobits}k")]);
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::FrameIndex;
    use crate::plan::LengthPolicy;

    fn plan(base: Rational) -> Plan {
        let index = FrameIndex::new(base, vec![0, 1], 1).unwrap();
        Plan::new(&index, LengthPolicy::Video, Time::from_samples(1)).unwrap()
    }

    #[test]
    fn ticks_are_exact_in_mp4() {
        let plan = plan(Rational::new(1001, 30_000));
        let options = WriterOptions::default();
        let target = Target::new(Path::new("a.mp4"), (3, 5), &plan, &options).unwrap();
        assert_eq!((target.base, target.stored), (Rational::new(1, 30_000), (4, 6)));
        assert_eq!(target.ticks(7), 7007);
        let frame = Frame::from_rgb(3, 5, (0..45).collect()).unwrap();
        let bytes = target.stored_bytes(&frame);
        assert_eq!(bytes.len(), 4 * 6 * 3);
        assert_eq!(bytes[9..12], [6, 7, 8]);
        assert_eq!(bytes[60..], bytes[48..60]);
    }

    #[test]
    fn wrong_options_are_usage_errors() {
        let plan = plan(Rational::new(1, 25));
        let good = WriterOptions::default();
        let fault = |path: &str, size, options: &WriterOptions| {
            Target::new(Path::new(path), size, &plan, options).map(|_| ()).unwrap_err().fault()
        };
        let usage = crate::Fault::Usage;
        assert_eq!(fault("a.webm", (2, 2), &good), usage);
        assert_eq!(fault("a", (2, 2), &good), usage);
        assert_eq!(fault("a.mp4", (0, 2), &good), usage);
        assert_eq!(fault("a.mp4", (2, 9000), &good), usage);
        assert_eq!(fault("a.mp4", (2, 2), &WriterOptions { crf: 52, ..good.clone() }), usage);
        let preset = WriterOptions { preset: "fast -f null".into(), ..good };
        assert_eq!(fault("a.mp4", (2, 2), &preset), usage);
    }
}
