//! Networks in 16 bits: with bf16 weights on the CPU, and where it is built in on LibTorch's CPU
//! (`cargo test -p syncdiff-model --features libtorch --test precision`).

#[path = "common/tiny.rs"]
mod tiny;

use burn::module::Module;
use burn::tensor::{Device, Distribution, Tensor};
use syncdiff_model::denoiser::VisualPriors;
use syncdiff_model::{LipSync, Precision};
use tiny::Ramp;

/// Latent of a picture, picture of a latent, and the denoiser's answer, all in f32.
fn answers(model: &LipSync, device: &Device) -> [Vec<f32>; 3] {
    let draw = |shape: [usize; 4]| Tensor::<4>::random(shape, Distribution::Uniform(-1.0, 1.0), &Device::flex());
    Device::flex().seed(5);
    let (config, size) = (model.config(), model.config().latent_size());
    let [picture, z, masked, identity, pose] = [
        draw([1, 3, config.crop_size, config.crop_size]),
        draw([1, 3, size, size]),
        draw([1, 3, size, size]),
        draw([1, 3, size, size]),
        draw([1, 3, size, size]),
    ]
    .map(|tensor| Tensor::<4>::from_data(tensor.into_data(), device));
    let tokens = model.speech.conditioner.mute_tokens(config.audio.dim, device);
    let condition = model.denoiser.condition(&VisualPriors { masked, identity, pose: vec![pose] });
    let answer = model.denoiser.forward(z.clone(), condition, &[400], tokens);
    [model.autoencoder.encode(picture), model.autoencoder.decode_quantized(z), answer]
        .map(|tensor| tensor.into_data().try_into_vec::<f32>().expect("results are f32"))
}

fn plain() -> LipSync {
    let mut model = LipSync::random(&tiny::lip_sync(), 2, &Device::flex()).unwrap();
    model.denoiser = model.denoiser.map(&mut Ramp { pace: 1.0, ..Ramp::small() });
    model
}

/// Answers that are off by at most a share of the largest value, and by something if they are of another type.
fn compare(want: &[Vec<f32>; 3], model: &LipSync, device: &Device, precision: Precision, tolerance: f32) {
    for (what, (want, got)) in ["latent", "picture", "answer"].iter().zip(want.iter().zip(answers(model, device))) {
        let largest = want.iter().fold(0f32, |largest, value| largest.max(value.abs()));
        let off = want.iter().zip(&got).fold(0f32, |off, (a, b)| off.max((a - b).abs()));
        assert!(off <= tolerance * largest, "{what} in {precision}: off by {off}, largest value {largest}");
        assert!(precision == Precision::F32 || off > 0.0, "{what} was not computed in {precision}");
    }
}

/// On a processor without instructions for them the products are computed one by one.
#[test]
fn bf16_weights_on_the_cpu_give_about_the_same() {
    let device = Device::flex();
    let mut model = plain();
    let want = answers(&model, &device);
    model.autoencoder = model.autoencoder.in_precision(Precision::Bf16);
    model.denoiser = model.denoiser.in_precision(Precision::Bf16);
    compare(&want, &model, &device, Precision::Bf16, 3e-2);
}

#[test]
#[cfg(feature = "libtorch")]
#[allow(deprecated)] // Burn marks the whole back end so.
fn sixteen_bits_give_about_the_same() {
    let plain = plain();
    let folder = tempfile::tempdir().unwrap();
    plain.save(folder.path(), syncdiff_model::weights::Storage::F32, "", "none").unwrap();
    let want = answers(&plain, &Device::flex());
    let device = Device::libtorch();
    for (precision, tolerance) in [(Precision::F32, 1e-4), (Precision::F16, 1e-2), (Precision::Bf16, 6e-2)] {
        let model = LipSync::load(folder.path(), &device).unwrap().in_precision(precision).unwrap();
        compare(&want, &model, &device, precision, tolerance);
    }
}
