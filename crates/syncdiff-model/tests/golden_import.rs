//! Networks imported from checkpoints, against the outputs that PyTorch computed from them.
//!
//! `tools/torch/check_imports.py` writes both. In `fixtures/imports` lie checkpoints of narrow networks that PyTorch
//! wrote; where a project fixes the width of its network, a table from which the weights of that width are generated. In
//! the folder `SYNCDIFF_IMPORTS` lie networks of the official sizes, taken out of PyTorch's checkpoints by
//! `syncdiff models import`.

mod common;

use std::path::{Path, PathBuf};

use burn::module::Module;
use burn::tensor::{Device, Tensor, TensorData};
use common::{Golden, values};
use serde::de::DeserializeOwned;
use syncdiff_checkpoint::Checkpoint;
use syncdiff_model::audio::{AudioEncoder, AudioEncoderConfig};
use syncdiff_model::autoencoder::{Autoencoder, AutoencoderConfig};
use syncdiff_model::baselines::{ColourSyncNet, DiffTalkCondition, Wav2LipDiscriminator, Wav2LipGenerator};
use syncdiff_model::reader::{LipReader, LipReaderConfig};
use syncdiff_model::scorers::{Lpips, LpipsTrunk, S3fd, SyncNet};
use syncdiff_model::unet::{UNet, UNetConfig};
use syncdiff_model::video::{AudioVisualEncoder, mouth_tensor};
use syncdiff_model::weights::folder::save_safetensors;
use syncdiff_model::weights::import::{LAYOUTS, Layout, import_file, recognise};
use syncdiff_model::weights::{Remap, Storage, TensorMap, WeightsFolder, load_into};

/// One network of a case: tensors under their original names, inputs and expected outputs.
struct Network<'a> {
    case: &'a Golden,
    layout: &'static Layout,
    tensors: TensorMap,
    device: Device,
}

