//! `syncdiff train`.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::{Args, Subcommand};
use syncdiff::device::{DeviceChoice, resolve};
use syncdiff::progress::Cancel;
use syncdiff::{Error, Outcome};
use syncdiff_data::Dataset;
use syncdiff_media::process::Companion;
use syncdiff_model::cost::architectures::short;
use syncdiff_train::run::{
    self, AutoencoderFiles, DiffusionFiles, PretrainFiles, RunConfig, RunInputs, RunPlan, SpeechFiles, Stage,
    StudentFiles, SyncNetFiles, Wav2LipFiles,
};
use syncdiff_train::{Share, Stats};

use crate::terminal::say;

/// Bytes of prepared clips kept in memory.
pub(super) const CLIP_CACHE_BYTES: usize = 6 << 30;

/// Train a part of the model
///
/// The chain is autoencoder, speech, diffusion, student; pretrain may come before speech; syncnet makes a judge, or a
/// network for a loss, and reader what reads lips. A run folder that holds checkpoints is resumed exactly where it
/// stopped; an interrupt writes a checkpoint first.
#[derive(Debug, Subcommand)]
pub(crate) enum TrainCommand {
    /// First stage: pixels to latents and back
    Autoencoder {
        #[command(flatten)]
        run: RunArgs,
        /// Start from these weights instead of random ones
        #[arg(long, value_name = "FILE")]
        init_from: Option<PathBuf>,
        /// Folder of the LPIPS networks for `lpips_weight` of [autoencoder] (`syncdiff models pull`)
        #[arg(long, value_name = "DIR")]
        lpips: Option<PathBuf>,
    },
    /// Speech encoder without labels: hidden spans of sound and sight are guessed as clusters of sounds
    ///
    /// The result is for `train speech --init-from` and `train diffusion --speech` of a model whose configuration says
    /// `[model] moonshine_layers = 0`.
    Pretrain {
        #[command(flatten)]
        run: RunArgs,
        /// Cluster the hidden rows of this result of `train pretrain` instead of cepstra; a run that is resumed keeps the
        /// clusters that it began with
        #[arg(long, value_name = "FILE")]
        clusters_from: Option<PathBuf>,
        /// How far picture and sound of each clip are apart: `offsets.tsv` of `train speech`
        #[arg(long, value_name = "FILE")]
        offsets: Option<PathBuf>,
        /// Start from these weights instead of random ones: a result of `train pretrain`
        #[arg(long, value_name = "FILE")]
        init_from: Option<PathBuf>,
    },
    /// Speech encoder, taught by the lip landmarks
    Speech {
        #[command(flatten)]
        run: RunArgs,
        /// Weights of Moonshine, through which `lite` hears: the published file, or models/lite/model.safetensors
        #[arg(long, value_name = "FILE")]
        moonshine: Option<PathBuf>,
        /// Start from these weights instead of random ones
        #[arg(long, value_name = "FILE")]
        init_from: Option<PathBuf>,
    },
    /// Denoiser, on latents of a trained autoencoder and rows of a trained speech encoder
    Diffusion {
        #[command(flatten)]
        run: RunArgs,
        /// Result of `train autoencoder`
        #[arg(long, value_name = "FILE")]
        autoencoder: PathBuf,
        /// Result of `train speech`
        #[arg(long, value_name = "FILE")]
        speech: PathBuf,
        /// How far picture and sound of each clip are apart: `offsets.tsv` of `train speech`
        #[arg(long, value_name = "FILE")]
        offsets: Option<PathBuf>,
        /// Folder that keeps the latents, for this run and others; each autoencoder and mask has a folder in it
        #[arg(long, value_name = "DIR")]
        latents: PathBuf,
        /// Terms of the resulting weights, written beside them
        #[arg(long, value_name = "TEXT", default_value = "unspecified")]
        licence: String,
        /// Start from these weights instead of random ones: the `model.safetensors` of a weights folder
        #[arg(long, value_name = "FILE")]
        init_from: Option<PathBuf>,
        /// Result of `train syncnet` for the sync loss of [diffusion.estimate]; another one must judge
        #[arg(long, value_name = "FILE")]
        syncnet: Option<PathBuf>,
        /// Folder of the LPIPS networks for the loss of [diffusion.estimate] (`syncdiff models pull`)
        #[arg(long, value_name = "DIR")]
        lpips: Option<PathBuf>,
    },
    /// A student that draws in four steps, or one, what its teacher draws in many with guidance
    Student {
        #[command(flatten)]
        run: RunArgs,
        /// Weights folder of the teacher: `model` in the run folder of `train diffusion`, or models/lite
        #[arg(long, value_name = "DIR")]
        teacher: PathBuf,
        /// The autoencoder that the teacher was trained with, where --latents holds latents of it; else the teacher's
        #[arg(long, value_name = "FILE")]
        autoencoder: Option<PathBuf>,
        /// How far picture and sound of each clip are apart: `offsets.tsv` of `train speech`
        #[arg(long, value_name = "FILE")]
        offsets: Option<PathBuf>,
        /// Folder that keeps the latents, for this run and others; each autoencoder and mask has a folder in it
        #[arg(long, value_name = "DIR")]
        latents: PathBuf,
        /// Terms of the resulting weights, written beside them [default: the teacher's]
        #[arg(long, value_name = "TEXT")]
        licence: Option<String>,
        /// Start from these weights instead of the teacher's: the `model.safetensors` of a weights folder
        #[arg(long, value_name = "FILE")]
        init_from: Option<PathBuf>,
        /// Result of `train syncnet` for the sync loss of [diffusion.estimate]; another one must judge
        #[arg(long, value_name = "FILE")]
        syncnet: Option<PathBuf>,
        /// Folder of the LPIPS networks for the loss of [diffusion.estimate] (`syncdiff models pull`)
        #[arg(long, value_name = "DIR")]
        lpips: Option<PathBuf>,
    },
    /// SyncNet of our own: which mouth goes with which sound
    #[command(name = "syncnet")]
    SyncNet {
        #[command(flatten)]
        run: RunArgs,
        /// How far picture and sound of each clip are apart: `offsets.tsv` of `train speech`
        #[arg(long, value_name = "FILE")]
        offsets: Option<PathBuf>,
        /// Start from these weights instead of random ones
        #[arg(long, value_name = "FILE")]
        init_from: Option<PathBuf>,
    },
    /// Lip reader of our own: the six words of a GRID command, for the word error rates of `eval`
    ///
    /// Clips whose transcript is no command are left out.
    Reader {
        #[command(flatten)]
        run: RunArgs,
        /// Start from these weights instead of random ones
        #[arg(long, value_name = "FILE")]
        init_from: Option<PathBuf>,
    },
    /// Wav2Lip at a small width, for comparison on the same data
    #[command(name = "wav2lip")]
    Wav2Lip {
        #[command(flatten)]
        run: RunArgs,
        /// Result of `train syncnet` for the sync loss; another one must judge
        #[arg(long, value_name = "FILE")]
        syncnet: PathBuf,
        /// How far picture and sound of each clip are apart: `offsets.tsv` of `train speech`
        #[arg(long, value_name = "FILE")]
        offsets: Option<PathBuf>,
        /// Start from these weights instead of random ones
        #[arg(long, value_name = "FILE")]
        init_from: Option<PathBuf>,
    },
}

