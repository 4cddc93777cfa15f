//! `generate` and `scan` through the binary on a clip with a face: frames, time, sound, untouched pixels, report.
//!
//! The model is tiny and untrained: what the mouths look like is not looked at here.

mod common;

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use common::{Stage, assert_done, assert_failed, ffmpeg, names_in, said, syncdiff, text, tone};
use serde_json::Value;
use syncdiff_media::{Frame, FrameIndex, FrameReader, ReadOptions, Tools, decode_speech, probe, read_png, scan_index};

/// Reads a report.
fn json(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).expect("a report")).expect("JSON")
}

/// The time stamps of a clip.
fn index(path: &Path) -> FrameIndex {
    let tools = Tools::default();
    let info = probe(&tools, path).expect("a clip");
    scan_index(&tools, &info, &ReadOptions::default()).expect("frames").0
}

/// The pictures of a clip.
fn frames(path: &Path) -> Vec<Frame> {
    let tools = Tools::default();
    let info = probe(&tools, path).expect("a clip");
    let reader = FrameReader::open(&tools, &info, &ReadOptions::default()).expect("a reader");
    reader.map(|frame| frame.expect("a frame").frame).collect()
}

/// The frames that `--lossless-frames` wrote.
fn written(folder: &Path) -> Vec<Frame> {
    names_in(folder).iter().map(|name| read_png(&folder.join(name)).expect("a picture")).collect()
}

/// How many pixels differ, and the rectangle round them (x0, y0, x1, y1).
fn difference(a: &Frame, b: &Frame) -> (usize, [usize; 4]) {
    assert_eq!((a.width, a.height), (b.width, b.height));
    let (mut count, mut area) = (0, [usize::MAX, usize::MAX, 0, 0]);
    for y in 0..a.height {
        for x in 0..a.width {
            if a.pixel(x, y) != b.pixel(x, y) {
                count += 1;
                area = [area[0].min(x), area[1].min(y), area[2].max(x + 1), area[3].max(y + 1)];
            }
        }
    }
    (count, area)
}

#[test]
fn the_output_keeps_frames_rate_and_sound_and_the_report_says_so() {
    let Some(stage) = Stage::set() else { return };
    let (out, report) = (stage.path("out.mp4"), stage.path("report.json"));
    let (clip, frames_folder) = (text(&stage.clip), stage.path("frames"));
    let outputs = ["--out", text(&out), "--report", text(&report), "--lossless-frames", text(&frames_folder)];
    let output = stage.generate(&[&["--video", clip, "--audio", clip, "--length", "video"], &outputs[..]].concat());
    assert_done(&output);
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), text(&out));

    let (source, made) = (index(&stage.clip), index(&out));
    assert_eq!(made.len(), source.len());
    assert_eq!(made.average_rate(), source.average_rate());
    let tools = Tools::default();
    let sound = |path: &Path| decode_speech(&tools, &probe(&tools, path).unwrap()).unwrap().samples;
    assert_eq!(sound(&out), sound(&stage.clip), "the sound was not copied");

    let report = json(&report);
    assert_eq!(report["output"]["frames"], made.len());
    assert_eq!(report["settings"]["length"], "video");
    assert!(report["model"]["weights_sha256"].as_str().is_some_and(|hash| hash.len() == 64));
    assert!(report["peak_memory_bytes"].as_u64().is_some_and(|bytes| bytes > 1 << 20));
    assert!(report["seconds"]["total"].as_f64().is_some_and(|secs| secs > 0.0));
    assert!(report["face"]["gaps"].as_array().is_some_and(Vec::is_empty), "{}", report["face"]);

    // Outside of the mouth region every byte is the source's, and inside something happened.
    let (before, after) = (frames(&stage.clip), written(&frames_folder));
    assert_eq!(before.len(), after.len());
    for (number, (before, after)) in before.iter().zip(&after).enumerate() {
        let (changed, [x0, y0, x1, y1]) = difference(before, after);
        assert!(changed > 50, "frame {number}: only {changed} pixels have changed");
        let part = ((x1 - x0) * (y1 - y0)) as f64 / (before.width * before.height) as f64;
        assert!(part < 0.35, "frame {number}: {part:.2} of the picture lies within the changed rectangle");
    }
}

