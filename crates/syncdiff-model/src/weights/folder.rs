//! A folder of weights: `config.toml` (the model), `model.safetensors` (all networks in one file, a prefix each),
//! `weights.toml` (size and SHA-256 of every file, licence, format version) and `README.md` (the model card).
//!
//! Opening a folder verifies the checksums before anything is used. Writing never leaves a half-written file under
//! its final name, and `weights.toml` comes last, so that an interrupted write is seen as such.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use burn::module::Module;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::error::{ModelError, ModelResult};
use crate::weights::module_io::{check, load_into_from, module_shapes, module_tensors};
use crate::weights::remap::Remap;
use crate::weights::tensor_map::{StoredTensor, TensorMap, open_safetensors_file};

/// The version of the folder's layout that this program writes and reads.
pub const FORMAT_VERSION: u32 = 1;

/// Name of the file of tensors in a folder.
pub const TENSORS: &str = "model.safetensors";
const CONFIG: &str = "config.toml";
const CARD: &str = "README.md";
const MANIFEST: &str = "weights.toml";
/// Largest text file read; configurations and manifests have a few KB.
const TEXT_LIMIT_BYTES: u64 = 1024 * 1024;

/// Element type of the tensors on disk; in memory they are always `f32`.
///
/// `F32` is exact. `F16` rounds to 11 significant bits (relative error at most 2^-11 from 6.1e-5 upwards, absolute
/// error at most 2^-25 below) and refuses values beyond 65504. `BF16` rounds to 8 bits (2^-8) over the range of `f32`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Storage {
    /// Exact.
    F32,
    /// Half the size, 11 significant bits.
    F16,
    /// Half the size, 8 significant bits.
    Bf16,
}

/// `weights.toml`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FolderManifest {
    /// Layout of the folder, [`FORMAT_VERSION`].
    pub format_version: u32,
    /// Terms of the weights: an SPDX expression or a sentence.
    pub licence: String,
    /// Element type of the tensors.
    pub storage: Storage,
    /// Every file of the folder but this one.
    pub files: Vec<FileEntry>,
}

/// One file of a weights folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileEntry {
    /// Name inside the folder.
    pub name: String,
    /// Size.
    pub size_bytes: u64,
    /// Checksum, 64 lower-case hexadecimal digits.
    pub sha256: String,
}

/// The texts that go into a folder beside the tensors.
#[derive(Debug, Clone, Copy)]
pub struct FolderText<'a> {
    /// The model's resolved configuration (`config.toml`).
    pub config_toml: &'a str,
    /// The model card (`README.md`).
    pub model_card: &'a str,
    /// Terms of the weights.
    pub licence: &'a str,
}

/// A verified folder of weights, from which modules are filled.
#[derive(Debug)]
pub struct WeightsFolder {
    path: PathBuf,
    manifest: FolderManifest,
    config_toml: String,
    tensors: TensorMap,
}

impl WeightsFolder {
    /// Opens a folder and verifies the size and SHA-256 of every file in it.
    ///
    /// # Errors
    /// [`ModelError::Weights`] for an absent, damaged or foreign folder, [`ModelError::Io`] when it cannot be read,
    /// [`ModelError::Limit`] for an oversized header.
    pub fn open(path: &Path) -> ModelResult<Self> {
        let manifest_path = path.join(MANIFEST);
        if !manifest_path.is_file() {
            let remedy = "Name a folder that `syncdiff models pull` or `syncdiff train` has written";
            return Err(ModelError::weights(path, format!("no {MANIFEST} in this folder"), remedy));
        }
        let manifest: FolderManifest = toml::from_str(&read_text(&manifest_path)?).map_err(|error| {
            ModelError::weights(&manifest_path, format!("not a manifest: {error}"), "Fetch the weights again")
        })?;
        if manifest.format_version != FORMAT_VERSION {
            let reason = format!("format version {}, this program reads {FORMAT_VERSION}", manifest.format_version);
            return Err(ModelError::weights(&manifest_path, reason, "Use weights and program of the same release"));
        }
        let mut tensors = None;
        for entry in &manifest.files {
            let file = verify(path, entry)?;
            if entry.name == TENSORS {
                tensors = Some(open_safetensors_file(file, &path.join(TENSORS))?);
            }
        }
        let listed = |name: &str| manifest.files.iter().any(|entry| entry.name == name);
        let (Some(tensors), true) = (tensors, listed(CONFIG)) else {
            let reason = format!("{TENSORS} or {CONFIG} is not listed");
            return Err(ModelError::weights(&manifest_path, reason, "Fetch the weights again"));
        };
        let config_toml = read_text(&path.join(CONFIG))?;
        Ok(Self { path: path.to_path_buf(), manifest, config_toml, tensors })
    }

