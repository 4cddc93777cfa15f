//! Samplers: from noise to a latent, by asking a [`Denoiser`] at a few timesteps.
//!
//! Each sampler is a plain function in its own file; [`Sampler`] is the typed choice between them that a configuration
//! or a command line makes.

pub mod ddim;
pub mod dpm;
pub mod edm;
pub mod lcm;

use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

use crate::diffusion::denoiser::Denoiser;
use crate::diffusion::noise::{NoiseKey, NoiseUse, normal_batch};
use crate::diffusion::schedule::Schedule;
use crate::error::{ModelError, ModelResult};

/// Which timesteps a sampler visits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Spacing {
    /// latent-diffusion: 1, 1 + s, 1 + 2 s, .. with s = timesteps / steps; ends at the signal level of timestep 0.
    Ldm,
    /// round(timesteps k / steps) - 1: begins at the noisiest timestep and ends at the clean latent. For few steps.
    Trailing,
    /// Evenly from the noisiest timestep to 0, without 0 itself; ends at the clean latent (diffusers "linspace").
    Linspace,
}

impl Spacing {
    /// The timesteps in running order, noisiest first.
    ///
    /// `Ldm` gives more than `num_steps` where they do not divide the timesteps, as the original does.
    ///
    /// # Errors
    /// [`ModelError::Parameter`] when `num_steps` is 0 or too many for the spacing.
    pub fn timesteps(self, num_steps: usize, num_timesteps: usize) -> ModelResult<Vec<usize>> {
        let most = match self {
            Self::Ldm => num_timesteps / 2,
            Self::Trailing => num_timesteps,
            Self::Linspace => num_timesteps - 1,
        };
        if num_steps == 0 || num_steps > most {
            let allowed = format!("{self:?} spacing takes 1 to {most}");
            return Err(ModelError::parameter("sampler", "steps", num_steps, allowed));
        }
        let mut timesteps: Vec<usize> = match self {
            Self::Ldm => {
                let stride = num_timesteps / num_steps;
                (0..num_timesteps).step_by(stride).map(|t| t + 1).collect()
            }
            Self::Trailing => (1..=num_steps)
                .map(|k| (num_timesteps as f64 * k as f64 / num_steps as f64).round_ties_even() as usize - 1)
                .collect(),
            Self::Linspace => (1..=num_steps)
                .map(|k| ((num_timesteps - 1) as f64 * k as f64 / num_steps as f64).round_ties_even() as usize)
                .collect(),
        };
        timesteps.reverse();
        Ok(timesteps)
    }

    /// Whether the last step arrives at the clean latent rather than at the signal level of timestep 0.
    pub fn ends_clean(self) -> bool {
        self != Self::Ldm
    }
}

/// The algorithm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SamplerKind {
    /// DDIM; the paper's with [`Spacing::Ldm`], 200 steps and eta 0.
    Ddim,
    /// DPM-Solver++(2M).
    #[serde(rename = "dpmpp_2m")]
    DpmPlusPlus2m,
    /// Multi-step sampling of a consistency model.
    Lcm,
    /// Euler steps on the noise levels of EDM.
    Euler,
    /// Heun steps on the noise levels of EDM: two evaluations a step, one in the last.
    Heun,
}

/// A chosen sampler.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sampler {
    /// The algorithm.
    pub kind: SamplerKind,
    /// Number of steps: evaluations of the denoiser, but for `Heun`.
    pub num_steps: usize,
    /// Which timesteps are visited; `Lcm`, `Euler` and `Heun` have their own.
    pub spacing: Spacing,
    /// Fresh noise of DDIM: 0 none, 1 as much as DDPM. Other samplers have no such value and want 0.
    pub eta: f64,
}

impl Sampler {
    /// The paper's: DDIM, 200 steps, eta 0.
    pub const PAPER: Self = Self { kind: SamplerKind::Ddim, num_steps: 200, spacing: Spacing::Ldm, eta: 0.0 };

    /// Finds faults of the choice before anything is computed.
    ///
    /// # Errors
    /// [`ModelError::Parameter`].
    pub fn check(&self, schedule: &Schedule) -> ModelResult<()> {
        match self.kind {
            SamplerKind::Lcm => lcm::lcm_timesteps(self.num_steps, schedule.num_timesteps()).map(drop)?,
            SamplerKind::Euler | SamplerKind::Heun => edm::karras_timesteps(schedule, self.num_steps).map(drop)?,
            SamplerKind::Ddim | SamplerKind::DpmPlusPlus2m => {
                self.spacing.timesteps(self.num_steps, schedule.num_timesteps()).map(drop)?
            }
        }
        if !(0.0..=1.0).contains(&self.eta) {
            return Err(ModelError::parameter("sampler", "eta", self.eta, "must lie in 0 to 1"));
        }
        if self.eta > 0.0 && self.kind != SamplerKind::Ddim {
            return Err(ModelError::parameter("sampler", "eta", self.eta, "only ddim takes an eta; use 0"));
        }
        if self.kind == SamplerKind::DpmPlusPlus2m && self.spacing == Spacing::Ldm {
            return Err(ModelError::parameter("sampler", "spacing", "ldm", "dpmpp_2m takes trailing or linspace"));
        }
        Ok(())
    }

