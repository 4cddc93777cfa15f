//! `syncdiff models import`: a checkpoint of another project to a folder of weights, or a list of what it holds.

use std::path::Path;

use burn::tensor::Device;
use serde::Serialize;
use syncdiff::progress::Cancel;
use syncdiff::{Error, Outcome};
use syncdiff_checkpoint::{Checkpoint, Format};
use syncdiff_model::weights::import::{Imported, Layout, import, recognise};
use syncdiff_model::weights::{FolderText, WeightsWriter, sha256_of_file};
use syncdiff_model::{ModelError, official};

use crate::cli::ImportArgs;
use crate::terminal::say;

const STAGE: &str = "models import";

pub(crate) fn run(args: &ImportArgs, cancel: &Cancel) -> Outcome<u8> {
    let mut checkpoint = Checkpoint::open(&args.file).map_err(ModelError::from)?;
    let Some(out) = args.out.as_deref().filter(|_| !args.list) else { return list(&mut checkpoint) };
    check_new(out)?;
    let layout = match Layout::by_name(&args.layout) {
        Some(layout) => layout,
        None => only_layout(&mut checkpoint)?,
    };
    let imported = import(checkpoint, layout)?;
    if !args.any_size {
        official::check(&imported, &args.file.display().to_string(), &Device::flex())?;
    }
    cancel.check()?;
    let source = Source { sha256: sha256_of_file(&args.file)?, path: &args.file };
    cancel.check()?;
    write(imported, &source, args, out)
}

/// Refuses a folder that holds anything: a file of it might be the checkpoint itself.
fn check_new(out: &Path) -> Outcome<()> {
    let is_empty = match std::fs::read_dir(out) {
        Ok(mut entries) => entries.next().is_none(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => true,
        Err(error) => return Err(Error::io(STAGE, out, error)),
    };
    if is_empty {
        return Ok(());
    }
    Err(Error::usage(format!("the folder {out:?} is not empty"), "give the name of a new folder to --out"))
}

/// The layout of a file that holds one known network.
fn only_layout(checkpoint: &mut Checkpoint) -> Outcome<&'static Layout> {
    let found = recognise(checkpoint)?;
    let names: Vec<&str> = found.iter().map(|layout| layout.name).collect();
    match found[..] {
        [layout] => Ok(layout),
        [] => Err(Error::Weights {
            stage: STAGE,
            what: format!("{:?} holds no network that is known by its tensors", checkpoint.path()),
            remedy: "see what it holds with --list, and name what it should be with --layout".to_owned(),
        }),
        _ => Err(Error::usage(
            format!("{:?} holds several networks: {}", checkpoint.path(), names.join(", ")),
            "choose one with --layout",
        )),
    }
}

/// Text of a file for a terminal, without what a terminal would obey.
fn plain(text: &str) -> String {
    text.escape_debug().to_string()
}

fn list(checkpoint: &mut Checkpoint) -> Outcome<u8> {
    let tensors = checkpoint.all_tensors();
    let width = tensors.iter().map(|tensor| tensor.name.chars().count()).max().unwrap_or(0).min(100);
    for tensor in &tensors {
        say(&format!("{:<width$}  {:<7} {:?}", plain(&tensor.name), tensor.dtype.name(), tensor.shape));
    }
    let form = match checkpoint.format() {
        Format::TorchZip => "PyTorch, zip form",
        Format::TorchLegacy => "PyTorch, form before 1.6",
        Format::Safetensors => "safetensors",
    };
    say(&format!("\nform: {form}; {} tensors", tensors.len()));
    for root in checkpoint.roots().iter().filter(|root| root.tensors > 9) {
        let path = if root.path.is_empty() { "(top)".to_owned() } else { plain(&root.path) };
        say(&format!("mapping {path}: {} tensors, {} elements", root.tensors, root.elements));
    }
    let foreign: Vec<String> = checkpoint.foreign_classes().iter().map(|name| plain(name)).collect();
    if !foreign.is_empty() {
        say(&format!("classes and functions that it names, none of which was run: {}", foreign.join(", ")));
    }
    let known: Vec<&str> = recognise(checkpoint)?.iter().map(|layout| layout.name).collect();
    say(&format!("layouts: {}", if known.is_empty() { "none known".to_owned() } else { known.join(", ") }));
    Ok(0)
}

/// The checkpoint that the tensors come from.
struct Source<'a> {
    path: &'a Path,
    sha256: String,
}

/// `config.toml` of an imported network.
#[derive(Serialize)]
struct Config<'a> {
    import: ConfigImport<'a>,
}

#[derive(Serialize)]
struct ConfigImport<'a> {
    layout: &'a str,
    source_file: String,
    source_sha256: &'a str,
    root: &'a str,
    prefix: &'a str,
    tensors: usize,
    parameters: u64,
}

fn write(imported: Imported, source: &Source<'_>, args: &ImportArgs, out: &Path) -> Outcome<u8> {
    let Imported { layout, root, prefix, tensors, num_dropped, parameters } = imported;
    let source_file = source.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let num_tensors = tensors.len();
    let config = Config {
        import: ConfigImport {
            layout: layout.name,
            source_file: source_file.clone(),
            source_sha256: &source.sha256,
            root: &root,
            prefix,
            tensors: num_tensors,
            parameters,
        },
    };
    let config_toml = toml::to_string(&config)
        .map_err(|error| Error::Internal { stage: STAGE, detail: format!("configuration: {error}") })?;
    let count = if parameters == layout.parameters {
        format!("{parameters} parameters, as in the official network")
    } else {
        format!("{parameters} parameters; the official network has {}", layout.parameters)
    };
    let card = format!(
        "---\nlicense: other\nlicense_name: {:?}\n---\n\n# {}\n\n{}, from {}.\n\n{count}. Imported from `{}` (SHA-256 \
         {}): {num_tensors} tensors under their original names, {num_dropped} others left behind.\n",
        layout.licence,
        layout.name,
        layout.title,
        layout.project,
        source_file.escape_debug(),
        source.sha256,
    );
    let mut writer = WeightsWriter::new();
    writer.add_tensors(tensors)?;
    let text = FolderText { config_toml: &config_toml, model_card: &card, licence: layout.licence };
    let manifest = writer.save(out, args.storage.into(), text)?;
    for file in &manifest.files {
        say(&format!("{} ({} bytes, SHA-256 {})", out.join(&file.name).display(), file.size_bytes, file.sha256));
    }
    say(&format!("{} from {}: {num_tensors} tensors, {count}", layout.name, layout.project));
    Ok(0)
}
