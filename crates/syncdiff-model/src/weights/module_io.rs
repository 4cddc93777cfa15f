//! Between a [`TensorMap`] and the parameters of a Burn module.
//!
//! Burn and PyTorch differ in two things only: a `Linear` holds its weight as `[in, out]` here and `[out, in]` on
//! disk, and the norms call their parameters `gamma` and `beta` here, `weight` and `bias` on disk. Both are handled
//! here, by the type name of the module that holds the parameter; every other layout is the same.

use std::collections::{BTreeMap, BTreeSet};

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{DType, Tensor, TensorData};
use sha2::{Digest, Sha256};
use syncdiff_kernels::transposed;

use crate::error::{ModelError, ModelResult};
use crate::weights::folder::hex;
use crate::weights::remap::Remap;
use crate::weights::tensor_map::{StoredTensor, TensorMap};

/// Fills every float parameter (and running statistic) of `module` from `tensors`, as `f32`.
///
/// Only tensors under the prefix of `remap` are looked at. Nothing is changed unless everything fits.
///
/// # Shapes
/// A tensor fits when its shape is the parameter's own, in PyTorch's layout; trailing axes of length 1 do not count,
/// so that a 1x1 convolution of an original project can fill a `Linear`.
///
/// # Errors
/// [`ModelError::WeightsMismatch`] with everything missing, extra and misshapen; [`ModelError::Io`] when the file
/// fails while it is read.
pub fn load_into<M: Module>(module: M, tensors: &TensorMap, remap: &Remap) -> ModelResult<M> {
    load_into_from(module, tensors, remap, "the given set of tensors")
}

/// As [`load_into`]; errors call the tensors `source_name`, for example the path of their file.
pub fn load_into_from<M: Module>(module: M, tensors: &TensorMap, remap: &Remap, source_name: &str) -> ModelResult<M> {
    check_into(&module, tensors, remap, source_name)?;
    let mut loader = Loader { place: Place::default(), tensors, remap, failure: None };
    let module = module.map(&mut loader);
    match loader.failure {
        Some(error) => Err(error),
        None => Ok(module),
    }
}

/// Whether [`load_into_from`] would fill `module`; reads no tensor and initialises no lazy parameter.
///
/// # Errors
/// [`ModelError::WeightsMismatch`] with everything missing, extra and misshapen.
pub fn check_into<M: Module>(module: &M, tensors: &TensorMap, remap: &Remap, source_name: &str) -> ModelResult<()> {
    check(&[(&module_shapes(module, remap), remap)], tensors, source_name, false)
}

/// Name on disk and shape on disk of every float parameter of `module`; initialises no lazy parameter.
pub fn module_shapes<M: Module>(module: &M, remap: &Remap) -> BTreeMap<String, Vec<usize>> {
    let mut collector = Collector { place: Place::default(), remap, shapes: BTreeMap::new(), tensors: None };
    module.visit(&mut collector);
    collector.shapes
}

/// Every float parameter of `module` as a tensor in PyTorch's layout, under its name on disk.
pub fn module_tensors<M: Module>(module: &M, remap: &Remap) -> TensorMap {
    let tensors = Some(TensorMap::new());
    let mut collector = Collector { place: Place::default(), remap, shapes: BTreeMap::new(), tensors };
    module.visit(&mut collector);
    collector.tensors.unwrap_or_default()
}

/// SHA-256 of a module's parameters, names and shapes with them, as lower-case hexadecimal: what it computes depends on
/// nothing else, whatever file it came from.
///
/// # Errors
/// None in practice: parameters of a module are in memory.
pub fn sha256_of_module<M: Module>(module: &M) -> ModelResult<String> {
    let mut hash = Sha256::new();
    for (name, tensor) in module_tensors(module, &Remap::identity()) {
        hash.update(format!("{name} {:?}\n", tensor.shape()));
        tensor.to_f32()?.iter().for_each(|value| hash.update(value.to_le_bytes()));
    }
    Ok(hex(&hash.finalize()))
}

