//! Our SyncNet: five video frames of a mouth and their 0.2 s of sound to embeddings of length 1 that lie close when they
//! belong together. Small enough to be trained on two CPU cores; not to be confused with [`super::syncnet`], the public
//! one, whose numbers are those of the literature.
//!
//! # Geometry
//! The mouth is a window of the aligned crop (the one that clips are prepared in and mouths are generated in): columns
//! from [`MOUTH_LEFT`] to [`MOUTH_LEFT`] + [`MOUTH_SIDE`] and rows from [`MOUTH_TOP`] to [`MOUTH_TOP`] + [`MOUTH_SIDE`]
//! of its side, from below the nose to the chin, as [`MOUTH_SIZE`] x [`MOUTH_SIZE`] pixels. Of a crop of 128 pixels
//! these are the pixels 32 to 95 and 56 to 119 as they are; crops of other sizes are resampled with a triangle filter.
//!
//! # Sound
//! 26 log filter-bank energies every 10 ms, 20 frames to a window; at most [`FLOOR`] below the loudest of the clip,
//! without each band's mean over the clip (which is the microphone's, not the mouth's), and scaled.
//!
//! # Source
//! Two streams and windows of five frames as in Chung and Zisserman, "Out of time" (2016); layers of our own.

use std::path::Path;

use burn::module::Module;
use burn::nn::{Linear, LinearConfig};
use burn::tensor::{DType, Device, Tensor, TensorData};
use serde::{Deserialize, Serialize};

use crate::audio::filterbank::{Bands, FRAMES_PER_ROW, NUM_BANDS, SAMPLES_PER_ROW, log_filterbank};
use crate::cost::{Cost, Meter};
use crate::error::{ModelError, ModelResult};
use crate::nn::conv_norm::ConvShape;
use crate::nn::layer::{HALF, Layer, SAME};
use crate::nn::{Conv1x1, Part, resample};
use crate::scorers::sync_distance::{SyncDistances, SyncScore};
use crate::weights::{Remap, load_into_from, module_tensors, open_safetensors, read_about, save_with_about};

/// Video frames of a window.
pub const WINDOW_FRAMES: usize = 5;
/// Length of an embedding.
pub const EMBEDDING_DIM: usize = 128;
/// Height and width of the mouth in pixels.
pub const MOUTH_SIZE: usize = 64;
/// Left edge of the mouth, as a part of the aligned crop's side.
pub const MOUTH_LEFT: f64 = 0.25;
/// Upper edge.
pub const MOUTH_TOP: f64 = 0.4375;
/// Width and height.
pub const MOUTH_SIDE: f64 = 0.5;
/// Filter-bank frames of a window.
pub const WINDOW_BANDS: usize = WINDOW_FRAMES * FRAMES_PER_ROW;
/// Bands beside each other, filled up with zeros to whole vectors.
pub const BANDS_WIDTH: usize = 32;
/// Natural logarithms below the loudest value at which sound counts as silence: 60 dB.
pub const FLOOR: f32 = 13.8;

/// Side of the crops that need no resampling.
const NATIVE_CROP: usize = 128;
/// Logarithms to about unit variance.
const BAND_SCALE: f32 = 1.0 / 3.0;
/// Zeros behind the last frame, so that its last filter-bank frame has 25 ms.
const TAIL_SAMPLES: usize = 240;
/// Channels before the last linear map.
const NARROW: usize = 32;
/// Windows that go through the network at a time.
const BATCH: usize = 32;
const STAGE: &str = "our syncnet";

/// Output channels and convolution of each layer; those that keep size and channels are residual.
const LIPS: [(usize, ConvShape); 6] = [(32, HALF), (64, HALF), (64, SAME), (128, HALF), (128, SAME), (128, SAME)];
const SPEECH: [(usize, ConvShape); 6] = [(32, SAME), (64, HALF), (64, SAME), (128, HALF), (128, SAME), (128, SAME)];

/// Layers, a 1x1 convolution to few channels, a linear map of all that is left.
#[derive(Module, Debug)]
struct Stream {
    layers: Vec<Layer>,
    narrow: Conv1x1,
    out: Linear,
}