/// What every stage is given.
#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// Configuration of the stage (see configs/)
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Folder made by `syncdiff prepare`
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Run folder: checkpoints, log, result
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Number of steps, instead of the configuration's
    #[arg(long, value_name = "N")]
    steps: Option<u64>,
    /// Only go on from a checkpoint: fail where --out holds none, instead of beginning anew
    #[arg(long, conflicts_with = "dry_run")]
    resume: bool,
    /// Say how large and how long the run would be, and write nothing
    #[arg(long)]
    dry_run: bool,
    /// Where to train: auto, cpu, vulkan:N, cuda:N, metal:N, libtorch[:N]; `doctor` lists what this build has
    #[arg(long, value_name = "DEVICE", default_value = "auto")]
    device: DeviceChoice,
    /// Share every step among so many processes, which this one starts; the weights are those of one process, to the bit
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1024))]
    processes: Option<u64>,
    /// A device for each process, for example cuda:0,cuda:1; fewer devices serve in turn
    #[arg(long, value_name = "DEVICES", value_delimiter = ',', conflicts_with = "device")]
    devices: Vec<DeviceChoice>,
    /// Be only this one of --processes, from 0, and start none: for several machines that share the run folder
    #[arg(long, value_name = "R", requires = "processes")]
    rank: Option<u64>,
    /// Seconds without a sign of life from another process after which the run ends
    #[arg(long, value_name = "SECONDS", default_value_t = 120)]
    patience: u64,
}

