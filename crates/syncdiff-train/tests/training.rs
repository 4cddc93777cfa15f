//! The loop at tiny size: exact resume, checkpoints that survive, losses that fall.

#[path = "training/activations.rs"]
mod activations;
#[path = "training/best.rs"]
mod best;
#[path = "training/first_stage.rs"]
mod first_stage;
#[path = "training/guards.rs"]
mod guards;
#[path = "training/precision.rs"]
mod precision;
#[path = "training/processes.rs"]
mod processes;
#[path = "training/sheets.rs"]
mod sheets;
#[path = "common/talking.rs"]
mod talking;
#[path = "../../syncdiff-model/tests/common/tiny.rs"]
mod tiny;

use burn::module::Module;
use burn::tensor::Device;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use syncdiff_data::{Clip, ClipMeta};
use syncdiff_model::audio::{AudioEncoder, AudioEncoderConfig, FEATURES_PER_ROW};
use syncdiff_model::autoencoder::Autoencoder;
use syncdiff_model::baselines::Wav2LipLite;
use syncdiff_model::denoiser::{LatentDenoiser, PriorConfig};
use syncdiff_model::diffusion::{LossWeighting, Prediction, Schedule};
use syncdiff_model::reader::GridReader;
use syncdiff_model::scorers::{Lpips, LpipsTrunk, OwnSyncNet};
use syncdiff_model::unet::UNetConfig;
use syncdiff_model::weights::{Remap, module_tensors};
use syncdiff_model::{LipSyncConfig, Precision};
use syncdiff_train::{
    AutoencoderTask, AutoencoderTrainee, AutoencoderTraining, DenoiserStage, DiffusionTask, DiffusionTraining,
    EstimateNets, EstimateTraining, EstimateWeighting, FrameSource, LIP_VALUES, LatentClip, LipReader, Measure,
    PretrainTask, PretrainTraining, Pretrainee, ReaderTask, ReaderTraining, SampleSheet, Shard, SheetDrawing, Sizes,
    SoundClusters, SpeechAugmentation, SpeechClip, SpeechTask, SpeechTraining, Stats, StepLoss, StudentStage,
    StudentTask, StudentTraining, SyncNetTask, SyncNetTrainee, SyncNetTraining, TalkingClip, Task, TrainError,
    TrainOptions, TrainResult, Wav2LipTask, Wav2LipTrainee, Wav2LipTraining, train,
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
        accumulate: 1,
        checkpoint_activations: false,
        precision: Precision::F32,
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

const FIRST_STAGE: AutoencoderTraining = AutoencoderTraining {
    window: 16,
    quantize_from: 4,
    edge_weight: 0.5,
    codebook_weight: 1.0,
    lpips_weight: 0.0,
    lpips_trunk: LpipsTrunk::Alex,
    adversarial_weight: 0.0,
    adversarial_from: 0,
    varied: 0.0,
};

fn autoencoder_task(device: &Device) -> (AutoencoderTask<'static>, AutoencoderTrainee) {
    autoencoder_task_of(device, 2)
}

fn autoencoder_task_of(device: &Device, batch_size: usize) -> (AutoencoderTask<'static>, AutoencoderTrainee) {
    let device = device.clone().autodiff();
    device.seed(5);
    let model = AutoencoderTrainee::new(Autoencoder::new(&tiny::autoencoder(), &device), &FIRST_STAGE, &device);
    (AutoencoderTask::new(FIRST_STAGE, batch_size, 5, device, None, &Pictures, &Pictures).unwrap(), model)
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
        input_dim: FEATURES_PER_ROW,
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
    (SpeechTask { settings, batch_size: 2, seed: 5, device, moonshine: None, clips, valid: clips }, model)
}

fn latent_clips() -> Vec<LatentClip> {
    let bits = |v: f32| half::f16::from_f32(v).to_bits();
    let plane = |scale: f32| (0..12 * 3 * 64).map(|i| bits(((i * 37 % 101) as f32 / 50.0 - 1.0) * scale)).collect();
    let speech = (0..12 * 8).map(|i| (i % 7) as f32 * 0.1).collect();
    vec![LatentClip {
        frames: plane(1.0),
        masked: plane(0.5),
        speech,
        rows: Vec::new(),
        offset: 1,
        valid: vec![true; 12],
        sounds: Vec::new(),
    }]
}

fn diffusion_task<'a>(device: &Device, clips: &'a [LatentClip]) -> (DiffusionTask<'a>, DenoiserStage) {
    diffusion_task_of(device, clips, PriorConfig::SYNCDIFF)
}

