//! `syncdiff eval` from outside: golden values through the command, honest rows, the same bytes twice.

mod common;
#[path = "../../syncdiff-model/tests/common/find.rs"]
mod find;
#[path = "../../syncdiff-model/tests/common/plain.rs"]
mod plain;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use burn::tensor::Device;
use common::{Stage, assert_failed, bars, ffmpeg, root, said, text, tiny_model};
use plain::Case;
use safetensors::tensor::{Dtype, TensorView};
use serde_json::Value;
use syncdiff_model::reader::{AboutReader, GridReader};
use syncdiff_model::scorers::{AboutSyncNet, OwnSyncNet};
use tempfile::TempDir;

/// Runs `eval` with the models of the tests.
fn eval(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_syncdiff"));
    command.arg("eval").args(args).current_dir(root()).env_remove("SYNCDIFF_CACHE");
    command.output().expect("the program starts")
}

fn assert_code(output: &Output, code: i32) {
    assert_eq!(output.status.code(), Some(code), "{}{}", String::from_utf8_lossy(&output.stdout), said(output));
}

fn report(out: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(out.join("figures.json")).expect("figures.json")).expect("JSON")
}

/// The rows of a report by the names of their clips.
fn rows(report: &Value) -> BTreeMap<String, Value> {
    let rows = report["rows"].as_array().expect("rows").iter();
    rows.map(|row| (row["clip"].as_str().expect("a name").to_owned(), row.clone())).collect()
}

fn figure(row: &Value, key: &str) -> f64 {
    row["figures"][key].as_f64().unwrap_or_else(|| panic!("no {key}: {row:#}"))
}

/// Writes pictures as a clip without loss.
fn lossless(path: &Path, pictures: &[u8], width: usize, height: usize) {
    let raw = path.with_extension("raw");
    std::fs::create_dir_all(path.parent().expect("a folder")).expect("made");
    std::fs::write(&raw, pictures).expect("written");
    let size = format!("{width}x{height}");
    let input = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", &size, "-r", "25", "-i", text(&raw)];
    ffmpeg(&[&input[..], &["-c:v", "ffv1", "-pix_fmt", "gbrp", text(path)]].concat());
    std::fs::remove_file(raw).expect("removed");
}

/// Writes the pairs of a group, a clip each, and returns how many.
fn write_pairs(case: &Case, group: &str, folder: &Path) -> usize {
    let name = |side: &str| format!("in.{group}.{side}");
    let [count, height, width, 3] = case.shape(&name("x"))[..] else { panic!("{group}: not pictures") };
    for (side, place) in [("x", "reference"), ("y", "generated")] {
        let bytes = case.bytes(&name(side));
        for (i, picture) in bytes.chunks_exact(height * width * 3).enumerate() {
            lossless(&folder.join(place).join(format!("{group}-{i}.mkv")), picture, width, height);
        }
    }
    count
}

/// Every stored picture pair, as clips of one frame, through the public command.
#[test]
fn golden_pictures_through_the_command() {
    for case in Case::all("metrics") {
        let folder = TempDir::new().expect("a folder");
        let out = folder.path().join("out");
        let names = case.names();
        let groups: Vec<&str> = names.iter().filter_map(|name| name.strip_prefix("in.")?.strip_suffix(".x")).collect();
        let groups: Vec<&str> = groups.into_iter().filter(|group| !group.starts_with("fid")).collect();
        let counts: Vec<usize> = groups.iter().map(|group| write_pairs(&case, group, folder.path())).collect();
        let (ours, truth) = (folder.path().join("generated"), folder.path().join("reference"));
        let metrics = ["--metrics", "psnr,ssim,lpips,lpips-vgg-full", "--every", "1"];
        let folders = ["--generated", text(&ours), "--reference", text(&truth), "--out", text(&out)];
        assert_code(&eval(&[&folders[..], &metrics].concat()), 0);
        let rows = rows(&report(&out));
        assert_eq!(rows.len(), counts.iter().sum::<usize>());
        let mut compared = BTreeMap::new();
        for (group, count) in groups.iter().zip(counts) {
            for (key, stored, tolerance) in [
                ("full.ssim", format!("out.{group}.ssim"), "ssim"),
                ("full.psnr", format!("out.{group}.psnr_skimage"), "psnr"),
                ("full.psnr_u8wrap", format!("out.{group}.psnr_talklip_u8wrap"), "psnr_u8wrap"),
                ("full.lpips_alex", format!("out.lpips_alex.{group}"), "lpips"),
                ("full.lpips_vgg", format!("out.lpips_vgg.{group}"), "lpips"),
            ] {
                let lpips = key.contains("lpips");
                if !names.contains(&stored) || lpips && find::models("lpips").is_none() {
                    continue;
                }
                let expected: Vec<f64> = match lpips {
                    true => case.f32(&stored).into_iter().map(f64::from).collect(),
                    false => case.f64(&stored),
                };
                assert_eq!(expected.len(), count);
                let tolerance = case.tolerance(tolerance);
                for (i, expected) in expected.into_iter().enumerate() {
                    // -1 stands for infinity, which the command counts as 100 dB and says so.
                    let infinite = key == "full.psnr" && expected < 0.0;
                    let expected = if infinite { 100.0 } else { expected };
                    let row = &rows[&format!("{group}-{i}")];
                    let found = figure(row, key);
                    let allowed = tolerance.abs + tolerance.rel * expected.abs();
                    assert!((found - expected).abs() <= allowed, "{group}-{i} {key}: {found}, expected {expected}");
                    let told = row["remarks"].to_string().contains("full: 1 frames are equal");
                    assert_eq!(told, figure(row, "full.psnr") == 100.0, "{row:#}");
                    *compared.entry(key).or_insert(0) += 1;
                }
            }
        }
        let lpips = ["full.lpips_alex", "full.lpips_vgg"].iter().all(|key| compared.contains_key(key));
        assert_eq!(lpips, find::models("lpips").is_some(), "{compared:?}");
        assert!(compared.get("full.ssim") > Some(&0) && compared.get("full.psnr_u8wrap") > Some(&0), "{compared:?}");
        println!("compared: {compared:?}");
    }
}

