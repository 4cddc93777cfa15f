//! `syncdiff models list|pull|verify`; `import` has its own file.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use burn::tensor::Device;
use serde::Serialize;
use syncdiff::files::write_whole;
use syncdiff::network::read_manifest;
use syncdiff::progress::Cancel;
use syncdiff::{Error, Outcome};
use syncdiff_face::{MODEL_FILES, WHEEL, WHEEL_VERSION};
use syncdiff_media::MediaError;
use syncdiff_media::process::{Limits, run as run_program};
use syncdiff_model::weights::WeightsFolder;
use syncdiff_model::{LipSync, LipSyncConfig};

use crate::cli::ModelsCommand;
use crate::folders;
use crate::terminal::say;

const STAGE: &str = "models pull";
/// What a user without a network can do.
const BY_HAND: &str = "check the network, or fetch the wheel on another machine with `pip download mediapipe==0.10.14 \
                       --no-deps --only-binary=:all: --python-version 3.11 --implementation cp --platform \
                       manylinux_2_17_x86_64` and run `syncdiff models pull --wheel FILE`";

pub(crate) fn run(command: ModelsCommand, cancel: &Cancel) -> Outcome<u8> {
    match command {
        ModelsCommand::List { json } => list(json),
        ModelsCommand::Pull { dir, wheel, python } => {
            let folder = dir.unwrap_or_else(folders::face_models_home);
            pull(&folder, wheel.as_deref(), &python, cancel)
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
struct ListedFaceModel {
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
    let folder = folders::face_models();
    let face_models = MODEL_FILES.map(|file| ListedFaceModel {
        name: file.name,
        size_bytes: file.size,
        sha256: file.sha256,
        present: folder.join(file.name).is_file(),
        licence: "Apache-2.0",
    });
    if json {
        let value = serde_json::json!({
            "presets": presets, "face_models": face_models, "face_models_folder": folder.to_string_lossy(),
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
    say(&format!("\nface models in {} (from {WHEEL} {WHEEL_VERSION}, Apache-2.0)", folder.display()));
    for file in &face_models {
        let there = if file.present { "present" } else { "missing: run `syncdiff models pull`" };
        say(&format!("{:<42} {:>9} bytes  {there}", file.name, file.size_bytes));
    }
    Ok(0)
}

/// Fetches the face models; does nothing where they are whole already.
fn pull(folder: &Path, wheel: Option<&Path>, python: &Path, cancel: &Cancel) -> Outcome<u8> {
    if MODEL_FILES.iter().all(|file| file.verify(folder).is_ok()) {
        say(&format!("the face models in {} are whole", folder.display()));
        return Ok(0);
    }
    std::fs::create_dir_all(folder).map_err(|cause| Error::io(STAGE, folder, cause))?;
    let scratch = tempfile::tempdir().map_err(|cause| Error::io(STAGE, &std::env::temp_dir(), cause))?;
    let wheel = match wheel {
        Some(wheel) => wheel.to_path_buf(),
        None => download(python, scratch.path())?,
    };
    cancel.check()?;
    // All are read and checked before the first is written.
    let models = read_members(&wheel)?;
    for (file, bytes) in MODEL_FILES.iter().zip(&models) {
        file.verify_bytes(&wheel.join(file.wheel_member), bytes)?;
    }
    for (file, bytes) in MODEL_FILES.iter().zip(&models) {
        write_whole(STAGE, &folder.join(file.name), bytes)?;
        say(&format!("{} ({} bytes, SHA-256 {})", folder.join(file.name).display(), file.size, file.sha256));
    }
    Ok(0)
}

/// Downloads the wheel with pip, whatever machine this is: its models are the same on all.
fn download(python: &Path, scratch: &Path) -> Outcome<PathBuf> {
    say(&format!("fetching {WHEEL} {WHEEL_VERSION} with pip (about 35 MB)"));
    let failed = |what: String| Error::Weights { stage: STAGE, what, remedy: BY_HAND.to_owned() };
    let package = format!("{WHEEL}=={WHEEL_VERSION}");
    let words = ["-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--python-version", "3.11"];
    let target = ["--implementation", "cp", "--platform", "manylinux_2_17_x86_64", "--disable-pip-version-check"];
    let mut args: Vec<std::ffi::OsString> = words.iter().chain(&target).map(Into::into).collect();
    args.extend(["--progress-bar=off".into(), "--dest".into(), scratch.into(), package.into()]);
    let limits = Limits { wall: Duration::from_secs(900), idle: Duration::from_secs(300), ..Limits::default() };
    let output = run_program(python, &args, &limits).map_err(|error| match error {
        MediaError::ToolMissing { program } => Error::Weights {
            stage: STAGE,
            what: format!("the program {program:?} was not found, and pip runs in it"),
            remedy:
                "install Python 3 with pip (Debian or Ubuntu: `sudo apt-get install python3 python3-pip`), name it \
                     with --python, or give the wheel with --wheel FILE"
                    .to_owned(),
        },
        other => failed(format!("pip: {other}")),
    })?;
    if !output.success {
        let line = output.stderr.lines().rev().find(|line| line.contains("ERROR") || line.contains("No module"));
        return Err(failed(format!("pip failed: {}", line.unwrap_or(output.stderr.trim()))));
    }
    let entries = std::fs::read_dir(scratch).map_err(|cause| Error::io(STAGE, scratch, cause))?;
    let wheel = entries.flatten().map(|entry| entry.path()).find(|path| path.extension().is_some_and(|e| e == "whl"));
    wheel.ok_or_else(|| failed("pip left no wheel".to_owned()))
}

/// The named members of a wheel, in the order of [`MODEL_FILES`]. Nothing else of it is unpacked.
fn read_members(wheel: &Path) -> Outcome<Vec<Vec<u8>>> {
    let wrong = |what: String| Error::Weights {
        stage: STAGE,
        what: format!("{wheel:?}: {what}"),
        remedy: format!("give the wheel of {WHEEL} {WHEEL_VERSION}"),
    };
    let file = File::open(wheel).map_err(|cause| Error::io(STAGE, wheel, cause))?;
    let mut archive = zip::ZipArchive::new(file).map_err(|error| wrong(format!("no zip archive: {error}")))?;
    let read = |file: &syncdiff_face::ModelFile| {
        let mut member =
            archive.by_name(file.wheel_member).map_err(|error| wrong(format!("{}: {error}", file.wheel_member)))?;
        let mut bytes = Vec::new();
        // One byte more than expected shows a wrong size without unpacking whatever is there.
        let limit = file.size + 1;
        (&mut member).take(limit).read_to_end(&mut bytes).map_err(|cause| Error::io(STAGE, wheel, cause))?;
        Ok(bytes)
    };
    MODEL_FILES.iter().map(read).collect()
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
    let folder = folders::face_models();
    for file in &MODEL_FILES {
        tell(folder.join(file.name).display().to_string(), file.verify(&folder).map_err(Error::from));
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
