//! Folders of weights: what is saved comes back, and what is damaged is refused.

use burn::module::Module;
use burn::nn::{GroupNorm, GroupNormConfig, Linear, LinearConfig};
use burn::tensor::{Device, Tensor};
use syncdiff_model::error::{Fault, ModelError};
use syncdiff_model::weights::{
    FolderText, Remap, Storage, StoredTensor, TensorMap, WeightsFolder, WeightsWriter, load_into, module_shapes,
    module_tensors,
};

#[derive(Module, Debug)]
struct Net {
    fc: Linear,
    norm: GroupNorm,
}

fn net(seed: u32) -> Net {
    let device = Device::default();
    let net = Net { fc: LinearConfig::new(24, 16).init(&device), norm: GroupNormConfig::new(4, 16).init(&device) };
    let remap = Remap::identity();
    let mut state = seed;
    let tensors: TensorMap = module_shapes(&net, &remap)
        .into_iter()
        .map(|(name, shape)| {
            let values: Vec<f32> = (0..shape.iter().product())
                .map(|_| {
                    state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    (state >> 8) as f32 / 8_388_608.0 - 1.0
                })
                .collect();
            (name, StoredTensor::from_f32(&shape, &values))
        })
        .collect();
    load_into(net, &tensors, &remap).unwrap()
}

const TEXT: FolderText<'_> = FolderText { config_toml: "width = 16\n", model_card: "# Card\n", licence: "MIT" };

fn audio() -> Remap {
    Remap::identity().with_prefix("audio.")
}

fn denoiser() -> Remap {
    Remap::table(&[("fc", "input_blocks.0")]).with_prefix("denoiser.")
}

fn written(storage: Storage) -> (tempfile::TempDir, Net, Net) {
    let (first, second) = (net(1), net(2));
    let mut writer = WeightsWriter::new();
    writer.add(&first, &audio()).unwrap();
    writer.add(&second, &denoiser()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    writer.save(folder.path(), storage, TEXT).unwrap();
    (folder, first, second)
}

#[test]
fn f32_round_trip_is_bit_identical_and_reproducible() {
    let (folder, first, second) = written(Storage::F32);
    let weights = WeightsFolder::open(folder.path()).unwrap();
    assert_eq!(weights.config_toml(), TEXT.config_toml);
    assert_eq!(weights.manifest().licence, "MIT");
    assert!(weights.tensors().contains_key("denoiser.input_blocks.0.weight"));
    assert_eq!(weights.tensors()["denoiser.input_blocks.0.weight"].shape(), [16, 24]);
    for (original, remap) in [(&first, audio()), (&second, denoiser())] {
        let loaded = weights.load(net(9), &remap).unwrap();
        let (a, b) = (module_tensors(original, &remap), module_tensors(&loaded, &remap));
        assert!(a.iter().all(|(name, tensor)| tensor.bytes().unwrap() == b[name].bytes().unwrap()));
    }
    let (again, ..) = written(Storage::F32);
    assert_eq!(WeightsFolder::open(again.path()).unwrap().manifest(), weights.manifest());
}

#[test]
fn half_precision_loads_as_f32_within_the_stated_error() {
    for (storage, relative) in [(Storage::F16, 2f32.powi(-11)), (Storage::Bf16, 2f32.powi(-8))] {
        let (folder, first, _) = written(storage);
        let weights = WeightsFolder::open(folder.path()).unwrap();
        let loaded = weights.load(net(9), &audio()).unwrap();
        let (a, b) = (module_tensors(&first, &audio()), module_tensors(&loaded, &audio()));
        for (name, tensor) in &a {
            for (x, y) in tensor.to_f32().unwrap().iter().zip(b[name].to_f32().unwrap()) {
                assert!((x - y).abs() <= (relative * x.abs()).max(2f32.powi(-25)), "{storage:?} {name}: {x} {y}");
            }
        }
    }
}

#[test]
fn a_value_beyond_f16_is_refused_with_its_name() {
    let mut module = net(1);
    let gamma = Tensor::<1>::ones([16], &Device::default()) * 7e4;
    module.norm.gamma = module.norm.gamma.map(|param| param.map(|_| gamma));
    let mut writer = WeightsWriter::new();
    writer.add(&module, &audio()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let error = writer.save(folder.path(), Storage::F16, TEXT).unwrap_err();
    assert!(matches!(&error, ModelError::Limit { name, .. } if name.contains("audio.norm.weight")), "{error}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "no partial file stays");
}

#[test]
fn one_check_covers_all_modules_of_a_folder() {
    let (folder, first, second) = written(Storage::F32);
    let weights = WeightsFolder::open(folder.path()).unwrap();
    let (a, d) = (audio(), denoiser());
    let both = [(module_shapes(&first, &a), &a), (module_shapes(&second, &d), &d)];
    weights.check(&both).unwrap();
    let error = weights.check(&both[..1]).unwrap_err();
    assert_eq!(error.fault(), Fault::Weights);
    let ModelError::WeightsMismatch { missing, extra, .. } = error else { panic!("{error}") };
    assert!(missing.is_empty());
    assert_eq!(extra.len(), 4, "the tensors of the other module: {extra:?}");
}

#[test]
fn damaged_folders_are_refused() {
    let (folder, ..) = written(Storage::F16);
    let model = folder.path().join("model.safetensors");
    let intact = std::fs::read(&model).unwrap();

    let mut flipped = intact.clone();
    *flipped.last_mut().unwrap() ^= 1;
    std::fs::write(&model, &flipped).unwrap();
    let error = WeightsFolder::open(folder.path()).unwrap_err();
    assert!(error.to_string().contains("SHA-256"), "{error}");

    std::fs::write(&model, &intact[..intact.len() / 2]).unwrap();
    let error = WeightsFolder::open(folder.path()).unwrap_err();
    assert!(error.to_string().contains("bytes instead of"), "{error}");

    std::fs::write(&model, &intact).unwrap();
    WeightsFolder::open(folder.path()).unwrap();
    let manifest = folder.path().join("weights.toml");
    let text = std::fs::read_to_string(&manifest).unwrap();
    std::fs::write(&manifest, text.replace("\"README.md\"", "\"../README.md\"")).unwrap();
    assert!(WeightsFolder::open(folder.path()).unwrap_err().to_string().contains("plain file name"));
    std::fs::write(&manifest, text.replace("format_version = 1", "format_version = 2")).unwrap();
    assert!(WeightsFolder::open(folder.path()).unwrap_err().to_string().contains("format version 2"));
    std::fs::remove_file(&manifest).unwrap();
    assert_eq!(WeightsFolder::open(folder.path()).unwrap_err().fault(), Fault::Weights);
}
