//! S3FD: the face detector of Wav2Lip, TalkLip and SyncNet's scoring of wild videos, so that their boxes can be repeated.
//!
//! # Source
//! Wav2Lip `face_detection/detection/sfd/net_s3fd.py`, `detect.py`, `bbox.py`, `face_detection/api.py` (from
//! 1adrianb/face-alignment, BSD-3). Names on disk are those of `s3fd.pth`.

use burn::module::{Initializer, Module, Param};
use burn::tensor::activation::{relu, softmax};
use burn::tensor::module::max_pool2d;
use burn::tensor::ops::MaxPoolOptions;
use burn::tensor::{Device, Tensor, TensorData};

use crate::cost::{Cost, Meter};
use crate::nn::conv_norm::{Conv, ConvShape};
use crate::weights::Remap;

/// Levels of detection, each on a grid twice as coarse.
pub const NUM_LEVELS: usize = 6;
/// Boxes below are not decoded.
pub const DECODED_SCORE: f32 = 0.05;
/// Boxes below are no faces.
pub const FACE_SCORE: f32 = 0.5;
/// Of two boxes that overlap by more, the one with the lower score goes.
pub const MAX_OVERLAP: f32 = 0.3;

/// Taken off the channels of an RGB picture, in this order. The figures are those of blue, green and red: a slip of
/// the original that its weights' users repeat.
const MEANS: [f32; 3] = [104.0, 117.0, 123.0];
const FIRST_STRIDE: f32 = 4.0;
const ANCHOR_STRIDES: f32 = 4.0;
const VARIANCES: [f32; 2] = [0.1, 0.2];
const NORM_EPS: f64 = 1e-10;

const C3: ConvShape = ConvShape::square(3, 1, 1);
const C1: ConvShape = ConvShape::square(1, 1, 0);
const HALF: ConvShape = ConvShape::square(3, 2, 1);

/// What happens around a convolution of the trunk.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    Plain,
    /// Its output is pooled.
    Pooled,
    /// Its output is a level.
    Level,
    /// Its output is a level, and is pooled.
    PooledLevel,
}
use Role::{Level, Plain, Pooled, PooledLevel};

/// The trunk: name on disk, output channels, shape, role.
const TRUNK: [(&str, usize, ConvShape, Role); 19] = [
    ("conv1_1", 64, C3, Plain),
    ("conv1_2", 64, C3, Pooled),
    ("conv2_1", 128, C3, Plain),
    ("conv2_2", 128, C3, Pooled),
    ("conv3_1", 256, C3, Plain),
    ("conv3_2", 256, C3, Plain),
    ("conv3_3", 256, C3, PooledLevel),
    ("conv4_1", 512, C3, Plain),
    ("conv4_2", 512, C3, Plain),
    ("conv4_3", 512, C3, PooledLevel),
    ("conv5_1", 512, C3, Plain),
    ("conv5_2", 512, C3, Plain),
    ("conv5_3", 512, C3, PooledLevel),
    ("fc6", 1024, ConvShape::square(3, 1, 3), Plain),
    ("fc7", 1024, C1, Level),
    ("conv6_1", 256, C1, Plain),
    ("conv6_2", 512, HALF, Level),
    ("conv7_1", 128, C1, Plain),
    ("conv7_2", 256, HALF, Level),
];

/// The levels: name on disk, channels, outputs of its confidence head, initial scale of its norm.
const LEVELS: [(&str, usize, usize, Option<f64>); NUM_LEVELS] = [
    ("conv3_3_norm", 256, 4, Some(10.0)),
    ("conv4_3_norm", 512, 2, Some(8.0)),
    ("conv5_3_norm", 512, 2, Some(5.0)),
    ("fc7", 1024, 2, None),
    ("conv6_2", 512, 2, None),
    ("conv7_2", 256, 2, None),
];

/// Scales features to a learnt length at every position.
#[derive(Module, Debug)]
struct L2Norm {
    /// [channels]
    weight: Param<Tensor<1>>,
}

impl L2Norm {
    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let length = x.clone().powi_scalar(2).sum_dim(1).sqrt() + NORM_EPS;
        x / length * self.weight.val().reshape([1, -1, 1, 1])
    }
}

/// What the network says on one level.
#[derive(Debug, Clone)]
pub struct LevelOutput {
    /// Background and face before the softmax, [batch, 2, rows, columns].
    pub scores: Tensor<4>,
    /// Offsets of the boxes from their anchors, [batch, 4, rows, columns].
    pub offsets: Tensor<4>,
}