/// With priors of the paper's ablations.
fn diffusion_task_of<'a>(
    device: &Device,
    clips: &'a [LatentClip],
    priors: PriorConfig,
) -> (DiffusionTask<'a>, DenoiserStage) {
    let device = device.clone().autodiff();
    device.seed(5);
    let lite = LipSyncConfig::lite();
    let unet = UNetConfig {
        model_channels: 32,
        channel_mult: vec![1],
        num_res_blocks: 1,
        attention_resolutions: vec![1],
        context_dim: 8,
        in_channels: priors.in_channels(3),
        ..lite.unet
    };
    let conditioning = syncdiff_model::audio::ConditioningConfig { dim: 8, ..lite.conditioning };
    let stage = DenoiserStage {
        denoiser: LatentDenoiser::new(&unet, priors, &device),
        conditioner: conditioning.init(&device).unwrap(),
        audio: None,
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
        varied_copies: 0,
        estimate: None,
    };
    let task = DiffusionTask {
        settings: settings.for_priors(&priors),
        batch_size: 2,
        seed: 5,
        device,
        sizes: Sizes {
            channels: 3,
            side: 8,
            speech: 8,
            row: FEATURES_PER_ROW,
            window: 8,
            previous_frames: priors.pose_frames,
        },
        weights: vec![1.0; 64],
        clips,
        valid: clips,
        schedule: Schedule::paper(),
        estimate: None,
        drawing: None,
    };
    (task, stage)
}

fn student_training(held_out: usize) -> StudentTraining {
    StudentTraining { guidance_min: 1.5, guidance_max: 2.5, skip: 5, target_decay: 0.9, huber_c: 0.001, held_out }
}

/// Taught by a stage that lies outside of automatic differentiation.
fn student_task<'a>(
    device: &Device,
    clips: &'a [LatentClip],
    teacher: &DenoiserStage,
) -> (StudentTask<'a>, StudentStage) {
    let (samples, _) = diffusion_task(device, clips);
    let student = StudentStage::new(teacher.clone().train());
    (StudentTask::new(student_training(20), samples, teacher.clone()).unwrap(), student)
}

/// A drawn face that opens its mouth as it gets louder.
fn talking_clips(count: usize) -> &'static Vec<TalkingClip> {
    let folder = tempfile::tempdir().unwrap();
    let clip = |number: usize| {
        let path = folder.path().join(format!("{number}.safetensors"));
        let meta = ClipMeta { transcript: talking::said(number), ..ClipMeta::default() };
        talking::arrays(number, 60, 64).write(&path, &meta).unwrap();
        TalkingClip { clip: Arc::new(Clip::read(&path).unwrap()), offset: 0 }
    };
    Box::leak(Box::new((0..count).map(clip).collect()))
}

fn syncnet_task(device: &Device, clips: &'static Vec<TalkingClip>) -> (SyncNetTask<'static>, SyncNetTrainee) {
    let device = device.clone().autodiff();
    device.seed(5);
    let model = SyncNetTrainee::new(OwnSyncNet::new(&device), &device);
    let settings = SyncNetTraining {
        windows_per_clip: 8,
        least_distance: 3,
        clip_weight: 0.6,
        shift: 2.0,
        zoom: 0.05,
        colour: 1.0,
        augment: SpeechAugmentation { noise: 0.3, equaliser: 0.2, warp: 0.05, speed: 0.0 },
    };
    (SyncNetTask::new(settings, 2, 5, device, clips, clips).unwrap(), model)
}

const READING: ReaderTraining = ReaderTraining {
    shift: 1.0,
    zoom: 0.05,
    colour: 1.0,
    stretch: 0.05,
    start: 1.0,
    lost: 0.05,
    hidden: 2,
    dropout: 0.1,
    smoothing: 0.0,
};

fn reader_task(
    device: &Device,
    clips: &'static Vec<TalkingClip>,
    batch_size: usize,
) -> (ReaderTask<'static>, GridReader) {
    let device = device.clone().autodiff();
    device.seed(5);
    let model = GridReader::new(&device);
    (ReaderTask::new(READING, batch_size, 5, device, clips, clips).unwrap(), model)
}

const PRETRAINING: PretrainTraining = PretrainTraining {
    clusters: 6,
    cluster_layer: 2,
    max_frames: 30,
    audio_mask: 0.8,
    audio_span: 10,
    video_mask: 0.3,
    video_span: 5,
    modality_dropout: 0.5,
    audio_dropout: 0.5,
    unmasked_weight: 0.1,
    shift: 2.0,
    augment: SpeechAugmentation { noise: 0.3, equaliser: 0.2, warp: 0.05, speed: 0.0 },
};

fn pretrain_config(dropout: f64) -> AudioEncoderConfig {
    AudioEncoderConfig {
        input_dim: FEATURES_PER_ROW,
        dim: 32,
        num_layers: 2,
        num_heads: 2,
        feed_forward_dim: 64,
        position_kernel: 8,
        position_groups: 2,
        dropout,
        num_frozen_layers: 0,
        final_norm: true,
    }
}

fn pretrain_task(
    device: &Device,
    clips: &'static Vec<TalkingClip>,
    settings: PretrainTraining,
    dropout: f64,
) -> (PretrainTask<'static>, Pretrainee) {
    let clusters = SoundClusters::of_cepstra(settings.clusters, 5, clips, clips).unwrap();
    let device = device.clone().autodiff();
    device.seed(5);
    let model = Pretrainee::new(&pretrain_config(dropout), clusters.count, &device).unwrap();
    (PretrainTask::new(settings, 2, 5, device, (clips, clips), clusters).unwrap(), model)
}

