//! Networks in 16 bits: with bf16 weights on the CPU, and where it is built in on LibTorch's CPU
//! (`cargo test -p syncdiff-model --features libtorch --test precision`).

#[path = "common/tiny.rs"]
mod tiny;

use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::{Device, Distribution, Tensor};
use std::sync::{Mutex, MutexGuard, PoisonError};
use syncdiff_model::denoiser::VisualPriors;
use syncdiff_model::{LipSync, Precision};
use tiny::Ramp;

/// Latent of a picture, picture of a latent, and the denoiser's answer, all in f32.
fn answers(model: &LipSync, device: &Device) -> [Vec<f32>; 3] {
    tensors(model, device).map(|tensor| tensor.into_data().try_into_vec::<f32>().expect("results are f32"))
}

fn tensors(model: &LipSync, device: &Device) -> [Tensor<4>; 3] {
    let draw = |shape: [usize; 4]| Tensor::<4>::random(shape, Distribution::Uniform(-1.0, 1.0), &Device::flex());
    Device::flex().seed(5);
    let (config, size) = (model.config(), model.config().latent_size());
    let [picture, z, masked, identity, pose] = [
        draw([2, 3, config.crop_size, config.crop_size]),
        draw([2, 3, size, size]),
        draw([2, 3, size, size]),
        draw([2, 3, size, size]),
        draw([2, 3, size, size]),
    ]
    .map(|tensor| Tensor::<4>::from_data(tensor.into_data(), device));
    let tokens = model.speech.conditioner.mute_tokens(config.audio.dim, device);
    let condition = model.denoiser.condition(&VisualPriors { masked, identity, pose: vec![pose] });
    let answer = model.denoiser.forward(z.clone(), condition, &[400, 700], tokens.repeat_dim(0, 2));
    [model.autoencoder.encode(picture), model.autoencoder.decode_quantized(z), answer]
}

/// Weights and inputs are drawn from the one generator of the process.
fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
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

/// The gradients of all parameters of U-Net and autoencoder, which lie on this device as f32, with the networks made of
/// copies in another type.
fn gradients(plain: &LipSync, device: &Device, precision: Precision) -> Vec<(String, Vec<f32>)> {
    let device = &device.clone().autodiff();
    let folder = tempfile::tempdir().unwrap();
    plain.save(folder.path(), syncdiff_model::weights::Storage::F32, "", "none").unwrap();
    let mut model = LipSync::load(folder.path(), device).unwrap();
    let masters = (model.denoiser.clone(), model.autoencoder.clone());
    model.denoiser = model.denoiser.in_precision(precision);
    model.autoencoder = model.autoencoder.in_precision(precision);
    let loss = tensors(&model, device).map(|answer| (answer.clone() * answer).mean()).into_iter().reduce(|a, b| a + b);
    let gradients = GradientsParams::from_grads(loss.expect("answers").backward(), &masters);
    let mut named = Named { gradients, path: Vec::new(), found: Vec::new() };
    masters.visit(&mut named);
    named.found
}

struct Named {
    gradients: GradientsParams,
    path: Vec<String>,
    found: Vec<(String, Vec<f32>)>,
}

impl ModuleVisitor for Named {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.to_owned());
    }
    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(gradient) = self.gradients.get::<D>(param.id) {
            let values = gradient.into_data().try_into_vec::<f32>().expect("gradients of f32 weights are f32");
            self.found.push((self.path.join("."), values));
        }
    }
}

/// Each gradient is that of f32 but for such a share of its length: a wrong one would be off by about all of it.
fn compare_gradients(plain: &LipSync, device: &Device, precision: Precision, tolerance: f64) {
    let want = gradients(plain, &Device::flex(), Precision::F32);
    let found = gradients(plain, device, precision);
    assert!(want.len() > 100 && want.len() == found.len(), "{} and {}", want.len(), found.len());
    let largest = want.iter().flat_map(|(_, values)| values).fold(0f32, |most, value| most.max(value.abs()));
    for ((name, want), (_, found)) in want.iter().zip(&found) {
        let norm = |of: &mut dyn Iterator<Item = f32>| of.map(|v| f64::from(v).powi(2)).sum::<f64>().sqrt();
        let off = norm(&mut want.iter().zip(found).map(|(a, b)| a - b));
        // What nearly nothing depends on has a gradient of rounding alone.
        let scale = norm(&mut want.iter().copied()).max(f64::from(largest) * 1e-3 * (want.len() as f64).sqrt());
        assert!(off < tolerance * scale, "{name} in {precision}: off by {off} of {scale}");
    }
}

#[test]
fn gradients_through_bf16_weights_on_the_cpu_are_about_the_same() {
    let _turn = turn();
    compare_gradients(&plain(), &Device::flex(), Precision::Bf16, 0.5);
}

/// On a processor without instructions for them the products are computed one by one.
#[test]
fn bf16_weights_on_the_cpu_give_about_the_same() {
    let _turn = turn();
    let device = Device::flex();
    let mut model = plain();
    let want = answers(&model, &device);
    model.autoencoder = model.autoencoder.in_precision(Precision::Bf16);
    model.denoiser = model.denoiser.in_precision(Precision::Bf16);
    compare(&want, &model, &device, Precision::Bf16, 6e-2);
}

#[test]
#[cfg(feature = "libtorch")]
#[allow(deprecated)] // Burn marks the whole back end so.
fn sixteen_bits_give_about_the_same() {
    let _turn = turn();
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

#[test]
#[cfg(feature = "libtorch")]
#[allow(deprecated)]
fn gradients_through_sixteen_bits_are_about_the_same() {
    let (_turn, plain, device) = (turn(), plain(), Device::libtorch());
    for (precision, tolerance) in [(Precision::F32, 1e-3), (Precision::F16, 0.1)] {
        precision.check_learning(&device.clone().autodiff()).unwrap();
        compare_gradients(&plain, &device, precision, tolerance);
    }
    let refused = Precision::Bf16.check_learning(&device).unwrap_err().to_string();
    assert!(refused.contains("bf16") && refused.contains("f16"), "{refused}");
    assert!(Precision::Bf16.check(&device).is_ok(), "it may answer in bf16");
}
