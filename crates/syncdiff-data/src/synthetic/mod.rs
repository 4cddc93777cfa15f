//! Talking heads that nobody filmed: clips for training, evaluation and tests without licensed data.
//!
//! The flow of a clip: [`Looks`] of a speaker; a [`Voice`] says something; [`motion`] moves the lips by the loudness
//! and the formants of the sound; [`HeadMap`] and [`picture`] draw the frames; [`landmarks`] tells where the face is,
//! without looking. From there on a drawn clip is prepared as any other: same alignment, same crops, same files. What
//! is drawn depends on the seed, the number of the clip, and the voice alone.

mod field;
mod head;
mod landmarks;
mod looks;
mod motion;
mod paint;
mod picture;
mod points;
mod shape;
mod voice;

use std::path::{Path, PathBuf};

use syncdiff_face::{FaceChoice, FacesInFrame, Mesh, SmoothOptions, TrackedFace, warp};
use syncdiff_media::time::{MODEL_RATE, SAMPLES_PER_MODEL_FRAME, SPEECH_RATE};
use syncdiff_media::{
    Frame, FrameIndex, LengthPolicy, Plan, Rational, Sound, Time, Tools, VideoWriter, WriterOptions, probe, write_wav,
};

use crate::atomic::write_whole;
use crate::clip::CLIP_FORMAT;
use crate::error::DataError;
use crate::index::ClipEntry;
use crate::manifest::ClipSource;
use crate::prepare::{
    ClipReport, DEFAULT_SHARD_BYTES, Faces, PrepareReport, Producer, ProgressFn, RunOptions, Verdict, check_crop_size,
    measure, run, runs, store,
};
use crate::rng::Draws;
use head::HeadMap;
use looks::Looks;

pub use voice::Voice;

/// Speakers take turns: clip i is said by speaker i modulo this.
const NUM_SPEAKERS: usize = 16;
/// Terms of what is drawn.
const LICENCE: &str = "CC0-1.0";
const ORIGIN: &str = "drawn by syncdiff";
/// Draws of this kind give the grain of skin and hair.
const PURPOSE: [u8; 8] = *b"grain\0\0\0";

/// Which clips are drawn, and how.
#[derive(Clone, Copy, Debug)]
pub struct SyntheticOptions {
    /// How many; the first of them stay the same when there are more.
    pub num_clips: usize,
    /// Length of each in frames at 25 a second, from 8 to 1500.
    pub num_frames: usize,
    /// Other seeds give other speakers who say other things.
    pub seed: u64,
    /// Side of the crops in pixels, a multiple of 4 from 32 to 1024; pictures are one and a half times as large.
    pub crop_size: usize,
    /// Who speaks.
    pub voice: Voice,
    /// Clips at a time; 0 for one on each core.
    pub num_threads: usize,
    /// As [`crate::PrepareOptions::shard_bytes`].
    pub shard_bytes: u64,
}

impl Default for SyntheticOptions {
    /// Twelve clips of three seconds with crops of 128 pixels, with espeak-ng where there is one.
    fn default() -> Self {
        SyntheticOptions {
            num_clips: 12,
            num_frames: 75,
            seed: 0,
            crop_size: 128,
            voice: Voice::Auto,
            num_threads: 0,
            shard_bytes: DEFAULT_SHARD_BYTES,
        }
    }
}

impl SyntheticOptions {
    fn check(&self) -> Result<(), DataError> {
        check_crop_size(self.crop_size)?;
        if self.num_clips == 0 || !(8..=1500).contains(&self.num_frames) {
            let detail = format!(
                "{} clips of {} frames; at least one clip, and 8 to 1500 frames (0.32 to 60 seconds) are possible",
                self.num_clips, self.num_frames
            );
            return Err(DataError::Parameter { stage: "synthetic clips", detail });
        }
        Ok(())
    }

    /// The same with the voice that is there.
    fn resolved(&self) -> Result<Self, DataError> {
        self.check()?;
        Ok(SyntheticOptions { voice: self.voice.resolve()?, ..*self })
    }

    /// All options that shape the clips, as text.
    fn shaping(&self) -> Result<String, DataError> {
        Ok(format!(
            "{CLIP_FORMAT} drawn=1 crop={} frames={} seed={} voice={}",
            self.crop_size,
            self.num_frames,
            self.seed,
            self.voice.name()?
        ))
    }

    /// Side of the pictures in pixels.
    fn side(&self) -> usize {
        self.crop_size * 3 / 2
    }

