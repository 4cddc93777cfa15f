//! A part of a step as a file: its loss, the parts of the loss, and its gradients under the paths of the parameters.

use crate::error::{TrainError, TrainResult};
use crate::trainer::Part;
use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::{Tensor, TensorData};
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use syncdiff_model::weights::folder::save_safetensors;
use syncdiff_model::weights::{Storage, StoredTensor, TensorMap, open_safetensors};

const LOSS: &str = "loss";
const WEIGHTS: &str = "weights";
/// What comes before the names of the loss's parts and the paths of the parameters.
const PART: &str = "part.";
const GRADIENT: &str = "gradient.";

/// Where a walk through a module stands.
#[derive(Default)]
struct Place(Vec<String>);

impl Place {
    fn name(&self) -> String {
        format!("{GRADIENT}{}", self.0.join("."))
    }
}

fn values<const D: usize>(tensor: Tensor<D>) -> (Vec<usize>, Vec<f32>) {
    let shape = tensor.dims().to_vec();
    (shape, tensor.into_data().convert::<f32>().try_into_vec().expect("converted to f32"))
}

struct Collect<'a> {
    place: Place,
    gradients: &'a GradientsParams,
    tensors: TensorMap,
}

impl ModuleVisitor for Collect<'_> {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.place.0.push(name.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.place.0.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(gradient) = self.gradients.get::<D>(param.id) {
            let (shape, values) = values(gradient);
            self.tensors.insert(self.place.name(), StoredTensor::from_f32(&shape, &values));
        }
    }
}

struct Restore<'a> {
    place: Place,
    tensors: &'a TensorMap,
    gradients: GradientsParams,
    failure: Option<TrainError>,
    path: &'a Path,
}

impl ModuleVisitor for Restore<'_> {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.place.0.push(name.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.place.0.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        // A parameter that no loss has asked for has no gradient.
        let name = self.place.name();
        let Some(stored) = self.tensors.get(&name) else { return };
        let value = param.val();
        if stored.shape() != value.dims() {
            let found = format!("{name} has the shape {:?}, the parameter {:?}", stored.shape(), value.dims());
            self.failure = Some(TrainError::io(self.path, found));
            return;
        }
        match stored.to_f32() {
            Ok(values) => {
                let data = TensorData::new(values, value.dims());
                self.gradients.register(param.id, Tensor::<D>::from_data(data, &value.device().inner()));
            }
            Err(error) => self.failure = Some(error.into()),
        }
    }
}

/// Writes a part; it is whole as soon as it is there.
pub(super) fn write<M: Module>(path: &Path, model: &M, weights: u64, part: &Part) -> TrainResult<()> {
    let mut collect = Collect { place: Place::default(), gradients: &part.gradients, tensors: TensorMap::new() };
    model.visit(&mut collect);
    let mut tensors = collect.tensors;
    let single = |value: f32| StoredTensor::from_f32(&[1], &[value]);
    tensors.insert(LOSS.into(), single(part.loss));
    tensors.insert(WEIGHTS.into(), StoredTensor::from_f32(&[4], &words(weights)));
    // With a number, for the order of the log.
    for (number, (name, value)) in part.parts.iter().enumerate() {
        tensors.insert(format!("{PART}{number:03}.{name}"), single(*value));
    }
    let partial = path.with_extension("partial");
    save_safetensors(&tensors, Storage::F32, &partial)?;
    fs::rename(&partial, path).map_err(|e| TrainError::io(path, e))
}

/// Numbers below 65536 are exact as f32.
fn words(digest: u64) -> [f32; 4] {
    [0, 16, 32, 48].map(|shift| f32::from((digest >> shift) as u16))
}

/// Reads a part back, for a model whose parameters have other numbers; `weights` are the digest of that model.
pub(super) fn read<M: Module>(path: &Path, model: &M, weights: u64, names: &mut Names) -> TrainResult<Part> {
    let tensors = open_safetensors(path)?;
    let of = |name: &str| -> TrainResult<Vec<f32>> {
        let tensor = tensors.get(name).ok_or_else(|| TrainError::io(path, format!("it lacks the tensor {name}")))?;
        Ok(tensor.to_f32()?)
    };
    if of(WEIGHTS)? != words(weights) {
        let reason = "it was computed with other weights than this process has. Run all processes with the same version \
                      of this program, the same files and processors of the same kind";
        return Err(TrainError::io(path, reason));
    }
    let first = |name: &str| Ok::<_, TrainError>(of(name)?.first().copied().unwrap_or(f32::NAN));
    let mut parts = Vec::new();
    for key in tensors.keys() {
        if let Some((_, name)) = key.strip_prefix(PART).and_then(|name| name.split_once('.')) {
            parts.push((names.of(name), first(key)?));
        }
    }
    let gradients = GradientsParams::new();
    let mut restore = Restore { place: Place::default(), tensors: &tensors, gradients, failure: None, path };
    model.visit(&mut restore);
    match restore.failure {
        Some(error) => Err(error),
        None => Ok(Part { loss: first(LOSS)?, parts, gradients: restore.gradients }),
    }
}

/// Names of the parts of a loss. A log line wants names that live as long as the program; a trainer has a handful.
#[derive(Default)]
pub(super) struct Names(BTreeSet<&'static str>);

impl Names {
    fn of(&mut self, name: &str) -> &'static str {
        if let Some(known) = self.0.get(name) {
            return known;
        }
        let kept: &'static str = Box::leak(name.to_owned().into_boxed_str());
        self.0.insert(kept);
        kept
    }
}

struct Digest(u64);

impl ModuleVisitor for Digest {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        for value in values(param.val()).1 {
            // FNV-1a over words: quick, and no value can change unseen.
            self.0 = (self.0 ^ u64::from(value.to_bits())).wrapping_mul(0x0000_0100_0000_01B3);
        }
    }
}

/// A number that differs when any value of the model does.
pub(super) fn digest<M: Module>(model: &M) -> u64 {
    let mut digest = Digest(0xCBF2_9CE4_8422_2325);
    model.visit(&mut digest);
    digest.0
}
