//! The verbs, a file each.

pub(crate) mod bench;
mod doctor;
pub(crate) mod eval;
pub(crate) mod experiment;
mod first_stage;
mod generate;
mod import;
mod models;
mod models_list;
mod package;
pub(crate) mod prepare;
mod scan;
mod sync_judge;
pub(crate) mod train;

use syncdiff::Outcome;
use syncdiff::progress::Cancel;

use crate::cli::Command;

/// Runs a verb; the exit code where it ends well.
pub(crate) fn run(command: Command, cancel: &Cancel) -> Outcome<u8> {
    match command {
        Command::Generate(args) => generate::run(*args, cancel),
        Command::Bench(args) => bench::run(args, cancel),
        Command::Scan(args) => scan::run(&args, cancel),
        Command::Doctor(args) => doctor::run(&args),
        Command::Models(command) => models::run(command, cancel),
        Command::Eval(args) => eval::run(&args, cancel),
        Command::Experiment(args) => experiment::run(&args, cancel),
        Command::Prepare(args) => prepare::run(&args, cancel),
        Command::Train(command) => train::run(&command, cancel),
    }
}
