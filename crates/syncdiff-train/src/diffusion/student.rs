//! Distils a trained denoiser into a student that needs few steps and no guidance.
//!
//! The student begins as a copy of its teacher. At each step a latent is noised to a timestep of a grid of fifty; the
//! frozen teacher, guided as it generates, takes one DDIM step to an earlier one; the student's clean latent at the
//! first must equal that of a moving average of itself at the second. What is known where there is no noise thus
//! spreads to pure noise. The consistency function is the published one, f = c_skip z + c_out x_0(z): it asks nothing
//! of the form that the network predicts but its clean latent, which for v is a z - s v, well-conditioned at every
//! timestep, so that the teacher's network serves as it is.
//!
//! # Source
//! Luo et al. 2023 (LCM); METHOD section 19.4. Unlike there, guidance is part of the teacher's answer and not told to
//! the student, whose answer has it baked in; the solver's step may span several steps of the grid; and its last one ends
//! at the clean latent, where f is the identity, not at the noise of timestep 0.

use super::sheet::with_guidance;
use super::{Batch, DenoiserStage, DiffusionTask, Pick, by_band, pick};
use crate::best::Measure;
use crate::error::{TrainError, TrainResult};
use crate::sheet::SampleSheet;
use crate::trainer::{Shard, StepLoss, Task};
use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{DType, Device, Tensor, TensorData};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use std::sync::OnceLock;
use syncdiff_model::Precision;
use syncdiff_model::denoiser::{BoundDenoiser, VisualPriors};
use syncdiff_model::diffusion::sampler::lcm::LCM_GRID;
use syncdiff_model::diffusion::{
    Ema, LcmBoundary, LcmStep, LossWeighting, Prediction, Sampler, SamplerKind, Spacing, pseudo_huber_elements,
    uniform_timesteps,
};
use syncdiff_model::weights::{StoredTensor, TensorMap};

/// How a student generates: multi-step consistency sampling, in four steps where nothing else is asked for.
pub const STUDENT_SAMPLER: Sampler =
    Sampler { kind: SamplerKind::Lcm, num_steps: 4, spacing: Spacing::Trailing, eta: 0.0 };
/// How the teacher draws, and the student where it must end where the teacher does: without fresh noise.
const DETERMINISTIC: Sampler = Sampler { kind: SamplerKind::Ddim, ..STUDENT_SAMPLER };
/// Steps of the teacher's samples that a student is measured by.
const REFERENCE_STEPS: usize = 16;
/// Held-out samples drawn at once.
const HELD_OUT_BATCH: usize = 16;
/// Seed of what is held out.
const HELD_OUT_SEED: u64 = 7;

/// Settings of the distillation; how samples are drawn and how latent positions weigh is told by those of the
/// diffusion.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StudentTraining {
    /// Least guidance of the teacher; the weight is drawn anew for each step. Equal to the largest: fixed.
    pub guidance_min: f32,
    /// Largest guidance of the teacher.
    pub guidance_max: f32,
    /// Steps of the grid of fifty that one solver step of the teacher spans; 1 as published. More lets a short run
    /// reach pure noise, by steps that are less exact.
    pub skip: usize,
    /// Decay of the moving average that the student learns from; 0.95 as published.
    pub target_decay: f64,
    /// Difference at which the loss turns from square to linear; 0.001 as published. Large: square everywhere.
    pub huber_c: f64,
    /// Held-out samples at each checkpoint.
    pub held_out: usize,
}

impl StudentTraining {
    /// # Errors
    /// [`TrainError::Parameter`] for a value out of range.
    pub(crate) fn check(&self) -> TrainResult<()> {
        let refused = |name, value: String, allowed: &str| {
            Err(TrainError::Parameter { name, value, allowed: allowed.to_owned() })
        };
        let range = self.guidance_min..=self.guidance_max;
        if range.is_empty() || !(1.0..=20.0).contains(&self.guidance_min) || !(1.0..=20.0).contains(&self.guidance_max)
        {
            let value = format!("{} and {}", self.guidance_min, self.guidance_max);
            return refused("student.guidance_min and guidance_max", value, "1 to 20, the least first");
        }
        if !(1..=LCM_GRID / 2).contains(&self.skip) {
            return refused("student.skip", self.skip.to_string(), "1 to 25 steps of the grid of 50");
        }
        if !(0.0..1.0).contains(&self.target_decay) {
            return refused("student.target_decay", self.target_decay.to_string(), "0 to below 1");
        }
        if !(self.huber_c > 0.0 && self.huber_c.is_finite()) {
            return refused("student.huber_c", self.huber_c.to_string(), "above 0");
        }
        if self.held_out == 0 {
            return refused("student.held_out", self.held_out.to_string(), "at least 1");
        }
        Ok(())
    }

