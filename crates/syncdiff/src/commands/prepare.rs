//! `syncdiff prepare`.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::{ArgGroup, Args, ValueEnum};
use syncdiff::progress::Cancel;
use syncdiff::{Error, Outcome};
use syncdiff_data::{
    DataError, Dataset, Layout, PrepareOptions, PrepareReport, Progress, ProgressFn, QualityLimits, SyncJudge,
    SyntheticOptions, Voice, prepare, read_inputs, repack, synthesize, synthesize_media,
};
use syncdiff_face::FaceModels;
use syncdiff_media::Tools;

use super::sync_judge::OwnSyncJudge;
use crate::folders;
use crate::terminal::say;

/// Turn clips into aligned training data
///
/// Every clip is decoded to 25 frames a second, its largest face tracked and cut out, its sound brought to 16 kHz. Clips
/// that can be learned from go into shards (WebDataset tar files) with an index; every clip gets a verdict and a reason
/// in OUT/report.tsv, and OUT/summary.json counts them. Clips that are already there are not made again: after an
/// interrupt or a kill, run the same command. With --synthetic, no clips are needed: talking heads are drawn.
#[derive(Debug, Args)]
#[command(group(ArgGroup::new("source").required(true).args(["input", "synthetic", "repack", "verify"])))]
pub(crate) struct PrepareArgs {
    /// Folder in the layout of LRS2 or LRS3, a manifest (tab-separated, with a `path` column), or a folder of videos
    #[arg(long, value_name = "PATH")]
    input: Option<PathBuf>,

    /// Draw this many clips of talking heads
    #[arg(long, value_name = "N")]
    synthetic: Option<usize>,

    /// Copy this prepared folder, with shards of another size
    #[arg(long, value_name = "DIR")]
    repack: Option<PathBuf>,

    /// Read every clip in OUT, compare it with its hash, and name the damaged ones
    #[arg(long)]
    verify: bool,

    /// Folder for the prepared clips
    #[arg(long, value_name = "DIR")]
    out: PathBuf,

    /// What PATH is
    #[arg(long, value_name = "LAYOUT", default_value = "auto", conflicts_with_all = ["synthetic", "repack", "verify"])]
    layout: LayoutChoice,

    /// Splits to prepare; all when not given
    #[arg(long, value_name = "SPLIT", value_delimiter = ',', conflicts_with_all = ["synthetic", "repack", "verify"])]
    splits: Vec<String>,

    /// Side of the aligned crops in pixels
    #[arg(long, value_name = "PX", default_value_t = 128)]
    crop_size: usize,

    /// Size of a shard; 0 leaves every clip in a file of its own
    #[arg(long, value_name = "MB", default_value_t = 256)]
    shard_size: u64,

    /// Clips made at once; 0 takes one for each processor
    #[arg(long, value_name = "N", default_value_t = 0)]
    threads: usize,

    /// Clips whose outer eye corners are nearer than this are too small
    #[arg(long, value_name = "PX", default_value_t = QualityLimits::default().min_eye_distance_px, conflicts_with_all = ["synthetic", "repack", "verify"])]
    min_eyes: f32,

    /// Clips that are less sharp than this are blurred: 1 is a blur, 3 and more is sharp
    #[arg(long, value_name = "X", default_value_t = QualityLimits::default().min_sharpness, conflicts_with_all = ["synthetic", "repack", "verify"])]
    min_sharpness: f32,

    /// Heads that are turned further to the side are turned away
    #[arg(long, value_name = "DEGREES", default_value_t = QualityLimits::default().max_yaw_degrees, conflicts_with_all = ["synthetic", "repack", "verify"])]
    max_yaw: f32,

    /// Keep clips in which another face of about the same size is seen
    #[arg(long, conflicts_with_all = ["synthetic", "repack", "verify"])]
    several_faces: bool,

