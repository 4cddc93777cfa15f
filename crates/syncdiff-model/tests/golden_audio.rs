//! Speech features, audio encoder, AudioNet and temporal filter against the original implementations.

mod common;

use burn::tensor::{Device, Tensor};
use common::{Golden, assert_close, goldens, values};
use syncdiff_model::audio::filterbank::{NUM_CEPSTRA, log_filterbank, mfcc, normalise, stack};
use syncdiff_model::audio::{AudioEncoder, AudioEncoderConfig, AudioNet, TemporalFilter};
use syncdiff_model::baselines::LandmarkNet;
use syncdiff_model::weights::{Remap, TensorMap, load_into, module_tensors};

fn waves(golden: &Golden) -> Vec<(usize, Vec<i16>)> {
    let wave = |i: usize| golden.i64(&format!("in.wav{i}")).into_iter().map(|sample| sample as i16).collect();
    (0..).take_while(|i| golden.has(&format!("in.wav{i}"))).map(|i| (i, wave(i))).collect()
}

fn front_end(golden: &Golden) {
    // f32 storage rounds values up to 32 by 2e-6.
    let bank = golden.tolerance_before("logfbank", " (f64 pipeline)");
    for (i, wave) in waves(golden) {
        let bands = log_filterbank(&wave);
        assert_eq!(golden.shape(&format!("out.logfbank{i}")), [bands.len(), 26]);
        assert_close("logfbank", bands.as_flattened(), &golden.f32(&format!("out.logfbank{i}")), bank, 0.0);
        let mut rows = stack(&bands);
        assert_close("stacked", rows.as_flattened(), &golden.f32(&format!("out.stacked{i}")), bank, 0.0);
        rows.iter_mut().for_each(normalise);
        golden.assert_values(&format!("out.features{i}"), rows.as_flattened(), "features");
        let cepstra = mfcc::<NUM_CEPSTRA>(&wave);
        golden.assert_values(&format!("out.mfcc{i}"), cepstra.as_flattened(), "mfcc");
    }
}

fn encoder(golden: &Golden, device: &Device) -> AudioEncoder {
    let size = |name: &str| golden.number(&format!("/config/encoder/{name}"));
    let config = AudioEncoderConfig {
        dim: size("dim"),
        num_layers: size("layers"),
        num_heads: size("heads"),
        feed_forward_dim: size("ffn"),
        position_kernel: size("conv_pos"),
        position_groups: size("groups"),
        dropout: 0.0,
        num_frozen_layers: 0,
        final_norm: true,
        ..AudioEncoderConfig::base()
    };
    load_into(config.init(device).unwrap(), golden.weights(), &AudioEncoder::remap()).unwrap()
}

fn audio_encoder_layers(golden: &Golden) {
    let device = Device::default();
    let encoder = encoder(golden, &device);
    for (i, _) in waves(golden) {
        let rows = golden.tensor::<2>(&format!("out.features{i}"), &device).unsqueeze::<3>();
        // The case states no tolerance of what lies before the layers.
        encoder.forward_traced(rows.clone(), &mut |stage, x| match stage {
            "layer_norm" => golden.assert_within(&format!("mid.fused_layer_norm{i}"), x.clone(), "layers"),
            "post_extract_proj" => golden.assert_within(&format!("mid.post_extract_proj{i}"), x.clone(), "layers"),
            "pos_conv" => {
                golden.assert_within(&format!("mid.pos_conv_T_last{i}"), x.clone().swap_dims(1, 2), "layers");
            }
            _ => {}
        });
        let output = encoder.forward_layers(rows, None);
        for (l, layer) in output.layers.into_iter().enumerate() {
            golden.assert_within(&format!("out.layer{}_{i}", l + 1), layer, "layers");
        }
        golden.assert_within(&format!("out.final{i}"), output.last, "final");
    }
}

fn audio_encoder_padded_batch(golden: &Golden) {
    let device = Device::default();
    let encoder = encoder(golden, &device);
    let (padding, shape) = (golden.i64("out.padding_mask"), golden.shape("out.padding_mask"));
    let [batch, time] = [shape[0], shape[1]];
    let mut lengths = Vec::new();
    let mut utterances = Vec::new();
    for i in 0..batch {
        let length = padding[i * time..][..time].iter().filter(|flag| **flag == 0).count();
        let rows = golden.tensor::<2>(&format!("out.features{i}"), &device).unsqueeze::<3>();
        // Large values in the padding: nothing of it may reach the rest.
        let filler = Tensor::<3>::ones([1, time - length, 104], &device) * 50.0;
        utterances.push(if length == time { rows } else { Tensor::cat(vec![rows, filler], 1) });
        lengths.push(length);
    }
    let output = values(encoder.forward(Tensor::cat(utterances, 0), Some(&lengths)));
    let (want, dim) = (golden.f32("out.final_padded_batch"), output.len() / batch / time);
    for (i, length) in lengths.into_iter().enumerate() {
        let range = i * time * dim..(i * time + length) * dim;
        assert_close("padded batch", &output[range.clone()], &want[range], golden.tolerance("final").abs, 0.0);
    }
}

/// All gradients of a module, under the names of the original.
fn gradients<M: burn::module::Module>(module: &M, grads: &burn::tensor::Gradients, remap: &Remap) -> TensorMap {
    struct Gradients<'a>(&'a burn::tensor::Gradients);
    impl burn::module::ModuleMapper for Gradients<'_> {
        fn map_float<const D: usize>(
            &mut self,
            param: burn::module::Param<Tensor<D>>,
        ) -> burn::module::Param<Tensor<D>> {
            let grad = param.val().grad(self.0);
            param.map(|value| grad.unwrap_or_else(|| value.inner().zeros_like()))
        }
    }
    module_tensors(&module.clone().map(&mut Gradients(grads)), remap)
}

