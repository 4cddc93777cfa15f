//! Sheets of held-out pictures: there, of the right size, getting on, and without a trace in what is learnt.

use super::*;
use syncdiff_media::{Frame, read_png};
use syncdiff_model::diffusion::{Sampler, SamplerKind, Spacing};

const DDIM: Sampler = Sampler { kind: SamplerKind::Ddim, num_steps: 2, spacing: Spacing::Trailing, eta: 0.0 };

/// Four steps with a sheet at every second: `count` pictures of `side`. The true ones stay, the drawn ones change; and
/// losses and weights are those of a run that draws a sheet at its end only.
fn assert_drawn<M: Module + Sync + 'static>(make: impl Fn() -> (Box<dyn Task<M>>, M), [count, side]: [usize; 2]) {
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    // The moving average is what draws: it must not lag.
    let often = TrainOptions { checkpoint_every: 2, learning_rate: 1e-2, ema_decay: 0.1, ..options(4, 2) };
    let rarely = TrainOptions { checkpoint_every: 1000, ..often.clone() };
    let [drawn, plain] = [(&often, &folders[0]), (&rarely, &folders[1])].map(|(options, folder)| {
        let (task, model) = make();
        run(&Borrowed(&*task), model, options, folder.path(), 0)
    });
    assert_eq!(drawn.2, plain.2);
    assert_same_weights(&drawn.0, &plain.0);
    let sheet = |step: u64| -> Frame {
        read_png(&folders[0].path().join(format!("samples/step-{step:06}.png"))).expect("a sheet that decodes")
    };
    let (first, second) = (sheet(2), sheet(4));
    for frame in [&first, &second] {
        assert_eq!((frame.width, frame.height), (count * side, 2 * side));
    }
    let half = first.data.len() / 2;
    assert_eq!(first.data[..half], second.data[..half], "what is true");
    assert!(first.data[half..] != second.data[half..], "what is drawn");
    assert!(first.data[..half].iter().any(|value| *value != first.data[0]), "of one colour");
    assert_eq!(std::fs::read_dir(folders[1].path().join("samples")).unwrap().count(), 1);
    let events = std::fs::read(folders[0].path().join("events.out.tfevents.0.syncdiff")).unwrap();
    assert_eq!(events.windows(8).filter(|bytes| bytes == b"\x89PNG\r\n\x1a\n").count(), 2);
}

#[test]
fn autoencoders_show_held_out_crops_and_what_is_left_of_them() {
    let (_turn, device) = (turn(), Device::flex());
    assert_drawn(
        || {
            let (task, model) = autoencoder_task(&device);
            (Box::new(task), model)
        },
        [8, 16],
    );
}

/// With guidance and without, in more steps than it would draw in.
#[test]
fn denoisers_show_what_they_draw_from_noise() {
    let (_turn, device) = (turn(), Device::flex());
    let clips: &'static [LatentClip] = Box::leak(latent_clips().into_boxed_slice());
    device.seed(5);
    let decoder = Autoencoder::new(&tiny::autoencoder(), &device);
    let side = decoder.decode(burn::tensor::Tensor::zeros([1, 3, 8, 8], &device)).dims()[2];
    for (sampler, guidance) in [(DDIM, 1.0), (Sampler { num_steps: 50, ..DDIM }, 2.0)] {
        assert_drawn(
            || {
                let (mut task, model) = diffusion_task(&device, clips);
                task.drawing = Some(SheetDrawing::new(decoder.clone(), sampler, guidance));
                (Box::new(task), model)
            },
            [6, side],
        );
    }
}

#[test]
fn wav2lips_show_the_middle_of_held_out_windows() {
    let (_turn, device) = (turn(), Device::flex());
    assert_drawn(
        || {
            let (task, model) = wav2lip_task(&device, Wav2LipTraining { adversarial_weight: 0.0, ..WAV2LIP });
            (Box::new(task), model)
        },
        [1, 96],
    );
}

/// A student draws as it generates, and goes on exactly.
#[test]
fn students_show_what_they_draw_from_noise() {
    let (_turn, device) = (turn(), Device::flex());
    let clips: &'static [LatentClip] = Box::leak(latent_clips().into_boxed_slice());
    let teacher = diffusion_task(&device, clips).1.valid().map(&mut tiny::Ramp::small());
    let decoder = Autoencoder::new(&tiny::autoencoder(), &device);
    let side = decoder.decode(burn::tensor::Tensor::zeros([1, 3, 8, 8], &device)).dims()[2];
    let make = || -> (Box<dyn Task<StudentStage>>, StudentStage) {
        let (mut samples, _) = diffusion_task(&device, clips);
        samples.drawing = Some(SheetDrawing::new(decoder.clone(), syncdiff_train::STUDENT_SAMPLER, 1.0));
        let student = StudentStage::new(teacher.clone().train());
        (Box::new(StudentTask::new(student_training(4), samples, teacher.clone()).unwrap()), student)
    };
    assert_drawn(make, [6, side]);
    assert_exact_resume(make);
}
