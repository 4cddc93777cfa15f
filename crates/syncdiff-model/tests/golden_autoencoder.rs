//! The autoencoder against latent-diffusion's `VQModelInterface`: encode, indices, decode, codebook loss, probes.

mod common;
#[path = "common/gradients.rs"]
mod gradients;

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use common::{Golden, goldens, values};
use syncdiff_model::autoencoder::{Autoencoder, AutoencoderConfig};
use syncdiff_model::weights::{Remap, load_into};

fn config(golden: &Golden) -> AutoencoderConfig {
    let mult = golden.case.pointer("/config/dd/ch_mult").and_then(|v| v.as_array()).expect("ch_mult");
    AutoencoderConfig {
        in_channels: golden.number("/config/dd/in_channels"),
        z_channels: golden.number("/config/dd/z_channels"),
        ch: golden.number("/config/dd/ch"),
        ch_mult: mult.iter().map(|v| v.as_u64().unwrap() as usize).collect(),
        num_res_blocks: golden.number("/config/dd/num_res_blocks"),
        n_embed: golden.number("/config/n_embed"),
        norm_groups: 32,
    }
}

fn load(golden: &Golden, device: &Device) -> Autoencoder {
    let model = Autoencoder::new(&config(golden), device);
    let remap = Remap::identity().ignoring(&["loss_disc"]);
    match &golden.weights {
        Some(weights) => load_into(model, weights, &remap).unwrap(),
        None => {
            let weights = golden.generated_weights("/weight_generator/model_tensors", "/weight_generator/seed");
            load_into(model, &weights, &remap).unwrap()
        }
    }
}

#[test]
fn golden_autoencoder_encode_quantise_decode() {
    let device = Device::flex();
    for golden in goldens("ldm_vq") {
        let model = load(&golden, &device);
        assert_eq!(model.num_params(), golden.number("/params"));
        let image: Tensor<4> = golden.tensor("in.image", &device);
        golden.assert_close("mid.encoder", model.encoder_features(image.clone()), 2e-5, 1e-4);
        let z = model.encode(image);
        golden.assert_close("out.prequant", z.clone(), 2e-5, 0.0);

        let quantized = model.quantize.quantize_for_training(z.clone());
        let margin = golden.f32("out.index_margin");
        let expected = golden.i64("out.indices");
        for (i, (&index, &expected)) in quantized.indices.iter().zip(&expected).enumerate() {
            assert!(index as i64 == expected || margin[i] < 1e-5, "position {i}: code {index}, expected {expected}");
        }
        golden.assert_close("out.quantised", quantized.z, 2e-5, 0.0);
        let loss = values(quantized.loss)[0];
        assert!((loss - golden.f32("out.codebook_loss")[0]).abs() < 2e-5, "codebook loss {loss}");

        golden.assert_close("out.decoded", model.decode(z.clone()), 2e-5, 0.0);
        golden.assert_close("out.decoded_not_quantised", model.decode_quantized(z), 2e-5, 0.0);
        let latent = golden.tensor("in.latent", &device);
        golden.assert_close("out.decoded_from_in_latent", model.decode(latent), 2e-5, 0.0);
    }
}

#[test]
fn golden_autoencoder_normalisation_probes() {
    let device = Device::flex();
    for golden in goldens("ldm_vq") {
        let model = load(&golden, &device);
        let x: Tensor<4> = golden.tensor("in.probe_x", &device);
        let (block, attention) = model.encoder_mid();
        golden.assert_close("out.probe_mid_block_1", block.forward(x.clone()), 1e-4, 0.0);
        golden.assert_close("out.probe_mid_attn_1", attention.forward(x), 1e-4, 0.0);
    }
}

/// Straight-through gradients of the reconstruction term reach the encoder, and only the codebook loss the codebook.
#[test]
fn straight_through_gradient() {
    let device = Device::flex().autodiff();
    device.seed(3);
    let config = AutoencoderConfig {
        ch: 8,
        ch_mult: vec![1, 2],
        num_res_blocks: 1,
        n_embed: 16,
        norm_groups: 4,
        ..AutoencoderConfig::paper()
    };
    let model = Autoencoder::new(&config, &device);
    let x = Tensor::random([1, 3, 16, 16], burn::tensor::Distribution::Uniform(-1.0, 1.0), &device);
    let quantized = model.quantize.quantize_for_training(model.encode(x.clone()));
    let grads = (model.decode_quantized(quantized.z) - x.clone()).abs().mean().backward();
    let named = gradients::gradients_by_name(&model, &grads, &Remap::identity());
    assert!(named["encoder.conv_in.weight"].0.iter().any(|g| *g != 0.0));
    assert!(!named.contains_key("quantize.embedding.weight"), "the codebook learns from its own loss only");
    let quantized = model.quantize.quantize_for_training(model.encode(x));
    let grads = quantized.loss.backward();
    let named = gradients::gradients_by_name(&model, &grads, &Remap::identity());
    assert!(named["quantize.embedding.weight"].0.iter().any(|g| *g != 0.0));
}

#[test]
fn parameter_count_of_the_paper() {
    let config = AutoencoderConfig::paper();
    assert_eq!(Autoencoder::new(&config, &Device::flex()).num_params(), 55_322_782);
    assert_eq!(config.factor(), 4);
}
