//! The video front end: a stem that sees five frames at once, ResNet-18 on each frame, and a projection.
//!
//! # Source
//! facebookresearch/av_hubert `avhubert/resnet.py` (`ResEncoder` with PReLU) and `SubModel`.

use burn::module::{Initializer, Module, Param};
use burn::nn::{BatchNorm, BatchNormConfig, Linear};
use burn::tensor::activation::prelu;
use burn::tensor::module::{conv2d, max_pool2d};
use burn::tensor::ops::{ConvOptions, MaxPoolOptions};
use burn::tensor::{Device, Tensor};

use crate::audio::encoder_layer::bert_linear;

/// Channels after each level of the trunk.
pub(crate) const CHANNELS: [usize; 4] = [64, 128, 256, 512];
/// Frames that the stem sees at once.
pub(crate) const STEM_FRAMES: usize = 5;
/// Values per frame that the trunk gives.
pub const RESNET_WIDTH: usize = CHANNELS[3];

/// ReLU with a learned slope below zero for each channel.
#[derive(Module, Debug)]
struct PRelu {
    /// [channels]
    weight: Param<Tensor<1>>,
}

impl PRelu {
    fn new(channels: usize, device: &Device) -> Self {
        Self { weight: Initializer::Constant { value: 0.25 }.init([channels], device) }
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        prelu(x, self.weight.val())
    }
}

/// Square convolution without bias, padded to keep the size at stride 1.
#[derive(Module, Debug)]
struct PlainConv {
    /// [out, in, kernel, kernel]
    weight: Param<Tensor<4>>,
    #[module(skip)]
    stride: usize,
}

impl PlainConv {
    fn new(input: usize, output: usize, kernel: usize, stride: usize, device: &Device) -> Self {
        let std = (2.0 / (kernel * kernel * output) as f64).sqrt();
        let weight = Initializer::Normal { mean: 0.0, std }.init([output, input, kernel, kernel], device);
        Self { weight, stride }
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let weight = self.weight.val();
        let padding = weight.dims()[3] / 2;
        conv2d(x, weight, None, ConvOptions::new([self.stride; 2], [padding; 2], [1, 1], 1))
    }
}

/// 1x1 convolution and norm beside a block that changes the shape.
#[derive(Module, Debug)]
struct Shortcut {
    conv: PlainConv,
    norm: BatchNorm,
}

/// conv, norm, PReLU, conv, norm; plus the input; PReLU.
#[derive(Module, Debug)]
struct BasicBlock {
    conv1: PlainConv,
    bn1: BatchNorm,
    relu1: PRelu,
    conv2: PlainConv,
    bn2: BatchNorm,
    relu2: PRelu,
    downsample: Option<Shortcut>,
}

impl BasicBlock {
    fn new(input: usize, output: usize, stride: usize, device: &Device) -> Self {
        let norm = || BatchNormConfig::new(output).init(device);
        Self {
            conv1: PlainConv::new(input, output, 3, stride, device),
            bn1: norm(),
            relu1: PRelu::new(output, device),
            conv2: PlainConv::new(output, output, 3, 1, device),
            bn2: norm(),
            relu2: PRelu::new(output, device),
            downsample: (stride != 1 || input != output)
                .then(|| Shortcut { conv: PlainConv::new(input, output, 1, stride, device), norm: norm() }),
        }
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let h = self.relu1.forward(self.bn1.forward(self.conv1.forward(x.clone())));
        let h = self.bn2.forward(self.conv2.forward(h));
        let x = match &self.downsample {
            Some(shortcut) => shortcut.norm.forward(shortcut.conv.forward(x)),
            None => x,
        };
        self.relu2.forward(h + x)
    }
}

/// Stem and trunk.
#[derive(Module, Debug)]
pub struct ResNet {
    /// [64, 1, 5, 7, 7]: frames, rows, columns
    stem: Param<Tensor<5>>,
    stem_norm: BatchNorm,
    stem_relu: PRelu,
    levels: Vec<Vec<BasicBlock>>,
}

