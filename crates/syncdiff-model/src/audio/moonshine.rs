//! The first layers of Moonshine, a speech recogniser that listens to the waveform.
//!
//! A small encoder trained on an hour of speech knows few voices. These layers have heard two hundred thousand hours;
//! they are frozen, and what they hear takes the place of the filter bank before our own encoder. The middle layers
//! still say when a sound is made, which the last ones, trained to spell words, need not.
//!
//! # Source
//! Jeffries et al. 2024, "Moonshine: Speech Recognition for Live Transcription and Voice Commands"; the encoder of
//! moonshine-tiny (MIT), as `MoonshineEncoder` of transformers computes it.

use burn::module::{Initializer, Module, Param};
use burn::nn::{LayerNorm, LayerNormConfig, Linear, LinearConfig};
use burn::tensor::activation::gelu;
use burn::tensor::module::{attention, conv1d};
use burn::tensor::ops::ConvOptions;
use burn::tensor::{DType, Device, Int, Tensor, TensorData};

use crate::audio::filterbank::SAMPLES_PER_ROW;
use crate::audio::window::in_parts;
use crate::error::{ModelError, ModelResult};
use crate::nn::linear;
use crate::weights::Remap;

/// Width of a feature.
pub const DIM: usize = 288;
/// Features of one row, at a quarter and at three quarters of its video frame.
pub const FEATURES_PER_FRAME: usize = 2;
/// Length of a row.
pub const ROW_WIDTH: usize = FEATURES_PER_FRAME * DIM;
/// Layers of the published encoder.
pub const MOST_LAYERS: usize = 6;

const HEADS: usize = 8;
const HEAD_DIM: usize = DIM / HEADS;
/// Channels of a head that tell the position; the others do not turn.
const ROTARY_DIM: usize = 32;
const ROTARY_BASE: f64 = 10_000.0;
pub(crate) const FEED_FORWARD: usize = 4 * DIM;
const NORM_EPS: f64 = 1e-5;
/// Kernel and stride of the three convolutions.
pub(crate) const CONVS: [(usize, usize); 3] = [(127, 64), (7, 3), (3, 2)];
/// Samples from one feature to the next: 24 ms.
pub(crate) const HOP: usize = 384;
/// Samples that a feature sees before attention.
const RECEPTIVE: usize = 895;
/// Silence put before the utterance, so that feature `i` has its middle at sample `i * HOP`.
const LEAD: usize = RECEPTIVE / 2;

/// Rows heard at once, 12 s: the positions that the recogniser is configured for.
const PART_ROWS: usize = 300;
/// Rows by which neighbouring parts overlap on each side; their outer parts are dropped.
const OVERLAP_ROWS: usize = 50;

/// Pre-norm attention and feed-forward; no bias but in the latter.
#[derive(Module, Debug)]
struct Layer {
    attention_norm: LayerNorm,
    q: Linear,
    k: Linear,
    v: Linear,
    out: Linear,
    feed_forward_norm: LayerNorm,
    fc1: Linear,
    fc2: Linear,
}

impl Layer {
    fn new(device: &Device) -> Self {
        let square = || LinearConfig::new(DIM, DIM).with_bias(false).init(device);
        Self {
            attention_norm: norm(device),
            q: square(),
            k: square(),
            v: square(),
            out: square(),
            feed_forward_norm: norm(device),
            fc1: LinearConfig::new(DIM, FEED_FORWARD).init(device),
            fc2: LinearConfig::new(FEED_FORWARD, DIM).init(device),
        }
    }

    /// # Shapes
    /// [batch, time, dim] -> same
    fn forward(&self, x: Tensor<3>, turn: &Turn) -> Tensor<3> {
        let [batch, time, _] = x.dims();
        let normed = self.attention_norm.forward(x.clone());
        let split = |y: Tensor<3>| y.reshape([batch, time, HEADS, HEAD_DIM]).swap_dims(1, 2);
        let q = turn.apply(split(linear(&self.q, normed.clone())));
        let k = turn.apply(split(linear(&self.k, normed.clone())));
        let attended = attention(q, k, split(linear(&self.v, normed)), None, None, Default::default());
        let x = x + linear(&self.out, attended.swap_dims(1, 2).reshape([batch, time, DIM]));
        let inner = gelu(linear(&self.fc1, self.feed_forward_norm.forward(x.clone())));
        x + linear(&self.fc2, inner)
    }
}

