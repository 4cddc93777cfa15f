//! The conditional denoiser: visual priors joined with the noisy latent, the bottleneck, and the U-Net.
//!
//! # Source
//! SyncDiff, section 3 (figure 2): E_q = concat(z_d, E_m, E_i, BN(E_p)). The ablation variants of its section 4.4 are
//! settings of [`PriorConfig`].

use crate::diffusion::{Denoiser, Prediction};
use crate::nn::Conv1x1;
use crate::precision::Precision;
use crate::unet::{PreparedContext, PreparedTime, UNet, UNetConfig};
use crate::weights::Remap;
use burn::module::Module;
use burn::tensor::{Device, Tensor};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

/// Which frames the denoiser sees beside the masked one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PriorConfig {
    /// The identity frame (RND of the paper).
    pub identity: bool,
    /// Number of previous frames (PRV; NP of the paper's table 5).
    pub pose_frames: usize,
    /// Channels each previous frame is squeezed to by its own 1x1 convolution; 0 means no bottleneck: all three
    /// channels.
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

/// U-Net and bottlenecks.
#[derive(Module, Debug)]
pub struct LatentDenoiser {
    unet: UNet,
    /// One for each previous frame; none where frames keep all their channels.
    bottlenecks: Vec<Conv1x1>,
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
        let squeezed = if priors.pose_channels > 0 { priors.pose_frames } else { 0 };
        Self {
            unet: UNet::new(unet, device),
            bottlenecks: (0..squeezed).map(|_| Conv1x1::new(latent, priors.pose_channels, device)).collect(),
            priors,
        }
    }

    /// The same denoiser with its U-Net computing in another type; the bottlenecks stay as they are.
    #[must_use]
    pub fn in_precision(self, precision: Precision) -> Self {
        Self { unet: precision.convert(self.unet), ..self }
    }

    /// Names on disk: upstream's for the U-Net; beside them `bottleneck.*` of the latest frame, `bottleneck_1.*` of the
    /// one before it, and so on.
    pub fn remap(unet: &UNetConfig) -> Remap {
        let names = unet.remap();
        Remap::identity().with_names(move |path| match path.strip_prefix("unet.") {
            Some(rest) => Some(names.disk_name(rest)),
            None => path.strip_prefix("bottlenecks.").map(|rest| match rest.strip_prefix("0.") {
                Some(rest) => format!("bottleneck.{rest}"),
                None => format!("bottleneck_{rest}"),
            }),
        })
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
        if self.bottlenecks.is_empty() {
            parts.extend(priors.pose.iter().cloned());
        }
        parts.extend(self.bottlenecks.iter().zip(&priors.pose).map(|(conv, pose)| conv.forward(pose.clone())));
        Tensor::cat(parts, 1)
    }

    /// # Shapes
    /// z: [batch, 3, h, w], condition: of [`LatentDenoiser::condition`], context: [batch, tokens, dim] -> shape of z
    pub fn forward(&self, z: Tensor<4>, condition: Tensor<4>, timesteps: &[usize], context: Tensor<3>) -> Tensor<4> {
        self.unet.forward(Tensor::cat(vec![z, condition], 1), timesteps, context)
    }

    /// What the middle block of the U-Net gives: the latent representation whose steadiness the paper compares (its
    /// table 4).
    ///
    /// # Shapes
    /// as [`LatentDenoiser::forward`] -> [batch, channels, height, width] of the lowest level
    pub fn middle(&self, z: Tensor<4>, condition: Tensor<4>, timesteps: &[usize], context: Tensor<3>) -> Tensor<4> {
        let mut middle = None;
        self.unet.forward_traced(Tensor::cat(vec![z, condition], 1), timesteps, context, &mut |block, output| {
            if block == "middle_block" {
                middle = Some(output.clone());
            }
        });
        middle.expect("every U-Net has a middle block")
    }

    /// Projects audio tokens for every cross-attention, for [`LatentDenoiser::bind_prepared`].
    ///
    /// # Shapes
    /// [batch, tokens, dim]
    pub fn prepare_context(&self, tokens: Tensor<3>) -> PreparedContext {
        self.unet.prepare_context(tokens)
    }

    /// Classifier-free guidance (Ho and Salimans 2022): without + weight (with - without), in the form that the
    /// network predicts. None at a weight of 1, which is no guidance and costs nothing.
    ///
    /// # Shapes
    /// mute: [1, tokens, dim], the tokens of no speech
    pub fn guidance(&self, weight: f32, mute: impl FnOnce() -> Tensor<3>) -> Option<Guidance> {
        (weight != 1.0).then(|| Guidance { weight, mute: self.prepare_context(mute()) })
    }

    /// Binds the conditions of one sampling run: what does not change over its steps is computed here, once.
    pub fn bind(&self, priors: &VisualPriors, context: Tensor<3>, prediction: Prediction) -> BoundDenoiser<'_> {
        let context = BoundContext::new(self.prepare_context(context), None);
        BoundDenoiser { denoiser: self, condition: self.condition(priors), context, times: None, prediction }
    }

    /// [`LatentDenoiser::bind`] for a frame of a clip, with what was computed once for the clip or ahead.
    pub fn bind_prepared<'a>(
        &'a self,
        priors: &VisualPriors,
        context: BoundContext,
        times: &'a TimeTable,
        prediction: Prediction,
    ) -> BoundDenoiser<'a> {
        let condition = self.condition(priors);
        BoundDenoiser { denoiser: self, condition, context, times: Some(times), prediction }
    }
}

