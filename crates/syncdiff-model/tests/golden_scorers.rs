//! SyncNet, Wav2Lip's networks and mel front end, and LPIPS against the original implementations.

mod common;

use burn::module::Module;
use burn::tensor::{Device, Tensor, TensorData};
use common::find::Tolerance;
use common::{Golden, assert_close_f64, find, generated_bytes, goldens, values};
use syncdiff_model::audio::mel::{
    Edges, MelSpectrogram, inference_chunk_starts, mel_filters, sync_chunk_start, training_chunk_starts,
};
use syncdiff_model::baselines::{ColourSyncNet, Wav2LipDiscriminator, Wav2LipGenerator};
use syncdiff_model::nn::conv_norm::count_learned;
use syncdiff_model::scorers::{Lpips, LpipsTrunk, SyncDistances, SyncNet};
use syncdiff_model::weights::{Remap, load_into};

/// What the tests of syncdiff-eval read.
const LEFT_OF_METRICS: [(&str, &str); 6] = [
    ("in.p*", "golden_picture"),
    ("out.p*", "golden_picture"),
    ("in.fid_*", "golden_features_and_words"),
    ("out.fid_*", "golden_features_and_words"),
    ("out.wer_*", "golden_features_and_words"),
    ("out.cer_*", "golden_features_and_words"),
];

/// Mean over all positions, [batch, channels].
fn channel_means(x: Tensor<4>) -> Tensor<2> {
    let [batch, channels, _, _] = x.dims();
    x.mean_dim(3).mean_dim(2).reshape([batch, channels])
}

/// Compares one stage of a network, by its largest value.
fn assert_stage(golden: &Golden, name: &str, x: Tensor<4>, allowed: Tolerance) -> bool {
    let name = format!("mid.{name}.channel_mean");
    let there = golden.has(&name);
    if there {
        golden.assert_near(&name, channel_means(x), allowed);
    }
    there
}

/// The lips of the case, [2, 3, 5, 224, 224]: coarse blocks and noise, `(3 low + noise) / 4` in whole numbers.
fn lips(golden: &Golden, device: &Device) -> Tensor<5> {
    let seed = golden.number("/seed") as u64;
    let (low, noise) =
        (generated_bytes("lip_low", seed, 30 * 14 * 14), generated_bytes("lip_noise", seed, 30 * 224 * 224));
    let value = |i: usize| {
        let (picture, y, x) = (i / (224 * 224), i / 224 % 224, i % 224);
        let low = u32::from(low[(picture * 14 + y / 16) * 14 + x / 16]);
        ((3 * low + u32::from(noise[i])) / 4) as f32
    };
    let data: Vec<f32> = (0..noise.len()).map(value).collect();
    let checksum = golden.f64("out.lip_input_checksum");
    assert_eq!(data.iter().map(|value| f64::from(*value)).sum::<f64>(), checksum[0], "the input of the lip stream");
    Tensor::from_data(TensorData::new(data, [2, 3, 5, 224, 224]), device)
}

fn syncnet(golden: &Golden) {
    let device = Device::flex();
    let net = SyncNet::new(&device);
    assert_eq!(count_learned(&net), golden.number("/params"));
    let weights = golden.generated_weights("/weight_generator/tensors", "/weight_generator/seed");
    let net = load_into(net, &weights, &SyncNet::remap()).unwrap();

    let (lips, sound) = (lips(golden, &device), golden.tensor::<4>("in.mfcc_window", &device));
    // The case states none for its stages: that of wav2lip's.
    let stage = Tolerance { abs: 0.0, rel: 1e-4 };
    let places = [2, 3, 6, 7, 10, 13, 16, 17, 20];
    let stages = [("netcnnlip", net.lip_stages(lips.clone())), ("netcnnaud", net.sound_stages(sound.clone()))];
    for (stream, outputs) in stages {
        assert_eq!(outputs.len(), places.len());
        for (place, x) in places.into_iter().zip(outputs) {
            assert!(assert_stage(golden, &format!("{stream}.{place}"), x, stage), "{stream}.{place}");
        }
    }
    golden.assert_within("out.lipfeat", net.lip_features(lips.clone()), "lip");
    golden.assert_within("out.lip", net.forward_lip(lips), "lip");
    golden.assert_within("out.aud", net.forward_aud(sound), "aud");
}

