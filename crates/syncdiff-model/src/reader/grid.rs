//! A small lip reader of our own: the six words of a GRID command, and nothing else.
//!
//! It is there because the weights that published word error rates come from are not ours to ship. Its figures are no
//! substitute for published ones: it chooses each word out of a list of 4 to 25, learnt from a few speakers. They say
//! which of several clips of the same sentences is the easier to read.
//!
//! ```text
//! pictures = grid_pictures(grey)                 mouths less the clip's mean mouth
//! rows     = see(pictures)                       convolutions over each mouth and its two neighbours
//! slots    = gather(rows)                        residual layers over time; six looks at the whole clip
//! words    = say(slots)                          a linear map for each place of the sentence
//! ```
//!
//! # Geometry
//! The mouth's window of [`crate::scorers::own_syncnet`], 64 x 64 pixels, grey. A face's own looks are taken out by
//! subtracting the mean mouth of the clip, since what is said is in what changes, and training has few faces.
//!
//! # Time
//! 25 pictures a second. A look at the clip is an attention whose query is a learned constant, so that its scores are
//! a linear map of the rows; to them a bell over time is added, which begins where GRID's speakers say the word.

use std::path::Path;

use burn::module::{Initializer, Module, Param};
use burn::nn::{LayerNorm, LayerNormConfig, Linear, LinearConfig};
use burn::tensor::activation::{silu, softmax};
use burn::tensor::{DType, Device, Tensor, TensorData};
use serde::{Deserialize, Serialize};

use crate::cost::{Cost, Meter};
use crate::error::{ModelError, ModelResult};
use crate::nn::conv_norm::ConvShape;
use crate::nn::layer::{HALF, Layer, SAME};
use crate::nn::{Conv1x1, layer_norm, linear};
use crate::reader::grid_sentence::{GridSentence, SLOTS, VOCABULARY};
use crate::scorers::own_syncnet::MOUTH_SIZE;
use crate::weights::{Remap, load_into_from, module_tensors, open_safetensors, read_about, save_with_about};

/// Height and width of a picture in pixels.
pub const PICTURE: usize = MOUTH_SIZE;
/// Most pictures of a clip: ten seconds. A command takes two.
pub const MAX_FRAMES: usize = 250;
/// Width of a row.
pub const ROW: usize = 160;
/// Width of what is gathered for a word.
pub const SLOT: usize = HEADS * HEAD;

/// Output channels and convolution of each layer.
const LAYERS: [(usize, ConvShape); 4] = [(16, HALF), (32, HALF), (48, HALF), (48, SAME)];
/// Pictures that a row is made of: its own and one on both sides.
const NEIGHBOURS: usize = 3;
/// Channels before the last linear map.
const NARROW: usize = 16;
/// Layers over time.
const TEMPORAL: usize = 4;
/// Rows that a layer over time sees at once.
const KERNEL: usize = 5;
/// Looks for each word, and the width of what each brings.
const HEADS: usize = 4;
const HEAD: usize = 64;
/// Where words are said, in frames: in the middle of GRID's speakers. Looks of a word begin a little before each other.
const CENTRES: [f64; SLOTS] = [20.0, 26.0, 31.0, 36.0, 42.0, 49.0];
const OFFSETS: [f64; HEADS] = [-4.0, -1.5, 1.5, 4.0];
/// Deviation of the bell at first, in frames.
const SPREAD: f64 = 7.0;
/// Frames of a unit of the learned moves of the bells, so that they can move as fast as weights do.
const MOVE: f64 = 10.0;
/// Added to the score of a row that is not there.
const ABSENT: f64 = -1e4;
/// Changes of a mouth to about unit variance, in deviations of its grey values.
const CHANGE_SCALE: f32 = 4.0;
/// Grey levels: pictures with less contrast are not stretched.
const LEAST_DEVIATION: f32 = 8.0;
const STAGE: &str = "our lip reader";

/// x + map(silu(map of five neighbours(norm(x)))).
#[derive(Module, Debug)]
struct Temporal {
    norm: LayerNorm,
    near: Linear,
    out: Linear,
}

impl Temporal {
    fn new(device: &Device) -> Self {
        Self {
            norm: LayerNormConfig::new(ROW).init(device),
            near: LinearConfig::new(KERNEL * ROW, ROW).init(device),
            out: LinearConfig::new(ROW, ROW).init(device),
        }
    }

