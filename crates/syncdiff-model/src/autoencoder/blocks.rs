//! Residual and attention blocks of the autoencoder, and its levels.

use super::config::AutoencoderConfig;
use crate::nn::{Conv1x1, Conv3, GroupNorm, attend};
use burn::module::Module;
use burn::tensor::{Device, Tensor};

/// Epsilon of every group norm of the autoencoder.
pub(super) const EPS: f64 = 1e-6;

/// `skip(x) + conv(silu(norm(conv(silu(norm(x))))))`.
#[derive(Module, Debug)]
pub struct ResnetBlock {
    norm1: GroupNorm,
    conv1: Conv3,
    norm2: GroupNorm,
    conv2: Conv3,
    nin_shortcut: Option<Conv1x1>,
}

impl ResnetBlock {
    fn new(config: &AutoencoderConfig, input: usize, output: usize, device: &Device) -> Self {
        Self {
            norm1: GroupNorm::new(config.norm_groups, input, EPS, device),
            conv1: Conv3::new(input, output, device),
            norm2: GroupNorm::new(config.norm_groups, output, EPS, device),
            conv2: Conv3::new(output, output, device),
            nin_shortcut: (input != output).then(|| Conv1x1::new(input, output, device)),
        }
    }

    /// # Shapes
    /// [batch, in, height, width] -> [batch, out, height, width]
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let h = self.conv1.forward(self.norm1.forward_silu(x.clone()));
        let h = self.conv2.forward(self.norm2.forward_silu(h));
        match &self.nin_shortcut {
            Some(shortcut) => shortcut.forward(x) + h,
            None => x + h,
        }
    }
}

/// Single-head self-attention over all pixels.
#[derive(Module, Debug)]
pub struct AttnBlock {
    norm: GroupNorm,
    q: Conv1x1,
    k: Conv1x1,
    v: Conv1x1,
    proj_out: Conv1x1,
}

impl AttnBlock {
    fn new(config: &AutoencoderConfig, channels: usize, device: &Device) -> Self {
        let conv = || Conv1x1::new(channels, channels, device);
        Self {
            norm: GroupNorm::new(config.norm_groups, channels, EPS, device),
            q: conv(),
            k: conv(),
            v: conv(),
            proj_out: conv(),
        }
    }

    /// # Shapes
    /// [batch, channels, height, width] -> same
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let [batch, channels, height, width] = x.dims();
        let normed = self.norm.forward(x.clone());
        let tokens =
            |conv: &Conv1x1| conv.forward(normed.clone()).reshape([batch, channels, height * width]).swap_dims(1, 2);
        let h = attend(tokens(&self.q), tokens(&self.k), tokens(&self.v), 1);
        let h = h.swap_dims(1, 2).reshape([batch, channels, height, width]);
        x + self.proj_out.forward(h)
    }
}

/// Residual block, attention, residual block at the smallest size.
#[derive(Module, Debug)]
pub(super) struct Mid {
    block_1: ResnetBlock,
    attn_1: AttnBlock,
    block_2: ResnetBlock,
}

impl Mid {
    pub(super) fn new(config: &AutoencoderConfig, channels: usize, device: &Device) -> Self {
        Self {
            block_1: ResnetBlock::new(config, channels, channels, device),
            attn_1: AttnBlock::new(config, channels, device),
            block_2: ResnetBlock::new(config, channels, channels, device),
        }
    }

    pub(super) fn parts(&self) -> (&ResnetBlock, &AttnBlock) {
        (&self.block_1, &self.attn_1)
    }

    pub(super) fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        self.block_2.forward(self.attn_1.forward(self.block_1.forward(x)))
    }
}

/// A convolution that changes the size.
#[derive(Module, Debug)]
struct Resample {
    conv: Conv3,
}

/// One resolution level: residual blocks, then a change of size.
#[derive(Module, Debug)]
pub(super) struct Level {
    block: Vec<ResnetBlock>,
    downsample: Option<Resample>,
    upsample: Option<Resample>,
}

impl Level {
    fn blocks(
        config: &AutoencoderConfig,
        input: usize,
        output: usize,
        count: usize,
        device: &Device,
    ) -> Vec<ResnetBlock> {
        (0..count).map(|i| ResnetBlock::new(config, if i == 0 { input } else { output }, output, device)).collect()
    }

    pub(super) fn down(
        config: &AutoencoderConfig,
        input: usize,
        output: usize,
        count: usize,
        resample: bool,
        device: &Device,
    ) -> Self {
        Self {
            block: Self::blocks(config, input, output, count, device),
            downsample: resample.then(|| Resample { conv: Conv3::down(output, false, device) }),
            upsample: None,
        }
    }

    pub(super) fn up(
        config: &AutoencoderConfig,
        input: usize,
        output: usize,
        count: usize,
        resample: bool,
        device: &Device,
    ) -> Self {
        Self {
            block: Self::blocks(config, input, output, count, device),
            downsample: None,
            upsample: resample.then(|| Resample { conv: Conv3::new(output, output, device) }),
        }
    }

    fn run_blocks(&self, x: Tensor<4>) -> Tensor<4> {
        self.block.iter().fold(x, |h, block| block.forward(h))
    }

    pub(super) fn forward_down(&self, x: Tensor<4>) -> Tensor<4> {
        let h = self.run_blocks(x);
        match &self.downsample {
            Some(down) => down.conv.forward(h),
            None => h,
        }
    }

    pub(super) fn forward_up(&self, x: Tensor<4>) -> Tensor<4> {
        let h = self.run_blocks(x);
        match &self.upsample {
            Some(up) => up.conv.forward_upsampled(h),
            None => h,
        }
    }
}