/// Compares what modules need with what a file holds; one error for all differences.
///
/// With `whole_file`, a tensor outside every module's prefix is extra too.
pub(crate) fn check(
    needed: &[(&BTreeMap<String, Vec<usize>>, &Remap)],
    tensors: &TensorMap,
    source_name: &str,
    whole_file: bool,
) -> ModelResult<()> {
    let (mut missing, mut misshapen, mut extra) = (Vec::new(), Vec::new(), Vec::new());
    let mut used = BTreeSet::new();
    for (name, shape) in needed.iter().flat_map(|(shapes, _)| shapes.iter()) {
        used.insert(name.as_str());
        match tensors.get(name) {
            None => missing.push(name.clone()),
            Some(tensor) if !tensor.dtype().is_float() => {
                misshapen.push(format!("{name}: file has {:?} elements, model needs floats", tensor.dtype()));
            }
            Some(tensor) if significant(tensor.shape()) != significant(shape) => {
                misshapen.push(format!("{name}: file has {:?}, model needs {shape:?}", tensor.shape()));
            }
            Some(_) => {}
        }
    }
    for name in tensors.keys().filter(|name| !used.contains(name.as_str())) {
        let mut owners = needed.iter().filter(|(_, remap)| name.starts_with(remap.prefix())).peekable();
        let owned = owners.peek().is_some();
        let allowed = owners.any(|(_, remap)| remap.allows_unused(name));
        if !allowed && (owned || whole_file) {
            extra.push(name.clone());
        }
    }
    if missing.is_empty() && misshapen.is_empty() && extra.is_empty() {
        return Ok(());
    }
    Err(ModelError::WeightsMismatch { source_name: source_name.to_owned(), missing, extra, misshapen })
}

/// A shape without its trailing axes of length 1.
fn significant(shape: &[usize]) -> &[usize] {
    let len = shape.iter().rposition(|axis| *axis != 1).map_or(0, |last| last + 1);
    &shape[..len]
}

/// Where a walk through a module stands.
#[derive(Default)]
struct Place {
    path: Vec<String>,
    containers: Vec<String>,
}

impl Place {
    fn enter(&mut self, name: &str, container: &str) {
        self.containers.push(container.to_owned());
        if !container.starts_with("Enum:") {
            self.path.push(name.to_owned());
        }
    }

    fn exit(&mut self, container: &str) {
        self.containers.pop();
        if !container.starts_with("Enum:") {
            self.path.pop();
        }
    }

    /// Type name of the module that declares the parameter at this place.
    fn owner(&self) -> &str {
        let named = self.containers.iter().rev().find_map(|name| name.strip_prefix("Struct:"));
        named.unwrap_or("")
    }

    fn disk_name(&self, remap: &Remap) -> String {
        let norm = matches!(self.owner(), "LayerNorm" | "GroupNorm" | "BatchNorm" | "InstanceNorm" | "RmsNorm");
        let (last, parents) = match self.path.split_last() {
            Some((last, parents)) => (last.as_str(), parents),
            None => ("", &self.path[..]),
        };
        let last = match last {
            "gamma" if norm => "weight",
            "beta" if norm => "bias",
            other => other,
        };
        let path: Vec<&str> = parents.iter().map(String::as_str).chain([last]).collect();
        remap.disk_name(&path.join("."))
    }

    fn is_linear_weight(&self) -> bool {
        self.owner() == "Linear" && self.path.last().is_some_and(|name| name == "weight")
    }
}

struct Collector<'a> {
    place: Place,
    remap: &'a Remap,
    shapes: BTreeMap<String, Vec<usize>>,
    tensors: Option<TensorMap>,
}

impl ModuleVisitor for Collector<'_> {
    fn enter_module(&mut self, name: &str, container_type: &str) {
        self.place.enter(name, container_type);
    }

    fn exit_module(&mut self, _name: &str, container_type: &str) {
        self.place.exit(container_type);
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let name = self.place.disk_name(self.remap);
        let mut shape = param.lazy_shape().as_slice().to_vec();
        let transpose = self.place.is_linear_weight();
        if transpose {
            shape.reverse();
        }
        if let Some(tensors) = &mut self.tensors {
            let data = param.transform_for_save().val().into_data().convert_dtype(DType::F32);
            let values = data.try_into_vec::<f32>().expect("the data was converted to f32 in the line above");
            let values = if transpose { transposed(&values, shape[0]) } else { values };
            tensors.insert(name.clone(), StoredTensor::from_f32(&shape, &values));
        }
        self.shapes.insert(name, shape);
    }
}

struct Loader<'a> {
    place: Place,
    tensors: &'a TensorMap,
    remap: &'a Remap,
    failure: Option<ModelError>,
}

impl Loader<'_> {
    fn values(&self, name: &str, shape: &[usize]) -> ModelResult<Vec<f32>> {
        let tensor = self.tensors.get(name);
        let tensor =
            tensor.ok_or_else(|| ModelError::internal("weights", format!("{name} was checked, yet is missing")))?;
        let values = tensor.to_f32()?;
        Ok(if self.place.is_linear_weight() { transposed(&values, shape[0]) } else { values })
    }
}