    /// `present` [batch, time, 1] is 0 where a row is not there.
    fn forward(&self, x: Tensor<3>, present: &Tensor<3>) -> Tensor<3> {
        let normed = layer_norm(&self.norm, x.clone()) * present.clone();
        let near = linear(&self.near, neighbours(normed, 1, KERNEL, 2));
        x + linear(&self.out, silu(near))
    }

    fn cost() -> Cost {
        Cost::norm(ROW) + Cost::linear(KERNEL * ROW, ROW, 1) + Cost::linear(ROW, ROW, 1)
    }
}

/// Every element along the axis `time` together with its neighbours, side by side along the axis `along`; zeros beyond
/// the ends.
fn neighbours<const D: usize>(x: Tensor<D>, time: usize, count: usize, along: usize) -> Tensor<D> {
    let mut shape = x.dims();
    let frames = shape[time];
    shape[time] = count / 2;
    let margin = Tensor::zeros(shape, &x.device());
    let padded = Tensor::cat(vec![margin.clone(), x, margin], time);
    Tensor::cat((0..count).map(|k| padded.clone().narrow(time, k, frames)).collect(), along)
}

/// Reads GRID commands off mouths; 0.9 million parameters.
#[derive(Module, Debug)]
pub struct GridReader {
    layers: Vec<Layer>,
    narrow: Conv1x1,
    row: Linear,
    temporal: Vec<Temporal>,
    norm: LayerNorm,
    scores: Linear,
    values: Linear,
    /// By how much each look's bell lies off its first place, in units of [`MOVE`] frames, [24].
    moves: Param<Tensor<1>>,
    /// Logarithm of how much wider each is than at first, [24].
    spreads: Param<Tensor<1>>,
    slot_norm: LayerNorm,
    words: Vec<Linear>,
}

/// What a file of weights says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AboutReader {
    /// Seed of initialisation, data order and augmentation.
    pub seed: u64,
    /// Steps of training.
    pub steps: u64,
    /// Training data: corpora with the number of their clips.
    pub data: String,
    /// Terms of the weights.
    pub licence: String,
}

impl GridReader {
    /// Random weights from the device's generator.
    pub fn new(device: &Device) -> Self {
        let (mut input, mut size, mut layers) = (NEIGHBOURS, [PICTURE; 2], Vec::new());
        for (output, shape) in LAYERS {
            layers.push(Layer::new(input, output, shape, device));
            (input, size) = (output, shape.output_size(size));
        }
        let zeros = || Initializer::Zeros.init([SLOTS * HEADS], device);
        Self {
            layers,
            narrow: Conv1x1::new(input, NARROW, device),
            row: LinearConfig::new(NARROW * size[0] * size[1], ROW).init(device),
            temporal: (0..TEMPORAL).map(|_| Temporal::new(device)).collect(),
            norm: LayerNormConfig::new(ROW).init(device),
            scores: LinearConfig::new(ROW, SLOTS * HEADS).init(device),
            values: LinearConfig::new(ROW, SLOT).init(device),
            moves: zeros(),
            spreads: zeros(),
            slot_norm: LayerNormConfig::new(SLOT).init(device),
            words: VOCABULARY.iter().map(|known| LinearConfig::new(SLOT, known.len()).init(device)).collect(),
        }
    }

    /// Names in a file.
    pub fn remap() -> Remap {
        Remap::identity().with_prefix("reader.")
    }

    /// A clip of so many frames.
    pub fn cost(frames: usize) -> Cost {
        let (mut meter, mut input) = (Meter::new([PICTURE; 2]), NEIGHBOURS);
        for (output, shape) in LAYERS {
            meter.conv(input, output, &shape);
            meter.norm(output);
            input = output;
        }
        let positions = meter.size[0] * meter.size[1];
        let seen = meter.cost + Cost::conv(input, NARROW, 1, positions) + Cost::linear(NARROW * positions, ROW, 1);
        let temporal: Cost = (0..TEMPORAL).map(|_| Temporal::cost()).sum();
        let looks = Cost::norm(ROW) + Cost::linear(ROW, SLOTS * HEADS, 1) + Cost::linear(ROW, SLOT, 1);
        let gathered = Cost { parameters: 0, macs: (SLOTS * frames * SLOT) as u64 } + Cost::values(2 * SLOTS * HEADS);
        let words: Cost = VOCABULARY.iter().map(|known| Cost::linear(SLOT, known.len(), 1)).sum();
        (seen + temporal + looks).times(frames) + gathered + Cost::norm(SLOT) + words
    }

