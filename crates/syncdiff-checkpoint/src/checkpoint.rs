//! A checkpoint file: what kind it is, which tensors it holds, and their values.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::path::{Path, PathBuf};

use crate::error::{CheckpointResult, Outcome, Problem, within};
use crate::pickle::input::Input;
use crate::pickle::machine::{self, Pickle};
use crate::source::Source;
use crate::state_dict::{Entry, Root, find_roots};
use crate::tensor::{Dtype, View, extend_f32, swap_bytes};
use crate::value::{Value, export};
use crate::zip::{Archive, Member};
use crate::{legacy, limits, safetensors};

/// Bytes converted at a time, so that a tensor is not in memory twice.
const CHUNK_LEN: u64 = 1 << 20;

/// Form of a checkpoint file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// `torch.save` of PyTorch 1.6 and later: a zip archive.
    TorchZip,
    /// `torch.save` before PyTorch 1.6: pickles, then storages.
    TorchLegacy,
    /// safetensors.
    Safetensors,
}

/// Name, element type and shape of a tensor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorInfo {
    /// Dotted name.
    pub name: String,
    /// Element type in the file.
    pub dtype: Dtype,
    /// Shape, outermost axis first; empty for a scalar.
    pub shape: Vec<usize>,
}

/// A mapping of a checkpoint that holds tensors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RootInfo {
    /// Keys from the top, with dots between them; empty for the top itself.
    pub path: String,
    /// Number of its tensors.
    pub tensors: usize,
    /// Number of the elements of all of them.
    pub elements: u64,
}

/// Where the bytes of a storage are.
#[derive(Debug, Clone)]
enum Place {
    /// In the file as they are: first byte and length.
    Stored(u64, u64),
    /// Compressed.
    Packed(String, Member),
}

/// An open checkpoint. Tensors stay in the file until they are read, one at a time.
///
/// # Examples
///
/// ```no_run
/// let checkpoint = syncdiff_checkpoint::Checkpoint::open("wav2lip.pth".as_ref())?;
/// for tensor in checkpoint.tensors() {
///     println!("{} {:?} {:?}", tensor.name, tensor.dtype, tensor.shape);
/// }
/// # Ok::<(), syncdiff_checkpoint::CheckpointError>(())
/// ```
#[derive(Debug)]
pub struct Checkpoint {
    path: PathBuf,
    source: Source,
    format: Format,
    pickle: Option<Pickle>,
    metadata: BTreeMap<String, String>,
    archive: Option<Archive>,
    big_endian: bool,
    storages: HashMap<Box<str>, Place>,
    roots: Vec<Root>,
    /// The root that [`Self::tensors`] speaks of.
    chosen: usize,
    /// `module.`, if every name of that root begins so.
    prefix: &'static str,
}

impl Checkpoint {
    /// Opens a file of any form and finds its tensors. Of several mappings that hold tensors the one with the most
    /// is chosen; [`Self::choose_root`] chooses another.
    ///
    /// # Errors
    /// [`crate::CheckpointError`], all its kinds but `Absent`.
    pub fn open(path: &Path) -> CheckpointResult<Self> {
        let file = File::open(path).map_err(|error| Problem::Io(error).at(path))?;
        Source::file(file).and_then(|source| Self::read(path, source)).map_err(|problem| problem.at(path))
    }