impl Network<'_> {
    fn config<T: DeserializeOwned>(&self) -> T {
        let config = self.case.case["networks"][self.layout.name].clone();
        serde_json::from_value(config).unwrap_or_else(|e| panic!("{}: configuration: {e}", self.label("")))
    }

    fn load<M: Module>(&self, net: M, remap: &Remap) -> M {
        load_into(net, &self.tensors, remap).unwrap_or_else(|e| panic!("{}: {e}", self.label("")))
    }

    fn label(&self, name: &str) -> String {
        let folder = self.case.folder.file_name().unwrap_or_default().to_string_lossy();
        format!("{folder} {} {name}", self.layout.name)
    }

    fn name(&self, name: &str) -> String {
        format!("{}.{name}", self.layout.name)
    }

    fn input<const D: usize>(&self, name: &str) -> Tensor<D> {
        self.case.tensor(&self.name(name), &self.device)
    }

    fn bytes(&self, name: &str) -> (Vec<u8>, Vec<usize>) {
        let name = self.name(name);
        (self.case.i64(&name).into_iter().map(|value| value as u8).collect(), self.case.shape(&name).to_vec())
    }

    /// Every error against the largest expected value; the line that this prints is read by `check_imports.py`.
    fn compare<const D: usize>(&self, name: &str, actual: Tensor<D>) {
        let full = self.name(name);
        assert_eq!(actual.dims().as_slice(), self.case.shape(&full), "{}: shape", self.label(name));
        let (actual, expected) = (values(actual), self.case.f32(&full));
        let largest = expected.iter().fold(0.0f32, |most, value| most.max(value.abs()));
        assert!(largest > 0.0, "{}: nothing is expected", self.label(name));
        let error = actual.iter().zip(&expected).fold(0.0f32, |most, (a, e)| {
            // A NaN is worse than anything.
            if a.is_nan() { f32::INFINITY } else { most.max((a - e).abs()) }
        });
        println!("compared: {} {:.1e}", self.label(name), error / largest);
        let allowed = self.case.float("/tolerance");
        assert!(
            f64::from(error / largest) <= allowed,
            "{}: {:e} of the largest value",
            self.label(name),
            error / largest
        );
    }

    fn run(&self) {
        match self.layout.name {
            "ldm_vq_f4" => self.autoencoder(),
            "ldm_unet" | "difftalk_unet" => self.unet(),
            "difftalk_condition" => {
                let net = DiffTalkCondition::new(&self.device).unwrap();
                let net = self.load(net, &DiffTalkCondition::remap());
                self.compare("out.context", net.forward(self.input("in.windows"), self.input("in.landmarks")));
            }
            "avhubert_base" => self.encoder(),
            "avhubert_finetuned" => self.reader(),
            "syncnet_v2" => self.syncnet(),
            "wav2lip" => {
                let net = self.load(Wav2LipGenerator::new(&self.device), &Wav2LipGenerator::remap());
                self.compare("out.face", net.forward(self.input("in.mel"), self.input::<4>("in.faces") / 255.0));
            }
            "wav2lip_expert" => {
                let net = self.load(ColourSyncNet::new(&self.device), &ColourSyncNet::remap());
                self.compare("out.audio", net.forward_audio(self.input("in.mel")));
                self.compare("out.face", net.forward_face(self.input::<4>("in.faces") / 255.0));
            }
            "wav2lip_disc" => {
                let net = self.load(Wav2LipDiscriminator::new(&self.device), &Wav2LipDiscriminator::remap());
                self.compare("out.real", net.forward(self.input::<4>("in.faces") / 255.0));
            }
            "s3fd" => self.detector(),
            "lpips_alex" => self.lpips(LpipsTrunk::Alex),
            "lpips_vgg" => self.lpips(LpipsTrunk::Vgg),
            other => panic!("no test compares outputs of the layout {other}; write one here"),
        }
    }

    fn autoencoder(&self) {
        let net = Autoencoder::new(&self.config::<AutoencoderConfig>(), &self.device);
        let net = self.load(net, &Remap::identity());
        self.compare("out.latent", net.encode(self.input("in.image")));
        self.compare("out.decoded", net.decode(self.input("in.latent")));
    }

    fn unet(&self) {
        let config: UNetConfig = self.config();
        let net = self.load(UNet::new(&config, &self.device), &config.remap());
        let timesteps: Vec<usize> = self.case.i64(&self.name("in.t")).into_iter().map(|t| t as usize).collect();
        for tokens in [1, 5].map(|tokens| format!("context_{tokens}")) {
            if self.case.has(&self.name(&format!("in.{tokens}"))) {
                let y = net.forward(self.input("in.x"), &timesteps, self.input(&format!("in.{tokens}")));
                self.compare(&format!("out.{tokens}"), y);
            }
        }
    }

    fn mouths(&self) -> Tensor<4> {
        let (grey, shape) = self.bytes("in.grey");
        mouth_tensor(&grey, shape[0], shape[1], shape[2], &self.device).unwrap()
    }

    fn encoder(&self) {
        let config: AudioEncoderConfig = self.config();
        let sound = self.load(config.init(&self.device).unwrap(), &AudioEncoder::remap());
        self.compare("out.audio", sound.forward(self.input("in.rows"), None));
        let both = AudioVisualEncoder::new(&config, &self.device).unwrap();
        let both = self.load(both, &AudioVisualEncoder::remap());
        self.compare("out.video", both.forward(None, Some(self.mouths()), None).last);
        self.compare("out.both", both.forward(Some(self.input("in.rows")), Some(self.mouths()), None).last);
    }

    fn reader(&self) {
        let config: LipReaderConfig = self.config();
        let net = self.load(config.init(&self.device).unwrap(), &LipReader::remap());
        let memory = net.encode(self.mouths());
        self.compare("out.memory", memory.clone());
        let tokens = self.case.i64(&self.name("in.tokens")).into_iter().map(|token| token as usize).collect();
        self.compare("out.logits", net.decoder().forward(&[tokens], memory, None));
    }

    fn syncnet(&self) {
        let net = self.load(SyncNet::new(&self.device), &SyncNet::remap());
        // Stored coarsely: a pixel stands for a square of eight by eight.
        let (coarse, shape) = self.bytes("in.lips");
        let [batch, channels, frames, rows, columns] = shape[..] else { panic!("windows of lips: {shape:?}") };
        let pictures = coarse.chunks(rows * columns);
        let fine = pictures.flat_map(|picture| {
            (0..64 * rows * columns).map(move |i| {
                let (y, x) = (i / (8 * columns) / 8, i % (8 * columns) / 8);
                f32::from(picture[y * columns + x])
            })
        });
        let shape = [batch, channels, frames, 8 * rows, 8 * columns];
        let lips = Tensor::from_data(TensorData::new(fine.collect::<Vec<f32>>(), shape), &self.device);
        self.compare("out.lip", net.forward_lip(lips));
        self.compare("out.sound", net.forward_aud(self.input("in.cepstra")));
    }

    fn detector(&self) {
        let net = self.load(S3fd::new(&self.device), &S3fd::remap());
        let pictures: Tensor<4> = self.input("in.pictures");
        let batch = pictures.dims()[0];
        let means = Tensor::<1>::from_data([104.0f32, 117.0, 123.0], &self.device).reshape([1, 3, 1, 1]);
        for (i, level) in net.forward(pictures.clone() - means).into_iter().enumerate() {
            self.compare(&format!("out.scores_{i}"), level.scores);
            self.compare(&format!("out.offsets_{i}"), level.offsets);
        }
        let found = net.detect(pictures);
        assert_eq!(found.len(), batch);
        for (i, faces) in found.into_iter().enumerate() {
            let rows: Vec<f32> = faces.iter().flat_map(|b| [b.x1, b.y1, b.x2, b.y2, b.score]).collect();
            let rows = TensorData::new(rows, [faces.len(), 5]);
            self.compare(&format!("out.boxes_{i}"), Tensor::<2>::from_data(rows, &self.device));
        }
    }

    fn lpips(&self, trunk: LpipsTrunk) {
        let net = self.load(Lpips::new(trunk, &self.device), &Lpips::remap(trunk));
        let picture = |side: &str| self.input::<4>(side) / 127.5 - 1.0;
        self.compare("out.terms", Tensor::stack::<2>(net.terms(picture("in.x"), picture("in.y")), 1));
    }
}

