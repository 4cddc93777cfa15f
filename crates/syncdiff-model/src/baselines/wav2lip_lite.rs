//! Wav2Lip at a width that two CPU cores can train: the topology of [`super::wav2lip`] (a face encoder whose features join
//! the decoder at every size, a sound encoder whose code begins it, a sigmoid at the end) with a fraction of its
//! channels.
//!
//! Group norm and SiLU stand in place of batch norm and ReLU, and doubling before a 3x3 convolution in place of
//! transposed convolutions: a batch of a few faces has no statistics to speak of, and these layers have fast kernels.
//! What is hidden of the target is the mouth region of the aligned crop, as for the diffusion model, not the lower half
//! of a detector's box.
//!
//! # Source
//! Prajwal et al., "A lip sync expert is all you need" (2020); Rudrabha/Wav2Lip `models/wav2lip.py`.

use std::path::Path;

use burn::module::Module;
use burn::nn::{Linear, LinearConfig};
use burn::tensor::activation::{leaky_relu, sigmoid, silu};
use burn::tensor::{DType, Device, Tensor, TensorData};
use serde::{Deserialize, Serialize};

use crate::audio::filterbank::SAMPLES_PER_ROW;
use crate::audio::mel::{CHUNK_COLUMNS, CHUNK_FRAMES, Edges, MelSpectrogram, NUM_MELS, sync_chunk_start};
use crate::baselines::wav2lip::FACE_SIZE;
use crate::cost::{Cost, Meter};
use crate::error::ModelResult;
use crate::nn::conv_norm::{Conv, ConvShape};
use crate::nn::layer::{HALF, Layer, NORM_EPS, NORM_GROUPS, SAME};
use crate::nn::{Conv1x1, Conv3, GroupNorm};
use crate::weights::{Remap, load_into_from, module_tensors, open_safetensors, read_about, save_with_about};

/// Channels at sides 96, 48, 24, 12, 6 and 3.
const CHANNELS: [usize; 6] = [16, 24, 48, 64, 96, 128];
/// Length of the codes of face and sound.
const CODE_DIM: usize = 128;
/// Side of the coarsest features.
const COARSEST: usize = FACE_SIZE >> 5;
/// Output channels and convolution of the sound encoder's layers: 80 x 16 to 10 x 2.
const SOUND: [(usize, ConvShape); 6] = [(16, SAME), (32, HALF), (32, SAME), (64, HALF), (64, SAME), (96, HALF)];
const SOUND_SIZE: [usize; 2] = [NUM_MELS / 8, CHUNK_COLUMNS / 8];
/// Doubles the side: doubled pixels, 3x3 convolution, group norm, SiLU, then a residual layer.
#[derive(Module, Debug)]
struct Up {
    conv: Conv3,
    norm: GroupNorm,
    layer: Layer,
}

impl Up {
    fn new(input: usize, output: usize, device: &Device) -> Self {
        Self {
            conv: Conv3::new(input, output, device),
            norm: GroupNorm::new(NORM_GROUPS, output, NORM_EPS, device),
            layer: Layer::new(output, output, SAME, device),
        }
    }

    fn measure(&self, meter: &mut Meter) {
        let [output, input, ..] = self.conv.weight.dims();
        meter.size = meter.size.map(|side| 2 * side);
        meter.conv(input, output, &SAME);
        meter.norm(output);
        self.layer.measure(meter);
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        self.layer.forward(self.norm.forward_silu(self.conv.forward_upsampled(x)))
    }
}

/// The generator; 1.5 million parameters.
#[derive(Module, Debug)]
pub struct Wav2LipLite {
    stem: Layer,
    down: Vec<Vec<Layer>>,
    face_code: Linear,
    sound: Vec<Layer>,
    sound_code: Linear,
    begin: Linear,
    up: Vec<Up>,
    last: Layer,
    out: Conv1x1,
}

/// Channels of the critic's layers, each of which halves the side.
const CRITIC: [usize; 4] = [16, 32, 64, 96];
/// Slope of the critic's leaky ReLU.
const LEAK: f64 = 0.2;

