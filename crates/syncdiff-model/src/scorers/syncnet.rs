//! SyncNet: five video frames and 0.2 s of sound to embeddings that lie close when they belong together.
//!
//! # Source
//! joonson/syncnet_python (MIT): `SyncNetModel.py` (`S`), `SyncNetInstance.py` (`evaluate`). Weights: `syncnet_v2`.

use burn::module::{Initializer, Module, Param};
use burn::nn::{BatchNorm, Linear, LinearConfig};
use burn::tensor::activation::relu;
use burn::tensor::module::max_pool2d;
use burn::tensor::ops::MaxPoolOptions;
use burn::tensor::{DType, Device, Tensor, TensorData};

use crate::audio::filterbank::{NUM_CEPSTRA, SAMPLES_PER_ROW, mfcc};
use crate::cost::{Cost, Meter};
use crate::error::{ModelError, ModelResult};
use crate::nn::conv_norm::{ConvNorm, ConvShape, batch_norm, scale_and_shift};
use crate::scorers::sync_distance::{SyncDistances, SyncScore};
use crate::weights::Remap;

/// Video frames of a window.
pub const WINDOW_FRAMES: usize = 5;
/// Cepstra (10 ms each) of a window.
pub const WINDOW_CEPSTRA: usize = 20;
/// Cepstra from one window to the next: one video frame.
const CEPSTRA_STEP: usize = 4;
/// Height and width of the frames.
pub const FRAME_SIZE: usize = 224;
/// Length of an embedding.
pub const EMBEDDING_DIM: usize = 1024;
const FEATURE_DIM: usize = 512;
/// Windows that go through the network at a time; each needs about 40 MB.
const BATCH: usize = 8;

/// One stage of a stream: output channels, convolution, and the pooling after it (kernel, stride, padding).
struct Stage {
    channels: usize,
    shape: ConvShape,
    pool: Option<([usize; 2], [usize; 2], [usize; 2])>,
}

const fn stage(channels: usize, shape: ConvShape) -> Stage {
    Stage { channels, shape, pool: None }
}

const LIP: [Stage; 6] = [
    Stage { channels: 96, shape: ConvShape::square(7, 2, 0), pool: Some(([3, 3], [2, 2], [0, 0])) },
    Stage { channels: 256, shape: ConvShape::square(5, 2, 1), pool: Some(([3, 3], [2, 2], [1, 1])) },
    stage(256, ConvShape::square(3, 1, 1)),
    stage(256, ConvShape::square(3, 1, 1)),
    Stage { channels: 256, shape: ConvShape::square(3, 1, 1), pool: Some(([3, 3], [2, 2], [0, 0])) },
    stage(FEATURE_DIM, ConvShape::square(6, 1, 0)),
];

const SOUND: [Stage; 6] = [
    Stage { channels: 64, shape: ConvShape::square(3, 1, 1), pool: Some(([1, 1], [1, 1], [0, 0])) },
    Stage { channels: 192, shape: ConvShape::square(3, 1, 1), pool: Some(([3, 3], [1, 2], [0, 0])) },
    stage(384, ConvShape::square(3, 1, 1)),
    stage(256, ConvShape::square(3, 1, 1)),
    Stage { channels: 256, shape: ConvShape::square(3, 1, 1), pool: Some(([3, 3], [2, 2], [0, 0])) },
    stage(FEATURE_DIM, ConvShape { kernel: [5, 4], ..ConvShape::square(1, 1, 0) }),
];

/// Places of the convolutions in the original's `nn.Sequential`; the normalisation follows each.
const PLACES: [usize; 6] = [0, 4, 8, 11, 14, 18];

/// A convolution over time and space whose kernel spans all frames of its input.
///
/// So time joins the channels and the convolution is one over pictures: the original's 5x7x7 kernel meets a window
/// of exactly five frames, all later ones a single frame.
#[derive(Module, Debug)]
struct WindowConv {
    /// [out, in, frames, rows, columns], as the original's `Conv3d`
    weight: Param<Tensor<5>>,
    /// [out]
    bias: Param<Tensor<1>>,
    norm: BatchNorm,
    #[module(skip)]
    shape: ConvShape,
}

