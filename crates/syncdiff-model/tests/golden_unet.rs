//! The U-Net against latent-diffusion's `UNetModel`: outputs, every block, normalisation probes, gradients.

mod common;
#[path = "common/gradients.rs"]
mod gradients;

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use common::{Golden, goldens, values};
use syncdiff_model::unet::{UNet, UNetConfig};
use syncdiff_model::weights::load_into;

fn config(golden: &Golden) -> UNetConfig {
    let list = |path: &str| -> Vec<usize> {
        let items = golden.case.pointer(path).and_then(|v| v.as_array()).expect("a list in case.json");
        items.iter().map(|v| v.as_u64().expect("an integer") as usize).collect()
    };
    UNetConfig {
        in_channels: golden.number("/config/unet/in_channels"),
        out_channels: golden.number("/config/unet/out_channels"),
        model_channels: golden.number("/config/unet/model_channels"),
        channel_mult: list("/config/unet/channel_mult"),
        num_res_blocks: golden.number("/config/unet/num_res_blocks"),
        attention_resolutions: list("/config/unet/attention_resolutions"),
        num_head_channels: golden.number("/config/unet/num_head_channels"),
        context_dim: golden.number("/config/unet/context_dim"),
        norm_groups: 32,
    }
}

fn load(golden: &Golden, device: &Device) -> UNet {
    let config = config(golden);
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
            golden.assert_close(&name, unet.forward(x.clone(), &timesteps, context), 1e-5, 0.0);
        }
    }
}

/// The stored intermediates are those of the first image with one token at t = 500.
#[test]
fn golden_unet_intermediates() {
    let device = Device::flex();
    for golden in goldens("ldm_unet") {
        let unet = load(&golden, &device);
        let x = golden.tensor::<4>("in.x", &device).narrow(0, 0, 1);
        let context = golden.tensor::<3>("in.context_K1", &device).narrow(0, 0, 1);
        golden.assert_close("mid.time_embed", unet.embed_timesteps(&[500], &device), 5e-5, 1e-4);
        let mut compared = 0;
        unet.forward_traced(x, &[500], context, &mut |name, h| {
            golden.assert_close(&format!("mid.{name}"), h.clone(), 5e-5, 1e-4);
            compared += 1;
        });
        let stored =
            golden.io.keys().filter(|k| k.starts_with("mid.input_blocks") || k.starts_with("mid.output_blocks"));
        assert_eq!(compared, stored.count() + 1, "every stored block and the middle");
    }
}

#[test]
fn golden_unet_normalisation_probes() {
    let device = Device::flex();
    for golden in goldens("ldm_unet") {
        let unet = load(&golden, &device);
        let emb: Tensor<2> = golden.tensor("in.probe_emb", &device);
        let block = unet.input_res_block(1).expect("input_blocks.1 is a residual block");
        let y = block.forward(golden.tensor("in.probe_res_x", &device), syncdiff_kernels::silu(emb));
        golden.assert_close("out.probe_resblock", y, 1e-4, 0.0);
        let longest = golden.io.keys().filter(|k| k.starts_with("in.context_K")).max_by_key(|k| golden.shape(k)[1]);
        let context: Tensor<3> = golden.tensor(longest.expect("a context"), &device);
        let y = unet.middle_transformer().forward(golden.tensor("in.probe_st_x", &device), context.narrow(0, 0, 1));
        golden.assert_close("out.probe_spatial_transformer", y, 1e-4, 0.0);
    }
}

#[test]
fn golden_unet_gradients() {
    let device = Device::flex().autodiff();
    for golden in goldens("ldm_unet") {
        let unet = load(&golden, &device);
        let remap = config(&golden).remap();
        let timesteps: Vec<usize> = golden.i64("in.t_mixed").iter().map(|&t| t as usize).collect();
        for key in golden.io.keys().filter(|k| k.starts_with("in.context_K")) {
            let tokens = &key["in.context_".len()..];
            let x = golden.tensor::<4>("in.x", &device).require_grad();
            let context = golden.tensor::<3>(key, &device).require_grad();
            let target: Tensor<4> = golden.tensor("in.target", &device);
            let loss = (unet.forward(x.clone(), &timesteps, context.clone()) - target).powi_scalar(2).mean();
            let grads = loss.backward();
            golden.assert_grad_close(&format!("grad.x_{tokens}"), x.grad(&grads).unwrap(), 1e-3);
            golden.assert_grad_close(&format!("grad.context_{tokens}"), context.grad(&grads).unwrap(), 1e-3);
            let named = gradients::gradients_by_name(&unet, &grads, &remap);
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
    let count = |in_channels: usize, model_channels: usize| {
        let config = UNetConfig { in_channels, model_channels, ..UNetConfig::paper() };
        // Parameters are lazy: counting shapes allocates nothing.
        syncdiff_model::weights::module_shapes(&UNet::new(&config, &Device::flex()), &config.remap())
            .values()
            .map(|shape| shape.iter().product::<usize>())
            .sum::<usize>()
    };
    assert_eq!(count(10, 64), 37_831_107);
    assert_eq!(count(10, 128), 141_476_739);
}

#[test]
fn untrained_network_returns_zero_and_ignores_queries_with_one_token() {
    let device = Device::flex();
    device.seed(7);
    let config = UNetConfig {
        model_channels: 32,
        channel_mult: vec![1, 2],
        num_res_blocks: 1,
        attention_resolutions: vec![2],
        num_head_channels: 8,
        context_dim: 6,
        ..UNetConfig::paper()
    };
    let unet = UNet::new(&config, &device);
    let x = Tensor::random([2, 10, 8, 8], burn::tensor::Distribution::Default, &device);
    let context = Tensor::random([2, 3, 6], burn::tensor::Distribution::Default, &device);
    let y = unet.forward(x, &[3, 500], context);
    assert_eq!(y.dims(), [2, 3, 8, 8]);
    assert!(values(y).iter().all(|&v| v == 0.0));
}