/// The network: 22,459,110 parameters.
#[derive(Module, Debug)]
pub struct S3fd {
    trunk: Vec<Conv>,
    norms: Vec<L2Norm>,
    confidence: Vec<Conv>,
    location: Vec<Conv>,
}

impl S3fd {
    /// The network with PyTorch's default initialisation, the norms with the paper's scales.
    pub fn new(device: &Device) -> Self {
        let inputs = std::iter::once(3).chain(TRUNK.iter().map(|layer| layer.1));
        let norm = |(_, channels, _, scale): &(&str, usize, usize, Option<f64>)| {
            scale.map(|value| L2Norm { weight: Initializer::Constant { value }.init([*channels], device) })
        };
        Self {
            trunk: inputs.zip(TRUNK).map(|(input, layer)| Conv::new(input, layer.1, layer.2, device)).collect(),
            norms: LEVELS.iter().filter_map(norm).collect(),
            confidence: LEVELS.iter().map(|level| Conv::new(level.1, level.2, C3, device)).collect(),
            location: LEVELS.iter().map(|level| Conv::new(level.1, 4, C3, device)).collect(),
        }
    }

    /// One picture.
    pub fn cost(height: usize, width: usize) -> Cost {
        let (mut meter, mut input, mut heads) = (Meter::new([height, width]), 3, Cost::default());
        let mut levels = LEVELS.iter();
        for (_, output, shape, role) in &TRUNK {
            meter.conv(input, *output, shape);
            input = *output;
            if matches!(role, Level | PooledLevel)
                && let Some((_, channels, scores, scale)) = levels.next()
            {
                let mut head = Meter::new(meter.size);
                // Confidence and four offsets.
                head.conv(*channels, scores + 4, &C3);
                heads += head.cost + Cost::values(if scale.is_some() { *channels } else { 0 });
            }
            if matches!(role, Pooled | PooledLevel) {
                meter.pool([2, 2], [2, 2], [0, 0]);
            }
        }
        meter.cost + heads
    }

    /// Names in the source.
    pub fn remap() -> Remap {
        Remap::identity().with_names(|path| {
            let mut parts = path.split('.');
            let (list, index, last) = (parts.next()?, parts.next()?.parse::<usize>().ok()?, parts.next()?);
            Some(match list {
                "trunk" => format!("{}.{last}", TRUNK.get(index)?.0),
                "norms" => format!("{}.{last}", LEVELS.get(index)?.0),
                "confidence" => format!("{}_mbox_conf.{last}", LEVELS.get(index)?.0),
                _ => format!("{}_mbox_loc.{last}", LEVELS.get(index)?.0),
            })
        })
    }

    /// Finest level first.
    ///
    /// # Shapes
    /// [batch, 3, height, width], means taken off
    pub fn forward(&self, x: Tensor<4>) -> Vec<LevelOutput> {
        let mut x = x;
        let mut levels = Vec::with_capacity(NUM_LEVELS);
        for (conv, (_, _, _, role)) in self.trunk.iter().zip(TRUNK) {
            x = relu(conv.forward(x));
            if matches!(role, Level | PooledLevel) {
                levels.push(x.clone());
            }
            if matches!(role, Pooled | PooledLevel) {
                x = max_pool2d(x, MaxPoolOptions::new([2, 2]));
            }
        }
        let output = |(i, x): (usize, Tensor<4>)| {
            let x = self.norms.get(i).map_or_else(|| x.clone(), |norm| norm.forward(x.clone()));
            let scores = self.confidence[i].forward(x.clone());
            let scores = if LEVELS[i].2 == 4 { max_out(scores) } else { scores };
            LevelOutput { scores, offsets: self.location[i].forward(x) }
        };
        levels.into_iter().enumerate().map(output).collect()
    }

    /// Faces of each picture, best first, with a score above [`FACE_SCORE`].
    ///
    /// # Shapes
    /// [batch, 3, height, width], red-green-blue values 0 to 255
    pub fn detect(&self, pictures: Tensor<4>) -> Vec<Vec<FaceBox>> {
        let means = Tensor::<1>::from_data(TensorData::from(MEANS), &pictures.device()).reshape([1, 3, 1, 1]);
        let batch = pictures.dims()[0];
        let mut found = vec![Vec::new(); batch];
        let mut stride = FIRST_STRIDE;
        for level in self.forward(pictures - means) {
            let [_, _, rows, columns] = level.scores.dims();
            let faces = host(softmax(level.scores, 1).narrow(1, 1, 1));
            let offsets = host(level.offsets);
            for (i, found) in found.iter_mut().enumerate() {
                let cells = rows * columns;
                let (faces, offsets) = (&faces[i * cells..][..cells], &offsets[i * 4 * cells..][..4 * cells]);
                found.extend(decode_level(faces, offsets, columns, stride));
            }
            stride *= 2.0;
        }
        let faces = |boxes| {
            let mut kept = suppress(boxes, MAX_OVERLAP);
            kept.retain(|face| face.score > FACE_SCORE);
            kept
        };
        found.into_iter().map(faces).collect()
    }
}

