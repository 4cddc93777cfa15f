//! Networks that compute in 16 bits while f32 weights learn. bf16 takes the kernels of the CPU, whose products are done
//! one by one where the processor has no instruction for them; f16 takes the default bodies of all layers, as GPUs do.

use super::*;
use syncdiff_model::weights::Dtype;

const HALVES: [Precision; 2] = [Precision::Bf16, Precision::F16];

/// A figure of every line of a run's log, if it has it.
fn column(folder: &Path, name: &str) -> Vec<f32> {
    let text = std::fs::read_to_string(folder.join("stats.jsonl")).unwrap();
    let of = |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap()[name].as_f64().map(|v| v as f32);
    text.lines().filter_map(of).collect()
}

/// The losses of the first steps are those of f32 but for such a share, the norms of their gradients but for five times
/// that, where they were used; and the weights stay f32.
fn assert_like_f32<M: Module + Sync + 'static>(name: &str, share: f32, make: impl Fn() -> (Box<dyn Task<M>>, M)) {
    let trained = |precision: Precision| {
        let folder = tempfile::tempdir().unwrap();
        let options = TrainOptions { precision, learning_rate: 2e-4, ..options(6, 2) };
        let (task, model) = make();
        let (model, _, losses) = run(&Borrowed(&*task), model, &options, folder.path(), 0);
        let weights = module_tensors(&model, &Remap::identity());
        assert!(weights.values().all(|tensor| tensor.dtype() == Dtype::F32), "{name} in {precision}");
        (losses, column(folder.path(), "gradient_norm"), column(folder.path(), "loss_scale"))
    };
    let (exact, exact_norms, no_scale) = trained(Precision::F32);
    assert!(no_scale.is_empty());
    for precision in HALVES {
        let (found, norms, scale) = trained(precision);
        assert_eq!(scale.len(), if precision == Precision::F16 { 6 } else { 0 });
        assert!(found != exact, "{name} did not compute in {precision}");
        for (step, (a, b)) in found.iter().zip(&exact).enumerate() {
            assert!((a - b).abs() < share * b, "{name} in {precision}, step {step}: {found:?} {exact:?}");
        }
        let used: Vec<_> = norms.iter().zip(&exact_norms).filter(|(norm, _)| **norm > 0.0).collect();
        assert!(
            !used.is_empty() && used.iter().all(|(a, b)| (**a - **b).abs() < 5.0 * share * **b),
            "{name}: {used:?}"
        );
    }
}

#[test]
fn an_autoencoder_learns_in_16_bits_as_in_32() {
    let (_turn, device) = (turn(), Device::flex());
    assert_like_f32("autoencoder", 0.02, || {
        let (task, model) = autoencoder_task(&device);
        (Box::new(task), model)
    });
}

#[test]
fn a_denoiser_and_a_student_learn_in_16_bits_as_in_32() {
    let (_turn, device) = (turn(), Device::flex());
    let clips: &'static [LatentClip] = Box::leak(latent_clips().into_boxed_slice());
    assert_like_f32("diffusion", 0.02, || {
        let (task, model) = diffusion_task(&device, clips);
        (Box::new(task), model)
    });
    let teacher = diffusion_task(&device, clips).1.valid().map(&mut tiny::Ramp::small());
    // It learns from itself.
    assert_like_f32("student", 0.1, || {
        let (task, model) = student_task(&device, clips, &teacher);
        (Box::new(task), model)
    });
}

/// The adversarial loss looks at the gradient of the decoder's last layer, which stays f32.
#[test]
fn an_adversary_and_losses_on_estimates_bear_16_bits() {
    let (_turn, device) = (turn(), Device::flex());
    // The first gradients in f16 are too large, and left out.
    assert_like_f32("adversary", 0.1, || {
        let (task, model) = first_stage::task_of(&device, first_stage::PUBLISHED);
        (Box::new(task), model)
    });
    assert_like_f32("estimates", 0.02, || {
        let (task, model) = estimating_task(&device, [0.5, 0.0]);
        (Box::new(task), model)
    });
}

