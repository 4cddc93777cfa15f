//! The whole model at tiny size: parts, generation, weights folder.

#[path = "common/tiny.rs"]
mod tiny;

use std::sync::Arc;

use burn::module::Module;
use burn::tensor::{Device, Distribution, Tensor, Tolerance};
use syncdiff_model::denoiser::{BoundContext, LatentDenoiser, PriorConfig, TimeTable, VisualPriors};
use syncdiff_model::diffusion::{Denoiser, NoisePolicy};
use syncdiff_model::generate::{FrameSampler, Sampling};
use syncdiff_model::preset::PoseFeedback;
use syncdiff_model::unet::UNetConfig;
use syncdiff_model::weights::{Storage, module_shapes};
use syncdiff_model::{FrameGenerator, LipSync, LipSyncConfig, ModelError, Speaker};
use tiny::Ramp;

fn speech(seconds: f32) -> Vec<i16> {
    (0..(seconds * 16000.0) as usize)
        .map(|i| ((i as f32 * 0.1).sin() * 5000.0 * (i as f32 * 0.001).sin()) as i16)
        .collect()
}

fn crop(seed: u8) -> Vec<u8> {
    (0..32 * 32 * 3).map(|i| (i as u8).wrapping_mul(7).wrapping_add(seed)).collect()
}

fn random(config: &LipSyncConfig, device: &Device) -> Arc<LipSync> {
    Arc::new(LipSync::random(config, 1, device).unwrap())
}

/// A random model whose U-Net answers with more than noise.
fn lively(config: &LipSyncConfig, device: &Device) -> Arc<LipSync> {
    let model = LipSync::random(config, 1, device).unwrap();
    let denoiser = model.denoiser.map(&mut Ramp { pace: 1.0, ..Ramp::small() });
    Arc::new(LipSync::from_parts(config.clone(), model.autoencoder, denoiser, model.speech, device).unwrap())
}

/// Three frames, the second after the first, as a user would.
fn generate(model: &Arc<LipSync>, seed: u64) -> Vec<Vec<u8>> {
    let tokens = model.encode_speech(&speech(0.2), 5).unwrap();
    let speaker = model.speaker(tokens, &model.config().sampling(seed)).unwrap();
    let mut generator = speaker.start(&crop(1)).unwrap();
    (0..3).map(|frame| generator.next(&crop(2), frame).unwrap()).collect()
}

#[test]
fn parameter_counts_of_the_paper() {
    let config = LipSyncConfig::paper();
    let names = LatentDenoiser::remap(&config.unet);
    let denoiser = LatentDenoiser::new(&config.unet, config.priors, &Device::flex());
    let count = |prefix: bool| -> usize {
        module_shapes(&denoiser, &names)
            .iter()
            .filter(|(name, _)| name.starts_with("bottleneck") == prefix)
            .map(|(_, shape)| shape.iter().product::<usize>())
            .sum()
    };
    assert_eq!(count(false), 546_211_587);
    assert_eq!(count(true), 4, "3 -> 1 with bias");
    let rnd = UNetConfig { in_channels: PriorConfig::RND.in_channels(3), ..config.unet };
    let rnd = LatentDenoiser::new(&rnd, PriorConfig::RND, &Device::flex());
    let total: usize = module_shapes(&rnd, &names).values().map(|shape| shape.iter().product::<usize>()).sum();
    assert_eq!(total, 546_209_283, "no bottleneck, nine channels in");
}

#[test]
fn generation_is_a_function_of_its_seed_and_feeds_itself() {
    let device = Device::flex();
    let model = random(&tiny::lip_sync(), &device);
    let frames = generate(&model, 3);
    assert_eq!(frames, generate(&model, 3));
    assert_ne!(frames, generate(&model, 4));
    assert_eq!(frames[0].len(), 32 * 32 * 3);
    for feedback in [PoseFeedback::Decoded, PoseFeedback::Latent] {
        let model = random(&LipSyncConfig { feedback, ..tiny::lip_sync() }, &device);
        assert_eq!(generate(&model, 3).len(), 3);
    }
}

