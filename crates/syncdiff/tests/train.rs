//! `syncdiff train`: every trainer killed and resumed as a program, on a disk that is full, on data that is damaged.

mod common;
#[path = "train/interrupted.rs"]
mod interrupted;
#[path = "train/processes.rs"]
mod processes;
#[path = "../../syncdiff-train/tests/common/talking.rs"]
mod talking;

use burn::tensor::Device;
use common::{assert_done, assert_failed, root, syncdiff, text};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};
use syncdiff_model::LipSync;
use tempfile::TempDir;

const STEPS: u64 = 6;

/// Prepared data, and configurations that take a moment.
struct Stage {
    folder: TempDir,
}

impl Stage {
    fn set() -> &'static Stage {
        static STAGE: OnceLock<Stage> = OnceLock::new();
        STAGE.get_or_init(|| {
            let stage = Stage { folder: TempDir::new().expect("a folder") };
            talking::prepare(&stage.path("data"));
            for name in ["autoencoder", "pretrain", "speech", "diffusion", "student", "syncnet", "wav2lip", "reader"] {
                let shipped =
                    std::fs::read_to_string(root().join(format!("configs/lite/{name}.toml"))).expect("shipped");
                let mut config: toml::Table = shipped.parse().expect("TOML");
                let options = config["options"].as_table_mut().expect("options");
                for (key, value) in [
                    ("steps", STEPS),
                    ("batch_size", 2),
                    ("checkpoint_every", 2),
                    ("log_every", 1),
                    ("warmup_steps", 2),
                ] {
                    options.insert(key.into(), toml::Value::Integer(value as i64));
                }
                // Drawn clips are of no known corpus.
                config.remove("data");
                // Every part of a loss in these few steps.
                let part = config[name].as_table_mut().expect("its part");
                for (key, value) in [
                    ("quantize_from", 3),
                    ("offset_from", 2),
                    ("sync_from", 1),
                    ("windows_per_clip", 4),
                    ("held_out", 2),
                    ("clusters", 8),
                ] {
                    if part.contains_key(key) {
                        part.insert(key.into(), toml::Value::Integer(value));
                    }
                }
                std::fs::write(stage.path(&format!("{name}.toml")), config.to_string()).expect("written");
            }
            stage
        })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The command that trains, not started; networks that it needs are trained first.
    fn train(&self, name: &str, out: &str) -> Command {
        self.train_on("data", name, out)
    }

    fn train_on(&self, data: &str, name: &str, out: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_syncdiff"));
        command.args(["train", name, "--device", "cpu", "--data", text(&self.path(data))]);
        command.args(["--config", text(&self.path(&format!("{name}.toml"))), "--out", text(&self.path(out))]);
        match name {
            "diffusion" => {
                command.args(["--autoencoder", text(&self.trained("autoencoder"))]);
                command.args(["--speech", text(&self.trained("speech")), "--latents", text(&self.path("latents"))]);
                command.args(["--offsets", text(&self.path("speech/offsets.tsv"))]);
            }
            "student" => {
                let teacher = self.trained("diffusion").with_file_name("");
                command.args(["--teacher", text(&teacher), "--autoencoder", text(&self.trained("autoencoder"))]);
                command.args(["--latents", text(&self.path("latents"))]);
                command.args(["--offsets", text(&self.path("speech/offsets.tsv"))]);
            }
            "speech" => drop(command.args(["--moonshine", text(&root().join("models/lite/model.safetensors"))])),
            "wav2lip" => drop(command.args(["--syncnet", text(&self.trained("syncnet"))])),
            _ => {}
        }
        command
    }

    /// The result of a whole run, which is done once.
    fn trained(&self, name: &str) -> PathBuf {
        let result = self.result(name, name);
        // Before the turn is taken: what it needs is trained first, in turns of its own.
        let mut command = self.train(name, name);
        // One after the other: tests that need the same network wait for it.
        static TURN: std::sync::Mutex<()> = std::sync::Mutex::new(());
        let _turn = TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if !result.exists() {
            assert_done(&command.output().expect("it starts"));
        }
        result
    }

