//! `bench` through the binary: its figures are those of real runs and fit each other.

mod common;

use common::{Stage, assert_done, assert_failed, said, syncdiff, text, tiny_model};
use serde_json::Value;

const PHASES: [&str; 10] =
    ["decode", "detect", "load", "audio", "align", "condition", "denoise", "autoencoder", "paste", "encode"];

/// Least, median and most of some figure, which must be in order.
fn spread(value: &Value) -> [f64; 3] {
    let [min, median, max] = ["min", "median", "max"].map(|name| value[name].as_f64().expect(name));
    assert!(min <= median && median <= max, "{value}");
    [min, median, max]
}

#[test]
fn the_built_in_clip_is_measured_anywhere() {
    let Some(stage) = Stage::set() else { return };
    let mut command = stage.command("bench", &["--runs", "2", "--json", "--steps", "1"]);
    let output = command.output().expect("it starts");
    assert_done(&output);
    assert!(said(&output).contains("run 2 of 2"), "{}", said(&output));
    let value: Value = serde_json::from_slice(&output.stdout).expect("JSON");

    let clip = &value["clip"];
    assert_eq!(
        (&clip["video"], &clip["width"], &clip["output_frames"]),
        (&"built-in".into(), &512.into(), &119.into())
    );
    assert_eq!(
        (&value["runs"], &value["model"]["name"], &value["model"]["steps"]),
        (&2.into(), &"tiny".into(), &1.into())
    );
    assert_eq!(value["version"], env!("CARGO_PKG_VERSION"));
    if let Some(commit) = value["commit"].as_str() {
        let hash = commit.strip_suffix("+changes").unwrap_or(commit);
        assert!(hash.len() >= 7 && hash.chars().all(|c| c.is_ascii_hexdigit()), "{commit}");
    }
    assert!(value["machine"]["threads"].as_u64().is_some_and(|threads| threads > 0));

    let ([min, total, max], [slowest, _, fastest]) = (spread(&value["seconds"]), spread(&value["frames_per_second"]));
    assert!((slowest - 119.0 / max).abs() < 1e-6 && (fastest - 119.0 / min).abs() < 1e-6, "{value:#}");
    let phases = value["phases"].as_array().expect("phases");
    assert_eq!(phases.iter().map(|phase| phase["phase"].as_str().unwrap_or("?")).collect::<Vec<_>>(), PHASES);
    let mut sum = 0.0;
    for phase in phases {
        let [least, median, _] = spread(&phase["seconds"]);
        assert!(least > 0.0, "{phase}");
        let ms = phase["ms_per_frame"].as_f64().expect("milliseconds");
        assert!((ms - median / 119.0 * 1e3).abs() < 1e-6, "{phase}");
        sum += median;
    }
    // What no phase counts (starting ffmpeg, reading the face models) is little.
    assert!(sum > 0.6 * total, "{sum} s of {total} s are told by phase: {value:#}");
    let peak = value["peak_memory_bytes"].as_u64();
    assert!(peak.is_none_or(|bytes| bytes > 10 << 20), "{peak:?}");
    assert_eq!(stage.names(), ["face.mp4"], "nothing is left behind");
}

#[test]
fn an_own_clip_is_measured_in_a_table() {
    let Some(stage) = Stage::set() else { return };
    let clip = text(&stage.clip);
    let output =
        stage.command("bench", &["--video", clip, "--audio", clip, "--runs", "1", "--progress", "none"]).output();
    let output = output.expect("it starts");
    assert_done(&output);
    assert_eq!(said(&output), "");
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    for word in PHASES.into_iter().chain(["face.mp4", "end to end", "frames a second", "commit", "tiny on cpu"]) {
        assert!(told.contains(word), "{word}: {told}");
    }
}

#[test]
fn what_cannot_be_measured_is_refused() {
    assert_eq!(syncdiff(&["bench", "--video", "a.mp4"]).status.code(), Some(2));
    assert_eq!(syncdiff(&["bench", "--runs", "0"]).status.code(), Some(2));
    let weights = text(tiny_model());
    let missing = ["bench", "--weights", weights, "--face-models", "/nowhere", "--runs", "1"];
    assert_failed(&syncdiff(&missing), 5, &["/nowhere", "models pull"]);
}
