//! Equal seeds give equal weights. In a program of its own: the back end has one generator for all threads, and other
//! tests would draw from it in between.

#[path = "common/tiny.rs"]
mod tiny;

use burn::tensor::Device;
use syncdiff_model::LipSync;
use syncdiff_model::weights::{Remap, module_tensors};

#[test]
fn equal_seeds_give_equal_weights() {
    let device = Device::flex();
    let weights = |seed: u64| {
        let model = LipSync::random(&tiny::lip_sync(), seed, &device).unwrap();
        let parts = [
            module_tensors(&model.autoencoder, &Remap::identity()),
            module_tensors(&model.denoiser, &Remap::identity()),
            module_tensors(&model.speech, &Remap::identity()),
        ];
        parts.map(|tensors| tensors.into_iter().map(|(name, t)| (name, t.to_f32().unwrap())).collect::<Vec<_>>())
    };
    let (first, second) = (weights(7), weights(7));
    for (a, b) in first.iter().flatten().zip(second.iter().flatten()) {
        assert!(a == b, "{}", a.0);
    }
    assert_ne!(first, weights(8));
}