fn assert_gradients(golden: &Golden, prefix: &str, found: &TensorMap) {
    let names: Vec<&str> = golden.io.keys().filter_map(|name| name.strip_prefix(prefix)).collect();
    let parameters: Vec<&&str> = names.iter().filter(|name| found.contains_key(**name)).collect();
    assert!(!parameters.is_empty(), "{prefix}: {names:?}");
    for name in parameters {
        let want = golden.f32(&format!("{prefix}{name}"));
        let largest = want.iter().fold(0.0f32, |most, value| most.max(value.abs()));
        assert_eq!(found[*name].shape(), golden.shape(&format!("{prefix}{name}")));
        assert_close(
            name,
            &found[*name].to_f32().unwrap(),
            &want,
            golden.tolerance("grad").rel * f64::from(largest),
            0.0,
        );
    }
}

fn audio_encoder_gradients(golden: &Golden) {
    let device = Device::default().autodiff();
    let encoder = encoder(golden, &device);
    let rows = golden.tensor::<2>("out.features0", &device).unsqueeze::<3>();
    let output = encoder.forward(rows, None);
    let [_, time, dim] = output.dims();
    let probe = golden.tensor::<2>("in.probe", &device).narrow(0, 0, time).unsqueeze::<3>();
    let loss = (output * probe).sum() / (time * dim) as f64;
    let found = gradients(&encoder, &loss.backward(), &AudioEncoder::remap());
    assert_gradients(golden, "grad.", &found);
}

fn temporal_filter(golden: &Golden) {
    let device = Device::default().autodiff();
    for (name, config) in golden.case["config"].as_object().unwrap() {
        let number = |path: &str| config.pointer(path).and_then(serde_json::Value::as_u64);
        let (Some(attended), Some(window)) = (number("/kw/dim_aud"), number("/S")) else { continue };
        if !golden.has(&format!("in.{name}")) {
            continue;
        }
        let filter = TemporalFilter::new(window as usize, attended as usize, &device).unwrap();
        let filter = load_into(filter, &golden.weights_under(&format!("{name}.")), &TemporalFilter::remap()).unwrap();
        let x = golden.tensor::<3>(&format!("in.{name}"), &device).require_grad();
        golden.assert_within(&format!("out.{name}.weights"), filter.weights(x.clone()), "out");
        let y = filter.forward(x.clone());
        golden.assert_within(&format!("out.{name}"), y.clone(), "out");
        let grads = (y.clone() * y).mean().backward();
        golden.assert_grad_close(&format!("grad.{name}.x"), x.grad(&grads).unwrap(), "grad");
        let found = gradients(&filter, &grads, &TemporalFilter::remap());
        assert_gradients(golden, &format!("grad.{name}."), &found);
    }
}

fn audio_net_and_the_chain_with_the_filter(golden: &Golden) {
    let device = Device::default();
    let net = |name: &str, dim: usize| {
        let weights = golden.weights_under(&format!("{name}."));
        load_into(AudioNet::new(dim, &device), &weights, &AudioNet::remap()).unwrap()
    };
    let dims: Vec<usize> =
        golden.io.keys().filter_map(|name| name.strip_prefix("out.audionet")?.parse().ok()).collect();
    assert!(!dims.is_empty());
    for dim in dims {
        let (net, x) = (net(&format!("audionet{dim}"), dim), golden.tensor::<3>("in.ds", &device));
        golden.assert_within(&format!("mid.audionet{dim}.conv"), net.convolved(x.clone()), "out");
        golden.assert_within(&format!("out.audionet{dim}"), net.forward(x), "out");
        // How far AD-NeRF's network is from DiffTalk's: what equals the one equals the other.
        assert_eq!(golden.f32(&format!("out.adnerf_audionet{dim}_diff")), [0.0]);
    }
    let landmarks = golden.tensor::<2>("in.landmarks", &device);
    let marks = load_into(LandmarkNet::new(&device), &golden.weights_under("ldmnet."), &LandmarkNet::remap());
    golden.assert_within("out.ldmnet", marks.unwrap().forward(landmarks), "out");
    // The chain is that of the filter which looks at a part of its channels.
    let configs = golden.case["config"].as_object().unwrap();
    let (name, config) = configs.iter().find(|(name, _)| name.starts_with("difftalk")).expect("DiffTalk's filter");
    let number = |path: &str| config.pointer(path).and_then(serde_json::Value::as_u64).expect("a number") as usize;
    let (attended, dim) = (number("/kw/dim_aud"), number("/D"));
    let smooth = golden.tensor::<4>("in.audio_smooth", &device);
    let [batch, window, rows, characters] = smooth.dims();
    let codes = net(&format!("audionet{dim}"), dim).forward(smooth.reshape([batch * window, rows, characters]));
    let filter = TemporalFilter::new(window, attended, &device).unwrap();
    let filter = load_into(filter, &golden.weights_under(&format!("{name}.")), &TemporalFilter::remap()).unwrap();
    golden.assert_within("out.difftalk_chain", filter.forward(codes.reshape([batch, window, dim])), "out");
}

#[test]
fn golden_avhubert_audio() {
    for golden in goldens("avhubert_audio") {
        front_end(&golden);
        audio_encoder_layers(&golden);
        audio_encoder_padded_batch(&golden);
        audio_encoder_gradients(&golden);
        golden.assert_all_read(&[]);
    }
}

#[test]
fn golden_difftalk_audio() {
    for golden in goldens("difftalk_audio") {
        temporal_filter(&golden);
        audio_net_and_the_chain_with_the_filter(&golden);
        golden.assert_all_read(&[]);
    }
}
