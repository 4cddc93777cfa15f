//! One step of AdamW over one parameter: value and both moments in one pass through memory.

use crate::simd::dispatch;

/// The numbers of a step of AdamW (Loshchilov and Hutter 2019), as they enter the pass.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamWStep {
    /// Weight of the old first moment.
    pub beta_1: f32,
    /// Weight of the old second moment.
    pub beta_2: f32,
    /// Added to the root of the second moment.
    pub epsilon: f32,
    /// What is left of the value: 1 - rate x weight decay.
    pub keep: f32,
    /// Learning rate.
    pub rate: f32,
    /// 1 - beta_1^n in step n from 1.
    pub correction_1: f32,
    /// 1 - beta_2^n.
    pub correction_2: f32,
}

dispatch! {
    /// Moves value and moments; the order of operations is that of Burn's AdamW, so that the bits are the same.
    fn step(value: &mut [f32], moment_1: &mut [f32], moment_2: &mut [f32], gradient: &[f32], by: AdamWStep) {
        let (new_1, new_2) = (1.0 - by.beta_1, 1.0 - by.beta_2);
        let moments = moment_1.iter_mut().zip(moment_2.iter_mut());
        for ((value, (m, v)), &g) in value.iter_mut().zip(moments).zip(gradient) {
            *m = *m * by.beta_1 + g * new_1;
            *v = *v * by.beta_2 + (g * g) * new_2;
            let delta = (*m / by.correction_1) / ((*v / by.correction_2).sqrt() + by.epsilon);
            *value = *value * by.keep - delta * by.rate;
        }
    }
}
