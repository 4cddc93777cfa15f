//! One step of latent consistency distillation (Luo et al. 2023): a teacher that needs many steps teaches a student
//! that needs few.
//!
//! ```text
//! z_noisy = step.noisy(z_0, noise)                 at the start timestep
//! student = step.student(student, z_noisy)         f at the start timestep; differentiated
//! x_prev  = step.teacher(teacher, z_noisy)         one DDIM step to the target timestep
//! target  = step.target(target network, x_prev)    f at the target timestep
//! loss    = pseudo_huber(student, target, 0.001)
//! ```

use burn::tensor::Tensor;

use crate::diffusion::denoiser::Denoiser;
use crate::diffusion::scalings::LcmBoundary;
use crate::diffusion::schedule::Schedule;
use crate::error::{ModelError, ModelResult};

/// The timesteps of one distillation step, and what they are measured with.
#[derive(Debug, Clone)]
pub struct LcmStep<'a> {
    schedule: &'a Schedule,
    boundary: LcmBoundary,
    start: Vec<usize>,
    target: Vec<usize>,
    /// Where the teacher's step ends; [`CLEAN`] for the clean latent.
    end: Vec<usize>,
}

/// Stands among timesteps for no noise at all.
const CLEAN: usize = usize::MAX;

impl<'a> LcmStep<'a> {
    /// One grid index per batch element, of a grid of `grid` timesteps (50 in the source, [`super::sampler::lcm::LCM_GRID`]):
    /// index i starts at (i + 1) stride - 1 and ends one stride earlier, at least at 0.
    ///
    /// # Errors
    /// [`ModelError::Parameter`] for a grid that does not divide the timesteps or an index beyond it.
    pub fn new(schedule: &'a Schedule, boundary: LcmBoundary, grid: usize, indices: &[usize]) -> ModelResult<Self> {
        Self::with_skip(schedule, boundary, grid, 1, indices)
    }

    /// As [`Self::new`], but the teacher's step ends `skip` strides earlier: what is learned at the least noise reaches
    /// the most noise over fewer steps, each less exact.
    ///
    /// # Errors
    /// As [`Self::new`]; [`ModelError::Parameter`] for a skip of 0 or beyond the grid.
    pub fn with_skip(
        schedule: &'a Schedule,
        boundary: LcmBoundary,
        grid: usize,
        skip: usize,
        indices: &[usize],
    ) -> ModelResult<Self> {
        let num_timesteps = schedule.num_timesteps();
        if grid == 0 || !num_timesteps.is_multiple_of(grid) {
            let allowed = format!("must divide the {num_timesteps} timesteps");
            return Err(ModelError::parameter("distillation", "grid", grid, allowed));
        }
        if let Some(index) = indices.iter().find(|index| **index >= grid) {
            return Err(ModelError::parameter("distillation", "index", index, format!("must be below {grid}")));
        }
        if skip == 0 || skip > grid {
            return Err(ModelError::parameter("distillation", "skip", skip, format!("must be 1 to {grid}")));
        }
        let stride = num_timesteps / grid;
        let start: Vec<usize> = indices.iter().map(|index| (index + 1) * stride - 1).collect();
        let target: Vec<usize> = start.iter().map(|timestep| timestep.saturating_sub(skip * stride)).collect();
        Ok(Self { schedule, boundary, start, end: target.clone(), target })
    }

    /// Steps that reach timestep 0 end at the clean latent, as those of a trailing sampler do. The published ones leave
    /// the noise of that timestep (0.04 here, of data of unit variance) in what the student is to say.
    pub fn ending_clean(mut self) -> Self {
        for end in self.end.iter_mut().filter(|end| **end == 0) {
            *end = CLEAN;
        }
        self
    }

    /// Timesteps at which the student is asked.
    pub fn start_timesteps(&self) -> &[usize] {
        &self.start
    }

    /// Timesteps at which the target network is asked.
    pub fn target_timesteps(&self) -> &[usize] {
        &self.target
    }

    /// Noisy latents at the start timesteps.
    ///
    /// # Shapes
    /// `z_0` and `noise` [batch, channels, height, width] -> the same
    pub fn noisy(&self, z_0: Tensor<4>, noise: Tensor<4>) -> Tensor<4> {
        self.schedule.q_sample(z_0, noise, &self.start)
    }

    /// f of the student at the start timesteps.
    ///
    /// # Shapes
    /// [batch, channels, height, width] -> the same
    pub fn student(&self, student: &dyn Denoiser, z_noisy: Tensor<4>) -> Tensor<4> {
        self.consistent(student, z_noisy, &self.start)
    }