/// Error rates of stored sentences, as another reader's readings, through the public command.
#[test]
fn golden_words_through_the_command() {
    for case in Case::all("metrics") {
        let folder = TempDir::new().expect("a folder");
        let (clip, table, out) =
            (folder.path().join("c.mkv"), folder.path().join("pairs.tsv"), folder.path().join("out"));
        bars(&clip, &["-frames:v", "2"]);
        let pairs = case.case["config"]["wer_pairs"].as_array().expect("pairs");
        let mut lines = String::from("generated\treference\tname\ttranscript\tread\n");
        for (i, pair) in pairs.iter().enumerate() {
            let [said, read] = [0, 1].map(|at| pair[at].as_str().expect("a sentence"));
            lines += &format!("c.mkv\tc.mkv\t{i}\t{said}\t{read}\n");
        }
        std::fs::write(&table, lines).expect("written");
        assert_code(&eval(&["--pairs", text(&table), "--metrics", "wer", "--out", text(&out)]), 0);
        let report = report(&out);
        let exact = case.tolerance("wer").abs;
        for (i, expected) in case.f64("out.wer_each").into_iter().enumerate() {
            let found = figure(&rows(&report)[&i.to_string()], "words.wer");
            assert!((found - expected).abs() <= exact, "{i}: {found}, expected {expected}");
        }
        let means = report["summary"]["means"].as_array().expect("means");
        let corpus = means.iter().find(|mean| mean["metric"] == "words.wer").expect("a mean")["value"].as_f64();
        assert!((corpus.expect("a number") - case.f64("out.wer_corpus")[0]).abs() <= exact, "{corpus:?}");
    }
}

/// The Fréchet distance of stored features through the public command.
#[test]
fn golden_features_through_the_command() {
    for case in Case::all("metrics") {
        let folder = TempDir::new().expect("a folder");
        for place in ["a", "b"] {
            std::fs::create_dir_all(folder.path().join(place)).expect("made");
            bars(&folder.path().join(place).join("c.mkv"), &["-frames:v", "2"]);
        }
        for name in case.case["config"]["fid"].as_array().expect("names") {
            let name = format!("fid_{}", name.as_str().expect("a name"));
            let sides = ["x", "y"].map(|side| {
                let key = format!("in.{name}.{side}");
                let bytes: Vec<u8> = case.f32(&key).into_iter().flat_map(f32::to_le_bytes).collect();
                (case.shape(&key), bytes)
            });
            let view = |side: usize| TensorView::new(Dtype::F32, sides[side].0.clone(), &sides[side].1).expect("fits");
            let file = folder.path().join(format!("{name}.safetensors"));
            let tensors = [("generated", view(0)), ("reference", view(1))];
            std::fs::write(&file, safetensors::serialize(tensors, None).expect("bytes")).expect("written");
            let (ours, truth) = (folder.path().join("a"), folder.path().join("b"));
            let out = folder.path().join(&name);
            let folders = ["--generated", text(&ours), "--reference", text(&truth), "--out", text(&out)];
            assert_code(&eval(&[&folders[..], &["--metrics", "fid", "--features", text(&file)]].concat()), 0);
            let found = report(&out)["fid"]["value"].as_f64().expect("a distance");
            let expected = case.f64(&format!("out.{name}"))[0];
            let tolerance = case.tolerance(&name);
            let allowed = tolerance.abs + tolerance.rel * expected;
            assert!((found - expected).abs() <= allowed, "{name}: {found}, expected {expected}");
        }
    }
}