    /// As [`Self::open`], for a file in memory; errors call it `name`.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn from_bytes(name: &str, bytes: Vec<u8>) -> CheckpointResult<Self> {
        let path = Path::new(name);
        Self::read(path, Source::memory(bytes)).map_err(|problem| problem.at(path))
    }

    /// Reads a file, open already, that must be in safetensors form, whatever it looks like; `path` is used in
    /// messages. Names are those of the file: no `module.` is dropped.
    ///
    /// # Errors
    /// `Damaged`, `Refused`, `Unsupported` and `Io`.
    pub fn from_safetensors_file(path: &Path, file: File) -> CheckpointResult<Self> {
        let read = |source| {
            let mut checkpoint = Self::unread(path, source);
            checkpoint.read_safetensors()?;
            checkpoint.check_tensors()?;
            Ok(checkpoint)
        };
        Source::file(file).and_then(read).map_err(|problem| problem.at(path))
    }

    fn unread(path: &Path, source: Source) -> Self {
        Self {
            path: path.to_path_buf(),
            source,
            format: Format::Safetensors,
            pickle: None,
            metadata: BTreeMap::new(),
            archive: None,
            big_endian: false,
            storages: HashMap::new(),
            roots: Vec::new(),
            chosen: 0,
            prefix: "",
        }
    }

    fn read(path: &Path, source: Source) -> Outcome<Self> {
        let mut head = vec![0; source.len().min(512) as usize];
        source.read_at(&mut head, 0)?;
        let mut checkpoint = Self::unread(path, source);
        if head.starts_with(b"PK\x03\x04") {
            checkpoint.read_zip()?;
        } else if safetensors::looks_like(&checkpoint.source)? {
            checkpoint.read_safetensors()?;
        } else {
            checkpoint.read_legacy(&head)?;
        }
        checkpoint.check_tensors()?;
        // `max_by_key` would take the last of equals.
        let most = checkpoint.roots.iter().map(|root| root.entries.len()).max().unwrap_or(0);
        let chosen = checkpoint.roots.iter().position(|root| root.entries.len() == most).unwrap_or(0);
        checkpoint.choose(chosen);
        Ok(checkpoint)
    }

    fn read_safetensors(&mut self) -> Outcome<()> {
        self.format = Format::Safetensors;
        let header = safetensors::read(&self.source)?;
        self.metadata = header.metadata;
        self.roots = vec![Root::new(String::new(), header.tensors)];
        self.storages.insert("".into(), Place::Stored(0, self.source.len()));
        Ok(())
    }

    fn read_zip(&mut self) -> Outcome<()> {
        self.format = Format::TorchZip;
        let archive = Archive::open(&self.source)?;
        let tops = archive.members.keys().filter_map(|name| name.strip_suffix("data.pkl"));
        let top = tops.filter(|top| top.len() > 1 && top.find('/') == Some(top.len() - 1)).min();
        let Some(top) = top.map(str::to_owned) else {
            return Err(Problem::NotACheckpoint(
                "a zip archive without a data.pkl, for example a .npz or a wheel".into(),
            ));
        };
        if archive.members.contains_key(&format!("{top}constants.pkl")) {
            return Err(Problem::Unsupported("TorchScript programs".into()));
        }
        let name = format!("{top}byteorder");
        if let Some(member) = archive.members.get(&name) {
            self.big_endian = archive.read(&self.source, &name, member, 16)?.starts_with(b"big");
        }
        let name = format!("{top}data.pkl");
        let member = archive.members[&name];
        let pickle = match archive.stored_range(&self.source, &name, &member)? {
            Some((start, len)) => machine::run(&mut Input::new(&self.source, start, start + len))?,
            None => {
                let bytes = archive.read(&self.source, &name, &member, limits::INFLATED_PICKLE_BYTES)?;
                let len = bytes.len() as u64;
                machine::run(&mut Input::new(&Source::memory(bytes), 0, len))?
            }
        };
        self.roots = find_roots(&pickle)?;
        for entry in self.roots.iter().flat_map(|root| &root.entries) {
            let key = &entry.view.key;
            if self.storages.contains_key(key) {
                continue;
            }
            let name = format!("{top}data/{key}");
            let member = archive.members.get(&name);
            let member = member.ok_or_else(|| Problem::damaged(format!("the storage {name:?} is missing")))?;
            let place = match archive.stored_range(&self.source, &name, member)? {
                Some((start, len)) => Place::Stored(start, len),
                None => Place::Packed(name, *member),
            };
            self.storages.insert(key.clone(), place);
        }
        self.pickle = Some(pickle);
        self.archive = Some(archive);
        Ok(())
    }

    fn read_legacy(&mut self, head: &[u8]) -> Outcome<()> {
        self.format = Format::TorchLegacy;
        let Some(file) = legacy::read(&self.source)? else {
            return Err(foreign(head));
        };
        self.roots = find_roots(&file.pickle)?;
        self.big_endian = file.big_endian;
        self.storages = file.storages.into_iter().map(|(key, (start, len))| (key, Place::Stored(start, len))).collect();
        self.pickle = Some(file.pickle);
        Ok(())
    }

    /// Every tensor must lie inside its storage as the file has it, and all together must not exceed the file by far.
    fn check_tensors(&self) -> Outcome<()> {
        let limit =
            self.source.len().saturating_mul(limits::COMPRESSION_RATIO).saturating_add(limits::EXPANDED_ELEMENTS);
        for root in &self.roots {
            let mut total = 0u64;
            for Entry { name, view } in &root.entries {
                let len = match self.storages.get(&view.key) {
                    Some(Place::Stored(_, len)) => *len,
                    Some(Place::Packed(_, member)) => member.len,
                    None => return Err(Problem::damaged(format!("the storage {:?} of {name:?} is missing", view.key))),
                };
                let (_, end) = view.range();
                if end > len {
                    return Err(Problem::damaged(format!(
                        "tensor {name:?} ends at byte {end} of the storage {:?}, which has {len}",
                        view.key
                    )));
                }
                total = total.saturating_add(view.byte_len());
            }
            within("the size of all tensors of a mapping in bytes", total, limit)?;
        }
        Ok(())
    }

    fn choose(&mut self, index: usize) {
        self.chosen = index;
        let all = |root: &Root| root.entries.iter().all(|entry| entry.name.starts_with("module."));
        // `torch.nn.DataParallel` puts this before every name.
        self.prefix = match self.roots.get(index) {
            Some(root) if !root.entries.is_empty() && all(root) => "module.",
            _ => "",
        };
    }

    /// Form of the file.
    pub fn format(&self) -> Format {
        self.format
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Every mapping that holds tensors, in the order of the file.
    pub fn roots(&self) -> Vec<RootInfo> {
        self.roots.iter().map(info).collect()
    }

    /// The mapping that [`Self::tensors`] and the reading functions speak of; `None` in a file without tensors.
    pub fn root(&self) -> Option<RootInfo> {
        self.roots.get(self.chosen).map(info)
    }

    /// Chooses another mapping, by the path that [`Self::roots`] gives.
    ///
    /// # Errors
    /// [`crate::CheckpointError::Absent`]; the choice then stays as it was.
    pub fn choose_root(&mut self, path: &str) -> CheckpointResult<()> {
        match self.roots.iter().position(|root| root.path == path) {
            Some(index) => self.choose(index),
            None => return Err(Problem::Absent { what: "mapping", name: path.to_owned() }.at(&self.path)),
        }
        Ok(())
    }

    /// The tensors of the chosen mapping in the order of the file. A `module.` before all names is dropped.
    pub fn tensors(&self) -> Vec<TensorInfo> {
        let entries = self.roots.get(self.chosen).map_or(&[][..], |root| &root.entries);
        entries.iter().map(|entry| tensor_info(entry.name[self.prefix.len()..].to_owned(), &entry.view)).collect()
    }

    /// The tensors of all mappings, with the path of their mapping before their names.
    pub fn all_tensors(&self) -> Vec<TensorInfo> {
        let named = |root: &Root, name: &str| match root.path.as_str() {
            "" => name.to_owned(),
            path => format!("{path}.{name}"),
        };
        let entries = self.roots.iter().flat_map(|root| root.entries.iter().map(move |entry| (root, entry)));
        entries.map(|(root, entry)| tensor_info(named(root, &entry.name), &entry.view)).collect()
    }

    /// The elements of a tensor of the chosen mapping, little-endian, side by side in the order of its shape,
    /// whatever its strides are in the file.
    ///
    /// # Errors
    /// `Absent`; `Damaged` or `Io` when the file cannot be read any more.
    pub fn read_bytes(&self, name: &str) -> CheckpointResult<Vec<u8>> {
        self.view(name).and_then(|view| self.bytes(view)).map_err(|problem| problem.at(&self.path))
    }

    /// The elements of a tensor of the chosen mapping as `f32`; wider numbers are rounded to nearest.
    ///
    /// # Errors
    /// As [`Self::read_bytes`]; `Unsupported` for complex and 8-bit floating-point numbers.
    pub fn read_f32(&self, name: &str) -> CheckpointResult<Vec<f32>> {
        self.view(name).and_then(|view| self.floats(view)).map_err(|problem| problem.at(&self.path))
    }

    fn view(&self, name: &str) -> Outcome<&View> {
        let root = self.roots.get(self.chosen);
        let entry = root.and_then(|root| {
            let place = root.places.get(&format!("{}{name}", self.prefix))?;
            root.entries.get(*place)
        });
        entry.map(|entry| &entry.view).ok_or_else(|| Problem::Absent { what: "tensor", name: name.to_owned() })
    }

    fn place(&self, view: &View) -> Outcome<&Place> {
        self.storages.get(&view.key).ok_or_else(|| Problem::damaged(format!("the storage {:?} is missing", view.key)))
    }

    fn bytes(&self, view: &View) -> Outcome<Vec<u8>> {
        let (start, end) = view.range();
        let mut bytes = match (self.place(view)?, &self.archive) {
            (Place::Stored(offset, _), _) => self.source.bytes_at(offset + start, end - start)?,
            (Place::Packed(name, member), Some(archive)) => {
                let mut bytes = archive.read_storage(&self.source, name, member)?;
                bytes.truncate(end as usize);
                bytes.drain(..start as usize);
                bytes
            }
            (Place::Packed(name, _), None) => return Err(Problem::damaged(format!("{name} without an archive"))),
        };
        if !view.is_contiguous() {
            bytes = view.gather(&bytes);
        }
        if self.big_endian {
            swap_bytes(view.dtype, &mut bytes);
        }
        Ok(bytes)
    }

    fn floats(&self, view: &View) -> Outcome<Vec<f32>> {
        let mut values = Vec::new();
        let Place::Stored(offset, _) = self.place(view)? else {
            extend_f32(&mut values, view.dtype, &self.bytes(view)?)?;
            return Ok(values);
        };
        if !view.is_contiguous() {
            extend_f32(&mut values, view.dtype, &self.bytes(view)?)?;
            return Ok(values);
        }
        values.reserve_exact(view.elements as usize);
        let (mut start, end) = view.range();
        while start < end {
            let mut chunk = self.source.bytes_at(offset + start, CHUNK_LEN.min(end - start))?;
            start += chunk.len() as u64;
            if self.big_endian {
                swap_bytes(view.dtype, &mut chunk);
            }
            extend_f32(&mut values, view.dtype, &chunk)?;
        }
        Ok(values)
    }

    /// A value that is no tensor, by the keys and attributes that lead to it; `None` where nothing is called so. An
    /// empty path gives everything. A safetensors file has its metadata.
    ///
    /// # Errors
    /// `Refused` for a tree beyond [`limits::TREE_VALUES`].
    pub fn value(&self, path: &[&str]) -> CheckpointResult<Option<Value>> {
        let Some(pickle) = &self.pickle else {
            let text = |text: &String| Value::Text(text.clone());
            let tree = Value::Map(self.metadata.iter().map(|(key, value)| (text(key), text(value))).collect());
            return Ok(path.iter().try_fold(&tree, |value, key| value.get(key)).cloned());
        };
        let Some(id) = path.iter().try_fold(pickle.top, |id, key| pickle.child(id, key)) else { return Ok(None) };
        export(&pickle.arena, id).map(Some).map_err(|problem| problem.at(&self.path))
    }

    /// Names of the classes and functions that the file mentions and this reader neither knows nor calls.
    pub fn foreign_classes(&self) -> Vec<&str> {
        const KNOWN: [&str; 6] = ["torch.", "collections.", "builtins.", "copyreg.", "_codecs.", "numpy."];
        let names = self.pickle.as_ref().map(|pickle| pickle.arena.globals()).unwrap_or_default();
        // `builtins.eval` is as foreign as it gets.
        let plain = ["dict", "list", "set", "frozenset", "tuple", "object", "complex", "slice", "bytearray"];
        let known = |name: &str| match name.strip_prefix("builtins.") {
            Some(name) => plain.contains(&name),
            None => KNOWN.iter().any(|prefix| name.starts_with(prefix)),
        };
        names.into_iter().filter(|name| !known(name)).collect()
    }
}