    /// Where a clip belongs; its path is where [`SyntheticClip::write_media`] puts it.
    fn source(&self, clip: usize) -> ClipSource {
        let speaker = clip % NUM_SPEAKERS;
        // Three clips have all splits, and no speaker is in two of them.
        let split = match speaker % 8 {
            1 => "valid",
            2 => "test",
            _ => "train",
        };
        let (speaker, name) = (format!("drawn{speaker:02}"), format!("{clip:05}"));
        ClipSource {
            path: PathBuf::from(&speaker).join(format!("{name}.mp4")),
            corpus: "synthetic".into(),
            split: split.into(),
            speaker,
            name,
            transcript: String::new(),
            licence: LICENCE.into(),
            origin: ORIGIN.into(),
        }
    }
}

/// A drawn clip.
#[derive(Clone, Debug)]
pub struct SyntheticClip {
    /// Where it belongs, and what is said; its path is relative.
    pub source: ClipSource,
    /// 25 a second.
    pub frames: Vec<Frame>,
    /// 16 kHz mono, 640 samples for each frame.
    pub speech: Vec<i16>,
    /// The face in each frame.
    pub meshes: Vec<Mesh>,
}

impl SyntheticClip {
    /// Draws one clip.
    ///
    /// # Errors
    /// [`DataError::Parameter`] for options out of range, [`DataError::Media`] if espeak-ng was asked for and fails.
    pub fn draw(options: &SyntheticOptions, clip: usize) -> Result<Self, DataError> {
        draw(&options.resolved()?, clip)
    }

    /// Writes the clip as `SPEAKER/NAME.mp4` below a folder, with the transcript as `NAME.txt` beside it.
    ///
    /// # Errors
    /// [`DataError::Media`] if ffmpeg is missing or fails, [`DataError::Io`], [`DataError::DiskFull`].
    pub fn write_media(&self, tools: &Tools, folder: &Path) -> Result<PathBuf, DataError> {
        let path = folder.join(&self.source.path);
        write_whole(&path.with_extension("txt"), |file| writeln!(file, "Text:  {}", self.source.transcript))?;
        let scratch = tempfile::tempdir().map_err(|error| DataError::io("synthetic clips", folder, error))?;
        let sound = scratch.path().join("sound.wav");
        write_wav(&sound, &self.speech, SPEECH_RATE as u32, 1)?;
        let index = FrameIndex::new(Rational::new(1, MODEL_RATE), (0..self.frames.len() as i64).collect(), 1)?;
        let plan = Plan::new(&index, LengthPolicy::Video, Time::from_samples(self.speech.len() as i64))?;
        let sound = Sound(probe(tools, &sound)?);
        let size = self.frames.first().map_or((0, 0), |frame| (frame.width, frame.height));
        let mut writer = VideoWriter::create(tools, &path, size, &plan, Some(&sound), &WriterOptions::default())?;
        for (at, frame) in self.frames.iter().enumerate() {
            writer.push(frame, plan.pts(at))?;
        }
        writer.finish()?;
        Ok(path)
    }

    /// The clip as its prepared arrays, written below `out`.
    fn write_prepared(&self, crop_size: usize, fingerprint: &str, out: &Path) -> Result<ClipEntry, DataError> {
        let (side, count) = (self.frames.first().map_or(0, |frame| frame.width), self.frames.len());
        let mut faces = Faces::new(side, side);
        for mesh in &self.meshes {
            let face = TrackedFace { track: 0, face_box: mesh.face_box(), mesh: mesh.clone() };
            faces.push(&FacesInFrame { faces: vec![face], cut: false });
        }
        let source_frames: Vec<usize> = (0..count).collect();
        let track = faces.table.choose(&FaceChoice::Largest)?;
        let alignment = faces.table.alignment(track, &SmoothOptions::default());
        let mut arrays = faces.arrays(track.id(), &alignment, &source_frames, crop_size);
        for (at, frame) in self.frames.iter().enumerate() {
            match alignment.crop_from_frame(at, crop_size) {
                Some(crop_from_frame) => arrays.frames.extend(warp(frame, &crop_from_frame, crop_size).data),
                None => arrays.frames.resize(arrays.frames.len() + crop_size * crop_size * 3, 0),
            }
        }
        arrays.speech = self.speech.clone();
        let quality = measure(&faces, track, &arrays, &source_frames);
        let runs = runs(&arrays.valid, &source_frames, &Default::default());
        let meta = self.source.meta(format!("{MODEL_RATE}/1"), (side, side), fingerprint);
        let entry = store(&arrays, meta, runs, out)?;
        Ok(ClipEntry { quality: Some(quality), ..entry })
    }
}

