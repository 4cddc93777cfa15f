//! `syncdiff train`.

use std::path::PathBuf;
use std::time::Instant;

use clap::{Args, Subcommand};
use syncdiff::device::{DeviceChoice, resolve};
use syncdiff::progress::Cancel;
use syncdiff::{Error, Outcome};
use syncdiff_data::Dataset;
use syncdiff_train::Stats;
use syncdiff_train::run::{self, DiffusionFiles, RunConfig, RunInputs};

use crate::terminal::say;

/// Bytes of prepared clips kept in memory.
const CLIP_CACHE_BYTES: usize = 6 << 30;

/// Train a part of the model
///
/// The chain is autoencoder, speech, diffusion. A run folder that holds checkpoints is resumed exactly where it
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
    },
    /// Speech encoder, taught by the lip landmarks
    Speech {
        #[command(flatten)]
        run: RunArgs,
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
        /// Folder that keeps the latents, for this run and others with the same autoencoder
        #[arg(long, value_name = "DIR")]
        latents: PathBuf,
        /// Terms of the resulting weights, written beside them
        #[arg(long, value_name = "TEXT", default_value = "unspecified")]
        licence: String,
        /// Start from these weights instead of random ones: the `model.safetensors` of a weights folder
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
    /// Where to train: auto, cpu, vulkan:N, cuda:N
    #[arg(long, value_name = "DEVICE", default_value = "auto")]
    device: DeviceChoice,
}

pub(crate) fn run(command: &TrainCommand, cancel: &Cancel) -> Outcome<u8> {
    let (TrainCommand::Autoencoder { run: args, .. }
    | TrainCommand::Speech { run: args, .. }
    | TrainCommand::Diffusion { run: args, .. }) = command;
    let text = std::fs::read_to_string(&args.config).map_err(|cause| Error::io("train", &args.config, cause))?;
    let mut config = RunConfig::from_toml(&text)?;
    if let Some(steps) = args.steps {
        config.options.steps = steps;
    }
    let (device, _) = resolve(args.device)?;
    let data = Dataset::open(&args.data, CLIP_CACHE_BYTES)?;
    let started = Instant::now();
    let clock = || started.elapsed().as_secs_f64();
    let inputs = RunInputs { config: &config, data: &data, folder: &args.out, device: &device, clock: &clock };
    let mut report = |stats: &Stats| {
        say(&line(stats));
        cancel.check().is_ok()
    };
    let result: PathBuf = match command {
        TrainCommand::Autoencoder { init_from, .. } => run::autoencoder(&inputs, init_from.as_deref(), &mut report)?,
        TrainCommand::Speech { init_from, .. } => run::speech(&inputs, init_from.as_deref(), &mut report)?,
        TrainCommand::Diffusion { autoencoder, speech, offsets, latents, licence, init_from, .. } => {
            let files = DiffusionFiles {
                autoencoder,
                speech,
                offsets: offsets.as_deref(),
                latents,
                init_from: init_from.as_deref(),
            };
            run::diffusion(&inputs, &files, licence, &mut report)?
        }
    };
    say(&format!("wrote {}", result.display()));
    Ok(0)
}

fn line(stats: &Stats) -> String {
    let figures =
        |parts: &[(&str, f32)]| parts.iter().map(|(name, value)| format!(" {name} {value:.4}")).collect::<String>();
    let mut text = format!(
        "step {}/{} loss {:.5} gradient {:.3} rate {:.2e} {:.0} s{}",
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
    text
}
