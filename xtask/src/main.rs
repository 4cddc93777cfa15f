//! Tasks of this project's developers: `cargo xtask TASK`.

mod bench;
mod figures;
mod ours;
mod python;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// The allocator of the program that is shipped.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// An error for the terminal.
type Failure = Box<dyn std::error::Error>;

#[derive(Debug, Parser)]
#[command(about = "Tasks of syncdiff's developers")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Time our networks and PyTorch's with the same weights, by turns, after checking that their outputs are equal
    ///
    /// The Python with PyTorch is SYNCDIFF_TORCH_PYTHON, or one that is set up under the target folder with the
    /// versions of tools/torch/requirements.txt.
    BenchTorch(bench::Options),
    /// Our side of `bench-torch`, driven through its standard input
    #[command(hide = true)]
    BenchOurs {
        /// Folder with the case, weights, inputs and outputs
        folder: PathBuf,
    },
}

fn main() -> ExitCode {
    syncdiff_kernels::keep_pages();
    let done = match Cli::parse().task {
        Task::BenchTorch(options) => bench::run(&options),
        Task::BenchOurs { folder } => ours::run(&folder),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
