//! The training loop: one for every model of the system.

use crate::adamw::AdamW;
use crate::best::Measure;
use crate::checkpoint::{Checkpoints, Position};
use crate::error::{TrainError, TrainResult};
use crate::events::Events;
use crate::exchange::Partners;
use crate::gradients::{Accumulated, clip_global_norm, own_leaves, scale};
use crate::loss_scale::LossScale;
use crate::options::{TrainOptions, only_f32};
use crate::sheet::SampleSheet;
use burn::module::Module;
use burn::optim::GradientsParams;
use burn::tensor::Tensor;
use serde::Serialize;
use std::fs::OpenOptions;
use std::io::Write;
use std::ops::Range;
use std::path::Path;
use syncdiff_model::Precision;
use syncdiff_model::diffusion::Ema;
use syncdiff_model::nn::in_pool;
use syncdiff_model::weights::folder::save_safetensors_about;
use syncdiff_model::weights::{Storage, TensorMap};

/// Loss of one step: the value that is differentiated and named parts for the log.
pub struct StepLoss {
    /// Scalar, shape [1].
    pub loss: Tensor<1>,
    /// Name and value.
    pub parts: Vec<(&'static str, f32)>,
}

/// An equal part of a step's batch. Parts are differentiated by a thread each: most tensor operations of the CPU run on
/// one thread, so that two parts keep two cores busy. More parts than threads ([`TrainOptions::accumulate`]) are
/// differentiated one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shard {
    /// Which part.
    pub index: usize,
    /// How many parts.
    pub count: usize,
}

impl Shard {
    /// Parts that a batch is cut into: two where they come out equal.
    pub fn count_for(batch_size: usize) -> usize {
        if batch_size.is_multiple_of(2) { 2 } else { 1 }
    }

    /// The part of `0..len` that is this shard's; `count` must divide `len`.
    pub fn range(&self, len: usize) -> std::ops::Range<usize> {
        let size = len / self.count;
        self.index * size..(self.index + 1) * size
    }
}

/// A model being trained: everything a step needs must be a function of the model, the data and the step number,
/// so that a resumed run repeats an uninterrupted one.
pub trait Task<M: Module>: Sync {
    /// Parts of a step's batch that are differentiated at the same time; 1 where a step draws from the device's random generator, which all
    /// threads share.
    fn num_shards(&self) -> usize {
        1
    }

    /// Mean loss of one step over a part of its batch.
    ///
    /// # Errors
    /// When the data cannot be read.
    fn loss(&self, model: &M, step: u64, shard: Shard) -> TrainResult<StepLoss>;

    /// The model with its large networks computing in this type, for one step: gradients reach the f32 weights it is made
    /// of. By default refused but for f32.
    ///
    /// # Errors
    /// [`TrainError::Parameter`] where the task has no networks for that.
    fn in_precision(&self, model: M, precision: Precision) -> TrainResult<M> {
        only_f32(precision).map(|()| model)
    }

    /// Changes the model outside of the gradient (for example a codebook's start); called before each step.
    ///
    /// # Errors
    /// When the data cannot be read.
    fn before_step(&self, model: M, _step: u64) -> TrainResult<M> {
        Ok(model)
    }

    /// What a step learns from, as tensors: written beside the log when the loss of the step is not finite. By default
    /// none.
    ///
    /// # Errors
    /// When the data cannot be read.
    fn batch_of(&self, _step: u64) -> TrainResult<TensorMap> {
        Ok(TensorMap::new())
    }

    /// Figures on held-out data, from the moving average of the weights; called at each checkpoint.
    ///
    /// # Errors
    /// When the data cannot be read.
    fn validate(&self, _shadow: &M) -> TrainResult<Vec<(&'static str, f32)>> {
        Ok(Vec::new())
    }