/// Rotary positions: neighbouring channels turn together, by an angle that grows with time.
struct Turn {
    /// [1, 1, time, pairs, 1]
    cos: Tensor<5>,
    sin: Tensor<5>,
}

impl Turn {
    fn new(time: usize, device: &Device) -> Self {
        const PAIRS: usize = ROTARY_DIM / 2;
        let angle = |i: usize| {
            let (at, pair) = (i / PAIRS, i % PAIRS);
            at as f64 * ROTARY_BASE.powf(-(pair as f64) / PAIRS as f64)
        };
        let table = |of: fn(f64) -> f64| {
            let values: Vec<f32> = (0..time * PAIRS).map(|i| of(angle(i)) as f32).collect();
            Tensor::from_data(TensorData::new(values, [1, 1, time, PAIRS, 1]), (device, DType::F32))
        };
        Self { cos: table(f64::cos), sin: table(f64::sin) }
    }

    /// # Shapes
    /// [batch, heads, time, head_dim] -> same
    fn apply(&self, x: Tensor<4>) -> Tensor<4> {
        let [batch, heads, time, dim] = x.dims();
        let pairs: Tensor<5> = x.clone().narrow(3, 0, ROTARY_DIM).reshape([batch, heads, time, ROTARY_DIM / 2, 2]);
        let (a, b) = (pairs.clone().narrow(4, 0, 1), pairs.narrow(4, 1, 1));
        let turned = Tensor::cat(
            vec![
                a.clone() * self.cos.clone() - b.clone() * self.sin.clone(),
                b * self.cos.clone() + a * self.sin.clone(),
            ],
            4,
        );
        let still = x.narrow(3, ROTARY_DIM, dim - ROTARY_DIM);
        Tensor::cat(vec![turned.reshape([batch, heads, time, ROTARY_DIM]), still], 3)
    }
}

/// Convolution over time without padding.
#[derive(Module, Debug)]
struct Conv {
    /// [out, in, kernel]
    weight: Param<Tensor<3>>,
    bias: Option<Param<Tensor<1>>>,
    #[module(skip)]
    stride: usize,
}

impl Conv {
    fn new(input: usize, output: usize, (kernel, stride): (usize, usize), bias: bool, device: &Device) -> Self {
        let std = (1.0 / (input * kernel) as f64).sqrt();
        Self {
            weight: Initializer::Normal { mean: 0.0, std }.init([output, input, kernel], device),
            bias: bias.then(|| Initializer::Zeros.init([output], device)),
            stride,
        }
    }

    /// # Shapes
    /// [1, in, time] -> [1, out, time']
    fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let options = ConvOptions::new([self.stride], [0], [1], 1);
        conv1d(x, self.weight.val(), self.bias.as_ref().map(Param::val), options)
    }
}

fn norm(device: &Device) -> LayerNorm {
    LayerNormConfig::new(DIM).with_epsilon(NORM_EPS).with_bias(false).init(device)
}

/// Norm over all channels and moments of an utterance.
#[derive(Module, Debug)]
struct StemNorm {
    /// [dim]
    weight: Param<Tensor<1>>,
    /// [dim]
    bias: Param<Tensor<1>>,
}

impl StemNorm {
    fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let mean = x.clone().mean();
        let centred = x - mean.reshape([1, 1, 1]);
        let variance = (centred.clone() * centred.clone()).mean().reshape([1, 1, 1]);
        let on_channels = |param: &Param<Tensor<1>>| param.val().reshape([1, DIM, 1]);
        centred / (variance + NORM_EPS).sqrt() * on_channels(&self.weight) + on_channels(&self.bias)
    }
}

/// The frozen layers; see the module's documentation.
#[derive(Module, Debug)]
pub struct Moonshine {
    conv1: Conv,
    stem_norm: StemNorm,
    conv2: Conv,
    conv3: Conv,
    layers: Vec<Layer>,
    /// As what comes next in the whole recogniser would see the features: it tames the few channels that are large.
    norm: LayerNorm,
}

