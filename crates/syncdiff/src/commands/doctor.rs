//! `syncdiff doctor`: everything that a generation needs, checked one by one.

use std::path::{Path, PathBuf};

use serde::Serialize;
use syncdiff::Outcome;
use syncdiff::device;
use syncdiff::network::read_manifest;
use syncdiff_face::MODEL_FILES;
use syncdiff_media::Tools;
use syncdiff_media::process::{Limits, run as run_program};
use syncdiff_model::LipSyncConfig;
use syncdiff_model::weights::WeightsFolder;

use crate::cli::DoctorArgs;
use crate::terminal::say;
use crate::{folders, system};

const GIB: u64 = 1 << 30;

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "UPPERCASE")]
enum Verdict {
    Pass,
    /// Works, but something is missing or slow.
    Warn,
    /// Generation will not work.
    Fail,
}

#[derive(Debug, Serialize)]
struct Check {
    name: String,
    verdict: Verdict,
    detail: String,
    /// What to do; none where all is well.
    #[serde(skip_serializing_if = "Option::is_none")]
    remedy: Option<String>,
}

impl Check {
    fn pass(name: impl Into<String>, detail: impl Into<String>) -> Self {
        Check { name: name.into(), verdict: Verdict::Pass, detail: detail.into(), remedy: None }
    }

    fn warn(name: impl Into<String>, detail: impl Into<String>, remedy: impl Into<String>) -> Self {
        let remedy = Some(remedy.into());
        Check { name: name.into(), verdict: Verdict::Warn, detail: detail.into(), remedy }
    }

    fn fail(name: impl Into<String>, message: &str) -> Self {
        // Messages of all rooms put the remedy behind the last semicolon.
        let (detail, remedy) = match message.rsplit_once("; ") {
            Some((detail, remedy)) => (detail.to_owned(), Some(remedy.to_owned())),
            None => (message.to_owned(), None),
        };
        Check { name: name.into(), verdict: Verdict::Fail, detail, remedy }
    }
}

pub(crate) fn run(args: &DoctorArgs) -> Outcome<u8> {
    let tools = Tools::default();
    let mut checks = vec![Check::pass("syncdiff", syncdiff::VERSION)];
    checks.extend(media_checks(&tools));
    checks.extend(face_model_checks(&folders::face_models()));
    checks.extend(LipSyncConfig::PRESETS.map(preset_check));
    checks.extend(machine_checks());
    let failed = checks.iter().any(|check| check.verdict == Verdict::Fail);
    if args.json {
        let value = serde_json::json!({"ok": !failed, "checks": checks});
        say(&format!("{value:#}"));
    } else {
        for check in &checks {
            let verdict = format!("{:?}", check.verdict).to_uppercase();
            say(&format!("{verdict:<5} {:<38} {}", check.name, check.detail));
            if let Some(remedy) = &check.remedy {
                say(&format!("{:44} {remedy}", ""));
            }
        }
    }
    Ok(u8::from(failed))
}

fn media_checks(tools: &Tools) -> Vec<Check> {
    let versions = match tools.check() {
        Ok(versions) => versions,
        Err(error) => return vec![Check::fail("ffmpeg", &error.to_string())],
    };
    let mut checks = vec![Check::pass("ffmpeg", versions.ffmpeg), Check::pass("ffprobe", versions.ffprobe)];
    let listed = run_program(&tools.ffmpeg, ["-hide_banner", "-encoders"], &Limits::default());
    let text = listed.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    for encoder in ["libx264", "aac"] {
        let there = text.lines().any(|line| line.split_whitespace().nth(1) == Some(encoder));
        checks.push(match there {
            true => Check::pass(format!("encoder {encoder}"), "present"),
            false => Check::fail(
                format!("encoder {encoder}"),
                "this ffmpeg was built without it; install the ffmpeg of your distribution",
            ),
        });
    }
    checks
}

fn face_model_checks(folder: &Path) -> Vec<Check> {
    let check = |file: &syncdiff_face::ModelFile| {
        let name = format!("face model {}", file.name.trim_end_matches(".tflite").trim_start_matches("face_"));
        match file.verify(folder) {
            Ok(()) => Check::pass(name, format!("{} SHA-256 {}", folder.join(file.name).display(), &file.sha256[..12])),
            Err(error) => Check::fail(name, &error.to_string()),
        }
    };
    MODEL_FILES.iter().map(check).collect()
}

fn preset_check(preset: &str) -> Check {
    let name = format!("weights {preset}");
    let Some(folder) = folders::find_preset(preset) else {
        let remedy = match folders::comes_with_program(preset) {
            true => format!("run from the project's folder, or set {}", folders::MODELS_VARIABLE),
            false => "no weights of this preset are public; train them, or use lite".to_owned(),
        };
        return Check::warn(name, "not found", remedy);
    };
    let verified = WeightsFolder::open(&folder).map_err(syncdiff::Error::from).and_then(|_| read_manifest(&folder));
    match verified {
        Ok(manifest) => {
            let hash = manifest.files.iter().find(|file| file.name.ends_with(".safetensors"));
            let hash = hash.map_or("?", |file| file.sha256.get(..12).unwrap_or("?"));
            Check::pass(name, format!("{} SHA-256 {hash}, {}", folder.display(), manifest.licence))
        }
        Err(error) => Check::fail(name, &error.to_string()),
    }
}

fn machine_checks() -> Vec<Check> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let mut checks = vec![
        Check::pass("devices", device::compiled().join(" ")),
        Check::pass("threads", threads.to_string()),
        cpu_check(&system::cpu_features()),
    ];
    if let Some((all, free)) = system::memory_bytes() {
        let detail = format!("{:.1} GiB, {:.1} GiB available", gib(all), gib(free));
        checks.push(match free < 2 * GIB {
            true => Check::warn("memory", detail, "close other programs: 2 GiB are needed for `lite`"),
            false => Check::pass("memory", detail),
        });
    }
    for (name, folder) in [("disk here", PathBuf::from(".")), ("disk for temporary", std::env::temp_dir())] {
        if let Some(free) = system::free_disk_bytes(&folder) {
            let detail = format!("{:.1} GiB free", gib(free));
            checks.push(match free < GIB {
                true => Check::warn(name, detail, "free some space before writing long clips"),
                false => Check::pass(name, detail),
            });
        }
    }
    checks
}

fn cpu_check(features: &[(&str, bool)]) -> Check {
    let there: Vec<&str> = features.iter().filter_map(|(name, there)| there.then_some(*name)).collect();
    let detail = format!("{} {}", std::env::consts::ARCH, there.join(" "));
    let slow = features.iter().any(|(name, there)| *name == "avx2" && !there);
    match slow {
        true => Check::warn("processor", detail, "without AVX2 the networks run several times slower"),
        false => Check::pass("processor", detail),
    }
}

fn gib(bytes: u64) -> f64 {
    bytes as f64 / GIB as f64
}
