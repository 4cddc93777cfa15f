//! Activations that are computed again: the same losses, gradients and weights.

use super::*;

/// Losses, gradient norms and last weights of four steps, the last two of them resumed.
fn trained<M: Module + Sync + 'static>(
    make: &impl Fn(&Device) -> (Box<dyn Task<M>>, M),
    device: &Device,
) -> (M, Vec<(f32, f64)>) {
    let folder = tempfile::tempdir().unwrap();
    let mut log = Vec::new();
    let mut last = None;
    for stop_at in [2, 0] {
        let (task, model) = make(device);
        let mut report = |stats: &Stats| {
            log.push((stats.loss, stats.gradient_norm));
            stats.step != stop_at
        };
        last =
            Some(train(&Borrowed(&*task), model, &options(4, 2), folder.path(), &|| 0.0, &mut report).unwrap().model);
    }
    (last.unwrap(), log)
}

fn assert_same<M: Module + Sync + 'static>(make: impl Fn(&Device) -> (Box<dyn Task<M>>, M)) {
    let (kept, kept_log) = trained(&make, &Device::flex().autodiff());
    let (again, again_log) = trained(&make, &Device::flex().autodiff().gradient_checkpointing());
    assert_eq!(kept_log.len(), 4);
    assert_eq!(kept_log, again_log);
    assert_same_weights(&kept, &again);
}

#[test]
fn activations_computed_again_give_an_autoencoder_the_same_weights() {
    let _turn = turn();
    assert_same(|device| {
        let (task, model) = autoencoder_task(device);
        (Box::new(task), model)
    });
}

#[test]
fn activations_computed_again_give_a_denoiser_the_same_weights() {
    let _turn = turn();
    let clips: &'static [LatentClip] = Box::leak(latent_clips().into_boxed_slice());
    assert_same(|device| {
        let (task, model) = diffusion_task(device, clips);
        (Box::new(task), model)
    });
    assert_same(|device| {
        let (task, model) = estimating_task(device, [0.5, 0.5]);
        (Box::new(task), model)
    });
    // A student's teacher lies outside of automatic differentiation.
    let teacher = diffusion_task(&Device::flex(), clips).1.valid().map(&mut tiny::Ramp::small());
    assert_same(|device| {
        let (samples, _) = diffusion_task(device, clips);
        let (_, start) = diffusion_task(device, clips);
        let student = StudentStage::new(start);
        (Box::new(StudentTask::new(student_training(4), samples, teacher.clone()).unwrap()), student)
    });
}

#[test]
fn activations_computed_again_give_those_who_listen_the_same_weights() {
    let _turn = turn();
    let clips: &'static [SpeechClip] = Box::leak(speech_clips().into_boxed_slice());
    assert_same(|device| {
        let (task, model) = speech_task(device, clips);
        (Box::new(task), model)
    });
    assert_same(|device| {
        let (task, model) = syncnet_task(device, talking_clips(2));
        (Box::new(task), model)
    });
    assert_same(|device| {
        let (task, model) = wav2lip_task(device, WAV2LIP);
        (Box::new(task), model)
    });
}
