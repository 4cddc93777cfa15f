//! DiffTalk's condition: one token of 64 values of sound and 64 of landmarks for its U-Net, which is ours with nine
//! channels in and a context of 128.
//!
//! # Source
//! sstzal/DiffTalk `ldm/modules/encoders/modules.py` (`AudioNet`, `AudioAttNet`, `LdmNet`) and
//! `ldm/models/diffusion/ddpm_talking.py` (`get_learned_conditioning`).

use burn::module::Module;
use burn::nn::{Linear, LinearConfig};
use burn::tensor::activation::leaky_relu;
use burn::tensor::{Device, Tensor};

use crate::audio::temporal_filter::LEAK;
use crate::audio::{AudioNet, TemporalFilter};
use crate::cost::Cost;
use crate::error::ModelResult;
use crate::weights::Remap;

/// Landmarks that it sees: 0 to 3 and 13 to 47 of 68, so neither mouth nor chin.
pub const NUM_LANDMARKS: usize = 39;
/// Length of each half of the token.
pub const CODE_DIM: usize = 64;
/// Windows of sound that are weighed for one frame.
const SMOOTHED_WINDOWS: usize = 8;
/// Values of a code of sound that decide its weight.
const ATTENDED_DIM: usize = 32;

/// Values after each layer of the landmarks' network, and before the first.
const LANDMARK_DIMS: [usize; 4] = [2 * NUM_LANDMARKS, 128, CODE_DIM, CODE_DIM];

/// Landmarks to a code: 22,528 parameters.
#[derive(Module, Debug)]
pub struct LandmarkNet {
    linears: Vec<Linear>,
}

impl LandmarkNet {
    /// The network with PyTorch's default initialisation.
    pub fn new(device: &Device) -> Self {
        Self {
            linears: LANDMARK_DIMS.windows(2).map(|size| LinearConfig::new(size[0], size[1]).init(device)).collect(),
        }
    }

    /// Names in DiffTalk's `LdmNet`.
    pub fn remap() -> Remap {
        Remap::table(&[("linears.0", "encoder_fc1.0"), ("linears.1", "encoder_fc1.2"), ("linears.2", "encoder_fc1.4")])
    }

    /// # Shapes
    /// [batch, 78] -> [batch, 64]
    pub fn forward(&self, landmarks: Tensor<2>) -> Tensor<2> {
        let [first, second, last] = &self.linears[..] else { unreachable!("three layers") };
        let x = leaky_relu(first.forward(landmarks), LEAK);
        last.forward(leaky_relu(second.forward(x), LEAK))
    }
}

/// Sound and landmarks to the token: 57,477 parameters.
#[derive(Module, Debug)]
pub struct DiffTalkCondition {
    audio: AudioNet,
    audio_smooth: TemporalFilter,
    ldm: LandmarkNet,
}

impl DiffTalkCondition {
    /// The networks with PyTorch's default initialisation.
    ///
    /// # Errors
    /// None for these sizes; the filter's constructor checks them.
    pub fn new(device: &Device) -> ModelResult<Self> {
        Ok(Self {
            audio: AudioNet::new(CODE_DIM, device),
            audio_smooth: TemporalFilter::new(SMOOTHED_WINDOWS, ATTENDED_DIM, device)?,
            ldm: LandmarkNet::new(device),
        })
    }

    /// One frame: its eight windows of sound and its landmarks.
    pub fn cost() -> Cost {
        let landmarks: Cost = LANDMARK_DIMS.windows(2).map(|size| Cost::linear(size[0], size[1], 1)).sum();
        let smoothing = TemporalFilter::cost(SMOOTHED_WINDOWS, ATTENDED_DIM, CODE_DIM);
        AudioNet::cost(CODE_DIM).times(SMOOTHED_WINDOWS) + smoothing + landmarks
    }

    /// Names in a DiffTalk checkpoint after `cond_stage_model_for_`.
    pub fn remap() -> Remap {
        Remap::identity().with_names(|path| {
            let (part, rest) = path.split_once('.')?;
            let names = match part {
                "audio" => AudioNet::remap(),
                "audio_smooth" => TemporalFilter::remap(),
                _ => LandmarkNet::remap(),
            };
            Some(format!("{part}.{}", names.disk_name(rest)))
        })
    }

    /// The context of the U-Net.
    ///
    /// # Shapes
    /// windows [batch, 8, 16, 29] of DeepSpeech logits; landmarks [batch, 78] -> [batch, 1, 128]
    pub fn forward(&self, windows: Tensor<4>, landmarks: Tensor<2>) -> Tensor<3> {
        let [batch, count, rows, characters] = windows.dims();
        let codes = self.audio.forward(windows.reshape([batch * count, rows, characters]));
        let sound = self.audio_smooth.forward(codes.reshape([batch, count, CODE_DIM]));
        Tensor::cat(vec![sound, self.ldm.forward(landmarks)], 1).unsqueeze_dim(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameter_counts() {
        let device = Device::default();
        assert_eq!(LandmarkNet::new(&device).num_params(), 22_528);
        assert_eq!(DiffTalkCondition::new(&device).unwrap().num_params(), 32_800 + 2_149 + 22_528);
        assert_eq!(DiffTalkCondition::cost().parameters, 57_477);
    }
}