/// The finest level has three outputs for the background, of which the largest counts.
///
/// # Shapes
/// [batch, 4, rows, columns] -> [batch, 2, rows, columns]
fn max_out(scores: Tensor<4>) -> Tensor<4> {
    let background = scores.clone().narrow(1, 0, 3).max_dim(1);
    Tensor::cat(vec![background, scores.narrow(1, 3, 1)], 1)
}

/// One box in pixels; a corner may lie outside the picture.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FaceBox {
    /// Left.
    pub x1: f32,
    /// Top.
    pub y1: f32,
    /// Right.
    pub x2: f32,
    /// Bottom.
    pub y2: f32,
    /// How likely this is a face, 0 to 1.
    pub score: f32,
}

impl FaceBox {
    /// The box as the users of this detector cut it out: negative corners at 0, then whole pixels `[x1, y1, x2, y2]`.
    pub fn pixels(&self) -> [usize; 4] {
        [self.x1, self.y1, self.x2, self.y2].map(|value| value.max(0.0) as usize)
    }

    fn area(&self) -> f32 {
        (self.x2 - self.x1 + 1.0) * (self.y2 - self.y1 + 1.0)
    }

    /// Intersection over union with the original's convention that a box ends after its last pixel.
    fn overlap(&self, other: &Self) -> f32 {
        let width = (self.x2.min(other.x2) - self.x1.max(other.x1) + 1.0).max(0.0);
        let height = (self.y2.min(other.y2) - self.y1.max(other.y1) + 1.0).max(0.0);
        let both = width * height;
        both / (self.area() + other.area() - both)
    }
}

/// Boxes of one picture and level with a score above [`DECODED_SCORE`]. Each cell has one square anchor, four strides
/// wide, at its centre; no list of anchors is needed.
///
/// # Shapes
/// faces: rows * columns probabilities; offsets: [4, rows, columns], row-major
pub fn decode_level(faces: &[f32], offsets: &[f32], columns: usize, stride: f32) -> Vec<FaceBox> {
    let cells = faces.len();
    let likely = faces.iter().enumerate().filter(|(_, score)| **score > DECODED_SCORE);
    let decode = |(cell, score): (usize, &f32)| {
        let offset = |axis: usize| offsets[axis * cells + cell];
        let size = ANCHOR_STRIDES * stride;
        let centre = |index: usize| stride / 2.0 + index as f32 * stride;
        let x = centre(cell % columns) + offset(0) * VARIANCES[0] * size;
        let y = centre(cell / columns) + offset(1) * VARIANCES[0] * size;
        let (width, height) = (size * (offset(2) * VARIANCES[1]).exp(), size * (offset(3) * VARIANCES[1]).exp());
        let (x1, y1) = (x - width / 2.0, y - height / 2.0);
        FaceBox { x1, y1, x2: x1 + width, y2: y1 + height, score: *score }
    };
    likely.map(decode).collect()
}

/// Non-maximum suppression: the best box stays and removes all that overlap it by more than `max_overlap`, and so on.
pub fn suppress(mut boxes: Vec<FaceBox>, max_overlap: f32) -> Vec<FaceBox> {
    boxes.sort_by(|a, b| b.score.total_cmp(&a.score));
    let mut kept: Vec<FaceBox> = Vec::new();
    for candidate in boxes {
        if kept.iter().all(|better| better.overlap(&candidate) <= max_overlap) {
            kept.push(candidate);
        }
    }
    kept
}