impl RunArgs {
    /// How many processes share the run.
    fn processes(&self) -> usize {
        self.processes.map_or(self.devices.len().max(1), |processes| processes as usize)
    }

    fn share(&self) -> Option<Share> {
        let (rank, patience) = (self.rank.unwrap_or(0) as usize, self.patience as f64);
        (self.processes() > 1 || rank > 0).then_some(Share { rank, processes: self.processes(), patience })
    }

    fn device(&self) -> DeviceChoice {
        let rank = self.rank.unwrap_or(0) as usize;
        if self.devices.is_empty() { self.device } else { self.devices[rank % self.devices.len()] }
    }

    /// The other processes: this program with the same arguments and another rank. They end with the returned values.
    fn start_others(&self) -> Outcome<Vec<Companion>> {
        if self.rank.is_some() {
            return Ok(Vec::new());
        }
        let program = std::env::current_exe().map_err(|cause| Error::io("train", Path::new("syncdiff"), cause))?;
        let processes = self.processes();
        let start = |rank: usize| {
            let mut arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
            arguments.extend([OsString::from("--rank"), rank.to_string().into()]);
            if self.processes.is_none() {
                arguments.extend([OsString::from("--processes"), processes.to_string().into()]);
            }
            Ok(Companion::start(&program, arguments)?)
        };
        (1..processes).map(start).collect()
    }
}

