//! The conditional denoiser: visual priors joined with the noisy latent, the bottleneck, and the U-Net.
//!
//! # Source
//! SyncDiff, section 3 (figure 2): E_q = concat(z_d, E_m, E_i, BN(E_p)). The ablation variants of its section 4.4 are
//! settings of [`PriorConfig`].

use crate::diffusion::{Denoiser, Prediction};
use crate::nn::Conv1x1;
use crate::unet::{PreparedContext, UNet, UNetConfig};
use crate::weights::Remap;
use burn::module::Module;
use burn::tensor::{Device, Tensor};
use serde::{Deserialize, Serialize};

/// Which frames the denoiser sees beside the masked one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PriorConfig {
    /// The identity frame (RND of the paper).
    pub identity: bool,
    /// Number of previous frames (PRV; NP of the paper's table 5).
    pub pose_frames: usize,
    /// Channels each previous frame is squeezed to by a 1x1 convolution; 0 means no bottleneck: all three channels.
    pub pose_channels: usize,
}

impl PriorConfig {
    /// RND+PRV-: the published model.
    pub const SYNCDIFF: Self = Self { identity: true, pose_frames: 1, pose_channels: 1 };
    /// RND alone, as in DiffTalk.
    pub const RND: Self = Self { identity: true, pose_frames: 0, pose_channels: 0 };
    /// PRV: the previous frame without bottleneck, no identity frame.
    pub const PRV: Self = Self { identity: false, pose_frames: 1, pose_channels: 0 };
    /// PRV-: the previous frame through the bottleneck, no identity frame.
    pub const PRV_BOTTLENECK: Self = Self { identity: false, pose_frames: 1, pose_channels: 1 };

    /// Input channels of the U-Net for a latent of `latent` channels.
    pub fn in_channels(&self, latent: usize) -> usize {
        let pose = if self.pose_channels == 0 { latent } else { self.pose_channels };
        2 * latent + if self.identity { latent } else { 0 } + self.pose_frames * pose
    }
}

/// U-Net and bottleneck.
#[derive(Module, Debug)]
pub struct LatentDenoiser {
    unet: UNet,
    bottleneck: Option<Conv1x1>,
    #[module(skip)]
    priors: PriorConfig,
}

/// Latents of the frames that condition a sample; all [batch, 3, h, w].
#[derive(Clone, Debug)]
pub struct VisualPriors {
    /// The target frame with its mouth region masked.
    pub masked: Tensor<4>,
    /// Another frame of the same person.
    pub identity: Tensor<4>,
    /// Previous frames, the latest first.
    pub pose: Vec<Tensor<4>>,
}

impl LatentDenoiser {
    /// Builds the network; `unet.in_channels` must be what `priors` asks for.
    pub fn new(unet: &UNetConfig, priors: PriorConfig, device: &Device) -> Self {
        let latent = unet.out_channels;
        assert_eq!(unet.in_channels, priors.in_channels(latent), "U-Net input channels do not fit the visual priors");
        let squeezed = priors.pose_frames > 0 && priors.pose_channels > 0;
        Self {
            unet: UNet::new(unet, device),
            bottleneck: squeezed.then(|| Conv1x1::new(latent, priors.pose_channels, device)),
            priors,
        }
    }

    /// Names on disk: upstream's for the U-Net, `bottleneck.*` beside them.
    pub fn remap(unet: &UNetConfig) -> Remap {
        let names = unet.remap();
        Remap::identity().with_names(move |path| path.strip_prefix("unet.").map(|rest| names.disk_name(rest)))
    }

    /// Everything but the noisy latent: constant over the steps of a sampler.
    ///
    /// # Shapes
    /// -> [batch, in_channels - 3, h, w]
    pub fn condition(&self, priors: &VisualPriors) -> Tensor<4> {
        assert_eq!(priors.pose.len(), self.priors.pose_frames, "number of previous frames");
        let mut parts = vec![priors.masked.clone()];
        if self.priors.identity {
            parts.push(priors.identity.clone());
        }
        for pose in &priors.pose {
            parts.push(match &self.bottleneck {
                Some(conv) => conv.forward(pose.clone()),
                None => pose.clone(),
            });
        }
        Tensor::cat(parts, 1)
    }