/// The sampling says what is fed back, whatever the model's own way is, and it matters from the second frame on.
#[test]
fn what_is_fed_back_can_be_chosen() {
    let device = Device::flex();
    let base = LipSyncConfig { noise: NoisePolicy::PerClip, ..tiny::lip_sync() };
    let random = LipSync::random(&base, 1, &device).unwrap();
    let denoiser = random.denoiser.clone().map(&mut Ramp { pace: 1.0, ..Ramp::small() });
    let made = |own: PoseFeedback, chosen: Option<PoseFeedback>| {
        let config = LipSyncConfig { feedback: own, ..base.clone() };
        let (autoencoder, speech_encoder) = (random.autoencoder.clone(), random.speech.clone());
        let model =
            Arc::new(LipSync::from_parts(config, autoencoder, denoiser.clone(), speech_encoder, &device).unwrap());
        let tokens = model.encode_speech(&speech(0.2), 5).unwrap();
        let sampling = model.config().sampling(3);
        let sampling = Sampling { feedback: chosen.unwrap_or(sampling.feedback), ..sampling };
        let speaker = model.speaker(tokens, &sampling).unwrap();
        let mut generator = speaker.start(&crop(1)).unwrap();
        (0..3).map(|frame| generator.next(&crop(2), frame).unwrap()).collect::<Vec<_>>()
    };
    let latent = made(PoseFeedback::Latent, None);
    let decoded = made(PoseFeedback::Latent, Some(PoseFeedback::Decoded));
    assert_eq!(decoded, made(PoseFeedback::Decoded, None));
    assert_eq!(latent, made(PoseFeedback::Decoded, Some(PoseFeedback::Latent)));
    assert_eq!(latent[0], decoded[0]);
    assert_ne!(latent[1], decoded[1]);
}

/// The ablations of the paper: each generates, and what it drew matters to the next frame where, and only where, it
/// sees previous frames.
#[test]
fn every_choice_of_visual_priors_generates() {
    let device = Device::flex();
    let tiny = tiny::lip_sync();
    for priors in [
        PriorConfig::RND,
        PriorConfig::PRV,
        PriorConfig::PRV_BOTTLENECK,
        PriorConfig::SYNCDIFF,
        PriorConfig { pose_frames: 5, ..PriorConfig::SYNCDIFF },
    ] {
        let unet = UNetConfig { in_channels: priors.in_channels(3), ..tiny.unet.clone() };
        let config = LipSyncConfig { priors, unet, noise: NoisePolicy::PerClip, ..tiny.clone() };
        let model = lively(&config, &device);
        let tokens = model.encode_speech(&speech(0.2), 5).unwrap();
        let speaker = model.speaker(tokens, &model.config().sampling(3)).unwrap();
        let mut generator = speaker.start(&crop(1)).unwrap();
        generator.next(&crop(2), 0).unwrap();
        let fed = generator.next(&crop(2), 1).unwrap();
        generator.restart();
        let alone = generator.next(&crop(2), 1).unwrap();
        assert_eq!(fed == alone, priors.pose_frames == 0, "{priors:?}");
    }
}

#[test]
fn guidance_exaggerates_what_the_speech_changes() {
    let device = Device::flex();
    let config = tiny::lip_sync();
    let model = lively(&config, &device);
    let denoiser = &model.denoiser;
    let noise = |shape: [usize; 4]| Tensor::<4>::random(shape, Distribution::Normal(0.0, 1.0), &device);
    let latent = || noise([2, 3, 8, 8]);
    let priors = VisualPriors { masked: latent(), identity: latent(), pose: vec![latent()] };
    let tokens = model.encode_speech(&speech(0.2), 5).unwrap();
    let conditioner = &model.speech.conditioner;
    let with = conditioner.tokens_of_frames(tokens.rows().clone(), &[1, 3]);
    let without = conditioner.mute_tokens(config.unet.context_dim, &device);
    let x = latent();
    let times = TimeTable::default();
    let ask = |context: Tensor<3>, weight: f32| {
        let guidance = denoiser.guidance(weight, || without.clone());
        let context = BoundContext::new(denoiser.prepare_context(context), guidance.as_ref());
        denoiser.bind_prepared(&priors, context, &times, config.prediction).denoise(x.clone(), &[900, 500])
    };
    let (plain, mute) = (ask(with.clone(), 1.0), ask(without.clone().expand(with.dims()), 1.0));
    let difference = (plain.clone() - mute.clone()).abs().max().into_scalar::<f32>();
    assert!(difference > 1e-4, "the speech must matter for this test: {difference}");
    let expected = mute.clone() + (plain - mute.clone()) * 2.5;
    ask(with.clone(), 2.5).into_data().assert_approx_eq::<f32>(&expected.into_data(), Tolerance::absolute(1e-4));
    ask(with, 0.0).into_data().assert_approx_eq::<f32>(&mute.into_data(), Tolerance::absolute(1e-4));

    let sampling = Sampling { guidance: f32::NAN, ..config.sampling(3) };
    assert!(model.speaker(tokens, &sampling).is_err());
}

