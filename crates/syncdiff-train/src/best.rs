//! Which checkpoint of a run is the best, by a figure on held-out data.

use serde::{Deserialize, Serialize};

/// The held-out figure that tells which checkpoint is the best.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Measure {
    /// Lower is better: a loss, an error rate.
    Lowest(&'static str),
    /// Higher is better: an accuracy, a signal-to-noise ratio.
    Highest(&'static str),
}

/// The best checkpoint of a run so far.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Best {
    /// Steps done when it was written.
    pub step: u64,
    /// The figure that tells.
    pub figure: String,
    /// Its value there.
    pub value: f32,
}

impl Measure {
    /// The best after a checkpoint with these held-out figures. The earlier of two that are equal stays; what is not
    /// finite, or was not measured, is never the best.
    pub(crate) fn better(self, best: Option<Best>, step: u64, valid: &[(&'static str, f32)]) -> Option<Best> {
        let (Self::Lowest(figure) | Self::Highest(figure)) = self;
        let found = valid.iter().find(|(name, value)| *name == figure && value.is_finite());
        let Some((_, value)) = found.copied() else { return best };
        match best {
            Some(best) if best.figure == figure && !self.prefers(value, best.value) => Some(best),
            _ => Some(Best { step, figure: figure.to_owned(), value }),
        }
    }

    fn prefers(self, new: f32, old: f32) -> bool {
        match self {
            Self::Lowest(_) => new < old,
            Self::Highest(_) => new > old,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_is_the_first_of_the_extreme_ones() {
        let of = |measure: Measure, values: &[f32]| {
            let mut best = None;
            for (step, value) in values.iter().enumerate() {
                best = measure.better(best, step as u64, &[("other", -9.0), ("psnr", *value)]);
            }
            best.map(|best| (best.step, best.value))
        };
        let values = [f32::NAN, 3.0, 1.0, 7.0, 1.0, 7.0, f32::INFINITY];
        assert_eq!(of(Measure::Lowest("psnr"), &values), Some((2, 1.0)));
        assert_eq!(of(Measure::Highest("psnr"), &values), Some((3, 7.0)));
        assert_eq!(of(Measure::Highest("wer"), &values), None, "it was never measured");
        assert_eq!(of(Measure::Lowest("psnr"), &[f32::NAN]), None);
        // A figure of another name says nothing of this one.
        let other = Best { step: 1, figure: "l1".into(), value: 0.0 };
        assert_eq!(Measure::Lowest("psnr").better(Some(other), 2, &[("psnr", 5.0)]).unwrap().step, 2);
    }
}
