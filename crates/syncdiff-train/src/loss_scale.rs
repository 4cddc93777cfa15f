//! Loss scaling for gradients of 16 bits with 10 of fraction, the small ones of which would vanish.
//!
//! # Source
//! Micikevicius et al. 2018; the numbers are those of PyTorch's `GradScaler`.

use serde::{Deserialize, Serialize};
use syncdiff_model::Precision;

const START: f64 = 65_536.0;
/// Steps without overflow after which the factor doubles.
const GROW_AFTER: u32 = 2000;

/// What a loss is multiplied with before it is differentiated.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LossScale {
    pub(crate) factor: f64,
    /// Steps since the last change.
    steps: u32,
}

impl LossScale {
    /// None where gradients have the range of f32.
    pub(crate) fn of(precision: Precision) -> Option<Self> {
        (precision == Precision::F16).then_some(Self { factor: START, steps: 0 })
    }

    /// The scale of the next step. After a gradient that overflowed, which is not used, half; none where that leaves
    /// less than the loss itself: then it was not the scale.
    pub(crate) fn next(self, finite: bool) -> Option<Self> {
        match finite {
            false if self.factor <= 1.0 => None,
            false => Some(Self { factor: self.factor / 2.0, steps: 0 }),
            true if self.steps + 1 == GROW_AFTER => Some(Self { factor: self.factor * 2.0, steps: 0 }),
            true => Some(Self { steps: self.steps + 1, ..self }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_factor_falls_with_each_overflow_and_rises_after_many_steps_without() {
        assert_eq!([Precision::F32, Precision::Bf16].map(LossScale::of), [None, None]);
        let mut scale = LossScale::of(Precision::F16).unwrap();
        for _ in 0..GROW_AFTER - 1 {
            scale = scale.next(true).unwrap();
            assert_eq!(scale.factor, START);
        }
        assert_eq!(scale.next(true), Some(LossScale { factor: 2.0 * START, steps: 0 }));
        scale = scale.next(false).unwrap();
        assert_eq!(scale, LossScale { factor: START / 2.0, steps: 0 });
        let overflows = std::iter::successors(Some(scale), |scale| scale.next(false));
        assert_eq!(overflows.last(), Some(LossScale { factor: 1.0, steps: 0 }));
    }
}
