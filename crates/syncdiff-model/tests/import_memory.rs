//! An imported network is in memory once: its checkpoint is read tensor by tensor, while it is loaded.

use burn::tensor::Device;
use peak_alloc::PeakAlloc;
use syncdiff_model::unet::{UNet, UNetConfig};
use syncdiff_model::weights::folder::save_safetensors;
use syncdiff_model::weights::import::{Layout, import_file};
use syncdiff_model::weights::{Storage, load_into, module_tensors};

/// Counts the bytes that are allocated.
#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

// The one test of its binary: memory is counted for the whole process.
#[test]
fn an_imported_network_is_held_once() {
    let device = Device::flex();
    // Narrow, with many tensors: 151 MB, the largest tensor 5 MB.
    let config = UNetConfig { model_channels: 64, ..UNetConfig::paper() };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let tensors = module_tensors(&UNet::new(&config, &device), &config.remap());
    save_safetensors(&tensors, Storage::F32, &path).unwrap();
    drop(tensors);
    let file_bytes = std::fs::metadata(&path).unwrap().len() as usize;

    MEMORY.reset_peak_usage();
    let before = MEMORY.current_usage();
    let imported = import_file(&path, Layout::by_name("ldm_unet").expect("a known layout")).unwrap();
    let listed = MEMORY.peak_usage() - before;
    let unet = load_into(UNet::new(&config, &device), &imported.tensors, &config.remap()).unwrap();
    let loaded = MEMORY.peak_usage() - before;
    drop(imported);
    let held = MEMORY.current_usage() - before;
    println!("a file of {file_bytes} bytes: {listed} when listed, at most {loaded} while loaded, {held} held");
    assert!(listed < 4 << 20, "listing the tensors took {listed} bytes");
    assert!(held as f64 > 0.95 * file_bytes as f64, "{held} bytes of {file_bytes} are held: nothing was loaded");
    assert!((loaded as f64) < 1.05 * file_bytes as f64, "{loaded} bytes for a file of {file_bytes}");
    drop(unet);
}