impl ModuleMapper for Loader<'_> {
    fn enter_module(&mut self, name: &str, container_type: &str) {
        self.place.enter(name, container_type);
    }

    fn exit_module(&mut self, _name: &str, container_type: &str) {
        self.place.exit(container_type);
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        if self.failure.is_some() {
            return param;
        }
        let shape = param.lazy_shape().as_slice().to_vec();
        match self.values(&self.place.disk_name(self.remap), &shape) {
            Ok(values) => {
                let (id, device) = (param.id, param.lazy_device());
                // Without `F32` the tensor would take whatever float type the device prefers.
                let tensor = Tensor::from_data(TensorData::new(values, shape), (&device, DType::F32));
                param.transform_for_load(tensor, id)
            }
            Err(error) => {
                self.failure = Some(error);
                param
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::nn::{LayerNorm, LayerNormConfig, Linear, LinearConfig};
    use burn::tensor::Device;

    #[derive(Module, Debug)]
    struct Tiny {
        fc: Linear,
        norms: Vec<LayerNorm>,
    }

    fn tiny(device: &Device) -> Tiny {
        let norms = (0..2).map(|_| LayerNormConfig::new(3).init(device)).collect();
        Tiny { fc: LinearConfig::new(2, 3).init(device), norms }
    }

    fn tiny_tensors() -> TensorMap {
        let mut map = TensorMap::new();
        map.insert("t.fc.weight".into(), StoredTensor::from_f32(&[3, 2], &[1., 2., 3., 4., 5., 6.]));
        map.insert("t.fc.bias".into(), StoredTensor::from_f32(&[3], &[10., 20., 30.]));
        for (i, name) in ["t.ln.0", "t.ln.1"].into_iter().enumerate() {
            map.insert(format!("{name}.weight"), StoredTensor::from_f32(&[3], &[1. + i as f32; 3]));
            map.insert(format!("{name}.bias"), StoredTensor::from_f32(&[3], &[i as f32; 3]));
        }
        map
    }

    fn remap() -> Remap {
        Remap::table(&[("norms", "ln")]).with_prefix("t.")
    }

    #[test]
    fn equal_parameters_have_the_same_hash_whatever_their_names_on_disk() {
        let device = Device::default();
        let hash = |tensors: &TensorMap, remap: &Remap| {
            sha256_of_module(&load_into(tiny(&device), tensors, remap).unwrap()).unwrap()
        };
        let tensors = tiny_tensors();
        let elsewhere: TensorMap = tensors.iter().map(|(name, t)| (name.replacen("t.", "u.", 1), t.clone())).collect();
        let first = hash(&tensors, &remap());
        assert_eq!(first, hash(&elsewhere, &Remap::table(&[("norms", "ln")]).with_prefix("u.")));
        let mut other = tensors.clone();
        other.insert("t.fc.bias".into(), StoredTensor::from_f32(&[3], &[10., 20., 30.5]));
        assert_ne!(first, hash(&other, &remap()));
        assert!(first.len() == 64 && first.bytes().all(|byte| byte.is_ascii_hexdigit()));
    }

    #[test]
    fn pytorch_layout_and_names_load_and_come_back_unchanged() {
        let device = Device::default();
        let tensors = tiny_tensors();
        let module = load_into(tiny(&device), &tensors, &remap()).unwrap();
        let y = module.fc.forward(Tensor::<2>::from_data([[1.0f32, 100.0]], &device));
        assert_eq!(y.into_data().try_to_vec::<f32>().unwrap(), [211., 423., 635.]);
        assert_eq!(module.norms[1].gamma.val().into_data().try_to_vec::<f32>().unwrap(), [2.0; 3]);
        let back = module_tensors(&module, &remap());
        assert_eq!(back.keys().collect::<Vec<_>>(), tensors.keys().collect::<Vec<_>>());
        for (name, tensor) in &tensors {
            assert_eq!(back[name].shape(), tensor.shape(), "{name}");
            assert_eq!(back[name].bytes().unwrap(), tensor.bytes().unwrap(), "{name}");
        }
    }

    #[test]
    fn loaded_parameters_still_take_gradients() {
        let device = Device::default().autodiff();
        let module = load_into(tiny(&device), &tiny_tensors(), &remap()).unwrap();
        let grads = module.fc.forward(Tensor::<2>::ones([1, 2], &device)).sum().backward();
        assert!(module.fc.weight.val().grad(&grads).is_some());
    }

    #[test]
    fn one_error_lists_missing_extra_and_misshapen() {
        let mut tensors = tiny_tensors();
        tensors.remove("t.fc.bias");
        tensors.insert("t.ln.2.weight".into(), StoredTensor::from_f32(&[3], &[0.; 3]));
        tensors.insert("t.fc.weight".into(), StoredTensor::from_f32(&[2, 3], &[0.; 6]));
        tensors.insert("other.x".into(), StoredTensor::from_f32(&[1], &[0.]));
        let error = load_into(tiny(&Device::default()), &tensors, &remap()).unwrap_err();
        let ModelError::WeightsMismatch { missing, extra, misshapen, .. } = error else { panic!("{error}") };
        assert_eq!(missing, ["t.fc.bias"]);
        assert_eq!(extra, ["t.ln.2.weight"]);
        assert_eq!(misshapen, ["t.fc.weight: file has [2, 3], model needs [3, 2]"]);
    }
}