    /// Runs the sampler; `frames` number the batch elements for the noise that a stochastic sampler adds.
    ///
    /// # Shapes
    /// `start` [batch, channels, height, width] -> the same
    ///
    /// # Errors
    /// As [`Self::check`]; [`ModelError::Parameter`] when `frames` does not have one number per batch element.
    pub fn sample(
        &self,
        denoiser: &dyn Denoiser,
        schedule: &Schedule,
        start: Tensor<4>,
        seed: u64,
        frames: &[u64],
    ) -> ModelResult<Tensor<4>> {
        self.check(schedule)?;
        let [batch, channels, height, width] = start.dims();
        if frames.len() != batch {
            let allowed = format!("the batch has {batch} elements; number each of them");
            return Err(ModelError::parameter("sampler", "frames", frames.len(), allowed));
        }
        let device = start.device();
        let mut noise = |step: usize| {
            let key =
                |frame: &u64| NoiseKey { seed, noise_use: NoiseUse::SamplerStep, index: *frame, step: step as u64 };
            let keys: Vec<NoiseKey> = frames.iter().map(key).collect();
            normal_batch(&keys, [channels, height, width], &device)
        };
        match self.kind {
            SamplerKind::Ddim => {
                ddim::ddim(denoiser, schedule, start, self.num_steps, self.spacing, self.eta, &mut noise)
            }
            SamplerKind::DpmPlusPlus2m => {
                let end = dpm::End::Clean;
                dpm::dpm_plus_plus_2m(denoiser, schedule, start, self.num_steps, self.spacing, end)
            }
            SamplerKind::Lcm => lcm::lcm(denoiser, schedule, start, self.num_steps, &mut noise),
            SamplerKind::Euler => edm::edm(denoiser, schedule, start, self.num_steps, edm::Order::First),
            SamplerKind::Heun => edm::edm(denoiser, schedule, start, self.num_steps, edm::Order::Second),
        }
    }
}

/// Asks the denoiser at one timestep for the whole batch; returns (x_0, noise).
pub(crate) fn ask(
    denoiser: &dyn Denoiser,
    schedule: &Schedule,
    x_t: &Tensor<4>,
    timestep: usize,
) -> (Tensor<4>, Tensor<4>) {
    let [batch, ..] = x_t.dims();
    let timesteps = vec![timestep; batch];
    let predicted = denoiser.denoise(x_t.clone(), &timesteps);
    let form = denoiser.prediction();
    (
        form.to_x0(schedule, predicted.clone(), x_t.clone(), &timesteps),
        form.to_epsilon(schedule, predicted, x_t.clone(), &timesteps),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diffusion::noise::{NoisePolicy, start_noise};
    use burn::tensor::Device;

    #[test]
    fn timesteps_of_the_spacings() {
        let of = |spacing: Spacing, steps| spacing.timesteps(steps, 1000).unwrap();
        let paper = of(Spacing::Ldm, 200);
        assert_eq!((paper.len(), paper[0], paper[199]), (200, 996, 1));
        assert_eq!(of(Spacing::Ldm, 4)[0], 751);
        assert_eq!(of(Spacing::Ldm, 7).len(), 8, "1000 / 7 is not whole");
        assert_eq!(of(Spacing::Trailing, 4), [999, 749, 499, 249]);
        assert_eq!(of(Spacing::Trailing, 8)[..2], [999, 874]);
        assert_eq!(of(Spacing::Trailing, 8)[7], 124);
        assert_eq!(of(Spacing::Trailing, 1000)[999], 0);
    }

    #[test]
    fn senseless_samplers_are_refused() {
        let schedule = Schedule::paper();
        for sampler in [
            Sampler { num_steps: 0, ..Sampler::PAPER },
            Sampler { num_steps: 1000, ..Sampler::PAPER },
            Sampler { eta: -0.1, ..Sampler::PAPER },
            Sampler { eta: f64::NAN, ..Sampler::PAPER },
            Sampler { kind: SamplerKind::DpmPlusPlus2m, ..Sampler::PAPER },
            Sampler { kind: SamplerKind::Lcm, eta: 1.0, num_steps: 4, ..Sampler::PAPER },
            Sampler { kind: SamplerKind::Lcm, num_steps: 51, ..Sampler::PAPER },
            Sampler { kind: SamplerKind::Heun, num_steps: 0, ..Sampler::PAPER },
            Sampler { kind: SamplerKind::Euler, eta: 0.5, num_steps: 4, ..Sampler::PAPER },
        ] {
            assert!(matches!(sampler.check(&schedule), Err(ModelError::Parameter { .. })), "{sampler:?}");
        }
        Sampler::PAPER.check(&schedule).unwrap();
    }

    struct Shrink;
    impl Denoiser for Shrink {
        fn denoise(&self, x_t: Tensor<4>, timesteps: &[usize]) -> Tensor<4> {
            x_t * (timesteps[0] as f64 / 1000.0)
        }
    }

    #[test]
    fn a_batch_equals_its_frames_one_by_one_for_every_sampler() {
        let (schedule, device) = (Schedule::paper(), Device::default());
        for (kind, spacing, eta) in [
            (SamplerKind::Ddim, Spacing::Trailing, 1.0),
            (SamplerKind::DpmPlusPlus2m, Spacing::Trailing, 0.0),
            (SamplerKind::Lcm, Spacing::Trailing, 0.0),
            (SamplerKind::Euler, Spacing::Trailing, 0.0),
            (SamplerKind::Heun, Spacing::Trailing, 0.0),
        ] {
            let sampler = Sampler { kind, num_steps: 4, spacing, eta };
            let run = |frames: &[u64]| {
                let start = start_noise(3, NoisePolicy::PerFrame, frames, [3, 2, 4], &device);
                sampler.sample(&Shrink, &schedule, start, 3, frames).unwrap()
            };
            let batch = run(&[7, 8, 9]);
            for (i, frame) in [7, 8, 9].into_iter().enumerate() {
                assert_eq!(batch.clone().narrow(0, i, 1).into_data(), run(&[frame]).into_data(), "{kind:?}");
            }
        }
    }
}