/// Clips that are unequal, missing or damaged are rows that say so; the others are scored; nothing depends on the run.
#[test]
fn every_clip_is_a_row_and_two_runs_give_the_same_bytes() {
    let folder = TempDir::new().expect("a folder");
    let [ours, truth] = ["ours", "truth"].map(|name| folder.path().join(name));
    for place in [&ours, &truth] {
        std::fs::create_dir_all(place).expect("made");
        bars(&place.join("same.mkv"), &["-c:v", "ffv1"]);
        bars(&place.join("<b>&'\".mkv"), &["-c:v", "ffv1"]);
    }
    bars(&truth.join("short.mkv"), &["-c:v", "ffv1"]);
    bars(&ours.join("short.mkv"), &["-c:v", "ffv1", "-frames:v", "20", "-vf", "scale=80:60"]);
    bars(&truth.join("fast.mkv"), &["-c:v", "ffv1"]);
    bars(&ours.join("fast.mkv"), &["-c:v", "ffv1", "-vf", "fps=50"]);
    bars(&truth.join("damaged.mkv"), &["-c:v", "ffv1"]);
    std::fs::write(ours.join("damaged.mkv"), b"no clip at all").expect("written");
    bars(&ours.join("orphan.mkv"), &["-c:v", "ffv1"]);
    bars(&truth.join("forgotten.mkv"), &["-c:v", "ffv1"]);
    let run = |out: &str, extra: &[&str]| {
        let out = folder.path().join(out);
        let folders = ["--generated", text(&ours), "--reference", text(&truth), "--out", text(&out)];
        assert_code(&eval(&[&folders[..], &["--metrics", "psnr,ssim,fid,lse,wer,lips,time"], extra].concat()), 3);
        std::fs::read(out.join("figures.json")).expect("figures.json")
    };
    let first = run("one", &["--jobs", "1"]);
    assert_eq!(run("two", &["--jobs", "3"]), first);
    // Again, from what was kept: the same bytes, and a changed input is noticed.
    assert_eq!(run("one", &[]), first);
    let report = report(&folder.path().join("one"));
    let rows = rows(&report);
    assert_eq!(rows.len(), 7);
    for (clip, part) in [("damaged", "damaged.mkv"), ("orphan", "no original"), ("forgotten", "no generated clip")] {
        let failure = rows[clip]["failure"].as_str().expect("a reason");
        assert!(failure.contains(part), "{clip}: {failure}");
    }
    let same = &rows["same"];
    assert_eq!((figure(same, "full.psnr"), figure(same, "full.ssim")), (100.0, 1.0));
    assert!(same["absent"]["crop96.psnr"].as_str().expect("a reason").contains("face"), "{same:#}");
    assert!(same["absent"]["sync.own.lse_c"].is_string() && same["absent"]["words.wer"].is_string(), "{same:#}");
    let short = &rows["short"];
    let remarks = short["remarks"].to_string();
    assert!(remarks.contains("20 frames against 25: the first 20") && remarks.contains("80x60 against"), "{remarks}");
    assert!(remarks.contains("0.80 s against 1.00 s"), "{remarks}");
    assert_eq!((&short["pairs"], &short["generated"]["frames"]), (&Value::from(20), &Value::from(20)));
    let fast = &rows["fast"];
    assert!(fast["remarks"].to_string().contains("paired by their time"), "{fast:#}");
    // Each frame is shown twice, so that by time all are equal.
    assert_eq!((fast["pairs"].as_u64(), figure(fast, "full.psnr")), (Some(50), 100.0), "{fast:#}");
    assert_eq!(report["summary"]["unequal"], 2);
    assert!(report["fid"]["absent"].as_str().expect("a reason").contains("--features"));

    let page = std::fs::read_to_string(folder.path().join("one/report.html")).expect("a page");
    assert!(!page.contains("<b>&") && page.contains("&lt;b&gt;&amp;&#39;&quot;"), "a name left its place");
    assert!(!page.contains("http:") && !page.contains("https:") && !page.contains("<link"), "the page wants a network");
    let source = page.split("src=\"").nth(1).expect("a player").split('"').next().expect("an address");
    assert!(source.starts_with("../") && !source.contains(' '), "{source}");

    bars(&truth.join("same.mkv"), &["-c:v", "ffv1", "-vf", "negate"]);
    assert_ne!(run("one", &[]), first);
}