const WAV2LIP: Wav2LipTraining =
    Wav2LipTraining { sync_weight: 0.03, sync_from: 2, adversarial_weight: 0.07, varied: 0.0 };

fn wav2lip_task(device: &Device, settings: Wav2LipTraining) -> (Wav2LipTask<'static>, Wav2LipTrainee) {
    let device = device.clone().autodiff();
    device.seed(5);
    let model = Wav2LipTrainee::new(Wav2LipLite::new(&device), &settings, &device);
    let (judge, clips) = (OwnSyncNet::new(&device), talking_clips(1));
    (Wav2LipTask::new(settings, 2, 5, device, judge, clips, clips).unwrap(), model)
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
    assert_exact_resume_with(&options(6, 2), make);
}

fn assert_exact_resume_with<M: Module + Sync + 'static>(
    options: &TrainOptions,
    make: impl Fn() -> (Box<dyn Task<M>>, M),
) {
    let (whole_folder, parts_folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (task, model) = make();
    let (whole, whole_shadow, whole_losses) = run(&Borrowed(&*task), model, options, whole_folder.path(), 0);
    let (task, model) = make();
    let (_, _, mut losses) = run(&Borrowed(&*task), model, options, parts_folder.path(), 3);
    let (task, model) = make();
    let (parts, parts_shadow, rest) = run(&Borrowed(&*task), model, options, parts_folder.path(), 0);
    losses.extend(rest);
    assert_eq!(whole_losses, losses);
    assert_same_weights(&whole, &parts);
    assert_same_weights(&whole_shadow, &parts_shadow);
}

/// A task behind a pointer.
struct Borrowed<'a, M: Module + Sync>(&'a dyn Task<M>);

impl<M: Module + Sync> Task<M> for Borrowed<'_, M> {
    fn num_shards(&self) -> usize {
        self.0.num_shards()
    }
    fn in_precision(&self, model: M, precision: Precision) -> TrainResult<M> {
        self.0.in_precision(model, precision)
    }
    fn loss(&self, model: &M, step: u64, shard: Shard) -> TrainResult<StepLoss> {
        self.0.loss(model, step, shard)
    }
    fn before_step(&self, model: M, step: u64) -> TrainResult<M> {
        self.0.before_step(model, step)
    }
    fn validate(&self, shadow: &M) -> TrainResult<Vec<(&'static str, f32)>> {
        self.0.validate(shadow)
    }
    fn sheet(&self, shadow: &M) -> TrainResult<Option<SampleSheet>> {
        self.0.sheet(shadow)
    }
    fn best_by(&self) -> Option<Measure> {
        self.0.best_by()
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

#[test]
fn student_resume_is_exact() {
    let _turn = turn();
    let device = Device::flex();
    let clips: &'static [LatentClip] = Box::leak(latent_clips().into_boxed_slice());
    // Moved a little: an untrained network says nothing.
    let teacher = diffusion_task(&device, clips).1.valid().map(&mut tiny::Ramp::small());
    assert_exact_resume(|| {
        let (task, model) = student_task(&device, clips, &teacher);
        (Box::new(task), model)
    });
}

#[test]
fn syncnet_resume_is_exact() {
    let _turn = turn();
    let (device, clips) = (Device::flex(), talking_clips(2));
    assert_exact_resume(|| {
        let (task, model) = syncnet_task(&device, clips);
        (Box::new(task), model)
    });
}

#[test]
fn reader_resume_is_exact() {
    let _turn = turn();
    let (device, clips) = (Device::flex(), talking_clips(2));
    assert_exact_resume(|| {
        let (task, model) = reader_task(&device, clips, 2);
        (Box::new(task), model)
    });
}

#[test]
fn pretrain_resume_is_exact() {
    let _turn = turn();
    let (device, clips) = (Device::flex(), talking_clips(2));
    assert_exact_resume(|| {
        let (task, model) = pretrain_task(&device, clips, PRETRAINING, 0.1);
        (Box::new(task), model)
    });
}

/// Clusters of cepstra and of a network's layer: the same each time, and through their file; and what cannot be.
#[test]
fn clusters_of_sounds_are_found_again_and_survive_their_file() {
    let _turn = turn();
    let (device, clips, folder) = (Device::flex(), talking_clips(2), tempfile::tempdir().unwrap());
    device.seed(7);
    let net = Pretrainee::new(&pretrain_config(0.1), 3, &device).unwrap();
    let cepstra = || SoundClusters::of_cepstra(6, 1, clips, clips).unwrap();
    let layer = |layer| SoundClusters::of_layer(6, 1, clips, clips, (&net, layer), &device);
    assert_ne!(layer(1).unwrap().train, layer(2).unwrap().train);
    for (name, found, again) in [("cepstra", cepstra(), cepstra()), ("layer", layer(2).unwrap(), layer(2).unwrap())] {
        assert_eq!((&found.train, &found.valid), (&again.train, &again.valid), "{name}");
        let lengths = |clips: &[Vec<u16>]| clips.iter().map(Vec::len).collect::<Vec<_>>();
        assert_eq!((lengths(&found.train), lengths(&found.valid)), (vec![60; 2], vec![60; 2]));
        let used = (0..6).filter(|cluster| found.train.iter().flatten().any(|label| label == cluster)).count();
        assert_eq!(used, 6, "{name}");
        let path = folder.path().join(format!("{name}.safetensors"));
        found.save(&path).unwrap();
        let loaded = SoundClusters::load(&path).unwrap();
        assert_eq!((loaded.count, &loaded.train, &loaded.valid), (6, &found.train, &found.valid));
        let copy = folder.path().join("copy.safetensors");
        loaded.save(&copy).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), std::fs::read(&copy).unwrap());
    }
    assert!(layer(3).unwrap_err().to_string().contains("cluster_layer = 3"));
    let error = SoundClusters::of_cepstra(121, 1, clips, clips).unwrap_err().to_string();
    assert!(error.contains("clusters = 121") && error.contains("120 frames"), "{error}");
    let foreign = folder.path().join("foreign.safetensors");
    syncdiff_model::weights::folder::save_safetensors(&net.tensors(), syncdiff_model::weights::Storage::F32, &foreign)
        .unwrap();
    assert!(SoundClusters::load(&foreign).unwrap_err().to_string().contains("foreign.safetensors"));
}