impl WindowConv {
    fn new(input: usize, frames: usize, stage: &Stage, device: &Device) -> Self {
        let [rows, columns] = stage.shape.kernel;
        let bound = 1.0 / ((input * frames * rows * columns) as f64).sqrt();
        let uniform = Initializer::Uniform { min: -bound, max: bound };
        Self {
            weight: uniform.init([stage.channels, input, frames, rows, columns], device),
            bias: uniform.init([stage.channels], device),
            norm: batch_norm(stage.channels, device),
            shape: stage.shape,
        }
    }

    /// [batch, in * frames, height, width] -> [batch, out, height', width']
    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let [out, input, frames, rows, columns] = self.weight.dims();
        let (scale, shift) = scale_and_shift(&self.norm);
        let weight = self.weight.val().reshape([out, input * frames, rows, columns]);
        let weight = weight * scale.clone().reshape([out, 1, 1, 1]);
        self.shape.apply(x, weight, self.bias.val() * scale + shift)
    }
}

/// Linear, batch norm, ReLU, linear.
#[derive(Module, Debug)]
struct Head {
    hidden: Linear,
    norm: BatchNorm,
    out: Linear,
}

impl Head {
    fn new(device: &Device) -> Self {
        Self {
            hidden: LinearConfig::new(FEATURE_DIM, FEATURE_DIM).init(device),
            norm: batch_norm(FEATURE_DIM, device),
            out: LinearConfig::new(FEATURE_DIM, EMBEDDING_DIM).init(device),
        }
    }

    fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        let (scale, shift) = scale_and_shift(&self.norm);
        self.out.forward(relu(self.hidden.forward(x) * scale.unsqueeze() + shift.unsqueeze()))
    }
}

/// Two streams of convolutions with a head each; 13,631,616 parameters. Normalisations use their running statistics.
#[derive(Module, Debug)]
pub struct SyncNet {
    lip: Vec<WindowConv>,
    sound: Vec<ConvNorm>,
    lip_head: Head,
    sound_head: Head,
}

