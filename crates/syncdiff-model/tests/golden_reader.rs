//! Video front end, audio-visual encoder and lip reader against AV-HuBERT.

mod common;

use burn::tensor::activation::log_softmax;
use burn::tensor::{Device, Tensor};
use common::{Golden, assert_close, assert_close_f64, goldens, values};
use syncdiff_model::audio::AudioEncoderConfig;
use syncdiff_model::reader::decoder::position_code;
use syncdiff_model::reader::{BeamSearch, DecoderConfig, LipReader, LipReaderConfig};
use syncdiff_model::video::mouth_tensor;
use syncdiff_model::weights::load_into;

const RESNET: &str = "encoder.w2v_model.feature_extractor_video.resnet.";

fn reader(golden: &Golden, device: &Device) -> LipReader {
    let encoder = |name: &str| golden.number(&format!("/config/enc/{name}"));
    let decoder = |name: &str| golden.number(&format!("/config/dec/{name}"));
    let config = LipReaderConfig {
        encoder: AudioEncoderConfig {
            dim: encoder("dim"),
            num_layers: encoder("layers"),
            num_heads: encoder("heads"),
            feed_forward_dim: encoder("ffn"),
            position_kernel: encoder("conv_pos"),
            position_groups: encoder("groups"),
            dropout: 0.0,
            num_frozen_layers: 0,
            final_norm: true,
            ..AudioEncoderConfig::base()
        },
        decoder: DecoderConfig {
            dim: golden.weights()["decoder.layer_norm.weight"].shape()[0],
            num_layers: decoder("layers"),
            num_heads: decoder("heads"),
            feed_forward_dim: decoder("ffn"),
            vocabulary: decoder("vocab"),
            dropout: 0.0,
        },
    };
    let mut weights = golden.weights().clone();
    let generated = golden.generated_weights("/resnet_weight_generator/tensors", "/resnet_weight_generator/seed");
    weights.extend(generated.into_iter().map(|(name, tensor)| (format!("{RESNET}{name}"), tensor)));
    load_into(config.init(device).unwrap(), &weights, &LipReader::remap()).unwrap()
}

fn mouths(golden: &Golden, device: &Device) -> Tensor<4> {
    let [frames, height, width] = golden.shape("in.gray_u8")[..] else { panic!("frames, height, width") };
    let grey: Vec<u8> = golden.i64("in.gray_u8").into_iter().map(|value| value as u8).collect();
    mouth_tensor(&grey, frames, height, width, device).unwrap()
}

fn sentences(golden: &Golden, name: &str) -> Vec<Vec<usize>> {
    let tokens: Vec<usize> = golden.i64(name).into_iter().map(|token| token as usize).collect();
    tokens.chunks(golden.shape(name)[1]).map(<[usize]>::to_vec).collect()
}

fn mouth_pictures(golden: &Golden) {
    let device = Device::default();
    let mouths = mouths(golden, &device);
    let [_, rows, columns] = golden.shape("out.preprocessed_corner")[..] else { panic!("a corner of each frame") };
    let corner = mouths.clone().narrow(2, 0, rows).narrow(3, 0, columns).squeeze_dim::<3>(0);
    golden.assert_close("out.preprocessed_corner", corner, 1e-6, 1e-6);
    let all = values(mouths);
    let mean = all.iter().map(|value| f64::from(*value)).sum::<f64>() / all.len() as f64;
    assert_close_f64("mean", &[mean], &golden.f64("out.preprocessed_mean"), 1e-6, 0.0);
}

fn video_front_end(golden: &Golden) {
    let device = Device::default();
    let reader = reader(golden, &device);
    let front_end = reader.encoder().video();
    let mut compared = 0;
    let features = front_end.resnet().forward_traced(mouths(golden, &device), &mut |name, x| {
        let [frames, channels, height, width] = x.dims();
        let mean = x.clone().reshape([frames, channels, height * width]).mean_dim(2).squeeze_dim::<2>(2);
        golden.assert_within(&format!("mid.{name}.channel_mean"), mean, "resnet");
        compared += 1;
    });
    assert_eq!(compared, golden.io.keys().filter(|name| name.ends_with(".channel_mean")).count());
    golden.assert_within("out.resnet", features.swap_dims(1, 2), "resnet");
    let projected = front_end.forward(mouths(golden, &device));
    golden.assert_within("out.video_features", projected.swap_dims(1, 2), "resnet");
}