#[test]
fn wrong_arguments_are_told() {
    let folder = TempDir::new().expect("a folder");
    let out = folder.path().join("out");
    assert_failed(&eval(&["--out", text(&out)]), 2, &["--manifest"]);
    let empty = text(folder.path()).to_owned();
    let both = ["--generated", &empty, "--reference", &empty, "--out", text(&out)];
    assert_failed(&eval(&[&both[..], &["--metrics", "beauty"]].concat()), 2, &["beauty", "lpips-vgg"]);
    assert_failed(&eval(&[&both[..], &["--metrics", ","]].concat()), 2, &["nothing"]);
    let gone = folder.path().join("gone.safetensors");
    assert_failed(&eval(&[&both[..], &["--judge", text(&gone)]].concat()), 7, &["gone.safetensors"]);
    assert_eq!(eval(&[&both[..], &["--features", text(&gone)]].concat()).status.code(), Some(7));
    assert_eq!(eval(&["--generated", &empty, "--out", text(&out)]).status.code(), Some(2));
    assert!(!out.exists());
}

/// A real clip against itself and against a worse copy.
#[test]
fn faces_are_measured_where_the_reference_shows_them() {
    let Some(stage) = Stage::set() else { return };
    let [ours, truth, out] = ["ours", "truth", "out"].map(|name| stage.path(name));
    for place in [&ours, &truth] {
        std::fs::create_dir_all(place).expect("made");
        std::fs::copy(&stage.clip, place.join("same.mp4")).expect("copied");
    }
    std::fs::copy(&stage.clip, truth.join("worse.mp4")).expect("copied");
    let worse = ours.join("worse.mp4");
    ffmpeg(&["-i", text(&stage.clip), "-vf", "gblur=sigma=3", "-crf", "30", "-an", text(&worse)]);
    let judge = stage.path("syncnet.safetensors");
    let device = Device::flex();
    device.seed(3);
    let about = AboutSyncNet { seed: 3, steps: 0, data: "<nothing>".into(), licence: "MIT".into() };
    OwnSyncNet::new(&device).save(&judge, &about).expect("saved");
    let folders = ["--generated", text(&ours), "--reference", text(&truth), "--out", text(&out)];
    let judged = ["--metrics", "psnr,ssim,lpips,lips,time,lse", "--copy-clips", "--judge", text(&judge)];
    assert_code(&eval(&[&folders[..], &judged].concat()), 0);
    let report = report(&out);
    let named = report["judges"].to_string();
    assert!(named.contains("own SyncNet, seed 3") && named.contains("0 steps on <nothing>"), "{named}");
    let page = std::fs::read_to_string(out.join("report.html")).expect("a page");
    assert!(page.contains("own SyncNet, seed 3") && !page.contains("<nothing>"));
    let rows = rows(&report);
    let (same, worse) = (&rows["same"], &rows["worse"]);
    for region in ["crop96", "full", "mouth", "aligned_mouth"] {
        assert_eq!(figure(same, &format!("{region}.ssim")), 1.0, "{region}");
        for key in ["psnr", "psnr_u8wrap", "ssim"].map(|figure| format!("{region}.{figure}")) {
            assert!(figure(worse, &key) < figure(same, &key), "{key}: {worse:#}");
        }
    }
    assert!(figure(same, "lips.opening_correlation") > 0.999 && figure(same, "lips.landmark_distance") < 1e-6);
    assert!((figure(same, "time.jitter_ratio") - 1.0).abs() < 1e-6 && figure(same, "time.flicker") == 0.0, "{same:#}");
    assert!(figure(worse, "time.flicker_ratio") < 0.95 && figure(worse, "lips.landmark_distance") > 1e-3);
    for row in [same, worse] {
        let (close, sure) = (figure(row, "sync.own.lse_d"), figure(row, "sync.own.lse_c"));
        assert!(close > 0.0 && close <= 2.0 && (0.0..2.0).contains(&sure), "{row:#}");
        // What this judge does not measure is no gap of the report.
        assert!(row["figures"]["sync.lrs.lse_c"].is_null() && row["absent"]["sync.lrs.lse_c"].is_null());
    }
    assert!(figure(same, "sync.own.lse_d") != figure(worse, "sync.own.lse_d"));
    assert!(worse["remarks"].to_string().contains("mute") && !same["remarks"].to_string().contains("mute"));
    if find::models("lpips").is_some() {
        assert!(figure(same, "crop96.lpips_alex").abs() < 1e-6 && figure(worse, "crop96.lpips_alex") > 0.02);
        assert!(figure(worse, "mouth.lpips_alex") > 0.02 && figure(worse, "full.lpips_alex") > 0.02);
    }
    assert_eq!(common::names_in(&out.join("media")).len(), 4);
}