    fn result(&self, name: &str, out: &str) -> PathBuf {
        let file = match name {
            "diffusion" | "student" => "model/model.safetensors".into(),
            _ => format!("{name}.safetensors"),
        };
        self.path(out).join(file)
    }

    /// Loss of each step; where one was done twice, the second time.
    fn losses(&self, out: &str) -> BTreeMap<u64, String> {
        let log = std::fs::read_to_string(self.path(out).join("stats.jsonl")).expect("a log");
        let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        lines.map(|line| (line["step"].as_u64().expect("a step"), line["loss"].to_string())).collect()
    }

    /// A run that is killed as soon as its first checkpoint is there.
    fn killed(&self, name: &str, out: &str) {
        self.killed_on("data", name, out);
    }

    fn killed_on(&self, data: &str, name: &str, out: &str) {
        let mut child =
            self.train_on(data, name, out).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts");
        let checkpoint = self.path(out).join("checkpoints/step-0000000002");
        let begun = Instant::now();
        while !checkpoint.exists() {
            assert!(begun.elapsed() < Duration::from_secs(300), "{name}: no checkpoint");
            assert!(child.try_wait().expect("its state").is_none(), "{name}: it ended before its first checkpoint");
            std::thread::sleep(Duration::from_millis(2));
        }
        child.kill().expect("killed");
        let status = child.wait().expect("its end");
        assert_eq!(status.code(), None, "{name}: it was done before it could be killed");
        assert!(!self.result(name, out).exists(), "{name}");
    }

    /// Killed and gone on with, everything is as if nothing had happened.
    fn assert_resume_is_exact(&self, name: &str) {
        let whole = self.trained(name);
        let out = format!("{name}-killed");
        self.killed(name, &out);
        assert_done(&self.train(name, &out).output().expect("it starts"));
        assert_eq!(self.losses(&out), self.losses(name));
        assert_eq!(self.losses(&out).len() as u64, STEPS);
        let resumed = self.result(name, &out);
        assert!(std::fs::read(whole).unwrap() == std::fs::read(resumed).unwrap(), "{name}: other weights");
    }
}

#[test]
fn autoencoder_resume_after_a_kill() {
    Stage::set().assert_resume_is_exact("autoencoder");
}

#[test]
fn pretrain_resume_after_a_kill() {
    let stage = Stage::set();
    stage.assert_resume_is_exact("pretrain");
    let clusters = |out: &str| std::fs::read(stage.path(out).join("clusters.safetensors")).unwrap();
    assert!(clusters("pretrain") == clusters("pretrain-killed"));
}

/// A later iteration clusters the rows of an earlier result, and the other stages take the encoder where the model hears
/// the filter bank.
#[test]
fn a_pretrained_encoder_goes_on_into_the_other_stages() {
    let stage = Stage::set();
    let pretrained = stage.trained("pretrain");
    let trained = |stage_name: &str, arguments: &[&str]| {
        let mut config: toml::Table =
            std::fs::read_to_string(stage.path(&format!("{stage_name}.toml"))).unwrap().parse().expect("TOML");
        config["options"].as_table_mut().unwrap().insert("steps".into(), toml::Value::Integer(2));
        config.insert("model".into(), toml::Value::Table("moonshine_layers = 0".parse().expect("TOML")));
        let (path, data) = (stage.path(&format!("pretrained-{stage_name}.toml")), stage.path("data"));
        std::fs::write(&path, config.to_string()).unwrap();
        let out = stage.path(&format!("pretrained-{stage_name}"));
        let files = ["--config", text(&path), "--data", text(&data), "--out", text(&out)];
        let output = syncdiff(&[&["train", stage_name, "--device", "cpu"], &files[..], arguments].concat());
        assert_done(&output);
        out
    };
    let again = trained("pretrain", &["--clusters-from", text(&pretrained), "--init-from", text(&pretrained)]);
    let clusters = |folder: &Path| std::fs::read(folder.join("clusters.safetensors")).unwrap();
    assert!(clusters(&again) != clusters(&stage.path("pretrain")), "not of cepstra");
    let speech = trained("speech", &["--init-from", text(&pretrained)]);
    assert!(speech.join("speech.safetensors").is_file());
    let (autoencoder, latents) = (stage.trained("autoencoder"), stage.path("latents"));
    let parts = ["--autoencoder", text(&autoencoder), "--speech", text(&pretrained), "--latents", text(&latents)];
    let diffusion = trained("diffusion", &parts);
    assert_eq!(LipSync::load(&diffusion.join("model"), &Device::flex()).unwrap().config().moonshine_layers, 0);
}

