//! The denoising U-Net with spatial transformers.
//!
//! # Source
//! latent-diffusion `ldm/modules/diffusionmodules/openaimodel.py` (`UNetModel`) and `ldm/modules/attention.py`,
//! with 10 input channels as in the SyncDiff paper, section 3. Dropout is 0 there and is left out here.

mod blocks;
mod config;
mod remap;
mod transformer;

pub use blocks::{Downsample, ResBlock, Upsample};
pub use config::UNetConfig;
pub use transformer::SpatialTransformer;

use crate::nn::{Conv3, GroupNorm, in_pool, linear};
use crate::precision::cast;
use blocks::Stage;
use burn::module::Module;
use burn::nn::{Linear, LinearConfig};
use burn::tensor::{DType, Device, Tensor, TensorData};
use syncdiff_kernels::silu;
use transformer::CrossContext;
pub(crate) use transformer::repeated;

/// A context after the projections of every cross-attention, from [`UNet::prepare_context`]: what is constant over the
/// steps of a sampler. With one token these are the results of the attentions themselves.
#[derive(Clone, Debug)]
pub struct PreparedContext {
    /// In the order in which the transformers run.
    layers: Vec<CrossContext>,
}

impl PreparedContext {
    /// The context of one image of the batch.
    pub fn of_image(&self, image: usize) -> Self {
        self.of_images(image, 1)
    }

    /// The context of some neighbouring images of the batch.
    pub fn of_images(&self, first: usize, count: usize) -> Self {
        let some = |layer: &CrossContext| layer.map(|tokens| tokens.clone().narrow(0, first, count));
        Self { layers: self.layers.iter().map(some).collect() }
    }

    /// Several batches, one behind the other.
    ///
    /// # Panics
    /// If some have one token and others several, or if there are none.
    pub fn stack(parts: &[Self]) -> Self {
        let layer = |at: usize| CrossContext::stack(&parts.iter().map(|part| &part.layers[at]).collect::<Vec<_>>());
        Self { layers: (0..parts[0].layers.len()).map(layer).collect() }
    }

    /// This batch with another one behind it, which is repeated to the same size.
    ///
    /// # Panics
    /// If only one of the two has several tokens.
    pub fn join(&self, behind: &Self) -> Self {
        Self { layers: self.layers.iter().zip(&behind.layers).map(|(a, b)| a.join(b)).collect() }
    }
}

/// Timesteps after the projections of every residual block, from [`UNet::prepare_timesteps`]: the same for all clips.
#[derive(Clone, Debug)]
pub struct PreparedTime {
    /// In the order in which the residual blocks run; [batch, channels, 1, 1].
    layers: Vec<Tensor<4>>,
}

/// The U-Net. Predicts noise, x0 or v from the noisy latent joined with its visual conditions.
#[derive(Module, Debug)]
pub struct UNet {
    time_embed_0: Linear,
    time_embed_2: Linear,
    input_blocks: Vec<Stage>,
    middle_block_0: ResBlock,
    middle_block_1: SpatialTransformer,
    middle_block_2: ResBlock,
    output_blocks: Vec<Stage>,
    out_0: GroupNorm,
    out_2: Conv3,
    #[module(skip)]
    model_channels: usize,
}