/// Tells drawn faces from true ones by their lower halves, place by place: the part of Wav2Lip's quality
/// discriminator, as a patch critic of 79 thousand parameters.
#[derive(Module, Debug)]
pub struct FaceCritic {
    layers: Vec<Conv>,
    out: Conv1x1,
}

impl FaceCritic {
    /// Random weights from the device's generator.
    pub fn new(device: &Device) -> Self {
        let inputs = std::iter::once(3).chain(CRITIC);
        Self {
            layers: inputs.zip(CRITIC).map(|(input, output)| Conv::new(input, output, HALF, device)).collect(),
            out: Conv1x1::new(CRITIC[3], 1, device),
        }
    }

    /// How real places look: positive where they do.
    ///
    /// # Shapes
    /// [batch, 3, 96, 96] in [0, 1] -> [batch, 1, 3, 6]
    pub fn forward(&self, faces: Tensor<4>) -> Tensor<4> {
        let lower = faces.narrow(2, FACE_SIZE / 2, FACE_SIZE / 2) * 2.0 - 1.0;
        self.out.forward(self.layers.iter().fold(lower, |x, layer| leaky_relu(layer.forward(x), LEAK)))
    }
}

/// What a file of weights says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AboutWav2Lip {
    /// Seed of initialisation and data order.
    pub seed: u64,
    /// Steps of training.
    pub steps: u64,
    /// Training data: corpora with the number of their clips.
    pub data: String,
    /// Terms of the weights.
    pub licence: String,
    /// SHA-256 of the SyncNet in its loss: another must judge it.
    pub syncnet: String,
}

impl Wav2LipLite {
    /// Random weights from the device's generator.
    pub fn new(device: &Device) -> Self {
        let [first, .., last] = CHANNELS;
        let coarse = last * COARSEST * COARSEST;
        let down = |pair: &[usize]| {
            vec![Layer::new(pair[0], pair[1], HALF, device), Layer::new(pair[1], pair[1], SAME, device)]
        };
        let sound_inputs = std::iter::once(1).chain(SOUND.iter().map(|(channels, _)| *channels));
        let sound = sound_inputs.zip(SOUND).map(|(input, (output, shape))| Layer::new(input, output, shape, device));
        // What comes from below joins the encoder's features of its size.
        let up = |pair: &[usize]| Up::new(2 * pair[1], pair[0], device);
        Self {
            stem: Layer::new(6, first, SAME, device),
            down: CHANNELS.windows(2).map(down).collect(),
            face_code: LinearConfig::new(coarse, CODE_DIM).init(device),
            sound: sound.collect(),
            sound_code: LinearConfig::new(SOUND[5].0 * SOUND_SIZE[0] * SOUND_SIZE[1], CODE_DIM).init(device),
            begin: LinearConfig::new(2 * CODE_DIM, coarse).init(device),
            up: CHANNELS.windows(2).rev().map(up).collect(),
            last: Layer::new(2 * first, first, SAME, device),
            out: Conv1x1::new(first, 3, device),
        }
    }

    /// Names in a file.
    pub fn remap() -> Remap {
        Remap::identity().with_prefix("wav2lip.")
    }

    /// One face with its sound.
    pub fn cost(&self) -> Cost {
        let (mut face, mut sound) = (Meter::new([FACE_SIZE; 2]), Meter::new([NUM_MELS, CHUNK_COLUMNS]));
        self.stem.measure(&mut face);
        self.down.iter().flatten().for_each(|layer| layer.measure(&mut face));
        self.sound.iter().for_each(|layer| layer.measure(&mut sound));
        self.up.iter().for_each(|up| up.measure(&mut face));
        self.last.measure(&mut face);
        face.conv(CHANNELS[0], 3, &ConvShape::square(1, 1, 0));
        let linear = |layer: &Linear| {
            let [input, output] = layer.weight.dims();
            Cost::linear(input, output, 1)
        };
        face.cost + sound.cost + linear(&self.face_code) + linear(&self.sound_code) + linear(&self.begin)
    }