    /// Reads a file that `syncdiff train reader` wrote.
    ///
    /// # Errors
    /// [`ModelError::Io`], [`ModelError::Weights`] and [`ModelError::WeightsMismatch`], naming the file.
    pub fn load(path: &Path, device: &Device) -> ModelResult<Self> {
        load_into_from(Self::new(device), &open_safetensors(path)?, &Self::remap(), &path.display().to_string())
    }

    /// What a file says of itself: with which seed it was trained, on what, and its terms.
    ///
    /// # Errors
    /// As [`read_about`].
    pub fn about(path: &Path) -> ModelResult<AboutReader> {
        read_about(path)
    }

    /// Writes the weights (f16) with what they are.
    ///
    /// # Errors
    /// As [`save_with_about`].
    pub fn save(&self, path: &Path, about: &AboutReader) -> ModelResult<()> {
        save_with_about(&module_tensors(self, &Self::remap()), about, path)
    }

    /// A row for every picture, which sees itself and one on both sides.
    ///
    /// # Shapes
    /// [batch, time, 64, 64] of [`grid_pictures`], zeros behind the shorter clips -> [batch, time, 160]
    pub fn see(&self, pictures: Tensor<4>) -> Tensor<3> {
        let [batch, time, height, width] = pictures.dims();
        let near = neighbours(pictures.unsqueeze_dim::<5>(2), 1, NEIGHBOURS, 2);
        let x = near.reshape([batch * time, NEIGHBOURS, height, width]);
        let x = self.layers.iter().fold(x, |x, layer| layer.forward(x));
        let x: Tensor<2> = linear(&self.row, self.narrow.forward(x).flatten(1, 3));
        x.reshape([batch, time, ROW])
    }

    /// What each word is guessed from. Rows behind a clip's length are not looked at.
    ///
    /// # Shapes
    /// [batch, time, 160] and a length for each clip -> [batch, 6, 256]
    pub fn gather(&self, rows: Tensor<3>, lengths: &[usize]) -> Tensor<3> {
        let ([batch, time, _], device) = (rows.dims(), rows.device());
        let flags = lengths.iter().flat_map(|length| (0..time).map(move |t| if t < *length { 1f32 } else { 0.0 }));
        let present: Tensor<3> =
            Tensor::from_data(TensorData::new(flags.collect::<Vec<f32>>(), [batch, time, 1]), (&device, DType::F32));
        let rows = self.temporal.iter().fold(rows, |rows, layer| layer.forward(rows, &present));
        let rows = layer_norm(&self.norm, rows);
        let scores = linear(&self.scores, rows.clone()) + self.bells(time, &device);
        let scores = scores + (present.neg() + 1.0) * ABSENT;
        let weights = softmax(scores, 1).reshape([batch, time, SLOTS, HEADS]).permute([0, 3, 2, 1]);
        let values = linear(&self.values, rows).reshape([batch, time, HEADS, HEAD]).swap_dims(1, 2);
        let found = weights.matmul(values).swap_dims(1, 2).reshape([batch, SLOTS, SLOT]);
        layer_norm(&self.slot_norm, found)
    }

    /// What is added to the scores: how far each frame is from where each look expects its word.
    ///
    /// # Shapes
    /// -> [1, time, 24]
    fn bells(&self, time: usize, device: &Device) -> Tensor<3> {
        let frames: Vec<f32> = (0..time).map(|t| t as f32).collect();
        let frames = Tensor::<3>::from_data(TensorData::new(frames, [1, time, 1]), (device, DType::F32));
        let first: Vec<f32> =
            CENTRES.iter().flat_map(|centre| OFFSETS.map(|offset| (centre + offset) as f32)).collect();
        let first = Tensor::<1>::from_data(TensorData::new(first, [SLOTS * HEADS]), (device, DType::F32));
        let centres: Tensor<3> = (first + self.moves.val() * MOVE).unsqueeze();
        let spreads: Tensor<3> = (self.spreads.val().exp() * SPREAD).unsqueeze();
        ((frames - centres) / spreads).powi_scalar(2) * -0.5
    }

    /// How much each word of each list is taken to have been said.
    ///
    /// # Shapes
    /// [batch, 6, 256] -> six of [batch, words of the list]
    pub fn say(&self, slots: Tensor<3>) -> Vec<Tensor<2>> {
        let slot = |slot: usize| slots.clone().narrow(1, slot, 1).squeeze_dim::<2>(1);
        self.words.iter().enumerate().map(|(at, words)| linear(words, slot(at))).collect()
    }