#[test]
fn wav2lip_resume_is_exact() {
    let _turn = turn();
    let device = Device::flex();
    assert_exact_resume(|| {
        let (task, model) = wav2lip_task(&device, WAV2LIP);
        (Box::new(task), model)
    });
}

/// Every choice of visual priors learns, and goes on exactly; without previous frames nothing is done to them.
#[test]
fn every_choice_of_priors_resume_is_exact() {
    let _turn = turn();
    let device = Device::flex();
    let clips: &'static [LatentClip] = Box::leak(latent_clips().into_boxed_slice());
    let five = PriorConfig { pose_frames: 5, ..PriorConfig::SYNCDIFF };
    for priors in [PriorConfig::RND, PriorConfig::PRV, PriorConfig::PRV_BOTTLENECK, five] {
        assert_exact_resume(|| {
            let (task, model) = diffusion_task_of(&device, clips, priors);
            assert_eq!(task.settings.pose_own > 0.0, priors.pose_frames > 0);
            let named = task.batch_of(0).unwrap();
            let seen = named.get("pose").map_or(0, |pose| pose.shape()[1]);
            assert_eq!((seen, named["target"].shape()[1]), (3 * priors.pose_frames, 3));
            (Box::new(task), model)
        });
    }
}

/// A speech encoder of two layers, the first of them frozen, that learns with the denoiser.
fn listening_task(device: &Device) -> (DiffusionTask<'static>, DenoiserStage) {
    let mut clips = latent_clips();
    clips[0].speech.clear();
    let value = |i: usize| ((i / FEATURES_PER_ROW * 31 + i % FEATURES_PER_ROW * 7) % 19) as f32 / 9.0 - 1.0;
    clips[0].rows = (0..12 * FEATURES_PER_ROW).map(value).collect();
    let mut shorter = clips[0].clone();
    shorter.valid.truncate(9);
    shorter.rows.truncate(9 * FEATURES_PER_ROW);
    clips.push(shorter);
    let (task, mut stage) = diffusion_task(device, Box::leak(clips.into_boxed_slice()));
    let audio = AudioEncoderConfig {
        input_dim: FEATURES_PER_ROW,
        dim: 8,
        num_layers: 2,
        num_heads: 2,
        feed_forward_dim: 16,
        position_kernel: 4,
        position_groups: 2,
        dropout: 0.0,
        num_frozen_layers: 1,
        final_norm: true,
    };
    stage.audio = Some(audio.init(&device.clone().autodiff()).unwrap());
    (task, stage)
}

#[test]
fn diffusion_with_a_learning_encoder_resume_is_exact() {
    let _turn = turn();
    let device = Device::flex();
    assert_exact_resume(|| {
        let (task, model) = listening_task(&device);
        (Box::new(task), model)
    });
}

/// Frozen layers stay as they are, the others move, after a resume too.
#[test]
fn only_layers_that_are_not_frozen_learn() {
    let _turn = turn();
    let device = Device::flex();
    let folder = tempfile::tempdir().unwrap();
    let encoder = |stage: &DenoiserStage| module_tensors(stage.audio.as_ref().unwrap(), &AudioEncoder::remap());
    let (task, stage) = listening_task(&device);
    let before = encoder(&stage);
    let options = options(4, 2);
    run(&task, stage, &options, folder.path(), 2);
    let (task, stage) = listening_task(&device);
    let (after, _, _) = run(&task, stage, &options, folder.path(), 0);
    for (name, tensor) in encoder(&after) {
        let moved = tensor.to_f32().unwrap() != before[&name].to_f32().unwrap();
        assert_eq!(moved, name.starts_with("encoder.layers.1."), "{name}");
    }
}

