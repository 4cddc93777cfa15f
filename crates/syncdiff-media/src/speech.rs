//! The 16 kHz mono copy of the sound: what the model hears.

use std::time::Duration;

use crate::decode::secs_text;
use crate::error::{MediaError, Warning};
use crate::info::{AudioInfo, MediaInfo, MediaKind};
use crate::plan::MAX_OUTPUT_HOURS;
use crate::process::{Limits, last_useful_line, run_into};
use crate::time::{Rational, Rounding, SPEECH_RATE, Time};
use crate::tools::{Args, Tools};

/// The speech of a file; sample 0 belongs to the file's first frame, or to the first sample of a
/// file without moving pictures.
#[derive(Clone, Debug)]
pub struct Speech {
    /// 16 kHz, mono, 16 bits: 32 kB a second.
    pub samples: Vec<i16>,
    /// What went wrong without ending the work.
    pub warnings: Vec<Warning>,
}

impl Speech {
    /// Its length.
    pub fn duration(&self) -> Time {
        Time::from_samples(self.samples.len() as i64)
    }
}

/// Decodes the sound of a probed file. Sound before the first frame is cut; where it starts later,
/// or has gaps, there is silence.
///
/// # Errors
/// [`MediaError::NoAudio`], [`MediaError::Damaged`] if there is nothing to decode,
/// [`MediaError::Limit`] above [`MAX_OUTPUT_HOURS`].
pub fn decode_speech(tools: &Tools, info: &MediaInfo) -> Result<Speech, MediaError> {
    const STAGE: &str = "decode speech";
    let Some(audio) = &info.audio else {
        return Err(MediaError::NoAudio { path: info.path.clone() });
    };
    let max_samples = MAX_OUTPUT_HOURS * 3600 * SPEECH_RATE;
    let mut args = Args::default();
    args.add(["-hide_banner", "-nostdin", "-nostats", "-loglevel", "warning"]);
    sound_input(&mut args, info);
    args.add(["-map".to_owned(), format!("0:{}", audio.stream)]);
    let resample = format!("aresample={SPEECH_RATE}:{ALIGN_OPTIONS}");
    args.add(["-af".to_owned(), format!("{}{resample}", sound_start(info))]);
    args.add(["-ac", "1", "-c:a", "pcm_s16le", "-f", "s16le", "pipe:1"]);
    let limits =
        Limits { wall: Duration::from_secs(24 * 3600), idle: Duration::from_secs(60), stdout_bytes: usize::MAX };
    let mut samples = Vec::new();
    let mut odd: Option<u8> = None;
    let output = run_into(&tools.ffmpeg, &args.0, &limits, |chunk| {
        for byte in chunk {
            match odd.take() {
                Some(low) if (samples.len() as i64) <= max_samples => {
                    samples.push(i16::from_le_bytes([low, *byte]));
                }
                Some(_) => {}
                None => odd = Some(*byte),
            }
        }
    })?;
    if samples.len() as i64 > max_samples {
        return Err(MediaError::Limit {
            path: info.path.clone(),
            what: "the length of the speech",
            value: format!("over {MAX_OUTPUT_HOURS} h"),
            limit: format!("{MAX_OUTPUT_HOURS} h"),
            remedy: "cut it first",
        });
    }
    if samples.is_empty() {
        let detail = if output.stderr.is_empty() {
            "the audio track holds no sound".into()
        } else {
            format!("no sound could be decoded: {}", last_useful_line(&output.stderr))
        };
        return Err(MediaError::Damaged { stage: STAGE, path: info.path.clone(), detail });
    }
    let mut speech = Speech { samples, warnings: Vec::new() };
    if let Some(promised) = promised_end(info, audio) {
        // A tenth of a second: coded sound ends on whole packets, which headers may count or not.
        let (end_ms, promised_ms) = (speech.duration().millis(), promised.millis());
        if promised_ms - end_ms > 100 {
            speech.warnings.push(Warning::SoundEarlyEnd { end_ms, promised_ms });
        }
        // The rest of the last packet is the coder's padding, not sound. More than that means that
        // the header is wrong, and then nothing is cut.
        let promised_samples = promised.on(Rational::SPEECH_BASE, Rounding::Nearest);
        if promised_samples > 0 && (0..100).contains(&(end_ms - promised_ms)) {
            speech.samples.truncate(promised_samples as usize);
        }
    }
    Ok(speech)
}

/// Options of ffmpeg's resampler: the first sample lies at time 0 (earlier ones are cut, later ones
/// padded), and gaps of a tenth of a second are filled; nothing is stretched.
pub(crate) const ALIGN_OPTIONS: &str = "async=1:min_hard_comp=0.1:first_pts=0";

/// The input, shifted so that the first frame of a video lies at time 0.
pub(crate) fn sound_input(args: &mut Args, info: &MediaInfo) {
    if let (MediaKind::Video, Some(video)) = (info.kind, &info.video) {
        let nanos = Rational::new(1, 1_000_000_000);
        let start = info.start.map_or(0, |start| start.on(nanos, Rounding::Nearest));
        let picture = Time::new(video.start, video.time_base).on(nanos, Rounding::Nearest);
        args.add(["-itsoffset".to_owned(), secs_text(Time::new(start - picture, nanos))]);
    }
    args.input(info.container, &info.path);
}

/// The filter that puts the first sample of a file without moving pictures at time 0.
pub(crate) fn sound_start(info: &MediaInfo) -> &'static str {
    if info.kind == MediaKind::Video { "" } else { "asetpts=PTS-STARTPTS," }
}

/// Where the sound ends by the header, counted from the first frame; none for formats without a
/// length in their header, for which ffprobe guesses one from the bit rate.
pub(crate) fn promised_end(info: &MediaInfo, audio: &AudioInfo) -> Option<Time> {
    const WITH_LENGTH: [&str; 7] = ["mov", "matroska", "wav", "flac", "ogg", "aiff", "caf"];
    if !WITH_LENGTH.contains(&info.container) {
        return None;
    }
    let offset = info.sound_offset();
    let length = Time::new(audio.duration?, audio.time_base).on(offset.base, Rounding::Nearest);
    Some(Time::new(length + offset.ticks, offset.base))
}