impl Stream {
    fn new(first: usize, size: [usize; 2], layers: &[(usize, ConvShape)], device: &Device) -> Self {
        let (mut input, mut size, mut made) = (first, size, Vec::new());
        for (output, shape) in layers {
            made.push(Layer::new(input, *output, *shape, device));
            (input, size) = (*output, shape.output_size(size));
        }
        Self {
            layers: made,
            narrow: Conv1x1::new(input, NARROW, device),
            out: LinearConfig::new(NARROW * size[0] * size[1], EMBEDDING_DIM).init(device),
        }
    }

    /// [batch, channels, height, width] -> [batch, 128] of length 1
    fn forward(&self, x: Tensor<4>) -> Tensor<2> {
        let x = self.layers.iter().fold(x, |x, layer| layer.forward(x));
        let x = self.out.forward(self.narrow.forward(x).flatten(1, 3));
        // Inside the root, so that its slope is finite at zero.
        let length = (x.clone().powi_scalar(2).sum_dim(1) + 1e-12).sqrt();
        x / length
    }

    fn cost(&self, size: [usize; 2]) -> Cost {
        let (mut meter, mut channels) = (Meter::new(size), 0);
        for layer in &self.layers {
            layer.measure(&mut meter);
            channels = layer.channels();
        }
        let positions = meter.size[0] * meter.size[1];
        meter.cost + Cost::conv(channels, NARROW, 1, positions) + Cost::linear(NARROW * positions, EMBEDDING_DIM, 1)
    }
}

/// Two streams of convolutions; 1.2 million parameters.
#[derive(Module, Debug)]
pub struct OwnSyncNet {
    lips: Stream,
    speech: Stream,
}

/// What a file of weights says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AboutSyncNet {
    /// Seed of initialisation, data order and augmentation: a judge's differs from that of the network in a loss.
    pub seed: u64,
    /// Steps of training.
    pub steps: u64,
    /// Training data: corpora with the number of their clips.
    pub data: String,
    /// Terms of the weights.
    pub licence: String,
}

impl OwnSyncNet {
    /// Random weights from the device's generator.
    pub fn new(device: &Device) -> Self {
        Self {
            lips: Stream::new(3 * WINDOW_FRAMES, [MOUTH_SIZE; 2], &LIPS, device),
            speech: Stream::new(1, [WINDOW_BANDS, BANDS_WIDTH], &SPEECH, device),
        }
    }

    /// Names in a file.
    pub fn remap() -> Remap {
        Remap::identity().with_prefix("syncnet.")
    }

    /// One window of lips and one of sound.
    pub fn cost(&self) -> Cost {
        self.lips.cost([MOUTH_SIZE; 2]) + self.speech.cost([WINDOW_BANDS, BANDS_WIDTH])
    }

    /// Reads a file that `syncdiff train syncnet` wrote.
    ///
    /// # Errors
    /// [`ModelError::Io`], [`ModelError::Weights`] and [`ModelError::WeightsMismatch`], naming the file.
    pub fn load(path: &Path, device: &Device) -> ModelResult<Self> {
        load_into_from(Self::new(device), &open_safetensors(path)?, &Self::remap(), &path.display().to_string())
    }

    /// What a file says of itself: with which seed it was trained, on what, and its terms.
    ///
    /// # Errors
    /// [`ModelError::Checkpoint`] for a file that cannot be read, [`ModelError::Weights`] for one that says nothing.
    pub fn about(path: &Path) -> ModelResult<AboutSyncNet> {
        read_about(path)
    }

    /// Writes the weights (f16) with what they are.
    ///
    /// # Errors
    /// [`ModelError::Io`]; [`ModelError::Limit`] when a value does not fit into `f16`.
    pub fn save(&self, path: &Path, about: &AboutSyncNet) -> ModelResult<()> {
        save_with_about(&module_tensors(self, &Self::remap()), about, path)
    }

