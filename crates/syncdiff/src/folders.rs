//! Where models lie: the rules by which a preset or the face models are found; and where the cache is.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use syncdiff::network::read_manifest;
use syncdiff::{Error, Outcome};

/// Environment variable that names the folder of all models.
pub(crate) const MODELS_VARIABLE: &str = "SYNCDIFF_MODELS";

/// Environment variable that names the folder in which tracks and encoded speech are kept.
const CACHE_VARIABLE: &str = "SYNCDIFF_CACHE";

/// Files that a Python package carries; the name of their folder.
pub(crate) const FACE: &str = "face";
/// A configuration has a few KB; more is no configuration.
const MAX_CONFIG_BYTES: u64 = 1 << 20;

/// As [`FACE`].
pub(crate) const LPIPS: &str = "lpips";

/// Where such files are written to when no folder is given.
pub(crate) fn files_home(kind: &str) -> PathBuf {
    match models_variable() {
        Some(folder) => folder.join(kind),
        None => Path::new(".cache").join("models").join(kind),
    }
}

/// The folder of such files: the first place that has one, else the place where they would be written.
pub(crate) fn files_folder(kind: &str) -> PathBuf {
    let mut places: Vec<PathBuf> = models_variable().into_iter().map(|folder| folder.join(kind)).collect();
    places.push(Path::new(".cache").join("models").join(kind));
    places.extend(beside_program().iter().map(|folder| folder.join(".cache").join("models").join(kind)));
    places.extend(beside_program().iter().map(|folder| folder.join("models").join(kind)));
    places.into_iter().find(|place| place.is_dir()).unwrap_or_else(|| files_home(kind))
}

/// The folder of the face models.
pub(crate) fn face_models() -> PathBuf {
    files_folder(FACE)
}

/// All places where the weights of a preset are looked for, in order.
pub(crate) fn preset_places(preset: &str) -> Vec<PathBuf> {
    let mut places: Vec<PathBuf> = models_variable().into_iter().map(|folder| folder.join(preset)).collect();
    places.push(Path::new("models").join(preset));
    places.extend(beside_program().iter().map(|folder| folder.join("models").join(preset)));
    places
}

/// Whether weights of this preset come with the program; of the others none are public.
pub(crate) fn comes_with_program(preset: &str) -> bool {
    matches!(preset, "lite" | "lite-student")
}

/// The weights folder of a preset, where there is one.
pub(crate) fn find_preset(preset: &str) -> Option<PathBuf> {
    preset_places(preset).into_iter().find(|place| place.join("weights.toml").is_file())
}

/// The weights that were named, else those of the preset.
///
/// # Errors
/// As [`require_preset`].
pub(crate) fn weights(named: Option<&Path>, preset: &str) -> Outcome<PathBuf> {
    named.map_or_else(|| require_preset(preset), |weights| Ok(weights.to_path_buf()))
}

/// The weights folder of a preset.
///
/// # Errors
/// [`Error::Weights`] with the places that were looked at and what to do.
pub(crate) fn require_preset(preset: &str) -> Outcome<PathBuf> {
    find_preset(preset).ok_or_else(|| {
        let places: Vec<String> = preset_places(preset).iter().map(|place| format!("{place:?}")).collect();
        let remedy = match comes_with_program(preset) {
            true => format!(
                "run from the project's folder, set {MODELS_VARIABLE} to the folder that holds `{preset}`, or name the \
                 folder with --weights"
            ),
            false => format!(
                "no weights of `{preset}` are public: train them, then name their folder with --weights; `--preset \
                 lite` comes with the program"
            ),
        };
        Error::Weights {
            stage: "weights",
            what: format!("no weights of the preset `{preset}` were found; looked in {}", places.join(", ")),
            remedy,
        }
    })
}

/// A folder that `syncdiff models import` has written.
#[derive(Debug, Serialize)]
pub(crate) struct ImportedFolder {
    /// Layout of the checkpoint that it comes from.
    pub(crate) layout: String,
    /// The folder.
    pub(crate) folder: PathBuf,
    /// Terms of the weights.
    pub(crate) licence: String,
}

/// What an imported folder says of itself; the rest of its `config.toml` does not matter here.
#[derive(Deserialize)]
struct ImportConfig {
    import: ImportSection,
}

#[derive(Deserialize)]
struct ImportSection {
    layout: String,
}

/// All imported folders directly inside the folders of models, in the order in which those are looked at. Folders of
/// other kinds and damaged ones are passed over.
pub(crate) fn imported() -> Vec<ImportedFolder> {
    let cache = Path::new(".cache").join("models");
    let mut homes: Vec<PathBuf> = models_variable().into_iter().collect();
    homes.extend([PathBuf::from("models"), cache.clone()]);
    homes.extend(beside_program().iter().flat_map(|folder| [folder.join("models"), folder.join(&cache)]));
    let mut seen = BTreeSet::new();
    homes.retain(|home| home.canonicalize().is_ok_and(|home| seen.insert(home)));
    let mut found = Vec::new();
    for home in homes {
        let Ok(entries) = home.read_dir() else { continue };
        let mut folders: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        folders.sort();
        found.extend(folders.into_iter().filter_map(imported_folder));
    }
    found
}

fn imported_folder(folder: PathBuf) -> Option<ImportedFolder> {
    let licence = read_manifest(&folder).ok()?.licence;
    let path = folder.join("config.toml");
    let text = (path.metadata().ok()?.len() < MAX_CONFIG_BYTES).then(|| std::fs::read_to_string(&path).ok())??;
    let config: ImportConfig = toml::from_str(&text).ok()?;
    Some(ImportedFolder { layout: config.import.layout, folder, licence })
}

fn models_variable() -> Option<PathBuf> {
    variable(MODELS_VARIABLE)
}

/// Where tracks and encoded speech are kept when no folder is given; nothing is kept unless somebody asked for it.
pub(crate) fn cache_variable() -> Option<PathBuf> {
    variable(CACHE_VARIABLE)
}

fn variable(name: &str) -> Option<PathBuf> {
    std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from)
}

/// The program's own folder, and the project's folder for a program in `target/release`.
fn beside_program() -> Vec<PathBuf> {
    let Some(folder) = std::env::current_exe().ok().and_then(|exe| exe.parent().map(Path::to_path_buf)) else {
        return Vec::new();
    };
    let project = folder.parent().and_then(Path::parent).map(Path::to_path_buf);
    std::iter::once(folder).chain(project).collect()
}
