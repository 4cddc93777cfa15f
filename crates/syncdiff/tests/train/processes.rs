//! `syncdiff train --processes`: several processes make the bytes that one makes.

use super::*;

const PATIENCE: &str = "20";

/// A stage whose steps have an even number of parts: the speech encoder's have one part unless told otherwise.
fn configured(stage: &Stage, name: &str) -> String {
    if !["pretrain", "speech"].contains(&name) {
        return name.to_owned();
    }
    let config = std::fs::read_to_string(stage.path(&format!("{name}.toml"))).unwrap();
    let mut config: toml::Table = config.parse().unwrap();
    config["options"].as_table_mut().unwrap().insert("accumulate".into(), toml::Value::Integer(2));
    let in_parts = format!("{name}-in-parts");
    std::fs::write(stage.path(&format!("{in_parts}.toml")), config.to_string()).unwrap();
    in_parts
}

/// The command with another configuration.
fn command(stage: &Stage, name: &str, config: &str, out: &str) -> Command {
    let plain = stage.train(name, out);
    let from = stage.path(&format!("{name}.toml"));
    let to = stage.path(&format!("{config}.toml"));
    let mut command = Command::new(plain.get_program());
    command.args(plain.get_args().map(|arg| if arg == from.as_os_str() { to.as_os_str() } else { arg }));
    command
}

/// Every trainer by two processes that the program starts itself.
#[test]
fn two_processes_make_the_bytes_of_one() {
    let stage = Stage::set();
    for name in ["autoencoder", "pretrain", "speech", "diffusion", "student", "syncnet", "wav2lip", "reader"] {
        let config = configured(stage, name);
        let alone = if config == name {
            stage.trained(name);
            name.to_owned()
        } else {
            let out = format!("{name}-alone");
            assert_done(&command(stage, name, &config, &out).output().expect("it starts"));
            out
        };
        let out = format!("{name}-by-two");
        let mut shared = command(stage, name, &config, &out);
        assert_done(&shared.args(["--processes", "2", "--patience", PATIENCE]).output().expect("it starts"));
        assert_eq!(stage.losses(&out), stage.losses(&alone), "{name}");
        let [one, two] = [&alone, &out].map(|out| std::fs::read(stage.result(name, out)).unwrap());
        assert!(one == two, "{name}: other weights");
        assert!(!stage.path(&out).join("exchange").exists(), "{name}");
    }
}

/// Two processes that are started by hand; one of them is killed, the other says so and ends, and both again end in the
/// bytes of a run without a kill.
#[test]
fn processes_resume_after_one_of_them_was_killed() {
    let stage = Stage::set();
    let whole = stage.trained("autoencoder");
    let out = "one-of-two-killed";
    let rank = |rank: &str| {
        let mut command = stage.train("autoencoder", out);
        command.args(["--processes", "2", "--rank", rank, "--patience", "4"]);
        command.stdout(Stdio::null()).stderr(Stdio::piped());
        command
    };
    let first = rank("0").spawn().expect("it starts");
    let mut second = rank("1").spawn().expect("it starts");
    let checkpoint = stage.path(out).join("checkpoints/step-0000000002");
    let begun = Instant::now();
    while !checkpoint.exists() {
        assert!(begun.elapsed() < Duration::from_secs(300), "no checkpoint");
        std::thread::sleep(Duration::from_millis(2));
    }
    second.kill().expect("killed");
    assert_eq!(second.wait().expect("its end").code(), None, "it was done before it could be killed");
    let output = first.wait_with_output().expect("its end");
    assert_failed(&output, 7, &["rank 1 of 2 gives no sign of life", "start all 2 processes again"]);
    assert!(!stage.result("autoencoder", out).exists());
    let mut again = stage.train("autoencoder", out);
    assert_done(&again.args(["--processes", "2", "--patience", PATIENCE]).output().expect("it starts"));
    assert_eq!(stage.losses(out), stage.losses("autoencoder"));
    assert!(std::fs::read(whole).unwrap() == std::fs::read(stage.result("autoencoder", out)).unwrap());
}

#[test]
fn shares_that_cannot_be_are_refused_by_name() {
    let stage = Stage::set();
    let refused = |arguments: &[&str], part: &str| {
        let mut command = stage.train("syncnet", "not-shared");
        assert_failed(&command.args(arguments).output().expect("it starts"), 2, &[part]);
    };
    refused(&["--processes", "3"], "cannot be shared out equally");
    refused(&["--processes", "2", "--rank", "2"], "rank = 2");
    refused(&["--rank", "1"], "--processes");
    refused(&["--processes", "0"], "0 is not in 1..=1024");
    assert!(!stage.path("not-shared").join("syncnet.safetensors").exists());
}

/// Devices are shared out by rank; as many processes as devices where no number is given.
#[test]
fn a_device_for_each_process() {
    let stage = Stage::set();
    let whole = stage.trained("syncnet");
    let plain = stage.train("syncnet", "two-devices");
    let arguments: Vec<_> = plain.get_args().collect();
    let without = arguments.iter().filter(|arg| **arg != "--device" && **arg != "cpu");
    let mut command = Command::new(plain.get_program());
    command.args(without).args(["--devices", "cpu,cpu", "--patience", PATIENCE]);
    assert_done(&command.output().expect("it starts"));
    assert!(std::fs::read(whole).unwrap() == std::fs::read(stage.result("syncnet", "two-devices")).unwrap());
}