/// The checkpoint of a small case, written into `scratch` where the case only describes it; it holds what the case says.
fn small_checkpoint(case: &Golden, scratch: &Path) -> PathBuf {
    let path = match case.case["checkpoint"].as_str() {
        Some(name) => case.folder.join(name),
        None => {
            let weights = case.generated_weights("/weight_generator/tensors", "/weight_generator/seed");
            let path = scratch.join("generated.safetensors");
            save_safetensors(&weights, Storage::F32, &path).unwrap();
            path
        }
    };
    let found = recognise(&mut Checkpoint::open(&path).unwrap()).unwrap();
    let mut found: Vec<&str> = found.iter().map(|layout| layout.name).collect();
    found.sort_unstable();
    let expected: Vec<&String> = case.case["networks"].as_object().expect("networks of a case").keys().collect();
    assert_eq!(found, expected, "{}", case.folder.display());
    path
}

/// Runs every case of a folder; the layouts that were compared.
fn run_cases(root: &Path) -> Vec<&'static str> {
    let mut compared = Vec::new();
    let mut folders: Vec<_> = std::fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path()).collect();
    folders.sort();
    for folder in folders {
        let text = std::fs::read_to_string(folder.join("case.json")).unwrap();
        let case = common::open(&folder, serde_json::from_str(&text).unwrap());
        let scratch = tempfile::tempdir().unwrap();
        let mut checkpoint = None;
        for name in case.case["networks"].as_object().expect("networks of a case").keys() {
            let layout = Layout::by_name(name).unwrap_or_else(|| panic!("{}: layout {name}", folder.display()));
            let imported = folder.join(name);
            let tensors = if imported.is_dir() {
                WeightsFolder::open(&imported).unwrap().tensors().clone()
            } else {
                let checkpoint = checkpoint.get_or_insert_with(|| small_checkpoint(&case, scratch.path()));
                import_file(checkpoint, layout).unwrap().tensors
            };
            Network { case: &case, layout, tensors, device: Device::flex() }.run();
            compared.push(layout.name);
        }
    }
    compared
}

#[test]
fn golden_import_of_small_checkpoints_gives_the_outputs_of_pytorch() {
    let compared = run_cases(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/imports"));
    for layout in &LAYOUTS {
        assert!(compared.contains(&layout.name), "no fixture of {}", layout.name);
    }
}

#[test]
fn golden_import_of_official_sizes_gives_the_outputs_of_pytorch() {
    match std::env::var_os("SYNCDIFF_IMPORTS") {
        Some(folder) => {
            let compared = run_cases(Path::new(&folder));
            assert!(!compared.is_empty(), "{folder:?} holds no case");
        }
        None => println!("skipped: folder SYNCDIFF_IMPORTS absent; `tools/torch/check_imports.py` writes one"),
    }
}