pub(crate) fn run(command: &TrainCommand, cancel: &Cancel) -> Outcome<u8> {
    let (args, stage) = match command {
        TrainCommand::Autoencoder { run, .. } => (run, Stage::Autoencoder),
        TrainCommand::Pretrain { run, .. } => (run, Stage::Pretrain),
        TrainCommand::Speech { run, .. } => (run, Stage::Speech),
        TrainCommand::Diffusion { run, .. } => (run, Stage::Diffusion),
        TrainCommand::Student { run, .. } => (run, Stage::Student),
        TrainCommand::SyncNet { run, .. } => (run, Stage::SyncNet),
        TrainCommand::Reader { run, .. } => (run, Stage::Reader),
        TrainCommand::Wav2Lip { run, .. } => (run, Stage::Wav2Lip),
    };
    let text = std::fs::read_to_string(&args.config).map_err(|cause| Error::io("train", &args.config, cause))?;
    let mut config = RunConfig::from_toml(&text)?;
    if let Some(steps) = args.steps {
        config.options.steps = steps;
    }
    let (device, _) = resolve(args.device())?;
    let data = Dataset::open(&args.data, CLIP_CACHE_BYTES)?;
    let started = Instant::now();
    let clock = || started.elapsed().as_secs_f64();
    if args.dry_run {
        say(&planned(&run::plan(stage, &config, &data, &device, &clock)?));
        return Ok(0);
    }
    let share = args.share();
    let _others = args.start_others()?;
    let inputs = RunInputs {
        config: &config,
        data: &data,
        folder: &args.out,
        device: &device,
        clock: &clock,
        share,
        resume: args.resume,
    };
    let mut report = |stats: &Stats| {
        say(&line(stats));
        cancel.check().is_ok()
    };
    let result: PathBuf = match command {
        TrainCommand::Autoencoder { init_from, lpips, .. } => {
            let files = AutoencoderFiles { init_from: init_from.as_deref(), lpips: lpips.as_deref() };
            run::autoencoder(&inputs, &files, &mut report)?
        }
        TrainCommand::Pretrain { clusters_from, offsets, init_from, .. } => {
            let files = PretrainFiles {
                clusters_from: clusters_from.as_deref(),
                offsets: offsets.as_deref(),
                init_from: init_from.as_deref(),
            };
            run::pretrain(&inputs, &files, &mut report)?
        }
        TrainCommand::Speech { moonshine, init_from, .. } => {
            let files = SpeechFiles { moonshine: moonshine.as_deref(), init_from: init_from.as_deref() };
            run::speech(&inputs, &files, &mut report)?
        }
        TrainCommand::Diffusion {
            autoencoder, speech, offsets, latents, licence, init_from, syncnet, lpips, ..
        } => {
            let files = DiffusionFiles {
                autoencoder,
                speech,
                offsets: offsets.as_deref(),
                latents,
                init_from: init_from.as_deref(),
                syncnet: syncnet.as_deref(),
                lpips: lpips.as_deref(),
            };
            run::diffusion(&inputs, &files, licence, &mut report)?
        }
        TrainCommand::Student {
            teacher, autoencoder, offsets, latents, licence, init_from, syncnet, lpips, ..
        } => {
            let files = StudentFiles {
                teacher,
                autoencoder: autoencoder.as_deref(),
                offsets: offsets.as_deref(),
                latents,
                syncnet: syncnet.as_deref(),
                lpips: lpips.as_deref(),
                init_from: init_from.as_deref(),
            };
            run::student(&inputs, &files, licence.as_deref(), &mut report)?
        }
        TrainCommand::SyncNet { offsets, init_from, .. } => {
            let files = SyncNetFiles { offsets: offsets.as_deref(), init_from: init_from.as_deref() };
            run::syncnet(&inputs, &files, &mut report)?
        }
        TrainCommand::Reader { init_from, .. } => run::reader(&inputs, init_from.as_deref(), &mut report)?,
        TrainCommand::Wav2Lip { syncnet, offsets, init_from, .. } => {
            let files = Wav2LipFiles { syncnet, offsets: offsets.as_deref(), init_from: init_from.as_deref() };
            run::wav2lip(&inputs, &files, &mut report)?
        }
    };
    match share {
        Some(Share { rank: rank @ 1.., .. }) => {
            say(&format!("rank {rank} is done; rank 0 writes {}", result.display()))
        }
        _ => say(&format!("wrote {}", result.display())),
    }
    Ok(0)
}

/// What `--dry-run` says.
fn planned(plan: &RunPlan) -> String {
    let RunPlan { clips, frames, parameters, state_bytes, macs_per_step, steps, seconds } = *plan;
    format!(
        "data: {clips} clips, {frames} frames with a face\n\
         parameters: {}\n\
         memory: {:.0} MB for weights, gradient, two moments and moving average; activations come on top\n\
         cost: {} multiply-accumulates a step, {steps} steps\n\
         time: about {:.2} hours, if all went as fast as convolutions do on this device now",
        short(parameters),
        state_bytes as f64 / 1e6,
        short(macs_per_step),
        seconds / 3600.0
    )
}

/// A line of the log for people.
pub(super) fn line(stats: &Stats) -> String {
    let figures =
        |parts: &[(&str, f32)]| parts.iter().map(|(name, value)| format!(" {name} {value:.4}")).collect::<String>();
    let left = stats.seconds / stats.step.max(1) as f64 * stats.steps.saturating_sub(stats.step) as f64;
    let mut text = format!(
        "step {}/{} loss {:.5} gradient {:.3} rate {:.2e} {:.0} s, {left:.0} s left{}",
        stats.step,
        stats.steps,
        stats.loss,
        stats.gradient_norm,
        stats.rate,
        stats.seconds,
        figures(&stats.parts)
    );
    if !stats.valid.is_empty() {
        text.push_str(&format!(" | valid{}", figures(&stats.valid)));
    }
    if let Some(step) = stats.best {
        text.push_str(&format!(" | best at {step}"));
    }
    text
}