    /// One DDIM step of the teacher, from the start to the target timesteps. Guidance is the teacher's own affair: a
    /// guided denoiser answers with it, and the student learns to do without.
    ///
    /// # Shapes
    /// [batch, channels, height, width] -> the same
    pub fn teacher(&self, teacher: &dyn Denoiser, z_noisy: Tensor<4>) -> Tensor<4> {
        let predicted = teacher.denoise(z_noisy.clone(), &self.start);
        let form = teacher.prediction();
        let x_0 = form.to_x0(self.schedule, predicted.clone(), z_noisy.clone(), &self.start);
        let eps = form.to_epsilon(self.schedule, predicted, z_noisy, &self.start);
        let level = |f: fn(&Schedule, usize) -> f64, clean: f64| {
            self.schedule.per_sample(&self.end, &x_0, |schedule, t| if t == CLEAN { clean } else { f(schedule, t) })
        };
        let (signal, noise) = (level(Schedule::signal, 1.0), level(Schedule::noise, 0.0));
        x_0 * signal + eps * noise
    }

    /// What the student should have said: f of the target network (a moving average of the student) at the target
    /// timesteps, asked with the teacher's step. Detach it before the loss.
    ///
    /// # Shapes
    /// [batch, channels, height, width] -> the same
    pub fn target(&self, target: &dyn Denoiser, x_prev: Tensor<4>) -> Tensor<4> {
        self.consistent(target, x_prev, &self.target)
    }

    fn consistent(&self, denoiser: &dyn Denoiser, x_t: Tensor<4>, timesteps: &[usize]) -> Tensor<4> {
        let predicted = denoiser.denoise(x_t.clone(), timesteps);
        let x_0 = denoiser.prediction().to_x0(self.schedule, predicted, x_t.clone(), timesteps);
        let c_skip = self.schedule.per_sample(timesteps, &x_t, |_, t| self.boundary.at(t).0);
        let c_out = self.schedule.per_sample(timesteps, &x_t, |_, t| self.boundary.at(t).1);
        x_t * c_skip + x_0 * c_out
    }
}

/// Mean of sqrt(d^2 + c^2) - c over all elements, d the difference: square for small d, linear for large.
///
/// # Shapes
/// [batch, channels, height, width] twice -> [1]
///
/// # Source
/// `loss_type="huber"` of the training script of Luo et al. 2023, with c = 0.001.
pub fn pseudo_huber(student: Tensor<4>, target: Tensor<4>, c: f64) -> Tensor<1> {
    pseudo_huber_elements(student, target, c).mean()
}

