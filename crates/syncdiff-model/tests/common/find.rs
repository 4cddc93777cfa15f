//! Where golden data lies, which cases there are, what they allow and what of them was read.
//!
//! Standard library and JSON only: the tests of every crate that has golden data include this file. The folder is
//! `SYNCDIFF_GOLDENS`, by default `../shared/goldens` beside the workspace. Where the default is absent a test says so
//! and passes; a folder that is named and absent is a failure.
#![allow(dead_code, missing_docs, unreachable_pub)]

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::Value;

/// Folders below the root in which a case is looked for.
const DEPTH: usize = 8;

/// The folder that a variable names, else the default beside the workspace, where it is there.
pub fn folder(variable: &str, default: &str) -> Option<PathBuf> {
    let default = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(default);
    let named = std::env::var_os(variable).filter(|value| !value.is_empty()).map(PathBuf::from);
    chosen(variable, named, default)
}

/// A folder that is named must be there; the default need not.
pub fn chosen(variable: &str, named: Option<PathBuf>, default: PathBuf) -> Option<PathBuf> {
    if let Some(named) = named {
        let (name, rest) = (named.display(), default.display());
        assert!(named.is_dir(), "{variable} names {name}, which is no folder: correct it, or unset it to use {rest}");
        return Some(named);
    }
    if default.is_dir() {
        return Some(default);
    }
    println!("skipped: {} absent (set {variable})", default.display());
    None
}

/// The folder of one kind of models (`face`, `lpips`), where `syncdiff models pull` puts them.
pub fn models(kind: &str) -> Option<PathBuf> {
    folder("SYNCDIFF_MODELS", ".cache/models").map(|models| models.join(kind)).filter(|folder| {
        let there = folder.is_dir();
        if !there {
            println!("skipped: {} absent; run `syncdiff models pull {kind}`", folder.display());
        }
        there
    })
}

/// The folder and the `case.json` of every golden case, of all kinds; none where the data is absent.
pub fn cases() -> Vec<(PathBuf, Value)> {
    let Some(root) = folder("SYNCDIFF_GOLDENS", "../shared/goldens") else { return Vec::new() };
    let found = cases_in(&root);
    assert!(!found.is_empty(), "{} holds no case.json", root.display());
    found
}

/// Every case below a folder, whatever the folders on the way are called.
pub fn cases_in(root: &Path) -> Vec<(PathBuf, Value)> {
    let mut found = Vec::new();
    let mut folders = vec![(root.to_path_buf(), 0)];
    while let Some((folder, depth)) = folders.pop() {
        let inside = std::fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
        let inside: Vec<PathBuf> = inside.map(|entry| entry.unwrap().path()).filter(|path| path.is_dir()).collect();
        if depth < DEPTH {
            folders.extend(inside.into_iter().map(|path| (path, depth + 1)));
        }
        let file = folder.join("case.json");
        if file.is_file() {
            let text = std::fs::read_to_string(&file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
            let case = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
            found.push((folder, case));
        }
    }
    found.sort_by(|a, b| a.0.cmp(&b.0));
    found
}

/// The kind of a case, as its `case.json` says.
pub fn kind(case: &Value) -> &str {
    case["case"].as_str().expect("case.json names its case")
}

/// The cases of one kind.
pub fn of_kind(cases: Vec<(PathBuf, Value)>, wanted: &str) -> Vec<(PathBuf, Value)> {
    let found: Vec<(PathBuf, Value)> = cases.into_iter().filter(|(_, case)| kind(case) == wanted).collect();
    if found.is_empty() {
        println!("skipped: golden data of {wanted} absent");
    }
    found
}

/// Copies a case, its frames too, to `target`.
pub fn copy_case(folder: &Path, target: &Path) {
    std::fs::create_dir_all(target).unwrap();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let copy = target.join(path.file_name().unwrap());
        if path.is_dir() {
            copy_case(&path, &copy);
        } else {
            std::fs::copy(&path, &copy).unwrap();
        }
    }
}

/// Overwrites the values of one stored tensor of a copy: what compares it must fail.
pub fn damage(folder: &Path, tensor: &str) {
    let path = folder.join("io.safetensors");
    let mut bytes = std::fs::read(&path).unwrap();
    let header_len = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header: Value = serde_json::from_slice(&bytes[8..8 + header_len]).unwrap();
    let offset = |i: usize| 8 + header_len + header[tensor]["data_offsets"][i].as_u64().expect("an offset") as usize;
    bytes[offset(0)..offset(1)].fill(0x47);
    // The copy of a file without the right to write has none either.
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, bytes).unwrap();
}

/// What a case allows: `|actual - expected| <= abs + rel * |expected|`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tolerance {
    pub abs: f64,
    pub rel: f64,
}

impl Tolerance {
    /// What `case.json` says under `tolerance` of `what`.
    pub fn of(case: &Value, what: &str) -> Self {
        Self::read(Self::text(case, what))
    }

    /// The same as it stands there.
    pub fn text<'a>(case: &'a Value, what: &str) -> &'a str {
        let tolerance = &case["tolerance"];
        tolerance[what].as_str().unwrap_or_else(|| panic!("case.json states no tolerance of {what:?}: {tolerance}"))
    }

    /// Reads `abs 5e-5 + rel 1e-4`, `rel 1e-3 of max`, `0.5 px`, `exact to 1e-12`, `exact`.
    pub fn read(text: &str) -> Self {
        let (abs, rel) = (number_after(text, "abs "), number_after(text, "rel "));
        if abs.is_some() || rel.is_some() {
            return Self { abs: abs.unwrap_or(0.0), rel: rel.unwrap_or(0.0) };
        }
        let first = text.split_whitespace().find_map(|word| word.parse().ok());
        assert!(first.is_some() || text.starts_with("exact"), "no tolerance can be read from {text:?}");
        Self { abs: first.unwrap_or(0.0), rel: 0.0 }
    }
}

/// The number that follows `words` in a text.
pub fn number_after(text: &str, words: &str) -> Option<f64> {
    let tail = text.split_once(words)?.1;
    let number = tail.split(|c: char| !(c.is_ascii_digit() || ".e+-".contains(c))).next()?;
    number.parse().ok()
}

/// The number that stands right before `words` in a text.
pub fn number_before(text: &str, words: &str) -> Option<f64> {
    text.split_once(words)?.0.split_whitespace().next_back()?.parse().ok()
}

/// The names of the tensors of a case that were read.
#[derive(Default)]
pub struct Reads(RefCell<BTreeSet<String>>);

impl Reads {
    pub fn note(&self, name: &str) {
        self.0.borrow_mut().insert(name.to_owned());
    }

    /// Every stored tensor was read, but for those of `left`: a name, or the beginning of names and a `*`, with the
    /// reason. What is left and was read all the same is a mistake in the list.
    pub fn assert_all<'a>(&self, case: &Path, stored: impl Iterator<Item = &'a str>, left: &[(&str, &str)]) {
        let read = self.0.borrow();
        for name in stored {
            let fits = |pattern: &str| match pattern.strip_suffix('*') {
                Some(start) => name.starts_with(start),
                None => name == pattern,
            };
            let reason = left.iter().find(|(pattern, _)| fits(pattern));
            match (read.contains(name), reason) {
                (true, None) | (false, Some(_)) => {}
                (false, None) => panic!("{}: nothing reads {name}: compare it, or say why not", case.display()),
                (true, Some((pattern, _))) => panic!("{}: {name} is read, yet left as {pattern}", case.display()),
            }
        }
    }
}
