//! Oracles of structure: what must hold of the networks whatever their weights are.

#[path = "common/tiny.rs"]
mod tiny;

use burn::module::Module;
use burn::tensor::{Device, Distribution, Tensor};
use syncdiff_model::audio::{AudioEncoderConfig, Conditioner, ConditioningConfig, ConditioningTokens};
use syncdiff_model::autoencoder::Autoencoder;
use syncdiff_model::denoiser::{LatentDenoiser, PriorConfig, VisualPriors};
use syncdiff_model::diffusion::{Denoiser, Prediction, Sampler, SamplerKind, Schedule, Spacing};
use syncdiff_model::unet::{UNet, UNetConfig};
use syncdiff_model::weights::{StoredTensor, TensorMap, load_into, module_tensors};
use tiny::Ramp;

fn config() -> UNetConfig {
    UNetConfig {
        model_channels: 16,
        channel_mult: vec![1, 2],
        num_res_blocks: 1,
        attention_resolutions: vec![2],
        num_head_channels: 8,
        context_dim: 6,
        norm_groups: 4,
        ..UNetConfig::paper()
    }
}

fn normal<const D: usize>(shape: [usize; D], device: &Device) -> Tensor<D> {
    Tensor::random(shape, Distribution::Normal(0.0, 1.0), device)
}

fn largest_difference<const D: usize>(a: Tensor<D>, b: Tensor<D>) -> f32 {
    (a - b).abs().max().into_scalar::<f32>()
}

#[test]
fn an_untrained_unet_says_exactly_zero() {
    let device = Device::flex();
    device.seed(1);
    let unet = UNet::new(&config(), &device);
    for tokens in [1, 3] {
        let y = unet.forward(normal([2, 10, 8, 8], &device), &[3, 500], normal([2, tokens, 6], &device));
        assert_eq!(y.dims(), [2, 3, 8, 8]);
        assert_eq!(y.abs().max().into_scalar::<f32>(), 0.0);
    }
}

/// With one token the softmax over the keys is 1: what is asked, and by which key it is found, makes no difference.
#[test]
fn with_one_token_cross_attention_does_not_depend_on_queries() {
    let device = Device::flex();
    device.seed(2);
    let (config, remap) = (config(), config().remap());
    let unet = UNet::new(&config, &device).map(&mut Ramp::small());
    let asked = |name: &str| {
        ["attn2.to_q.", "attn2.to_k.", "norm2."]
            .iter()
            .any(|part| name.contains(&format!("transformer_blocks.0.{part}")))
    };
    let mut changed = 0;
    let other: TensorMap = module_tensors(&unet, &remap)
        .into_iter()
        .map(|(name, tensor)| {
            if !asked(&name) {
                return (name, tensor);
            }
            changed += 1;
            let values: Vec<f32> = tensor.to_f32().unwrap().iter().map(|value| 2.0 - 3.0 * value).collect();
            let tensor = StoredTensor::from_f32(tensor.shape(), &values);
            (name, tensor)
        })
        .collect();
    assert_eq!(changed, 4 * 4, "four tensors of each of four transformers");
    let other = load_into(UNet::new(&config, &device), &other, &remap).unwrap();
    let x = normal([2, 10, 8, 8], &device);
    for tokens in [1, 2] {
        let context = normal([2, tokens, 6], &device);
        let [a, b] = [&unet, &other].map(|unet| unet.forward(x.clone(), &[10, 900], context.clone()));
        assert!(a.clone().abs().max().into_scalar::<f32>() > 1e-2, "the network must say something");
        assert_eq!(a.clone().into_data() == b.clone().into_data(), tokens == 1, "{tokens} tokens");
    }
}

fn denoiser(device: &Device) -> LatentDenoiser {
    LatentDenoiser::new(&config(), PriorConfig::SYNCDIFF, device).map(&mut Ramp::small())
}

fn priors(batch: usize, device: &Device) -> VisualPriors {
    let latent = || normal([batch, 3, 8, 8], device);
    VisualPriors { masked: latent(), identity: latent(), pose: vec![latent()] }
}