/// With losses on the pictures of its estimates, of these weights.
fn estimating_task(device: &Device, [sync_weight, lpips_weight]: [f64; 2]) -> (DiffusionTask<'static>, DenoiserStage) {
    let mut clips = latent_clips();
    clips[0].sounds = (0..8 * 128).map(|i| ((i * 29 % 17) as f32 - 8.0) / 55.0).collect();
    let (mut task, stage) = diffusion_task(device, Box::leak(clips.into_boxed_slice()));
    let device = device.clone().autodiff();
    let weighting = EstimateWeighting::default();
    let settings = EstimateTraining { sync_weight, lpips_weight, timesteps_below: 300, weighting, windows: 2, from: 1 };
    // Equal seeds: two tasks look through the same networks.
    device.seed(7);
    let decoder = Autoencoder::new(&tiny::autoencoder(), &device);
    let syncnet = || (sync_weight > 0.0).then(|| OwnSyncNet::new(&device));
    let lpips = || (lpips_weight > 0.0).then(|| Lpips::new(LpipsTrunk::Alex, &device));
    assert!(EstimateNets::new(&settings, decoder.clone(), None, None).is_err(), "a weight without its network");
    let none = EstimateTraining { sync_weight: 0.0, lpips_weight: 0.0, ..settings.clone() };
    assert!(EstimateNets::new(&none, decoder.clone(), syncnet(), lpips()).is_err(), "a network without its weight");
    device.seed(8);
    task.estimate = Some(EstimateNets::new(&settings, decoder, syncnet(), lpips()).unwrap());
    task.settings.estimate = Some(settings);
    (task, stage)
}

#[test]
fn diffusion_with_losses_on_estimates_resume_is_exact() {
    let _turn = turn();
    let device = Device::flex();
    assert_exact_resume(|| {
        let (task, model) = estimating_task(&device, [0.5, 0.5]);
        (Box::new(task), model)
    });
}

#[test]
fn losses_on_estimates_begin_when_they_are_told_to_and_weigh_what_they_are_told() {
    let _turn = turn();
    let device = Device::flex();
    let named = |weights: [f64; 2], step: u64| {
        let (task, stage) = estimating_task(&device, weights);
        let loss = task.loss(&stage, step, Shard { index: 0, count: 2 }).unwrap();
        let part = |name: &str| loss.parts.iter().find(|(found, _)| *found == name).map(|(_, value)| *value);
        (loss.loss.clone().into_scalar::<f32>(), part("estimate_sync"), part("estimate_lpips"))
    };
    let (plain, sync, lpips) = named([0.5, 0.5], 0);
    assert!(plain.is_finite() && sync.is_none() && lpips.is_none());
    let (both, sync, lpips) = named([0.5, 0.5], 1);
    assert!((0.0..=2.0).contains(&sync.unwrap()) && lpips.unwrap() > 0.0, "{sync:?} {lpips:?}");
    // The same pictures, looked at by LPIPS alone: twice the weight adds twice as much.
    let [once, twice] = [0.5, 1.0].map(|weight| named([0.0, weight], 1));
    let [heavier, heaviest] = [1.5, 2.0].map(|weight| named([0.0, weight], 1));
    assert_eq!(once.1, None);
    assert!(twice.0 > once.0 && both.is_finite());
    let steps = [twice.0 - once.0, heavier.0 - twice.0, heaviest.0 - heavier.0];
    assert!(steps.iter().all(|step| (step - steps[0]).abs() <= 1e-3 * steps[0].abs() + 1e-5), "{steps:?}");
}

/// Weighed by their signal, estimates from noise count for less than weighed alike.
#[test]
fn estimates_weigh_by_their_signal_or_alike() {
    let _turn = turn();
    let device = Device::flex();
    let loss = |weighting: EstimateWeighting, lpips_weight: f64| {
        let (mut task, stage) = estimating_task(&device, [0.0, lpips_weight]);
        task.settings.estimate.as_mut().unwrap().weighting = weighting;
        task.settings.estimate.as_mut().unwrap().timesteps_below = 1000;
        task.loss(&stage, 1, Shard { index: 0, count: 2 }).unwrap().loss.into_scalar::<f32>()
    };
    let added = |weighting| loss(weighting, 1.0) - loss(weighting, 1e-9);
    let [signal, even] = [EstimateWeighting::Signal, EstimateWeighting::Even].map(added);
    assert!(signal > 0.0 && even > 1.5 * signal, "{signal} {even}");
}

/// LPIPS reaches the denoiser through first stage and estimate: its weights move otherwise than without it, and follow
/// it downwards.
#[test]
fn lpips_on_estimates_teaches_the_denoiser() {
    let _turn = turn();
    let device = Device::flex();
    let trained = |weight: f64| {
        let folder = tempfile::tempdir().unwrap();
        let (task, stage) = estimating_task(&device, [0.0, weight]);
        let first = task.loss(&stage, 1, Shard { index: 0, count: 2 }).unwrap();
        let (after, _, _) = run(&task, stage, &options(12, 2), folder.path(), 0);
        let last = task.loss(&after, 1, Shard { index: 0, count: 2 }).unwrap();
        let lpips = |loss: &StepLoss| loss.parts.iter().find(|(name, _)| *name == "estimate_lpips").unwrap().1;
        (lpips(&first), lpips(&last))
    };
    let (first, taught) = trained(100.0);
    let (same, untaught) = trained(1e-6);
    assert_eq!(first, same);
    assert!(taught < untaught && taught < first, "{first}: {taught} with the loss, {untaught} without");
}