impl Moonshine {
    /// The first `num_layers` layers, with random weights from the device's generator.
    ///
    /// # Errors
    /// [`ModelError::Parameter`] for a number outside 1 to [`MOST_LAYERS`].
    pub fn new(num_layers: usize, device: &Device) -> ModelResult<Self> {
        check_layers(num_layers)?;
        let layers = (0..num_layers).map(|_| Layer::new(device)).collect();
        Ok(Self {
            conv1: Conv::new(1, DIM, CONVS[0], false, device),
            stem_norm: StemNorm {
                weight: Initializer::Ones.init([DIM], device),
                bias: Initializer::Zeros.init([DIM], device),
            },
            conv2: Conv::new(DIM, 2 * DIM, CONVS[1], true, device),
            conv3: Conv::new(2 * DIM, DIM, CONVS[2], true, device),
            layers,
            norm: norm(device),
        })
    }

    /// Names of the published state dict below `model.encoder.`; layers beyond ours may be present.
    pub fn remap(num_layers: usize) -> Remap {
        let last = match num_layers {
            MOST_LAYERS => "layer_norm".to_owned(),
            _ => format!("layers.{num_layers}.input_layernorm"),
        };
        Remap::table(&[
            ("stem_norm", "groupnorm"),
            ("layers.*.attention_norm", "layers.*.input_layernorm"),
            ("layers.*.q", "layers.*.self_attn.q_proj"),
            ("layers.*.k", "layers.*.self_attn.k_proj"),
            ("layers.*.v", "layers.*.self_attn.v_proj"),
            ("layers.*.out", "layers.*.self_attn.o_proj"),
            ("layers.*.feed_forward_norm", "layers.*.post_attention_layernorm"),
            ("layers.*.fc1", "layers.*.mlp.fc1"),
            ("layers.*.fc2", "layers.*.mlp.fc2"),
            ("norm", &last),
        ])
        .ignoring(&["layers", "layer_norm", "rotary_emb"])
    }

    /// Features of an utterance.
    ///
    /// # Shapes
    /// samples [1, n], full scale 1 -> [1, (n / 64 - 1) / 6 or so, 288], one every 384 samples
    ///
    /// # Panics
    /// For fewer than 895 samples.
    pub fn forward(&self, samples: Tensor<2>) -> Tensor<3> {
        let x = self.conv1.forward(samples.unsqueeze_dim(1)).tanh();
        let x = gelu(self.conv2.forward(self.stem_norm.forward(x)));
        let x = gelu(self.conv3.forward(x)).swap_dims(1, 2);
        let turn = Turn::new(x.dims()[1], &x.device());
        let x = self.layers.iter().fold(x, |x, layer| layer.forward(x, &turn));
        self.norm.forward(x)
    }

    /// Two features for each video frame, between the nearest ones. A long utterance is heard in overlapping parts.
    ///
    /// # Shapes
    /// 16 kHz mono samples -> [num_frames, 576]; what lacks at the end is silence
    pub fn rows(&self, samples: &[i16], num_frames: usize, device: &Device) -> Tensor<2> {
        in_parts(num_frames, PART_ROWS, OVERLAP_ROWS, |left, right| {
            let at = |row: usize| (row * SAMPLES_PER_ROW).min(samples.len());
            self.part(&samples[at(left)..at(right)], right - left, device)
        })
    }

    fn part(&self, samples: &[i16], num_frames: usize, device: &Device) -> Tensor<2> {
        let mut heard = vec![0f32; LEAD + num_frames * SAMPLES_PER_ROW + RECEPTIVE];
        for (slot, sample) in heard[LEAD..].iter_mut().zip(samples) {
            *slot = f32::from(*sample) / 32_768.0;
        }
        let len = heard.len();
        let features = self.forward(Tensor::from_data(TensorData::new(heard, [1, len]), (device, DType::F32)));
        let features: Tensor<2> = features.squeeze_dim(0);
        let last = features.dims()[0] - 1;
        let count = num_frames * FEATURES_PER_FRAME;
        let step = SAMPLES_PER_ROW as f64 / FEATURES_PER_FRAME as f64;
        let at: Vec<f64> = (0..count).map(|i| ((i as f64 + 0.5) * step / HOP as f64).min(last as f64)).collect();
        let pick = |index: &dyn Fn(f64) -> usize| {
            let indices: Vec<i64> = at.iter().map(|at| index(*at).min(last) as i64).collect();
            features.clone().select(0, Tensor::<1, Int>::from_data(TensorData::new(indices, [count]), device))
        };
        let shares: Vec<f32> = at.iter().map(|at| at.fract() as f32).collect();
        let shares = Tensor::<2>::from_data(TensorData::new(shares, [count, 1]), (device, DType::F32));
        let (before, after) = (pick(&|at| at as usize), pick(&|at| at as usize + 1));
        (before.clone() + (after - before) * shares).reshape([num_frames, ROW_WIDTH])
    }
}

