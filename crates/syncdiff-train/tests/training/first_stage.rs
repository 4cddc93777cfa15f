//! The first stage with its published losses, and on windows in other looks.

use super::*;

const SIDE: usize = 32;

/// Two pictures with an edge, large enough for LPIPS and the critic.
struct Edges;

impl FrameSource for Edges {
    fn side(&self) -> usize {
        SIDE
    }
    fn frame(&self, seed: u64) -> TrainResult<Vec<u8>> {
        let turn = seed.is_multiple_of(2);
        let pixel = |i: usize| {
            let (x, y) = (i % SIDE, i / SIDE);
            let (a, b) = if turn { (x, y) } else { (y, x) };
            [(a * 8) as u8, if b < SIDE / 2 { 60 } else { 180 }, 120]
        };
        Ok((0..SIDE * SIDE).flat_map(pixel).collect())
    }
}

pub(super) const PUBLISHED: AutoencoderTraining = AutoencoderTraining {
    window: SIDE,
    lpips_weight: 1.0,
    adversarial_weight: 0.75,
    adversarial_from: 2,
    ..FIRST_STAGE
};

/// LPIPS has random weights, equal ones for all tasks.
fn lpips(device: &Device) -> Lpips {
    let device = device.clone().autodiff();
    device.seed(7);
    Lpips::new(LpipsTrunk::Alex, &device).valid().train()
}

pub(super) fn task_of(
    device: &Device,
    settings: AutoencoderTraining,
) -> (AutoencoderTask<'static>, AutoencoderTrainee) {
    let looks = (settings.lpips_weight > 0.0).then(|| lpips(device));
    let device = device.clone().autodiff();
    device.seed(5);
    let model = AutoencoderTrainee::new(Autoencoder::new(&tiny::autoencoder(), &device), &settings, &device);
    (AutoencoderTask::new(settings, 2, 5, device, looks, &Edges, &Edges).unwrap(), model)
}

/// Quantisation and critic begin on both sides of the restart.
#[test]
fn autoencoder_with_published_losses_resume_is_exact() {
    let _turn = turn();
    let device = Device::flex();
    for (quantize_from, adversarial_from) in [(4, 2), (2, 4)] {
        assert_exact_resume(|| {
            let (task, model) = task_of(&device, AutoencoderTraining { quantize_from, adversarial_from, ..PUBLISHED });
            (Box::new(task), model)
        });
    }
}

/// At a rate at which the critic, which learns at the same, does not swing.
#[test]
fn autoencoder_with_published_losses_overfits_two_pictures() {
    let _turn = turn();
    let device = Device::flex();
    let folder = tempfile::tempdir().unwrap();
    let (task, model) = task_of(&device, AutoencoderTraining { adversarial_from: 0, ..PUBLISHED });
    let options = TrainOptions { learning_rate: 1e-3, ..options(60, 2) };
    let (_, shadow, _) = run(&task, model, &options, folder.path(), 0);
    let [psnr, distance] = ["psnr", "lpips"].map(|name| figure(&task, &shadow, name));
    let critic = mean(&logged(folder.path(), "critic")[50..]);
    // Measured: 21.8 dB, LPIPS 0.17 after 2.24, and 0.53; a critic that knows nothing has 1.
    assert!(psnr > 20.0 && distance < 0.25 && critic < 0.8, "{psnr} dB, LPIPS {distance}, critic {critic}");
}