#[test]
fn lengths_are_as_the_policy_says() {
    let Some(stage) = Stage::set() else { return };
    let (clip, out) = (text(&stage.clip), stage.path("out.mp4"));
    let (long, short) = (stage.path("long.wav"), stage.path("short.wav"));
    tone(&long, "1.5");
    tone(&short, "0.42");
    let source = index(&stage.clip).len();
    for (policy, speech, expected) in [
        ("audio", &long, 38),
        ("loop", &long, 38),
        ("video", &long, source),
        ("cut", &long, source),
        ("audio", &short, 11),
        ("video", &short, source),
    ] {
        let inputs = ["--video", clip, "--audio", text(speech), "--out", text(&out), "--steps", "1"];
        assert_done(&stage.generate(&[&inputs[..], &["--length", policy, "--progress", "none"]].concat()));
        assert_eq!(index(&out).len(), expected, "{policy} with {speech:?}");
    }
}

#[test]
fn frames_without_a_face_pass_through_and_are_reported() {
    let Some(stage) = Stage::set() else { return };
    // Nine frames of the face, then grey ones, then the face again.
    let gap = stage.path("gap.mkv");
    let filter = "drawbox=color=gray:t=fill:enable='between(n,9,15)'";
    let codec = ["-c:v", "ffv1", "-c:a", "copy"];
    ffmpeg(&[&["-i", text(&stage.clip), "-vf", filter], &codec[..], &[text(&gap)]].concat());
    let (out, report, folder) = (stage.path("out.mkv"), stage.path("report.json"), stage.path("frames"));
    let inputs = ["--video", text(&gap), "--audio", text(&gap), "--length", "video", "--out", text(&out)];
    let output =
        stage.generate(&[&inputs[..], &["--report", text(&report), "--lossless-frames", text(&folder)]].concat());
    assert_done(&output);
    let report = json(&report);
    assert_eq!((&report["face"]["gaps"][0]["start"], &report["face"]["gaps"][0]["end"]), (&9.into(), &16.into()));
    let (before, after) = (frames(&gap), written(&folder));
    for number in 9..16 {
        assert_eq!(before[number], after[number], "frame {number} has changed");
    }
    assert_ne!(before[3], after[3]);
    assert_ne!(before[20], after[20]);
}

#[test]
fn other_rates_and_still_pictures_keep_their_own_time() {
    let Some(stage) = Stage::set() else { return };
    let clip = text(&stage.clip);
    for rate in ["30000/1001", "24", "50", "12"] {
        let (source, out) = (stage.path("rate.mp4"), stage.path("rated.mp4"));
        let filter = format!("fps={rate}");
        ffmpeg(&["-i", clip, "-vf", &filter, "-c:v", "libx264", "-c:a", "copy", text(&source)]);
        let inputs = ["--video", text(&source), "--audio", clip, "--length", "video", "--out", text(&out)];
        assert_done(&stage.generate(&inputs));
        let (before, after) = (index(&source), index(&out));
        assert_eq!(after.len(), before.len(), "{rate}");
        let secs = |index: &FrameIndex| -> Vec<i64> {
            let base = index.time_base();
            (0..index.len()).map(|frame| syncdiff_media::Time::new(index.since_start(frame), base).millis()).collect()
        };
        assert_eq!(secs(&after), secs(&before), "{rate}");
    }
    let (still, speech, out) = (stage.path("still.png"), stage.path("s.wav"), stage.path("still.mp4"));
    ffmpeg(&["-i", clip, "-frames:v", "1", text(&still)]);
    tone(&speech, "0.5");
    let inputs = ["--video", text(&still), "--audio", text(&speech), "--out", text(&out), "--fps", "20"];
    assert_done(&stage.generate(&inputs));
    assert_eq!(index(&out).len(), 10);
}

/// The frame of the source that a made frame shows, and the rectangle in which the two differ.
fn shown(source: &[Frame], made: &Frame) -> (usize, [usize; 4]) {
    let compared = source.iter().enumerate().map(|(number, frame)| (difference(frame, made), number));
    let ((_, area), number) = compared.min_by_key(|((count, _), _)| *count).expect("a frame");
    (number, area)
}

