//! `syncdiff bench`: how fast this machine lip-syncs, end to end and by phase.
//!
//! What is timed is [`generate`] itself, from the files to the finished file; nothing is left out or warmed up first.

use std::path::{Path, PathBuf};

use clap::Args;
use serde::Serialize;
use serde_json::json;
use syncdiff::device::DeviceChoice;
use syncdiff::network::sampler_names;
use syncdiff::progress::Cancel;
use syncdiff::report::{ModelReport, PhaseSeconds, Report};
use syncdiff::{Engine, Error, GenerateSettings, ModelSettings, Outcome, generate};
use syncdiff_media::{ToolVersions, Tools};
use syncdiff_model::{LipSyncConfig, Precision};
use tempfile::TempDir;

use super::generate::check_memory;
use crate::cli::FeedbackArg;
use crate::terminal::{Display, ProgressKind, event, say};
use crate::{folders, system};

/// The clip that comes with the project, so that figures of different machines are of the same work.
const BUILT_IN: [(&str, &[u8]); 2] = [
    ("face.mp4", include_bytes!("../../../../assets/demo/face.mp4")),
    ("speech.wav", include_bytes!("../../../../assets/demo/speech.wav")),
];

/// Measure how fast this machine lip-syncs: frames a second, seconds by phase, peak memory
///
/// Runs `generate` several times on a clip that comes with the program (512x512, 119 frames, drawn) or on your own, and
/// prints the median and the spread over the runs. Each run is the whole of the work: reading the clip and the weights,
/// finding faces, drawing, encoding. Phases overlap, so that their seconds may add up to more than the total. Close
/// other programs first.
#[derive(Debug, Args)]
pub(crate) struct BenchArgs {
    /// Clip or still picture that shows the face, instead of the built-in one
    #[arg(long, value_name = "FACE", requires = "audio", allow_hyphen_values = true)]
    video: Option<PathBuf>,

    /// File whose sound the mouth follows
    #[arg(long, value_name = "SPEECH", requires = "video", allow_hyphen_values = true)]
    audio: Option<PathBuf>,

    /// How many times the clip is made
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=1000))]
    runs: u16,

    /// Print JSON instead of a table
    #[arg(long)]
    json: bool,

    /// Model
    #[arg(long, value_parser = LipSyncConfig::PRESETS, default_value = "lite", help_heading = "Model")]
    preset: String,

    /// Folder of weights, instead of the preset's
    #[arg(long, value_name = "DIR", allow_hyphen_values = true, help_heading = "Model")]
    weights: Option<PathBuf>,

    /// Folder of the face models, instead of where `models pull` puts them
    #[arg(long, value_name = "DIR", allow_hyphen_values = true, help_heading = "Model")]
    face_models: Option<PathBuf>,

    /// Where the networks run: auto, cpu, vulkan:N, cuda:N, metal:N, libtorch[:N]
    #[arg(long, default_value = "auto", help_heading = "Model")]
    device: DeviceChoice,

    /// Type in which U-Net and autoencoder compute: f32; bf16 also on processors with AMX or AVX512-BF16; f16 and bf16
    /// on a GPU
    #[arg(long, default_value = "f32", help_heading = "Model")]
    precision: Precision,

    /// Sampler: ddim, dpm++2m, euler, heun or lcm [default: the model's own]
    #[arg(long, value_parser = sampler_names(), help_heading = "Model")]
    sampler: Option<String>,

    /// Steps of the sampler [default: the model's own]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=1000), help_heading = "Model")]
    steps: Option<u16>,

    /// Weight of the speech, 1 to 20 [default: the model's own]
    #[arg(long, value_name = "WEIGHT", help_heading = "Model")]
    guidance: Option<f32>,

    /// What a drawn frame hands to the next [default: the model's own]
    #[arg(long, value_enum, help_heading = "Model")]
    feedback: Option<FeedbackArg>,

    /// How progress is shown, on the error stream
    #[arg(long, value_enum, default_value_t = ProgressKind::Auto)]
    pub(crate) progress: ProgressKind,
}

/// Everything that is printed.
#[derive(Debug, Serialize)]
struct Figures {
    version: &'static str,
    /// Commit that the program was built from, where the build knew it.
    commit: Option<&'static str>,
    tools: ToolVersions,
    machine: Machine,
    /// Where the networks ran.
    device: String,
    model: ModelReport,
    clip: Clip,
    runs: usize,
    /// Output frames over the seconds from start to end.
    frames_per_second: Spread,
    /// From start to end.
    seconds: Spread,
    phases: Vec<PhaseFigures>,
    /// The most that this program held over all runs, without its child processes and without the memory of a GPU; none
    /// where the system does not tell.
    peak_memory_bytes: Option<u64>,
}