    /// Held-out pictures, drawn by the moving average of the weights: called at each checkpoint and written into the
    /// run folder. It must not touch the random generator of the device. By default none.
    ///
    /// # Errors
    /// When the data cannot be read.
    fn sheet(&self, _shadow: &M) -> TrainResult<Option<SampleSheet>> {
        Ok(None)
    }

    /// Which of the figures of [`Task::validate`] tells the best checkpoint, which is kept beside the newest ones. By
    /// default none does.
    fn best_by(&self) -> Option<Measure> {
        None
    }
}

/// One line of `stats.jsonl`.
#[derive(Clone, Debug, Serialize)]
pub struct Stats {
    /// Steps done.
    pub step: u64,
    /// Steps in all.
    pub steps: u64,
    /// Mean loss since the last line.
    pub loss: f32,
    /// Mean global gradient norm before clipping since the last line, over the steps whose gradient was used.
    pub gradient_norm: f64,
    /// What the loss of the next step is scaled by, where gradients are f16.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub loss_scale: Option<f64>,
    /// Learning rate.
    pub rate: f64,
    /// Seconds of training in all.
    pub seconds: f64,
    /// Named parts of the loss, each the mean over the steps since the last line in which it occurs.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub parts: Vec<(&'static str, f32)>,
    /// Held-out figures, at checkpoints.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub valid: Vec<(&'static str, f32)>,
    /// Steps of the best checkpoint so far, at checkpoints.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub best: Option<u64>,
}

/// What training returns.
pub struct Trained<M> {
    /// The weights of the last step.
    pub model: M,
    /// Their moving average: what is shipped.
    pub shadow: M,
    /// Steps done, over all parts of the run.
    pub step: u64,
    /// Seconds of training, over all parts of the run.
    pub seconds: f64,
}

/// A monotonic clock in seconds, given from outside: this room reads none itself.
pub type Clock<'a> = &'a dyn Fn() -> f64;

/// Trains `model` to `options.steps`, going on from the newest checkpoint of `run` if there is one.
///
/// `report` receives every line of the log and may end the run by returning `false`; a checkpoint is written first.
///
/// # Errors
/// A loss or gradient that is not finite, data that cannot be read, a run folder that cannot be written.
pub fn train<M: Module + Sync + 'static>(
    task: &impl Task<M>,
    model: M,
    options: &TrainOptions,
    run: &Path,
    clock: Clock<'_>,
    report: &mut dyn FnMut(&Stats) -> bool,
) -> TrainResult<Trained<M>> {
    train_together(task, model, options, run, clock, None, report)
}

/// As [`train`], with other processes that train the same model in the same run folder and share every step's parts:
/// the weights are those of one process, to the bit. Only rank 0 reports, looks at held-out data and writes anything but
/// what is exchanged.
///
/// # Errors
/// As [`train`]; [`TrainError::Partner`] when another process ends early, [`TrainError::Parameter`] when the parts
/// cannot be shared out equally.
pub fn train_together<M: Module + Sync + 'static>(
    task: &impl Task<M>,
    model: M,
    options: &TrainOptions,
    run: &Path,
    clock: Clock<'_>,
    mut partners: Option<&mut Partners<'_>>,
    report: &mut dyn FnMut(&Stats) -> bool,
) -> TrainResult<Trained<M>> {
    let trained = steps(task, model, options, run, clock, partners.as_deref_mut(), report);
    if let Some(partners) = partners {
        partners.end(&trained, |trained| trained.step == options.steps);
    }
    trained
}