    /// Folder of the face models
    #[arg(long, value_name = "DIR", conflicts_with_all = ["synthetic", "repack", "verify"])]
    face_models: Option<PathBuf>,

    /// Our SyncNet (a result of `train syncnet`), which says how far lips and sound of each clip are apart, and how surely
    #[arg(long, value_name = "FILE", conflicts_with_all = ["synthetic", "repack", "verify"])]
    syncnet: Option<PathBuf>,

    /// Seed of the drawn clips
    #[arg(long, value_name = "N", default_value_t = 0, conflicts_with_all = ["input", "repack", "verify"])]
    seed: u64,

    /// Length of a drawn clip
    #[arg(long, value_name = "SECONDS", default_value_t = 3.0, conflicts_with_all = ["input", "repack", "verify"])]
    seconds: f64,

    /// Voice of the drawn clips; only `tones` are the same on every machine
    #[arg(long, value_name = "VOICE", default_value = "auto", conflicts_with_all = ["input", "repack", "verify"])]
    voice: VoiceChoice,

    /// Write the drawn clips as videos with a manifest, as if they had been filmed, instead of preparing them
    #[arg(long, conflicts_with_all = ["input", "repack", "verify"])]
    media: bool,

    /// Print the figures of the run as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum LayoutChoice {
    /// What it looks like
    Auto,
    /// `main/ID/NNNNN.mp4` with transcripts, `pretrain/`, and the lists `train.txt`, `val.txt`, `test.txt`
    Lrs2,
    /// `trainval/ID/NNNNN.mp4` with transcripts, `test/`, `pretrain/`; a tenth of trainval's speakers are `valid`
    Lrs3,
    /// Tab-separated, with a `path` column and perhaps `split`, `corpus`, `speaker`, `transcript`, `licence`, `source`
    Manifest,
    /// Videos in a folder for each speaker; the hash of its name puts 80, 10 and 10 % into train, valid and test
    Folder,
}