/// [`pseudo_huber`] before the mean, for elements that weigh differently.
///
/// # Shapes
/// [batch, channels, height, width] twice -> the same
pub fn pseudo_huber_elements(student: Tensor<4>, target: Tensor<4>, c: f64) -> Tensor<4> {
    let difference = student - target;
    (difference.clone() * difference + c * c).sqrt() - c
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diffusion::sampler::ask;
    use crate::diffusion::sampler::ddim::ddim_steps;
    use crate::diffusion::{Prediction, Spacing};
    use burn::tensor::{Device, Int};

    #[test]
    fn timesteps_and_faults() {
        let schedule = Schedule::paper();
        let step = LcmStep::new(&schedule, LcmBoundary::PUBLISHED, 50, &[0, 1, 49]).unwrap();
        assert_eq!(step.start_timesteps(), [19, 39, 999]);
        assert_eq!(step.target_timesteps(), [0, 19, 979]);
        let step = LcmStep::with_skip(&schedule, LcmBoundary::PUBLISHED, 50, 5, &[0, 4, 5, 49]).unwrap();
        assert_eq!(step.start_timesteps(), [19, 99, 119, 999]);
        assert_eq!(step.target_timesteps(), [0, 0, 19, 899]);
        for (grid, skip, index) in [(0, 1, 0), (7, 1, 0), (50, 1, 50), (50, 0, 1), (50, 51, 1)] {
            let fault = LcmStep::with_skip(&schedule, LcmBoundary::PUBLISHED, grid, skip, &[index]);
            assert!(matches!(fault, Err(ModelError::Parameter { .. })), "{grid} {skip} {index}");
        }
    }

    /// Says something different in every element and at every timestep.
    struct Waves(Prediction);

    impl Denoiser for Waves {
        fn denoise(&self, x_t: Tensor<4>, timesteps: &[usize]) -> Tensor<4> {
            (x_t * 2.0 + timesteps[0] as f64 * 0.01).sin()
        }
        fn prediction(&self) -> Prediction {
            self.0
        }
    }

    fn latent(pace: f32) -> Tensor<4> {
        (Tensor::<1, Int>::arange(0..12, &Device::default()).float() * pace).sin().reshape([1, 3, 2, 2])
    }

    fn distance(a: Tensor<4>, b: Tensor<4>) -> f32 {
        (a - b).abs().max().into_scalar::<f32>()
    }

    /// At timestep 0 a consistency function is the identity, whatever its network says; far from it, it is the
    /// network's clean latent.
    #[test]
    fn the_boundary_holds_for_every_prediction() {
        let schedule = Schedule::paper();
        for form in [Prediction::Epsilon, Prediction::X0, Prediction::V] {
            let x = latent(0.7);
            let first = LcmStep::new(&schedule, LcmBoundary::PUBLISHED, 50, &[0]).unwrap();
            assert_eq!(first.target(&Waves(form), x.clone()).into_data(), x.clone().into_data(), "{form:?}");
            let last = LcmStep::new(&schedule, LcmBoundary::PUBLISHED, 50, &[49]).unwrap();
            let (clean, _) = ask(&Waves(form), &schedule, &x, 999);
            let scale = clean.clone().abs().max().into_scalar::<f32>();
            assert!(distance(last.student(&Waves(form), x), clean) < 1e-6 * scale.max(1.0), "{form:?}");
        }
    }

    /// The teacher's step is the step of the sampler that generates with the teacher.
    #[test]
    fn the_solver_step_is_ddims() {
        let schedule = Schedule::paper();
        for form in [Prediction::Epsilon, Prediction::V] {
            for (num_steps, skip) in [(50, 1), (10, 5)] {
                // Trailing timesteps end on the grid: 999, 979, .. and 999, 899, ..
                let steps = ddim_steps(&schedule, num_steps, Spacing::Trailing, 0.0).unwrap();
                for (step, next) in steps.iter().zip(&steps[1..]) {
                    let index = (step.timestep + 1) / 20 - 1;
                    let lcm = LcmStep::with_skip(&schedule, LcmBoundary::PUBLISHED, 50, skip, &[index]).unwrap();
                    assert_eq!(
                        (lcm.start_timesteps(), lcm.target_timesteps()),
                        (&[step.timestep][..], &[next.timestep][..])
                    );
                    let (x_0, eps) = ask(&Waves(form), &schedule, &latent(1.3), step.timestep);
                    let want = step.advance(x_0, eps, || unreachable!("eta is 0"));
                    assert!(
                        distance(lcm.teacher(&Waves(form), latent(1.3)), want) < 1e-6,
                        "{form:?} {}",
                        step.timestep
                    );
                }
            }
        }
    }

    /// As the last step of a trailing sampler; steps that do not reach timestep 0 stay as they are.
    #[test]
    fn the_last_step_can_end_clean() {
        let schedule = Schedule::paper();
        let x = Tensor::cat(vec![latent(0.7), latent(1.3)], 0);
        let step = LcmStep::with_skip(&schedule, LcmBoundary::PUBLISHED, 50, 5, &[4, 30]).unwrap();
        let (published, clean) = (step.teacher(&Waves(Prediction::V), x.clone()), step.clone().ending_clean());
        let stepped = clean.teacher(&Waves(Prediction::V), x.clone());
        let last = ddim_steps(&schedule, 10, Spacing::Trailing, 0.0).unwrap()[9];
        assert_eq!((last.timestep, last.alpha_prev), (99, 1.0));
        let (x_0, eps) = ask(&Waves(Prediction::V), &schedule, &latent(0.7), 99);
        let want = last.advance(x_0, eps, || unreachable!("eta is 0"));
        assert!(distance(stepped.clone().narrow(0, 0, 1), want) < 1e-6);
        assert!(distance(published.clone().narrow(0, 0, 1), stepped.clone().narrow(0, 0, 1)) > 0.01);
        assert_eq!(published.narrow(0, 1, 1).into_data(), stepped.clone().narrow(0, 1, 1).into_data());
        // There the consistency function is the identity: the clean latent itself is what the student is to say.
        let target = clean.target(&Waves(Prediction::V), stepped.clone());
        assert_eq!(target.narrow(0, 0, 1).into_data(), stepped.narrow(0, 0, 1).into_data());
    }

    #[test]
    fn the_loss_is_square_near_zero_and_linear_far_away() {
        let far = pseudo_huber(latent(0.3) + 5.0, latent(0.3), 0.001).into_scalar::<f32>();
        let near = pseudo_huber(latent(0.3) + 1e-3, latent(0.3), 0.1).into_scalar::<f32>();
        assert!((far - 4.999).abs() < 1e-4, "{far}");
        assert!((near - 0.5e-5).abs() < 1e-7, "{near}");
    }
}
