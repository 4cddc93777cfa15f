//! `cargo xtask bench-torch`: two processes, one of ours and one of PyTorch, that take turns.
//!
//! PyTorch's side (`tools/torch/bench.py`) makes weights and inputs and stores them with its outputs; ours loads them
//! and says how far its outputs are off. Then both are told by turns to run a round. A process for each row, so that
//! its peak of memory is that of the row.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use clap::Args;
use serde_json::{Value, json};
use syncdiff_kernels::cpu_has_bf16;
use syncdiff_model::audio::ConditioningTokens;
use syncdiff_model::preset::LipSyncConfig;

use crate::Failure;
use crate::figures::{Row, line, median, table};
use crate::python;

/// Largest difference of outputs, as a share of the largest one, with which times may be compared.
const ALLOWED_ERROR: f64 = 1e-3;
/// The same where PyTorch rounds to bf16.
const ALLOWED_BF16_ERROR: f64 = 0.1;
const OURS_IN_F32: &str = "ours in f32: this processor has no bf16";

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Only `lite`, f32 and two threads: under a minute
    #[arg(long)]
    quick: bool,

    /// Print JSON
    #[arg(long)]
    json: bool,

    /// Only these operations
    #[arg(long, value_name = "OP", num_args = 1.., value_parser = OPERATIONS)]
    ops: Vec<String>,

    /// Only these presets; `base` is of width 128
    #[arg(long, value_name = "PRESET", num_args = 1.., value_parser = LipSyncConfig::PRESETS)]
    presets: Vec<String>,

    /// Only these element types
    #[arg(long, value_name = "TYPE", num_args = 1.., value_parser = ["f32", "bf16"])]
    dtypes: Vec<String>,

    /// Numbers of threads [default: 1 and 2]
    #[arg(long, value_name = "N", num_args = 1..)]
    threads: Vec<usize>,

    /// Turns of each side
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
}

const OPERATIONS: [&str; 6] = ["unet_forward", "unet_train_step", "vq_encode", "vq_decode", "attention", "linear"];

/// What is measured: operation, preset, element type.
fn cases(options: &Options) -> Vec<(&'static str, &'static str, &'static str)> {
    let mut cases = Vec::new();
    for op in OPERATIONS {
        for preset in LipSyncConfig::PRESETS {
            // `base` has the paper's autoencoder, the student the networks of `lite`.
            let measured = match op {
                _ if preset == "lite-student" => false,
                "unet_forward" => true,
                "unet_train_step" => preset == "lite",
                _ => preset != "base",
            };
            let wanted = |list: &[String], name| list.is_empty() || list.iter().any(|item| item == name);
            if measured
                && wanted(&options.ops, op)
                && wanted(&options.presets, preset)
                && (!options.quick || preset == "lite")
            {
                if wanted(&options.dtypes, "f32") {
                    cases.push((op, preset, "f32"));
                }
                let network = matches!(op, "unet_forward" | "unet_train_step" | "vq_encode" | "vq_decode");
                if network && wanted(&options.dtypes, "bf16") && !options.quick {
                    cases.push((op, preset, "bf16"));
                }
            }
        }
    }
    cases
}

/// Runs the benchmark and prints its rows.
///
/// # Errors
/// When Python is missing, a side fails, or outputs differ.
pub(crate) fn run(options: &Options) -> Result<(), Failure> {
    let python = python::with_torch()?;
    let threads = match (&options.threads[..], options.quick) {
        ([], true) => vec![2],
        ([], false) => vec![1, 2],
        (given, _) => given.to_vec(),
    };
    let mut rows = Vec::new();
    for threads in threads {
        for (op, preset, dtype) in cases(options) {
            eprintln!("{op}, {preset}, {dtype}, threads: {threads}");
            let row = row(&python, op, preset, dtype, threads, options)?;
            eprint!("{}", line(&row));
            rows.push(row);
        }
    }
    if options.json {
        println!("{}", json!({ "rows": rows }));
    } else {
        print!("{}", table(&rows));
    }
    Ok(())
}