impl LayoutChoice {
    fn layout(self) -> Option<Layout> {
        match self {
            LayoutChoice::Auto => None,
            LayoutChoice::Lrs2 => Some(Layout::Lrs2),
            LayoutChoice::Lrs3 => Some(Layout::Lrs3),
            LayoutChoice::Manifest => Some(Layout::Manifest),
            LayoutChoice::Folder => Some(Layout::Folder),
        }
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum VoiceChoice {
    /// espeak-ng if it is installed, tones otherwise
    Auto,
    /// Vowel-like and consonant-like tones
    Tones,
    /// espeak-ng
    Espeak,
}

impl VoiceChoice {
    fn voice(self) -> Voice {
        match self {
            VoiceChoice::Auto => Voice::Auto,
            VoiceChoice::Tones => Voice::Tones,
            VoiceChoice::Espeak => Voice::Espeak,
        }
    }
}

pub(crate) fn run(args: &PrepareArgs, cancel: &Cancel) -> Outcome<u8> {
    let start = Instant::now();
    let mut show = |progress: &Progress<'_>| {
        let clip = progress.clip;
        let told = !clip.reason.is_empty() || progress.finished.is_multiple_of(50);
        if !args.json && (told || progress.finished == progress.total) {
            say(&format!("{}/{} {} {} {}", progress.finished, progress.total, clip.clip, clip.verdict, clip.reason));
        }
        if cancel.check().is_err() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let report = if let Some(input) = &args.input {
        from_input(args, input, &mut show)?
    } else if let Some(num_clips) = args.synthetic {
        let options = synthetic_options(args, num_clips)?;
        if args.media {
            return media(args, &options, cancel);
        }
        synthesize(&options, &args.out, &mut show)?
    } else if let Some(folder) = &args.repack {
        repack(folder, &args.out, shard_bytes(args), &mut show)?
    } else {
        return verify(&args.out, cancel);
    };
    cancel.check()?;
    let summary = report.summary(start.elapsed().as_secs_f64());
    summary.write(&args.out)?;
    if args.json {
        say(&serde_json::to_string(&summary).map_err(|error| internal(&error))?);
    } else {
        say(&summary.to_string());
    }
    Ok(0)
}

fn internal(error: &dyn std::error::Error) -> Error {
    Error::Internal { stage: "prepare", detail: error.to_string() }
}

fn shard_bytes(args: &PrepareArgs) -> u64 {
    args.shard_size.saturating_mul(1_000_000)
}

fn from_input(args: &PrepareArgs, input: &Path, show: &mut ProgressFn<'_>) -> Outcome<PrepareReport> {
    let inputs = read_inputs(input, args.layout.layout())?;
    let mut clips = inputs.clips;
    if !args.splits.is_empty() {
        clips.retain(|clip| args.splits.contains(&clip.split));
    }
    if !args.json {
        let mut splits: std::collections::BTreeMap<&str, usize> = Default::default();
        clips.iter().for_each(|clip| *splits.entry(&clip.split).or_default() += 1);
        let splits: Vec<String> = splits.iter().map(|(split, count)| format!("{count} {split}")).collect();
        say(&format!("{}: {}, {} clips: {}", input.display(), inputs.layout, clips.len(), splits.join(", ")));
        inputs.notes.iter().for_each(|note| say(&format!("note: {note}")));
    }
    let models = FaceModels::load(&args.face_models.clone().unwrap_or_else(folders::face_models))?;
    let quality = QualityLimits {
        min_eye_distance_px: args.min_eyes,
        min_sharpness: args.min_sharpness,
        max_yaw_degrees: args.max_yaw,
        max_other_faces: if args.several_faces { 1.0 } else { QualityLimits::default().max_other_faces },
    };
    let options = PrepareOptions {
        crop_size: args.crop_size,
        num_threads: args.threads,
        shard_bytes: shard_bytes(args),
        quality,
        ..PrepareOptions::default()
    };
    let judge = args.syncnet.as_deref().map(OwnSyncJudge::load).transpose()?;
    let judge = judge.as_ref().map(|judge| judge as &dyn SyncJudge);
    Ok(prepare(&Tools::default(), &models, &clips, &args.out, &options, judge, show)?)
}

fn synthetic_options(args: &PrepareArgs, num_clips: usize) -> Outcome<SyntheticOptions> {
    if !(0.32..=60.0).contains(&args.seconds) {
        return Err(Error::usage(format!("--seconds is {}", args.seconds), "give 0.32 to 60 seconds"));
    }
    Ok(SyntheticOptions {
        num_clips,
        num_frames: (args.seconds * 25.0).round() as usize,
        seed: args.seed,
        crop_size: args.crop_size,
        voice: args.voice.voice(),
        num_threads: args.threads,
        shard_bytes: shard_bytes(args),
    })
}

fn media(args: &PrepareArgs, options: &SyntheticOptions, cancel: &Cancel) -> Outcome<u8> {
    let mut go_on = |_| cancel.check().is_ok();
    let manifest = synthesize_media(options, &Tools::default(), &args.out, &mut go_on)?;
    say(&format!("{} clips, listed in {}", options.num_clips, manifest.display()));
    Ok(0)
}

/// Names every damaged clip; the first one decides the exit code.
fn verify(folder: &Path, cancel: &Cancel) -> Outcome<u8> {
    let data = Dataset::open(folder, 0)?;
    let mut first: Option<DataError> = None;
    let mut whole = 0;
    for (at, entry) in data.clips().iter().enumerate() {
        cancel.check()?;
        match data.load(at) {
            Ok(_) => whole += 1,
            Err(error) => {
                say(&format!("damaged: {}: {error}", entry.clip));
                first.get_or_insert(error);
            }
        }
    }
    say(&format!("{whole} of {} clips are whole", data.clips().len()));
    first.map_or(Ok(0), |error| Err(error.into()))
}
