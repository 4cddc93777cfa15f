//! Residual block with time embedding, down- and up-sampling, and the stage that joins them.

use super::config::UNetConfig;
use super::next_shift;
use super::transformer::{CrossContext, SpatialTransformer, repeated};
use crate::nn::{Conv1x1, Conv3, GroupNorm, linear};
use burn::module::Module;
use burn::nn::{Linear, LinearConfig};
use burn::tensor::{Device, Tensor};

/// Epsilon of the residual blocks' group norm (the spatial transformers use another).
pub(super) const RES_EPS: f64 = 1e-5;

/// `skip(x) + conv(silu(norm(conv(silu(norm(x))) + linear(silu(emb)))))`.
#[derive(Module, Debug)]
pub struct ResBlock {
    in_layers_0: GroupNorm,
    in_layers_2: Conv3,
    emb_layers_1: Linear,
    out_layers_0: GroupNorm,
    out_layers_3: Conv3,
    skip_connection: Option<Conv1x1>,
}

impl ResBlock {
    pub(super) fn new(config: &UNetConfig, input: usize, output: usize, emb: usize, device: &Device) -> Self {
        Self {
            in_layers_0: GroupNorm::new(config.norm_groups, input, RES_EPS, device),
            in_layers_2: Conv3::new(input, output, device),
            emb_layers_1: LinearConfig::new(emb, output).init(device),
            out_layers_0: GroupNorm::new(config.norm_groups, output, RES_EPS, device),
            out_layers_3: Conv3::zeros(output, output, device),
            skip_connection: (input != output).then(|| Conv1x1::new(input, output, device)),
        }
    }

    /// # Shapes
    /// x: [batch, in, height, width], emb (after SiLU): [batch, 4 * model_channels] -> [batch, out, height, width]
    pub fn forward(&self, x: Tensor<4>, emb: Tensor<2>) -> Tensor<4> {
        self.forward_shifted(x, self.shift(emb))
    }

    /// What the time adds to every pixel.
    ///
    /// # Shapes
    /// emb (after SiLU): [batch, 4 * model_channels] -> [batch, out, 1, 1]
    pub(super) fn shift(&self, emb: Tensor<2>) -> Tensor<4> {
        let shift = linear(&self.emb_layers_1, emb);
        let [batch, channels] = shift.dims();
        shift.reshape([batch, channels, 1, 1])
    }

    /// `shift` is that of [`ResBlock::shift`]: one for all images, or a batch that is repeated to that of x.
    pub(super) fn forward_shifted(&self, x: Tensor<4>, shift: Tensor<4>) -> Tensor<4> {
        let shift = if shift.dims()[0] == 1 { shift } else { repeated(shift, x.dims()[0]) };
        let h = self.in_layers_2.forward(self.in_layers_0.forward_silu(x.clone()));
        let h = h + shift;
        let h = self.out_layers_3.forward(self.out_layers_0.forward_silu(h));
        match &self.skip_connection {
            Some(skip) => skip.forward(x) + h,
            None => x + h,
        }
    }
}

/// 3x3 convolution with stride 2 and symmetric padding.
#[derive(Module, Debug)]
pub struct Downsample {
    op: Conv3,
}

/// Nearest-neighbour x2, then a 3x3 convolution.
#[derive(Module, Debug)]
pub struct Upsample {
    conv: Conv3,
}

/// One entry of upstream's `input_blocks` or `output_blocks`: the parts it has run in the order of the fields.
#[derive(Module, Debug)]
pub(super) struct Stage {
    conv_in: Option<Conv3>,
    down: Option<Downsample>,
    res: Option<ResBlock>,
    transformer: Option<SpatialTransformer>,
    up: Option<Upsample>,
}

impl Stage {
    const fn empty() -> Self {
        Self { conv_in: None, down: None, res: None, transformer: None, up: None }
    }

    pub(super) fn conv(input: usize, output: usize, device: &Device) -> Self {
        Self { conv_in: Some(Conv3::new(input, output, device)), ..Self::empty() }
    }

    pub(super) fn down(channels: usize, device: &Device) -> Self {
        Self { down: Some(Downsample { op: Conv3::down(channels, true, device) }), ..Self::empty() }
    }

    pub(super) fn res(
        config: &UNetConfig,
        input: usize,
        output: usize,
        emb: usize,
        attention: bool,
        up: bool,
        device: &Device,
    ) -> Self {
        Self {
            res: Some(ResBlock::new(config, input, output, emb, device)),
            transformer: attention.then(|| SpatialTransformer::new(config, output, device)),
            up: up.then(|| Upsample { conv: Conv3::new(output, output, device) }),
            ..Self::empty()
        }
    }

    pub(super) fn res_block(&self) -> Option<&ResBlock> {
        self.res.as_ref()
    }

    pub(super) fn transformer(&self) -> Option<&SpatialTransformer> {
        self.transformer.as_ref()
    }

    /// `shifts` and `contexts` are those of the network's residual blocks and transformers from this stage on; a stage
    /// that has one takes the first.
    pub(super) fn forward<'a>(
        &self,
        mut x: Tensor<4>,
        shifts: &mut impl Iterator<Item = &'a Tensor<4>>,
        contexts: &mut impl Iterator<Item = &'a CrossContext>,
    ) -> Tensor<4> {
        if let Some(conv) = &self.conv_in {
            x = conv.forward(x);
        }
        if let Some(down) = &self.down {
            x = down.op.forward(x);
        }
        if let Some(res) = &self.res {
            x = res.forward_shifted(x, next_shift(shifts));
        }
        if let Some(transformer) = &self.transformer {
            x = transformer.forward_prepared(x, contexts.next().expect("one context per transformer"));
        }
        if let Some(up) = &self.up {
            x = up.conv.forward_upsampled(x);
        }
        x
    }
}
