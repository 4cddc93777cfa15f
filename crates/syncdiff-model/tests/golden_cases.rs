//! Every golden case has a test that knows its kind: what is compared is what lies there, not a fixed list.

#[path = "common/find.rs"]
mod find;

use std::path::{Path, PathBuf};

use find::Tolerance;

/// Kind of a case (`case` of its `case.json`) and the tests that read it. The only place that lists them.
const HANDLED: [(&str, &str); 13] = [
    ("avhubert_audio", "crates/syncdiff-model/tests/golden_audio.rs"),
    ("avhubert_video", "crates/syncdiff-model/tests/golden_reader.rs"),
    ("difftalk_audio", "crates/syncdiff-model/tests/golden_audio.rs"),
    ("diffusers_schedulers", "crates/syncdiff-model/tests/golden_diffusion.rs"),
    ("face", "crates/syncdiff-face/src/golden.rs"),
    ("lcm_distill", "crates/syncdiff-model/tests/golden_distill.rs"),
    ("ldm_ddim", "crates/syncdiff-model/tests/golden_diffusion.rs"),
    ("ldm_unet", "crates/syncdiff-model/tests/golden_unet.rs"),
    ("ldm_vq", "crates/syncdiff-model/tests/golden_autoencoder.rs"),
    ("metrics", "crates/syncdiff-eval/tests/golden_picture.rs"),
    ("syncnet_s", "crates/syncdiff-model/tests/golden_scorers.rs"),
    ("train10", "crates/syncdiff-train/tests/golden_train10.rs"),
    ("wav2lip", "crates/syncdiff-model/tests/golden_scorers.rs"),
];

#[test]
fn golden_every_case_is_of_a_known_kind() {
    for (folder, case) in find::cases() {
        let kind = find::kind(&case);
        assert!(
            HANDLED.iter().any(|(known, _)| *known == kind),
            "{}: no test handles golden cases of the kind {kind:?}; write one and add it to the table in this file",
            folder.display()
        );
        assert!(folder.join("io.safetensors").is_file(), "{}: io.safetensors is missing", folder.display());
    }
}

#[test]
fn the_table_names_tests_that_read_their_kind() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    for (kind, file) in HANDLED {
        let text = std::fs::read_to_string(root.join(file)).unwrap_or_else(|e| panic!("{file}: {e}"));
        assert!(text.contains(&format!("\"{kind}\"")) && text.contains("fn golden_"), "{file} reads no {kind:?}");
    }
}

#[test]
fn cases_are_found_by_their_kind_wherever_they_lie() {
    let root = tempfile::tempdir().unwrap();
    for (folder, kind) in [("metrics/a", "face"), ("else/where/b", "metrics"), ("c", "metrics"), ("c/inside", "face")] {
        let folder = root.path().join(folder);
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("case.json"), format!("{{\"case\": \"{kind}\"}}")).unwrap();
    }
    let found = |kind: &str| -> Vec<PathBuf> {
        let cases = find::of_kind(find::cases_in(root.path()), kind).into_iter();
        cases.map(|(folder, _)| folder.strip_prefix(root.path()).unwrap().to_path_buf()).collect()
    };
    assert_eq!(found("metrics"), [Path::new("c"), Path::new("else/where/b")]);
    assert_eq!(found("face"), [Path::new("c/inside"), Path::new("metrics/a")]);
}

#[test]
fn a_folder_that_is_named_must_be_there() {
    let (here, nowhere) = (PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from("/no/such/folder"));
    assert_eq!(find::chosen("X", Some(here.clone()), nowhere.clone()), Some(here.clone()));
    assert_eq!(find::chosen("X", None, here.clone()), Some(here.clone()));
    assert_eq!(find::chosen("X", None, nowhere.clone()), None);
    let failure = std::panic::catch_unwind(|| find::chosen("SYNCDIFF_X", Some(nowhere), here)).unwrap_err();
    let message = failure.downcast_ref::<String>().expect("a message");
    for word in ["SYNCDIFF_X", "/no/such/folder", "unset"] {
        assert!(message.contains(word), "{word}: {message}");
    }
}

#[test]
fn tolerances_are_read_as_the_cases_write_them() {
    for (text, abs, rel) in [
        ("abs 5e-5 + rel 1e-4", 5e-5, 1e-4),
        ("rel 1e-3 of max", 0.0, 1e-3),
        ("abs 2e-5 (indices exact where index_margin > 1e-5)", 2e-5, 0.0),
        ("0.5 px mean", 0.5, 0.0),
        ("exact to 1e-12", 1e-12, 0.0),
        ("exact", 0.0, 0.0),
    ] {
        assert_eq!(Tolerance::read(text), Tolerance { abs, rel }, "{text}");
    }
    assert_eq!(find::number_before("abs 1e-3 (f32 FFT) or abs 1e-5 (f64 pipeline)", "(f64"), Some(1e-5));
    assert_eq!(find::number_after("mean abs diff < 2e-5, max < 2e-3", "max < "), Some(2e-3));
    assert!(std::panic::catch_unwind(|| Tolerance::read("small")).is_err());
}

#[test]
fn what_is_stored_and_not_read_is_noticed() {
    let (reads, case) = (find::Reads::default(), Path::new("case"));
    reads.note("in.x");
    let assert = |stored: &[&str], left: &[(&str, &str)]| {
        let check = std::panic::AssertUnwindSafe(|| reads.assert_all(case, stored.iter().copied(), left));
        std::panic::catch_unwind(check).is_ok()
    };
    assert!(assert(&["in.x"], &[]));
    assert!(assert(&["in.x", "out.y", "out.z"], &[("out.*", "a reason")]));
    assert!(!assert(&["in.x", "out.y"], &[("out.z", "of another")]));
    assert!(!assert(&["in.x"], &[("in.*", "a list that is wrong")]));
}