#[test]
fn a_short_video_plays_back_and_forth() {
    let Some(stage) = Stage::set() else { return };
    let (clip, long) = (text(&stage.clip), stage.path("long.wav"));
    tone(&long, "1.4");
    let source = frames(&stage.clip);
    let run = |policy: &str| {
        let (out, folder) = (stage.path("out.mp4"), stage.path(policy));
        let inputs = ["--video", clip, "--audio", text(&long), "--out", text(&out), "--steps", "1"];
        assert_done(
            &stage.generate(&[&inputs[..], &["--length", policy, "--lossless-frames", text(&folder)]].concat()),
        );
        written(&folder)
    };
    let (bounce, again) = (run("bounce"), run("loop"));
    assert_eq!((bounce.len(), again.len()), (35, 35));
    let last = source.len() - 1;
    assert_eq!((shown(&source, &bounce[last]).0, shown(&source, &again[last]).0), (last, last));
    // The seventh frame after the end: on the way back it is the seventh before it, from the start on the seventh.
    assert!((last - 7..=last - 6).contains(&shown(&source, &bounce[last + 7]).0));
    assert_eq!(shown(&source, &again[last + 7]).0, 6);
}

#[test]
fn the_mix_is_heard_and_the_speech_is_not() {
    let Some(stage) = Stage::set() else { return };
    let (clip, speech, out) = (text(&stage.clip), stage.path("s.wav"), stage.path("out.mp4"));
    tone(&speech, "1");
    let inputs = ["--video", clip, "--audio", text(&speech), "--length", "video", "--out", text(&out)];
    let tools = Tools::default();
    let sound = |path: &Path| decode_speech(&tools, &probe(&tools, path).unwrap()).unwrap().samples;
    assert_done(&stage.generate(&[&inputs[..], &["--mix", clip, "--steps", "1"]].concat()));
    assert_eq!(sound(&out), sound(&stage.clip), "the sound of the mix was not copied");
    assert_done(&stage.generate(&[&inputs[..], &["--steps", "1"]].concat()));
    assert_ne!(sound(&out), sound(&stage.clip), "without the mix the speech is heard");
}

#[test]
fn every_sampler_generates_and_gives_its_own_picture() {
    let Some(stage) = Stage::set() else { return };
    let models = common::face_models().expect("checked by the stage");
    // Trained weights: of an untrained network, which predicts no noise at all, all samplers make the same.
    let (clip, lite, picture) = (text(&stage.clip), common::root().join("models/lite"), stage.path("frame.png"));
    let mut made: Vec<(&str, Frame)> = Vec::new();
    for sampler in ["ddim", "dpm++2m", "euler", "heun"] {
        let model = ["generate", "--weights", text(&lite), "--face-models", text(&models), "--sampler", sampler];
        let media = ["--video", clip, "--audio", clip, "--steps", "3", "--preview", text(&picture)];
        assert_done(&syncdiff(&[&model[..], &media].concat()));
        let frame = read_png(&picture).expect("a picture");
        for (other, before) in &made {
            assert_ne!(before, &frame, "{sampler} gives what {other} gives");
        }
        made.push((sampler, frame));
    }
}

#[test]
fn what_is_fed_back_can_be_chosen_and_is_reported() {
    let Some(stage) = Stage::set() else { return };
    let models = common::face_models().expect("checked by the stage");
    // Trained weights: an untrained network does not look at what is fed back.
    let (clip, lite, speech) = (text(&stage.clip), common::root().join("models/lite"), stage.path("speech.wav"));
    tone(&speech, "0.16");
    let made = |feedback: &[&str], name: &str| {
        let (out, report, folder) = (stage.path("out.mp4"), stage.path("report.json"), stage.path(name));
        let model = ["generate", "--weights", text(&lite), "--face-models", text(&models), "--steps", "2"];
        let media = ["--video", clip, "--audio", text(&speech), "--out", text(&out)];
        let checks = ["--report", text(&report), "--lossless-frames", text(&folder)];
        assert_done(&syncdiff(&[&model[..], &media, &checks, feedback].concat()));
        (written(&folder), json(&report)["model"]["feedback"].clone())
    };
    let (own, named) = made(&[], "own");
    let (latent, _) = made(&["--feedback", "latent"], "latent");
    let (decoded, renamed) = made(&["--feedback", "decoded"], "decoded");
    assert_eq!((named, renamed), ("latent".into(), "decoded".into()));
    assert!(own.len() == 4 && own == latent, "the model's own way");
    assert_eq!(latent[0], decoded[0], "nothing was fed back yet");
    assert_ne!(latent[1], decoded[1]);
}

