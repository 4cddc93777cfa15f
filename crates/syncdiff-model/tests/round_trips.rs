//! Whole models through weights folders: what is saved comes back, to the bit in f32, within the stated error in the
//! half-width types.

#[path = "common/tiny.rs"]
mod tiny;

use burn::module::Module;
use burn::tensor::Device;
use syncdiff_model::LipSync;
use syncdiff_model::reader::{DecoderConfig, LipReader, LipReaderConfig};
use syncdiff_model::weights::{
    FolderText, Remap, Storage, TensorMap, WeightsFolder, WeightsWriter, module_shapes, module_tensors,
};
use tiny::Ramp;

fn lip_sync(seed: u64) -> LipSync {
    LipSync::random(&tiny::lip_sync(), seed, &Device::flex()).unwrap()
}

fn all_tensors(model: &LipSync) -> Vec<TensorMap> {
    let names = Remap::identity();
    vec![
        module_tensors(&model.autoencoder, &names),
        module_tensors(&model.denoiser, &names),
        module_tensors(&model.speech, &names),
    ]
}

/// The error that the type states: relative, and absolute where numbers are too small for it.
fn bound(storage: Storage) -> (f32, f32) {
    match storage {
        Storage::F32 => (0.0, 0.0),
        Storage::F16 => (2f32.powi(-11), 2f32.powi(-25)),
        // The smallest normal number of f32 and bf16 alike.
        Storage::Bf16 => (2f32.powi(-8), f32::MIN_POSITIVE),
    }
}

/// Compares two sets of tensors; returns the largest relative error of values that are not tiny.
fn assert_stored(storage: Storage, saved: &TensorMap, loaded: &TensorMap) -> f32 {
    assert!(saved.keys().eq(loaded.keys()) && !saved.is_empty());
    let (relative, absolute) = bound(storage);
    let mut worst = 0f32;
    for (name, tensor) in saved {
        assert_eq!(tensor.shape(), loaded[name].shape(), "{name}");
        for (x, y) in tensor.to_f32().unwrap().into_iter().zip(loaded[name].to_f32().unwrap()) {
            let exact = storage == Storage::F32;
            let fits =
                if exact { x.to_bits() == y.to_bits() } else { (x - y).abs() <= (relative * x.abs()).max(absolute) };
            assert!(fits, "{storage:?} {name}: {x} came back as {y}");
            if x.abs() > 1e-3 {
                worst = worst.max((x - y).abs() / x.abs());
            }
        }
    }
    worst
}

#[test]
fn a_lip_sync_model_comes_back_in_every_type() {
    let model = lip_sync(1);
    for storage in [Storage::F32, Storage::F16, Storage::Bf16] {
        let folder = tempfile::tempdir().unwrap();
        let manifest = model.save(folder.path(), storage, "# tiny\n", "none").unwrap();
        let loaded = LipSync::load(folder.path(), &Device::flex()).unwrap();
        let parts: Vec<(TensorMap, TensorMap)> = all_tensors(&model).into_iter().zip(all_tensors(&loaded)).collect();
        let worst = parts.iter().map(|(a, b)| assert_stored(storage, a, b)).fold(0.0, f32::max);
        // Rounding must be seen, or the type was not what it says.
        let (relative, _) = bound(storage);
        assert!(worst >= relative / 4.0, "{storage:?}: largest relative error {worst}");
        // What was loaded is saved as the same bytes.
        let again = tempfile::tempdir().unwrap();
        assert_eq!(loaded.save(again.path(), storage, "# tiny\n", "none").unwrap(), manifest);
    }
}

/// A network with batch norms: their running statistics are stored as well.
#[test]
fn a_lip_reader_comes_back_with_its_running_statistics() {
    let device = Device::flex();
    let decoder =
        DecoderConfig { dim: 16, num_layers: 1, num_heads: 2, feed_forward_dim: 24, vocabulary: 9, dropout: 0.0 };
    let config = LipReaderConfig { encoder: tiny::audio(), decoder };
    let reader = config.init(&device).unwrap().map(&mut Ramp { keep: 0.0, pace: 1.3, scale: 1.0, offset: 1.5 });
    let remap = LipReader::remap();
    let saved = module_tensors(&reader, &remap);
    let statistics = saved.iter().filter(|(name, _)| name.ends_with("running_mean") || name.ends_with("running_var"));
    assert_eq!(statistics.count(), 2 * 20, "one norm in the stem, two in each of eight blocks, three in shortcuts");
    for storage in [Storage::F32, Storage::F16, Storage::Bf16] {
        let mut writer = WeightsWriter::new();
        writer.add(&reader, &remap).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let text = FolderText { config_toml: "", model_card: "# Reader\n", licence: "none" };
        writer.save(folder.path(), storage, text).unwrap();
        let weights = WeightsFolder::open(folder.path()).unwrap();
        let fresh = config.init(&device).unwrap();
        weights.check(&[(module_shapes(&fresh, &remap), &remap)]).unwrap();
        let loaded = weights.load(fresh, &remap).unwrap();
        assert_stored(storage, &saved, &module_tensors(&loaded, &remap));
    }
}
