//! Every golden case has a test that knows its kind: what is compared is what lies there, not a fixed list.

mod common;

use std::path::Path;

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
    for (folder, case) in common::cases() {
        let kind = common::kind(&case);
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
