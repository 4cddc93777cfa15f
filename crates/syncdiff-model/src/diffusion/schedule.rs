//! The forward process: how much of the signal is left at each timestep.

use burn::tensor::{Tensor, TensorData};

use crate::error::{ModelError, ModelResult};

/// Signal and noise levels of every timestep, in `f64`.
///
/// With a = sqrt(alphas_cumprod[t]) and s = sqrt(1 - alphas_cumprod[t]): x_t = a x_0 + s noise.
#[derive(Debug, Clone, PartialEq)]
pub struct Schedule {
    betas: Vec<f64>,
    alphas_cumprod: Vec<f64>,
}

impl Schedule {
    /// The paper's schedule: 1000 steps, linear in sqrt(beta) from 0.0015 to 0.0195.
    ///
    /// # Source
    /// DiffTalk's configuration (`linear_start`, `linear_end`) with latent-diffusion's `make_beta_schedule("linear")`.
    pub fn paper() -> Self {
        Self::from_betas(scaled_linear_betas(1000, 0.0015, 0.0195))
    }

    /// Betas whose square roots are evenly spaced.
    ///
    /// # Errors
    /// [`ModelError::Parameter`] for fewer than two steps or betas outside 0 < start <= end < 1.
    pub fn scaled_linear(num_timesteps: usize, beta_start: f64, beta_end: f64) -> ModelResult<Self> {
        if num_timesteps < 2 {
            return Err(ModelError::parameter("schedule", "num_timesteps", num_timesteps, "must be 2 or more"));
        }
        if !(0.0 < beta_start && beta_start <= beta_end && beta_end < 1.0) {
            let value = format!("{beta_start}..{beta_end}");
            return Err(ModelError::parameter("schedule", "beta range", value, "must satisfy 0 < start <= end < 1"));
        }
        Ok(Self::from_betas(scaled_linear_betas(num_timesteps, beta_start, beta_end)))
    }

    fn from_betas(betas: Vec<f64>) -> Self {
        let alphas_cumprod = betas
            .iter()
            .scan(1.0, |product, beta| {
                *product *= 1.0 - beta;
                Some(*product)
            })
            .collect();
        Self { betas, alphas_cumprod }
    }

    /// Number of timesteps; they are counted from 0.
    pub fn num_timesteps(&self) -> usize {
        self.betas.len()
    }

    /// Variance added at each timestep.
    pub fn betas(&self) -> &[f64] {
        &self.betas
    }

    /// Fraction of the signal's variance left at each timestep.
    pub fn alphas_cumprod(&self) -> &[f64] {
        &self.alphas_cumprod
    }

    /// Amplitude of the signal, sqrt(alphas_cumprod[t]).
    pub fn signal(&self, timestep: usize) -> f64 {
        self.alphas_cumprod[timestep].sqrt()
    }

    /// Amplitude of the noise, sqrt(1 - alphas_cumprod[t]).
    pub fn noise(&self, timestep: usize) -> f64 {
        (1.0 - self.alphas_cumprod[timestep]).sqrt()
    }

    /// Noise over signal (the sigma of the variance-exploding form).
    pub fn sigma(&self, timestep: usize) -> f64 {
        self.noise(timestep) / self.signal(timestep)
    }

    /// Signal-to-noise ratio of the variances.
    pub fn snr(&self, timestep: usize) -> f64 {
        self.alphas_cumprod[timestep] / (1.0 - self.alphas_cumprod[timestep])
    }

    /// Half the logarithm of [`Self::snr`].
    pub fn lambda(&self, timestep: usize) -> f64 {
        0.5 * self.snr(timestep).ln()
    }

    /// The timestep whose [`Self::sigma`] is nearest to `sigma`; the later one of two that are equally near.
    pub fn nearest_timestep(&self, sigma: f64) -> usize {
        let above = self.alphas_cumprod.partition_point(|cumprod| ((1.0 - cumprod) / cumprod).sqrt() <= sigma);
        let below = above.saturating_sub(1);
        let above = above.min(self.num_timesteps() - 1);
        if sigma - self.sigma(below) < self.sigma(above) - sigma { below } else { above }
    }

    /// Noisy latents: a x_0 + s noise, one timestep per batch element.
    ///
    /// # Shapes
    /// `x_0` and `noise` [batch, channels, height, width] -> the same
    pub fn q_sample(&self, x_0: Tensor<4>, noise: Tensor<4>, timesteps: &[usize]) -> Tensor<4> {
        let signal = self.per_sample(timesteps, &x_0, |schedule, t| schedule.signal(t));
        let sigma = self.per_sample(timesteps, &x_0, |schedule, t| schedule.noise(t));
        x_0 * signal + noise * sigma
    }