/// Parses a bare pickle (not a file of `torch.save`) and returns it as a tree.
///
/// # Errors
/// `Damaged`, `Refused` and `Unsupported`, as for a checkpoint.
pub fn read_pickle(bytes: Vec<u8>) -> CheckpointResult<Value> {
    let path = Path::new("pickle");
    let len = bytes.len() as u64;
    let read = |source: &Source| {
        let pickle = machine::run(&mut Input::new(source, 0, len))?;
        export(&pickle.arena, pickle.top)
    };
    read(&Source::memory(bytes)).map_err(|problem| problem.at(path))
}

fn info(root: &Root) -> RootInfo {
    let elements = root.entries.iter().map(|entry| entry.view.elements).fold(0u64, u64::saturating_add);
    RootInfo { path: root.path.clone(), tensors: root.entries.len(), elements }
}

fn tensor_info(name: String, view: &View) -> TensorInfo {
    TensorInfo { name, dtype: view.dtype, shape: view.sizes.iter().map(|size| *size as usize).collect() }
}

/// What a file is that is no checkpoint, as far as its first bytes tell.
fn foreign(head: &[u8]) -> Problem {
    let text = head.trim_ascii_start();
    let reason = if head.is_empty() {
        "the file is empty"
    } else if head.starts_with(b"\x80") && head.get(1).is_some_and(|protocol| *protocol <= 5) {
        "a pickle without PyTorch's magic number, or the first bytes of a checkpoint"
    } else if head.starts_with(b"version https://git-lfs") {
        "a Git LFS pointer; fetch the file itself with `git lfs pull`"
    } else if text.starts_with(b"<") {
        "a web page, as comes from a download that wants a login or a confirmation"
    } else if head.starts_with(b"\x1f\x8b") {
        "a gzip file; unpack it first"
    } else if head.get(257..262) == Some(b"ustar") {
        "a tar archive; PyTorch before 0.1.12 wrote those, other programs do too"
    } else {
        "its first bytes belong to no known form"
    };
    Problem::NotACheckpoint(reason.into())
}