fn host(x: Tensor<4>) -> Vec<f32> {
    x.into_data().convert::<f32>().try_into_vec().expect("converted to f32")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::weights::{StoredTensor, TensorMap, load_into, module_shapes};

    #[test]
    fn parameter_count_and_names() {
        let net = S3fd::new(&Device::default());
        assert_eq!(net.num_params(), 22_459_110);
        assert_eq!(S3fd::cost(64, 96).parameters, 22_459_110);
        let shapes = module_shapes(&net, &S3fd::remap());
        for (name, shape) in [
            ("conv3_3_norm.weight", &[256][..]),
            ("conv3_3_norm_mbox_conf.weight", &[4, 256, 3, 3]),
            ("fc6.weight", &[1024, 512, 3, 3]),
            ("fc7_mbox_loc.bias", &[4]),
            ("conv7_2_mbox_conf.weight", &[2, 256, 3, 3]),
        ] {
            assert_eq!(shapes[name], shape, "{name}");
        }
        let scales = net.norms.iter().map(|norm| norm.weight.val().into_data().try_to_vec::<f32>().unwrap()[7]);
        assert!(scales.eq([10.0, 8.0, 5.0]));
    }

    #[test]
    fn levels_halve_and_a_face_is_found_where_the_network_says_so() {
        let device = Device::default();
        let net = S3fd::new(&device);
        // All weights zero: only the biases of the heads speak. Level 4 (stride 64, anchor 256) finds a face everywhere.
        let remap = S3fd::remap();
        let zeros = module_shapes(&net, &remap).into_iter().map(|(name, shape)| {
            let mut values = vec![0.0; shape.iter().product()];
            match name.as_str() {
                "conv6_2_mbox_conf.bias" => values.copy_from_slice(&[0.0, 3.0]),
                "conv6_2_mbox_loc.bias" => values.copy_from_slice(&[1.0, -0.5, 0.0, 0.0]),
                name if name.ends_with("mbox_conf.bias") => values[0] = 9.0,
                _ => {}
            }
            (name, StoredTensor::from_f32(&shape, &values))
        });
        let net = load_into(net, &zeros.collect::<TensorMap>(), &remap).unwrap();
        let x = Tensor::<4>::zeros([1, 3, 128, 160], &device);
        let sizes: Vec<_> = net.forward(x.clone()).iter().map(|level| level.offsets.dims()).collect();
        // Padding 3 of `fc6` adds four rows and columns to the fourth level.
        let rows_columns = [[32, 40], [16, 20], [8, 10], [8, 9], [4, 5], [2, 3]];
        assert_eq!(sizes, rows_columns.map(|[rows, columns]| [1, 4, rows, columns]));
        let faces = net.detect(x).remove(0);
        // Anchors of 256 pixels, 64 apart, all moved by (25.6, -12.8): those less than 0.3 alike stay.
        assert!(!faces.is_empty());
        let face = faces[0];
        assert!((face.score - 1.0 / (1.0 + (-3f32).exp())).abs() < 1e-6, "{face:?}");
        assert!((face.x2 - face.x1 - 256.0).abs() < 1e-3 && (face.y2 - face.y1 - 256.0).abs() < 1e-3, "{face:?}");
        assert!((face.x1 - (32.0 + 25.6 - 128.0)).abs() < 1e-3, "{face:?}");
        assert!((face.y1 - (32.0 - 12.8 - 128.0)).abs() < 1e-3, "{face:?}");
        assert_eq!(face.pixels(), [0, 0, 185, 147]);
    }

    #[test]
    fn the_largest_background_counts_on_the_finest_level() {
        let scores = Tensor::<1>::from_data([1.0f32, 5.0, 3.0, 4.0], &Device::default()).reshape([1, 4, 1, 1]);
        assert_eq!(max_out(scores).into_data().try_to_vec::<f32>().unwrap(), [5.0, 4.0]);
    }

    #[test]
    fn a_level_made_by_hand_is_decoded() {
        // Two rows of three cells, stride 8, anchors of 32; one cell above the limit.
        let mut faces = [0.01f32; 6];
        faces[4] = 0.9;
        let mut offsets = [0.0f32; 24];
        offsets[4] = 2.0; // centre x: 4 + 8 + 2 * 0.1 * 32 = 18.4
        offsets[6 + 4] = -1.0; // centre y: 4 + 8 - 3.2 = 8.8
        offsets[12 + 4] = 5.0 * std::f32::consts::LN_2; // width 64
        let boxes = decode_level(&faces, &offsets, 3, 8.0);
        let [face] = boxes[..] else { panic!("{boxes:?}") };
        for (value, expected) in [(face.x1, -13.6), (face.x2, 50.4), (face.y1, -7.2), (face.y2, 24.8)] {
            assert!((value - expected).abs() < 1e-4, "{face:?}");
        }
    }

    #[test]
    fn overlapping_boxes_lose_to_the_better_one() {
        let face = |x1: f32, score: f32| FaceBox { x1, y1: 0.0, x2: x1 + 9.0, y2: 9.0, score };
        // 10 pixels wide each: 5 apart overlap by 50 / 150, 6 apart by 40 / 160.
        let kept = suppress(vec![face(0.0, 0.6), face(5.0, 0.9), face(11.0, 0.7), face(30.0, 0.2)], MAX_OVERLAP);
        assert_eq!(kept.iter().map(|face| face.x1).collect::<Vec<_>>(), [5.0, 11.0, 30.0]);
    }
}