#[test]
fn diffusion_in_16_bits_resume_is_exact() {
    let (_turn, device) = (turn(), Device::flex());
    let clips: &'static [LatentClip] = Box::leak(latent_clips().into_boxed_slice());
    for precision in HALVES {
        let options = TrainOptions { precision, ..options(6, 2) };
        assert_exact_resume_with(&options, || {
            let (task, model) = diffusion_task(&device, clips);
            // In f16 its first gradients are too large.
            (Box::new(Loud(Box::new(task), 1e4)), model)
        });
    }
}

/// A task whose loss is so many times as large.
struct Loud<M: Module>(Box<dyn Task<M>>, f64);

impl<M: Module + Sync> Task<M> for Loud<M> {
    fn num_shards(&self) -> usize {
        self.0.num_shards()
    }
    fn in_precision(&self, model: M, precision: Precision) -> TrainResult<M> {
        self.0.in_precision(model, precision)
    }
    fn loss(&self, model: &M, step: u64, shard: Shard) -> TrainResult<StepLoss> {
        let StepLoss { loss, parts } = self.0.loss(model, step, shard)?;
        Ok(StepLoss { loss: loss * self.1, parts })
    }
}

/// Gradients that f16 cannot hold are left out, and the loss is scaled by half as much for the next step. Where they do
/// not fit without a scale either, the run ends.
#[test]
fn gradients_beyond_the_range_of_f16_move_nothing_and_lower_the_scale() {
    let (_turn, device) = (turn(), Device::flex());
    let clips: &'static [LatentClip] = Box::leak(latent_clips().into_boxed_slice());
    let make = |factor: f64| {
        let (task, model) = diffusion_task(&device, clips);
        (Loud(Box::new(task), factor), model)
    };
    let options = TrainOptions { precision: Precision::F16, ..options(14, 2) };
    let folder = tempfile::tempdir().unwrap();
    let (task, model) = make(1e4);
    let start = model.clone();
    let (first, shadow, _) = run(&task, model, &options, folder.path(), 1);
    assert_same_weights(&first, &start);
    assert_same_weights(&shadow, &start.valid());
    let (task, model) = make(1e4);
    let (last, ..) = run(&task, model, &options, folder.path(), 0);
    let scales = column(folder.path(), "loss_scale");
    assert_eq!(scales[0], 32_768.0);
    let steps: Vec<f32> = scales.windows(2).map(|two| two[1] / two[0]).collect();
    assert!(steps.contains(&1.0) && steps.iter().all(|step| [0.5, 1.0].contains(step)), "{scales:?}");
    let moved = |name: &str| {
        let [now, then] =
            [&last, &start].map(|model| module_tensors(model, &Remap::identity())[name].to_f32().unwrap());
        now != then && now.iter().all(|value| value.is_finite())
    };
    assert!(module_tensors(&start, &Remap::identity()).keys().any(|name| moved(name)));

    let folder = tempfile::tempdir().unwrap();
    let (task, model) = make(1e30);
    let options = TrainOptions { steps: 40, ..options };
    let ended = train(&task, model, &options, folder.path(), &|| 0.0, &mut |_| true).map(|_| ()).unwrap_err();
    assert!(matches!(ended, TrainError::NotFinite { step: 16, what: "gradient norm", .. }), "{ended}");
}

#[test]
fn small_networks_learn_in_f32_only_and_say_so() {
    let (_turn, device) = (turn(), Device::flex());
    let folder = tempfile::tempdir().unwrap();
    let options = TrainOptions { precision: Precision::Bf16, ..options(2, 2) };
    let clips = speech_clips();
    let (task, model) = speech_task(&device, &clips);
    let error = train(&task, model, &options, folder.path(), &|| 0.0, &mut |_| true).map(|_| ()).unwrap_err();
    assert!(error.to_string().contains("precision = bf16") && error.to_string().contains("f32"), "{error}");
}