    /// Embeddings of all windows of lips, in order: row i is of the frames i to i + 4.
    ///
    /// # Shapes
    /// aligned crops [frames, 3, side, side] in [-1, 1] -> [frames - 4, 128]
    ///
    /// # Errors
    /// [`ModelError::Parameter`] for pictures that are not square, have no three channels, or are fewer than five.
    pub fn lips(&self, crops: Tensor<4>) -> ModelResult<Tensor<2>> {
        let mouths = mouths(crops)?;
        let frames = mouths.dims()[0];
        self.batches("frames", frames.saturating_sub(WINDOW_FRAMES - 1), |start, count| {
            let part = mouths.clone().narrow(0, start, count + WINDOW_FRAMES - 1);
            self.forward_lips(lip_windows(part))
        })
    }

    /// Embeddings of all windows of sound, in order: row i belongs to the video frames i to i + 4 at 25 a second.
    ///
    /// # Shapes
    /// 16 kHz mono -> [samples / 640 - 4, 128]
    ///
    /// # Errors
    /// [`ModelError::Parameter`] for less than 0.2 s.
    pub fn speech(&self, samples: &[i16], device: &Device) -> ModelResult<Tensor<2>> {
        let frames = samples.len() / SAMPLES_PER_ROW;
        let bands = sound_bands(log_filterbank(&padded(samples)), frames);
        self.batches("frames of sound", frames.saturating_sub(WINDOW_FRAMES - 1), |start, count| {
            self.forward_speech(sound_windows(&bands, start..start + count, device))
        })
    }

    /// Scores a clip: how far lips and sound are apart, how surely, and by how many frames; distances are at most 2.
    ///
    /// # Shapes
    /// as [`Self::lips`] and [`Self::speech`]; of a longer picture or sound the end is left out
    ///
    /// # Errors
    /// Those of [`Self::lips`] and [`Self::speech`].
    pub fn score(&self, crops: Tensor<4>, samples: &[i16]) -> ModelResult<SyncScore> {
        let device = crops.device();
        let (lips, speech) = (rows(self.lips(crops)?), rows(self.speech(samples, &device)?));
        let len = lips.len().min(speech.len());
        Ok(SyncDistances::between(&lips[..len], &speech[..len], EMBEDDING_DIM)?.score())
    }

    /// Embeddings of windows of lips.
    ///
    /// # Shapes
    /// [batch, 15, 64, 64], the mouths of five frames one after the other, in [-1, 1] -> [batch, 128] of length 1
    pub fn forward_lips(&self, windows: Tensor<4>) -> Tensor<2> {
        self.lips.forward(windows)
    }

    /// Embeddings of windows of sound, from [`sound_windows`].
    ///
    /// # Shapes
    /// [batch, 1, 20, 32] -> [batch, 128] of length 1
    pub fn forward_speech(&self, windows: Tensor<4>) -> Tensor<2> {
        self.speech.forward(windows)
    }

    fn batches(
        &self,
        name: &'static str,
        windows: usize,
        embed: impl Fn(usize, usize) -> Tensor<2>,
    ) -> ModelResult<Tensor<2>> {
        if windows == 0 {
            let allowed = "a window needs five video frames and their 0.2 s of sound";
            return Err(ModelError::parameter(STAGE, name, "fewer than five", allowed));
        }
        let starts = (0..windows).step_by(BATCH);
        Ok(Tensor::cat(starts.map(|start| embed(start, BATCH.min(windows - start))).collect(), 0))
    }
}

fn rows(x: Tensor<2>) -> Vec<f32> {
    x.into_data().convert::<f32>().try_into_vec().expect("converted to f32")
}

/// The mouths of aligned crops; gradients flow back to the crops.
///
/// # Shapes
/// [frames, 3, side, side] -> [frames, 3, 64, 64]
///
/// # Errors
/// [`ModelError::Parameter`] for pictures that are not square or have no three channels.
pub fn mouths(crops: Tensor<4>) -> ModelResult<Tensor<4>> {
    let [_, channels, height, side] = crops.dims();
    if channels != 3 || height != side {
        let value = format!("[{channels}, {height}, {side}]");
        return Err(ModelError::parameter(STAGE, "crop", value, "crops are square and have three channels"));
    }
    if side == NATIVE_CROP {
        let [left, top] = [MOUTH_LEFT, MOUTH_TOP].map(|edge| (edge * side as f64) as usize);
        return Ok(crops.narrow(2, top, MOUTH_SIZE).narrow(3, left, MOUTH_SIZE));
    }
    let part = |start: f64| Part { start, length: MOUTH_SIDE };
    Ok(resample(crops, part(MOUTH_TOP), part(MOUTH_LEFT), [MOUTH_SIZE; 2]))
}

