//! `generate --manifest`: many clips with one engine, one after the other or drawn together.

mod common;

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use common::{Stage, assert_done, assert_failed, bars, face_models, said, syncdiff, text, tone};
use serde_json::{Value, json};
use syncdiff_media::{Frame, FrameReader, ReadOptions, Tools, probe};

/// The pictures of a clip.
fn frames(path: &Path) -> Vec<Frame> {
    let tools = Tools::default();
    let info = probe(&tools, path).expect("a clip");
    let reader = FrameReader::open(&tools, &info, &ReadOptions::default()).expect("a reader");
    reader.map(|frame| frame.expect("a frame").frame).collect()
}

/// Writes a manifest.
fn manifest(stage: &Stage, clips: &[Value]) -> String {
    let path = stage.path("clips.jsonl");
    let lines: Vec<String> = clips.iter().map(Value::to_string).collect();
    fs::write(&path, lines.join("\n")).expect("a manifest");
    text(&path).to_owned()
}

/// Clips drawn as one batch are those that each gets alone, up to the rounding of a sum; what a line says of its clip
/// holds for it alone.
#[test]
fn clips_drawn_together_are_those_drawn_alone() {
    let Some(stage) = Stage::set() else { return };
    let lengths = ["0.5", "0.9", "0.7"];
    let mut lines = Vec::new();
    for (number, secs) in lengths.iter().enumerate() {
        let speech = stage.path(&format!("speech{number}.wav"));
        tone(&speech, secs);
        let (audio, out) = (format!("speech{number}.wav"), format!("out{number}.mp4"));
        lines.push(json!({"video": "face.mp4", "audio": audio, "out": out, "crf": 0}));
        let alone = stage.path(&format!("alone{number}.mp4"));
        assert_done(&stage.generate(&[
            "--video",
            text(&stage.clip),
            "--audio",
            text(&speech),
            "--out",
            text(&alone),
            "--crf",
            "0",
            "--guidance",
            "2",
        ]));
    }
    lines[2]["report"] = json!("report.json");
    let manifest = manifest(&stage, &lines);
    for (jobs, batch) in [("1", "4"), ("3", "6"), ("3", "1")] {
        let arguments = ["--manifest", &manifest, "--jobs", jobs, "--batch", batch, "--guidance", "2"];
        let output = stage.generate(&arguments);
        assert_done(&output);
        assert_eq!(String::from_utf8_lossy(&output.stdout).lines().count(), 3);
        assert!(said(&output).contains("3 of 3 clips made"), "{}", said(&output));
        for number in 0..lengths.len() {
            let [made, alone] = ["out", "alone"].map(|kind| frames(&stage.path(&format!("{kind}{number}.mp4"))));
            assert_eq!(made.len(), alone.len());
            for (made, alone) in made.iter().zip(&alone) {
                // Colours are halved in the file: a rounding may become two or three.
                let apart = made.data.iter().zip(&alone.data).map(|(a, b)| a.abs_diff(*b)).max();
                assert!(apart <= Some(if jobs == "1" { 0 } else { 3 }), "clip {number}, {jobs} at once: {apart:?}");
            }
        }
        let report: Value = serde_json::from_slice(&fs::read(stage.path("report.json")).expect("a report")).unwrap();
        assert_eq!((report["output"]["frames"].as_u64(), report["settings"]["crf"].as_u64()), (Some(18), Some(0)));
        for number in 0..lengths.len() {
            fs::remove_file(stage.path(&format!("out{number}.mp4"))).unwrap();
        }
    }
}

/// A wish to stop keeps what is done, tells it, and has its own exit code.
#[cfg(unix)]
#[test]
fn an_interrupt_keeps_the_clips_that_are_done() {
    let Some(stage) = Stage::set() else { return };
    tone(&stage.path("short.wav"), "0.2");
    tone(&stage.path("long.wav"), "120");
    let line = |audio: &str, out: &str| json!({"video": "face.mp4", "audio": audio, "out": out});
    let clips = [line("short.wav", "a.mp4"), line("long.wav", "b.mp4"), line("short.wav", "c.mp4")];
    let manifest = manifest(&stage, &clips);
    let mut child = stage.generate_command(&["--manifest", &manifest, "--progress", "json"]);
    let mut child = child.stderr(Stdio::piped()).stdout(Stdio::null()).spawn().expect("started");
    let mut told = Vec::new();
    for line in BufReader::new(child.stderr.take().unwrap()).lines() {
        let event: Value = serde_json::from_str(&line.expect("a line")).expect("JSON");
        if event["event"] == "progress" && event["clip"] == 2 && event["stage"] == "generate" {
            let pid = child.id().to_string();
            assert!(Command::new("kill").args(["-INT", &pid]).status().expect("kill").success());
        }
        told.push(event);
    }
    assert_eq!(child.wait().unwrap().code(), Some(8));
    let last = told.last().unwrap();
    assert_eq!((&last["event"], &last["code"], &last["made"]), (&json!("failure"), &json!(8), &json!(1)), "{last}");
    assert_eq!((&last["stopped"], &last["not_begun"]), (&json!(1), &json!(1)), "{last}");
    assert!(last["message"].as_str().is_some_and(|text| text.contains("stopped on request")), "{last}");
    assert_eq!(frames(&stage.path("a.mp4")).len(), 5);
    assert!(!stage.path("b.mp4").exists() && !stage.path("c.mp4").exists());
    assert!(stage.names().iter().all(|name| !name.starts_with('.')), "{:?}", stage.names());
}