fn row(
    python: &Path,
    op: &'static str,
    preset: &'static str,
    dtype: &'static str,
    threads: usize,
    options: &Options,
) -> Result<Row, Failure> {
    let mut row = Row {
        op,
        preset,
        dtype,
        threads,
        ours_ms: None,
        torch_ms: None,
        ratio: None,
        error: None,
        ours_peak_mb: None,
        torch_peak_mb: None,
        note: (dtype == "bf16" && !cpu_has_bf16()).then_some(OURS_IN_F32),
    };
    let folder = tempfile::tempdir()?;
    std::fs::write(folder.path().join("case.json"), case(op, preset, dtype, threads)?.to_string())?;
    let script = python::root().join("tools/torch/bench.py");
    let mut torch = Side::start(Command::new(python).arg(script).arg(folder.path()), threads)?;
    let this = std::env::current_exe()?;
    let mut ours = Side::start(Command::new(this).arg("bench-ours").arg(folder.path()), threads)?;
    let error = ours.number("error")?;
    if error > if dtype == "f32" { ALLOWED_ERROR } else { ALLOWED_BF16_ERROR } {
        return Err(format!("{op} at {preset}: outputs differ by {error:.1e} of the largest").into());
    }
    row.error = Some(error);
    let (mut our_times, mut torch_times) = (Vec::new(), Vec::new());
    for _ in 0..options.rounds {
        our_times.push(ours.ask("round", "ms")?);
        torch_times.push(torch.ask("round", "ms")?);
    }
    row.ours_ms = Some(median(&our_times));
    row.torch_ms = Some(median(&torch_times));
    row.ratio = Some(median(&our_times) / median(&torch_times));
    row.ours_peak_mb = ours.ask("end", "peak_mb").ok();
    row.torch_peak_mb = torch.ask("end", "peak_mb").ok();
    Ok(row)
}

/// Everything that both sides must know.
fn case(op: &str, preset: &str, dtype: &str, threads: usize) -> Result<Value, Failure> {
    let config = LipSyncConfig::preset(preset).ok_or("an unknown preset")?;
    let tokens = match config.conditioning.tokens {
        ConditioningTokens::Single => 1,
        ConditioningTokens::Window => config.conditioning.window + usize::from(config.conditioning.temporal_filter),
    };
    let batch = if op == "unet_train_step" { 8 } else { 1 };
    Ok(json!({
        "op": op, "dtype": dtype, "threads": threads, "batch": batch, "tokens": tokens,
        "latent_size": config.latent_size(), "crop_size": config.crop_size,
        "unet": config.unet, "autoencoder": config.autoencoder,
    }))
}

/// One of the two processes. It answers each line with a line of JSON, the first when it is ready.
struct Side {
    process: Child,
    requests: ChildStdin,
    answers: BufReader<ChildStdout>,
    ready: Value,
}

impl Side {
    fn start(command: &mut Command, threads: usize) -> Result<Self, Failure> {
        let count = threads.to_string();
        let mut process = command
            .env("RAYON_NUM_THREADS", &count)
            .env("OMP_NUM_THREADS", &count)
            .env("MKL_NUM_THREADS", &count)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let requests = process.stdin.take().ok_or("no pipe to the process")?;
        let answers = BufReader::new(process.stdout.take().ok_or("no pipe from the process")?);
        let mut side = Self { process, requests, answers, ready: Value::Null };
        side.ready = side.answer()?;
        Ok(side)
    }

    fn answer(&mut self) -> Result<Value, Failure> {
        let mut line = String::new();
        if self.answers.read_line(&mut line)? == 0 {
            return Err(format!("a side of the benchmark ended with {}", self.process.wait()?).into());
        }
        Ok(serde_json::from_str(&line)?)
    }

    /// A number of the first answer.
    fn number(&self, key: &str) -> Result<f64, Failure> {
        self.ready[key].as_f64().ok_or_else(|| format!("no {key} in {}", self.ready).into())
    }

    fn ask(&mut self, request: &str, key: &str) -> Result<f64, Failure> {
        writeln!(self.requests, "{request}")?;
        let answer = self.answer()?;
        answer[key].as_f64().ok_or_else(|| format!("no {key} in {answer}").into())
    }
}

impl Drop for Side {
    fn drop(&mut self) {
        // It has ended, or its work is of no use any more.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
