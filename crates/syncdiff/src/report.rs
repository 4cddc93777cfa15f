//! What was done, for people and programs: the JSON of `--report`.

use std::path::Path;

use serde::Serialize;
use syncdiff_media::{Plan, Time, ToolVersions, Warning, Written};
use syncdiff_model::preset::PoseFeedback;

use crate::cache::Kept;
use crate::cast::Cast;
use crate::clock::{Clock, Phase};
use crate::error::{Error, Outcome};
use crate::render::Counts;
use crate::settings::Settings;
use crate::source::Source;
use crate::tracking::{Tracked, picture};

/// The report of one generation.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Version of this program.
    pub version: &'static str,
    /// Commit that it was built from, where the build knew it.
    pub commit: Option<&'static str>,
    /// Versions of ffmpeg and ffprobe.
    pub tools: ToolVersions,
    /// The clip and the model, resolved.
    pub settings: Settings,
    /// The model.
    pub model: ModelReport,
    /// Where the networks ran.
    pub device: String,
    /// Number of threads of the machine.
    pub threads: usize,
    /// The source clip.
    pub source: SourceReport,
    /// The face that was chosen.
    pub face: FaceReport,
    /// The speech.
    pub speech: SpeechReport,
    /// The output.
    pub output: OutputReport,
    /// What the cache held; none where none was in use.
    pub cache: Option<CacheReport>,
    /// What was wrong with the inputs without ending the work.
    pub warnings: Vec<Warning>,
    /// Seconds of work by phase.
    pub seconds: PhaseSeconds,
    /// Peak memory of this program in bytes, without its child processes; none where it is not known.
    pub peak_memory_bytes: Option<u64>,
}

/// The model that drew the mouths.
#[derive(Clone, Debug, Serialize)]
pub struct ModelReport {
    /// Name of its configuration.
    pub name: String,
    /// SHA-256 of the weights.
    pub weights_sha256: String,
    /// Terms of the weights.
    pub licence: String,
    /// Number of parameters, all networks together.
    pub parameters: usize,
    /// Side of the crop in pixels.
    pub crop_size_px: usize,
    /// What the model does not see.
    pub keep_mask: String,
    /// Sampler and steps that were used.
    pub sampler: String,
    /// Steps of the sampler.
    pub steps: usize,
    /// Weight of the speech; 1 is no guidance.
    pub guidance: f32,
    /// What a drawn frame handed to the next.
    pub feedback: PoseFeedback,
}

/// The source clip.
#[derive(Clone, Debug, Serialize)]
pub struct SourceReport {
    /// Width of the upright picture with square pixels.
    pub width: usize,
    /// Height of the upright picture with square pixels.
    pub height: usize,
    /// Number of frames.
    pub frames: usize,
    /// Mean frame rate.
    pub rate: String,
    /// Are the frames unevenly spaced?
    pub variable_rate: bool,
    /// Is it a still picture?
    pub still: bool,
    /// Length in seconds.
    pub secs: f64,
}

/// A range of source frames, the end not included.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct FrameRange {
    /// First frame.
    pub start: usize,
    /// First frame after it.
    pub end: usize,
    /// Where it starts, in seconds after the first frame.
    pub start_secs: f64,
    /// Where it ends, in seconds after the first frame.
    pub end_secs: f64,
}

/// The face that was chosen.
#[derive(Clone, Debug, Serialize)]
pub struct FaceReport {
    /// Its numbers, as `scan` lists them: one for each shot that shows it.
    pub ids: Vec<u32>,
    /// How many tracks of faces the clip has, all shots together.
    pub tracks_in_clip: usize,
    /// Where it is not seen: these frames passed through unchanged.
    pub gaps: Vec<FrameRange>,
    /// Source frames that begin a new shot.
    pub cuts: Vec<usize>,
}

/// The speech.
#[derive(Clone, Debug, Serialize)]
pub struct SpeechReport {
    /// Its length in seconds.
    pub secs: f64,
    /// Part of the output's time with speech, where that was measured (`--silence keep`).
    pub speaking_part: Option<f64>,
}

/// The output.
#[derive(Clone, Debug, Serialize)]
pub struct OutputReport {
    /// Number of frames.
    pub frames: usize,
    /// Frames with a generated mouth; the others passed through.
    pub changed_frames: usize,
    /// Crops that were drawn, on the model's 25 frames a second.
    pub drawn_frames: usize,
    /// Length in seconds.
    pub secs: f64,
    /// The file; none for a preview.
    pub file: Option<Written>,
}

/// What the cache held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct CacheReport {
    /// Time stamps and faces of the clip: where they were found, it was not decoded for them.
    pub tracks: Kept,
    /// The encoded speech.
    pub speech: Kept,
}