    /// The likeliest command of each clip; its words are chosen one by one.
    ///
    /// # Shapes
    /// as [`Self::see`]
    pub fn sentences(&self, pictures: Tensor<4>, lengths: &[usize]) -> Vec<GridSentence> {
        let said = self.say(self.gather(self.see(pictures), lengths));
        let best: Vec<Vec<usize>> = said.into_iter().map(likeliest).collect();
        let one = |clip: usize| GridSentence::of_indices(std::array::from_fn(|slot| best[slot][clip]));
        (0..lengths.len()).map(|clip| one(clip).expect("every list has a head of its length")).collect()
    }

    /// The likeliest command of a clip at 25 pictures a second.
    ///
    /// # Shapes
    /// grey [frames, 64, 64] bytes, row-major
    ///
    /// # Errors
    /// [`ModelError::Parameter`] for no pictures, a part of one, or more than [`MAX_FRAMES`].
    pub fn read(&self, grey: &[u8], device: &Device) -> ModelResult<GridSentence> {
        let frames = grey.len() / PICTURE.pow(2);
        if frames == 0 || frames > MAX_FRAMES || !grey.len().is_multiple_of(PICTURE.pow(2)) {
            let value = format!("{} bytes, {frames} of {PICTURE} x {PICTURE}", grey.len());
            let allowed = format!("a command has 1 to {MAX_FRAMES} whole pictures: cut longer clips at their commands");
            return Err(ModelError::parameter(STAGE, "pictures", value, allowed));
        }
        let data = TensorData::new(grid_pictures(grey), [1, frames, PICTURE, PICTURE]);
        let pictures = Tensor::from_data(data, (device, DType::F32));
        Ok(self.sentences(pictures, &[frames])[0])
    }
}

/// The likeliest column of each row.
fn likeliest(logits: Tensor<2>) -> Vec<usize> {
    let [_, columns] = logits.dims();
    let values: Vec<f32> = logits.into_data().convert::<f32>().try_into_vec().expect("converted to f32");
    let best = |row: &[f32]| (0..columns).max_by(|a, b| row[*a].total_cmp(&row[*b])).unwrap_or(0);
    values.chunks_exact(columns).map(best).collect()
}

