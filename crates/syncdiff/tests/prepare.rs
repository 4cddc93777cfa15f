//! `syncdiff prepare` as a program: drawn clips, a kill in the middle, damage, layouts.

mod common;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::{syncdiff, text};
use tempfile::TempDir;

/// Twelve short drawn clips in shards of about three.
const DRAW: [&str; 12] = [
    "prepare",
    "--synthetic",
    "12",
    "--seconds",
    "1",
    "--crop-size",
    "48",
    "--voice",
    "tones",
    "--shard-size",
    "1",
    "--out",
];

/// All files of a folder with their bytes, but for the figures of the run, which hold its time.
fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut open = vec![folder.to_path_buf()];
    while let Some(next) = open.pop() {
        for entry in std::fs::read_dir(next).expect("a folder").flatten() {
            let path = entry.path();
            if path.is_dir() {
                open.push(path);
            } else if !path.ends_with("summary.json") {
                let name = path.strip_prefix(folder).expect("inside").display().to_string();
                found.insert(name, std::fs::read(&path).expect("a file"));
            }
        }
    }
    found
}

/// Lines of the journal, once it is there.
fn journal_lines(folder: &Path) -> usize {
    std::fs::read_to_string(folder.join("journal.jsonl")).map_or(0, |text| text.lines().count())
}

#[test]
fn a_run_that_was_killed_resumes_to_the_same_bytes() {
    let folder = TempDir::new().expect("a folder");
    let (whole, parts) = (folder.path().join("whole"), folder.path().join("parts"));
    let done = syncdiff(&[&DRAW[..], &[text(&whole), "--json"]].concat());
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let summary: serde_json::Value = serde_json::from_slice(&done.stdout).expect("one line of JSON");
    assert_eq!((&summary["kept"], &summary["made"]), (&12.into(), &12.into()), "{summary}");
    assert!(summary["clips_a_minute"].as_f64().is_some_and(|rate| rate > 0.0));

    // Killed without warning twice: after some clips, and after some more.
    for lines in [3, 8] {
        let mut child = Command::new(env!("CARGO_BIN_EXE_syncdiff"))
            .args(DRAW)
            .arg(&parts)
            .stdout(Stdio::null())
            .spawn()
            .expect("the program starts");
        let start = Instant::now();
        while journal_lines(&parts) < lines && start.elapsed() < Duration::from_secs(120) {
            std::thread::sleep(Duration::from_millis(1));
        }
        child.kill().expect("it still runs");
        child.wait().expect("it ends");
        assert!(!parts.join("index.json").exists(), "killed before the end");
    }
    let resumed = syncdiff(&[&DRAW[..], &[text(&parts), "--json"]].concat());
    let summary: serde_json::Value = serde_json::from_slice(&resumed.stdout).expect("one line of JSON");
    assert!(summary["resumed"].as_u64() >= Some(6), "{summary}");
    let (whole, parts) = (files(&whole), files(&parts));
    assert_eq!(whole.keys().collect::<Vec<_>>(), parts.keys().collect::<Vec<_>>());
    assert!(whole.keys().filter(|name| name.ends_with(".tar")).count() >= 4, "{:?}", whole.keys());
    assert!(whole.keys().all(|name| !name.ends_with(".safetensors")), "{:?}", whole.keys());
    for (name, bytes) in &whole {
        assert!(bytes == &parts[name], "{name} differs");
    }
}

#[test]
fn damage_is_named_and_packing_anew_needs_whole_clips() {
    let folder = TempDir::new().expect("a folder");
    let (out, again) = (folder.path().join("out"), folder.path().join("again"));
    let draw = ["prepare", "--synthetic", "3", "--seconds", "0.4", "--crop-size", "32", "--voice", "tones", "--out"];
    assert!(syncdiff(&[&draw[..], &[text(&out)]].concat()).status.success());
    assert!(syncdiff(&["prepare", "--verify", "--out", text(&out)]).status.success());
    let packed = syncdiff(&["prepare", "--repack", text(&out), "--shard-size", "0", "--out", text(&again)]);
    assert!(packed.status.success(), "{}", String::from_utf8_lossy(&packed.stderr));
    assert!(again.join("train/synthetic/drawn00/00000.safetensors").is_file());
    assert!(syncdiff(&["prepare", "--verify", "--out", text(&again)]).status.success());

    let shard = out.join("valid-000000.tar");
    let mut bytes = std::fs::read(&shard).expect("a shard");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x10;
    std::fs::write(&shard, bytes).expect("written");
    let verified = syncdiff(&["prepare", "--verify", "--out", text(&out)]);
    let told = String::from_utf8_lossy(&verified.stdout).into_owned();
    assert_eq!(verified.status.code(), Some(3));
    assert!(
        told.contains("damaged: valid/synthetic/drawn01/00001") && told.contains("2 of 3 clips are whole"),
        "{told}"
    );
    let packed = syncdiff(&["prepare", "--repack", text(&out), "--out", text(&folder.path().join("x"))]);
    assert_eq!(packed.status.code(), Some(3));
    assert!(String::from_utf8_lossy(&packed.stderr).contains("valid/synthetic/drawn01/00001"));
}