/// What the figures were measured on.
#[derive(Debug, Serialize)]
struct Machine {
    /// Name of the processor, where the system tells it.
    processor: Option<String>,
    architecture: &'static str,
    /// Threads that this program may use at once.
    threads: usize,
    /// Instruction sets that decide our speed and are there.
    features: Vec<&'static str>,
    memory_bytes: Option<u64>,
    /// How many programs wanted to run at once in the minute before the first run; near 0 on a machine at rest.
    load_average_before: Option<f64>,
}

/// What was made.
#[derive(Debug, Serialize)]
struct Clip {
    /// The video; `built-in` for the clip that comes with the program.
    video: String,
    audio: String,
    width: usize,
    height: usize,
    /// Frames a second.
    rate: String,
    output_frames: usize,
    output_secs: f64,
    /// Crops that the networks drew, on the model's 25 frames a second.
    drawn_frames: usize,
}

/// Over the runs.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
struct Spread {
    median: f64,
    min: f64,
    max: f64,
}

impl Spread {
    /// Of at least one value.
    fn of(values: impl IntoIterator<Item = f64>) -> Self {
        let mut sorted: Vec<f64> = values.into_iter().collect();
        sorted.sort_by(f64::total_cmp);
        let (low, high) = (sorted[(sorted.len() - 1) / 2], sorted[sorted.len() / 2]);
        Spread { median: (low + high) / 2.0, min: sorted[0], max: sorted[sorted.len() - 1] }
    }
}

#[derive(Debug, Serialize)]
struct PhaseFigures {
    phase: &'static str,
    seconds: Spread,
    /// Median by output frame.
    ms_per_frame: f64,
}