/// All windows of consecutive mouths.
///
/// # Shapes
/// [frames, 3, 64, 64] -> [frames - 4, 15, 64, 64]
pub fn lip_windows(mouths: Tensor<4>) -> Tensor<4> {
    let windows = mouths.dims()[0] - (WINDOW_FRAMES - 1);
    Tensor::cat((0..WINDOW_FRAMES).map(|k| mouths.clone().narrow(0, k, windows)).collect(), 1)
}

/// Whole video frames of sound, and zeros behind them so that [`log_filterbank`] makes four frames of each.
pub fn padded(samples: &[i16]) -> Vec<i16> {
    let frames = samples.len() / SAMPLES_PER_ROW;
    let mut padded = samples[..frames * SAMPLES_PER_ROW].to_vec();
    padded.resize(padded.len() + TAIL_SAMPLES, 0);
    padded
}

/// The sound of a clip as the network hears it: what lies far below the loudest is silence, bands have a mean of zero.
///
/// # Shapes
/// log filter-bank energies of the clip -> [4 frames]
pub fn sound_bands(mut bands: Vec<Bands>, frames: usize) -> Vec<Bands> {
    bands.truncate(frames * FRAMES_PER_ROW);
    let loudest = bands.iter().flatten().fold(f32::NEG_INFINITY, |a, b| a.max(*b));
    bands.iter_mut().flatten().for_each(|value| *value = value.max(loudest - FLOOR));
    let mut mean = [0f64; NUM_BANDS];
    for frame in &bands {
        mean.iter_mut().zip(frame).for_each(|(sum, value)| *sum += f64::from(*value) / bands.len() as f64);
    }
    for frame in &mut bands {
        frame.iter_mut().zip(mean).for_each(|(value, mean)| *value = (*value - mean as f32) * BAND_SCALE);
    }
    bands.resize(frames * FRAMES_PER_ROW, [0.0; NUM_BANDS]);
    bands
}