/// What is looked at ahead and in batches gives the frames that come one by one, up to rounding.
#[test]
fn frames_looked_at_together_are_drawn_as_one_by_one() {
    let device = Device::flex();
    for (guidance, noise) in [(2.0, NoisePolicy::PerClip), (1.0, NoisePolicy::PerFrame)] {
        let model = lively(&LipSyncConfig { guidance, noise, ..tiny::lip_sync() }, &device);
        let tokens = model.encode_speech(&speech(0.8), 20).unwrap();
        let speaker = model.speaker(tokens, &model.config().sampling(3)).unwrap();
        let crops: Vec<(Vec<u8>, usize)> = [0, 1, 9, 19].map(|frame| (crop(frame as u8), frame)).to_vec();
        let mut generator = speaker.start(&crop(1)).unwrap();
        let alone: Vec<Vec<u8>> = crops.iter().map(|(crop, frame)| generator.next(crop, *frame).unwrap()).collect();
        let asked: Vec<(&[u8], usize)> = crops.iter().map(|(crop, frame)| (&crop[..], *frame)).collect();
        let mut generator = speaker.start(&crop(1)).unwrap();
        let seen = speaker.look(&asked, &mut |_| {}).unwrap();
        let drawn: Vec<_> = seen.into_iter().map(|seen| generator.draw(seen, &mut |_| {}).unwrap()).collect();
        for (drawn, alone) in drawn.into_iter().zip(&alone) {
            let apart = speaker.picture(drawn).iter().zip(alone).map(|(a, b)| a.abs_diff(*b)).max();
            assert!(apart <= Some(1), "{apart:?}");
        }
        // With and without speech one after the other, there is nothing left to halve.
        let sampler = speaker.sampler();
        let halve = || sampler.halve(sampler.images_at_once(1));
        assert_eq!((halve(), halve()), (guidance != 1.0, false));
        let mut generator = speaker.start(&crop(1)).unwrap();
        for ((crop, frame), alone) in crops.iter().zip(&alone) {
            let halved = generator.next(crop, *frame).unwrap();
            let apart = halved.iter().zip(alone).map(|(a, b)| a.abs_diff(*b)).max();
            assert!(apart <= Some(1), "{apart:?}");
        }
        assert_ne!(alone[1], alone[2]);
    }
}

/// Frames of several clips drawn as one batch are those that each clip gets alone, up to rounding, whatever part of the
/// batch fits into memory.
#[test]
fn frames_of_several_clips_are_drawn_as_one_batch() {
    let device = Device::flex();
    let tiny = tiny::lip_sync();
    for (guidance, noise, feedback, priors) in [
        (2.0, NoisePolicy::PerClip, PoseFeedback::Latent, PriorConfig::SYNCDIFF),
        (1.0, NoisePolicy::PerFrame, PoseFeedback::Decoded, PriorConfig { pose_frames: 2, ..PriorConfig::SYNCDIFF }),
        (3.0, NoisePolicy::PerFrame, PoseFeedback::Latent, PriorConfig::RND),
    ] {
        let unet = UNetConfig { in_channels: priors.in_channels(3), ..tiny.unet.clone() };
        let model = lively(&LipSyncConfig { guidance, noise, feedback, priors, unet, ..tiny.clone() }, &device);
        let sampler = Arc::new(FrameSampler::new(Arc::clone(&model), &model.config().sampling(3)).unwrap());
        // Three clips with a face, a speech and a moment of their own.
        let speakers: Vec<Speaker> = [0.2, 0.4, 0.8]
            .map(|secs| sampler.speaker(model.encode_speech(&speech(secs), (secs * 25.0) as usize).unwrap()))
            .into();
        let start = || speakers.iter().zip(1u8..).map(|(speaker, who)| speaker.start(&crop(who)).unwrap());
        let shown = |clip: usize, step: usize| (crop((10 * clip + step) as u8), clip + step);
        let alone: Vec<Vec<Vec<u8>>> = start()
            .enumerate()
            .map(|(clip, mut generator)| {
                let frame = |step| shown(clip, step);
                (0..3).map(|step| generator.next(&frame(step).0, frame(step).1).unwrap()).collect()
            })
            .collect();
        for most in [usize::MAX, 4, 1] {
            sampler.at_most(most);
            let mut generators: Vec<_> = start().collect();
            for step in 0..3 {
                let ask = |(clip, generator): (usize, &FrameGenerator<'_>)| {
                    let (crop, frame) = shown(clip, step);
                    generator.ask(speakers[clip].look(&[(&crop, frame)], &mut |_| {}).unwrap().remove(0))
                };
                let tasks: Vec<_> = generators.iter().enumerate().map(ask).collect();
                let drawn = sampler.draw(&tasks, &mut |_| {}).unwrap();
                for (clip, (generator, drawn)) in generators.iter_mut().zip(drawn).enumerate() {
                    let picture = speakers[clip].picture(generator.take(drawn));
                    let apart = picture.iter().zip(&alone[clip][step]).map(|(a, b)| a.abs_diff(*b)).max();
                    assert!(apart <= Some(1), "clip {clip}, frame {step}, at most {most}: {apart:?}");
                }
            }
        }
        assert!(alone[0][1] != alone[1][1] && alone[0][1] != alone[0][2]);
        // Three frames are halved until they come one by one, with and without speech apart.
        sampler.at_most(usize::MAX);
        let tried = sampler.images_at_once(3);
        let halvings = std::iter::repeat_with(|| sampler.halve(sampler.images_at_once(3))).take_while(|halved| *halved);
        assert_eq!((tried, halvings.count()), if guidance == 1.0 { (3, 1) } else { (6, 2) });
        // Who tried more than is allowed by now tries again.
        assert!(sampler.halve(tried) && sampler.images_at_once(3) == 1);
    }
}

