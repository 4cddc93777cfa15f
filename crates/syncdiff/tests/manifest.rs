//! `generate --manifest`: many clips with one engine, one after the other or drawn together.

mod common;

use std::fs;
use std::path::Path;

use common::{Stage, assert_done, assert_failed, said, text, tone};
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
    let partial: Vec<String> = stage.names().into_iter().filter(|name| name.starts_with('.')).collect();
    assert!(partial.is_empty(), "{partial:?}");
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
