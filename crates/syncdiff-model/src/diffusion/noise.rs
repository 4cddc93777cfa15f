//! All random numbers of the diffusion, each drawn from a generator of its own.
//!
//! A generator is keyed by (seed, use, index, step); nothing is shared between samples, so sample i is the same in a
//! batch of one and in a batch of a hundred, on every device.

use burn::tensor::{DType, Device, Tensor, TensorData};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::StandardNormal;
use serde::{Deserialize, Serialize};

/// What the numbers are for; different uses never share numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NoiseUse {
    /// The latent from which sampling starts.
    Start = 0,
    /// Noise that a stochastic sampler adds on its way.
    SamplerStep = 1,
    /// The noise of a training sample.
    Training = 2,
    /// The timestep of a training sample.
    Timestep = 3,
}

/// The key of one generator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct NoiseKey {
    /// The run's seed.
    pub seed: u64,
    /// What the numbers are for.
    pub noise_use: NoiseUse,
    /// Which sample: a frame number, or a training sample's running number.
    pub index: u64,
    /// Which step of a sampler; 0 elsewhere.
    pub step: u64,
}

impl NoiseKey {
    fn generator(self) -> ChaCha8Rng {
        let mut key = [0; 32];
        let words = [self.seed, self.noise_use as u64, self.index, self.step];
        for (bytes, word) in key.chunks_exact_mut(8).zip(words) {
            bytes.copy_from_slice(&word.to_le_bytes());
        }
        ChaCha8Rng::from_seed(key)
    }

    /// Unit normal numbers.
    pub fn normal_values(self, count: usize) -> Vec<f32> {
        self.generator().sample_iter::<f32, _>(StandardNormal).take(count).collect()
    }

    /// One integer, uniform in 0..`limit`.
    pub fn uniform_below(self, limit: usize) -> usize {
        self.generator().random_range(0..limit)
    }
}

/// Whether the frames of a clip start from the same noise, and are given the same by a sampler that adds some on its
/// way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NoisePolicy {
    /// One noise for all frames, which flickers less.
    #[default]
    PerClip,
    /// Fresh noise for every frame.
    PerFrame,
}

/// Unit normal noise, one generator per batch element.
///
/// # Shapes
/// -> [keys, channels, height, width]
pub fn normal_batch(keys: &[NoiseKey], shape: [usize; 3], device: &Device) -> Tensor<4> {
    let [channels, height, width] = shape;
    let values: Vec<f32> = keys.iter().flat_map(|key| key.normal_values(channels * height * width)).collect();
    Tensor::from_data(TensorData::new(values, [keys.len(), channels, height, width]), (device, DType::F32))
}

/// The noise from which the given frames start.
///
/// # Shapes
/// -> [frames, channels, height, width]
pub fn start_noise(seed: u64, policy: NoisePolicy, frames: &[u64], shape: [usize; 3], device: &Device) -> Tensor<4> {
    let keys: Vec<NoiseKey> = frames
        .iter()
        .map(|frame| {
            let index = if policy == NoisePolicy::PerClip { 0 } else { *frame };
            NoiseKey { seed, noise_use: NoiseUse::Start, index, step: 0 }
        })
        .collect();
    normal_batch(&keys, shape, device)
}

/// Uniform timesteps of the training samples with the given running numbers.
pub fn uniform_timesteps(seed: u64, samples: &[u64], num_timesteps: usize) -> Vec<usize> {
    let key = |index| NoiseKey { seed, noise_use: NoiseUse::Timestep, index, step: 0 };
    samples.iter().map(|index| key(*index).uniform_below(num_timesteps)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(policy: NoisePolicy, frames: &[u64]) -> Vec<f32> {
        start_noise(7, policy, frames, [3, 4, 4], &Device::default()).into_data().try_to_vec::<f32>().unwrap()
    }

    #[test]
    fn a_sample_does_not_depend_on_its_batch() {
        let batch = values(NoisePolicy::PerFrame, &[4, 5, 6]);
        assert_eq!(batch[48..96], values(NoisePolicy::PerFrame, &[5]));
        assert_ne!(batch[..48], batch[48..96]);
        let fixed = values(NoisePolicy::PerClip, &[4, 5]);
        assert_eq!(fixed[..48], fixed[48..]);
        assert_eq!(uniform_timesteps(3, &[10, 11, 12], 1000)[1..2], uniform_timesteps(3, &[11], 1000));
    }

    #[test]
    fn the_numbers_are_unit_normal_and_the_timesteps_uniform() {
        let count = 100_000;
        let key = NoiseKey { seed: 1, noise_use: NoiseUse::Training, index: 2, step: 0 };
        let numbers = key.normal_values(count);
        let mean = numbers.iter().map(|x| f64::from(*x)).sum::<f64>() / count as f64;
        let variance = numbers.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>() / count as f64;
        // Five standard errors: sqrt(1/n) and sqrt(2/n).
        assert!(mean.abs() < 0.016 && (variance - 1.0).abs() < 0.023, "{mean} {variance}");
        let steps = uniform_timesteps(1, &(0..20_000).collect::<Vec<_>>(), 10);
        for step in 0..10 {
            let share = steps.iter().filter(|s| **s == step).count() as f64 / 2000.0;
            assert!((share - 1.0).abs() < 0.11, "{step}: {share}");
        }
    }

    #[test]
    fn every_part_of_the_key_matters() {
        let key = NoiseKey { seed: 1, noise_use: NoiseUse::Start, index: 2, step: 3 };
        for other in [
            NoiseKey { seed: 2, ..key },
            NoiseKey { noise_use: NoiseUse::SamplerStep, ..key },
            NoiseKey { index: 3, ..key },
            NoiseKey { step: 4, ..key },
        ] {
            assert_ne!(key.normal_values(2), other.normal_values(2));
        }
    }
}
