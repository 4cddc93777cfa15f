//! The shipped recogniser's layers against what transformers makes of the same weights and sound.
//!
//! `tools/torch/moonshine.py` wrote sound and features.

use std::path::{Path, PathBuf};

use burn::tensor::{Device, Tensor, TensorData};
use syncdiff_model::LipSync;
use syncdiff_model::weights::{TensorMap, open_safetensors};

/// Largest difference, as a share of the largest value.
const TOLERANCE: f32 = 2e-5;

fn tensor<const D: usize>(tensors: &TensorMap, name: &str, device: &Device) -> Tensor<D> {
    let tensor = &tensors[name];
    Tensor::from_data(TensorData::new(tensor.to_f32().unwrap().to_vec(), tensor.shape()), device)
}

#[test]
fn features_are_those_of_the_published_encoder() {
    let here = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let expected = open_safetensors(&here.join("tests/fixtures/moonshine.safetensors")).unwrap();
    let device = Device::flex();
    let model = LipSync::load(&here.join(Path::new("../../models/lite")), &device).unwrap();
    let moonshine = model.speech.moonshine.expect("lite hears through Moonshine");
    let ours = moonshine.forward(tensor(&expected, "sound", &device));
    let theirs: Tensor<3> = tensor(&expected, "features", &device);
    assert_eq!(ours.dims(), theirs.dims());
    let largest = theirs.clone().abs().max().into_scalar::<f32>();
    let difference = (ours - theirs).abs().max().into_scalar::<f32>() / largest;
    assert!(difference < TOLERANCE, "{difference:e} of {largest}");
}