    /// One number per batch element, [batch, 1, 1, 1], computed in `f64` and rounded once to the type of `like`.
    pub(crate) fn per_sample(
        &self,
        timesteps: &[usize],
        like: &Tensor<4>,
        f: impl Fn(&Self, usize) -> f64,
    ) -> Tensor<4> {
        let values: Vec<f64> = timesteps.iter().map(|t| f(self, *t)).collect();
        let data = TensorData::new(values, [timesteps.len(), 1, 1, 1]).convert_dtype(like.dtype());
        Tensor::from_data(data, (&like.device(), like.dtype()))
    }
}

fn scaled_linear_betas(num_timesteps: usize, start: f64, end: f64) -> Vec<f64> {
    let (start, end) = (start.sqrt(), end.sqrt());
    let last = (num_timesteps - 1) as f64;
    (0..num_timesteps).map(|i| (start + i as f64 / last * (end - start)).powi(2)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::Device;

    #[test]
    fn table_of_the_paper_schedule() {
        // METHOD 5.1: timestep, alphas_cumprod, sigma, lambda.
        let table = [
            (0, 0.998500, 0.0388, 3.2504),
            (1, 0.996994, 0.0549, 2.9021),
            (50, 0.916687, 0.3015, 1.1991),
            (100, 0.823117, 0.4636, 0.7688),
            (250, 0.508424, 0.9833, 0.0169),
            (499, 0.115844, 2.7627, -1.0162),
            (500, 0.114922, 2.7752, -1.0207),
            (750, 0.008334, 10.908, -2.3895),
            (751, 0.008225, 10.981, -2.3962),
            (800, 0.004180, 15.435, -2.7366),
            (900, 0.000873, 33.839, -3.5216),
            (950, 0.000361, 52.606, -3.9628),
            (996, 0.000151, 81.386, -4.3992),
            (999, 0.000142, 83.823, -4.4287),
        ];
        let schedule = Schedule::paper();
        for (t, cumprod, sigma, lambda) in table {
            // Half a unit of the last printed digit; a whole one for the large sigmas (83.8225 is printed as 83.823).
            assert!((schedule.alphas_cumprod()[t] - cumprod).abs() <= 5e-7, "{t}");
            assert!((schedule.sigma(t) - sigma).abs() <= if sigma < 10.0 { 5e-5 } else { 1e-3 }, "{t}");
            assert!((schedule.lambda(t) - lambda).abs() <= 5e-5, "{t}");
        }
        assert_eq!((schedule.betas()[0] * 1e12).round(), 1.5e9);
        assert_eq!((schedule.betas()[999] * 1e12).round(), 1.95e10);
    }

    #[test]
    fn senseless_schedules_are_refused() {
        for (steps, start, end) in [(1, 0.1, 0.2), (10, 0.0, 0.2), (10, 0.3, 0.2), (10, 0.1, 1.0), (10, f64::NAN, 0.2)]
        {
            assert!(matches!(Schedule::scaled_linear(steps, start, end), Err(ModelError::Parameter { .. })));
        }
        assert_eq!(Schedule::scaled_linear(1000, 0.0015, 0.0195).unwrap(), Schedule::paper());
    }

    #[test]
    fn the_nearest_timestep_is_found() {
        let schedule = Schedule::paper();
        for t in [0, 1, 500, 999] {
            assert_eq!(schedule.nearest_timestep(schedule.sigma(t)), t);
        }
        assert_eq!(schedule.nearest_timestep(0.0), 0);
        assert_eq!(schedule.nearest_timestep(1e9), 999);
        let between = |share: f64| schedule.sigma(700) + share * (schedule.sigma(701) - schedule.sigma(700));
        assert_eq!((schedule.nearest_timestep(between(0.4)), schedule.nearest_timestep(between(0.6))), (700, 701));
    }

    #[test]
    fn noisy_latents_use_each_samples_own_timestep() {
        let device = Device::default();
        let schedule = Schedule::paper();
        let x = schedule.q_sample(Tensor::ones([2, 1, 1, 2], &device), Tensor::ones([2, 1, 1, 2], &device), &[0, 999]);
        let x = x.into_data().try_to_vec::<f32>().unwrap();
        for (got, t) in [(x[1], 0), (x[2], 999)] {
            assert!((f64::from(got) - schedule.signal(t) - schedule.noise(t)).abs() < 1e-6);
        }
    }
}