/// The mouths of a clip as the network sees them: less their mean over the clip, in units of their contrast.
///
/// # Shapes
/// grey [frames, 64, 64] bytes -> the same of values
pub fn grid_pictures(grey: &[u8]) -> Vec<f32> {
    let pixels = PICTURE.pow(2);
    let frames = (grey.len() / pixels).max(1) as f32;
    let mut mean = vec![0f32; pixels];
    for picture in grey.chunks_exact(pixels) {
        mean.iter_mut().zip(picture).for_each(|(sum, value)| *sum += f32::from(*value) / frames);
    }
    let middle = mean.iter().sum::<f32>() / pixels as f32;
    let squares: f32 = mean.iter().map(|value| (value - middle).powi(2)).sum();
    let scale = CHANGE_SCALE / (squares / pixels as f32).sqrt().max(LEAST_DEVIATION);
    let changes = |picture: &[u8]| -> Vec<f32> {
        picture.iter().zip(&mean).map(|(value, mean)| (f32::from(*value) - mean) * scale).collect()
    };
    grey.chunks_exact(pixels).flat_map(changes).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::conv_norm::count_learned;
    use crate::reader::grid_sentence::VOCABULARY;

    fn net(seed: u64) -> GridReader {
        let device = Device::flex();
        device.seed(seed);
        GridReader::new(&device)
    }

    fn grey(frames: usize, salt: usize) -> Vec<u8> {
        (0..frames * PICTURE.pow(2)).map(|i| ((i * 7919 + i * i / 97 * salt) % 251) as u8).collect()
    }

    /// Clips one after the other, the shorter ones filled up with zeros.
    fn batch(clips: &[&[u8]], time: usize) -> Tensor<4> {
        let mut values = Vec::new();
        for (number, clip) in clips.iter().enumerate() {
            values.extend(grid_pictures(clip));
            values.resize((number + 1) * time * PICTURE.pow(2), 0.0);
        }
        let data = TensorData::new(values, [clips.len(), time, PICTURE, PICTURE]);
        Tensor::from_data(data, (&Device::flex(), DType::F32))
    }

    fn values(said: Vec<Tensor<2>>, clip: usize) -> Vec<f32> {
        let one = |x: Tensor<2>| x.narrow(0, clip, 1).into_data().convert::<f32>().try_into_vec::<f32>().unwrap();
        said.into_iter().flat_map(one).collect()
    }

    #[test]
    fn costs_are_those_of_the_layers() {
        let cost = GridReader::cost(1);
        assert_eq!(cost.parameters, count_learned(&net(1)) as u64);
        assert!((500_000..1_500_000).contains(&cost.parameters), "{}", cost.parameters);
        let macs = (GridReader::cost(75).macs - GridReader::cost(74).macs, GridReader::cost(76).parameters);
        assert!(macs.0 < 5_500_000 && macs.1 == cost.parameters, "{macs:?}");
    }

    #[test]
    fn a_clip_does_not_depend_on_its_neighbours_or_on_what_fills_it_up() {
        let net = net(2);
        let (short, long) = (grey(20, 3), grey(33, 5));
        let say = |pictures: Tensor<4>, lengths: &[usize]| net.say(net.gather(net.see(pictures), lengths));
        let alone = values(say(batch(&[&short], 20), &[20]), 0);
        assert_eq!(alone.len(), VOCABULARY.iter().map(|known| known.len()).sum::<usize>());
        let beside = values(say(batch(&[&long, &short], 40), &[33, 20]), 1);
        for (a, b) in alone.iter().zip(&beside) {
            assert!((a - b).abs() < 1e-4, "{a} {b}");
        }
        // All frames count, the last one too.
        let other = [&short[..19 * PICTURE.pow(2)], &grey(1, 11)].concat();
        let changed = values(say(batch(&[&other], 20), &[20]), 0);
        assert!(alone.iter().zip(&changed).any(|(a, b)| (a - b).abs() > 1e-4));
    }

    #[test]
    fn looks_differ_and_the_order_of_frames_counts() {
        let net = net(3);
        let clip = grey(60, 7);
        let backwards: Vec<u8> = clip.chunks(PICTURE.pow(2)).rev().flatten().copied().collect();
        let slots = net.gather(net.see(batch(&[&clip, &backwards], 60)), &[60, 60]);
        let apart = |a: Tensor<3>, b: Tensor<3>| (a - b).abs().max().into_scalar::<f32>();
        let part = |clip: usize, slot: usize| slots.clone().narrow(0, clip, 1).narrow(1, slot, 1);
        assert!(apart(part(0, 0), part(0, 5)) > 1e-3);
        assert!(apart(part(0, 0), part(1, 0)) > 1e-3);
    }

    #[test]
    fn a_still_mouth_is_nothing_and_contrast_does_not_matter() {
        assert!(grid_pictures(&grey(1, 3)).iter().all(|value| value.abs() < 1e-4));
        let clip: Vec<u8> = grey(6, 3).into_iter().map(|value| value / 2).collect();
        let brighter: Vec<u8> = clip.iter().map(|value| value * 2 + 3).collect();
        for (a, b) in grid_pictures(&clip).into_iter().zip(grid_pictures(&brighter)) {
            assert!((a - b).abs() < 1e-3, "{a} {b}");
        }
    }

    #[test]
    fn clips_of_other_lengths_are_refused() {
        let (net, device) = (net(4), Device::flex());
        let pixels = PICTURE.pow(2);
        for bytes in [0, pixels - 1, pixels + 1, (MAX_FRAMES + 1) * pixels] {
            let error = net.read(&vec![0; bytes], &device).unwrap_err();
            assert!(matches!(&error, ModelError::Parameter { .. }) && error.to_string().contains("250"), "{error}");
        }
        assert_eq!(net.read(&grey(1, 3), &device).unwrap().words().len(), SLOTS);
    }

    #[test]
    fn files_say_what_they_are() {
        let (folder, device, net) = (tempfile::tempdir().unwrap(), Device::flex(), net(5));
        let path = folder.path().join("reader.safetensors");
        let about = AboutReader { seed: 3, steps: 7, data: "GRID (2 clips)".into(), licence: "CC BY 4.0".into() };
        net.save(&path, &about).unwrap();
        assert_eq!(GridReader::about(&path).unwrap(), about);
        let loaded = GridReader::load(&path, &device).unwrap();
        let clip = grey(30, 3);
        let say = |net: &GridReader| values(net.say(net.gather(net.see(batch(&[&clip], 30)), &[30])), 0);
        for (a, b) in say(&loaded).into_iter().zip(say(&net)) {
            assert!((a - b).abs() < 2e-2, "{a} {b}");
        }
        let bytes = std::fs::read(&path).unwrap();
        net.save(&path, &about).unwrap();
        assert_eq!(bytes, std::fs::read(&path).unwrap(), "the same bytes every time");
        std::fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
        assert!(GridReader::load(&path, &device).unwrap_err().to_string().contains("reader.safetensors"));
    }
}
