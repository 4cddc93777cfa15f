//! The best checkpoint is kept beside the newest ones, and known again after a resume.

use super::*;
use std::sync::atomic::{AtomicU64, Ordering};

/// A task whose held-out figure at each checkpoint is told in advance.
struct Told<'a> {
    task: AutoencoderTask<'a>,
    measure: fn(&'static str) -> Measure,
    figures: [f32; 6],
    done: AtomicU64,
}

impl Task<AutoencoderTrainee> for Told<'_> {
    fn before_step(&self, model: AutoencoderTrainee, step: u64) -> TrainResult<AutoencoderTrainee> {
        self.done.store(step + 1, Ordering::Relaxed);
        self.task.before_step(model, step)
    }
    fn loss(&self, model: &AutoencoderTrainee, step: u64, shard: Shard) -> TrainResult<StepLoss> {
        self.task.loss(model, step, shard)
    }
    fn validate(&self, _shadow: &AutoencoderTrainee) -> TrainResult<Vec<(&'static str, f32)>> {
        Ok(vec![("told", self.figures[self.done.load(Ordering::Relaxed) as usize - 1])])
    }
    fn best_by(&self) -> Option<Measure> {
        Some((self.measure)("told"))
    }
}

fn options_keeping(keep_checkpoints: usize) -> TrainOptions {
    TrainOptions { checkpoint_every: 1, keep_checkpoints, ..options(6, 2) }
}

/// Trains, to the step `stop_at` unless it is 0, and returns the best step of each line of the log.
fn told(
    measure: fn(&'static str) -> Measure,
    figures: [f32; 6],
    keep: usize,
    folder: &Path,
    stop_at: u64,
) -> Vec<Option<u64>> {
    let (task, model) = autoencoder_task(&Device::flex());
    let task = Told { task, measure, figures, done: AtomicU64::new(0) };
    let mut best = Vec::new();
    let mut report = |stats: &Stats| {
        best.push(stats.best);
        stats.step != stop_at
    };
    train(&task, model, &options_keeping(keep), folder, &|| 0.0, &mut report).unwrap();
    best
}

/// Steps of the checkpoints in a run folder.
fn kept(folder: &Path) -> Vec<u64> {
    let entries = std::fs::read_dir(folder.join("checkpoints")).unwrap();
    let name = |entry: std::io::Result<std::fs::DirEntry>| entry.unwrap().file_name().into_string().unwrap();
    let mut steps: Vec<u64> =
        entries.map(|entry| name(entry).strip_prefix("step-").unwrap().parse().unwrap()).collect();
    steps.sort();
    steps
}

#[test]
fn the_best_checkpoint_outlives_newer_ones() {
    let _turn = turn();
    let folder = tempfile::tempdir().unwrap();
    let figures = [5.0, 2.0, 3.0, 9.0, 2.0, 4.0];
    let (lowest, highest) = (folder.path().join("lowest"), folder.path().join("highest"));
    assert_eq!(told(Measure::Lowest, figures, 2, &lowest, 0), [1, 2, 2, 2, 2, 2].map(Some));
    assert_eq!(kept(&lowest), [2, 5, 6]);
    assert_eq!(told(Measure::Highest, figures, 1, &highest, 0), [1, 1, 1, 4, 4, 4].map(Some));
    assert_eq!(kept(&highest), [4, 6]);
    // It is whole: where the newest are gone, the run goes on from it.
    for step in [5, 6] {
        std::fs::remove_dir_all(lowest.join(format!("checkpoints/step-{step:010}"))).unwrap();
    }
    assert_eq!(told(Measure::Lowest, figures, 2, &lowest, 0).len(), 4);
    assert_eq!(kept(&lowest), [2, 5, 6]);
}

/// Without what the first part of the run knew, the fifth or the sixth would be the best.
#[test]
fn the_best_survives_a_resume_which_goes_on_from_the_newest() {
    let _turn = turn();
    let folder = tempfile::tempdir().unwrap();
    let (whole, parts) = (folder.path().join("whole"), folder.path().join("parts"));
    let figures = [5.0, 0.1, 3.0, f32::NAN, 2.0, 1.0];
    told(Measure::Lowest, figures, 1, &whole, 0);
    assert_eq!(told(Measure::Lowest, figures, 1, &parts, 4).len(), 4);
    assert_eq!(kept(&parts), [2, 4]);
    assert_eq!(told(Measure::Lowest, figures, 1, &parts, 0), [Some(2); 2], "the fifth and the sixth step");
    assert_eq!((kept(&whole), kept(&parts)), (vec![2, 6], vec![2, 6]));
    let position = |run: &Path, step: u64| {
        std::fs::read_to_string(run.join(format!("checkpoints/step-{step:010}/position.toml"))).unwrap()
    };
    for step in [2, 6] {
        assert_eq!(position(&whole, step), position(&parts, step));
    }
    let position: toml::Table = position(&parts, 6).parse().unwrap();
    assert_eq!(position["best"]["step"].as_integer(), Some(2));
    assert_eq!(position["best"]["value"].as_float().map(|value| value as f32), Some(0.1));
}

/// A misspelt figure would never make anything the best.
#[test]
fn every_task_measures_the_figure_that_tells_its_best() {
    let _turn = turn();
    fn assert_measured<M: Module>(task: &impl Task<M>, model: &M) {
        let (Measure::Lowest(name) | Measure::Highest(name)) = task.best_by().unwrap();
        let figures = task.validate(model).unwrap();
        assert!(figures.iter().any(|(figure, _)| *figure == name), "{name}: {figures:?}");
    }
    let (device, clips) = (Device::flex(), talking_clips(2));
    let (task, model) = autoencoder_task(&device);
    assert_measured(&task, &model.valid());
    let speech = speech_clips();
    let (task, model) = speech_task(&device, &speech);
    assert_measured(&task, &model.valid());
    let latents = latent_clips();
    let (task, model) = diffusion_task(&device, &latents);
    assert_measured(&task, &model.valid());
    let (task, model) = student_task(&device, &latents, &model.valid());
    assert_measured(&task, &model.valid());
    let (task, model) = syncnet_task(&device, clips);
    assert_measured(&task, &model.valid());
    let (task, model) = reader_task(&device, clips, 2);
    assert_measured(&task, &model.valid());
    let (task, model) = pretrain_task(&device, clips, PRETRAINING, 0.1);
    assert_measured(&task, &model.valid());
    let (task, model) = wav2lip_task(&device, Wav2LipTraining { adversarial_weight: 0.0, ..WAV2LIP });
    assert_measured(&task, &model.valid());
}
