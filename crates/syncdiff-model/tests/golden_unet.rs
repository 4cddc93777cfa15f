//! The U-Net against latent-diffusion's `UNetModel`: outputs, every block, normalisation probes, gradients.

mod common;
#[path = "common/gradients.rs"]
mod gradients;
#[path = "common/unet_config.rs"]
mod unet_config;

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use common::{Golden, assert_close, goldens, values};
use syncdiff_model::unet::{UNet, UNetConfig, timestep_embedding};
use syncdiff_model::weights::load_into;
use unet_config::unet_config;

fn load(golden: &Golden, device: &Device) -> UNet {
    let config = unet_config(golden);
    load_into(UNet::new(&config, device), golden.weights(), &config.remap()).unwrap()
}

#[test]
fn golden_unet_outputs_and_blocks() {
    let device = Device::flex();
    for golden in goldens("ldm_unet") {
        let unet = load(&golden, &device);
        assert_eq!(unet.num_params(), golden.number("/params"));
        let x: Tensor<4> = golden.tensor("in.x", &device);
        let batch = x.dims()[0];
        let outputs: Vec<String> = golden.io.keys().filter(|k| k.starts_with("out.eps_K")).cloned().collect();
        assert!(!outputs.is_empty());
        for name in outputs {
            let (tokens, time) = name["out.eps_K".len()..].split_once("_t").expect("K and t in the name");
            let timesteps = match time {
                "mixed" => golden.i64("in.t_mixed").iter().map(|&t| t as usize).collect(),
                t => vec![t.parse::<usize>().unwrap(); batch],
            };
            let context: Tensor<3> = golden.tensor(&format!("in.context_K{tokens}"), &device);
            let prepared = unet.prepare_context(context.clone());
            let time = unet.prepare_timesteps(&timesteps, &device);
            let y = unet.forward(x.clone(), &timesteps, context);
            assert_eq!(
                y.to_data(),
                unet.forward_prepared(x.clone(), &time, &prepared).into_data(),
                "what is prepared changes nothing"
            );
            golden.assert_close(&name, y, 1e-5, 0.0);
        }
    }
}

/// The number that follows `key` in the description of a tensor.
fn described(golden: &Golden, name: &str, key: &str) -> usize {
    let meaning = golden.meaning(name);
    let tail = meaning.split_once(key).unwrap_or_else(|| panic!("{name}: no {key} in {meaning:?}")).1;
    let digits: String = tail.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().unwrap_or_else(|_| panic!("{name}: no number after {key} in {meaning:?}"))
}

/// The stored intermediates are those of one image with the tokens and timestep that the case names.
#[test]
fn golden_unet_intermediates() {
    let device = Device::flex();
    for golden in goldens("ldm_unet") {
        let unet = load(&golden, &device);
        let of = |key: &str| described(&golden, "mid.time_embed", key);
        let (image, tokens, timestep) = (of("batch element "), of("K="), of("t="));
        let x = golden.tensor::<4>("in.x", &device).narrow(0, image, 1);
        let context = golden.tensor::<3>(&format!("in.context_K{tokens}"), &device).narrow(0, image, 1);
        let table = timestep_embedding(&[timestep], golden.number("/config/unet/model_channels"));
        assert_close("mid.timestep_embedding", &table, &golden.f32("mid.timestep_embedding"), 5e-5, 1e-4);
        golden.assert_close("mid.time_embed", unet.embed_timesteps(&[timestep], &device), 5e-5, 1e-4);
        let mut compared = 2;
        unet.forward_traced(x, &[timestep], context, &mut |name, h| {
            let name = format!("mid.{name}");
            if golden.has(&name) {
                golden.assert_close(&name, h.clone(), 5e-5, 1e-4);
                compared += 1;
            }
        });
        let stored = golden.io.keys().filter(|name| name.starts_with("mid.")).count();
        assert_eq!(compared, stored, "every stored intermediate");
    }
}

#[test]
fn golden_unet_normalisation_probes() {
    let device = Device::flex();
    for golden in goldens("ldm_unet") {
        let unet = load(&golden, &device);
        let emb: Tensor<2> = golden.tensor("in.probe_emb", &device);
        let index = described(&golden, "in.probe_res_x", "input_blocks.");
        let block = unet.input_res_block(index).expect("a residual block");
        let y = block.forward(golden.tensor("in.probe_res_x", &device), syncdiff_kernels::silu(emb));
        golden.assert_close("out.probe_resblock", y, 1e-4, 0.0);
        let longest = golden.io.keys().filter(|k| k.starts_with("in.context_K")).max_by_key(|k| golden.shape(k)[1]);
        let context: Tensor<3> = golden.tensor(longest.expect("a context"), &device);
        let y = unet.middle_transformer().forward(golden.tensor("in.probe_st_x", &device), context.narrow(0, 0, 1));
        golden.assert_close("out.probe_spatial_transformer", y, 1e-4, 0.0);
    }
}

