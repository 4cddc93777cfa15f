//! Several ranks of one run, a thread each, against one that does it alone.

use super::guards::{Diverging, Fault};
use super::*;
use std::collections::BTreeMap;
use std::time::Instant;
use syncdiff_train::{Partners, Share, train_together};

/// More than any machine makes a thread wait.
const PATIENCE: f64 = 60.0;
/// Where nobody is there to be waited for.
const SHORT_PATIENCE: f64 = 3.0;

/// What one rank of a run comes to: last weights, losses and gradient norms of its log.
type Ended<M> = TrainResult<(M, M, Vec<(f32, f64)>)>;

/// One rank, from joining to its end; it stops after the step `stop_at`.
fn rank<M: Module + Sync + 'static>(
    task: &dyn Task<M>,
    model: M,
    options: &TrainOptions,
    folder: &Path,
    share: Share,
    stop_at: u64,
) -> Ended<M> {
    let begun = Instant::now();
    let clock = || begun.elapsed().as_secs_f64();
    let identity = BTreeMap::from([("seed".to_owned(), options.seed.to_string())]);
    let mut partners = Partners::join(folder, share, identity, options.steps, &clock)?;
    let mut log = Vec::new();
    let mut report = |stats: &Stats| {
        log.push((stats.loss, stats.gradient_norm));
        stats.step != stop_at
    };
    let trained = train_together(&Borrowed(task), model, options, folder, &clock, Some(&mut partners), &mut report)?;
    Ok((trained.model, trained.shadow, log))
}

fn share(rank: usize, processes: usize) -> Share {
    Share { rank, processes, patience: PATIENCE }
}

/// The model with its parameters drawn: they are drawn at first use, and threads would draw from one generator at once.
fn drawn<M: Module>(model: M) -> M {
    module_tensors(&model, &Remap::identity());
    model
}