/// What is prepared once for all steps changes nothing, not even a bit.
#[test]
fn a_bound_denoiser_says_what_the_plain_path_says() {
    let device = Device::flex();
    device.seed(3);
    let denoiser = denoiser(&device);
    let priors = priors(2, &device);
    for tokens in [1, 4] {
        let (context, x) = (normal([2, tokens, 6], &device), normal([2, 3, 8, 8], &device));
        let bound = denoiser.bind(&priors, context.clone(), Prediction::Epsilon);
        for timesteps in [[999, 3], [500, 500]] {
            let plain =
                denoiser.forward(x.clone(), denoiser.condition(&priors), &timesteps, context.clone()).into_data();
            assert_eq!(bound.denoise(x.clone(), &timesteps).into_data(), plain, "{tokens} tokens");
        }
    }
}

#[test]
fn a_batch_equals_its_elements_one_by_one() {
    let device = Device::flex();
    device.seed(4);
    let denoiser = denoiser(&device);
    let autoencoder = Autoencoder::new(&tiny::autoencoder(), &device).map(&mut Ramp::small());
    let audio = AudioEncoderConfig {
        dim: 16,
        num_layers: 2,
        num_heads: 2,
        feed_forward_dim: 24,
        position_kernel: 5,
        position_groups: 2,
        num_frozen_layers: 0,
        ..AudioEncoderConfig::base()
    };
    let audio = audio.init(&device).unwrap();
    let conditioning = ConditioningConfig {
        dim: 6,
        window: 4,
        tokens: ConditioningTokens::Window,
        temporal_filter: true,
        attended_dim: None,
    };
    let conditioner: Conditioner = conditioning.init(&device).unwrap();

    let priors = priors(3, &device);
    let (x, context, timesteps) = (normal([3, 3, 8, 8], &device), normal([3, 2, 6], &device), [0, 400, 999]);
    let (picture, rows) = (normal([3, 3, 16, 16], &device), normal([3, 7, 104], &device));
    let windows = normal([3, 4, 6], &device);
    let condition = denoiser.condition(&priors);
    let said = denoiser.forward(x.clone(), condition.clone(), &timesteps, context.clone());
    let latent = autoencoder.encode(picture.clone());
    let decoded = autoencoder.decode_quantized(latent.clone());
    let heard = audio.forward(rows.clone(), None);
    let tokens = conditioner.forward(windows.clone());
    for i in 0..3 {
        fn one<const D: usize>(x: &Tensor<D>, i: usize) -> Tensor<D> {
            x.clone().narrow(0, i, 1)
        }
        let alone = denoiser.forward(one(&x, i), one(&condition, i), &timesteps[i..=i], one(&context, i));
        assert!(largest_difference(alone, one(&said, i)) < 1e-5);
        assert!(largest_difference(autoencoder.encode(one(&picture, i)), one(&latent, i)) < 1e-5);
        assert!(largest_difference(autoencoder.decode_quantized(one(&latent, i)), one(&decoded, i)) < 1e-5);
        assert!(largest_difference(audio.forward(one(&rows, i), None), one(&heard, i)) < 1e-5);
        assert!(largest_difference(conditioner.forward(one(&windows, i)), one(&tokens, i)) < 1e-5);
    }
}

/// The samplers take whole runs of a real network in every form of prediction.
#[test]
fn every_sampler_runs_a_network() {
    let device = Device::flex();
    device.seed(5);
    let denoiser = denoiser(&device);
    let priors = priors(1, &device);
    for prediction in [Prediction::Epsilon, Prediction::X0, Prediction::V] {
        let bound = denoiser.bind(&priors, normal([1, 1, 6], &device), prediction);
        for kind in
            [SamplerKind::Ddim, SamplerKind::DpmPlusPlus2m, SamplerKind::Lcm, SamplerKind::Euler, SamplerKind::Heun]
        {
            let sampler = Sampler { kind, num_steps: 3, spacing: Spacing::Trailing, eta: 0.0 };
            let start = normal([1, 3, 8, 8], &device);
            let end = sampler.sample(&bound, &Schedule::paper(), start.clone(), 1, &[0]).unwrap();
            assert_eq!(end.dims(), start.dims());
            let size = end.clone().abs().max().into_scalar::<f32>();
            assert!(size.is_finite() && largest_difference(end, start) > 1e-3, "{kind:?} {prediction:?}: {size}");
        }
    }
}