fn audio_visual_encoder(golden: &Golden) {
    let device = Device::default();
    let reader = reader(golden, &device);
    let output = reader.encoder().forward(None, Some(mouths(golden, &device)), None);
    for (i, layer) in output.layers.into_iter().enumerate() {
        golden.assert_within(&format!("out.encoder_layer{}", i + 1), layer, "encoder");
    }
    golden.assert_within("out.encoder", output.last, "encoder");
    let rows = golden.tensor::<2>("in.audio_features", &device).unsqueeze::<3>();
    let both = reader.encoder().forward(Some(rows), Some(mouths(golden, &device)), None);
    golden.assert_within("out.encoder_audio_visual", both.last, "encoder");
}

fn decoder_teacher_forced(golden: &Golden) {
    let device = Device::default();
    let reader = reader(golden, &device);
    let memory = reader.encode(mouths(golden, &device));
    let forced = sentences(golden, "in.prev_tokens");
    let [_, tokens, dim] = golden.shape("out.positions")[..] else { panic!("positions of a sentence") };
    let codes: Vec<f32> = (0..tokens).flat_map(|i| position_code(i + 2, dim)).collect();
    assert_close("positions", &codes, &golden.f32("out.positions"), 1e-5, 0.0);
    let mut layer = 0;
    let logits = reader.decoder().forward_traced(&forced, memory.clone(), None, &mut |x| {
        golden.assert_within(&format!("mid.decoder_inner{layer}"), x.clone(), "logits");
        layer += 1;
    });
    assert_eq!(layer, golden.io.keys().filter(|name| name.starts_with("mid.decoder_inner")).count());
    golden.assert_within("out.logits", logits.clone(), "logits");
    golden.assert_within("out.log_probs", log_softmax(logits, 2), "logits");

    let padded = sentences(golden, "in.prev_tokens_batch");
    let [batch, rows, vocabulary] = golden.shape("out.logits_padded_batch")[..] else { panic!("a batch") };
    let [_, time, width] = memory.dims();
    let logits = values(reader.decoder().forward(&padded, memory.expand([batch, time, width]), None));
    let want = golden.f32("out.logits_padded_batch");
    let padding = golden.number("/dictionary/pad");
    for (i, sentence) in padded.iter().enumerate() {
        let real = sentence.iter().take_while(|token| **token != padding).count();
        let range = i * rows * vocabulary..(i * rows + real) * vocabulary;
        assert_close(
            &format!("padded sentence {i}"),
            &logits[range.clone()],
            &want[range],
            golden.tolerance("logits").abs,
            0.0,
        );
    }
}

fn greedy_and_beam_search(golden: &Golden) {
    let device = Device::default();
    let reader = reader(golden, &device);
    let memory = reader.encode(mouths(golden, &device));
    let end = golden.number("/dictionary/eos") as i64;
    // The stored sentence begins with the end symbol; it may hold the one that ends it.
    let stored = golden.i64("out.greedy_tokens");
    assert_eq!(stored[0], end);
    let want: Vec<usize> = stored[1..].iter().take_while(|t| **t != end).map(|t| *t as usize).collect();
    assert_eq!(reader.greedy(memory.clone(), stored.len() - 1), want);

    // A search of any width finds nothing worse than one of width 1 by its own measure of a sentence.
    let settings = BeamSearch { beam: 5, length_penalty: 1.0, max_len: memory.dims()[1] };
    let found = reader.beam_search(memory.clone(), &settings).unwrap();
    assert!(found.is_sorted_by(|a, b| a.score >= b.score) && found.len() == 5);
    for hypothesis in found {
        let sentence = [&[end as usize], &hypothesis.tokens[..]].concat();
        let log_probs = log_softmax(reader.decoder().forward(&[sentence], memory.clone(), None), 2);
        let [_, rows, vocabulary] = log_probs.dims();
        let table = values(log_probs);
        let next = hypothesis.tokens.iter().copied().chain([end as usize]);
        let sum: f64 = next.enumerate().map(|(row, token)| f64::from(table[row * vocabulary + token])).sum();
        assert_close_f64("score", &[hypothesis.score], &[sum / rows as f64], 1e-4, 0.0);
    }
}

#[test]
fn golden_avhubert_video() {
    for golden in goldens("avhubert_video") {
        mouth_pictures(&golden);
        video_front_end(&golden);
        audio_visual_encoder(&golden);
        decoder_teacher_forced(&golden);
        greedy_and_beam_search(&golden);
        golden.assert_all_read(&[]);
    }
}