impl SyncNet {
    /// The network with PyTorch's default initialisation.
    pub fn new(device: &Device) -> Self {
        let inputs = |first: usize, stages: &'static [Stage]| {
            std::iter::once(first).chain(stages.iter().map(|stage| stage.channels)).zip(stages)
        };
        let lip = |(i, (input, stage)): (usize, (usize, &Stage))| {
            WindowConv::new(input, if i == 0 { WINDOW_FRAMES } else { 1 }, stage, device)
        };
        let sound = |(input, stage): (usize, &Stage)| ConvNorm::new(input, stage.channels, stage.shape, device);
        Self {
            lip: inputs(3, &LIP).enumerate().map(lip).collect(),
            sound: inputs(1, &SOUND).map(sound).collect(),
            lip_head: Head::new(device),
            sound_head: Head::new(device),
        }
    }

    /// The lips of one window of five frames.
    pub fn lip_cost() -> Cost {
        stream_cost(&LIP, 3 * WINDOW_FRAMES, [FRAME_SIZE; 2])
    }

    /// The sound of one window.
    pub fn sound_cost() -> Cost {
        stream_cost(&SOUND, 1, [NUM_CEPSTRA, WINDOW_CEPSTRA])
    }

    /// Names in the source.
    pub fn remap() -> Remap {
        let names = |path: &str| {
            let parts: Vec<&str> = path.split('.').collect();
            let (stream, head) = match parts[0] {
                "lip" => ("netcnnlip", false),
                "sound" => ("netcnnaud", false),
                "lip_head" => ("netfclip", true),
                _ => ("netfcaud", true),
            };
            let last = parts.last()?;
            let place = match (head, parts[1]) {
                (true, "hidden") => 0,
                (true, "norm") => 1,
                (true, _) => 3,
                (false, index) => PLACES.get(index.parse::<usize>().ok()?)? + usize::from(parts[2] == "norm"),
            };
            Some(format!("{stream}.{place}.{last}"))
        };
        Remap::identity().with_names(names).ignoring(&["*.*.num_batches_tracked"])
    }

    /// Output of every stage of the lip stream, in order: after each ReLU, and after each pooling.
    ///
    /// # Shapes
    /// [batch, 3, 5, 224, 224], blue-green-red values 0 to 255 -> [batch, channels, height, width] each
    pub fn lip_stages(&self, windows: Tensor<5>) -> Vec<Tensor<4>> {
        let [batch, channels, frames, height, width] = windows.dims();
        let x = windows.reshape([batch, channels * frames, height, width]);
        stages(&LIP, x, |i, x| self.lip[i].forward(x))
    }

    /// Output of every stage of the sound stream, as [`Self::lip_stages`]; a pooling of 1x1 counts.
    ///
    /// # Shapes
    /// [batch, 1, 13, 20] -> [batch, channels, height, width] each
    pub fn sound_stages(&self, windows: Tensor<4>) -> Vec<Tensor<4>> {
        stages(&SOUND, windows, |i, x| self.sound[i].forward(x))
    }

    /// Features of the lips before their head (`forward_lipfeat`).
    ///
    /// # Shapes
    /// [batch, 3, 5, 224, 224], blue-green-red values 0 to 255 -> [batch, 512]
    pub fn lip_features(&self, windows: Tensor<5>) -> Tensor<2> {
        last(self.lip_stages(windows))
    }

    /// Embeddings of the lips.
    ///
    /// # Shapes
    /// [batch, 3, 5, 224, 224], blue-green-red values 0 to 255 -> [batch, 1024]
    pub fn forward_lip(&self, windows: Tensor<5>) -> Tensor<2> {
        self.lip_head.forward(self.lip_features(windows))
    }

    /// Embeddings of the sound.
    ///
    /// # Shapes
    /// [batch, 1, 13, 20], cepstra in rows -> [batch, 1024]
    pub fn forward_aud(&self, windows: Tensor<4>) -> Tensor<2> {
        self.sound_head.forward(last(self.sound_stages(windows)))
    }

    /// Scores a clip: how far lips and sound are apart (LSE-D), how surely (LSE-C), and by how many frames.
    ///
    /// The protocol of the paper's tables takes whole frames, resized to 224 x 224, after JPEG.
    ///
    /// # Shapes
    /// frames: [frames, 3, 224, 224], blue-green-red values 0 to 255 at 25 fps; samples: 16 kHz mono
    ///
    /// # Errors
    /// [`ModelError::Parameter`] for frames of another size and for a clip of fewer than six frames or 3,840 samples.
    pub fn score(&self, frames: Tensor<4>, samples: &[i16]) -> ModelResult<SyncScore> {
        let [count, channels, height, width] = frames.dims();
        if [channels, height, width] != [3, FRAME_SIZE, FRAME_SIZE] {
            let size = format!("[{channels}, {height}, {width}]");
            return Err(ModelError::parameter("syncnet", "frame", size, "frames are [3, 224, 224]: resize them"));
        }
        let windows = num_windows(count, samples.len());
        let cepstra = mfcc::<NUM_CEPSTRA>(samples);
        let device = frames.device();
        let (mut lip, mut sound) = (Vec::new(), Vec::new());
        for start in (0..windows).step_by(BATCH) {
            let batch = BATCH.min(windows - start);
            lip.extend(host(self.forward_lip(lip_windows(&frames, start, batch))));
            sound.extend(host(self.forward_aud(sound_windows(&cepstra, start, batch, &device))));
        }
        Ok(SyncDistances::between(&lip, &sound, EMBEDDING_DIM)?.score())
    }
}

/// Windows of a clip, as the original counts them: it leaves out the last one that would fit.
pub fn num_windows(num_frames: usize, num_samples: usize) -> usize {
    num_frames.min(num_samples / SAMPLES_PER_ROW).saturating_sub(WINDOW_FRAMES)
}

/// Windows `start .. start + count` of the frames.
///
/// # Shapes
/// [frames, 3, height, width] -> [count, 3, 5, height, width]
pub fn lip_windows(frames: &Tensor<4>, start: usize, count: usize) -> Tensor<5> {
    let window = |i: usize| frames.clone().narrow(0, i, WINDOW_FRAMES).swap_dims(0, 1);
    Tensor::stack((start..start + count).map(window).collect(), 0)
}

/// Windows `start .. start + count` of the sound: 20 cepstra, four further for each.
///
/// # Shapes
/// -> [count, 1, 13, 20]
///
/// # Panics
/// When the cepstra end before the last window.
pub fn sound_windows(cepstra: &[[f32; NUM_CEPSTRA]], start: usize, count: usize, device: &Device) -> Tensor<4> {
    let mut values = Vec::with_capacity(count * NUM_CEPSTRA * WINDOW_CEPSTRA);
    for i in start..start + count {
        let window = &cepstra[CEPSTRA_STEP * i..][..WINDOW_CEPSTRA];
        values.extend((0..NUM_CEPSTRA).flat_map(|k| window.iter().map(move |frame| frame[k])));
    }
    Tensor::from_data(TensorData::new(values, [count, 1, NUM_CEPSTRA, WINDOW_CEPSTRA]), (device, DType::F32))
}

