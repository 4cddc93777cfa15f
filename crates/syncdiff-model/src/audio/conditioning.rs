//! From a window of encoded rows to the tokens that cross-attention sees.
//!
//! With one token, softmax over the keys is 1 and each cross-attention adds the same vector to every pixel: the audio
//! can shift features, but not choose where. That is the paper's build. More tokens let each place in the picture
//! weigh the moments of speech for itself.

use burn::module::{Initializer, Module, Param};
use burn::tensor::{Device, Tensor};
use serde::{Deserialize, Serialize};

use crate::audio::temporal_filter::TemporalFilter;
use crate::audio::window::windows;
use crate::error::{ModelError, ModelResult};
use crate::weights::Remap;

/// Which tokens are given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ConditioningTokens {
    /// One token (the paper): the filtered row, or the frame's own row without a filter.
    Single,
    /// Every row of the window with a learned position, then the filtered row where there is a filter.
    Window,
}

/// Sizes of a [`Conditioner`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConditioningConfig {
    /// Width of the encoded rows and of the tokens.
    pub dim: usize,
    /// Rows of a window.
    pub window: usize,
    /// Which tokens are given.
    pub tokens: ConditioningTokens,
    /// Whether the temporal filtering network is used.
    pub temporal_filter: bool,
    /// Channels by which the filter weighs the rows; absent: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attended_dim: Option<usize>,
}

impl ConditioningConfig {
    /// Number of tokens, K.
    pub fn num_tokens(&self) -> usize {
        match self.tokens {
            ConditioningTokens::Single => 1,
            ConditioningTokens::Window => self.window + usize::from(self.temporal_filter),
        }
    }

    /// A new conditioner with random weights from the device's generator.
    ///
    /// # Errors
    /// [`ModelError::Parameter`] for sizes of 0, or more attended channels than there are.
    pub fn init(&self, device: &Device) -> ModelResult<Conditioner> {
        for (name, value) in [("dim", self.dim), ("window", self.window)] {
            if value == 0 {
                return Err(ModelError::parameter("conditioning", name, value, "must be 1 or more"));
            }
        }
        let attended_dim = self.attended_dim.unwrap_or(self.dim);
        if attended_dim > self.dim {
            return Err(ModelError::parameter("conditioning", "attended_dim", attended_dim, "must not exceed dim"));
        }
        let filter = match self.temporal_filter {
            true => Some(TemporalFilter::new(self.window, attended_dim, device)?),
            false => None,
        };
        let positions = match self.tokens {
            ConditioningTokens::Single => None,
            ConditioningTokens::Window => {
                Some(Initializer::Normal { mean: 0.0, std: 0.02 }.init([self.window, self.dim], device))
            }
        };
        Ok(Conditioner { filter, positions, window: self.window })
    }
}

/// Makes the tokens; see the module's documentation.
#[derive(Module, Debug)]
pub struct Conditioner {
    filter: Option<TemporalFilter>,
    positions: Option<Param<Tensor<2>>>,
    #[module(skip)]
    window: usize,
}

impl Conditioner {
    /// Names on disk: `filter.attentionConvNet.*`, `filter.attentionNet.0.*` and `positions`.
    pub fn remap() -> Remap {
        let filter = TemporalFilter::remap();
        Remap::identity().with_names(move |path| {
            path.strip_prefix("filter.").map(|rest| format!("filter.{}", filter.disk_name(rest)))
        })
    }

    /// Tokens of the given frames of an encoded utterance.
    ///
    /// # Shapes
    /// rows [time, dim] -> [frames, K, dim]
    pub fn tokens_of_frames(&self, rows: Tensor<2>, frames: &[usize]) -> Tensor<3> {
        self.forward(windows(rows, frames, self.window))
    }

    /// Tokens of no speech at all (not of silence): what training shows where it drops the speech.
    ///
    /// # Shapes
    /// width of the speech's rows -> [1, K, dim]
    pub fn mute_tokens(&self, dim: usize, device: &Device) -> Tensor<3> {
        self.forward(Tensor::zeros([1, self.window, dim], device))
    }

