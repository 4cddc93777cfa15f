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
}

impl<'a> LcmStep<'a> {
    /// One grid index per batch element, of a grid of `grid` timesteps (50 in the source, [`super::sampler::lcm::LCM_GRID`]):
    /// index i starts at (i + 1) stride - 1 and ends one stride earlier, at least at 0.
    ///
    /// # Errors
    /// [`ModelError::Parameter`] for a grid that does not divide the timesteps or an index beyond it.
    pub fn new(schedule: &'a Schedule, boundary: LcmBoundary, grid: usize, indices: &[usize]) -> ModelResult<Self> {
        let num_timesteps = schedule.num_timesteps();
        if grid == 0 || !num_timesteps.is_multiple_of(grid) {
            let allowed = format!("must divide the {num_timesteps} timesteps");
            return Err(ModelError::parameter("distillation", "grid", grid, allowed));
        }
        if let Some(index) = indices.iter().find(|index| **index >= grid) {
            return Err(ModelError::parameter("distillation", "index", index, format!("must be below {grid}")));
        }
        let stride = num_timesteps / grid;
        let start: Vec<usize> = indices.iter().map(|index| (index + 1) * stride - 1).collect();
        let target = start.iter().map(|timestep| timestep.saturating_sub(stride)).collect();
        Ok(Self { schedule, boundary, start, target })
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

    /// One DDIM step of the teacher, from the start to the target timesteps; without guidance.
    ///
    /// # Shapes
    /// [batch, channels, height, width] -> the same
    pub fn teacher(&self, teacher: &dyn Denoiser, z_noisy: Tensor<4>) -> Tensor<4> {
        let predicted = teacher.denoise(z_noisy.clone(), &self.start);
        let form = teacher.prediction();
        let x_0 = form.to_x0(self.schedule, predicted.clone(), z_noisy.clone(), &self.start);
        let eps = form.to_epsilon(self.schedule, predicted, z_noisy, &self.start);
        self.schedule.q_sample(x_0, eps, &self.target)
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
    let difference = student - target;
    ((difference.clone() * difference + c * c).sqrt() - c).mean()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timesteps_and_faults() {
        let schedule = Schedule::paper();
        let step = LcmStep::new(&schedule, LcmBoundary::PUBLISHED, 50, &[0, 1, 49]).unwrap();
        assert_eq!(step.start_timesteps(), [19, 39, 999]);
        assert_eq!(step.target_timesteps(), [0, 19, 979]);
        for (grid, index) in [(0, 0), (7, 0), (50, 50)] {
            let fault = LcmStep::new(&schedule, LcmBoundary::PUBLISHED, grid, &[index]);
            assert!(matches!(fault, Err(ModelError::Parameter { .. })), "{grid} {index}");
        }
    }
}
