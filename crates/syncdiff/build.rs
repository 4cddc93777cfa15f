//! Tells the program the commit that it is built from, where that is known: benchmarks name it.
//!
//! `SYNCDIFF_COMMIT`, where it is set, is taken as it is: for builders of packages, who have no repository. Otherwise
//! git is asked, and believed only if it knows this very file; sources of the program that differ from the commit are
//! told by `+changes` behind it. Without either the program says that it does not know.

use std::path::Path;
use std::process::Command;

const VARIABLE: &str = "SYNCDIFF_COMMIT";

fn main() {
    println!("cargo:rerun-if-env-changed={VARIABLE}");
    println!("cargo:rerun-if-changed=build.rs");
    let given = std::env::var(VARIABLE).ok().filter(|text| !text.is_empty());
    if let Some(commit) = given.or_else(asked) {
        println!("cargo:rustc-env={VARIABLE}={commit}");
    }
}

fn asked() -> Option<String> {
    // A source archive unpacked inside another repository is not that repository's.
    git(&["ls-files", "--error-unmatch", "build.rs"])?;
    let commit = git(&["rev-parse", "HEAD"])?;
    // Grows with every commit, checkout and reset.
    let log = git(&["rev-parse", "--git-path", "logs/HEAD"])?;
    if Path::new(&log).is_file() {
        println!("cargo:rerun-if-changed={log}");
    }
    let mut sources = vec!["../../Cargo.toml".to_owned(), "../../Cargo.lock".to_owned()];
    let rooms = Path::new("..").read_dir().into_iter().flatten().flatten();
    sources.extend(
        rooms.map(|room| room.path().join("src")).filter(|src| src.is_dir()).map(|src| src.display().to_string()),
    );
    for source in &sources {
        println!("cargo:rerun-if-changed={source}");
    }
    let asked = ["status", "--porcelain", "--"].into_iter().chain(sources.iter().map(String::as_str));
    let changes = git(&asked.collect::<Vec<_>>())?;
    Some(if changes.is_empty() { commit } else { format!("{commit}+changes") })
}

/// What git answers, in the folder of this crate; none where there is no git, no repository, or it refuses.
fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").arg("--no-optional-locks").args(arguments).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