#[test]
fn layouts_are_recognised_and_every_clip_is_accounted_for() {
    let Some(models) = common::face_models() else { return };
    let folder = TempDir::new().expect("a folder");
    let lrs2 = folder.path().join("lrs2");
    let clip = lrs2.join("main/123/00001.mp4");
    std::fs::create_dir_all(clip.parent().expect("a folder")).expect("made");
    std::fs::write(&clip, "no video").expect("written");
    std::fs::write(clip.with_extension("txt"), "Text:  HELLO THERE\n").expect("written");
    std::fs::write(lrs2.join("train.txt"), "123/00001\n123/00002\n").expect("written");
    let out = folder.path().join("out");
    let args = ["prepare", "--input", text(&lrs2), "--out", text(&out), "--face-models", text(&models)];
    let done = syncdiff(&args);
    let told = String::from_utf8_lossy(&done.stdout).into_owned();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    assert!(told.contains("LRS2 layout, 2 clips: 2 train") && told.contains("val.txt is missing"), "{told}");
    let report = std::fs::read_to_string(out.join("report.tsv")).expect("a report");
    assert_eq!(report.matches("\tunreadable\t").count(), 2, "{report}");
    let summary = std::fs::read_to_string(out.join("summary.json")).expect("figures");
    let summary: serde_json::Value = serde_json::from_str(&summary).expect("JSON");
    assert_eq!(summary["verdicts"]["unreadable"], 2, "{summary}");

    for wrong in [
        &["prepare", "--out", "x"][..],
        &["prepare", "--synthetic", "3", "--input", "a", "--out", "x"],
        &["prepare", "--synthetic", "3", "--seconds", "0.1", "--out", "x"],
        &["prepare", "--input", "a", "--seed", "3", "--out", "x"],
    ] {
        assert_eq!(syncdiff(wrong).status.code(), Some(2), "{wrong:?}");
    }
}

#[test]
fn drawn_clips_train_the_chain_of_a_model() {
    let folder = TempDir::new().expect("a folder");
    let path = |name: &str| folder.path().join(name).display().to_string();
    let data = path("data");
    let draw = ["prepare", "--synthetic", "4", "--seconds", "1", "--voice", "tones", "--out", &data];
    assert!(syncdiff(&draw).status.success());
    let run = |stage: &str, more: &[&str]| {
        let config = common::root().join(format!("configs/lite/{stage}.toml")).display().to_string();
        let fixed = ["train", stage, "--config", &config, "--data", &data, "--steps", "2", "--device", "cpu"];
        let done = syncdiff(&[&fixed[..], &["--out", &path(stage)], more].concat());
        assert!(done.status.success(), "{stage}: {}", String::from_utf8_lossy(&done.stderr));
        let told = String::from_utf8_lossy(&done.stdout).into_owned();
        assert!(told.contains("step 2/2") && told.contains("wrote"), "{stage}: {told}");
    };
    run("autoencoder", &[]);
    let moonshine = common::root().join("models/lite/model.safetensors");
    run("speech", &["--moonshine", text(&moonshine)]);
    let (autoencoder, speech) = (path("autoencoder/autoencoder.safetensors"), path("speech/speech.safetensors"));
    let (offsets, latents) = (path("speech/offsets.tsv"), path("latents"));
    let files = ["--autoencoder", &autoencoder, "--speech", &speech, "--offsets", &offsets, "--latents", &latents];
    run("diffusion", &files);
    let clips = |folder: &str| {
        let speakers = std::fs::read_dir(path(folder)).expect("a folder of latents");
        speakers.flatten().map(|at| std::fs::read_dir(at.path()).expect("a speaker").count()).sum::<usize>()
    };
    let networks = std::fs::read_dir(&latents).expect("latents").map(|entry| entry.expect("readable").file_name());
    let of_pictures: Vec<_> = networks.filter(|name| name != "speech").collect();
    let [of_pictures] = &of_pictures[..] else { panic!("one autoencoder, one folder: {of_pictures:?}") };
    let kept = |part: &str| clips(&format!("latents/{}/{part}", of_pictures.to_string_lossy()));
    assert_eq!((kept("train/synthetic"), kept("copy-1/train/synthetic")), (2, 2));
}