    /// The guidance that the student is measured with: the middle of the range.
    fn middle(&self) -> f32 {
        0.5 * (self.guidance_min + self.guidance_max)
    }
}

/// The student, and the moving average of it that it learns from.
#[derive(Module, Debug)]
pub struct StudentStage {
    /// What learns.
    pub student: DenoiserStage,
    /// Outside of automatic differentiation.
    target: DenoiserStage,
}

/// Parameters that are the same values under identities of their own: one module holds both.
struct Apart;

impl ModuleMapper for Apart {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        Param::from_tensor(param.val())
    }
}

impl StudentStage {
    /// Both begin as `teacher`, which lies on the device that differentiates.
    pub fn new(teacher: DenoiserStage) -> Self {
        Self { target: teacher.valid().map(&mut Apart).no_grad(), student: teacher }
    }
}

/// The task of [`crate::train`].
pub struct StudentTask<'a> {
    settings: StudentTraining,
    /// Draws and gathers samples.
    samples: DiffusionTask<'a>,
    /// Frozen, outside of automatic differentiation.
    teacher: DenoiserStage,
    /// The same as it is asked in a step: in the precision of the run. What is held out is measured in f32.
    asked: DenoiserStage,
    held_out: OnceLock<HeldOut>,
}

/// The teacher's answers to the held-out samples: made once, at the first checkpoint of a process.
struct HeldOut {
    /// Clean latents of [`REFERENCE_STEPS`] steps, a batch each.
    references: Vec<TensorData>,
    /// Distance from them of the teacher's own samples in one step and in four.
    teacher: [f32; 2],
    /// Distance of its four steps from the truth.
    teacher_to_truth: f32,
}

/// One network, told everything but the noisy latent and the timestep.
fn bound<'a>(stage: &'a DenoiserStage, batch: &Batch, samples: &DiffusionTask<'_>) -> BoundDenoiser<'a> {
    let tokens = stage.conditioner.forward(batch.windows.clone());
    stage.denoiser.bind(&batch.priors, tokens, samples.settings.prediction)
}

/// The same values on another device, or in or out of automatic differentiation.
fn moved<const D: usize>(tensor: Tensor<D>, device: &Device) -> Tensor<D> {
    Tensor::from_data(tensor.into_data(), (device, DType::F32))
}

impl Batch {
    fn moved(self, device: &Device) -> Self {
        let VisualPriors { masked, identity, pose } = self.priors;
        let pose = pose.into_iter().map(|pose| moved(pose, device)).collect();
        Batch {
            target: moved(self.target, device),
            priors: VisualPriors { masked: moved(masked, device), identity: moved(identity, device), pose },
            windows: moved(self.windows, device),
        }
    }
}

impl<'a> StudentTask<'a> {
    /// `samples` draws as it would for the diffusion; `teacher` lies outside of automatic differentiation.
    ///
    /// # Errors
    /// [`TrainError::Parameter`] for settings out of range.
    pub fn new(settings: StudentTraining, samples: DiffusionTask<'a>, teacher: DenoiserStage) -> TrainResult<Self> {
        settings.check()?;
        if samples.settings.weighting != LossWeighting::Uniform {
            return Err(TrainError::Parameter {
                name: "diffusion.weighting",
                value: format!("{:?}", samples.settings.weighting),
                allowed: "uniform, for a student: its loss is one of clean latents at every timestep".into(),
            });
        }
        Ok(Self { settings, samples, asked: teacher.clone(), teacher, held_out: OnceLock::new() })
    }

    /// Asks the teacher in this type while the student learns.
    #[must_use]
    pub fn asking_in(self, precision: Precision) -> Self {
        Self { asked: self.teacher.clone().in_precision(precision), ..self }
    }

    /// How teachers answer: as they generate, with guidance.
    fn form(&self, guidance: f32) -> (f32, Prediction) {
        (guidance, self.samples.settings.prediction)
    }