impl ResNet {
    /// New, with the original's initialisation.
    pub fn new(device: &Device) -> Self {
        let std = (2.0 / (STEM_FRAMES * 49 * CHANNELS[0]) as f64).sqrt();
        let mut input = CHANNELS[0];
        let mut level = |(i, output): (usize, usize)| {
            let stride = if i == 0 { 1 } else { 2 };
            let blocks =
                vec![BasicBlock::new(input, output, stride, device), BasicBlock::new(output, output, 1, device)];
            input = output;
            blocks
        };
        Self {
            stem: Initializer::Normal { mean: 0.0, std }.init([CHANNELS[0], 1, STEM_FRAMES, 7, 7], device),
            stem_norm: BatchNormConfig::new(CHANNELS[0]).init(device),
            stem_relu: PRelu::new(CHANNELS[0], device),
            levels: CHANNELS.into_iter().enumerate().map(&mut level).collect(),
        }
    }

    /// Name in the original, relative to its `resnet.`, of the parameter at a path of this module.
    fn disk_name(path: &str) -> Option<String> {
        Some(match path.split('.').collect::<Vec<_>>()[..] {
            ["stem"] => "frontend3D.0.weight".to_owned(),
            ["stem_norm", rest] => format!("frontend3D.1.{rest}"),
            ["stem_relu", rest] => format!("frontend3D.2.{rest}"),
            ["levels", level, block, ref rest @ ..] => {
                let rest = rest
                    .join(".")
                    .replace("downsample.conv", "downsample.0")
                    .replace("downsample.norm", "downsample.1");
                format!("trunk.layer{}.{block}.{rest}", level.parse::<usize>().ok()? + 1)
            }
            _ => return None,
        })
    }

    /// Values of every frame; each sees itself and two frames on both sides, zeros beyond the ends.
    ///
    /// # Shapes
    /// [batch, frames, 88, 88] -> [batch, frames, 512]
    pub fn forward(&self, mouths: Tensor<4>) -> Tensor<3> {
        self.forward_traced(mouths, &mut |_, _| {})
    }

    /// [`Self::forward`] that shows the output of stem and levels, [batch * frames, channels, height, width], under
    /// their upstream names.
    pub fn forward_traced(&self, mouths: Tensor<4>, observe: &mut dyn FnMut(&str, &Tensor<4>)) -> Tensor<3> {
        let [batch, frames, height, width] = mouths.dims();
        // A convolution over five frames of one channel is one over a picture with five channels.
        let margin = Tensor::zeros([batch, STEM_FRAMES / 2, height, width], &mouths.device());
        let padded = Tensor::cat(vec![margin.clone(), mouths, margin], 1);
        let shifted = (0..STEM_FRAMES).map(|k| padded.clone().narrow(1, k, frames).unsqueeze_dim::<5>(2)).collect();
        let x = Tensor::cat(shifted, 2).reshape([batch * frames, STEM_FRAMES, height, width]);
        let weight = self.stem.val().reshape([CHANNELS[0], STEM_FRAMES, 7, 7]);
        let x = conv2d(x, weight, None, ConvOptions::new([2, 2], [3, 3], [1, 1], 1));
        let x = self.stem_relu.forward(self.stem_norm.forward(x));
        let mut x = max_pool2d(x, MaxPoolOptions::new([3, 3]).with_stride([2, 2]).with_padding([1, 1]));
        observe("frontend3D", &x);
        for (i, level) in self.levels.iter().enumerate() {
            for block in level {
                x = block.forward(x);
            }
            observe(&format!("trunk.layer{}", i + 1), &x);
        }
        let [_, channels, height, width] = x.dims();
        x.reshape([batch, frames, channels, height * width]).mean_dim(3).squeeze_dim(3)
    }
}

/// ResNet and projection to the encoder's width: 11,580,672 parameters at 768.
#[derive(Module, Debug)]
pub struct VideoFrontEnd {
    resnet: ResNet,
    proj: Linear,
}

impl VideoFrontEnd {
    /// `dim` is the encoder's width.
    pub fn new(dim: usize, device: &Device) -> Self {
        Self { resnet: ResNet::new(device), proj: bert_linear(RESNET_WIDTH, dim, device) }
    }

    /// Name in the original, relative to its `feature_extractor_video.`, of the parameter at a path of this module.
    pub(crate) fn disk_name(path: &str) -> Option<String> {
        match path.strip_prefix("resnet.") {
            Some(rest) => ResNet::disk_name(rest).map(|name| format!("resnet.{name}")),
            None => Some(path.to_owned()),
        }
    }

    /// # Shapes
    /// [batch, frames, 88, 88] -> [batch, frames, dim]
    pub fn forward(&self, mouths: Tensor<4>) -> Tensor<3> {
        self.proj.forward(self.resnet.forward(mouths))
    }

    /// The part before the projection.
    pub fn resnet(&self) -> &ResNet {
        &self.resnet
    }
}
