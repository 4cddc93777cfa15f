//! Settings that every trainer shares.

use crate::error::{TrainError, TrainResult};
use serde::{Deserialize, Serialize};
use syncdiff_model::Precision;

/// How long and how fast a model learns, and how often it is saved.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainOptions {
    /// Optimiser steps in all; a resumed run goes on to this number.
    pub steps: u64,
    /// Samples per step: frames; utterances for the speech encoder; clips for its pre-training, the SyncNet and
    /// the lip reader; windows for Wav2Lip.
    pub batch_size: usize,
    /// Equal parts that a step's batch is computed in, one after the other, where it does not fit into memory at once.
    #[serde(default = "one")]
    pub accumulate: usize,
    /// Forget what cheap operations make (sums, products, activations) and compute it again when the gradient needs it:
    /// the same values. It saves memory only where such operations hold much of it, which they do not on the CPU.
    #[serde(default)]
    pub checkpoint_activations: bool,
    /// The type in which the large networks of `autoencoder`, `diffusion` and `student` compute, values and gradients.
    /// The weights that learn, their moments and average, losses and sums stay f32. What the CPU lacks is refused, and
    /// anything but f32 by the other trainers, whose networks are small.
    #[serde(default)]
    pub precision: Precision,
    /// Peak learning rate of AdamW.
    pub learning_rate: f64,
    /// Steps over which the rate rises from zero.
    pub warmup_steps: u64,
    /// Share of the peak rate that is left at the last step (cosine decay); 1 keeps it constant.
    pub final_rate: f64,
    /// Decoupled weight decay.
    pub weight_decay: f64,
    /// Largest global gradient norm.
    pub clip_norm: f64,
    /// Largest decay of the moving average of the weights.
    pub ema_decay: f64,
    /// Seed of initialisation, data order and noise.
    pub seed: u64,
    /// Steps between checkpoints.
    pub checkpoint_every: u64,
    /// Checkpoints kept.
    pub keep_checkpoints: usize,
    /// Steps between lines of `stats.jsonl`.
    pub log_every: u64,
}

/// # Errors
/// [`TrainError::Parameter`] for another precision.
pub(crate) fn only_f32(precision: Precision) -> TrainResult<()> {
    if precision == Precision::F32 {
        return Ok(());
    }
    Err(TrainError::Parameter {
        name: "options.precision",
        value: precision.to_string(),
        allowed: "f32; autoencoder, diffusion and student also learn in bf16 or f16".into(),
    })
}

fn one() -> usize {
    1
}

impl TrainOptions {
    /// Parts of a batch for so many threads.
    ///
    /// # Errors
    /// [`TrainError::Parameter`] when the batch cannot be cut into equal parts.
    pub(crate) fn num_parts(&self, threads: usize) -> TrainResult<usize> {
        let parts = self.accumulate * threads;
        if parts == 0 || !self.batch_size.is_multiple_of(parts) {
            return Err(TrainError::Parameter {
                name: "options.accumulate",
                value: self.accumulate.to_string(),
                allowed: format!("{} samples cannot be cut into {parts} equal parts", self.batch_size),
            });
        }
        Ok(parts)
    }

    /// Learning rate of a step, counted from 0.
    pub fn rate_at(&self, step: u64) -> f64 {
        let warmup = ((step + 1) as f64 / self.warmup_steps.max(1) as f64).min(1.0);
        let progress = (step as f64 / self.steps.max(1) as f64).min(1.0);
        let cosine = 0.5 * (1.0 + (std::f64::consts::PI * progress).cos());
        self.learning_rate * warmup * (self.final_rate + (1.0 - self.final_rate) * cosine)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_rises_then_falls_to_its_final_share() {
        let options = TrainOptions {
            steps: 100,
            batch_size: 1,
            accumulate: 1,
            checkpoint_activations: false,
            precision: Precision::F32,
            learning_rate: 1e-3,
            warmup_steps: 10,
            final_rate: 0.1,
            weight_decay: 0.0,
            clip_norm: 1.0,
            ema_decay: 0.999,
            seed: 0,
            checkpoint_every: 10,
            keep_checkpoints: 1,
            log_every: 1,
        };
        assert!((options.rate_at(0) - 1e-4).abs() < 1e-9);
        assert!(options.rate_at(9) > 9e-4);
        assert!((options.rate_at(100) - 1e-4).abs() < 1e-9);
        let options = TrainOptions { batch_size: 12, accumulate: 3, ..options };
        assert_eq!(options.num_parts(2).unwrap(), 6);
        let error = TrainOptions { accumulate: 5, ..options }.num_parts(1).unwrap_err().to_string();
        assert!(error.contains("accumulate = 5") && error.contains("12 samples"), "{error}");
    }
}