impl UNet {
    /// Builds the network with the original's initialisation (zero-initialised residual ends).
    pub fn new(config: &UNetConfig, device: &Device) -> Self {
        let c = config.model_channels;
        let emb = 4 * c;
        let mut input_blocks = vec![Stage::conv(config.in_channels, c, device)];
        let mut skips = vec![c];
        let mut channels = c;
        let mut factor = 1;
        let levels = config.channel_mult.len();
        for (level, mult) in config.channel_mult.iter().enumerate() {
            for _ in 0..config.num_res_blocks {
                let out = mult * c;
                input_blocks.push(Stage::res(config, channels, out, emb, config.attends(factor), false, device));
                channels = out;
                skips.push(channels);
            }
            if level + 1 < levels {
                input_blocks.push(Stage::down(channels, device));
                skips.push(channels);
                factor *= 2;
            }
        }
        let middle_block_0 = ResBlock::new(config, channels, channels, emb, device);
        let middle_block_1 = SpatialTransformer::new(config, channels, device);
        let middle_block_2 = ResBlock::new(config, channels, channels, emb, device);
        let mut output_blocks = Vec::new();
        for (level, mult) in config.channel_mult.iter().enumerate().rev() {
            for i in 0..=config.num_res_blocks {
                let skip = skips.pop().expect("one skip per output block");
                let out = mult * c;
                let up = level > 0 && i == config.num_res_blocks;
                output_blocks.push(Stage::res(config, channels + skip, out, emb, config.attends(factor), up, device));
                channels = out;
                if up {
                    factor /= 2;
                }
            }
        }
        Self {
            time_embed_0: LinearConfig::new(c, emb).init(device),
            time_embed_2: LinearConfig::new(emb, emb).init(device),
            input_blocks,
            middle_block_0,
            middle_block_1,
            middle_block_2,
            output_blocks,
            out_0: GroupNorm::new(config.norm_groups, channels, blocks::RES_EPS, device),
            out_2: Conv3::zeros(channels, config.out_channels, device),
            model_channels: c,
        }
    }

    /// The type of values between layers: that of the biases.
    fn dtype(&self) -> DType {
        self.out_2.bias.val().dtype()
    }

    /// The time embedding after its two linear layers.
    ///
    /// # Shapes
    /// timesteps: one per image -> [batch, 4 * model_channels]
    pub fn embed_timesteps(&self, timesteps: &[usize], device: &Device) -> Tensor<2> {
        let table = timestep_embedding(timesteps, self.model_channels);
        let table = TensorData::new(table, [timesteps.len(), self.model_channels]);
        let x = Tensor::from_data(table, (device, self.dtype()));
        linear(&self.time_embed_2, silu(linear(&self.time_embed_0, x)))
    }

    /// Projects a context for every cross-attention, once for all steps that use it.
    ///
    /// # Shapes
    /// [batch, tokens, context_dim]
    ///
    /// # Source
    /// SyncDiff has one token, and its cross-attentions are constant over pixels and steps (METHOD section 11).
    pub fn prepare_context(&self, context: Tensor<3>) -> PreparedContext {
        in_pool(&context.device(), || {
            let context = cast(context, self.dtype());
            let before = self.input_blocks.iter().filter_map(Stage::transformer);
            let after = self.output_blocks.iter().filter_map(Stage::transformer);
            let transformers = before.chain([&self.middle_block_1]).chain(after);
            PreparedContext { layers: transformers.map(|transformer| transformer.prepare(context.clone())).collect() }
        })
    }

    /// Embeds timesteps and projects them for every residual block.
    ///
    /// # Shapes
    /// One timestep per image, or one for all images
    pub fn prepare_timesteps(&self, timesteps: &[usize], device: &Device) -> PreparedTime {
        in_pool(device, || {
            // Every residual block applies SiLU to the embedding first: once is enough.
            let emb = silu(self.embed_timesteps(timesteps, device));
            let before = self.input_blocks.iter().filter_map(Stage::res_block);
            let after = self.output_blocks.iter().filter_map(Stage::res_block);
            let blocks = before.chain([&self.middle_block_0, &self.middle_block_2]).chain(after);
            PreparedTime { layers: blocks.map(|block| block.shift(emb.clone())).collect() }
        })
    }

    /// # Shapes
    /// x: [batch, in_channels, height, width]; one timestep per image; context: [batch, tokens, context_dim]
    /// -> [batch, out_channels, height, width]
    pub fn forward(&self, x: Tensor<4>, timesteps: &[usize], context: Tensor<3>) -> Tensor<4> {
        assert_eq!(x.dims()[0], timesteps.len(), "one timestep per image");
        self.forward_prepared(x, &self.prepare_timesteps(timesteps, &context.device()), &self.prepare_context(context))
    }