/// # Errors
/// [`ModelError::Parameter`] for a number outside 1 to [`MOST_LAYERS`].
pub(crate) fn check_layers(num_layers: usize) -> ModelResult<()> {
    match num_layers {
        1..=MOST_LAYERS => Ok(()),
        _ => Err(ModelError::parameter("moonshine", "num_layers", num_layers, format!("1 to {MOST_LAYERS}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::weights::module_shapes;

    #[test]
    fn names_and_sizes_are_the_published_ones() {
        let device = Device::default();
        let shapes = module_shapes(&Moonshine::new(6, &device).unwrap(), &Moonshine::remap(6));
        assert_eq!(shapes.values().map(|shape| shape.iter().product::<usize>()).sum::<usize>(), 7_681_248);
        for (name, shape) in [
            ("conv1.weight", vec![288, 1, 127]),
            ("conv3.bias", vec![288]),
            ("groupnorm.weight", vec![288]),
            ("layers.5.self_attn.o_proj.weight", vec![288, 288]),
            ("layers.0.mlp.fc1.weight", vec![1152, 288]),
            ("layers.2.post_attention_layernorm.weight", vec![288]),
            ("layer_norm.weight", vec![288]),
        ] {
            assert_eq!(shapes[name], shape, "{name}");
        }
        let shapes = module_shapes(&Moonshine::new(3, &device).unwrap(), &Moonshine::remap(3));
        assert!(shapes.contains_key("layers.3.input_layernorm.weight") && !shapes.contains_key("layer_norm.weight"));
        assert!(Moonshine::new(0, &device).is_err() && Moonshine::new(7, &device).is_err());
    }

    #[test]
    fn rows_stand_where_their_sound_is() {
        let device = Device::default();
        device.seed(4);
        let net = Moonshine::new(1, &device).unwrap();
        // A click in the middle of frame 20 of 40 changes rows near it most.
        let quiet: Vec<i16> = (0..40 * 640).map(|i| ((i as f32 * 0.3).sin() * 300.0) as i16).collect();
        let mut click = quiet.clone();
        click[20 * 640 + 320..20 * 640 + 340].fill(20_000);
        let rows = |samples: &[i16]| net.rows(samples, 40, &device);
        let difference: Tensor<1> = (rows(&click) - rows(&quiet)).abs().sum_dim(1).squeeze_dim(1);
        let difference = difference.into_data().try_into_vec::<f32>().unwrap();
        let largest = (0..40).max_by(|a, b| difference[*a].total_cmp(&difference[*b])).unwrap();
        assert_eq!(largest, 20, "{difference:?}");
        // Speech that is too short ends in silence.
        assert_eq!(rows(&quiet[..5000]).dims(), [40, ROW_WIDTH]);
        assert_eq!(net.rows(&[], 1, &device).dims(), [1, ROW_WIDTH]);
    }

    #[test]
    fn a_long_utterance_is_heard_in_parts() {
        let device = Device::default();
        device.seed(5);
        let net = Moonshine::new(1, &device).unwrap();
        let samples: Vec<i16> = (0..520 * 640).map(|i| ((i as f32 * i as f32 * 1e-5).sin() * 8000.0) as i16).collect();
        let rows = net.rows(&samples, 520, &device);
        assert_eq!(rows.dims(), [520, ROW_WIDTH]);
        // Rows 200 to 400 are those of the part from 150 to 450, heard alone.
        let alone = net.rows(&samples[150 * 640..450 * 640], 300, &device).narrow(0, 50, 200);
        assert_eq!(rows.narrow(0, 200, 200).into_data(), alone.into_data());
    }
}