    /// The manifest.
    pub fn manifest(&self) -> &FolderManifest {
        &self.manifest
    }

    /// The text of `config.toml`.
    pub fn config_toml(&self) -> &str {
        &self.config_toml
    }

    /// All tensors by their names on disk.
    pub fn tensors(&self) -> &TensorMap {
        &self.tensors
    }

    /// Checks that `modules` together use exactly the tensors of the folder: one error for all of them.
    ///
    /// Each module is given by [`module_shapes`] under its remap.
    ///
    /// # Errors
    /// [`ModelError::WeightsMismatch`].
    pub fn check(&self, modules: &[(BTreeMap<String, Vec<usize>>, &Remap)]) -> ModelResult<()> {
        let modules: Vec<_> = modules.iter().map(|(shapes, remap)| (shapes, *remap)).collect();
        check(&modules, &self.tensors, &self.source_name(), true)
    }

    /// Fills one module; its remap carries the prefix (`denoiser.`).
    ///
    /// # Errors
    /// As [`crate::weights::load_into`].
    pub fn load<M: Module>(&self, module: M, remap: &Remap) -> ModelResult<M> {
        load_into_from(module, &self.tensors, remap, &self.source_name())
    }

    fn source_name(&self) -> String {
        self.path.join(TENSORS).display().to_string()
    }
}

/// Collects networks and writes a folder of weights.
#[derive(Debug, Default)]
pub struct WeightsWriter {
    tensors: TensorMap,
}

impl WeightsWriter {
    /// An empty collection.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds every float parameter of `module` under its names on disk.
    ///
    /// # Errors
    /// [`ModelError::Internal`] when two parameters have the same name.
    pub fn add<M: Module>(&mut self, module: &M, remap: &Remap) -> ModelResult<()> {
        let named = module_shapes(module, remap);
        if let Some(name) = named.keys().find(|name| self.tensors.contains_key(*name)) {
            return Err(ModelError::internal("weights", format!("two parameters are called {name}")));
        }
        let tensors = module_tensors(module, remap);
        let parameters = count_parameters(module);
        if parameters != tensors.len() {
            let reason = format!("{parameters} parameters share {} names under {:?}", tensors.len(), remap.prefix());
            return Err(ModelError::internal("weights", reason));
        }
        self.tensors.extend(tensors);
        Ok(())
    }

    /// Adds tensors as they are, under the names that they have.
    ///
    /// # Errors
    /// [`ModelError::Internal`] when a name is taken already.
    pub fn add_tensors(&mut self, tensors: TensorMap) -> ModelResult<()> {
        if let Some(name) = tensors.keys().find(|name| self.tensors.contains_key(*name)) {
            return Err(ModelError::internal("weights", format!("two tensors are called {name}")));
        }
        self.tensors.extend(tensors);
        Ok(())
    }

    /// The tensors collected so far.
    pub fn tensors(&self) -> &TensorMap {
        &self.tensors
    }