    /// [`UNet::forward`] with timesteps and contexts that were prepared before.
    ///
    /// A context of k times the batch asks k questions about the same pictures: what lies before the first
    /// cross-attention is then computed once. The answers come in the order of the contexts.
    ///
    /// # Shapes
    /// x: [batch, in_channels, height, width]; time: of `batch` timesteps or of one; context: of k * batch images
    /// -> [k * batch, out_channels, height, width]
    pub fn forward_prepared(&self, x: Tensor<4>, time: &PreparedTime, context: &PreparedContext) -> Tensor<4> {
        in_pool(&x.device(), || self.run(x, time, context, &mut |_, _| {}))
    }

    /// [`UNet::forward`] that shows every block's output to `observe` under its upstream name (for tests and studies).
    pub fn forward_traced(
        &self,
        x: Tensor<4>,
        timesteps: &[usize],
        context: Tensor<3>,
        observe: &mut dyn FnMut(&str, &Tensor<4>),
    ) -> Tensor<4> {
        let time = self.prepare_timesteps(timesteps, &x.device());
        self.run(x, &time, &self.prepare_context(context), observe)
    }

    fn run(
        &self,
        x: Tensor<4>,
        time: &PreparedTime,
        context: &PreparedContext,
        observe: &mut dyn FnMut(&str, &Tensor<4>),
    ) -> Tensor<4> {
        let shifts = &mut time.layers.iter();
        let contexts = &mut context.layers.iter();
        let outside = x.dtype();
        let mut h = cast(x, self.dtype());
        let mut skips = Vec::with_capacity(self.input_blocks.len());
        for (i, block) in self.input_blocks.iter().enumerate() {
            h = block.forward(h, shifts, contexts);
            observe(&format!("input_blocks.{i}"), &h);
            skips.push(h.clone());
        }
        h = self.middle_block_0.forward_shifted(h, next_shift(shifts));
        observe("middle_block.0", &h);
        h = self.middle_block_1.forward_prepared(h, contexts.next().expect("one context per transformer"));
        observe("middle_block.1", &h);
        h = self.middle_block_2.forward_shifted(h, next_shift(shifts));
        observe("middle_block.2", &h);
        observe("middle_block", &h);
        for (i, block) in self.output_blocks.iter().enumerate() {
            let skip = skips.pop().expect("one skip per output block");
            let skip = repeated(skip, h.dims()[0]);
            h = block.forward(Tensor::cat(vec![h, skip], 1), shifts, contexts);
            observe(&format!("output_blocks.{i}"), &h);
        }
        cast(self.out_2.forward(self.out_0.forward_silu(h)), outside)
    }

    /// The block `input_blocks.{index}.0`, if it is a residual block (for tests).
    pub fn input_res_block(&self, index: usize) -> Option<&ResBlock> {
        self.input_blocks.get(index).and_then(Stage::res_block)
    }

    /// The spatial transformer of the middle block (for tests).
    pub fn middle_transformer(&self) -> &SpatialTransformer {
        &self.middle_block_1
    }
}

fn next_shift<'a>(shifts: &mut impl Iterator<Item = &'a Tensor<4>>) -> Tensor<4> {
    shifts.next().expect("one shift per residual block").clone()
}

/// Sinusoidal embedding, cosine half first (`timestep_embedding` of latent-diffusion); computed in f32 as there.
pub fn timestep_embedding(timesteps: &[usize], dim: usize) -> Vec<f32> {
    let half = dim / 2;
    let mut out = Vec::with_capacity(timesteps.len() * dim);
    for &t in timesteps {
        let args = (0..half).map(|j| {
            let freq = (-(10000f64.ln()) * j as f64 / half as f64).exp() as f32;
            t as f32 * freq
        });
        let args: Vec<f32> = args.collect();
        out.extend(args.iter().map(|a| a.cos()));
        out.extend(args.iter().map(|a| a.sin()));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// METHOD 22 E.
    #[test]
    fn timestep_embedding_oracle() {
        let table = timestep_embedding(&[500], 256);
        for (i, want) in [
            (0, -0.883849),
            (1, 0.945943),
            (2, 0.848515),
            (127, 0.998557),
            (128, -0.467772),
            (129, 0.324334),
            (130, -0.529172),
            (255, 0.053705),
        ] {
            // Angles up to 500 are rounded to f32, by up to 1.5e-5.
            assert!((table[i] - want).abs() < 3e-5, "{i}: {} {want}", table[i]);
        }
    }
}