/// A stream with its head.
fn stream_cost(stages: &[Stage], channels: usize, size: [usize; 2]) -> Cost {
    let (mut meter, mut input) = (Meter::new(size), channels);
    for stage in stages {
        meter.conv(input, stage.channels, &stage.shape);
        meter.norm(stage.channels);
        if let Some((kernel, stride, padding)) = stage.pool {
            meter.pool(kernel, stride, padding);
        }
        input = stage.channels;
    }
    let hidden = Cost::linear(FEATURE_DIM, FEATURE_DIM, 1) + Cost::norm(FEATURE_DIM);
    meter.cost + hidden + Cost::linear(FEATURE_DIM, EMBEDDING_DIM, 1)
}

/// Outputs after each ReLU and each pooling; `conv(i, x)` is the normalised convolution of stage `i`.
fn stages(stages: &[Stage], x: Tensor<4>, conv: impl Fn(usize, Tensor<4>) -> Tensor<4>) -> Vec<Tensor<4>> {
    let mut outputs: Vec<Tensor<4>> = Vec::new();
    let mut x = x;
    for (i, stage) in stages.iter().enumerate() {
        x = relu(conv(i, x));
        outputs.push(x.clone());
        if let Some((kernel, stride, padding)) = stage.pool {
            if kernel != [1, 1] {
                x = max_pool2d(x, MaxPoolOptions::new(kernel).with_stride(stride).with_padding(padding));
            }
            outputs.push(x.clone());
        }
    }
    outputs
}

/// [batch, channels, 1, 1] of the last stage -> [batch, channels]
fn last(mut stages: Vec<Tensor<4>>) -> Tensor<2> {
    stages.pop().expect("a stream has stages").flatten(1, 3)
}

fn host(x: Tensor<2>) -> Vec<f32> {
    x.into_data().convert::<f32>().try_into_vec().expect("converted to f32")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::conv_norm::count_learned;

    #[test]
    fn parameter_count() {
        assert_eq!(count_learned(&SyncNet::new(&Device::default())), 13_631_616);
        let (lip, sound) = (SyncNet::lip_cost(), SyncNet::sound_cost());
        assert_eq!((lip + sound).parameters, 13_631_616);
        assert!((lip.macs as f64 / 1e9 - 1.56).abs() < 0.005, "{lip:?}");
    }

    #[test]
    fn windows_of_a_clip() {
        assert_eq!(
            [(5, 99_999), (6, 3840), (6, 3839), (100, 6400), (0, 0)].map(|(f, s)| num_windows(f, s)),
            [0, 1, 0, 5, 0]
        );
        let device = Device::default();
        let cepstra: Vec<[f32; NUM_CEPSTRA]> = (0..40).map(|i| std::array::from_fn(|k| (100 * i + k) as f32)).collect();
        let sound = sound_windows(&cepstra, 1, 2, &device).into_data().try_to_vec::<f32>().unwrap();
        assert_eq!(sound[..2], [400.0, 500.0]);
        assert_eq!(sound[13 * 20 + 3 * 20 + 1], 903.0);
        let frames = Tensor::<1>::from_data(TensorData::new((0..8 * 3).map(|i| i as f32).collect(), [24]), &device);
        let lip = lip_windows(&frames.reshape([8, 3, 1, 1]), 2, 2);
        assert_eq!(lip.dims(), [2, 3, 5, 1, 1]);
        // Window 3, channel 1, frame 3 + 2.
        assert_eq!(lip.into_data().try_to_vec::<f32>().unwrap()[15 + 5 + 2], 16.0);
    }

    #[test]
    fn short_clips_and_other_sizes_are_refused() {
        let net = SyncNet::new(&Device::default());
        let frames = Tensor::<4>::zeros([5, 3, FRAME_SIZE, FRAME_SIZE], &Device::default());
        let error = net.score(frames.clone(), &[0; 16_000]).unwrap_err().to_string();
        assert!(error.contains("six video frames"), "{error}");
        let error = net.score(frames.narrow(2, 0, 96), &[0; 16_000]).unwrap_err().to_string();
        assert!(error.contains("[3, 96, 224]"), "{error}");
    }
}