    /// Reads a file that `syncdiff train wav2lip` wrote.
    ///
    /// # Errors
    /// [`crate::ModelError::Io`], [`crate::ModelError::Weights`] and [`crate::ModelError::WeightsMismatch`], naming the file.
    pub fn load(path: &Path, device: &Device) -> ModelResult<Self> {
        load_into_from(Self::new(device), &open_safetensors(path)?, &Self::remap(), &path.display().to_string())
    }

    /// What a file says of itself.
    ///
    /// # Errors
    /// [`crate::ModelError::Checkpoint`] for a file that cannot be read, [`crate::ModelError::Weights`] for one that says
    /// nothing.
    pub fn about(path: &Path) -> ModelResult<AboutWav2Lip> {
        read_about(path)
    }

    /// Writes the weights (f16) with what they are.
    ///
    /// # Errors
    /// [`crate::ModelError::Io`]; [`crate::ModelError::Limit`] when a value does not fit into `f16`.
    pub fn save(&self, path: &Path, about: &AboutWav2Lip) -> ModelResult<()> {
        save_with_about(&module_tensors(self, &Self::remap()), about, path)
    }

    /// Draws faces.
    ///
    /// # Shapes
    /// mel: [batch, 1, 80, 16]; faces: [batch, 6, 96, 96] in [0, 1], the target with its mouth region zero, then the
    /// reference -> [batch, 3, 96, 96] in [0, 1]
    pub fn forward(&self, mel: Tensor<4>, faces: Tensor<4>) -> Tensor<4> {
        let batch = faces.dims()[0];
        let mut features = vec![self.stem.forward(faces)];
        for layers in &self.down {
            let x = features[features.len() - 1].clone();
            features.push(layers.iter().fold(x, |x, layer| layer.forward(x)));
        }
        let coarsest = features[features.len() - 1].clone();
        let face = silu(self.face_code.forward(coarsest.flatten(1, 3)));
        let sound = self.sound.iter().fold(mel, |x, layer| layer.forward(x));
        let sound = silu(self.sound_code.forward(sound.flatten(1, 3)));
        let begin: Tensor<2> = silu(self.begin.forward(Tensor::cat(vec![sound, face], 1)));
        let mut x = begin.reshape([batch, CHANNELS[5], COARSEST, COARSEST]);
        for up in &self.up {
            let mirror = features.pop().expect("as many features as sizes");
            x = up.forward(Tensor::cat(vec![x, mirror], 1));
        }
        let mirror = features.pop().expect("the stem's are left");
        sigmoid(self.out.forward(self.last.forward(Tensor::cat(vec![x, mirror], 1))))
    }
}

/// Chunks of sound for video frames at 25 a second, each from one frame before its own, and at the ends the nearest that
/// lies within the sound: in training and in generation alike.
#[derive(Clone, Debug)]
pub struct FrameSounds {
    mel: MelSpectrogram,
}

impl FrameSounds {
    /// Of 16 kHz mono; shorter sound than one chunk is filled up with silence.
    pub fn new(samples: &[i16]) -> Self {
        let mut samples: Vec<f32> = samples.iter().map(|s| f32::from(*s) / 32768.0).collect();
        samples.resize(samples.len().max(CHUNK_FRAMES * SAMPLES_PER_ROW), 0.0);
        Self { mel: MelSpectrogram::new(&samples, Edges::Reflect) }
    }