    /// # Shapes
    /// [batch, window, dim] -> [batch, K, dim]
    pub fn forward(&self, windows: Tensor<3>) -> Tensor<3> {
        let filtered = self.filter.as_ref().map(|filter| filter.forward(windows.clone()).unsqueeze_dim::<3>(1));
        match (&self.positions, filtered) {
            (None, Some(filtered)) => filtered,
            (None, None) => windows.narrow(1, self.window / 2, 1),
            (Some(positions), filtered) => {
                let mut tokens = vec![windows + positions.val().unsqueeze()];
                tokens.extend(filtered);
                Tensor::cat(tokens, 1)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::weights::module_shapes;
    use burn::module::ModuleVisitor;
    use burn::tensor::{Gradients, Int};

    fn config(tokens: ConditioningTokens, temporal_filter: bool) -> ConditioningConfig {
        ConditioningConfig { dim: 6, window: 4, tokens, temporal_filter, attended_dim: None }
    }

    fn rows(device: &Device) -> Tensor<2> {
        Tensor::<1, Int>::arange(0..60, device).float().reshape([10, 6]) / 10.0
    }

    #[test]
    fn every_choice_gives_its_number_of_tokens_and_gradients_reach_all_of_it() {
        let device = Device::default().autodiff();
        for tokens in [ConditioningTokens::Single, ConditioningTokens::Window] {
            for filter in [false, true] {
                let config = config(tokens, filter);
                let conditioner = config.init(&device).unwrap();
                let out = conditioner.tokens_of_frames(rows(&device), &[0, 5, 9]);
                assert_eq!(out.dims(), [3, config.num_tokens(), 6]);
                if conditioner.num_params() == 0 {
                    continue;
                }
                let grads = out.powi_scalar(2).sum().backward();
                conditioner.visit(&mut NoneWithoutGradient(&grads));
            }
        }
    }

    struct NoneWithoutGradient<'a>(&'a Gradients);
    impl ModuleVisitor for NoneWithoutGradient<'_> {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            assert!(param.val().grad(self.0).is_some(), "no gradient for a parameter of {:?}", param.dims());
        }
    }

    #[test]
    fn without_a_filter_the_single_token_is_the_frames_own_row() {
        let device = Device::default();
        let conditioner = config(ConditioningTokens::Single, false).init(&device).unwrap();
        let out = conditioner.tokens_of_frames(rows(&device), &[7]);
        assert_eq!(out.into_data(), rows(&device).narrow(0, 7, 1).unsqueeze::<3>().into_data());
    }

    #[test]
    fn a_batch_equals_its_frames_one_by_one() {
        let device = Device::default();
        let conditioner = config(ConditioningTokens::Window, true).init(&device).unwrap();
        let batch = conditioner.tokens_of_frames(rows(&device), &[0, 4, 9]);
        for (i, frame) in [0, 4, 9].into_iter().enumerate() {
            let alone = conditioner.tokens_of_frames(rows(&device), &[frame]);
            let difference = (batch.clone().narrow(0, i, 1) - alone).abs().max().into_scalar::<f32>();
            assert!(difference < 1e-6, "{difference}");
        }
    }

    #[test]
    fn names_and_faults() {
        let device = Device::default();
        let conditioner = config(ConditioningTokens::Window, true).init(&device).unwrap();
        let names = module_shapes(&conditioner, &Conditioner::remap().with_prefix("conditioning."));
        assert!(names.contains_key("conditioning.filter.attentionConvNet.8.weight"), "{names:?}");
        assert!(names.contains_key("conditioning.positions"));
        for wrong in [
            ConditioningConfig { window: 0, ..config(ConditioningTokens::Window, true) },
            ConditioningConfig { attended_dim: Some(7), ..config(ConditioningTokens::Single, true) },
        ] {
            assert!(matches!(wrong.init(&device), Err(ModelError::Parameter { .. })));
        }
    }
}