/// Seconds of work by phase. Phases of different frames run at the same time: their sum may exceed the total, and on
/// busy cores each takes longer than alone.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct PhaseSeconds {
    /// Waiting for decoded frames, in both passes.
    pub decode: f64,
    /// Detecting and following faces.
    pub faces: f64,
    /// Decoding and encoding the speech.
    pub audio: f64,
    /// Reading the weights.
    pub load: f64,
    /// Cutting the aligned crop and hiding the mouth.
    pub align: f64,
    /// What the denoiser is told: audio tokens of the frame, and the known pictures behind each other.
    pub condition: f64,
    /// Denoising, all steps.
    pub denoise: f64,
    /// Autoencoder.
    pub autoencoder: f64,
    /// Pasting back.
    pub paste: f64,
    /// Encoding and writing.
    pub encode: f64,
    /// From start to end.
    pub total: f64,
    /// From start to end, by output frame.
    pub per_output_frame: f64,
}

impl PhaseSeconds {
    /// Reads a clock.
    pub fn new(clock: &Clock, total: f64, frames: usize) -> Self {
        PhaseSeconds {
            decode: clock.secs(Phase::Decode),
            faces: clock.secs(Phase::Faces),
            audio: clock.secs(Phase::Audio),
            load: clock.secs(Phase::Load),
            align: clock.secs(Phase::Align),
            condition: clock.secs(Phase::Condition),
            denoise: clock.secs(Phase::Denoise),
            autoencoder: clock.secs(Phase::Autoencoder),
            paste: clock.secs(Phase::Paste),
            encode: clock.secs(Phase::Encode),
            total,
            per_output_frame: total / frames.max(1) as f64,
        }
    }
}

/// What a generation knows at its end.
pub struct Summary<'a> {
    /// The clip and the model.
    pub settings: Settings,
    /// The model.
    pub model: ModelReport,
    /// Where the networks ran.
    pub device: String,
    /// The inputs.
    pub source: &'a Source,
    /// The first pass.
    pub tracked: &'a Tracked,
    /// The chosen face.
    pub cast: &'a Cast,
    /// Length of the speech.
    pub speech_length: Time,
    /// What was wrong with the speech without ending the work.
    pub speech_warnings: &'a [Warning],
    /// Which model frames have speech, where that was measured.
    pub speaking: Option<&'a [bool]>,
    /// The output's frames.
    pub plan: &'a Plan,
    /// How much was done.
    pub counts: Counts,
    /// The finished file; none for a preview.
    pub written: Option<Written>,
    /// What the cache held; none where none was in use.
    pub cache: Option<CacheReport>,
    /// Where the time went.
    pub clock: &'a Clock,
    /// Seconds from start to end.
    pub total_secs: f64,
}

impl Summary<'_> {
    /// The report. Peak memory is left open: only the binary asks the system.
    ///
    /// # Errors
    /// None in practice: the video has a picture, or there would be no summary.
    pub fn report(self, tools: ToolVersions) -> Outcome<Report> {
        let index = &self.tracked.index;
        let video = picture(&self.source.video)?;
        let secs_at = |frame: usize| match frame {
            frame if frame < index.len() => Time::new(index.since_start(frame), index.time_base()).secs(),
            _ => index.duration().secs(),
        };
        let range = |frames: std::ops::Range<usize>| FrameRange {
            start: frames.start,
            end: frames.end,
            start_secs: secs_at(frames.start),
            end_secs: secs_at(frames.end),
        };
        let warnings = self.tracked.warnings.iter().chain(self.speech_warnings).cloned().collect();
        Ok(Report {
            version: crate::VERSION,
            commit: crate::COMMIT,
            tools,
            settings: self.settings,
            model: self.model,
            device: self.device,
            threads: std::thread::available_parallelism().map_or(1, usize::from),
            source: SourceReport {
                width: video.width,
                height: video.height,
                frames: index.len(),
                rate: index.average_rate().to_string(),
                variable_rate: index.is_variable_rate(),
                still: index.is_still(),
                secs: index.duration().secs(),
            },
            face: FaceReport {
                ids: self.cast.ids(),
                tracks_in_clip: self.tracked.faces.tracks().count(),
                gaps: self.cast.gaps().into_iter().map(range).collect(),
                cuts: self.tracked.faces.cuts(),
            },
            speech: SpeechReport {
                secs: self.speech_length.secs(),
                speaking_part: self
                    .speaking
                    .map(|speaking| speaking.iter().filter(|on| **on).count() as f64 / speaking.len().max(1) as f64),
            },
            output: OutputReport {
                frames: self.counts.frames,
                changed_frames: self.counts.changed,
                drawn_frames: self.counts.drawn,
                secs: self.plan.duration().secs(),
                file: self.written,
            },
            cache: self.cache,
            warnings,
            seconds: PhaseSeconds::new(self.clock, self.total_secs, self.counts.frames),
            peak_memory_bytes: None,
        })
    }
}

/// Writes a value as JSON. An existing file is replaced only when the new one is whole.
///
/// # Errors
/// [`Error::Io`].
pub fn write_json<T: Serialize>(path: &Path, value: &T) -> Outcome<()> {
    const STAGE: &str = "write report";
    let text = serde_json::to_string_pretty(value)
        .map_err(|error| Error::Internal { stage: STAGE, detail: error.to_string() })?;
    crate::files::write_whole(STAGE, path, format!("{text}\n").as_bytes())
}
