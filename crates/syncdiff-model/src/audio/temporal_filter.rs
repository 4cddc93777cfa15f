//! The temporal filtering network: a learned weighted mean over the rows of a window.

use burn::module::Module;
use burn::nn::conv::{Conv1d, Conv1dConfig};
use burn::nn::{Linear, LinearConfig, PaddingConfig1d};
use burn::tensor::activation::{leaky_relu, softmax};
use burn::tensor::{Device, Tensor};

use crate::error::{ModelError, ModelResult};
use crate::weights::Remap;

/// Channels after each convolution.
pub(crate) const CHANNELS: [usize; 5] = [16, 8, 4, 2, 1];
/// Slope of the leaky ReLU below zero.
pub(crate) const LEAK: f64 = 0.02;

/// Weighs the rows of a window by their first `attended_dim` channels and returns their weighted mean.
///
/// # Source
/// DiffTalk and AD-NeRF `AudioAttNet`, after Neural Voice Puppetry. DiffTalk looks at 32 of 64 channels; for encoder
/// rows the paper's build looks at all.
#[derive(Module, Debug)]
pub struct TemporalFilter {
    convs: Vec<Conv1d>,
    linear: Linear,
    #[module(skip)]
    attended_dim: usize,
    #[module(skip)]
    window: usize,
}

impl TemporalFilter {
    /// For windows of `window` rows; `attended_dim` may be less than their width.
    ///
    /// # Errors
    /// [`ModelError::Parameter`] when either is 0.
    pub fn new(window: usize, attended_dim: usize, device: &Device) -> ModelResult<Self> {
        for (name, value) in [("window", window), ("attended_dim", attended_dim)] {
            if value == 0 {
                return Err(ModelError::parameter("temporal filter", name, value, "must be 1 or more"));
            }
        }
        let mut channels = attended_dim;
        let conv = |next: usize| {
            let conv = Conv1dConfig::new(channels, next, 3).with_padding(PaddingConfig1d::Explicit(1, 1)).init(device);
            channels = next;
            conv
        };
        let convs = CHANNELS.map(conv).into();
        Ok(Self { convs, linear: LinearConfig::new(window, window).init(device), attended_dim, window })
    }

    /// Names in DiffTalk's `AudioAttNet`.
    pub fn remap() -> Remap {
        Remap::table(&[("linear", "attentionNet.0")]).with_names(|path| {
            // Convolution i stands at 2 i there, with an activation between.
            let (index, parameter) = path.strip_prefix("convs.")?.split_once('.')?;
            Some(format!("attentionConvNet.{}.{parameter}", 2 * index.parse::<usize>().ok()?))
        })
    }

    /// The share of each row; they sum to 1.
    ///
    /// # Shapes
    /// [batch, window, dim] -> [batch, window]
    ///
    /// # Panics
    /// When the window has another length or fewer channels than the filter was built for.
    pub fn weights(&self, windows: Tensor<3>) -> Tensor<2> {
        let [batch, window, dim] = windows.dims();
        assert!(
            window == self.window && dim >= self.attended_dim,
            "a filter for windows of {} rows of {} channels was given {window} of {dim}",
            self.window,
            self.attended_dim
        );
        let mut x = windows.narrow(2, 0, self.attended_dim).swap_dims(1, 2); // [batch, attended, window]
        for conv in &self.convs {
            x = leaky_relu(conv.forward(x), LEAK);
        }
        softmax(self.linear.forward(x.reshape([batch, window])), 1)
    }

    /// The filtered row.
    ///
    /// # Shapes
    /// [batch, window, dim] -> [batch, dim]
    pub fn forward(&self, windows: Tensor<3>) -> Tensor<2> {
        let weights = self.weights(windows.clone()).unsqueeze_dim::<3>(2); // [batch, window, 1]
        (windows * weights).sum_dim(1).squeeze_dim(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameter_counts() {
        let device = Device::default();
        for (window, dim, count) in [(8, 32, 2_149), (8, 768, 37_477), (8, 128, 6_757), (16, 64, 3_885)] {
            assert_eq!(TemporalFilter::new(window, dim, &device).unwrap().num_params(), count);
        }
        assert!(matches!(TemporalFilter::new(0, 32, &device), Err(ModelError::Parameter { .. })));
    }

    #[test]
    fn equal_rows_come_out_unchanged() {
        let device = Device::default();
        let filter = TemporalFilter::new(4, 3, &device).unwrap();
        let row = Tensor::<3>::from_data([[[0.5f32, -1.0, 2.0, 7.0]]], &device);
        let out = filter.forward(row.clone().expand([1, 4, 4]));
        assert!((out - row.squeeze_dim(0)).abs().max().into_scalar::<f32>() < 1e-5);
    }
}