/// The parameter that a stored gradient belongs to.
fn parameter_of(key: &str, tokens: &str) -> Option<String> {
    let name = key.strip_prefix("grad.")?.strip_suffix(tokens)?.strip_suffix('_')?;
    (!["x", "context"].contains(&name)).then(|| name.to_owned())
}

#[test]
fn golden_unet_gradients() {
    let device = Device::flex().autodiff();
    for golden in goldens("ldm_unet") {
        let unet = load(&golden, &device);
        let remap = unet_config(&golden).remap();
        let timesteps: Vec<usize> = golden.i64("in.t_mixed").iter().map(|&t| t as usize).collect();
        for key in golden.io.keys().filter(|k| k.starts_with("in.context_K")) {
            let tokens = &key["in.context_".len()..];
            let x = golden.tensor::<4>("in.x", &device).require_grad();
            let context = golden.tensor::<3>(key, &device).require_grad();
            let target: Tensor<4> = golden.tensor("in.target", &device);
            let loss = (unet.forward(x.clone(), &timesteps, context.clone()) - target).powi_scalar(2).mean();
            let want = golden.f32(&format!("out.loss_{tokens}"));
            assert_close(&format!("out.loss_{tokens}"), &values(loss.clone().inner()), &want, 1e-5, 0.0);
            let grads = loss.backward();
            golden.assert_grad_close(&format!("grad.x_{tokens}"), x.grad(&grads).unwrap(), 1e-3);
            golden.assert_grad_close(&format!("grad.context_{tokens}"), context.grad(&grads).unwrap(), 1e-3);
            let named = gradients::gradients_by_name(&unet, &grads, &remap);
            let squares = named.values().flat_map(|(gradient, _)| gradient).map(|g| f64::from(*g).powi(2));
            let norm = squares.sum::<f64>().sqrt();
            let want = golden.f64(&format!("out.grad_norm_all_{tokens}"));
            common::assert_close_f64("global gradient norm", &[norm], &want, 0.0, 1e-3);
            // What has no gradient here has one of exactly 0 there.
            let zero = |name: &&String| !named.contains_key(*name);
            let stored: Vec<String> = golden.io.keys().filter_map(|k| parameter_of(k, tokens)).collect();
            for name in stored.iter().filter(zero) {
                assert!(golden.f32(&format!("grad.{name}_{tokens}")).iter().all(|g| *g == 0.0), "{name}");
            }
            let mut compared = 0;
            for (name, (gradient, shape)) in &named {
                let stored = format!("grad.{name}_{tokens}");
                if golden.has(&stored) {
                    assert_eq!(golden.shape(&stored), shape.as_slice(), "{stored}");
                    gradients::assert_gradient(&stored, gradient, &golden.f32(&stored), 2e-6, 1e-3);
                    compared += 1;
                }
            }
            assert!(compared >= 5, "{compared} parameter gradients compared for {tokens}");
        }
    }
}

#[test]
fn parameter_counts_of_the_paper() {
    let count = |in_channels: usize, model_channels: usize, context_dim: usize| {
        let config = UNetConfig { in_channels, model_channels, context_dim, ..UNetConfig::paper() };
        // Parameters are lazy: counting shapes allocates nothing.
        syncdiff_model::weights::module_shapes(&UNet::new(&config, &Device::flex()), &config.remap())
            .values()
            .map(|shape| shape.iter().product::<usize>())
            .sum::<usize>()
    };
    for (in_channels, model_channels, context_dim, parameters) in [
        (10, 256, 768, 546_211_587),
        (9, 256, 128, 530_152_963), // DiffTalk
        (7, 256, 768, 546_204_675),
        (9, 256, 768, 546_209_283),
        (14, 256, 768, 546_220_803),
        (19, 256, 768, 546_232_323),
        (10, 192, 768, 310_936_899),
        (10, 128, 768, 141_476_739),
        (10, 64, 768, 37_831_107),
    ] {
        assert_eq!(count(in_channels, model_channels, context_dim), parameters);
    }
}