/// The answer that guidance starts from, the same for all frames.
#[derive(Clone, Debug)]
pub struct Guidance {
    weight: f32,
    /// Of one image.
    mute: PreparedContext,
}

/// The context of a sampling run, ready for all steps.
#[derive(Clone, Debug)]
pub struct BoundContext {
    /// Under guidance that of no speech stands behind it in the batch: both answers come from one pass.
    prepared: PreparedContext,
    weight: Option<f32>,
    /// Under guidance: two passes, each of half the size.
    apart: bool,
}

impl BoundContext {
    /// Joins a context with that of no speech, where there is guidance.
    pub fn new(context: PreparedContext, guidance: Option<&Guidance>) -> Self {
        match guidance {
            Some(Guidance { weight, mute }) => {
                BoundContext { prepared: context.join(mute), weight: Some(*weight), apart: false }
            }
            None => BoundContext { prepared: context, weight: None, apart: false },
        }
    }

    /// The contexts of several images as one batch.
    ///
    /// # Panics
    /// If there are none, or if they were not made alike.
    pub fn stack(images: &[&Self]) -> Self {
        let [first, ..] = images else { panic!("no contexts to stack") };
        let with: Vec<PreparedContext> = images.iter().map(|context| context.prepared.of_image(0)).collect();
        let with = PreparedContext::stack(&with);
        let prepared = match first.weight {
            Some(_) => with.join(&first.prepared.of_image(1)),
            None => with,
        };
        BoundContext { prepared, ..**first }
    }

    /// Lets the answers with and without speech come from a pass each: the same answers up to rounding, in less memory.
    pub fn apart(self, apart: bool) -> Self {
        BoundContext { apart, ..self }
    }
}

/// The timesteps that a sampler has asked for, embedded and projected: the same for all frames of a clip.
#[derive(Debug, Default)]
pub struct TimeTable(Mutex<BTreeMap<usize, PreparedTime>>);

impl TimeTable {
    /// The entry of a timestep, made at first use.
    fn at(&self, timestep: usize, prepare: impl FnOnce() -> PreparedTime) -> PreparedTime {
        // Entries are whole or absent, so that a panic elsewhere leaves nothing wrong behind.
        let entries = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let found = entries().get(&timestep).cloned();
        // Not made under the lock: a thread of the pool that waits for a part of it may begin with another clip, on top
        // of this one.
        found.unwrap_or_else(|| {
            let made = prepare();
            entries().entry(timestep).or_insert(made).clone()
        })
    }
}

/// A denoiser with its conditions, as samplers see it.
pub struct BoundDenoiser<'a> {
    denoiser: &'a LatentDenoiser,
    condition: Tensor<4>,
    context: BoundContext,
    times: Option<&'a TimeTable>,
    prediction: Prediction,
}

