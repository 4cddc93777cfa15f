//! `generate --cache-dir`: the same result with less work, and no harm from what lies in the folder.

mod common;

use std::path::{Path, PathBuf};

use common::{Stage, assert_done, assert_failed, face_clip, ffmpeg, names_in, text, tone};
use serde_json::Value;
use syncdiff_media::{Frame, read_png};

/// What a run with these arguments made, and its report.
fn run(stage: &Stage, args: &[&str]) -> (Vec<Frame>, Value) {
    let (out, report, folder) = (stage.path("out.mp4"), stage.path("report.json"), stage.path("frames"));
    let _ = std::fs::remove_dir_all(&folder);
    let outputs = ["--out", text(&out), "--report", text(&report), "--lossless-frames", text(&folder)];
    assert_done(&stage.generate(&[args, &outputs[..]].concat()));
    let frames = names_in(&folder).iter().map(|name| read_png(&folder.join(name)).expect("a picture")).collect();
    (frames, serde_json::from_slice(&std::fs::read(&report).expect("a report")).expect("JSON"))
}

/// What became of the tracks and of the speech.
fn kept(report: &Value) -> [&str; 2] {
    ["tracks", "speech"].map(|kind| report["cache"][kind].as_str().unwrap_or("none"))
}

fn entry(folder: &Path, kind: &str) -> PathBuf {
    let names = names_in(folder);
    let mut found = names.iter().filter(|name| name.starts_with(kind));
    let name = found.next().expect("an entry");
    assert!(found.next().is_none(), "{names:?}");
    folder.join(name)
}

#[test]
fn the_second_run_gives_the_same_frames_without_tracking() {
    let Some(stage) = Stage::set() else { return };
    let (clip, cache) = (text(&stage.clip), stage.path("deep/cache"));
    let inputs = ["--video", clip, "--audio", clip];
    let cached = [&inputs[..], &["--cache-dir", text(&cache)]].concat();
    let (plain, report) = run(&stage, &inputs);
    assert_eq!((kept(&report), &report["cache"]), (["none", "none"], &Value::Null));

    let (first, report) = run(&stage, &cached);
    assert_eq!(kept(&report), ["stored", "stored"]);
    assert!(report["seconds"]["faces"].as_f64().is_some_and(|secs| secs > 0.0));
    let (second, report) = run(&stage, &cached);
    assert_eq!(kept(&report), ["found", "found"]);
    assert_eq!(report["seconds"]["faces"], 0.0);
    assert!(first == plain && second == plain, "the cache shows in the frames");

    // The name of a file does not count, its content does.
    let copy = stage.path("copy.mp4");
    std::fs::copy(&stage.clip, &copy).unwrap();
    let (third, report) = run(&stage, &["--video", text(&copy), "--audio", clip, "--cache-dir", text(&cache)]);
    assert_eq!(kept(&report), ["found", "found"]);
    assert!(third == plain);
    ffmpeg(&["-i", clip, "-vf", "eq=brightness=0.1", "-c:v", "libx264", "-c:a", "copy", text(&copy)]);
    let (other, report) = run(&stage, &["--video", text(&copy), "--audio", clip, "--cache-dir", text(&cache)]);
    assert_eq!(kept(&report), ["stored", "found"]);
    assert!(other != plain);
    // Neither do other settings of the model change what was heard.
    let (_, report) = run(&stage, &[&cached[..], &["--seed", "3", "--steps", "1"]].concat());
    assert_eq!(kept(&report), ["found", "found"]);
}

