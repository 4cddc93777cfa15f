//! Runs that are interrupted at the worst moment, go wrong, or have nothing to go on from.

use super::*;

/// The command with another value of `[options]`, in a configuration of its own.
fn with_option(stage: &Stage, name: &str, out: &str, option: &str, value: toml::Value) -> Command {
    let from = stage.path(&format!("{name}.toml"));
    let mut config: toml::Table = std::fs::read_to_string(&from).unwrap().parse().expect("TOML");
    config["options"].as_table_mut().unwrap().insert(option.into(), value);
    let to = stage.path(&format!("{out}.toml"));
    std::fs::write(&to, config.to_string()).unwrap();
    let plain = stage.train(name, out);
    let mut command = Command::new(plain.get_program());
    command.args(plain.get_args().map(|arg| if arg == from.as_os_str() { to.as_os_str() } else { arg }));
    command
}

/// Kills a run as soon as it has made this file, once the checkpoint of an earlier step is there; whether the checkpoint
/// that it was writing is unfinished.
fn killed_while_writing(stage: &Stage, name: &str, out: &str, after: Option<u64>, file: &str) -> bool {
    let mut child = stage.train(name, out).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts");
    let checkpoints = stage.path(out).join("checkpoints");
    let earlier = after.map(|step| checkpoints.join(format!("step-{step:010}")));
    let partial = checkpoints.join("partial");
    let (begun, awaited) = (Instant::now(), partial.join(file));
    // Without a pause: a checkpoint is written in a moment.
    while !awaited.exists() || earlier.as_ref().is_some_and(|earlier| !earlier.exists()) {
        assert!(begun.elapsed() < Duration::from_secs(300), "{name}: no checkpoint");
        assert!(child.try_wait().expect("its state").is_none(), "{name}: it ended before it could be killed");
    }
    child.kill().expect("killed");
    assert_eq!(child.wait().expect("its end").code(), None, "{name}: it was done before it could be killed");
    partial.exists()
}

/// Killed while each of the files of a checkpoint is written, the first one included, and gone on with.
#[test]
fn resume_after_kills_in_the_midst_of_a_checkpoint() {
    let stage = Stage::set();
    let (whole, out) = (stage.trained("autoencoder"), "killed-in-the-midst");
    let kills = [(None, "model.bpk"), (None, "optimizer.bpk"), (Some(2), "ema.bpk")];
    let unfinished = kills.map(|(after, file)| killed_while_writing(stage, "autoencoder", out, after, file));
    assert!(unfinished.contains(&true), "no kill left an unfinished checkpoint");
    assert_done(&stage.train("autoencoder", out).output().expect("it starts"));
    assert!(!stage.path(out).join("checkpoints/partial").exists());
    assert_eq!(stage.losses(out), stage.losses("autoencoder"));
    assert!(std::fs::read(whole).unwrap() == std::fs::read(stage.result("autoencoder", out)).unwrap());
}

#[test]
fn resume_is_refused_where_there_is_no_checkpoint() {
    let stage = Stage::set();
    let whole = stage.trained("syncnet");
    let resumed = |out: &str| stage.train("syncnet", out).arg("--resume").output().expect("it starts");
    assert_failed(&resumed("nothing"), 2, &["resume", "nothing", "no checkpoint to go on from"]);
    assert!(!stage.path("nothing").exists());
    // What was begun and never finished is none.
    std::fs::create_dir_all(stage.path("begun/checkpoints/partial")).unwrap();
    assert_failed(&resumed("begun"), 2, &["no checkpoint to go on from"]);
    stage.killed("syncnet", "gone-on-with");
    let output = resumed("gone-on-with");
    assert_done(&output);
    // It says how long it still needs, the seconds before the kill included.
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    let left: Vec<&str> =
        told.lines().filter_map(|line| line.split_once(" s left")?.0.rsplit_once(", ").map(|(_, left)| left)).collect();
    assert_eq!(left.last(), Some(&"0"), "{told}");
    assert!(left.iter().all(|left| left.parse::<f64>().is_ok()), "{told}");
    assert!(told.lines().any(|line| line.contains("| best at ")), "{told}");
    assert_eq!(stage.losses("gone-on-with"), stage.losses("syncnet"));
    assert!(std::fs::read(whole).unwrap() == std::fs::read(stage.result("syncnet", "gone-on-with")).unwrap());
    let output = stage.train("syncnet", "nothing").args(["--resume", "--dry-run"]).output().expect("it starts");
    assert_failed(&output, 2, &["--resume", "--dry-run"]);
}