/// A clip that cannot be made is told, the others are made, and the exit code is its own.
#[test]
fn a_clip_that_fails_does_not_stop_the_others() {
    let Some(stage) = Stage::set() else { return };
    tone(&stage.path("speech.wav"), "0.4");
    let line = |video: &str, out: &str| json!({"video": video, "audio": "speech.wav", "out": out});
    let clips = [line("face.mp4", "a.mp4"), line("absent.mp4", "b.mp4"), line("face.mp4", "c.mp4")];
    let manifest = manifest(&stage, &clips);
    let events = |arguments: &[&str]| {
        let output = stage.generate(&[&["--manifest", &manifest, "--progress", "json"], arguments].concat());
        let lines = String::from_utf8_lossy(&output.stderr).into_owned();
        let events: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).expect("JSON lines")).collect();
        (output, events)
    };
    let clip = |events: &[Value], number: u64| {
        let found = events.iter().find(|event| event["event"] == "clip" && event["clip"] == number);
        found.map(|event| event["status"].as_str().expect("a status").to_owned())
    };

    let (output, told) = events(&["--fail-fast"]);
    assert_eq!(output.status.code(), Some(3));
    assert_eq!([1, 2, 3].map(|number| clip(&told, number)), [Some("made".into()), Some("failed".into()), None]);
    assert_eq!(told.last().unwrap()["not_begun"], 1);
    assert!(told.iter().any(|event| event["event"] == "progress" && event["clip"] == 1));

    // What is there is not made again: its bytes stay.
    fs::write(stage.path("a.mp4"), "mine").unwrap();
    let (output, told) = events(&["--skip-existing", "--jobs", "2"]);
    assert_eq!(output.status.code(), Some(3));
    assert_eq!([1, 2, 3].map(|number| clip(&told, number).unwrap()), ["skipped", "failed", "made"]);
    let last = told.last().unwrap();
    assert_eq!((&last["event"], &last["code"], &last["made"]), (&json!("failure"), &json!(3), &json!(1)));
    assert_eq!(fs::read(stage.path("a.mp4")).unwrap(), b"mine");
    assert_eq!(frames(&stage.path("c.mp4")).len(), 10);
    assert!(!stage.path("b.mp4").exists());
    assert!(last["message"].as_str().is_some_and(|text| text.contains("1 failed")), "{last}");
    let partial: Vec<String> = stage.names().into_iter().filter(|name| name.starts_with('.')).collect();
    assert!(partial.is_empty(), "{partial:?}");
}

/// The exit code is that of the first in the manifest that failed, whichever was first in time; weights that cannot be
/// read end the run at the first clip.
#[test]
fn the_exit_code_is_that_of_the_first_clip_that_failed() {
    let Some(stage) = Stage::set() else { return };
    tone(&stage.path("speech.wav"), "0.4");
    bars(&stage.path("bars.mp4"), &[]);
    let line = |video: &str, out: &str| json!({"video": video, "audio": "speech.wav", "out": out});
    let clips = [line("bars.mp4", "a.mp4"), line("absent.mp4", "b.mp4"), line("face.mp4", "c.mp4")];
    let output = stage.generate(&["--manifest", &manifest(&stage, &clips), "--jobs", "3"]);
    assert_failed(&output, 4, &["no face", "no such file", "1 of 3 clips made, 2 failed"]);
    assert_eq!(frames(&stage.path("c.mp4")).len(), 10);

    let damaged = stage.path("damaged");
    fs::create_dir(&damaged).unwrap();
    for entry in fs::read_dir(common::tiny_model()).unwrap().flatten() {
        let mut bytes = fs::read(entry.path()).unwrap();
        if entry.path().extension().is_some_and(|ending| ending == "safetensors") {
            let last = bytes.len() - 1;
            bytes[last] ^= 1;
        }
        fs::write(damaged.join(entry.file_name()), bytes).unwrap();
    }
    let clips = [line("face.mp4", "d.mp4"), line("face.mp4", "e.mp4")];
    let face_models = text(&face_models().unwrap()).to_owned();
    let fixed = ["generate", "--weights", text(&damaged), "--face-models", &face_models];
    let output = syncdiff(&[&fixed[..], &["--manifest", &manifest(&stage, &clips)]].concat());
    assert_failed(&output, 5, &["0 of 2 clips made, 1 failed, 1 not begun"]);
}

#[test]
fn a_manifest_that_would_lose_something_is_refused_before_the_work() {
    let Some(stage) = Stage::set() else { return };
    tone(&stage.path("speech.wav"), "0.4");
    let line = |out: &str| json!({"video": "face.mp4", "audio": "speech.wav", "out": out});
    let before = fs::read(&stage.clip).unwrap();
    for (clips, part) in [
        (vec![line("a.mp4"), line("face.mp4")], "face.mp4"),
        (vec![line("a.mp4"), line("./a.mp4")], "two clips"),
        (vec![json!({"video": "face.mp4"})], "line 1"),
    ] {
        let output = stage.generate(&["--manifest", &manifest(&stage, &clips)]);
        assert_failed(&output, 2, &[part]);
        assert!(!stage.path("a.mp4").exists());
    }
    assert_eq!(fs::read(&stage.clip).unwrap(), before);
    let both = ["--manifest", "x.jsonl", "--video", "face.mp4"];
    assert_failed(&stage.generate(&both), 2, &["--manifest"]);
    assert_failed(
        &stage.generate(&["--video", "face.mp4", "--audio", "a.wav", "--out", "b.mp4", "--jobs", "2"]),
        2,
        &["--manifest"],
    );
}