/// A damaged newest checkpoint is passed over for the one before it, and half of one that was being written is no
/// checkpoint at all.
#[test]
fn resume_survives_damaged_and_half_written_checkpoints() {
    let _turn = turn();
    let device = Device::flex();
    let folder = tempfile::tempdir().unwrap();
    let options = TrainOptions { checkpoint_every: 2, ..options(4, 2) };
    let (task, model) = autoencoder_task(&device);
    let (_, whole, _) = run(&task, model, &options, folder.path(), 0);
    let checkpoints = folder.path().join("checkpoints");
    let newest = checkpoints.join("step-0000000004");
    for file in ["model.bpk", "ema.bpk", "optimizer.bpk", "position.toml"] {
        let bytes = std::fs::read(newest.join(file)).unwrap();
        for damaged in [&bytes[..bytes.len() / 2], &[]] {
            std::fs::write(newest.join(file), damaged).unwrap();
            // What a kill leaves of the next checkpoint.
            std::fs::create_dir_all(checkpoints.join("partial")).unwrap();
            std::fs::write(checkpoints.join("partial/model.bpk"), damaged).unwrap();
            let (task, model) = autoencoder_task(&device);
            let (_, again, losses) = run(&task, model, &options, folder.path(), 0);
            assert_eq!(losses.len(), 2, "steps 3 and 4 are done again");
            assert_same_weights(&whole, &again);
            assert!(!checkpoints.join("partial").exists());
        }
    }
}

/// A checkpoint that cannot be written ends the run; those before it stay.
#[test]
fn resume_survives_a_checkpoint_that_cannot_be_written() {
    let _turn = turn();
    let device = Device::flex();
    let folder = tempfile::tempdir().unwrap();
    let options = TrainOptions { checkpoint_every: 2, ..options(4, 2) };
    let (task, model) = autoencoder_task(&device);
    let (_, whole, _) = run(&task, model, &options, &folder.path().join("whole"), 0);
    let parts = folder.path().join("parts");
    let (task, model) = autoencoder_task(&device);
    run(&task, model, &options, &parts, 2);
    // A file where the folder of the next checkpoint is to be made.
    let partial = parts.join("checkpoints/partial");
    std::fs::write(&partial, b"in the way").unwrap();
    let (task, model) = autoencoder_task(&device);
    let error = train(&task, model, &options, &parts, &|| 0.0, &mut |_| true).map(|_| ()).unwrap_err();
    assert!(matches!(&error, TrainError::Io { path, .. } if *path == partial), "{error}");
    std::fs::remove_file(&partial).unwrap();
    let (task, model) = autoencoder_task(&device);
    let (_, again, losses) = run(&task, model, &options, &parts, 0);
    assert_eq!(losses.len(), 2);
    assert_same_weights(&whole, &again);
}

/// The same batch in one part and in several, one after the other: the same loss and nearly the same weights.
#[test]
fn accumulated_gradients_are_those_of_the_whole_batch() {
    let _turn = turn();
    let device = Device::flex();
    let folder = tempfile::tempdir().unwrap();
    let clips: &'static [LatentClip] = Box::leak(latent_clips().into_boxed_slice());
    let trained = |accumulate: usize| {
        let (mut task, model) = diffusion_task(&device, clips);
        task.batch_size = 4;
        let options = TrainOptions { accumulate, ..options(1, 4) };
        let run_folder = folder.path().join(accumulate.to_string());
        let (model, _, losses) = run(&task, model, &options, &run_folder, 0);
        (module_tensors(&model, &Remap::identity()), losses[0])
    };
    let (whole, parts) = (trained(1), trained(2));
    assert!((whole.1 - parts.1).abs() < 1e-5 * whole.1, "{} {}", whole.1, parts.1);
    // One step of the optimiser moves every value by about the rate of the first step, 1.5e-3, in the gradient's
    // direction.
    let (mut same, mut all) = (0, 0);
    for (name, tensor) in &whole.0 {
        for (a, b) in tensor.to_f32().unwrap().iter().zip(parts.0[name].to_f32().unwrap()) {
            (same, all) = (same + usize::from((a - b).abs() < 1e-4), all + 1);
        }
    }
    assert!(same as f64 > 0.995 * f64::from(all), "{same} of {all}");
    let (task, model) = diffusion_task(&device, clips);
    let wrong = TrainOptions { accumulate: 3, ..options(1, 2) };
    let error = train(&task, model, &wrong, folder.path(), &|| 0.0, &mut |_| true).map(|_| ()).unwrap_err();
    assert!(error.to_string().contains("accumulate = 3"), "{error}");
}