#[test]
fn the_chosen_face_speaks_and_no_other() {
    let Some(stage) = Stage::set() else { return };
    let (two, preview) = (stage.path("two.mkv"), stage.path("frame.png"));
    let cut = ["-frames:v", "6", "-filter_complex", "[0:v]split[a][b];[a][b]hstack", "-an", "-c:v", "ffv1"];
    ffmpeg(&[&["-i", text(&stage.clip)], &cut[..], &[text(&two)]].concat());
    let source = frames(&two);
    let (width, height) = (source[0].width, source[0].height);
    // In the right half, where the face of the first frame is looked for from.
    let point = format!("point:0,{},{}", width * 3 / 4, height / 2);
    for (face, halves) in [("left", 0..1), ("right", 1..2), ("center", 0..2), (&point, 1..2)] {
        let args = ["--video", text(&two), "--audio", text(&stage.clip), "--face", face, "--steps", "1"];
        assert_done(&stage.generate(&[&args[..], &["--preview", text(&preview)]].concat()));
        let (_, [x0, _, x1, _]) = shown(&source, &read_png(&preview).expect("a picture"));
        let half = x0 / (width / 2);
        assert!(x0 < x1 && half == (x1 - 1) / (width / 2), "{face}: from {x0} to {x1} of {width} columns");
        assert!(halves.contains(&half), "{face}: the face in half {half} speaks");
    }
}

#[test]
fn the_same_seed_gives_the_same_frames() {
    let Some(stage) = Stage::set() else { return };
    let (clip, speech) = (text(&stage.clip), stage.path("s.wav"));
    tone(&speech, "0.24");
    let run = |name: &str, seed: &str| {
        let (out, folder) = (stage.path("out.mp4"), stage.path(name));
        let inputs = ["--video", clip, "--audio", text(&speech), "--out", text(&out), "--seed", seed];
        assert_done(&stage.generate(&[&inputs[..], &["--lossless-frames", text(&folder)]].concat()));
        written(&folder)
    };
    let first = run("a", "5");
    assert_eq!(first, run("b", "5"));
    assert_ne!(first, run("c", "6"));
    // Neither the number of threads nor their pace shows in the frames.
    for threads in ["1", "5"] {
        let (out, folder) = (stage.path("out.mp4"), stage.path(threads));
        let inputs = ["--video", clip, "--audio", text(&speech), "--out", text(&out), "--seed", "5"];
        let mut command = stage.generate_command(&[&inputs[..], &["--lossless-frames", text(&folder)]].concat());
        assert_done(&command.env("RAYON_NUM_THREADS", threads).output().expect("the program starts"));
        assert_eq!(written(&folder), first, "{threads} threads");
    }
}

#[test]
fn silence_keeps_the_original_mouth() {
    let Some(stage) = Stage::set() else { return };
    let (clip, quiet, folder) = (text(&stage.clip), stage.path("quiet.wav"), stage.path("frames"));
    let source = "sine=frequency=220:duration=0.3:sample_rate=16000,apad=whole_dur=1";
    ffmpeg(&["-f", "lavfi", "-i", source, text(&quiet)]);
    let out = stage.path("out.mp4");
    let inputs = ["--video", clip, "--audio", text(&quiet), "--out", text(&out), "--silence", "keep"];
    assert_done(&stage.generate(&[&inputs[..], &["--lossless-frames", text(&folder)]].concat()));
    let (before, after) = (frames(&stage.clip), written(&folder));
    assert_ne!(before[4], after[4]);
    for number in 15..25 {
        assert_eq!(before[number], after[number], "frame {number} has changed in silence");
    }
}

#[test]
fn preview_configuration_and_json_progress() {
    let Some(stage) = Stage::set() else { return };
    let (clip, preview) = (text(&stage.clip), stage.path("frame.png"));
    assert_done(&stage.generate(&["--video", clip, "--audio", clip, "--preview", text(&preview)]));
    assert_eq!(read_png(&preview).expect("a picture").width, frames(&stage.clip)[0].width);

    let output = stage.generate(&["--video", clip, "--audio", clip, "--print-config", "--steps", "3"]);
    assert_done(&output);
    let config: toml::Table = String::from_utf8_lossy(&output.stdout).parse().expect("TOML");
    assert_eq!((config["steps"].as_integer(), config["sampler"].as_str()), (Some(3), Some("ddim")));

    let out = stage.path("out.mp4");
    let output =
        stage.generate(&["--video", clip, "--audio", clip, "--out", text(&out), "--progress", "json", "--steps", "1"]);
    assert_done(&output);
    let events: Vec<Value> =
        said(&output).lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect();
    let kind = |event: &Value| event["event"].as_str().map(str::to_owned);
    assert_eq!(kind(&events[0]).as_deref(), Some("start"));
    assert_eq!(kind(&events[events.len() - 1]).as_deref(), Some("success"));
    let stages: Vec<&str> = events.iter().filter_map(|event| event["stage"].as_str()).collect();
    assert!(["track", "load", "speech", "generate"].iter().all(|stage| stages.contains(stage)), "{stages:?}");
    assert!(events.iter().all(|event| event["text"].is_string()));
}