#[test]
fn speech_resume_after_a_kill() {
    Stage::set().assert_resume_is_exact("speech");
}

#[test]
fn diffusion_resume_after_a_kill() {
    Stage::set().assert_resume_is_exact("diffusion");
}

#[test]
fn student_resume_after_a_kill() {
    Stage::set().assert_resume_is_exact("student");
}

/// What is not the denoiser is the teacher's; the folder says how the student draws, and draws in 1, 2 and 4 steps.
#[test]
fn a_student_is_a_model_that_draws_in_few_steps() {
    use burn::tensor::Device;
    use syncdiff_model::diffusion::{Sampler, SamplerKind};
    use syncdiff_model::{LipSync, generate::Sampling};
    let stage = Stage::set();
    let folders = ["student", "diffusion"].map(|name| stage.trained(name).with_file_name(""));
    let [student, teacher] = folders.each_ref().map(|folder| Arc::new(LipSync::load(folder, &Device::flex()).unwrap()));
    let config = student.config();
    assert_eq!((&config.name[..], config.guidance), ("lite-student", 1.0));
    assert_eq!((config.sampler.kind, config.sampler.num_steps), (SamplerKind::Lcm, 4));
    assert_eq!(config.unet, teacher.config().unet);
    let sound: Vec<i16> = (0..3 * 640).map(|i| ((i as f32 * 0.4).sin() * 4000.0) as i16).collect();
    let speech = [&student, &teacher].map(|model| model.encode_speech(&sound, 3).unwrap());
    assert_eq!(speech[0].rows().to_data(), speech[1].rows().to_data(), "the listener is the teacher's");
    let crop = vec![120; 128 * 128 * 3];
    let drawn = [1, 2, 4].map(|num_steps| {
        let own = config.sampling(3);
        let sampling = Sampling { sampler: Sampler { num_steps, ..own.sampler }, ..own };
        let speaker = student.speaker(speech[0].clone(), &sampling).unwrap();
        let picture = speaker.start(&crop).unwrap().next(&crop, 1).unwrap();
        assert_eq!(picture.len(), crop.len());
        picture
    });
    assert!(drawn[0] != drawn[1] && drawn[1] != drawn[2]);
    let terms = |folder: &std::path::Path| {
        let manifest = std::fs::read_to_string(folder.join("weights.toml")).unwrap();
        manifest.parse::<toml::Table>().unwrap()["licence"].clone()
    };
    assert_eq!(terms(&folders[0]), terms(&folders[1]));
}