fn assert_same_weights<M: Module>(a: &M, b: &M) {
    let (a, b) = (module_tensors(a, &Remap::identity()), module_tensors(b, &Remap::identity()));
    for (name, tensor) in &a {
        assert_eq!(tensor.to_f32().unwrap(), b[name].to_f32().unwrap(), "{name}");
    }
}

fn mean(part: &[f32]) -> f32 {
    part.iter().sum::<f32>() / part.len() as f32
}

/// A part of the loss as the log of a run has it, step by step.
fn logged(folder: &Path, name: &str) -> Vec<f32> {
    let text = std::fs::read_to_string(folder.join("stats.jsonl")).unwrap();
    let of = |line: &str| {
        let stats: serde_json::Value = serde_json::from_str(line).unwrap();
        let part = stats["parts"].as_array().unwrap().iter().find(|part| part[0] == name).map(|part| part[1].as_f64());
        part.flatten().unwrap_or_else(|| panic!("no {name} in {line}")) as f32
    };
    text.lines().map(of).collect()
}

/// A figure on held-out data by its name.
fn figure<M: Module>(task: &impl Task<M>, shadow: &M, name: &str) -> f32 {
    let figures = task.validate(shadow).unwrap();
    figures.iter().find(|(other, _)| *other == name).unwrap_or_else(|| panic!("no {name} in {figures:?}")).1
}

#[test]
fn autoencoder_overfits_two_pictures() {
    let _turn = turn();
    let device = Device::flex();
    let folder = tempfile::tempdir().unwrap();
    let (task, model) = autoencoder_task(&device);
    let (_, shadow, losses) = run(&task, model, &options(60, 2), folder.path(), 0);
    let psnr = figure(&task, &shadow, "psnr");
    // Measured: 0.186 after 0.644, and 19.5 dB.
    assert!(mean(&losses[55..]) < 0.2 && psnr > 19.0, "{psnr} dB, {losses:?}");
}

#[test]
fn speech_overfits_two_clips() {
    let _turn = turn();
    let device = Device::flex();
    let folder = tempfile::tempdir().unwrap();
    let clips = speech_clips();
    let (task, model) = speech_task(&device, &clips);
    let (_, shadow, losses) = run(&task, model, &options(60, 2), folder.path(), 0);
    let heard = figure(&task, &shadow, "opening_correlation");
    // Measured: 1.05 after 2.07, and a correlation of 0.77.
    assert!(mean(&losses[50..]) < 1.2 && heard > 0.7, "{heard}, {losses:?}");
}

#[test]
fn diffusion_overfits_one_clip() {
    let _turn = turn();
    let device = Device::flex();
    let folder = tempfile::tempdir().unwrap();
    let clips = latent_clips();
    let (task, stage) = diffusion_task(&device, &clips);
    let (_, shadow, losses) = run(&task, stage, &options(60, 2), folder.path(), 0);
    let loss = figure(&task, &shadow, "loss");
    // Measured: 0.264 after 0.499, and 0.201 of the moving average.
    assert!(mean(&losses[45..]) < 0.3 && loss < 0.22, "{loss}, {losses:?}");
}

/// A teacher is trained first. After that its student draws in one step, without guidance, nearer to what the teacher
/// draws in many than the teacher itself with guidance.
#[test]
fn student_overfits_one_clip_and_beats_its_teacher_in_one_step() {
    let _turn = turn();
    let device = Device::flex();
    let folder = tempfile::tempdir().unwrap();
    let clips = latent_clips();
    let (task, stage) = diffusion_task(&device, &clips);
    let (_, teacher, _) = run(&task, stage, &options(150, 8), &folder.path().join("teacher"), 0);
    let (task, student) = student_task(&device, &clips, &teacher);
    let figure = |shadow: &StudentStage, name: &str| figure(&task, shadow, name);
    let untaught = StudentStage::new(teacher.clone().train()).valid();
    let before = figure(&untaught, "one_step");
    let (_, shadow, losses) = run(&task, student, &options(150, 8), &folder.path().join("student"), 0);
    let (after, teachers) = (figure(&shadow, "one_step"), figure(&shadow, "teacher_one_step"));
    assert!(after < 0.12 && after < 0.4 * teachers && after < 0.4 * before, "{before} {after} {teachers}: {losses:?}");
}

/// Far below ln 8, which is what is left without listening. A high rate at once would make all embeddings equal.
#[test]
fn syncnet_overfits_one_clip() {
    let _turn = turn();
    let device = Device::flex();
    let folder = tempfile::tempdir().unwrap();
    let (task, model) = syncnet_task(&device, talking_clips(1));
    let options = TrainOptions { learning_rate: 5e-4, warmup_steps: 20, ..options(200, 2) };
    let (_, shadow, losses) = run(&task, model, &options, folder.path(), 0);
    assert!(mean(&losses[..3]) > 1.7, "chance at first: {losses:?}");
    assert!(mean(&losses[190..]) < 0.8, "{losses:?}");
    let figures = task.validate(&shadow).unwrap();
    assert!(figures.iter().any(|(name, value)| *name == "accuracy" && *value > 0.6), "{figures:?}");
}