#[test]
fn the_decoded_crop_can_be_shown_as_it_is() {
    let Some(stage) = Stage::set() else { return };
    let (clip, soft, hard) = (text(&stage.clip), stage.path("soft.png"), stage.path("hard.png"));
    assert_done(&stage.generate(&["--video", clip, "--audio", clip, "--preview", text(&soft)]));
    let none = ["--composite", "none", "--preview", text(&hard)];
    assert_done(&stage.generate(&[&["--video", clip, "--audio", clip], &none[..]].concat()));
    let source = frames(&stage.clip);
    let (soft, hard) = (read_png(&soft).unwrap(), read_png(&hard).unwrap());
    let nearest = |made: &Frame| source.iter().map(|frame| difference(frame, made).0).min();
    assert!(nearest(&hard) > nearest(&soft), "{:?} {:?}", nearest(&hard), nearest(&soft));
}

#[test]
fn scan_lists_the_face_with_its_picture() {
    let Some(stage) = Stage::set() else { return };
    let models = common::face_models().expect("checked by the stage");
    let folder = stage.path("faces");
    let output =
        syncdiff(&["scan", text(&stage.clip), "--out", text(&folder), "--face-models", text(&models), "--json"]);
    assert_done(&output);
    let found: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let face = &found["faces"][0];
    assert_eq!(face["frames"], found["frames"]);
    assert!(face["choices"].as_array().is_some_and(|names| names.contains(&"largest".into())));
    let thumbnail = read_png(&folder.join(face["thumbnail"].as_str().expect("a name"))).expect("a picture");
    assert_eq!((thumbnail.width, thumbnail.height), (160, 160));
    assert_eq!(json(&folder.join("scan.json")), found);
    // The number of a face chooses it; a number that is not there says which are.
    let (clip, id) = (text(&stage.clip), format!("id:{}", face["id"]));
    let (out, preview) = (stage.path("out.mp4"), stage.path("p.png"));
    assert_done(&stage.generate(&["--video", clip, "--audio", clip, "--preview", text(&preview), "--face", &id]));
    let output = stage.generate(&["--video", clip, "--audio", clip, "--out", text(&out), "--face", "id:99"]);
    assert_failed(&output, 4, &["id:99"]);
    assert!(!out.exists());
}

#[cfg(unix)]
#[test]
fn an_interrupt_ends_with_its_code_and_leaves_nothing() {
    let Some(stage) = Stage::set() else { return };
    let long = stage.path("long.wav");
    tone(&long, "600");
    let before = stage.names();
    let args = ["--video", "face.mp4", "--audio", "long.wav", "--out", "out.mp4", "--progress", "json"];
    let mut child = stage.generate_command(&args).stderr(Stdio::piped()).spawn().expect("the program starts");
    // Once frames are being made the encoder runs, and its partial file is there.
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(child.stderr.take().expect("a pipe")));
    let started = lines.by_ref().any(|line| line.is_ok_and(|line| line.contains("\"stage\":\"generate\"")));
    assert!(started, "it ended before the first frame");
    let drain = std::thread::spawn(move || lines.map_while(Result::ok).last());
    let signal = std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status();
    assert!(signal.is_ok_and(|status| status.success()));
    let deadline = Instant::now() + Duration::from_secs(60);
    let status = loop {
        match child.try_wait().expect("a child") {
            Some(status) => break status,
            None if Instant::now() > deadline => {
                child.kill().expect("killed");
                panic!("it did not stop");
            }
            None => std::thread::sleep(Duration::from_millis(20)),
        }
    };
    assert_eq!(status.code(), Some(8));
    let last = drain.join().expect("read").unwrap_or_default();
    assert!(last.contains("\"failure\"") && last.contains("cancelled"), "{last}");
    assert_eq!(stage.names(), before);
}