/// All ranks at once. Their models are made before, one after the other: they draw from one generator.
fn ranks<M: Module + Sync + 'static>(
    make: &impl Fn() -> (Box<dyn Task<M>>, M),
    options: &TrainOptions,
    folder: &Path,
    processes: usize,
    stop_at: u64,
) -> Vec<Ended<M>> {
    let made: Vec<_> = (0..processes)
        .map(|_| {
            let (task, model) = make();
            (task, drawn(model))
        })
        .collect();
    std::thread::scope(|scope| {
        let threads: Vec<_> = made
            .iter()
            .enumerate()
            .map(|(number, (task, model))| {
                let model = model.clone();
                let task: &dyn Task<M> = &**task;
                scope.spawn(move || rank(task, model, options, folder, share(number, processes), stop_at))
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

/// The same run alone and by several ranks, once without a break and once stopped after the third step: same losses,
/// same gradient norms, same weights on every rank, to the bit; and nothing is left of what was exchanged.
fn assert_processes_equal_one<M: Module + Sync + 'static>(
    make: impl Fn() -> (Box<dyn Task<M>>, M),
    options: &TrainOptions,
    processes: usize,
) {
    let folders = tempfile::tempdir().unwrap();
    let mut alone = Vec::new();
    let (task, model) = make();
    let mut report = |stats: &Stats| {
        alone.push((stats.loss, stats.gradient_norm));
        true
    };
    let whole = train(&Borrowed(&*task), model, options, &folders.path().join("alone"), &|| 0.0, &mut report).unwrap();
    for stop_at in [0, 3] {
        let folder = folders.path().join(format!("stopped at {stop_at}"));
        let mut log = Vec::new();
        if stop_at > 0 {
            for ended in ranks(&make, options, &folder, processes, stop_at) {
                log.extend(ended.unwrap().2);
            }
            assert_eq!(log.len() as u64, stop_at);
            assert!(folder.join(format!("checkpoints/step-{stop_at:010}")).is_dir());
        }
        for (number, ended) in ranks(&make, options, &folder, processes, 0).into_iter().enumerate() {
            let (model, shadow, part) = ended.unwrap();
            assert_eq!(part.is_empty(), number > 0, "only rank 0 keeps the log");
            log.extend(part);
            assert_same_weights(&whole.model, &model);
            assert_same_weights(&whole.shadow, &shadow);
        }
        assert_eq!(log, alone, "losses and gradient norms");
        assert!(!folder.join("exchange").exists());
        let lines = std::fs::read_to_string(folder.join("stats.jsonl")).unwrap();
        assert_eq!(lines.lines().count() as u64, options.steps);
    }
}

#[test]
fn processes_train_an_autoencoder_as_one_does_resume_included() {
    let _turn = turn();
    let device = Device::flex();
    let make = || {
        let (task, model) = autoencoder_task(&device);
        (Box::new(task) as Box<dyn Task<_>>, model)
    };
    assert_processes_equal_one(make, &options(6, 2), 2);
}

/// Three ranks, of two parts each.
#[test]
fn processes_train_a_denoiser_as_one_does_resume_included() {
    let _turn = turn();
    let device = Device::flex();
    let clips: &'static [LatentClip] = Box::leak(latent_clips().into_boxed_slice());
    let make = || {
        let (mut task, model) = diffusion_task(&device, clips);
        task.batch_size = 6;
        (Box::new(task) as Box<dyn Task<_>>, model)
    };
    assert_processes_equal_one(make, &TrainOptions { accumulate: 3, ..options(5, 6) }, 3);
}

#[test]
fn processes_train_a_syncnet_as_one_does_resume_included() {
    let _turn = turn();
    let (device, clips) = (Device::flex(), talking_clips(2));
    let make = || {
        let (task, model) = syncnet_task(&device, clips);
        (Box::new(task) as Box<dyn Task<_>>, model)
    };
    assert_processes_equal_one(make, &options(4, 2), 2);
}

/// A task whose data cannot be read from the third step on.
struct Failing<'a>(AutoencoderTask<'a>);

impl Task<AutoencoderTrainee> for Failing<'_> {
    fn num_shards(&self) -> usize {
        self.0.num_shards()
    }
    fn before_step(&self, model: AutoencoderTrainee, step: u64) -> TrainResult<AutoencoderTrainee> {
        self.0.before_step(model, step)
    }
    fn loss(&self, model: &AutoencoderTrainee, step: u64, shard: Shard) -> TrainResult<StepLoss> {
        match step {
            2 => Err(TrainError::Parameter { name: "disk", value: "broken".into(), allowed: "whole".into() }),
            _ => self.0.loss(model, step, shard),
        }
    }
}

/// A rank that fails ends the other at once, in its words; both again end in the bytes of a run without a failure.
#[test]
fn processes_resume_after_one_has_failed() {
    let _turn = turn();
    let device = Device::flex();
    let folder = tempfile::tempdir().unwrap();
    let options = TrainOptions { checkpoint_every: 1, ..options(4, 2) };
    let make = || {
        let (task, model) = autoencoder_task(&device);
        (task, drawn(model))
    };
    let (task, model) = make();
    let (whole, whole_shadow, _) = run(&task, model, &options, &folder.path().join("whole"), 0);
    let parts = folder.path().join("parts");
    let ((good, model), (bad, other)) = (make(), make());
    let bad = Failing(bad);
    let begun = Instant::now();
    let [first, second] = std::thread::scope(|scope| {
        let (good, bad): (&dyn Task<AutoencoderTrainee>, &dyn Task<AutoencoderTrainee>) = (&good, &bad);
        let first = scope.spawn(|| rank(good, model, &options, &parts, share(0, 2), 0).map(|_| ()));
        let second = scope.spawn(|| rank(bad, other, &options, &parts, share(1, 2), 0).map(|_| ()));
        [first, second].map(|thread| thread.join().unwrap().unwrap_err())
    });
    assert!(begun.elapsed().as_secs_f64() < PATIENCE, "it did not wait for silence");
    assert!(matches!(second, TrainError::Parameter { name: "disk", .. }), "{second}");
    let TrainError::Partner { rank: 1, .. } = &first else { panic!("{first}") };
    let told = first.to_string();
    for part in ["step 2", "rank 1 of 2", "disk = broken", "part-1.safetensors", "start all 2 processes again"] {
        assert!(told.contains(part), "{part}: {told}");
    }
    let boxed = || {
        let (task, model) = autoencoder_task(&device);
        (Box::new(task) as Box<dyn Task<_>>, model)
    };
    for ended in ranks(&boxed, &options, &parts, 2, 0) {
        let (model, shadow, _) = ended.unwrap();
        assert_same_weights(&whole, &model);
        assert_same_weights(&whole_shadow, &shadow);
    }
}

/// Every rank finds the number that is none, by itself; rank 0 alone leaves the batch.
#[test]
fn what_is_not_finite_ends_every_process() {
    let _turn = turn();
    let device = Device::flex();
    for (fault, named) in [(Fault::Loss, "loss"), (Fault::Gradient, "gradient norm")] {
        let folder = tempfile::tempdir().unwrap();
        let make = || {
            let (task, model) = autoencoder_task(&device);
            (Box::new(Diverging(Box::new(task), fault)) as Box<dyn Task<_>>, model)
        };
        let options = TrainOptions { checkpoint_every: 2, ..options(4, 2) };
        let ended = ranks(&make, &options, folder.path(), 2, 0);
        for ended in &ended {
            let Err(TrainError::NotFinite { step: 2, what, batch, .. }) = ended.as_ref().map(|_| ()) else {
                panic!("{:?}", ended.as_ref().map(|_| ()));
            };
            assert_eq!(*what, named);
            assert!(batch.is_file());
        }
        assert!(folder.path().join("checkpoints/step-0000000002").is_dir());
    }
}

/// Silence is no endless wait, on either side.
#[test]
fn a_process_alone_says_for_whom_it_waited() {
    let _turn = turn();
    let device = Device::flex();
    let folder = tempfile::tempdir().unwrap();
    for (number, missing, at) in [(0, 1, "step 0"), (1, 0, "before the first step")] {
        let (task, model) = autoencoder_task(&device);
        let begun = Instant::now();
        let share = Share { patience: SHORT_PATIENCE, ..share(number, 2) };
        let error = rank(&task, model, &options(2, 2), folder.path(), share, 0).map(|_| ()).unwrap_err();
        let TrainError::Partner { rank, seconds, .. } = &error else { panic!("{error}") };
        assert_eq!(*rank, missing);
        assert!(*seconds > SHORT_PATIENCE && begun.elapsed().as_secs_f64() < PATIENCE, "{error}");
        let told = error.to_string();
        assert!(told.contains(at) && told.contains("no sign of life") && told.contains("--patience"), "{told}");
    }
}

#[test]
fn what_cannot_be_shared_is_refused() {
    let _turn = turn();
    let device = Device::flex();
    let folder = tempfile::tempdir().unwrap();
    let refused = |share: Share, options: &TrainOptions, batch_size: usize| {
        let (task, model) = autoencoder_task_of(&device, batch_size);
        rank(&task, model, options, folder.path(), share, 0).map(|_| ()).unwrap_err().to_string()
    };
    let two = options(2, 2);
    for (share, part) in [
        (share(2, 2), "rank = 2: 0 to 1"),
        (share(0, 1), "processes = 1"),
        (Share { patience: 0.1, ..share(0, 2) }, "patience = 0.1"),
        (share(0, 3), "2 parts of a step of 2 samples cannot be shared out equally; choose a batch_size"),
    ] {
        let told = refused(share, &two, 2);
        assert!(told.contains(part), "{part}: {told}");
    }
    let told = refused(share(0, 3), &options(2, 12), 12);
    assert!(told.contains("set options.accumulate = 3"), "{told}");
}

/// A rank of another run, by its configuration or the number of its processes, does not join.
#[test]
fn a_process_of_another_run_is_refused() {
    let _turn = turn();
    let device = Device::flex();
    for (seed, processes, other) in [(6, 2, "another seed"), (5, 3, "another number of processes")] {
        let folder = tempfile::tempdir().unwrap();
        let ((task, model), (others, other_model)) = (autoencoder_task(&device), autoencoder_task(&device));
        let (model, other_model) = (drawn(model), drawn(other_model));
        let (right, wrong) = (options(2, 2), TrainOptions { seed, ..options(2, 2) });
        let path = folder.path();
        let [first, second] = std::thread::scope(|scope| {
            let first = scope.spawn(|| rank(&task, model, &right, path, share(0, 2), 0).map(|_| ()));
            let second = scope.spawn(|| rank(&others, other_model, &wrong, path, share(1, processes), 0).map(|_| ()));
            [first, second].map(|thread| thread.join().unwrap().unwrap_err())
        });
        assert!(second.to_string().contains(other), "{second}");
        assert!(matches!(first, TrainError::Partner { rank: 1, .. }), "{first}");
    }
}

/// Other weights, as of a machine that computes otherwise, are noticed at the first part.
#[test]
fn ranks_with_other_weights_are_refused() {
    let _turn = turn();
    let device = Device::flex();
    let folder = tempfile::tempdir().unwrap();
    let ((task, model), (others, other_model)) = (autoencoder_task(&device), autoencoder_task(&device));
    let (model, other_model) = (drawn(model), drawn(other_model).map(&mut tiny::Ramp::small()));
    let (options, path) = (options(2, 2), folder.path());
    let errors = std::thread::scope(|scope| {
        let first = scope.spawn(|| rank(&task, model, &options, path, share(0, 2), 0).map(|_| ()));
        let second = scope.spawn(|| rank(&others, other_model, &options, path, share(1, 2), 0).map(|_| ()));
        [first, second].map(|thread| thread.join().unwrap().unwrap_err().to_string())
    });
    assert!(errors.iter().any(|told| told.contains("other weights")), "{errors:?}");
}
