//! The autoencoder against latent-diffusion's `VQModelInterface`: encode, indices, decode, codebook loss, probes.

mod common;
#[path = "common/gradients.rs"]
mod gradients;
#[path = "common/tiny.rs"]
mod tiny;

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use common::find::{Tolerance, number_after};
use common::{Golden, goldens, values};
use syncdiff_model::autoencoder::discriminator::{ADVERSARIAL_WEIGHT, adaptive_weight, deception_loss, hinge_loss};
use syncdiff_model::autoencoder::{Autoencoder, AutoencoderConfig, PatchDiscriminator};
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

fn autoencoder_encode_quantise_decode(golden: &Golden) {
    let device = Device::flex();
    let model = load(golden, &device);
    assert_eq!(model.num_params(), golden.number("/params"));
    let image: Tensor<4> = golden.tensor("in.image", &device);
    let (block, attention) = model.encoder_mid();
    let mut deepest = None;
    let features = model.encoder_features(image.clone(), &mut |level, h| {
        let name = format!("mid.encoder.down.{level}.downsample");
        if golden.has(&name) {
            golden.assert_within(&name, h.clone(), "mid");
        }
        deepest = Some(h.clone());
    });
    let deepest = deepest.expect("at least one level");
    golden.assert_within("mid.encoder.mid.attn_1", attention.forward(block.forward(deepest)), "mid");
    golden.assert_within("mid.encoder", features, "mid");
    let z = model.encode(image);
    golden.assert_within("out.prequant", z.clone(), "out");

    let quantized = model.quantize.quantize_for_training(z.clone());
    let margin = golden.f32("out.index_margin");
    let safe = number_after(Tolerance::text(&golden.case, "out"), "index_margin > ").expect("a margin") as f32;
    let expected = golden.i64("out.indices");
    for (i, (&index, &expected)) in quantized.indices.iter().zip(&expected).enumerate() {
        assert!(index as i64 == expected || margin[i] <= safe, "position {i}: code {index}, expected {expected}");
    }
    golden.assert_within("out.quantised", quantized.z, "out");
    golden.assert_values("out.codebook_loss", &values(quantized.loss), "out");

    golden.assert_within("out.decoded", model.decode(z.clone()), "out");
    golden.assert_within("out.decoded_not_quantised", model.decode_quantized(z), "out");
    let latent = golden.tensor("in.latent", &device);
    golden.assert_within("out.decoded_from_in_latent", model.decode(latent), "out");
}

fn autoencoder_normalisation_probes(golden: &Golden) {
    let device = Device::flex();
    let model = load(golden, &device);
    let x: Tensor<4> = golden.tensor("in.probe_x", &device);
    let (block, attention) = model.encoder_mid();
    golden.assert_within("out.probe_mid_block_1", block.forward(x.clone()), "probe");
    golden.assert_within("out.probe_mid_attn_1", attention.forward(x), "probe");
}

fn load_discriminator(golden: &Golden, device: &Device) -> PatchDiscriminator {
    let weights = match &golden.weights {
        Some(_) => golden.weights_under("loss_disc."),
        None => {
            golden.generated_weights("/weight_generator/discriminator_tensors", "/weight_generator/discriminator_seed")
        }
    };
    let [width, channels, _, _] = weights["main.0.weight"].shape()[..] else { panic!("a convolution") };
    load_into(PatchDiscriminator::new(channels, width, device), &weights, &PatchDiscriminator::remap()).unwrap()
}

/// The losses of adversarial training with their adaptive weight, and the gradients of the autoencoder's.
fn autoencoder_losses_and_gradients(golden: &Golden) {
    let device = Device::flex().autodiff();
    let model = load(golden, &device);
    let discriminator = load_discriminator(golden, &device);
    let x: Tensor<4> = golden.tensor("in.image", &device);
    // Losses and their weight are no outputs of about 1, for which the case's tolerance is meant: relative as well.
    let abs = golden.tolerance("out").abs;
    let scalar = |name: &str, found: f64| {
        common::assert_close_f64(name, &[found], &golden.f64(&format!("out.{name}")), abs, 1e-4);
    };
    let value = |loss: &Tensor<1>| f64::from(loss.clone().into_scalar::<f32>());
    // A graph is spent by one walk back: each of the three walks has its own.
    let losses = || {
        let quantized = model.quantize.quantize_for_training(model.encode(x.clone()));
        let rebuilt = model.decode_quantized(quantized.z);
        let reconstruction = (x.clone() - rebuilt.clone()).abs().mean();
        (reconstruction, deception_loss(discriminator.forward(rebuilt.clone())), quantized.loss, rebuilt)
    };
    let norm_at_last_layer = |loss: Tensor<1>| {
        let gradient = model.decoder.last_layer().weight.val().grad(&loss.backward()).expect("a gradient");
        f64::from(gradient.powi_scalar(2).sum().sqrt().into_scalar::<f32>())
    };
    let norms = (norm_at_last_layer(losses().0), norm_at_last_layer(losses().1));
    let weight = adaptive_weight(norms.0, norms.1, ADVERSARIAL_WEIGHT);
    let (reconstruction, deception, codebook, rebuilt) = losses();
    scalar("gen_nll_loss", value(&reconstruction));
    scalar("gen_g_loss", value(&deception));
    scalar("gen_quant_loss", value(&codebook));
    scalar("gen_d_weight", weight);
    let total = reconstruction + deception * weight + codebook;
    scalar("gen_total_loss", value(&total));
    let named = gradients::gradients_by_name(&model, &total.backward(), &Remap::identity());
    let names: Vec<&str> = golden.io.keys().filter_map(|name| name.strip_prefix("grad.")).collect();
    assert!(names.len() >= 4, "{names:?}");
    for name in names {
        let stored = format!("grad.{name}");
        let (gradient, shape) = &named[name];
        assert_eq!(golden.shape(&stored), shape.as_slice(), "{stored}");
        gradients::assert_gradient(&stored, gradient, &golden.f32(&stored), golden.tolerance("grad"));
    }

    let (real, fake) = (discriminator.forward(x.clone()), discriminator.forward(rebuilt.detach()));
    scalar("disc_logits_real_mean", value(&real.clone().mean()));
    scalar("disc_logits_fake_mean", value(&fake.clone().mean()));
    scalar("disc_loss", value(&hinge_loss(real, fake)));
}

/// Straight-through gradients of the reconstruction term reach the encoder, and only the codebook loss the codebook.
#[test]
fn straight_through_gradient() {
    let device = Device::flex().autodiff();
    device.seed(3);
    let model = Autoencoder::new(&tiny::autoencoder(), &device);
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

#[test]
fn golden_ldm_vq() {
    for golden in goldens("ldm_vq") {
        autoencoder_encode_quantise_decode(&golden);
        autoencoder_normalisation_probes(&golden);
        autoencoder_losses_and_gradients(&golden);
        golden.assert_all_read(&[]);
    }
}
