//! Losses and gradients that are no numbers end a run, and leave what it learnt from.

use super::*;
use syncdiff_model::diffusion::uniform_timesteps;
use syncdiff_train::run::RunConfig;

/// What becomes of the loss of the third step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Fault {
    /// It is no number.
    Loss,
    /// It is one, but its gradient is not.
    Gradient,
}

/// A task with a fault.
pub(super) struct Diverging<M: Module>(pub(super) Box<dyn Task<M>>, pub(super) Fault);

impl<M: Module + Sync> Task<M> for Diverging<M> {
    fn num_shards(&self) -> usize {
        self.0.num_shards()
    }
    fn before_step(&self, model: M, step: u64) -> TrainResult<M> {
        self.0.before_step(model, step)
    }
    fn loss(&self, model: &M, step: u64, shard: Shard) -> TrainResult<StepLoss> {
        let StepLoss { loss, parts } = self.0.loss(model, step, shard)?;
        let loss = match self.1 {
            _ if step != 2 => loss,
            Fault::Loss => loss * f32::INFINITY,
            // Nothing is added to the value; the slope of the root at zero is infinite.
            Fault::Gradient => loss.clone() + (loss.clone() - loss.detach()).sqrt(),
        };
        Ok(StepLoss { loss, parts })
    }
    fn batch_of(&self, step: u64) -> TrainResult<syncdiff_model::weights::TensorMap> {
        self.0.batch_of(step)
    }
}

/// The run ends at its third step, says what is no number, leaves the batch, and keeps the checkpoint before it.
fn assert_guarded<M: Module + Sync + 'static>(name: &str, make: impl Fn() -> (Box<dyn Task<M>>, M)) {
    for (fault, named) in [(Fault::Loss, "loss"), (Fault::Gradient, "gradient norm")] {
        let folder = tempfile::tempdir().unwrap();
        let options = TrainOptions { checkpoint_every: 2, ..options(4, 2) };
        let (task, model) = make();
        let expected = task.batch_of(2).unwrap();
        let mut losses = Vec::new();
        let mut report = |stats: &Stats| {
            losses.push(stats.loss);
            true
        };
        let ended = train(&Diverging(task, fault), model, &options, folder.path(), &|| 0.0, &mut report).map(|_| ());
        let Err(TrainError::NotFinite { step: 2, what, value, batch }) = &ended else { panic!("{name}: {ended:?}") };
        assert_eq!((*what, value.is_finite()), (named, false), "{name}");
        assert_eq!(losses.len(), 2, "{name}: the step is not in the log");
        let written = syncdiff_model::weights::open_safetensors(batch).unwrap();
        assert!(written.keys().eq(expected.keys()), "{name}");
        assert!(ended.unwrap_err().to_string().contains("not-finite-2"), "{name}");
        let checkpoints = folder.path().join("checkpoints");
        assert!(checkpoints.join("step-0000000002").is_dir(), "{name}");
        assert_eq!(std::fs::read_dir(&checkpoints).unwrap().count(), 1, "{name}: nothing of the step is saved");
    }
}

#[test]
fn what_is_not_finite_ends_the_run_of_an_autoencoder() {
    let (_turn, device) = (turn(), Device::flex());
    assert_guarded("autoencoder", || {
        let (task, model) = autoencoder_task(&device);
        assert_eq!(task.batch_of(2).unwrap()["pictures"].shape(), [2, 3, 16, 16]);
        (Box::new(task), model)
    });
}

#[test]
fn what_is_not_finite_ends_the_run_of_a_denoiser_and_of_a_student() {
    let (_turn, device) = (turn(), Device::flex());
    let clips: &'static [LatentClip] = Box::leak(latent_clips().into_boxed_slice());
    assert_guarded("diffusion", || {
        let (task, model) = diffusion_task(&device, clips);
        (Box::new(task), model)
    });
    let teacher = diffusion_task(&device, clips).1.valid().map(&mut tiny::Ramp::small());
    assert_guarded("student", || {
        let (task, model) = student_task(&device, clips, &teacher);
        (Box::new(task), model)
    });
}

#[test]
fn what_is_not_finite_ends_the_run_of_those_who_listen() {
    let (_turn, device) = (turn(), Device::flex());
    let clips: &'static [SpeechClip] = Box::leak(speech_clips().into_boxed_slice());
    assert_guarded("speech", || {
        let (task, model) = speech_task(&device, clips);
        (Box::new(task), model)
    });
    assert_guarded("syncnet", || {
        let (task, model) = syncnet_task(&device, talking_clips(2));
        (Box::new(task), model)
    });
    assert_guarded("wav2lip", || {
        let (task, model) = wav2lip_task(&device, WAV2LIP);
        (Box::new(task), model)
    });
}

/// The log tells the loss by bands of timesteps, each weighed as the timesteps are.
#[test]
fn losses_by_band_are_weighed_by_min_snr() {
    let (_turn, device) = (turn(), Device::flex());
    let clips = latent_clips();
    let weighting = LossWeighting::MinSnr { gamma: 5.0 };
    let parts = |weighting: LossWeighting, batch_size: usize, step: u64| {
        let (mut task, stage) = diffusion_task(&device, &clips);
        (task.batch_size, task.settings.weighting) = (batch_size, weighting);
        task.loss(&stage, step, Shard { index: 0, count: 1 }).unwrap().parts
    };
    let names = |parts: &[(&'static str, f32)]| parts.iter().map(|(name, _)| *name).collect::<Vec<_>>();
    let many = parts(weighting, 32, 0);
    assert_eq!(names(&many), ["t_below_250", "t_below_600", "t_below_1000"]);
    assert!(many.iter().all(|(_, value)| value.is_finite() && *value > 0.0), "{many:?}");
    // One sample is in one band, and its loss is the plain one by the weight of its timestep.
    let mut seen = std::collections::BTreeSet::new();
    for step in 0..24 {
        let timestep = uniform_timesteps(5, &[step], 1000)[0];
        let band = [250, 600, 1000].into_iter().find(|end| timestep < *end).unwrap();
        let [plain, weighed] = [LossWeighting::Uniform, weighting].map(|weighting| parts(weighting, 1, step));
        assert_eq!(names(&weighed), [format!("t_below_{band}")]);
        let weight = weighting.weight(&Schedule::paper(), Prediction::V, timestep) as f32;
        let expected = plain[0].1 * weight;
        assert!((weighed[0].1 - expected).abs() <= 1e-4 * expected, "{timestep}: {weighed:?} {expected}");
        seen.insert(band);
    }
    assert_eq!(seen.len(), 3);
}

/// Its form in a configuration.
#[test]
fn min_snr_is_a_table_of_the_configuration() {
    let shipped = include_str!("../../../../configs/lite/diffusion.toml");
    let plain = RunConfig::from_toml(shipped).unwrap().diffusion.unwrap();
    assert_eq!(plain.weighting, LossWeighting::Uniform);
    let text = shipped.replace("weighting = \"uniform\"", "weighting = { min_snr = { gamma = 5.0 } }");
    let weighed = RunConfig::from_toml(&text).unwrap().diffusion.unwrap();
    assert_eq!(weighed.weighting, LossWeighting::MinSnr { gamma: 5.0 });
    assert!(RunConfig::from_toml(&text.replace("gamma", "gama")).is_err());
}