    /// Writes the folder (created when absent) and returns its manifest.
    ///
    /// # Errors
    /// [`ModelError::Io`]; [`ModelError::Limit`] when a value does not fit into `f16`.
    pub fn save(&self, folder: &Path, storage: Storage, text: FolderText<'_>) -> ModelResult<FolderManifest> {
        std::fs::create_dir_all(folder).map_err(|source| ModelError::io("create", folder, source))?;
        let mut files = Vec::new();
        files.push(write_file(folder, TENSORS, |path| save_safetensors(&self.tensors, storage, path))?);
        for (name, contents) in [(CONFIG, text.config_toml), (CARD, text.model_card)] {
            files.push(write_file(folder, name, |path| write_text(path, contents))?);
        }
        let manifest =
            FolderManifest { format_version: FORMAT_VERSION, licence: text.licence.to_owned(), storage, files };
        let contents = toml::to_string(&manifest)
            .map_err(|error| ModelError::internal("weights", format!("manifest: {error}")))?;
        write_file(folder, MANIFEST, |path| write_text(path, &contents))?;
        Ok(manifest)
    }
}

/// Writes tensors to one safetensors file; the bytes depend on the tensors and `storage` only.
///
/// # Errors
/// [`ModelError::Io`]; [`ModelError::Limit`] when a value does not fit into `f16`.
pub fn save_safetensors(tensors: &TensorMap, storage: Storage, path: &Path) -> ModelResult<()> {
    save_safetensors_about(tensors, storage, ("format", "pt"), path)
}

/// As [`save_safetensors`], with one entry of metadata, a name and its text.
///
/// # Errors
/// As [`save_safetensors`].
pub fn save_safetensors_about(
    tensors: &TensorMap,
    storage: Storage,
    (name, text): (&str, &str),
    path: &Path,
) -> ModelResult<()> {
    let failure = RefCell::new(None);
    let views = tensors.iter().map(|(name, tensor)| (name, StorageView { name, tensor, storage, failure: &failure }));
    // One metadata key at most: the library keeps them in a hash map, whose order would change from run to run.
    let metadata = [(name.to_owned(), text.to_owned())].into_iter().collect();
    let written = safetensors::serialize_to_file(views, Some(metadata), path);
    if let Some(error) = failure.into_inner() {
        return Err(error);
    }
    written.map_err(|error| match error {
        safetensors::SafeTensorError::IoError(source) => ModelError::io("write", path, source),
        other => ModelError::internal("weights", format!("safetensors: {other}")),
    })
}

/// A tensor that is converted when the writer asks for its bytes, so that only one is converted at a time.
struct StorageView<'a> {
    name: &'a str,
    tensor: &'a StoredTensor,
    storage: Storage,
    /// The writer's interface has no room for an error: the first one is kept here.
    failure: &'a RefCell<Option<ModelError>>,
}

impl StorageView<'_> {
    fn bytes(&self) -> ModelResult<Vec<u8>> {
        let values = self.tensor.to_f32()?;
        Ok(match self.storage {
            Storage::F32 => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
            Storage::Bf16 => values.iter().flat_map(|value| half::bf16::from_f32(*value).to_le_bytes()).collect(),
            Storage::F16 => {
                let overflow = |value: &&f32| value.is_finite() && half::f16::from_f32(**value).is_infinite();
                if let Some(value) = values.iter().find(overflow) {
                    return Err(ModelError::Limit {
                        stage: "weights",
                        name: format!("a value of {} for f16 storage", self.name),
                        value: value.to_string(),
                        limit: "65504".into(),
                        remedy: "Save as bf16 or f32".into(),
                    });
                }
                values.iter().flat_map(|value| half::f16::from_f32(*value).to_le_bytes()).collect()
            }
        })
    }
}

impl safetensors::View for StorageView<'_> {
    fn dtype(&self) -> safetensors::Dtype {
        match self.storage {
            Storage::F32 => safetensors::Dtype::F32,
            Storage::F16 => safetensors::Dtype::F16,
            Storage::Bf16 => safetensors::Dtype::BF16,
        }
    }

    fn shape(&self) -> &[usize] {
        self.tensor.shape()
    }

    fn data(&self) -> Cow<'_, [u8]> {
        let bytes = self.bytes().unwrap_or_else(|error| {
            self.failure.borrow_mut().get_or_insert(error);
            Vec::new()
        });
        Cow::Owned(bytes)
    }

    fn data_len(&self) -> usize {
        let size = if self.storage == Storage::F32 { 4 } else { 2 };
        self.tensor.num_elements() * size
    }
}

