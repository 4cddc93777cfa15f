//! The rules of the house, checked over the sources: who may use whom, and who may touch the outside.

mod common;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Which rooms a room may use. Binaries and tests may use anything that their crate lists for development.
const TABLE: [(&str, &[&str]); 10] = [
    ("syncdiff-checkpoint", &[]),
    ("syncdiff-media", &[]),
    ("syncdiff-face", &["syncdiff-media"]),
    ("syncdiff-kernels", &["burn"]),
    ("syncdiff-model", &["syncdiff-checkpoint", "syncdiff-kernels", "burn"]),
    ("syncdiff-data", &["syncdiff-media", "syncdiff-face", "syncdiff-model", "burn"]),
    ("syncdiff-train", &["syncdiff-data", "syncdiff-model", "burn"]),
    ("syncdiff-eval", &["syncdiff-media", "syncdiff-face", "syncdiff-model", "burn"]),
    (
        "syncdiff",
        &[
            "syncdiff-checkpoint",
            "syncdiff-media",
            "syncdiff-face",
            "syncdiff-kernels",
            "syncdiff-model",
            "syncdiff-data",
            "syncdiff-train",
            "syncdiff-eval",
            "burn",
        ],
    ),
    // No room: a tool of the developers, which starts processes and prints.
    ("xtask", &["syncdiff-kernels", "syncdiff-model", "syncdiff-train", "burn"]),
];

#[test]
fn every_room_uses_only_the_rooms_that_it_may() {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--offline", "--format-version", "1"])
        .current_dir(common::root())
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let table: BTreeMap<&str, &[&str]> = TABLE.into_iter().collect();
    let packages = metadata["packages"].as_array().expect("packages");
    assert!(packages.len() >= TABLE.len(), "{} packages", packages.len());
    for package in packages {
        let name = package["name"].as_str().expect("a name");
        let Some(allowed) = table.get(name) else { panic!("{name} is not in the table of rooms") };
        for dependency in package["dependencies"].as_array().expect("dependencies") {
            let used = dependency["name"].as_str().expect("a name");
            let room = used.starts_with("syncdiff") || used == "burn" || used.starts_with("burn-");
            let for_tests = dependency["kind"] == "dev";
            assert!(!room || for_tests || allowed.contains(&used), "{name} must not know {used}");
        }
    }
}

/// The part of a source file before its tests.
fn without_tests(text: &str) -> &str {
    text.split("#[cfg(test)]\nmod ").next().unwrap_or(text)
}

/// All source files of a room's library; files that exist for tests only are left out.
fn sources(room: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![room.join("src")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("a folder").flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") && !is_for_tests(&path) {
                found.push(path);
            }
        }
    }
    found
}

/// Does the parent declare the module under `#[cfg(test)]`?
fn is_for_tests(path: &Path) -> bool {
    let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
    let Some(folder) = path.parent() else { return false };
    ["lib.rs", "mod.rs", "main.rs"].iter().any(|parent| {
        let text = std::fs::read_to_string(folder.join(parent)).unwrap_or_default();
        [format!("#[cfg(test)]\nmod {stem};"), format!("#[cfg(test)]\npub(crate) mod {stem};")]
            .iter()
            .any(|declaration| text.contains(declaration))
    })
}

fn rooms() -> Vec<PathBuf> {
    let entries = std::fs::read_dir(common::root().join("crates")).expect("rooms").flatten();
    entries.map(|entry| entry.path()).filter(|path| path.join("Cargo.toml").is_file()).collect()
}

#[test]
fn only_the_room_of_media_starts_processes() {
    let mut searched = 0;
    for room in rooms().iter().filter(|room| !room.ends_with("syncdiff-media")) {
        for path in sources(room) {
            let text = std::fs::read_to_string(&path).expect("a source");
            searched += 1;
            for word in ["process::Command", "Command::new(", "process::Stdio"] {
                assert!(!text.contains(word), "{} uses {word}", path.display());
            }
        }
    }
    assert!(searched > 20, "only {searched} sources were found");
}

#[test]
fn nothing_below_the_binary_prints_exits_or_reads_the_environment() {
    let binary = ["main.rs", "cli.rs", "folders.rs", "interrupt.rs", "system.rs", "terminal.rs"];
    for room in rooms() {
        for path in sources(&room) {
            let inside = path.strip_prefix(room.join("src")).expect("a source").to_path_buf();
            let of_binary = room.ends_with("syncdiff")
                && (inside.starts_with("commands") || binary.iter().any(|name| inside == Path::new(name)));
            if of_binary {
                continue;
            }
            let text = std::fs::read_to_string(&path).expect("a source");
            for line in without_tests(&text).lines().map(str::trim_start).filter(|line| !line.starts_with("//")) {
                for word in ["println!(", "eprintln!(", "print!(", "dbg!(", "process::exit", "env::var"] {
                    assert!(!line.contains(word), "{}: {line}", path.display());
                }
            }
        }
    }
}