#[test]
fn another_speech_gets_the_tracks_that_it_would_have_made() {
    let (Some(stage), Some(source)) = (Stage::set(), face_clip()) else { return };
    let (clip, long, short) = (stage.path("two.mp4"), stage.path("long.wav"), stage.path("short.wav"));
    ffmpeg(&["-i", text(&source), "-t", "2", "-vf", "fps=25", "-c:v", "libx264", "-an", text(&clip)]);
    tone(&long, "1.6");
    tone(&short, "0.3");
    let cache = stage.path("cache");
    let inputs =
        |speech: &Path| ["--video", text(&clip), "--audio", text(speech), "--steps", "1"].map(str::to_owned).to_vec();
    let run = |speech: &Path, cached: bool| {
        let mut args = inputs(speech);
        if cached {
            args.extend(["--cache-dir".to_owned(), text(&cache).to_owned()]);
        }
        run(&stage, &args.iter().map(String::as_str).collect::<Vec<_>>())
    };
    let plain = [run(&short, false).0, run(&long, false).0];
    // The short speech needs to see 1.3 of 2 seconds, which is not enough for the long one.
    let (frames, report) = run(&short, true);
    assert_eq!(kept(&report), ["stored", "stored"]);
    assert!(frames == plain[0]);
    let (frames, report) = run(&long, true);
    assert_eq!(kept(&report), ["stored", "stored"]);
    assert!(frames == plain[1]);
    let (frames, report) = run(&short, true);
    assert_eq!(kept(&report), ["found", "found"]);
    assert!(frames == plain[0]);
}

#[test]
fn a_damaged_entry_is_harmless_and_mended() {
    let Some(stage) = Stage::set() else { return };
    let (clip, cache) = (text(&stage.clip), stage.path("cache"));
    let cached = ["--video", clip, "--audio", clip, "--steps", "1", "--cache-dir", text(&cache)];
    let (plain, _) = run(&stage, &cached);
    let paths = ["tracks", "speech"].map(|kind| entry(&cache, kind));
    let whole = paths.each_ref().map(|path| std::fs::read(path).unwrap());
    for damage in [0, 1, 2] {
        for (path, bytes) in paths.iter().zip(&whole) {
            let mut bytes = bytes.clone();
            match damage {
                0 => bytes.clear(),
                1 => bytes.truncate(bytes.len() - 7),
                _ => bytes.iter_mut().skip(60).for_each(|byte| *byte = !*byte),
            }
            std::fs::write(path, bytes).unwrap();
        }
        let (frames, report) = run(&stage, &cached);
        assert_eq!(kept(&report), ["stored", "stored"]);
        assert!(frames == plain);
        for (path, bytes) in paths.iter().zip(&whole) {
            assert!(std::fs::read(path).unwrap() == *bytes, "{path:?} was not mended");
        }
    }
}

#[test]
fn the_folder_is_chosen_by_option_or_environment() {
    let Some(stage) = Stage::set() else { return };
    let (clip, cache) = (text(&stage.clip), stage.path("cache"));
    let inputs = ["--video", clip, "--audio", clip, "--preview", "p.png", "--report", "r.json"];
    let report = |args: &[&str]| {
        let mut command = stage.generate_command(&[&inputs[..], args].concat());
        assert_done(&command.env("SYNCDIFF_CACHE", &cache).output().expect("the program starts"));
        serde_json::from_slice::<Value>(&std::fs::read(stage.path("r.json")).unwrap()).unwrap()
    };
    assert_eq!(report(&["--no-cache"])["cache"], Value::Null);
    assert!(!cache.exists());
    assert_eq!(kept(&report(&[])), ["stored", "stored"]);
    assert_eq!(kept(&report(&[])), ["found", "found"]);
    assert_eq!(kept(&report(&["--cache-dir", "other"])), ["stored", "stored"]);
    assert_eq!(names_in(&cache), names_in(&stage.path("other")));

    let both = ["--video", clip, "--audio", clip, "--out", "o.mp4", "--no-cache", "--cache-dir", "other"];
    assert_eq!(stage.generate(&both).status.code(), Some(2));
    let output = stage.generate(&["--video", clip, "--audio", clip, "--out", "o.mp4", "--cache-dir", clip]);
    assert_failed(&output, 7, &["cache", "face.mp4"]);
}