fn steps<M: Module + Sync + 'static>(
    task: &impl Task<M>,
    model: M,
    options: &TrainOptions,
    run: &Path,
    clock: Clock<'_>,
    mut partners: Option<&mut Partners<'_>>,
    report: &mut dyn FnMut(&Stats) -> bool,
) -> TrainResult<Trained<M>> {
    let mut cut = Cut::new(task, options, partners.as_deref())?;
    let leads = partners.as_ref().is_none_or(|partners| partners.leads());
    let checkpoints = Checkpoints::new(run, options.keep_checkpoints)?;
    let new_optimizer = || AdamW::of_module(options.weight_decay);
    let mut restored = if leads { checkpoints.latest(&model, new_optimizer)? } else { None };
    if let Some(partners) = partners.as_deref_mut() {
        let step = partners.agree_on_start(|| restored.as_ref().map_or(0, |restored| restored.position.step))?;
        if !leads {
            restored = checkpoints.at(step, &model, new_optimizer)?;
        }
    }
    let (mut model, mut shadow, mut optimizer, mut position) = match restored {
        Some(restored) => (restored.model, restored.shadow, restored.optimizer, restored.position),
        None => {
            // Parameters are drawn at first use: this reads them all before a step can seed the generator anew.
            let shadow = Ema::shadow_of(&model);
            let start = Position { step: 0, ema_updates: 0, seconds: 0.0, best: None, loss_scale: None };
            (model, shadow, new_optimizer(), start)
        }
    };
    position.loss_scale = LossScale::of(options.precision).map(|first| position.loss_scale.unwrap_or(first));
    let mut ema = Ema::new(options.ema_decay, position.ema_updates);
    let mut log = leads.then(|| Log::open(run)).transpose()?;
    let started = clock() - position.seconds;
    let mut window = Window::default();
    while position.step < options.steps {
        let step = position.step;
        model = task.before_step(model, step)?;
        cut.scale = position.loss_scale.map_or(1.0, |scale| scale.factor);
        let Some(whole) = differentiate(task, &model, step, &cut, partners.as_deref_mut())? else { break };
        let Part { loss: value, parts, mut gradients } = whole;
        let norm = clip_global_norm(&model, &mut gradients, options.clip_norm);
        let scaled = position.loss_scale.and_then(|scale| scale.next(norm.is_finite()));
        let overflowed = scaled.is_some() && !norm.is_finite();
        for (what, value, left_out) in [("loss", value, false), ("gradient norm", norm as f32, overflowed)] {
            if !(value.is_finite() || left_out) {
                return Err(not_finite(task, step, what, value, run, leads));
            }
        }
        if !overflowed {
            model = optimizer.step(options.rate_at(step), model, gradients);
            shadow = ema.update(shadow, &model);
        }
        position = Position {
            step: step + 1,
            ema_updates: ema.num_updates(),
            seconds: clock() - started,
            best: position.best.take(),
            loss_scale: scaled,
        };
        let Some(log) = &mut log else { continue };
        window.add(value, (!overflowed).then_some(norm), parts);
        let last = position.step == options.steps;
        let save = last || position.step.is_multiple_of(options.checkpoint_every);
        if save || position.step.is_multiple_of(options.log_every) {
            let valid = if save { task.validate(&shadow)? } else { Vec::new() };
            if let Some(measure) = task.best_by() {
                position.best = measure.better(position.best.take(), position.step, &valid);
            }
            let stats = window.take(&position, options, valid);
            log.write(&stats)?;
            if let Some(sheet) = if save { task.sheet(&shadow)? } else { None } {
                log.draw(&sheet, run, &position)?;
            }
            let go_on = report(&stats);
            if save || !go_on {
                checkpoints.save(&model, &shadow, &optimizer, &position)?;
            }
            if !go_on {
                break;
            }
        }
    }
    Ok(Trained { model, shadow, step: position.step, seconds: position.seconds })
}

