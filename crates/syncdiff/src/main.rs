//! The command line: arguments in, exit code out. This is the only place that prints, reads the environment or exits.

mod cli;
mod commands;
mod folders;
mod interrupt;
mod system;
mod terminal;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

use clap::Parser;
use syncdiff::Error;

// Tensor code asks for and returns large buffers all the time; the system's allocator gives them back to the kernel
// and pays for every page again. `keep_pages` keeps this one from doing the same.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    syncdiff_kernels::keep_pages();
    let arguments = cli::Cli::parse();
    let progress = arguments.command.progress();
    let cancel = interrupt::listen();
    // A panic is a defect of ours: it is told as such, once, and has its own exit code.
    std::panic::set_hook(Box::new(|_| {}));
    let outcome = catch_unwind(AssertUnwindSafe(|| commands::run(arguments.command, &cancel)));
    let result = outcome.unwrap_or_else(|panic| Err(Error::of_panic("program", &*panic)));
    match result {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            terminal::show_error(&error, progress);
            ExitCode::from(error.exit_code())
        }
    }
}
