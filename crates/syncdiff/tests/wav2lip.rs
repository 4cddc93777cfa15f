//! `generate` with Wav2Lip in place of the model: the same crops, mask and paste. Untrained; what the mouths look like is
//! not looked at here.

mod common;

use burn::tensor::Device;
use common::{Stage, assert_done, assert_failed, face_models, syncdiff, text};
use serde_json::Value;
use syncdiff_model::baselines::{AboutWav2Lip, Wav2LipLite};

#[test]
fn wav2lip_draws_in_place_of_the_model_and_the_report_says_so() {
    let (Some(stage), Some(models)) = (Stage::set(), face_models()) else { return };
    let weights = stage.path("wav2lip.safetensors");
    let about = AboutWav2Lip { seed: 1, steps: 0, data: "none".into(), licence: "MIT".into(), syncnet: "none".into() };
    Wav2LipLite::new(&Device::flex()).save(&weights, &about).unwrap();
    let (out, report, clip) = (stage.path("out.mp4"), stage.path("report.json"), text(&stage.clip));
    let generate = |weights: &str| {
        let inputs =
            ["generate", "--weights", weights, "--face-models", text(&models), "--video", clip, "--audio", clip];
        syncdiff(&[&inputs[..], &["--device", "cpu", "--out", text(&out), "--report", text(&report)]].concat())
    };
    assert_done(&generate(text(&weights)));
    let report: Value = serde_json::from_slice(&std::fs::read(&report).unwrap()).unwrap();
    let model = &report["model"];
    assert_eq!((&model["name"], &model["licence"]), (&"wav2lip lite".into(), &"MIT".into()), "{model:#}");
    assert_eq!(model["crop_size_px"], 96);
    assert!(report["output"]["changed_frames"].as_u64().unwrap() > 10, "{:#}", report["output"]);

    // A file of something else is refused before anything is written.
    std::fs::remove_file(&out).unwrap();
    assert_failed(&generate(clip), 5, &["face.mp4"]);
    assert!(!out.exists());
}