/// Loss and gradients of a part of a step, or of all of it.
pub(crate) struct Part {
    pub(crate) loss: f32,
    pub(crate) parts: Vec<(&'static str, f32)>,
    pub(crate) gradients: GradientsParams,
}

/// How the steps of a run are cut into parts, and in what these are computed.
struct Cut {
    /// Parts of a step.
    count: usize,
    /// Those that are computed by this process.
    own: Range<usize>,
    /// Most of them at the same time.
    threads: usize,
    /// The type in which they are computed.
    precision: Precision,
    /// What their losses are multiplied with, and their gradients divided by.
    scale: f64,
}

impl Cut {
    fn new<M: Module>(
        task: &impl Task<M>,
        options: &TrainOptions,
        partners: Option<&Partners<'_>>,
    ) -> TrainResult<Self> {
        let threads = task.num_shards();
        let count = options.num_parts(threads)?;
        let own = match partners {
            Some(partners) => partners.parts(options.batch_size, threads, count)?,
            None => 0..count,
        };
        Ok(Self { count, own, threads, precision: options.precision, scale: 1.0 })
    }
}

/// Adds up the parts of a step, in their order.
#[derive(Default)]
struct Fold {
    loss: f32,
    named: Named,
    sum: Accumulated,
}

impl Fold {
    fn add<M: Module>(&mut self, model: &M, count: usize, part: Part) {
        self.loss += part.loss / count as f32;
        self.named.add(part.parts);
        self.sum.add(model, part.gradients);
    }

    fn whole<M: Module>(mut self, model: &M) -> Part {
        Part { loss: self.loss, parts: self.named.take(), gradients: self.sum.mean(model) }
    }
}

/// A whole step; `None` when rank 0 was asked to stop before it.
fn differentiate<M: Module + Sync>(
    task: &impl Task<M>,
    model: &M,
    step: u64,
    cut: &Cut,
    partners: Option<&mut Partners<'_>>,
) -> TrainResult<Option<Part>> {
    if cut.count == 1 {
        return differentiate_part(task, model, step, cut, Shard { index: 0, count: 1 }).map(Some);
    }
    let mut fold = Fold::default();
    match partners {
        None => each_part(task, model, step, cut, |_, part| {
            fold.add(model, cut.count, part);
            Ok(())
        })?,
        Some(partners) => {
            let weights = Partners::digest(model);
            each_part(task, model, step, cut, |index, part| partners.give(model, step, weights, index, &part))?;
            if !partners.take(model, step, weights, cut.count, |part| fold.add(model, cut.count, part))? {
                return Ok(None);
            }
        }
    }
    Ok(Some(fold.whole(model)))
}

/// Computes this process's parts of a step and hands them over, in their order.
fn each_part<M: Module + Sync>(
    task: &impl Task<M>,
    model: &M,
    step: u64,
    cut: &Cut,
    mut done: impl FnMut(usize, Part) -> TrainResult<()>,
) -> TrainResult<()> {
    let count = cut.count;
    for first in cut.own.clone().step_by(cut.threads) {
        let group = first..(first + cut.threads).min(cut.own.end);
        let results: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = group
                .clone()
                .map(|index| {
                    let leaves = own_leaves(model);
                    scope.spawn(move || differentiate_part(task, &leaves, step, cut, Shard { index, count }))
                })
                .collect();
            let joined = threads.into_iter().map(|thread| thread.join().expect("a panic of a part is one of the step"));
            joined.collect()
        });
        for (index, part) in group.zip(results) {
            done(index, part?)?;
        }
    }
    Ok(())
}

fn differentiate_part<M: Module + Sync>(
    task: &impl Task<M>,
    model: &M,
    step: u64,
    cut: &Cut,
    shard: Shard,
) -> TrainResult<Part> {
    let device = model.devices().first().cloned().unwrap_or_default();
    in_pool(&device, || {
        let StepLoss { loss, parts } = task.loss(&task.in_precision(model.clone(), cut.precision)?, step, shard)?;
        let value = loss.clone().into_scalar::<f32>();
        let loss = if cut.scale == 1.0 { loss } else { loss * cut.scale };
        let mut gradients = GradientsParams::from_grads(loss.backward(), model);
        if cut.scale != 1.0 {
            scale(model, &mut gradients, 1.0 / cut.scale);
        }
        Ok(Part { loss: value, parts, gradients })
    })
}