fn sync_distances(golden: &Golden) {
    let close = golden.tolerance("dists").abs;
    let clips = (0..).take_while(|i| golden.has(&format!("in.emb_lip{i}")));
    for i in clips {
        let dim = golden.shape(&format!("in.emb_lip{i}"))[1];
        let (lip, sound) = (golden.f32(&format!("in.emb_lip{i}")), golden.f32(&format!("in.emb_aud{i}")));
        let distances = SyncDistances::between(&lip, &sound, dim).unwrap();
        let number = |name: &str| golden.f64(&format!("out.{name}{i}"));
        assert_close_f64("distances", distances.rows.as_flattened(), &number("dists"), close, 0.0);
        assert_close_f64("means", &distances.mean, &number("mdist"), close, 0.0);
        let score = distances.score();
        assert_eq!(i64::from(score.offset_frames), golden.i64(&format!("out.offset{i}"))[0]);
        assert_close_f64("LSE-D", &[score.distance], &number("min_distance"), close, 0.0);
        assert_close_f64("LSE-C", &[score.confidence], &number("confidence"), close, 0.0);
    }
}

/// The network of a case with its generated weights.
fn wav2lip<M: Module>(golden: &Golden, name: &str, net: M, remap: &Remap) -> M {
    assert_eq!(count_learned(&net), golden.number(&format!("/params/{name}")));
    let table = format!("/weight_generator/models/{name}");
    let weights = golden.generated_weights(&format!("{table}/tensors"), &format!("{table}/seed"));
    load_into(net, &weights, remap).unwrap()
}

fn wav2lip_generator(golden: &Golden) {
    let device = Device::flex();
    let net = wav2lip(golden, "generator", Wav2LipGenerator::new(&device), &Wav2LipGenerator::remap());
    let (mel, faces) = (golden.tensor::<4>("in.mel", &device), golden.tensor::<4>("in.face_u8", &device) / 255.0);
    let stages = net.forward_stages(mel.clone(), faces.clone());
    let audio: Tensor<2> = stages.audio.flatten(1, 3);
    golden.assert_grad_close("mid.generator.audio_encoder", audio, "mid");
    for (part, outputs) in [("encoder", stages.encoder), ("decoder", stages.decoder)] {
        for (i, x) in outputs.into_iter().enumerate() {
            let name = format!("generator.face_{part}_blocks.{i}");
            assert!(assert_stage(golden, &name, x, golden.tolerance("mid")), "{name}");
        }
    }
    golden.assert_within("out.generator", stages.face, "generator");

    // Two frames a window, the second with the batch turned round; every eighth row and column is stored.
    let (batch, size, frames) = (faces.dims()[0], faces.dims()[2], 2);
    let mel = Tensor::stack(vec![mel.clone(), mel.flip([0])], 1);
    let faces = Tensor::stack(vec![faces.clone(), faces.flip([0])], 2);
    let found = net.forward_windows(mel, faces);
    assert_eq!(golden.shape("out.generator_5d"), [batch, 3, frames, size / 8, size / 8]);
    let found = values(found);
    let every_eighth: Vec<f32> = (0..batch * 3 * frames)
        .flat_map(|picture| (0..size * size).map(move |at| (picture, at / size, at % size)))
        .filter(|(_, y, x)| y % 8 == 0 && x % 8 == 0)
        .map(|(picture, y, x)| found[(picture * size + y) * size + x])
        .collect();
    golden.assert_values("out.generator_5d", &every_eighth, "generator");
}

fn wav2lip_expert_and_discriminator(golden: &Golden) {
    let device = Device::flex();
    let net = wav2lip(golden, "syncnet_color", ColourSyncNet::new(&device), &ColourSyncNet::remap());
    let mel = golden.tensor::<4>("in.mel", &device);
    let faces = golden.tensor::<4>("in.sync_face_u8", &device) / 255.0;
    golden.assert_within("out.sync_audio", net.forward_audio(mel.clone()), "sync");
    golden.assert_within("out.sync_face", net.forward_face(faces.clone()), "sync");
    golden.assert_within("out.sync_cosine", net.agreement(mel, faces), "sync");

    let net = Wav2LipDiscriminator::new(&device);
    let net = wav2lip(golden, "disc_qual", net, &Wav2LipDiscriminator::remap());
    // The reference faces, then the same from right to left.
    let faces = golden.tensor::<4>("in.face_u8", &device).narrow(1, 3, 3) / 255.0;
    let both = Tensor::cat(vec![faces.clone(), faces.flip([3])], 0);
    golden.assert_within("out.disc", net.forward(both), "disc");
}