    /// The step of the distillation, at the grid indices of these samples.
    fn lcm(&self, numbers: &[u64]) -> TrainResult<LcmStep<'_>> {
        let indices = uniform_timesteps(self.samples.seed, numbers, LCM_GRID);
        let (schedule, skip) = (&self.samples.schedule, self.settings.skip);
        Ok(LcmStep::with_skip(schedule, LcmBoundary::PUBLISHED, LCM_GRID, skip, &indices)?.ending_clean())
    }

    /// Mean square of the difference, by the weights of the positions.
    fn distance(&self, found: Tensor<4>, wanted: Tensor<4>) -> f32 {
        let device = found.device();
        let weights = self.samples.weights_on(&device);
        let difference = found - wanted;
        let share = weights.clone().mean().into_scalar::<f32>();
        (difference.clone() * difference * weights).mean().into_scalar::<f32>() / share
    }

    /// Held-out samples in their batches, each with its start and the numbers of its frames; the identity frame stands
    /// for the previous one, as at the start of a clip.
    fn held_out_batches(&self, device: &Device) -> Vec<(Batch, Tensor<4>, Vec<u64>)> {
        let settings = self.samples.settings.clone().at_the_start();
        let mut random = ChaCha8Rng::seed_from_u64(HELD_OUT_SEED);
        let picks: Vec<_> =
            (0..self.settings.held_out).map(|_| pick(self.samples.valid, &settings, &mut random)).collect();
        let batch = |(number, picks): (usize, &[Pick<'_>])| {
            let first = (number * HELD_OUT_BATCH) as u64;
            let frames = (first..first + picks.len() as u64).collect();
            let start = self.samples.noise(picks.len(), HELD_OUT_SEED, first, 0, device);
            (self.samples.gather(picks, first, device), start, frames)
        };
        picks.chunks(HELD_OUT_BATCH).enumerate().map(batch).collect()
    }

    fn reference(&self, batches: &[(Batch, Tensor<4>, Vec<u64>)]) -> TrainResult<HeldOut> {
        let mut held_out = HeldOut { references: Vec::new(), teacher: [0.0; 2], teacher_to_truth: 0.0 };
        for (batch, start, frames) in batches {
            let sample = |num_steps: usize| {
                let sampler = Sampler { num_steps, ..DETERMINISTIC };
                with_guidance(&self.teacher, batch, self.form(self.settings.middle()), |teacher| {
                    sampler.sample(teacher, &self.samples.schedule, start.clone(), HELD_OUT_SEED, frames)
                })
            };
            let (reference, one, four) = (sample(REFERENCE_STEPS)?, sample(1)?, sample(STUDENT_SAMPLER.num_steps)?);
            let share = frames.len() as f32 / self.settings.held_out as f32;
            held_out.teacher[0] += share * self.distance(one, reference.clone());
            held_out.teacher[1] += share * self.distance(four.clone(), reference.clone());
            held_out.teacher_to_truth += share * self.distance(four, batch.target.clone());
            held_out.references.push(reference.into_data());
        }
        Ok(held_out)
    }
}