/// The phases in the order of the work.
fn phases(seconds: &PhaseSeconds) -> [(&'static str, f64); 10] {
    [
        ("decode", seconds.decode),
        ("detect", seconds.faces),
        ("load", seconds.load),
        ("audio", seconds.audio),
        ("align", seconds.align),
        ("condition", seconds.condition),
        ("denoise", seconds.denoise),
        ("autoencoder", seconds.autoencoder),
        ("paste", seconds.paste),
        ("encode", seconds.encode),
    ]
}

pub(crate) fn run(args: BenchArgs, cancel: &Cancel) -> Outcome<u8> {
    const STAGE: &str = "bench";
    let temporary = std::env::temp_dir();
    let folder = tempfile::Builder::new().prefix("syncdiff-bench-").tempdir_in(&temporary);
    let folder = folder.map_err(|error| Error::io(STAGE, &temporary, error))?;
    let is_built_in = args.video.is_none();
    if is_built_in {
        for (name, bytes) in BUILT_IN {
            let path = folder.path().join(name);
            std::fs::write(&path, bytes).map_err(|error| Error::io(STAGE, &path, error))?;
        }
    }
    let (runs, progress, json) = (usize::from(args.runs), args.progress, args.json);
    let (model, clip) = resolve(args, &folder)?;
    check_memory(&Engine::new(&model)?)?;
    let (tools, machine) = (Tools::default(), machine());
    let mut reports = Vec::with_capacity(runs);
    for number in 1..=runs {
        announce(progress, number, runs);
        let mut display = Display::new(progress);
        // Each run reads its weights again.
        reports.push(generate(&Engine::new(&model)?, &tools, &clip, &mut display.watch(cancel.clone()))?);
    }
    let Some(figures) = figures(&reports, machine, is_built_in) else {
        return Err(Error::Internal { stage: STAGE, detail: "no run was made".into() });
    };
    match json {
        true => say(&format!("{:#}", json!(figures))),
        false => say(table(&figures).trim_end()),
    }
    Ok(0)
}

fn announce(progress: ProgressKind, number: usize, runs: usize) {
    let text = format!("run {number} of {runs}");
    match progress {
        ProgressKind::None => {}
        ProgressKind::Json => event(&json!({"event": "run", "number": number, "runs": runs, "text": text})),
        ProgressKind::Auto | ProgressKind::Bar => eprintln!("{text}"),
    }
}

/// The model and the job. Whatever `generate` would take from the environment to save work is off.
fn resolve(args: BenchArgs, folder: &TempDir) -> Outcome<(ModelSettings, GenerateSettings)> {
    let weights = folders::weights(args.weights.as_deref(), &args.preset)?;
    let built_in = |at: usize| folder.path().join(BUILT_IN[at].0);
    let model = ModelSettings {
        precision: args.precision,
        sampler: args.sampler,
        steps: args.steps.map(usize::from),
        guidance: args.guidance,
        feedback: args.feedback.map(Into::into),
        ..ModelSettings::new(weights, args.face_models.unwrap_or_else(folders::face_models), args.device)
    };
    let video = args.video.unwrap_or_else(|| built_in(0));
    let audio = args.audio.unwrap_or_else(|| built_in(1));
    Ok((model, GenerateSettings::new(video, audio, folder.path().join("out.mp4"))))
}

fn machine() -> Machine {
    Machine {
        processor: system::cpu_name(),
        architecture: std::env::consts::ARCH,
        threads: std::thread::available_parallelism().map_or(1, usize::from),
        features: system::cpu_features().into_iter().filter_map(|(name, there)| there.then_some(name)).collect(),
        memory_bytes: system::memory_bytes().map(|(all, _)| all),
        load_average_before: system::load_average(),
    }
}

/// Sums up the runs of one job; none if there are none.
fn figures(reports: &[Report], machine: Machine, is_built_in: bool) -> Option<Figures> {
    let first = reports.first()?;
    let frames = first.output.frames.max(1) as f64;
    let total = || reports.iter().map(|report| report.seconds.total);
    let row = |(at, (phase, _)): (usize, (&'static str, f64))| {
        let seconds = Spread::of(reports.iter().map(|report| phases(&report.seconds)[at].1));
        PhaseFigures { phase, seconds, ms_per_frame: seconds.median / frames * 1e3 }
    };
    let name = |path: &Path| if is_built_in { "built-in".to_owned() } else { path.display().to_string() };
    Some(Figures {
        version: first.version,
        commit: first.commit,
        tools: first.tools.clone(),
        machine,
        device: first.device.clone(),
        model: first.model.clone(),
        clip: Clip {
            video: name(&first.settings.clip.video),
            audio: name(&first.settings.clip.audio),
            width: first.source.width,
            height: first.source.height,
            rate: first.source.rate.clone(),
            output_frames: first.output.frames,
            output_secs: first.output.secs,
            drawn_frames: first.output.drawn_frames,
        },
        runs: reports.len(),
        frames_per_second: Spread::of(total().map(|secs| frames / secs)),
        seconds: Spread::of(total()),
        phases: phases(&first.seconds).into_iter().enumerate().map(row).collect(),
        peak_memory_bytes: system::peak_memory_bytes(),
    })
}

/// The figures for people.
fn table(figures: &Figures) -> String {
    let Figures { machine, model, clip, frames_per_second: rate, seconds, .. } = figures;
    let gib = |bytes: u64| bytes as f64 / (1u64 << 30) as f64;
    let mut lines = vec![
        format!(
            "program   syncdiff {}, commit {}, ffmpeg {}",
            figures.version,
            figures.commit.unwrap_or("unknown"),
            figures.tools.ffmpeg
        ),
        format!(
            "machine   {}, {}, {} threads, {}{}",
            machine.processor.as_deref().unwrap_or("processor without a name"),
            machine.architecture,
            machine.threads,
            machine.features.join(" "),
            machine.memory_bytes.map(|bytes| format!(", {:.1} GiB", gib(bytes))).unwrap_or_default(),
        ),
        format!(
            "model     {} on {}: {} {} steps, guidance {}, crops of {} pixels",
            model.name, figures.device, model.sampler, model.steps, model.guidance, model.crop_size_px
        ),
        format!(
            "clip      {}, {}x{}, {} frames a second; {} frames ({:.2} s) made, {} runs",
            clip.video, clip.width, clip.height, clip.rate, clip.output_frames, clip.output_secs, figures.runs
        ),
    ];
    if let Some(load) = machine.load_average_before.filter(|load| *load > 0.5 * machine.threads as f64) {
        lines.push(format!("note      other programs kept the machine busy (load {load:.1}): times are pessimistic"));
    }
    lines.push(String::new());
    lines.push(format!("{:<12} {:>9} {:>17} {:>9}", "phase", "s", "least to most", "ms/frame"));
    let row = |name: &str, Spread { median, min, max }: Spread, ms: f64| {
        format!("{name:<12} {median:>9.3} {:>17} {ms:>9.2}", format!("{min:.3} to {max:.3}"))
    };
    lines.extend(figures.phases.iter().map(|phase| row(phase.phase, phase.seconds, phase.ms_per_frame)));
    lines.push(row("end to end", *seconds, seconds.median / clip.output_frames.max(1) as f64 * 1e3));
    lines.push(String::new());
    lines.push(format!("{:.2} frames a second ({:.2} to {:.2})", rate.median, rate.min, rate.max));
    lines.push(match figures.peak_memory_bytes {
        Some(bytes) => format!("{} MiB of memory at the peak, without ffmpeg", bytes >> 20),
        None => "peak memory unknown on this system".to_owned(),
    });
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_lies_in_the_middle() {
        assert_eq!(Spread::of([3.0, 1.0, 2.0]), Spread { median: 2.0, min: 1.0, max: 3.0 });
        assert_eq!(Spread::of([4.0, 1.0, 2.0, 3.0]), Spread { median: 2.5, min: 1.0, max: 4.0 });
        assert_eq!(Spread::of([7.0]), Spread { median: 7.0, min: 7.0, max: 7.0 });
    }
}