fn mel(golden: &Golden) {
    let samples = golden.f32("in.wav");
    let bands = |columns: &[[f32; 80]]| -> Vec<f32> {
        (0..80).flat_map(|band| columns.iter().map(move |column| column[band])).collect()
    };
    let mel = MelSpectrogram::new(&samples, Edges::Reflect);
    let expected = "out.melspectrogram_reflect";
    assert_eq!(golden.shape(expected), [80, mel.columns().len()]);
    golden.assert_values(expected, &bands(mel.columns()), "mel");
    let mel = MelSpectrogram::new(&samples, Edges::Zeros);
    let edges = [&mel.columns()[..4], &mel.columns()[mel.columns().len() - 4..]].concat();
    golden.assert_values("out.melspectrogram_constant_edges", &bands(&edges), "mel");

    let filters = mel_filters();
    let rows: Vec<f64> = [0, 40, 79].iter().flat_map(|band| filters[*band]).collect();
    assert_close_f64("mel filters", &rows, &golden.f64("out.mel_basis_rows_0_40_79"), 1e-8, 1e-5);
    let sums: Vec<f64> = filters.iter().map(|filter| filter.iter().sum()).collect();
    assert_close_f64("mel filter sums", &sums, &golden.f64("out.mel_basis_row_sums"), 1e-7, 1e-5);
}

fn mel_chunks(golden: &Golden) {
    let starts = |name: &str| -> Vec<usize> { golden.i64(name).into_iter().map(|start| start as usize).collect() };
    let expected = starts("out.sync_window_start_train");
    assert_eq!((0..expected.len()).map(sync_chunk_start).collect::<Vec<_>>(), expected);
    let rows = golden.i64("out.generator_train_starts");
    for (frame, expected) in rows.chunks(5).enumerate() {
        let found = training_chunk_starts(frame).map_or([-1; 5], |starts| starts.map(|start| start as i64));
        assert_eq!(found, expected, "frame {frame}");
    }
    let columns = golden.shape("out.melspectrogram_reflect")[1];
    for name in golden.io.keys().filter(|name| name.starts_with("out.inference_starts_fps")) {
        let fps: f64 = name["out.inference_starts_fps".len()..].parse().unwrap();
        assert_eq!(inference_chunk_starts(columns, fps), starts(name), "{name}");
    }
}

fn lpips(golden: &Golden) {
    let device = Device::flex();
    for (trunk, name) in [(LpipsTrunk::Alex, "alex"), (LpipsTrunk::Vgg, "vgg")] {
        let Some(folder) = find::models("lpips") else { return };
        let net = Lpips::open(trunk, &folder, &device).unwrap();
        let groups: Vec<&str> = golden
            .io
            .keys()
            .filter_map(|key| key.strip_prefix(&format!("out.lpips_{name}."))?.strip_suffix(".per_layer"))
            .collect();
        assert!(!groups.is_empty());
        for group in groups {
            let picture = |side: &str| {
                golden.tensor::<4>(&format!("in.{group}.{side}"), &device).permute([0, 3, 1, 2]) / 127.5 - 1.0
            };
            let expected = format!("out.lpips_{name}.{group}");
            let terms = net.terms(picture("x"), picture("y"));
            golden.assert_within(&format!("{expected}.per_layer"), Tensor::stack::<2>(terms, 1), "lpips");
            golden.assert_within(&expected, net.forward(picture("x"), picture("y")), "lpips");
        }
    }
}

#[test]
fn golden_syncnet_s() {
    for golden in goldens("syncnet_s") {
        syncnet(&golden);
        sync_distances(&golden);
        golden.assert_all_read(&[]);
    }
}

#[test]
fn golden_wav2lip() {
    for golden in goldens("wav2lip") {
        wav2lip_generator(&golden);
        wav2lip_expert_and_discriminator(&golden);
        mel(&golden);
        mel_chunks(&golden);
        golden.assert_all_read(&[]);
    }
}

#[test]
fn golden_metrics() {
    for golden in goldens("metrics") {
        lpips(&golden);
        golden.assert_all_read(&LEFT_OF_METRICS);
    }
}
