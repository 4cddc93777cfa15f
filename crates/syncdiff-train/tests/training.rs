//! The loop at tiny size: exact resume, and losses that fall.

#[path = "../../syncdiff-model/tests/common/tiny.rs"]
mod tiny;

use burn::module::Module;
use burn::tensor::Device;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use syncdiff_model::LipSyncConfig;
use syncdiff_model::audio::AudioEncoderConfig;
use syncdiff_model::autoencoder::Autoencoder;
use syncdiff_model::denoiser::LatentDenoiser;
use syncdiff_model::diffusion::{LossWeighting, Prediction, Schedule};
use syncdiff_model::unet::UNetConfig;
use syncdiff_model::weights::{Remap, module_tensors};
use syncdiff_train::{
    AutoencoderTask, AutoencoderTraining, DenoiserStage, DiffusionTask, DiffusionTraining, FrameSource, LIP_VALUES,
    LatentClip, LipReader, Shard, Sizes, SpeechAugmentation, SpeechClip, SpeechTask, SpeechTraining, Stats, Task,
    TrainOptions, TrainResult, train,
};

/// The tensor library has one random generator for the whole process: tests that draw from it take turns.
fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

fn options(steps: u64, batch_size: usize) -> TrainOptions {
    TrainOptions {
        steps,
        batch_size,
        learning_rate: 3e-3,
        warmup_steps: 2,
        final_rate: 1.0,
        weight_decay: 0.01,
        clip_norm: 1.0,
        ema_decay: 0.99,
        seed: 5,
        checkpoint_every: 1000,
        keep_checkpoints: 2,
        log_every: 1,
    }
}

/// Two smooth pictures.
struct Pictures;

impl FrameSource for Pictures {
    fn side(&self) -> usize {
        16
    }
    fn frame(&self, seed: u64) -> TrainResult<Vec<u8>> {
        let turn = seed.is_multiple_of(2);
        let pixel = |i: usize| {
            let (x, y) = (i % 16, i / 16);
            let (a, b) = if turn { (x, y) } else { (y, x) };
            [(a * 16) as u8, (b * 12) as u8, 120]
        };
        Ok((0..256).flat_map(pixel).collect())
    }
}

fn autoencoder_task(device: &Device) -> (AutoencoderTask<'static>, Autoencoder) {
    let device = device.clone().autodiff();
    device.seed(5);
    let model = Autoencoder::new(&tiny::autoencoder(), &device);
    let settings = AutoencoderTraining { window: 16, quantize_from: 4, edge_weight: 0.5, codebook_weight: 1.0 };
    (AutoencoderTask { settings, batch_size: 2, seed: 5, device, frames: &Pictures, valid: &Pictures }, model)
}

/// A speech-like signal whose loudness opens the lips.
fn speech_clips() -> Vec<SpeechClip> {
    (0..2)
        .map(|clip| {
            let open = |t: usize| 0.05 + 0.04 * ((t as f32) * (0.7 + 0.2 * clip as f32)).sin();
            let samples = (0..20 * 640).map(|i| ((i as f32 * 0.3).sin() * 60_000.0 * open(i / 640)) as i16).collect();
            let shapes = (0..20).map(|t| [open(t); LIP_VALUES]).collect();
            SpeechClip::new(samples, shapes, vec![true; 20])
        })
        .collect()
}

fn speech_task<'a>(device: &Device, clips: &'a [SpeechClip]) -> (SpeechTask<'a>, LipReader) {
    let device = device.clone().autodiff();
    device.seed(5);
    let config = AudioEncoderConfig {
        dim: 16,
        num_layers: 1,
        num_heads: 2,
        feed_forward_dim: 32,
        position_kernel: 4,
        position_groups: 2,
        dropout: 0.1,
        num_frozen_layers: 0,
        final_norm: true,
    };
    let model = LipReader::new(&config, &device).unwrap();
    let settings = SpeechTraining {
        offset_frames: 2,
        offset_from: 2,
        augment: SpeechAugmentation { noise: 0.5, equaliser: 0.2, warp: 0.1, speed: 0.1 },
    };
    (SpeechTask { settings, batch_size: 2, seed: 5, device, clips, valid: clips }, model)
}

fn latent_clips() -> Vec<LatentClip> {
    let bits = |v: f32| half::f16::from_f32(v).to_bits();
    let plane = |scale: f32| (0..12 * 3 * 64).map(|i| bits(((i * 37 % 101) as f32 / 50.0 - 1.0) * scale)).collect();
    let speech = (0..12 * 8).map(|i| (i % 7) as f32 * 0.1).collect();
    vec![LatentClip { frames: plane(1.0), masked: plane(0.5), speech, offset: 1, valid: vec![true; 12] }]
}

fn diffusion_task<'a>(device: &Device, clips: &'a [LatentClip]) -> (DiffusionTask<'a>, DenoiserStage) {
    let device = device.clone().autodiff();
    device.seed(5);
    let lite = LipSyncConfig::lite();
    let unet = UNetConfig {
        model_channels: 32,
        channel_mult: vec![1],
        num_res_blocks: 1,
        attention_resolutions: vec![1],
        context_dim: 8,
        ..lite.unet
    };
    let conditioning = syncdiff_model::audio::ConditioningConfig { dim: 8, ..lite.conditioning };
    let stage = DenoiserStage {
        denoiser: LatentDenoiser::new(&unet, lite.priors, &device),
        conditioner: conditioning.init(&device).unwrap(),
    };
    let settings = DiffusionTraining {
        prediction: Prediction::V,
        weighting: LossWeighting::Uniform,
        outside_weight: 0.2,
        mouth_weight: 1.0,
        pose_noise: 0.3,
        pose_dropout: 0.2,
        pose_shuffle: 0.2,
        pose_own: 0.4,
        speech_dropout: 0.1,
        identity_distance: 3,
    };
    let task = DiffusionTask {
        settings,
        batch_size: 2,
        seed: 5,
        device,
        sizes: Sizes { channels: 3, side: 8, speech: 8, window: 8 },
        weights: vec![1.0; 64],
        clips,
        valid: clips,
        schedule: Schedule::paper(),
    };
    (task, stage)
}