/// The error of a step whose loss or gradient is not finite, after its batch was written into the run folder.
fn not_finite<M: Module>(
    task: &impl Task<M>,
    step: u64,
    what: &'static str,
    value: f32,
    run: &Path,
    leads: bool,
) -> TrainError {
    let path = run.join(format!("not-finite-{step}.safetensors"));
    if !leads {
        // Rank 0 comes to the same number, and writes it.
        return TrainError::NotFinite { step, what, value, batch: path };
    }
    let batch = match task.batch_of(step) {
        Ok(batch) => batch,
        Err(error) => return error,
    };
    let text = format!("batch of step {step}: {what} is {value}");
    match save_safetensors_about(&batch, Storage::F32, ("about", &text), &path) {
        Ok(()) => TrainError::NotFinite { step, what, value, batch: path },
        Err(error) => error.into(),
    }
}

/// Means of named figures.
#[derive(Default)]
struct Named(Vec<(&'static str, f64, u32)>);

impl Named {
    fn add(&mut self, parts: Vec<(&'static str, f32)>) {
        for (name, value) in parts {
            match self.0.iter_mut().find(|(other, ..)| *other == name) {
                Some((_, sum, count)) => (*sum, *count) = (*sum + f64::from(value), *count + 1),
                None => self.0.push((name, f64::from(value), 1)),
            }
        }
    }

    fn take(&mut self) -> Vec<(&'static str, f32)> {
        self.0.drain(..).map(|(name, sum, count)| (name, (sum / f64::from(count)) as f32)).collect()
    }
}

/// Sums since the last line of the log.
#[derive(Default)]
struct Window {
    loss: f64,
    norm: f64,
    count: u64,
    /// Steps with a norm.
    used: u64,
    parts: Named,
}

impl Window {
    fn add(&mut self, loss: f32, norm: Option<f64>, parts: Vec<(&'static str, f32)>) {
        self.parts.add(parts);
        self.loss += f64::from(loss);
        self.norm += norm.unwrap_or(0.0);
        self.used += u64::from(norm.is_some());
        self.count += 1;
    }

    fn take(&mut self, position: &Position, options: &TrainOptions, valid: Vec<(&'static str, f32)>) -> Stats {
        let Position { step, seconds, .. } = *position;
        let best = position.best.as_ref().filter(|_| !valid.is_empty()).map(|best| best.step);
        let count = self.count.max(1) as f64;
        let stats = Stats {
            step,
            steps: options.steps,
            loss: (self.loss / count) as f32,
            gradient_norm: self.norm / self.used.max(1) as f64,
            loss_scale: position.loss_scale.map(|scale| scale.factor),
            rate: options.rate_at(step - 1),
            seconds,
            parts: self.parts.take(),
            valid,
            best,
        };
        *self = Self::default();
        stats
    }
}

/// `stats.jsonl`, and the same for TensorBoard.
struct Log {
    file: std::fs::File,
    path: std::path::PathBuf,
    events: Events,
}

impl Log {
    fn open(run: &Path) -> TrainResult<Self> {
        let path = run.join("stats.jsonl");
        let file = OpenOptions::new().create(true).append(true).open(&path).map_err(|e| TrainError::io(&path, e))?;
        Ok(Self { file, path, events: Events::open(run)? })
    }

    fn write(&mut self, stats: &Stats) -> TrainResult<()> {
        let line = serde_json::to_string(stats).map_err(|e| TrainError::io(&self.path, e))?;
        writeln!(self.file, "{line}").map_err(|e| TrainError::io(&self.path, e))?;
        self.events.write(stats)
    }

    fn draw(&mut self, sheet: &SampleSheet, run: &Path, position: &Position) -> TrainResult<()> {
        let png = sheet.write(run, position.step)?;
        self.events.draw(position.step, position.seconds, sheet.size(), &png)
    }
}