/// Our own reader has figures of commands, of the clip and of its original, and of no other sentence; another reader is
/// another identity of the rows.
#[test]
fn our_own_reader_reads_commands_only() {
    let Some(stage) = Stage::set() else { return };
    let (table, out) = (stage.path("pairs.tsv"), stage.path("out"));
    let clip = text(&stage.clip);
    let lines = [("command", "bin blue at f two now"), ("news", "good evening"), ("mute", "")];
    let lines: String = lines.iter().map(|(name, said)| format!("{clip}\t{clip}\t{name}\t{said}\n")).collect();
    std::fs::write(&table, format!("generated\treference\tname\ttranscript\n{lines}")).expect("written");
    let device = Device::flex();
    let readers = [1, 2].map(|seed| {
        device.seed(seed);
        let path = stage.path(&format!("reader-{seed}.safetensors"));
        let about = AboutReader { seed, steps: 0, data: "nothing".into(), licence: "MIT".into() };
        GridReader::new(&device).save(&path, &about).expect("saved");
        path
    });
    let run = |reader: &Path| {
        let args = ["--pairs", text(&table), "--out", text(&out), "--metrics", "wer", "--reader", text(reader)];
        assert_code(&eval(&args), 0);
        report(&out)
    };
    let found = run(&readers[0]);
    let named = found["judges"].to_string();
    assert!(named.contains("our own reader of GRID commands: six words") && named.contains("Seed 1"), "{named}");
    let of = rows(&found);
    let wer = figure(&of["command"], "words.wer");
    assert_eq!(figure(&of["command"], "words.wer_truth"), wer, "the clip is its original");
    assert!((wer * 6.0 - (wer * 6.0).round()).abs() < 1e-9 && (0.0..=1.0).contains(&wer), "{wer}");
    for (name, part) in [("news", "GRID commands only"), ("mute", "no transcript")] {
        for key in ["words.wer", "words.cer", "words.wer_truth"] {
            let reason = of[name]["absent"][key].as_str().unwrap_or_default();
            assert!(reason.contains(part) && of[name]["figures"][key].is_null(), "{name}: {:#}", of[name]);
        }
    }
    let kept = || std::fs::read_to_string(out.join("clips/command.json")).expect("a row");
    let first = kept();
    assert!(run(&readers[1])["judges"].to_string().contains("Seed 2"));
    assert_ne!(kept(), first, "the row of another reader was taken");
    let gone = stage.path("gone.safetensors");
    let args = ["--pairs", text(&table), "--out", text(&out), "--reader", text(&gone)];
    assert_failed(&eval(&args), 7, &["gone.safetensors"]);
}

/// This program's own clips take the same way, with leak and ceiling on top.
#[test]
fn generated_clips_have_leak_and_ceiling() {
    let Some(stage) = Stage::set() else { return };
    let manifest = stage.path("clips.tsv");
    std::fs::copy(&stage.clip, stage.path("b.mp4")).expect("copied");
    std::fs::write(&manifest, "path\tspeaker\tsplit\nface.mp4\ta\ttest\nb.mp4\tb\ttest\n").expect("written");
    let out = stage.path("out");
    let weights = ["--weights", text(tiny_model()), "--manifest", text(&manifest), "--out", text(&out)];
    let args = [&weights[..], &["--metrics", "psnr,lips,time", "--sheets", "1", "--jobs", "1"]].concat();
    assert_code(&eval(&args), 0);
    let first = std::fs::read(out.join("figures.json")).expect("figures.json");
    for row in rows(&report(&out)).values() {
        assert!(figure(row, "ceiling.psnr") > 5.0 && figure(row, "aligned_mouth.psnr") > 5.0, "{row:#}");
        // Both clips are one clip: a perfect model with the other speech is the truth itself.
        assert!((figure(row, "leak.perfect") - 1.0).abs() < 1e-9, "{row:#}");
        for file in [row["generated_path"].as_str(), row["files"]["other_speech"].as_str()] {
            assert!(PathBuf::from(file.expect("a path")).is_file());
        }
    }
    assert!(out.join("sheet-a.png").is_file() && !out.join("sheet-b.png").exists());
    assert_code(&eval(&args), 0);
    assert_eq!(std::fs::read(out.join("figures.json")).expect("figures.json"), first);
}
