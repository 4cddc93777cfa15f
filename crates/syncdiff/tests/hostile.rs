//! Inputs that cannot work: each has its exit code, a message with file, stage, cause and remedy, and leaves nothing.

mod common;

use common::{Stage, assert_done, assert_failed, bars, ffmpeg, names_in, syncdiff, text, tiny_model, tone};
use std::path::{Path, PathBuf};
use std::process::Output;
use tempfile::TempDir;

/// A folder with a speech and an existing output that must survive.
struct Trap {
    folder: TempDir,
    speech: PathBuf,
    out: PathBuf,
}

const OLD: &[u8] = b"an older result";

impl Trap {
    fn set() -> Trap {
        let folder = TempDir::new().expect("a folder");
        let (speech, out) = (folder.path().join("speech.wav"), folder.path().join("out.mp4"));
        tone(&speech, "0.5");
        std::fs::write(&out, OLD).expect("written");
        Trap { folder, speech, out }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Runs `generate` on these inputs; whatever happens, the old output must stay and nothing be left beside it.
    fn run(&self, video: &Path, audio: &Path, extra: &[&str]) -> Output {
        let before = names_in(self.folder.path());
        let fixed = ["generate", "--weights", text(tiny_model()), "--out", text(&self.out)];
        let models = common::face_models().unwrap_or_else(|| PathBuf::from("none"));
        let inputs = ["--face-models", text(&models), "--video", text(video), "--audio", text(audio)];
        let output = syncdiff(&[&fixed[..], &inputs, extra].concat());
        assert_eq!(std::fs::read(&self.out).expect("still there"), OLD, "the old output was changed");
        assert_eq!(names_in(self.folder.path()), before, "something was left behind");
        output
    }
}

#[test]
fn files_that_are_no_clips() {
    let trap = Trap::set();
    let (prose, empty) = (trap.path("prose.mp4"), trap.path("empty.mp4"));
    std::fs::write(&prose, "This is not a video.\n".repeat(50)).unwrap();
    std::fs::write(&empty, b"").unwrap();
    assert_failed(&trap.run(&prose, &trap.speech, &[]), 3, &["prose.mp4", "not a media file", "accepted are"]);
    assert_failed(&trap.run(&empty, &trap.speech, &[]), 3, &["empty.mp4", "0 bytes"]);
    assert_failed(&trap.run(&trap.path("none.mp4"), &trap.speech, &[]), 3, &["none.mp4", "no such file"]);
    assert_failed(&trap.run(trap.folder.path(), &trap.speech, &[]), 3, &["not a plain file"]);
    assert_failed(&trap.run(&trap.speech, &trap.speech, &[]), 3, &["speech.wav", "no video"]);
}

#[test]
fn a_clip_cut_off_in_the_middle() {
    let trap = Trap::set();
    let (whole, cut) = (trap.path("whole.mp4"), trap.path("cut.mp4"));
    bars(&whole, &["-c:v", "libx264"]);
    let bytes = std::fs::read(&whole).unwrap();
    std::fs::write(&cut, &bytes[..bytes.len() / 2]).unwrap();
    assert_failed(&trap.run(&cut, &trap.speech, &[]), 3, &["cut.mp4", "truncated", "cut off"]);
}

#[test]
fn speech_that_is_none() {
    let trap = Trap::set();
    let (clip, short) = (trap.path("clip.mp4"), trap.path("short.wav"));
    bars(&clip, &["-c:v", "libx264"]);
    tone(&short, "0.05");
    assert_failed(&trap.run(&clip, &clip, &[]), 3, &["clip.mp4", "no audio track", "give a file with speech"]);
    if common::face_models().is_some() {
        assert_failed(&trap.run(&clip, &short, &[]), 3, &["speech", "short.wav", "50 ms", "at least"]);
    }
}

#[test]
fn a_clip_without_a_face_ends_before_any_network() {
    if common::face_models().is_none() {
        return;
    }
    let trap = Trap::set();
    let clip = trap.path("bars.mp4");
    bars(&clip, &["-c:v", "libx264"]);
    let output = trap.run(&clip, &trap.speech, &["--progress", "json"]);
    assert_failed(&output, 4, &["bars.mp4", "no face", "frames", "\"event\":\"failure\""]);
    assert!(!common::said(&output).contains("\"stage\":\"load\""), "{}", common::said(&output));
}

#[test]
fn arguments_that_cannot_be_served() {
    let trap = Trap::set();
    let clip = trap.path("clip.mp4");
    bars(&clip, &["-c:v", "libx264"]);
    for (extra, parts) in [
        (["--device", "cuda:0"], ["--device cuda:0", "--features cuda"]),
        (["--device", "vulkan:3"], ["--device vulkan:3", "--features vulkan"]),
        (["--device", "toaster"], ["toaster", "cpu"]),
        (["--precision", "half"], ["half", "bf16"]),
        (["--precision", "f16"], ["precision", "on the CPU"]),
        (["--face", "prettiest"], ["prettiest", "largest"]),
        (["--fps", "fast"], ["fast", "--fps 25"]),
        (["--crf", "99"], ["99", "--crf"]),
        (["--steps", "0"], ["0", "--steps"]),
        (["--length", "forever"], ["forever", "bounce"]),
    ] {
        if matches!(extra[0], "--device" | "--precision") && cfg!(any(feature = "cuda", feature = "vulkan")) {
            continue;
        }
        assert_failed(&trap.run(&clip, &trap.speech, &extra), 2, &parts);
    }
    let other = trap.path("out.exe");
    let args = ["--out", text(&other)];
    let fixed = ["generate", "--weights", text(tiny_model()), "--video", text(&clip), "--audio", text(&trap.speech)];
    assert_failed(&syncdiff(&[&fixed[..], &args].concat()), 2, &["exe", "mp4"]);
    assert_failed(&syncdiff(&[&fixed[..], &["--out", text(&clip)]].concat()), 2, &["same file", "another name"]);
}

#[test]
fn outputs_that_cannot_be_written() {
    let trap = Trap::set();
    let clip = trap.path("clip.mp4");
    bars(&clip, &["-c:v", "libx264"]);
    let fixed = ["generate", "--weights", text(tiny_model()), "--video", text(&clip), "--audio", text(&trap.speech)];
    let missing = trap.path("no/such/folder/out.mp4");
    assert_failed(&syncdiff(&[&fixed[..], &["--out", text(&missing)]].concat()), 7, &["no/such/folder", "exists"]);
    assert_failed(&syncdiff(&[&fixed[..], &["--out", "/proc/out.mp4"]].concat()), 7, &["/proc"]);
    let report = trap.path("nowhere/report.json");
    let args = ["--out", text(&trap.out), "--report", text(&report)];
    assert_failed(&syncdiff(&[&fixed[..], &args].concat()), 7, &["nowhere"]);
}

#[test]
fn weights_that_are_missing_or_damaged() {
    let trap = Trap::set();
    let clip = trap.path("clip.mp4");
    bars(&clip, &["-c:v", "libx264"]);
    let inputs = ["generate", "--video", text(&clip), "--audio", text(&trap.speech), "--out", text(&trap.out)];
    let run = |extra: &[&str]| syncdiff(&[&inputs[..], extra].concat());
    assert_failed(&run(&["--preset", "paper"]), 5, &["paper", "no weights of `paper` are public", "lite"]);
    let none = trap.path("none");
    assert_failed(&run(&["--weights", text(&none)]), 5, &["weights.toml", "--weights"]);
    let face = ["--weights", text(tiny_model()), "--face-models", text(&none)];
    assert_failed(&run(&face), 5, &["face", "syncdiff models pull"]);
    let damaged = trap.path("damaged");
    std::fs::create_dir(&damaged).unwrap();
    for name in names_in(tiny_model()) {
        std::fs::copy(tiny_model().join(&name), damaged.join(&name)).unwrap();
    }
    std::fs::write(damaged.join("config.toml"), "colour = 1\n").unwrap();
    let output = run(&["--weights", text(&damaged)]);
    assert_failed(&output, 5, &["config.toml"]);
}

#[test]
fn odd_sizes_deep_colour_alpha_and_strange_names_work() {
    let Some(stage) = Stage::set() else { return };
    let clip = text(&stage.clip);
    for (name, filter, codec) in [
        ("odd.mkv", "crop=iw-1:ih-1:0:0:exact=1", &["-c:v", "libx264", "-pix_fmt", "yuv444p"][..]),
        ("deep.mp4", "null", &["-c:v", "libx264", "-pix_fmt", "yuv420p10le"]),
        ("alpha.mov", "format=rgba", &["-c:v", "png"]),
        (" it's a \"clip\" ; $(touch x) .mp4", "null", &["-c:v", "libx264"]),
        ("-vf.mp4", "null", &["-c:v", "libx264"]),
    ] {
        let path = stage.path(name);
        ffmpeg(&[&["-i", clip, "-t", "0.4", "-vf", filter], codec, &["-c:a", "copy", text(&path)]].concat());
        let out = stage.path("result of it.mp4");
        let mut command = stage.generate_command(&["--out", "result of it.mp4"]);
        // Relative, so that the leading dash is the first character of the argument.
        let output = command.args(["--video", name, "--audio", name]).output().expect("the program starts");
        assert_done(&output);
        assert!(out.is_file(), "{name}");
        std::fs::remove_file(&out).unwrap();
    }
    assert!(!stage.path("x").exists(), "a shell has read a file name");
}

#[test]
fn a_full_disk_is_told_and_leaves_nothing() {
    let Some(stage) = Stage::set() else { return };
    let small = TempDir::new().unwrap();
    let mounted = std::process::Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=64k", "tmpfs", text(small.path())])
        .output()
        .is_ok_and(|output| output.status.success());
    if !mounted {
        println!("skipped: no right to mount a small disk");
        return;
    }
    let out = small.path().join("out.mp4");
    let args = ["--video", text(&stage.clip), "--audio", text(&stage.clip), "--out", text(&out), "--crf", "0"];
    let output = stage.generate(&args);
    let left = names_in(small.path());
    let unmounted = std::process::Command::new("umount").arg(small.path()).output();
    assert!(unmounted.is_ok_and(|output| output.status.success()));
    assert_failed(&output, 7, &["out.mp4", "no space left", "free some space"]);
    assert!(left.is_empty(), "{left:?}");
}

/// An ffmpeg that breaks in the middle of the second pass, as decoder or as encoder.
#[cfg(unix)]
#[test]
fn an_ffmpeg_that_dies_half_way_ends_all_stages_and_leaves_nothing() {
    use std::os::unix::fs::PermissionsExt;
    let Some(stage) = Stage::set() else { return };
    let path = std::env::var("PATH").expect("a path");
    for (what, code, said, breaks) in [
        // The first pass decodes whole; the second one gets three frames.
        (
            "*rawvideo*pipe:1",
            3,
            "damaged or truncated",
            "if [ -e \"$0.once\" ]; then ffmpeg \"$@\" | head -c 1000000; exit 1; fi; : > \"$0.once\"",
        ),
        ("*.part", 1, "it broke", "head -c 1000000 > /dev/null; echo 'it broke' >&2; exit 1"),
    ] {
        let bin = TempDir::new().unwrap();
        let script =
            format!("#!/bin/sh\nPATH='{path}'\ncase \"$*\" in\n{what}) {breaks};;\nesac\nexec ffmpeg \"$@\"\n");
        let program = bin.path().join("ffmpeg");
        std::fs::write(&program, script).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        let before = stage.names();
        let clip = text(&stage.clip);
        let mut command = stage.generate_command(&["--video", clip, "--audio", clip, "--out", "out.mp4"]);
        let output = command.env("PATH", format!("{}:{path}", text(bin.path()))).output().expect("the program starts");
        assert_failed(&output, code, &["face.mp4", said]);
        assert_eq!(stage.names(), before, "{what}");
    }
}