    /// # Shapes
    /// z: [batch, 3, h, w], condition: of [`LatentDenoiser::condition`], context: [batch, tokens, dim] -> shape of z
    pub fn forward(&self, z: Tensor<4>, condition: Tensor<4>, timesteps: &[usize], context: Tensor<3>) -> Tensor<4> {
        self.unet.forward(Tensor::cat(vec![z, condition], 1), timesteps, context)
    }

    /// Binds the conditions of one sampling run: what does not change over its steps is computed here, once.
    pub fn bind(&self, priors: &VisualPriors, context: Tensor<3>, prediction: Prediction) -> BoundDenoiser<'_> {
        let prepared = self.unet.prepare_context(context.clone());
        let condition = self.condition(priors);
        BoundDenoiser { denoiser: self, condition, context, prepared, prediction, guidance: None }
    }
}

/// A denoiser with its conditions, as samplers see it.
pub struct BoundDenoiser<'a> {
    denoiser: &'a LatentDenoiser,
    condition: Tensor<4>,
    context: Tensor<3>,
    /// Of the context; under guidance of the context and, behind it in the batch, of the tokens of no speech.
    prepared: PreparedContext,
    prediction: Prediction,
    /// Weight of classifier-free guidance.
    guidance: Option<f32>,
}

impl BoundDenoiser<'_> {
    /// Classifier-free guidance (Ho and Salimans 2022): without + weight (with - without), in the form that the
    /// network predicts. A weight of 1 is no guidance and costs nothing.
    ///
    /// # Shapes
    /// mute: as the context, or with a batch of 1
    pub fn guided(self, weight: f32, mute: Tensor<3>) -> Self {
        if weight == 1.0 {
            return self;
        }
        let [batch, tokens, dim] = self.context.dims();
        // Both answers come from one pass: twice the batch keeps the cores busier than two passes.
        let both = Tensor::cat(vec![self.context.clone(), mute.expand([batch, tokens, dim])], 0);
        Self {
            prepared: self.denoiser.unet.prepare_context(both),
            condition: self.condition.repeat_dim(0, 2),
            guidance: Some(weight),
            ..self
        }
    }
}

impl Denoiser for BoundDenoiser<'_> {
    fn denoise(&self, x_t: Tensor<4>, timesteps: &[usize]) -> Tensor<4> {
        let run = |x_t: Tensor<4>, timesteps: &[usize]| {
            let x = Tensor::cat(vec![x_t, self.condition.clone()], 1);
            self.denoiser.unet.forward_prepared(x, timesteps, &self.prepared)
        };
        let Some(weight) = self.guidance else { return run(x_t, timesteps) };
        let batch = timesteps.len();
        let both = run(x_t.repeat_dim(0, 2), &timesteps.repeat(2));
        let (with, without) = (both.clone().narrow(0, 0, batch), both.narrow(0, batch, batch));
        without.clone() + (with - without) * weight
    }

    fn prediction(&self) -> Prediction {
        self.prediction
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn input_channels_of_the_variants() {
        assert_eq!(PriorConfig::SYNCDIFF.in_channels(3), 10);
        assert_eq!(PriorConfig::RND.in_channels(3), 9);
        assert_eq!(PriorConfig::PRV.in_channels(3), 9);
        assert_eq!(PriorConfig::PRV_BOTTLENECK.in_channels(3), 7);
        assert_eq!(PriorConfig { pose_frames: 5, ..PriorConfig::SYNCDIFF }.in_channels(3), 14);
        assert_eq!(PriorConfig { pose_frames: 10, ..PriorConfig::SYNCDIFF }.in_channels(3), 19);
    }
}