/// Clips in shards: one that is damaged, or cut short, ends the run with its name; mended, the run goes on exactly.
#[test]
fn resume_after_a_shard_was_damaged() {
    let stage = Stage::set();
    let data = stage.path("shards");
    let draw = ["prepare", "--synthetic", "4", "--seconds", "1.6", "--crop-size", "128", "--voice", "tones"];
    assert_done(&syncdiff(&[&draw[..], &["--out", text(&data)]].concat()));
    let index: Value = serde_json::from_slice(&std::fs::read(data.join("index.json")).unwrap()).unwrap();
    let clips: Vec<&Value> =
        index["clips"].as_array().unwrap().iter().filter(|clip| clip["split"] == "train").collect();
    let number = |clip: &Value, name: &str| clip[name].as_u64().expect("a number") as usize;
    let shard = data.join("train-000000.tar");
    let whole_shard = std::fs::read(&shard).unwrap();
    let mut changed = whole_shard.clone();
    for clip in &clips {
        assert_eq!(clip["file"], "train-000000.tar");
        changed[number(clip, "offset") + number(clip, "num_bytes") / 2] ^= 1;
    }
    assert_done(&stage.train_on("shards", "syncnet", "shards-whole").output().expect("it starts"));
    stage.killed_on("shards", "syncnet", "shards-damaged");
    let again = || stage.train_on("shards", "syncnet", "shards-damaged").output().expect("it starts");
    let cut = whole_shard[..number(clips[0], "offset") + 100].to_vec();
    for damaged in [changed, cut] {
        std::fs::write(&shard, damaged).unwrap();
        assert_failed(&again(), 3, &["train-000000.tar"]);
    }
    std::fs::write(&shard, whole_shard).unwrap();
    assert_done(&again());
    let [whole, resumed] =
        ["shards-whole", "shards-damaged"].map(|out| std::fs::read(stage.result("syncnet", out)).unwrap());
    assert!(whole == resumed);
    assert_eq!(stage.losses("shards-whole"), stage.losses("shards-damaged"));
}

/// A rate that no network survives: the run ends with the code of an internal error and leaves the batch, alone and by
/// two processes.
#[test]
fn a_run_that_diverges_ends_and_leaves_its_batch() {
    let stage = Stage::set();
    let cases: [(&str, &[&str]); 4] =
        [("autoencoder", &[]), ("speech", &[]), ("reader", &[]), ("autoencoder", &["--processes", "2"])];
    for (number, (name, arguments)) in cases.into_iter().enumerate() {
        let out = format!("diverging-{number}");
        let mut command = with_option(stage, name, &out, "learning_rate", toml::Value::Float(1e36));
        let output = command.args(arguments).output().expect("it starts");
        assert_failed(&output, 1, &["not-finite-", "lower the learning rate"]);
        let left = std::fs::read_dir(stage.path(&out)).unwrap().flatten().map(|entry| entry.file_name());
        let batches: Vec<_> = left.filter(|name| name.to_string_lossy().starts_with("not-finite-")).collect();
        assert_eq!(batches.len(), 1, "{name}: {batches:?}");
        assert!(!stage.result(name, &out).exists(), "{name}");
    }
}

/// From its teacher's own values it is the student that it would be anyway; from another's, another; and a file that is
/// no denoiser is refused.
#[test]
fn a_student_starts_from_other_weights() {
    let stage = Stage::set();
    let plain = std::fs::read(stage.trained("student")).unwrap();
    let started = |out: &str, from: &Path| {
        stage.train("student", out).args(["--init-from", text(from)]).output().expect("it starts")
    };
    assert_done(&started("student-of-teacher", &stage.trained("diffusion")));
    assert!(plain == std::fs::read(stage.result("student", "student-of-teacher")).unwrap());
    assert_done(&started("student-of-student", &stage.trained("student")));
    assert!(stage.losses("student-of-student")[&1] != stage.losses("student")[&1]);
    let output = started("student-of-nobody", &stage.trained("syncnet"));
    assert_failed(&output, 5, &["denoiser."]);
}

/// One for each checkpoint where there is something to see; and each checkpoint tells which is the best.
#[test]
fn checkpoints_show_samples_and_tell_the_best() {
    let stage = Stage::set();
    for name in ["autoencoder", "diffusion", "student", "wav2lip"] {
        stage.trained(name);
        let sheets = std::fs::read_dir(stage.path(name).join("samples")).expect("sheets").flatten();
        let mut names: Vec<String> = sheets.map(|sheet| sheet.file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        assert_eq!(names, ["step-000002.png", "step-000004.png", "step-000006.png"], "{name}");
        let frame = syncdiff_media::read_png(&stage.path(name).join("samples/step-000006.png")).expect("it decodes");
        let side = if name == "wav2lip" { 96 } else { 128 };
        assert_eq!((frame.height, frame.width % side), (2 * side, 0), "{name}");
    }
    for name in ["autoencoder", "pretrain", "speech", "diffusion", "student", "syncnet", "wav2lip", "reader"] {
        stage.trained(name);
        let log = std::fs::read_to_string(stage.path(name).join("stats.jsonl")).expect("a log");
        let last: Value = serde_json::from_str(log.lines().last().expect("a line")).expect("JSON");
        let best = last["best"].as_u64().unwrap_or_else(|| panic!("{name}: {last}"));
        assert!(stage.path(name).join(format!("checkpoints/step-{best:010}/model.bpk")).is_file(), "{name}");
    }
}

/// The same configuration with activations that are computed again makes the same bytes.
#[test]
fn activations_computed_again_make_the_same_weights() {
    let stage = Stage::set();
    for name in ["autoencoder", "diffusion", "student"] {
        let whole = stage.trained(name);
        let out = format!("{name}-again");
        let mut command = with_option(stage, name, &out, "checkpoint_activations", toml::Value::Boolean(true));
        assert_done(&command.output().expect("it starts"));
        assert_eq!(stage.losses(&out), stage.losses(name), "{name}");
        assert!(std::fs::read(whole).unwrap() == std::fs::read(stage.result(name, &out)).unwrap(), "{name}");
    }
}