#[test]
fn saved_weights_give_the_same_frames() {
    let device = Device::flex();
    let folder = tempfile::tempdir().unwrap();
    let model = random(&tiny::lip_sync(), &device);
    model.save(folder.path(), Storage::F32, "# tiny\n", "none").unwrap();
    let loaded = Arc::new(LipSync::load(folder.path(), &device).unwrap());
    assert_eq!(loaded.config(), model.config());
    assert_eq!(generate(&loaded, 3), generate(&model, 3));

    std::fs::write(folder.path().join("config.toml"), "name = 'other'").unwrap();
    let error = LipSync::load(folder.path(), &device).unwrap_err();
    assert!(matches!(error, ModelError::Weights { .. }), "{error}");
}

#[test]
fn speech_in_parts_equals_speech_at_once_away_from_the_joints() {
    let device = Device::flex();
    let model = LipSync::random(&tiny::lip_sync(), 1, &device).unwrap();
    let long = speech(62.0);
    let tokens = model.encode_speech(&long, 1550).unwrap();
    assert_eq!(tokens.num_frames(), 1550);
    assert!(model.encode_speech(&[], 0).is_err());
    assert_eq!(model.encode_speech(&[], 3).unwrap().num_frames(), 3, "no sound is silence");
}

#[test]
fn misfit_calls_are_errors() {
    let device = Device::flex();
    let model = random(&tiny::lip_sync(), &device);
    let tokens = model.encode_speech(&speech(0.2), 5).unwrap();
    let speaker = model.speaker(tokens, &model.config().sampling(0)).unwrap();
    assert!(speaker.start(&crop(1)[..100]).is_err());
    let mut generator = speaker.start(&crop(1)).unwrap();
    assert!(generator.next(&crop(1)[..100], 0).is_err());
    assert!(generator.next(&crop(1), 5).unwrap_err().to_string().contains("5 frames"));
    assert!(speaker.look(&[], &mut |_| {}).unwrap().is_empty());
}

/// Normalising the latents changes what is stored, not what is decoded.
#[test]
fn normalised_latents_decode_as_before() {
    let device = Device::flex();
    let model = LipSync::random(&tiny::lip_sync(), 1, &device).unwrap();
    let x = Tensor::random([2, 3, 32, 32], Distribution::Uniform(-1.0, 1.0), &device);
    let before = model.autoencoder.decode(model.autoencoder.encode(x.clone()));
    let z = model.autoencoder.encode(x.clone());
    let (mean, deviation) = ([0.1f32, -0.2, 0.3], [0.5f32, 0.25, 2.0]);
    let scaled = model.autoencoder.clone().with_normalised_latents(&mean, &deviation);
    let expected = (z.narrow(1, 1, 1) + 0.2) / 0.25;
    let difference = (scaled.encode(x.clone()).narrow(1, 1, 1) - expected).abs().max().into_scalar::<f32>();
    assert!(difference < 1e-4, "{difference}");
    let difference = (scaled.decode_quantized(scaled.encode(x.clone()))
        - model.autoencoder.decode_quantized(model.autoencoder.encode(x.clone())))
    .abs()
    .max()
    .into_scalar::<f32>();
    assert!(difference < 1e-4, "{difference}");
    assert_eq!(scaled.decode(scaled.encode(x)).dims(), before.dims());
}
