//! Networks in 16 bits, where there is a back end that has them: LibTorch's CPU
//! (`cargo test -p syncdiff-model --features libtorch --test precision`).
#![cfg(feature = "libtorch")]

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
    let rows = Tensor::<2>::ones([4, config.audio.dim], device) * 0.3;
    let tokens = model.speech.conditioner.mute_tokens(&rows);
    let condition = model.denoiser.condition(&VisualPriors { masked, identity, pose: vec![pose] });
    let answer = model.denoiser.forward(z.clone(), condition, &[400], tokens);
    [model.autoencoder.encode(picture), model.autoencoder.decode_quantized(z), answer]
        .map(|tensor| tensor.into_data().try_into_vec::<f32>().expect("results are f32"))
}

#[test]
#[allow(deprecated)] // Burn marks the whole back end so.
fn sixteen_bits_give_about_the_same() {
    let mut plain = LipSync::random(&tiny::lip_sync(), 2, &Device::flex()).unwrap();
    plain.denoiser = plain.denoiser.map(&mut Ramp { pace: 1.0, ..Ramp::small() });
    let folder = tempfile::tempdir().unwrap();
    plain.save(folder.path(), syncdiff_model::weights::Storage::F32, "", "none").unwrap();
    let want = answers(&plain, &Device::flex());
    let device = Device::libtorch();
    for (precision, tolerance) in [(Precision::F32, 1e-4), (Precision::F16, 1e-2), (Precision::Bf16, 6e-2)] {
        let model = LipSync::load(folder.path(), &device).unwrap().in_precision(precision).unwrap();
        for (what, (want, got)) in ["latent", "picture", "answer"].iter().zip(want.iter().zip(answers(&model, &device)))
        {
            let largest = want.iter().fold(0f32, |largest, value| largest.max(value.abs()));
            let off = want.iter().zip(&got).fold(0f32, |off, (a, b)| off.max((a - b).abs()));
            assert!(off <= tolerance * largest, "{what} in {precision}: off by {off}, largest value {largest}");
            assert!(precision == Precision::F32 || off > 0.0, "{what} was not computed in {precision}");
        }
    }
}