/// Each loss is there from its step on, and only then; the critic does not move before.
#[test]
fn the_critic_begins_when_it_is_told_to() {
    let _turn = turn();
    let device = Device::flex();
    let folder = tempfile::tempdir().unwrap();
    let (task, model) = task_of(&device, PUBLISHED);
    let named = |step: u64| -> Vec<&str> {
        let loss = task.loss(&model, step, Shard { index: 0, count: 2 }).unwrap();
        loss.parts.iter().map(|(name, _)| *name).collect()
    };
    assert_eq!(named(1), ["l1", "edges", "lpips", "codebook"]);
    assert_eq!(named(2), ["l1", "edges", "lpips", "adversarial", "adversarial_weight", "critic", "codebook"]);
    let critic = |model: &AutoencoderTrainee| -> Vec<Vec<f32>> {
        let tensors = module_tensors(model, &Remap::identity());
        tensors.iter().filter(|(name, _)| name.starts_with("critic.")).map(|(_, t)| t.to_f32().unwrap()).collect()
    };
    let first = critic(&model);
    assert_eq!(first.len(), 13, "weights of five convolutions, biases of two, weight and bias of three norms");
    let (before, _, _) = run(&task, model, &options(4, 2), folder.path(), 2);
    assert_eq!(critic(&before), first);
    let (after, _, _) = run(&task, before, &options(4, 2), folder.path(), 3);
    assert!(critic(&after).iter().zip(&first).all(|(after, first)| after != first), "every tensor moves");
}

/// Twice the weight adds twice as much.
#[test]
fn lpips_weighs_what_it_is_told() {
    let _turn = turn();
    let device = Device::flex();
    let loss = |lpips_weight: f64| {
        let settings = AutoencoderTraining { lpips_weight, adversarial_weight: 0.0, ..PUBLISHED };
        let (task, model) = task_of(&device, settings);
        task.loss(&model, 0, Shard { index: 0, count: 1 }).unwrap().loss.into_scalar::<f32>()
    };
    let [none, once, twice] = [0.0, 1.0, 2.0].map(loss);
    assert!(once > none + 0.01 && (twice - once - (once - none)).abs() < 1e-4 * twice, "{none} {once} {twice}");
}

#[test]
fn settings_without_their_network_are_refused() {
    let _turn = turn();
    let device = Device::flex();
    let refused = |settings: AutoencoderTraining, lpips: Option<Lpips>| {
        let task = AutoencoderTask::new(settings, 2, 5, device.clone().autodiff(), lpips, &Edges, &Edges);
        task.map(|_| ()).unwrap_err().to_string()
    };
    let none = AutoencoderTraining { window: SIDE, ..FIRST_STAGE };
    for (settings, network, part) in [
        (PUBLISHED, false, "autoencoder.lpips_weight = 1: above 0 with --lpips"),
        (none.clone(), true, "autoencoder.lpips_weight = 0: above 0 with --lpips"),
        (AutoencoderTraining { window: 16, ..PUBLISHED }, true, "autoencoder.window = 16: at least 32"),
        (AutoencoderTraining { adversarial_weight: -0.5, ..none.clone() }, false, "0 and -0.5"),
        (AutoencoderTraining { lpips_weight: f64::NAN, ..none.clone() }, false, "NaN and 0"),
        (AutoencoderTraining { varied: 1.5, ..none }, false, "autoencoder.varied = 1.5"),
    ] {
        let error = refused(settings, network.then(|| lpips(&device)));
        assert!(error.contains(part), "{part}: {error}");
    }
}

/// The asked share of windows look otherwise, by seed, step and number; the others stay as they are.
#[test]
fn autoencoder_varies_windows() {
    let _turn = turn();
    let device = Device::flex();
    let windows = |varied: f64, seed: u64| -> Vec<Vec<f32>> {
        let settings = AutoencoderTraining { window: 16, varied, ..FIRST_STAGE };
        let task = AutoencoderTask::new(settings, 40, seed, device.clone().autodiff(), None, &Edges, &Edges).unwrap();
        let pictures = task.batch_of(3).unwrap().remove("pictures").unwrap().to_f32().unwrap();
        pictures.chunks(3 * 16 * 16).map(<[f32]>::to_vec).collect()
    };
    let plain = windows(0.0, 5);
    let changed = |varied: f64| windows(varied, 5).iter().zip(&plain).filter(|(a, b)| a != b).count();
    assert_eq!((plain.len(), changed(1.0)), (40, 40));
    assert!((10..30).contains(&changed(0.5)), "{}", changed(0.5));
    assert_eq!(windows(0.5, 5), windows(0.5, 5));
    assert_ne!(windows(0.5, 5), windows(0.5, 6));
}