fn run<M: Module + Sync + 'static>(
    task: &impl Task<M>,
    model: M,
    options: &TrainOptions,
    folder: &Path,
    stop_at: u64,
) -> (M, M, Vec<f32>) {
    let mut losses = Vec::new();
    let mut report = |stats: &Stats| {
        losses.push(stats.loss);
        stats.step != stop_at
    };
    let trained = train(task, model, options, folder, &|| 0.0, &mut report).unwrap();
    (trained.model, trained.shadow, losses)
}

/// Six steps at once against three, a restart from the disk with other initial weights, and three more.
fn assert_exact_resume<M: Module + Sync + 'static>(make: impl Fn() -> (Box<dyn Task<M>>, M)) {
    let options = options(6, 2);
    let (whole_folder, parts_folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (task, model) = make();
    let (whole, whole_shadow, whole_losses) = run(&Borrowed(&*task), model, &options, whole_folder.path(), 0);
    let (task, model) = make();
    let (_, _, mut losses) = run(&Borrowed(&*task), model, &options, parts_folder.path(), 3);
    let (task, model) = make();
    let (parts, parts_shadow, rest) = run(&Borrowed(&*task), model, &options, parts_folder.path(), 0);
    losses.extend(rest);
    assert_eq!(whole_losses, losses);
    for (a, b) in [(whole, parts), (whole_shadow, parts_shadow)] {
        let (a, b) = (module_tensors(&a, &Remap::identity()), module_tensors(&b, &Remap::identity()));
        for (name, tensor) in &a {
            assert_eq!(tensor.to_f32().unwrap(), b[name].to_f32().unwrap(), "{name}");
        }
    }
}

/// A task behind a pointer.
struct Borrowed<'a, M: Module + Sync>(&'a dyn Task<M>);

impl<M: Module + Sync> Task<M> for Borrowed<'_, M> {
    fn num_shards(&self) -> usize {
        self.0.num_shards()
    }
    fn loss(&self, model: &M, step: u64, shard: Shard) -> TrainResult<syncdiff_train::StepLoss> {
        self.0.loss(model, step, shard)
    }
    fn before_step(&self, model: M, step: u64) -> TrainResult<M> {
        self.0.before_step(model, step)
    }
    fn validate(&self, shadow: &M) -> TrainResult<Vec<(&'static str, f32)>> {
        self.0.validate(shadow)
    }
}

#[test]
fn autoencoder_resume_is_exact() {
    let _turn = turn();
    let device = Device::flex();
    assert_exact_resume(|| {
        let (task, model) = autoencoder_task(&device);
        (Box::new(task), model)
    });
}

#[test]
fn speech_resume_is_exact() {
    let _turn = turn();
    let device = Device::flex();
    let clips: &'static [SpeechClip] = Box::leak(speech_clips().into_boxed_slice());
    assert_exact_resume(|| {
        let (task, model) = speech_task(&device, clips);
        (Box::new(task), model)
    });
}

#[test]
fn diffusion_resume_is_exact() {
    let _turn = turn();
    let device = Device::flex();
    let clips: &'static [LatentClip] = Box::leak(latent_clips().into_boxed_slice());
    assert_exact_resume(|| {
        let (task, model) = diffusion_task(&device, clips);
        (Box::new(task), model)
    });
}

/// A damaged newest checkpoint is passed over for the one before it.
#[test]
fn resume_survives_a_damaged_checkpoint() {
    let _turn = turn();
    let device = Device::flex();
    let folder = tempfile::tempdir().unwrap();
    let options = TrainOptions { checkpoint_every: 2, ..options(4, 2) };
    let (task, model) = autoencoder_task(&device);
    run(&task, model, &options, folder.path(), 0);
    let newest = folder.path().join("checkpoints/step-0000000004/model.bpk");
    std::fs::write(&newest, b"half a file").unwrap();
    let (task, model) = autoencoder_task(&device);
    let (_, _, losses) = run(&task, model, &options, folder.path(), 0);
    assert_eq!(losses.len(), 2, "steps 3 and 4 are done again");
}

#[test]
fn losses_fall_on_two_pictures_and_on_one_clip() {
    let _turn = turn();
    let device = Device::flex();
    let folder = tempfile::tempdir().unwrap();
    let (task, model) = autoencoder_task(&device);
    let (_, _, losses) = run(&task, model, &options(60, 2), &folder.path().join("a"), 0);
    assert!(losses[59] < 0.4 * losses[0], "autoencoder: {} to {}", losses[0], losses[59]);

    let clips = speech_clips();
    let (task, model) = speech_task(&device, &clips);
    let (_, shadow, losses) = run(&task, model, &options(60, 2), &folder.path().join("s"), 0);
    let mean = |part: &[f32]| part.iter().sum::<f32>() / part.len() as f32;
    assert!(mean(&losses[50..]) < 0.7 * mean(&losses[..5]), "speech: {losses:?}");
    assert!(task.validate(&shadow).unwrap()[0].1 > 0.5, "the opening is heard");

    let clips = latent_clips();
    let (task, stage) = diffusion_task(&device, &clips);
    let (_, _, losses) = run(&task, stage, &options(60, 2), &folder.path().join("d"), 0);
    assert!(mean(&losses[45..]) < 0.8 * mean(&losses[..10]), "diffusion: {losses:?}");
}
