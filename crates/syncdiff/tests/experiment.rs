//! `syncdiff experiment` from outside, at tiny size: rows that are trained, given, refused, and taken again.

mod common;
#[path = "../../syncdiff-train/tests/common/talking.rs"]
mod talking;

use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::SystemTime;

use common::{Stage, assert_failed, root, said, text};
use serde_json::Value;

/// Everything a table needs: drawn prepared data, two filmed test clips, a configuration that takes a moment.
struct Bench {
    stage: Stage,
}

impl Bench {
    fn set() -> Option<Bench> {
        let stage = Stage::set()?;
        talking::prepare(&stage.path("data"));
        std::fs::copy(&stage.clip, stage.path("other.mp4")).expect("copied");
        let manifest = "path\tspeaker\tsplit\nface.mp4\ta\ttest\nother.mp4\tb\ttest\nface.mp4\ta\tvalid\n";
        std::fs::write(stage.path("clips.tsv"), manifest).expect("written");
        let shipped = std::fs::read_to_string(root().join("configs/lite/diffusion.toml")).expect("shipped");
        let mut config: toml::Table = shipped.parse().expect("TOML");
        let options = config["options"].as_table_mut().expect("options");
        for (key, value) in [("batch_size", 2), ("log_every", 1), ("warmup_steps", 2)] {
            options.insert(key.into(), toml::Value::Integer(value));
        }
        std::fs::write(stage.path("config.toml"), config.to_string()).expect("written");
        Some(Bench { stage })
    }

    fn run(&self, table: &str, args: &[&str]) -> Output {
        let path = |name: &str| text(&self.stage.path(name)).to_owned();
        let mut command = Command::new(env!("CARGO_BIN_EXE_syncdiff"));
        command.args(["experiment", table, "--device", "cpu", "--jobs", "1"]);
        command.args(["--data", &path("data"), "--manifest", &path("clips.tsv"), "--out", &path("out")]);
        command.args(["--config", &path("config.toml"), "--steps", "1", "--guidance", "1"]);
        command.args(["--metrics", "psnr,ssim,lse,lips"]).args(args);
        command.current_dir(root()).env_remove("SYNCDIFF_CACHE").output().expect("it starts")
    }

    fn table(&self, name: &str) -> Value {
        let bytes = std::fs::read(self.stage.path("out").join(format!("{name}.json"))).expect("a table");
        serde_json::from_slice(&bytes).expect("JSON")
    }

    fn weights(&self, variant: &str) -> PathBuf {
        self.stage.path("out/variants").join(variant).join("model/model.safetensors")
    }

    fn changed(&self, variant: &str) -> SystemTime {
        self.weights(variant).metadata().expect("weights").modified().expect("a time")
    }
}

fn assert_code(output: &Output, code: i32) {
    assert_eq!(output.status.code(), Some(code), "{}{}", String::from_utf8_lossy(&output.stdout), said(output));
}

fn cell(row: &Value, column: &str) -> f64 {
    let cells = row["cells"].as_array().expect("cells");
    let found = cells.iter().find(|cell| cell["column"] == column);
    found.and_then(|cell| cell["value"].as_f64()).unwrap_or_else(|| panic!("no {column}: {row:#}"))
}