#[test]
fn a_student_refuses_another_first_stage_and_senseless_settings() {
    let stage = Stage::set();
    let command = stage.train("student", "misfit");
    let arguments: Vec<String> = command.get_args().map(|part| part.to_string_lossy().into_owned()).collect();
    let autoencoder = arguments.iter().position(|part| part == "--autoencoder").unwrap() + 1;
    // One value of the first stage is another.
    let mut bytes = std::fs::read(stage.trained("autoencoder")).unwrap();
    let last = bytes.len() - 2;
    bytes[last] ^= 0x40;
    let changed = stage.path("changed.safetensors");
    std::fs::write(&changed, bytes).unwrap();
    let mut other = arguments.clone();
    other[autoencoder] = text(&changed).to_owned();
    let output = Command::new(command.get_program()).args(other).output().expect("it starts");
    assert_failed(&output, 2, &["changed.safetensors", "first stage"]);
    let config = std::fs::read_to_string(stage.path("student.toml")).unwrap();
    std::fs::write(stage.path("wrong-student.toml"), config.replace("skip = 5", "skip = 0")).unwrap();
    let wrong = text(&stage.path("wrong-student.toml")).to_owned();
    let arguments = arguments.iter().map(|part| if part.ends_with("student.toml") { &wrong } else { part });
    let output = Command::new(command.get_program()).args(arguments).output().expect("it starts");
    assert_failed(&output, 2, &["student.skip"]);
}

#[test]
fn syncnet_resume_after_a_kill() {
    Stage::set().assert_resume_is_exact("syncnet");
}

#[test]
fn wav2lip_resume_after_a_kill() {
    Stage::set().assert_resume_is_exact("wav2lip");
}

#[test]
fn reader_resume_after_a_kill() {
    Stage::set().assert_resume_is_exact("reader");
}

/// Clips whose transcript is no command are left out and counted; without any command the run does not begin.
#[test]
fn readers_learn_from_commands_only_and_say_so() {
    let stage = Stage::set();
    let data = |name: &str, keep: usize| {
        let folder = stage.path(name);
        talking::prepare(&folder);
        let path = folder.join("index.json");
        let mut index: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        for clip in index["clips"].as_array_mut().unwrap().iter_mut().filter(|clip| clip["split"] == "train").skip(keep)
        {
            clip["transcript"] = "good evening".into();
        }
        std::fs::write(&path, index.to_string()).unwrap();
    };
    data("some-commands", 2);
    data("no-commands", 0);
    assert_done(&stage.train_on("some-commands", "reader", "some-commands-run").output().expect("it starts"));
    let about = syncdiff_model::reader::GridReader::about(&stage.result("reader", "some-commands-run")).unwrap();
    assert_eq!((about.seed, about.steps, &about.licence[..]), (1, STEPS, "CC0-1.0"));
    assert!(about.data.starts_with("drawn (2 clips); left out: 1 "), "{}", about.data);
    let output = stage.train_on("no-commands", "reader", "no-commands-run").output().expect("it starts");
    assert_failed(&output, 2, &["train", "GRID command", "none of its 3"]);
    assert!(!stage.path("no-commands-run").exists());
}

#[test]
fn syncnets_say_what_they_are() {
    let stage = Stage::set();
    let about = syncdiff_model::scorers::OwnSyncNet::about(&stage.trained("syncnet")).unwrap();
    assert_eq!((about.seed, about.steps), (1, STEPS));
    assert_eq!((&about.data[..], &about.licence[..]), ("drawn (3 clips)", "CC0-1.0"));
}

/// A limit on the size of files stands for a disk that is full.
#[cfg(unix)]
#[test]
fn resume_after_a_full_disk() {
    let stage = Stage::set();
    let whole = stage.trained("syncnet");
    stage.killed("syncnet", "full");
    let before = std::fs::read(stage.path("full/checkpoints/step-0000000002/model.bpk")).unwrap();
    let plain = stage.train("syncnet", "full");
    let mut command = Command::new("sh");
    // The signal that comes with the limit is ignored, so that writing fails as it does on a full disk.
    command.args(["-c", "trap '' XFSZ; ulimit -f 64; exec \"$0\" \"$@\""]).arg(plain.get_program());
    let output: Output = command.args(plain.get_args()).output().expect("it starts");
    assert_failed(&output, 7, &["checkpoints", "partial"]);
    assert_eq!(std::fs::read(stage.path("full/checkpoints/step-0000000002/model.bpk")).unwrap(), before);
    assert_done(&stage.train("syncnet", "full").output().expect("it starts"));
    assert!(std::fs::read(whole).unwrap() == std::fs::read(stage.result("syncnet", "full")).unwrap());
}