fn count_parameters<M: Module>(module: &M) -> usize {
    struct Count(usize);
    impl burn::module::ModuleVisitor for Count {
        fn visit_float<const D: usize>(&mut self, _: &burn::module::Param<burn::tensor::Tensor<D>>) {
            self.0 += 1;
        }
    }
    let mut count = Count(0);
    module.visit(&mut count);
    count.0
}

/// Writes under a temporary name, then renames; returns the manifest's entry.
fn write_file(folder: &Path, name: &str, write: impl Fn(&Path) -> ModelResult<()>) -> ModelResult<FileEntry> {
    let (partial, path) = (folder.join(format!(".{name}.partial")), folder.join(name));
    let io = |source| ModelError::io("write", &path, source);
    let result = write(&partial).and_then(|()| {
        let mut file = File::open(&partial).map_err(io)?;
        file.sync_all().map_err(io)?;
        let (size_bytes, sha256) = checksum(&mut file).map_err(io)?;
        std::fs::rename(&partial, &path).map_err(io)?;
        Ok(FileEntry { name: name.to_owned(), size_bytes, sha256 })
    });
    if result.is_err() {
        // The first error is the one to report; a second one while cleaning up changes nothing.
        let _ = std::fs::remove_file(&partial);
    }
    result
}

fn write_text(path: &Path, contents: &str) -> ModelResult<()> {
    std::fs::write(path, contents).map_err(|source| ModelError::io("write", path, source))
}

fn read_text(path: &Path) -> ModelResult<String> {
    let io = |source| ModelError::io("read", path, source);
    let file = File::open(path).map_err(io)?;
    let mut text = String::new();
    let len = file.take(TEXT_LIMIT_BYTES + 1).read_to_string(&mut text).map_err(io)?;
    if len as u64 > TEXT_LIMIT_BYTES {
        return Err(ModelError::weights(
            path,
            format!("longer than {TEXT_LIMIT_BYTES} bytes"),
            "Fetch the weights again",
        ));
    }
    Ok(text)
}

/// SHA-256 of a file in lower-case hexadecimal digits.
///
/// # Errors
/// [`ModelError::Io`].
pub fn sha256_of_file(path: &Path) -> ModelResult<String> {
    let io = |error| ModelError::io("weights", path, error);
    let mut file = File::open(path).map_err(io)?;
    Ok(checksum(&mut file).map_err(io)?.1)
}

fn checksum(file: &mut File) -> std::io::Result<(u64, String)> {
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    let mut size = 0;
    loop {
        let len = file.read(&mut buffer)?;
        if len == 0 {
            break;
        }
        hash.update(&buffer[..len]);
        size += len as u64;
    }
    Ok((size, hex(&hash.finalize())))
}

/// A digest in lower-case hexadecimal.
pub(super) fn hex(digest: &[u8]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Opens one file of a folder and compares it with its entry; the handle is returned so that what was verified is
/// what is read.
fn verify(folder: &Path, entry: &FileEntry) -> ModelResult<File> {
    let plain = Path::new(&entry.name).file_name().is_some_and(|name| name == entry.name.as_str());
    if !plain {
        let reason = format!("{:?} is no plain file name", entry.name);
        return Err(ModelError::weights(&folder.join(MANIFEST), reason, "Do not use weights of this source"));
    }
    let path = folder.join(&entry.name);
    let io = |source| ModelError::io("read", &path, source);
    let mut file = File::open(&path).map_err(io)?;
    let size = file.metadata().map_err(io)?.len();
    let remedy = "The file is damaged or was changed; fetch the weights again";
    if size != entry.size_bytes {
        let reason = format!("{size} bytes instead of {}", entry.size_bytes);
        return Err(ModelError::weights(&path, reason, remedy));
    }
    let (_, sha256) = checksum(&mut file).map_err(io)?;
    if !sha256.eq_ignore_ascii_case(&entry.sha256) {
        let reason = format!("SHA-256 {sha256} instead of {}", entry.sha256);
        return Err(ModelError::weights(&path, reason, remedy));
    }
    file.seek(SeekFrom::Start(0)).map_err(io)?;
    Ok(file)
}