#[test]
fn rows_are_trained_scored_and_taken_again() {
    let Some(bench) = Bench::set() else { return };
    let two = ["--budget", "2", "--rows", "RND,PRV-"];
    assert_code(&bench.run("table3", &two), 0);
    let first = bench.table("table3");
    let rows = first["rows"].as_array().expect("rows");
    assert_eq!((rows.len(), &rows[0]["name"], &rows[1]["name"]), (2, &"RND".into(), &"PRV-".into()));
    for row in rows {
        assert_eq!((&row["clips"][0], &row["reason"]), (&2.into(), &Value::Null), "{row:#}");
        assert!(row["how"].as_str().is_some_and(|how| how.starts_with("trained: 2 steps")), "{row:#}");
        assert!(cell(row, "PSNR") > 5.0 && cell(row, "SSIM") > 0.0 && cell(row, "LSE-D") > 0.0);
        assert!(row["judges"].to_string().contains("own SyncNet"), "{row:#}");
    }
    let page = std::fs::read_to_string(bench.stage.path("out/table3.md")).expect("a table");
    for printed in ["32.40", "32.21", "Order by LSE-C here", "in the paper on LRS2: PRV- > RND"] {
        assert!(page.contains(printed), "{printed}: {page}");
    }
    assert!(
        std::fs::read_to_string(bench.stage.path("out/table3.csv")).expect("a table").contains("RND,,\"paper, LRS2\"")
    );

    // Nothing is done twice, and the figures stay as they are.
    let before = bench.changed("rnd");
    assert_code(&bench.run("table3", &["--eval-only", "--rows", "RND,PRV-"]), 0);
    assert_eq!(bench.changed("rnd"), before);
    let again = bench.table("table3");
    for (a, b) in again["rows"].as_array().expect("rows").iter().zip(rows) {
        assert_eq!((&a["cells"], &a["how"]), (&b["cells"], &"trained before: 2 steps".into()));
    }

    // Another budget is another experiment; a row without weights is told.
    assert_code(&bench.run("table3", &["--budget", "3", "--rows", "RND"]), 3);
    let refused = bench.table("table3")["rows"][0]["reason"].to_string();
    assert!(refused.contains("weights of 2 steps, the budget is 3"), "{refused}");
    assert_code(&bench.run("table3", &["--eval-only", "--rows", "PRV"]), 3);
    assert!(bench.table("table3")["rows"][0]["reason"].to_string().contains("without --eval-only"));

    // Hours become steps of this machine, and stay so many when the row is run again.
    let hours = ["--budget", "0.0003h", "--rows", "PRV"];
    assert_code(&bench.run("table3", &hours), 0);
    let how = bench.table("table3")["rows"][0]["how"].to_string();
    assert!(how.starts_with("\"trained: ") && !bench.stage.path("out/variants/prv.timing").exists(), "{how}");
    let steps = how.split(' ').nth(1).expect("a number").to_owned();
    assert_code(&bench.run("table3", &hours), 0);
    let again = bench.table("table3")["rows"][0]["how"].to_string();
    assert!(again.contains(&format!("trained before: {steps} steps")), "{again}");

    // A configuration that this version does not read is not one that is missing.
    let config = bench.stage.path("out/variants/prv/config.toml");
    let text = std::fs::read_to_string(&config).expect("written by the run");
    std::fs::write(&config, text.replace("pose_noise", "noise_of_pose")).expect("writable");
    assert_code(&bench.run("table3", &hours), 3);
    let refused = bench.table("table3")["rows"][0]["reason"].to_string();
    assert!(refused.contains("noise_of_pose") && refused.contains("version"), "{refused}");

    // Another table takes the same weights, and trains what it lacks.
    let varied = ["--budget", "2", "--rows", "IDENT", "--split", "valid"];
    assert_code(&bench.run("table4", &varied), 0);
    assert_eq!(bench.changed("rnd"), before);
    let row = bench.table("table4")["rows"][0].clone();
    for column in ["RND", "RND+PRV-"] {
        assert!(cell(&row, column) >= 0.0 && cell(&row, &format!("{column} standardised")) >= 0.0, "{row:#}");
    }
    assert!(bench.weights("syncdiff").is_file());
}

#[test]
fn a_row_that_fails_is_a_row_and_others_are_given() {
    let Some(bench) = Bench::set() else { return };
    let others = bench.stage.path("talklip");
    std::fs::create_dir(&others).expect("made");
    std::fs::copy(&bench.stage.clip, others.join("face.mp4")).expect("copied");
    let given = format!("TalkLip={}", text(&others));
    let rows = ["--eval-only", "--rows", "GT,GT-REC,Wav2Lip,SadTalker,TalkLip,DiffTalk", "--outputs", &given];
    assert_code(&bench.run("table1", &rows), 3);
    let table = bench.table("table1");
    let row = |name: &str| {
        let rows = table["rows"].as_array().expect("rows");
        rows.iter().find(|row| row["name"] == name).cloned().unwrap_or_else(|| panic!("no {name}: {table:#}"))
    };
    assert_eq!(cell(&row("GT"), "SSIM"), 1.0);
    let rebuilt = row("GT-REC");
    assert!((15.0..60.0).contains(&cell(&rebuilt, "PSNR")) && cell(&rebuilt, "SSIM") < 1.0, "{rebuilt:#}");
    assert!(cell(&rebuilt, "lip opening") > 0.5, "{rebuilt:#}");
    for (name, reason) in
        [("Wav2Lip", "--syncnet"), ("SadTalker", "--outputs SadTalker=DIR"), ("DiffTalk", "no finished weights")]
    {
        assert!(row(name)["reason"].to_string().contains(reason), "{name}: {table:#}");
    }
    // One of the two clips was given.
    assert_eq!(row("TalkLip")["clips"], serde_json::json!([1, 1]));
    let page = std::fs::read_to_string(bench.stage.path("out/table1.md")).expect("a table");
    assert!(page.contains("31.16 / 31.10") && page.contains("- SadTalker: "), "{page}");

    assert_code(&bench.run("table2", &["--budget", "1", "--rows", "DS"]), 3);
    assert!(bench.table("table2")["rows"][0]["reason"].to_string().contains("filter_bank"));
    assert_failed(&bench.run("table3", &["--budget", "1", "--rows", "PRW"]), 2, &["PRW", "RND+PRV-"]);
    assert_failed(&bench.run("table3", &["--budget", "1", "--outputs", "X=y"]), 2, &["\"X\""]);
    assert_failed(&bench.run("table3", &["--budget", "1x"]), 2, &["4000"]);
    assert_failed(&bench.run("table3", &[]), 2, &["--budget"]);
}