#[test]
fn resume_after_a_clip_was_damaged() {
    let stage = Stage::set();
    let whole = stage.trained("syncnet");
    let data = stage.path("damaged-data");
    talking::prepare(&data);
    stage.killed("syncnet", "damaged");
    let mut clips = Vec::new();
    for number in 0..3 {
        let path = data.join(format!("train/drawn/s{number}/{number:03}.safetensors"));
        let bytes = std::fs::read(&path).unwrap();
        std::fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
        clips.push((path, bytes));
    }
    let output = stage.train_on("damaged-data", "syncnet", "damaged").output().expect("it starts");
    assert_failed(&output, 3, &["safetensors"]);
    clips.iter().for_each(|(path, bytes): &(PathBuf, Vec<u8>)| std::fs::write(path, bytes).unwrap());
    assert_done(&stage.train_on("damaged-data", "syncnet", "damaged").output().expect("it starts"));
    assert!(std::fs::read(whole).unwrap() == std::fs::read(stage.result("syncnet", "damaged")).unwrap());
}

/// The configuration of the denoiser with a table `[model]`, in a file of its own.
fn variant(stage: &Stage, name: &str, changes: &str) -> PathBuf {
    let mut config: toml::Table = std::fs::read_to_string(stage.path("diffusion.toml")).unwrap().parse().expect("TOML");
    config["options"].as_table_mut().unwrap().insert("steps".into(), toml::Value::Integer(2));
    config.insert("model".into(), toml::Value::Table(changes.parse().expect("TOML")));
    let path = stage.path(&format!("{name}.toml"));
    std::fs::write(&path, config.to_string()).unwrap();
    path
}

/// Draws two frames of a grey crop: the second knows the first.
fn draw(folder: &Path) -> [Vec<u8>; 2] {
    let model = Arc::new(LipSync::load(folder, &Device::flex()).expect("a whole weights folder"));
    let side = model.config().crop_size;
    let crop = vec![128; side * side * 3];
    let samples: Vec<i16> = (0..3 * 640).map(|i| ((i as f32 * 0.2).sin() * 8000.0) as i16).collect();
    let tokens = model.encode_speech(&samples, 3).expect("encoded");
    let speaker = model.speaker(tokens, &model.config().sampling(3)).expect("a sampling");
    let mut generator = speaker.start(&crop).expect("a start");
    [0, 1].map(|frame| generator.next(&crop, frame).expect("a frame"))
}

/// Every ablation of the paper trains, and what it leaves generates; with a face there, through the whole program.
#[test]
fn every_ablation_trains_and_its_weights_generate() {
    let stage = Stage::set();
    let faces = common::Stage::set();
    for (name, changes) in [
        ("rnd", "priors = 'RND'"),
        ("prv", "priors = 'PRV'"),
        ("prv-bottleneck", "priors = 'PRV-'"),
        ("five-frames", "previous_frames = 5"),
        ("filter-bank", "priors = 'RND'\nfeatures = 'filter_bank'"),
        ("one-token", "tokens = 1"),
        ("listening", "frozen_layers = 2"),
    ] {
        let config = variant(stage, name, changes);
        let out = format!("variant-{name}");
        let mut command = stage.train("diffusion", &out);
        let args: Vec<_> = command.get_args().map(|arg| arg.to_owned()).collect();
        command = Command::new(env!("CARGO_BIN_EXE_syncdiff"));
        let mut is_config = false;
        for arg in args {
            command.arg(if is_config { config.as_os_str() } else { &arg });
            is_config = arg == "--config";
        }
        assert_done(&command.output().expect("it starts"));
        let folder = stage.path(&out).join("model");
        let card = std::fs::read_to_string(folder.join("README.md")).unwrap();
        assert!(card.contains("Changed: "), "{card}");
        let [first, second] = draw(&folder);
        assert_eq!(first.len(), second.len(), "{name}");
        assert!(first.iter().any(|value| *value != first[0]), "{name}: a picture of one colour");
        if let Some(faces) = &faces {
            let (clip, made) = (faces.clip.clone(), faces.path(&format!("{name}.mp4")));
            let files = ["--video", text(&clip), "--audio", text(&clip), "--out", text(&made)];
            let options = ["generate", "--weights", text(&folder), "--steps", "1", "--device", "cpu"];
            let face_models = common::face_models().expect("they were there");
            assert_done(&syncdiff(&[&options[..], &files, &["--face-models", text(&face_models)]].concat()));
            assert!(made.is_file(), "{name}");
        }
    }
}