impl Denoiser for BoundDenoiser<'_> {
    fn denoise(&self, x_t: Tensor<4>, timesteps: &[usize]) -> Tensor<4> {
        let (unet, device) = (&self.denoiser.unet, x_t.device());
        let time = match (self.times, timesteps) {
            // Samplers ask for the whole batch at one timestep: one entry serves all of it.
            (Some(times), [first, rest @ ..]) if rest.iter().all(|timestep| timestep == first) => {
                times.at(*first, || unet.prepare_timesteps(&[*first], &device))
            }
            _ => unet.prepare_timesteps(timesteps, &device),
        };
        let x = Tensor::cat(vec![x_t, self.condition.clone()], 1);
        let BoundContext { prepared, weight, apart } = &self.context;
        let Some(weight) = *weight else { return unet.forward_prepared(x, &time, prepared) };
        let batch = timesteps.len();
        let (with, without) = if *apart {
            let half = |first: usize| unet.forward_prepared(x.clone(), &time, &prepared.of_images(first, batch));
            (half(0), half(batch))
        } else {
            let answers = unet.forward_prepared(x, &time, prepared);
            (answers.clone().narrow(0, 0, batch), answers.narrow(0, batch, batch))
        };
        without.clone() + (with - without) * weight
    }

    fn prediction(&self) -> Prediction {
        self.prediction
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::weights::module_shapes;
    use burn::tensor::Int;

    #[test]
    fn input_channels_of_the_variants() {
        assert_eq!(PriorConfig::SYNCDIFF.in_channels(3), 10);
        assert_eq!(PriorConfig::RND.in_channels(3), 9);
        assert_eq!(PriorConfig::PRV.in_channels(3), 9);
        assert_eq!(PriorConfig::PRV_BOTTLENECK.in_channels(3), 7);
        assert_eq!(PriorConfig { pose_frames: 5, ..PriorConfig::SYNCDIFF }.in_channels(3), 14);
        assert_eq!(PriorConfig { pose_frames: 10, ..PriorConfig::SYNCDIFF }.in_channels(3), 19);
    }

    /// A few channels at one scale, so that a pass takes a moment.
    fn denoiser(priors: PriorConfig, device: &Device) -> (LatentDenoiser, UNetConfig) {
        let unet = UNetConfig {
            in_channels: priors.in_channels(3),
            model_channels: 32,
            channel_mult: vec![1],
            num_res_blocks: 1,
            attention_resolutions: vec![1],
            context_dim: 8,
            ..UNetConfig::paper()
        };
        (LatentDenoiser::new(&unet, priors, device), unet)
    }

    fn latent(pace: f32, device: &Device) -> Tensor<4> {
        (Tensor::<1, Int>::arange(0..48, device).float() * pace).sin().reshape([1, 3, 4, 4])
    }

    #[test]
    fn each_previous_frame_has_its_own_bottleneck_and_its_own_channels() {
        let device = Device::flex();
        for (priors, squeezed) in [
            (PriorConfig::RND, 0),
            (PriorConfig::PRV, 0),
            (PriorConfig::PRV_BOTTLENECK, 1),
            (PriorConfig::SYNCDIFF, 1),
            (PriorConfig { pose_frames: 5, ..PriorConfig::SYNCDIFF }, 5),
            (PriorConfig { pose_frames: 10, ..PriorConfig::SYNCDIFF }, 10),
        ] {
            let (denoiser, unet) = denoiser(priors, &device);
            let names = module_shapes(&denoiser, &LatentDenoiser::remap(&unet));
            let bottlenecks: Vec<&str> =
                names.keys().filter(|name| name.starts_with("bottleneck")).map(String::as_str).collect();
            assert_eq!(bottlenecks.len(), 2 * squeezed, "{bottlenecks:?}");
            assert_eq!(bottlenecks.contains(&"bottleneck.weight"), squeezed > 0);
            assert_eq!(bottlenecks.contains(&"bottleneck_4.weight"), squeezed > 4);

            let frames: Vec<Tensor<4>> = (0..priors.pose_frames).map(|i| latent(0.3 + i as f32, &device)).collect();
            let seen = |pose: Vec<Tensor<4>>| {
                let priors = VisualPriors { masked: latent(0.1, &device), identity: latent(0.2, &device), pose };
                denoiser.condition(&priors)
            };
            let condition = seen(frames.clone());
            assert_eq!(condition.dims(), [1, priors.in_channels(3) - 3, 4, 4]);
            let out =
                denoiser.forward(latent(0.7, &device), condition.clone(), &[500], Tensor::zeros([1, 1, 8], &device));
            assert_eq!(out.dims(), [1, 3, 4, 4]);

            // A change of the oldest frame shows in its own channels, which are the last ones, and nowhere else.
            let Some(oldest) = priors.pose_frames.checked_sub(1) else { continue };
            let mut changed = frames;
            changed[oldest] = changed[oldest].clone() + 1.0;
            let width = if priors.pose_channels == 0 { 3 } else { priors.pose_channels };
            let others = priors.in_channels(3) - 3 - width;
            let difference = (seen(changed) - condition).abs();
            assert_eq!(difference.clone().narrow(1, 0, others).max().into_scalar::<f32>(), 0.0);
            assert!(difference.narrow(1, others, width).max().into_scalar::<f32>() > 1e-3);
        }
    }
}