/// Windows of sound that begin with the given video frames.
///
/// # Shapes
/// bands from [`sound_bands`] -> [starts, 1, 20, 32]
///
/// # Panics
/// When the sound ends before a window does.
pub fn sound_windows(bands: &[Bands], starts: impl IntoIterator<Item = usize>, device: &Device) -> Tensor<4> {
    let (mut values, mut count) = (Vec::new(), 0);
    for start in starts {
        for frame in &bands[start * FRAMES_PER_ROW..][..WINDOW_BANDS] {
            values.extend_from_slice(frame);
            values.extend([0.0; BANDS_WIDTH - NUM_BANDS]);
        }
        count += 1;
    }
    Tensor::from_data(TensorData::new(values, [count, 1, WINDOW_BANDS, BANDS_WIDTH]), (device, DType::F32))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::conv_norm::count_learned;

    fn values<const D: usize>(x: Tensor<D>) -> Vec<f32> {
        x.into_data().convert::<f32>().try_into_vec().unwrap()
    }

    /// A picture whose value is that of a plane: resampling must keep it.
    fn planes(frames: usize, side: usize) -> Tensor<4> {
        let mut data = Vec::new();
        for frame in 0..frames {
            for channel in 0..3 {
                for y in 0..side {
                    for x in 0..side {
                        let [u, v] = [x, y].map(|at| (at as f32 + 0.5) / side as f32);
                        data.push(u - 0.5 * v + 0.1 * channel as f32 + 0.01 * frame as f32);
                    }
                }
            }
        }
        Tensor::from_data(TensorData::new(data, [frames, 3, side, side]), (&Device::flex(), DType::F32))
    }

    fn tone() -> Vec<i16> {
        (0..640 * 12).map(|i| ((i as f32 * 0.2).sin() * 30.0 * ((i / 640) as f32)) as i16).collect()
    }

    #[test]
    fn costs_are_those_of_the_layers() {
        let net = OwnSyncNet::new(&Device::flex());
        assert_eq!(net.cost().parameters, count_learned(&net) as u64);
        assert!((1_000_000..2_000_000).contains(&net.cost().parameters), "{}", net.cost().parameters);
    }

    #[test]
    fn the_mouth_is_the_same_place_of_crops_of_any_size() {
        let native = values(mouths(planes(1, 128)).unwrap());
        assert!((native[0] - (32.5 / 128.0 - 0.5 * 56.5 / 128.0)).abs() < 1e-6);
        for side in [64, 96, 160, 256] {
            for (a, b) in values(mouths(planes(1, side)).unwrap()).into_iter().zip(&native) {
                // A pixel of 128 is 8e-3.
                assert!((a - b).abs() < 5e-4, "{side}: {a} {b}");
            }
        }
        assert!(mouths(Tensor::zeros([1, 3, 8, 9], &Device::flex())).is_err());
    }

    #[test]
    fn rows_belong_to_their_frames() {
        let device = Device::flex();
        device.seed(3);
        let net = OwnSyncNet::new(&device);
        // More windows than go through at a time, and each alone.
        let crops = planes(40, 128);
        let all = values(net.lips(crops.clone()).unwrap());
        assert_eq!(all.len(), 36 * EMBEDDING_DIM);
        for at in [0, 31, 32, 35] {
            let one = values(net.lips(crops.clone().narrow(0, at, 5)).unwrap());
            for (a, b) in one.iter().zip(&all[at * EMBEDDING_DIM..]) {
                assert!((a - b).abs() < 1e-5);
            }
            assert!((one.iter().map(|v| v * v).sum::<f32>() - 1.0).abs() < 1e-4);
        }
        assert_eq!(net.speech(&tone(), &device).unwrap().dims(), [8, EMBEDDING_DIM]);
        let error = net.lips(crops.narrow(0, 0, 4)).unwrap_err().to_string();
        assert!(error.contains("five"), "{error}");
        assert!(net.speech(&tone()[..640 * 4], &device).is_err());
        let score = net.score(planes(20, 96), &tone()).unwrap();
        assert!(score.distance.is_finite() && score.distance <= 2.0);
    }

    #[test]
    fn loudness_is_not_heard() {
        let bands = log_filterbank(&padded(&tone()));
        assert_eq!(bands.len(), 4 * 12);
        let quieter = bands.iter().map(|frame| frame.map(|value| value - 2.0)).collect();
        for (a, b) in sound_bands(bands, 12).iter().flatten().zip(sound_bands(quieter, 12).iter().flatten()) {
            assert!((a - b).abs() < 1e-4);
        }
        assert!(sound_bands(log_filterbank(&[0; 6640]), 10).iter().flatten().all(|v| v.abs() < 1e-4));
        let windows = sound_windows(&sound_bands(log_filterbank(&padded(&tone())), 12), [0, 7], &Device::flex());
        assert_eq!(windows.dims(), [2, 1, WINDOW_BANDS, BANDS_WIDTH]);
    }

    #[test]
    fn files_say_what_they_are() {
        let (folder, device) = (tempfile::tempdir().unwrap(), Device::flex());
        let path = folder.path().join("judge.safetensors");
        let net = OwnSyncNet::new(&device);
        let about = AboutSyncNet { seed: 3, steps: 7, data: "GRID (2 clips)".into(), licence: "CC BY 4.0".into() };
        net.save(&path, &about).unwrap();
        assert_eq!(OwnSyncNet::about(&path).unwrap(), about);
        let loaded = OwnSyncNet::load(&path, &device).unwrap();
        let distance = (loaded.lips(planes(5, 128)).unwrap() - net.lips(planes(5, 128)).unwrap()).abs().max();
        assert!(distance.into_scalar::<f32>() < 1e-2);
        let bytes = std::fs::read(&path).unwrap();
        net.save(&path, &about).unwrap();
        assert_eq!(bytes, std::fs::read(&path).unwrap(), "the same bytes every time");
        std::fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
        assert!(OwnSyncNet::load(&path, &device).unwrap_err().to_string().contains("judge.safetensors"));
    }
}