#[test]
fn ablations_that_cannot_be_trained_say_why() {
    let stage = Stage::set();
    for (name, changes, part) in [
        ("deep-speech", "features = 'deep_speech'", "filter_bank"),
        ("contrary", "priors = 'RND'\nprevious_frames = 1", "model.previous_frames"),
    ] {
        let (config, data, out) = (variant(stage, name, changes), stage.path("data"), stage.path("refused"));
        let none = stage.path("none");
        let files = ["--config", text(&config), "--data", text(&data), "--out", text(&out)];
        let parts = ["--autoencoder", text(&none), "--speech", text(&none), "--latents", text(&none)];
        let output = syncdiff(&[&["train", "diffusion", "--device", "cpu"], &files[..], &parts].concat());
        assert_failed(&output, 2, &[part]);
        assert!(!out.exists());
    }
}

#[test]
fn settings_that_do_not_fit_are_refused_by_name() {
    let stage = Stage::set();
    let wrong = |name: &str, from: &str, to: &str, more: &[&str]| {
        let config = std::fs::read_to_string(stage.path(&format!("{name}.toml"))).unwrap();
        assert!(config.contains(from), "{config}");
        let (path, data, out) = (stage.path(&format!("wrong-{name}.toml")), stage.path("data"), stage.path("wrong"));
        std::fs::write(&path, config.replace(from, to)).unwrap();
        let files = ["--config", text(&path), "--data", text(&data), "--out", text(&out)];
        syncdiff(&[&["train", name, "--device", "cpu"], &files[..], more].concat())
    };
    assert_failed(&wrong("syncnet", "windows_per_clip = 4", "windows_per_clip = 1", &[]), 2, &["windows_per_clip"]);
    // What was refused has not taken the folder.
    assert_done(&stage.train("syncnet", "wrong").output().expect("it starts"));
    assert_failed(
        &wrong("syncnet", "windows_per_clip = 4", "windows_per_clip = 5", &[]),
        2,
        &["another configuration"],
    );
    let halves = |name: &str, precision: &str, more: &[&str]| {
        wrong(name, "[options]", &format!("[options]\nprecision = \"{precision}\""), more)
    };
    for more in [&[][..], &["--dry-run"]] {
        assert_failed(&halves("syncnet", "bf16", more), 2, &["options.precision", "bf16", "diffusion"]);
        assert_failed(&halves("autoencoder", "f16", more), 2, &["precision", "f16", "GPU"]);
        assert_failed(&halves("autoencoder", "f8", more), 2, &["f8", "bf16"]);
    }
}

#[test]
fn a_dry_run_tells_sizes_and_writes_nothing() {
    let stage = Stage::set();
    for name in ["autoencoder", "pretrain", "speech", "diffusion", "student", "syncnet", "wav2lip", "reader"] {
        let output = stage.train(name, "dry").arg("--dry-run").output().expect("it starts");
        assert_done(&output);
        let told = String::from_utf8_lossy(&output.stdout).into_owned();
        for word in ["3 clips, 120 frames", "parameters: ", " MB for weights", "6 steps", "hours"] {
            assert!(told.contains(word), "{name}: {word}: {told}");
        }
        assert!(!stage.path("dry").exists());
    }
}