impl Task<StudentStage> for StudentTask<'_> {
    fn num_shards(&self) -> usize {
        self.samples.num_shards()
    }

    /// The target is asked once a step, and gains by it as the student does.
    fn in_precision(&self, model: StudentStage, precision: Precision) -> TrainResult<StudentStage> {
        let StudentStage { student, target } = model;
        Ok(StudentStage { student: student.in_precision(precision), target: target.in_precision(precision) })
    }

    /// The target follows the student before each step, so that a checkpoint need not know of it more than its values.
    fn before_step(&self, model: StudentStage, _step: u64) -> TrainResult<StudentStage> {
        let target = Ema::constant(self.settings.target_decay).update(model.target, &model.student);
        Ok(StudentStage { student: model.student, target })
    }

    fn loss(&self, model: &StudentStage, step: u64, shard: Shard) -> TrainResult<StepLoss> {
        let samples = &self.samples;
        let (picks, mut random) = samples.draw(step);
        let guidance = random.random_range(self.settings.guidance_min..=self.settings.guidance_max);
        let range = shard.range(samples.batch_size);
        let first = step * samples.batch_size as u64 + range.start as u64;
        let numbers: Vec<u64> = (first..first + range.len() as u64).collect();
        let plain = samples.device.clone().inner();
        let mut batch = samples.gather(&picks[range.clone()], first, &plain);
        samples.estimate_poses(&model.student, &picks[range], &mut batch, samples.seed, first);

        let lcm = self.lcm(&numbers)?;
        let z = lcm.noisy(batch.target.clone(), samples.noise(numbers.len(), samples.seed, first, 0, &plain));
        let earlier =
            with_guidance(&self.asked, &batch, self.form(guidance), |teacher| lcm.teacher(teacher, z.clone()));
        let wanted = lcm.target(&bound(&model.target, &batch, samples), earlier);

        let device = &samples.device;
        let batch = batch.moved(device);
        let said = lcm.student(&bound(&model.student, &batch, samples), moved(z, device));
        let elements =
            pseudo_huber_elements(said, moved(wanted, device), self.settings.huber_c) * samples.weights_on(device);
        let [count, channels, height, width] = elements.dims();
        let each = elements.reshape([count, channels * height * width]).mean_dim(1).reshape([count]);
        let values: Vec<f32> = each.clone().into_data().convert::<f32>().try_into_vec().expect("converted to f32");
        let mut parts = by_band(lcm.start_timesteps(), &values);
        let mut loss = each.mean();
        if let Some(estimate) = samples.estimate_loss(&model.student, step, shard)? {
            loss = loss + estimate.loss;
            parts.extend(estimate.parts);
        }
        Ok(StepLoss { loss, parts })
    }

    fn batch_of(&self, step: u64) -> TrainResult<TensorMap> {
        let mut named = self.samples.batch_of(step)?;
        let first = step * self.samples.batch_size as u64;
        let numbers: Vec<u64> = (first..first + self.samples.batch_size as u64).collect();
        let timesteps: Vec<f32> = self.lcm(&numbers)?.start_timesteps().iter().map(|t| *t as f32).collect();
        named.insert("timesteps".into(), StoredTensor::from_f32(&[timesteps.len()], &timesteps));
        Ok(named)
    }

    /// From the same noise, how far the student's one step and its four deterministic ones end from the teacher's many
    /// (`one_step`, `four_ddim_steps`), as do the teacher's own with its guidance (`teacher_one_step`,
    /// `teacher_four_steps`), and the student's one step with the speech of another sample, which must be farther.
    /// Four steps as it generates add noise of their own, end elsewhere, and are compared with the truth alone
    /// (`truth_four_steps`), as are the others (`truth_one_step`, `truth_teacher`).
    fn validate(&self, shadow: &StudentStage) -> TrainResult<Vec<(&'static str, f32)>> {
        let device = self.samples.device.clone().inner();
        let batches = self.held_out_batches(&device);
        let held_out = match self.held_out.get() {
            Some(held_out) => held_out,
            None => {
                let made = self.reference(&batches)?;
                self.held_out.get_or_init(|| made)
            }
        };
        let [mut one, mut four_ddim, mut wrong, mut truth_one, mut truth_four] = [0.0; 5];
        for ((batch, start, frames), reference) in batches.into_iter().zip(&held_out.references) {
            let reference = Tensor::<4>::from_data(reference.clone(), (&device, DType::F32));
            let share = frames.len() as f32 / self.settings.held_out as f32;
            let sample = |batch: &Batch, sampler: Sampler| {
                let student = bound(&shadow.student, batch, &self.samples);
                sampler.sample(&student, &self.samples.schedule, start.clone(), HELD_OUT_SEED, &frames)
            };
            let distance = |found: &Tensor<4>, wanted: &Tensor<4>| share * self.distance(found.clone(), wanted.clone());
            let single = Sampler { num_steps: 1, ..STUDENT_SAMPLER };
            let found = sample(&batch, single)?;
            one += distance(&found, &reference);
            truth_one += distance(&found, &batch.target);
            truth_four += distance(&sample(&batch, STUDENT_SAMPLER)?, &batch.target);
            four_ddim += distance(&sample(&batch, DETERMINISTIC)?, &reference);
            let windows = batch.windows.clone();
            let rest = windows.dims()[0] - 1;
            let last = windows.clone().narrow(0, rest, 1);
            let windows = if rest == 0 { last } else { Tensor::cat(vec![last, windows.narrow(0, 0, rest)], 0) };
            wrong += distance(&sample(&Batch { windows, ..batch }, single)?, &reference);
        }
        let [teacher_one, teacher_four] = held_out.teacher;
        Ok(vec![
            ("one_step", one),
            ("one_step_wrong_speech", wrong),
            ("teacher_one_step", teacher_one),
            ("four_ddim_steps", four_ddim),
            ("teacher_four_steps", teacher_four),
            ("truth_one_step", truth_one),
            ("truth_four_steps", truth_four),
            ("truth_teacher", held_out.teacher_to_truth),
        ])
    }

    fn sheet(&self, shadow: &StudentStage) -> TrainResult<Option<SampleSheet>> {
        self.samples.drawn_sheet(&shadow.student)
    }

    fn best_by(&self) -> Option<Measure> {
        Some(Measure::Lowest("one_step"))
    }
}