    /// # Shapes
    /// frames -> [frames, 1, 80, 16]
    pub fn chunks(&self, frames: impl IntoIterator<Item = usize>, device: &Device) -> Tensor<4> {
        let last = self.mel.columns().len() - CHUNK_COLUMNS;
        let (mut values, mut count) = (Vec::new(), 0);
        for frame in frames {
            let start = sync_chunk_start(frame.saturating_sub(1)).min(last);
            values.extend(self.mel.chunk(start).expect("it lies within the sound"));
            count += 1;
        }
        Tensor::from_data(TensorData::new(values, [count, 1, NUM_MELS, CHUNK_COLUMNS]), (device, DType::F32))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::conv_norm::count_learned;

    #[test]
    fn costs_are_those_of_the_layers() {
        let net = Wav2LipLite::new(&Device::flex());
        assert_eq!(net.cost().parameters, count_learned(&net) as u64);
        assert!((1_000_000..2_500_000).contains(&net.cost().parameters), "{:?}", net.cost());
        assert!(net.cost().macs < 400_000_000, "{:?}", net.cost());
    }

    #[test]
    fn faces_come_out_alone_as_together() {
        let device = Device::flex();
        device.seed(1);
        let net = Wav2LipLite::new(&device);
        let faces = Tensor::<4>::random([2, 6, FACE_SIZE, FACE_SIZE], burn::tensor::Distribution::Default, &device);
        let sounds = FrameSounds::new(&(0..6400).map(|i| (i * 37 % 4001) as i16).collect::<Vec<_>>());
        let both = net.forward(sounds.chunks([0, 7], &device), faces.clone());
        assert_eq!(both.dims(), [2, 3, FACE_SIZE, FACE_SIZE]);
        let second = net.forward(sounds.chunks([7], &device), faces.narrow(0, 1, 1));
        assert!((both.narrow(0, 1, 1) - second).abs().max().into_scalar::<f32>() < 1e-5);
    }

    #[test]
    fn the_critic_looks_at_lower_halves() {
        let device = Device::flex();
        let critic = FaceCritic::new(&device);
        assert_eq!(count_learned(&critic), 79_073);
        let face = Tensor::<4>::ones([1, 3, FACE_SIZE, FACE_SIZE], &device);
        let answer = critic.forward(face.clone());
        assert_eq!(answer.dims(), [1, 1, 3, 6]);
        let half = Tensor::<4>::ones([1, 3, FACE_SIZE / 2, FACE_SIZE], &device);
        let upper = Tensor::cat(vec![half.clone() * 0.0, half.clone()], 2);
        assert_eq!(critic.forward(upper).into_data(), answer.clone().into_data());
        let lower = Tensor::cat(vec![half.clone(), half * 0.0], 2);
        assert_ne!(critic.forward(lower).into_data(), answer.into_data());
    }

    #[test]
    fn chunks_begin_a_frame_early_and_stay_within_the_sound() {
        let device = Device::flex();
        let sounds =
            FrameSounds::new(&(0..16000).map(|i| ((i as f32 * 0.1).sin() * i as f32) as i16).collect::<Vec<_>>());
        let values = |frame: usize| sounds.chunks([frame], &device).into_data().try_into_vec::<f32>().unwrap();
        // Frame 6 begins at column 16 of 80 a second.
        assert_eq!(values(6), sounds.mel.chunk(16).unwrap());
        assert_eq!((values(0), values(24)), (values(1), values(99)));
        assert_ne!(values(1), values(6));
        assert_eq!(FrameSounds::new(&[]).chunks([3], &device).dims(), [1, 1, NUM_MELS, CHUNK_COLUMNS]);
    }

    #[test]
    fn files_say_what_they_are() {
        let (folder, device) = (tempfile::tempdir().unwrap(), Device::flex());
        let path = folder.path().join("w.safetensors");
        let net = Wav2LipLite::new(&device);
        let about = AboutWav2Lip {
            seed: 3,
            steps: 7,
            data: "GRID (2 clips)".into(),
            licence: "CC BY 4.0".into(),
            syncnet: "00".into(),
        };
        net.save(&path, &about).unwrap();
        assert_eq!(Wav2LipLite::about(&path).unwrap(), about);
        let loaded = Wav2LipLite::load(&path, &device).unwrap();
        let faces = Tensor::<4>::ones([1, 6, FACE_SIZE, FACE_SIZE], &device);
        let sound = FrameSounds::new(&[100; 6400]).chunks([2], &device);
        let distance = (loaded.forward(sound.clone(), faces.clone()) - net.forward(sound, faces)).abs().max();
        assert!(distance.into_scalar::<f32>() < 1e-2);
    }
}