/// Draws a clip with a voice that is there.
fn draw(options: &SyntheticOptions, clip: usize) -> Result<SyntheticClip, DataError> {
    let side = options.side();
    let (speaker, number) = ((clip % NUM_SPEAKERS) as u64, clip as u64);
    let looks = Looks::of(options.seed, speaker, side);
    let num_samples = options.num_frames * SAMPLES_PER_MODEL_FRAME as usize;
    let said = options.voice.speak(&looks, options.seed, number, num_samples)?;
    let mut head = HeadMap::new(&looks, &mut Draws::new(options.seed, 0, speaker, PURPOSE));
    let poses = motion::poses(&said.samples, options.num_frames, options.seed, number);
    let mut frames = Vec::with_capacity(poses.len());
    for pose in &poses {
        head.draw(pose);
        frames.push(picture::take(&head, &looks, pose, side));
    }
    let meshes = poses.iter().map(|pose| landmarks::mesh(&looks, pose)).collect();
    let source = ClipSource { transcript: said.words, ..options.source(clip) };
    Ok(SyntheticClip { source, frames, speech: said.samples, meshes })
}

/// Draws clips and writes them as a prepared folder: no ffmpeg, no face models, no data are needed. Interrupted,
/// it goes on where it was; the bytes are those of one run.
///
/// # Errors
/// Those of [`SyntheticClip::draw`], and of [`crate::prepare`] for the folder.
pub fn synthesize(
    options: &SyntheticOptions,
    out: &Path,
    progress: &mut ProgressFn<'_>,
) -> Result<PrepareReport, DataError> {
    let options = options.resolved()?;
    let shaping = options.shaping()?;
    let drawing = Drawing { options: &options, shaping: &shaping };
    let how = RunOptions { num_threads: options.num_threads, shard_bytes: options.shard_bytes };
    run(&drawing, out, shaping.clone(), how, progress)
}

struct Drawing<'a> {
    options: &'a SyntheticOptions,
    shaping: &'a str,
}

impl Producer for Drawing<'_> {
    fn num_clips(&self) -> usize {
        self.options.num_clips
    }

    fn key(&self, clip: usize) -> String {
        self.options.source(clip).key()
    }

    fn fingerprint(&self, clip: usize) -> String {
        format!("{} clip={clip}", self.shaping)
    }

    fn make(&self, clip: usize, fingerprint: String, out: &Path) -> Result<ClipReport, DataError> {
        let drawn = draw(self.options, clip)?;
        let entry = drawn.write_prepared(self.options.crop_size, &fingerprint, out)?;
        Ok(ClipReport {
            clip: drawn.source.key(),
            source: ORIGIN.into(),
            verdict: Verdict::Kept,
            reason: String::new(),
            fingerprint,
            entry: Some(entry),
        })
    }
}

/// A folder holds clips of one kind only: the first run leaves a note of its options.
fn same_options(out: &Path, shaping: &str) -> Result<(), DataError> {
    let note = out.join("synthetic.txt");
    match std::fs::read_to_string(&note) {
        Ok(earlier) if earlier.trim() != shaping => {
            let detail =
                format!("{out:?} holds clips drawn otherwise ({}; now {shaping}); give another folder", earlier.trim());
            Err(DataError::Parameter { stage: "synthetic clips", detail })
        }
        Ok(_) => Ok(()),
        Err(_) => write_whole(&note, |file| writeln!(file, "{shaping}")),
    }
}

/// Draws clips and writes them as media files with a `manifest.tsv`, as if they had been filmed: input for
/// [`crate::prepare`] and for evaluation. Files that are there are not drawn again. `told` gets the number of each
/// finished clip and may stop the work by `false`.
///
/// # Errors
/// Those of [`SyntheticClip::write_media`]; [`DataError::Cancelled`].
pub fn synthesize_media(
    options: &SyntheticOptions,
    tools: &Tools,
    out: &Path,
    told: &mut dyn FnMut(usize) -> bool,
) -> Result<PathBuf, DataError> {
    let options = options.resolved()?;
    same_options(out, &options.shaping()?)?;
    let mut lines =
        vec!["path\tcorpus\tsplit\tspeaker\twidth\theight\tfps\tseconds\ttranscript\tlicence\tsource".to_owned()];
    for clip in 0..options.num_clips {
        let mut source = options.source(clip);
        let path = out.join(&source.path);
        if path.is_file() {
            source.transcript = crate::read_transcript(&path);
        } else {
            let drawn = draw(&options, clip)?;
            drawn.write_media(tools, out)?;
            source = drawn.source;
        }
        let (side, secs) = (options.side(), options.num_frames as f64 / MODEL_RATE as f64);
        lines.push(format!(
            "{}\t{}\t{}\t{}\t{side}\t{side}\t{MODEL_RATE}\t{secs}\t{}\t{}\t{}",
            source.path.display(),
            source.corpus,
            source.split,
            source.speaker,
            source.transcript,
            source.licence,
            source.origin
        ));
        if !told(clip) && clip + 1 < options.num_clips {
            return Err(DataError::Cancelled { finished: clip + 1, total: options.num_clips });
        }
    }
    let manifest = out.join("manifest.tsv");
    write_whole(&manifest, |file| lines.iter().try_for_each(|line| writeln!(file, "{line}")))?;
    Ok(manifest)
}

#[cfg(test)]
mod tests;