/// Two clips with no word in common: who does not look at the mouths is left with ln 2.
#[test]
fn reader_overfits_two_clips() {
    let _turn = turn();
    let device = Device::flex();
    let folder = tempfile::tempdir().unwrap();
    let (task, model) = reader_task(&device, talking_clips(2), 4);
    let options = TrainOptions { learning_rate: 2e-3, warmup_steps: 10, ema_decay: 0.9, ..options(100, 4) };
    let (_, shadow, losses) = run(&task, model, &options, folder.path(), 0);
    assert!(mean(&losses[..3]) > 1.2, "chance at first: {losses:?}");
    assert!(mean(&losses[90..]) < 0.2, "{losses:?}");
    let figures = task.validate(&shadow).unwrap();
    assert_eq!(figures[..2], [("wer", 0.0), ("sentences", 1.0)], "{figures:?}");
    assert_eq!(figures.len(), 8);
}

/// Far below ln 6, which is what is left without knowing anything; and better than by naming the most frequent cluster
/// with sound and sight, and with either alone.
#[test]
fn pretrain_overfits_one_clip() {
    let _turn = turn();
    let device = Device::flex();
    let folder = tempfile::tempdir().unwrap();
    let settings = PretrainTraining {
        max_frames: 60,
        audio_mask: 0.5,
        audio_span: 5,
        video_mask: 0.2,
        video_span: 3,
        modality_dropout: 0.3,
        unmasked_weight: 0.0,
        shift: 0.0,
        augment: SpeechAugmentation::NONE,
        ..PRETRAINING
    };
    let (task, model) = pretrain_task(&device, talking_clips(1), settings, 0.0);
    let options = TrainOptions { learning_rate: 2e-3, ..options(150, 2) };
    let (_, shadow, losses) = run(&task, model, &options, folder.path(), 0);
    assert!(mean(&losses[..3]) > 1.4, "chance at first: {losses:?}");
    assert!(mean(&losses[130..]) < 0.6, "{losses:?}");
    let figures = task.validate(&shadow).unwrap();
    let [both, sound, sight, baseline] = ["accuracy", "by_sound", "by_sight", "baseline"]
        .map(|name| figures.iter().find(|(other, _)| *other == name).unwrap().1);
    assert!(both > 0.8 && sight > 0.8 && sound > baseline && baseline < 0.4, "{figures:?}");
}

/// With its sync loss and its critic.
#[test]
fn wav2lip_overfits_one_clip() {
    let _turn = turn();
    let device = Device::flex();
    let folder = tempfile::tempdir().unwrap();
    let (task, model) = wav2lip_task(&device, WAV2LIP);
    // Nearly that of the source, at which the critic does not swing.
    let options = TrainOptions { learning_rate: 2e-4, ..options(40, 2) };
    let (_, shadow, _) = run(&task, model, &options, folder.path(), 0);
    let psnr = figure(&task, &shadow, "psnr");
    let [l1, critic] = ["l1", "critic"].map(|name| mean(&logged(folder.path(), name)[30..]));
    // Measured: 20.8 dB, 0.056 after 0.157, and 1.06; a critic that knows nothing has 2 ln 2 = 1.39.
    assert!(psnr > 19.5 && l1 < 0.065 && critic < 1.2, "{psnr} dB, L1 {l1}, critic {critic}");
}

/// One look for all ten frames of a sample, in the asked share of samples, by seed, step and number.
#[test]
fn wav2lip_varies_whole_samples() {
    let _turn = turn();
    let device = Device::flex();
    let batch = |varied: f64, step: u64| {
        let (task, _) = wav2lip_task(&device, Wav2LipTraining { varied, ..WAV2LIP });
        let mut batch = task.batch_of(step).unwrap();
        ["target", "faces"].map(|name| batch.remove(name).unwrap().to_f32().unwrap())
    };
    let (plain, varied) = (batch(0.0, 3), batch(1.0, 3));
    assert_eq!(varied, batch(1.0, 3));
    assert_eq!(plain, batch(0.0, 3));
    // Red at the left of the forehead, where the drawn face does not move: of five targets, and of their references.
    let plane = 96 * 96;
    let forehead = |[target, faces]: &[Vec<f32>; 2]| -> Vec<[f32; 10]> {
        let at = 10 * 96 + 20;
        let of = |window: usize, i: usize| match i {
            0..5 => target[(window * 5 + i) * 3 * plane + at],
            _ => faces[((window * 5 + i - 5) * 6 + 3) * plane + at],
        };
        (0..2).map(|window| std::array::from_fn(|i| of(window, i))).collect()
    };
    let (plain, varied) = (forehead(&plain), forehead(&varied));
    assert_eq!(plain[0], plain[1]);
    for window in &varied {
        assert_eq!(*window, [window[0]; 10]);
        assert!((window[0] - plain[0][0]).abs() > 1e-3, "{window:?}");
    }
    assert_ne!(varied[0], varied[1]);
    let changed = (0..20).flat_map(|step| forehead(&batch(0.5, step))).filter(|window| window != &plain[0]).count();
    assert!((10..30).contains(&changed), "{changed} of 40");
}
