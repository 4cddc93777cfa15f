//! What frozen networks make of a clip's frames, kept on disk: encoding costs more than the training step that uses it.
//!
//! # Source
//! METHOD section 3.5 of the specification: latents of the target frames, and of the masked frames for a fixed mask, in
//! half precision; and what frozen layers hear in the speech. The encoding itself is the caller's.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use half::f16;
use safetensors::Dtype;
use sha2::{Digest, Sha256};

use crate::clip::hex;
use crate::container::{Array, Container, f32_bytes, f32_values, write_container};
use crate::dataset::Dataset;
use crate::error::DataError;
use crate::index::ClipEntry;
use crate::look::Look;

const LATENT_FORMAT: &str = "syncdiff-latents-1";

/// How numbers are stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LatentType {
    /// 16 bits, half the size.
    #[default]
    F16,
    /// 32 bits.
    F32,
}

/// Everything that decides the latents beside the clip itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LatentKey {
    /// Hash of the parameters of the network that encodes.
    pub network: String,
    /// What it is given beside the clip's own frames or sound: the name of the mask on the masked frames.
    pub input: String,
    /// Shape of one latent: channels, rows, columns.
    pub shape: [usize; 3],
    /// How numbers are stored.
    pub dtype: LatentType,
    /// Of which copy of the clip ([`Look::of_copy`]); 0: of the clip itself.
    pub copy: usize,
}

impl LatentKey {
    /// The hash that a cached file must carry to be used for a clip.
    pub fn content_hash(&self, entry: &ClipEntry) -> String {
        let mut hash = self.hash_of(&entry.content);
        if self.copy > 0 {
            hash.update(format!("{} {}", Look::DRAWN, self.copy));
        }
        hex(&hash.finalize())
    }

    fn hash_of(&self, content: &str) -> Sha256 {
        let mut hash = Sha256::new();
        let shape = format!("{:?} {:?}", self.shape, self.dtype);
        for part in [LATENT_FORMAT, &self.network, &self.input, &shape, content] {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        hash
    }

    /// Each network and input has a folder of its own, so that two runs that share a store never overwrite one another.
    fn folder_name(&self) -> String {
        hex(&self.hash_of("").finalize())[..16].to_owned()
    }

    fn len(&self) -> usize {
        self.shape.iter().product()
    }
}

/// The latents of one clip by name (`target`, `masked`, ...), each [N, C, H, W].
#[derive(Clone, Debug, PartialEq)]
pub struct Latents {
    num_frames: usize,
    shape: [usize; 3],
    planes: BTreeMap<String, Plane>,
}

#[derive(Clone, Debug, PartialEq)]
enum Plane {
    F16(Vec<f16>),
    F32(Vec<f32>),
}

impl Latents {
    /// N.
    pub fn num_frames(&self) -> usize {
        self.num_frames
    }

    /// C, H, W.
    pub fn shape(&self) -> [usize; 3] {
        self.shape
    }

    /// The names of the arrays.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.planes.keys().map(String::as_str)
    }

    /// All values of an array, [N, C, H, W].
    ///
    /// # Errors
    /// [`DataError::Parameter`] for an unknown name.
    pub fn values(&self, name: &str) -> Result<impl Iterator<Item = f32>, DataError> {
        let Some(plane) = self.planes.get(name) else {
            let known: Vec<_> = self.names().collect();
            let detail = format!("there is no array {name:?}; there are {known:?}");
            return Err(DataError::Parameter { stage: "latents", detail });
        };
        let (halves, floats) = match plane {
            Plane::F16(values) => (&values[..], &[][..]),
            Plane::F32(values) => (&[][..], &values[..]),
        };
        Ok(halves.iter().map(|value| value.to_f32()).chain(floats.iter().copied()))
    }
}

/// A folder of latents, one file per clip, all of one key, below a folder that other stores may share.
#[derive(Clone, Debug)]
pub struct LatentStore {
    folder: PathBuf,
    key: LatentKey,
}

impl LatentStore {
    /// A store in a folder, which need not exist yet. Nothing is read.
    pub fn new(folder: &Path, key: LatentKey) -> Self {
        LatentStore { folder: folder.join(key.folder_name()), key }
    }

    /// What decides the latents.
    pub fn key(&self) -> &LatentKey {
        &self.key
    }

    /// The store of a copy of the same clips, below the same folder.
    pub fn of_copy(&self, copy: usize) -> Self {
        LatentStore { folder: self.folder.clone(), key: LatentKey { copy, ..self.key.clone() } }
    }

    fn path(&self, entry: &ClipEntry) -> PathBuf {
        let file = format!("{}.safetensors", entry.clip);
        match self.key.copy {
            0 => self.folder.join(file),
            copy => self.folder.join(format!("copy-{copy}")).join(file),
        }
    }

    /// Are the latents of a clip there, whole, and of this key and content?
    pub fn contains(&self, entry: &ClipEntry) -> bool {
        self.read(entry).is_ok()
    }

    /// Writes the latents of a clip: named arrays of `num_frames * C * H * W` values each.
    ///
    /// # Errors
    /// [`DataError::Parameter`] for a wrong length, or a value that is not finite or beyond the
    /// range of the stored type; [`DataError::Io`], [`DataError::DiskFull`].
    pub fn write(&self, entry: &ClipEntry, arrays: &[(&str, &[f32])]) -> Result<(), DataError> {
        let [channels, rows, columns] = self.key.shape;
        let (dtype, largest) = match self.key.dtype {
            LatentType::F16 => (Dtype::F16, f16::MAX.to_f32()),
            LatentType::F32 => (Dtype::F32, f32::MAX),
        };
        let mut stored = Vec::with_capacity(arrays.len());
        for (name, values) in arrays {
            let expected = entry.num_frames * self.key.len();
            let bad = values.iter().find(|v| !v.is_finite() || v.abs() > largest);
            if values.len() != expected || bad.is_some() {
                let detail = format!(
                    "array {name:?} of clip {}: {} values, expected {expected}, all between \
                     -{largest:e} and {largest:e}; found {bad:?}",
                    entry.clip,
                    values.len()
                );
                return Err(DataError::Parameter { stage: "write latents", detail });
            }
            stored.push(match self.key.dtype {
                LatentType::F16 => values.iter().flat_map(|v| f16::from_f32(*v).to_le_bytes()).collect(),
                LatentType::F32 => f32_bytes(values),
            });
        }
        let words = BTreeMap::from([
            ("format".to_owned(), LATENT_FORMAT.to_owned()),
            ("content".to_owned(), self.key.content_hash(entry)),
            ("network".to_owned(), self.key.network.clone()),
            ("input".to_owned(), self.key.input.clone()),
            ("clip".to_owned(), entry.clip.clone()),
        ]);
        let list: Vec<Array<'_>> = arrays
            .iter()
            .zip(&stored)
            .map(|((name, _), bytes): (_, &Vec<u8>)| Array {
                name,
                dtype,
                shape: vec![entry.num_frames, channels, rows, columns],
                bytes,
            })
            .collect();
        write_container(&self.path(entry), &words, &list)
    }

    /// Reads the latents of a clip.
    ///
    /// # Errors
    /// [`DataError::Io`] if there are none; [`DataError::BadFile`] if they are damaged, or belong to
    /// other weights, another input or other data.
    pub fn read(&self, entry: &ClipEntry) -> Result<Latents, DataError> {
        let file = Container::read("read latents", &self.path(entry))?;
        if file.word("content")? != self.key.content_hash(entry) {
            let detail = "made by another network, of another input, or of other data";
            return Err(file.bad(detail.into()));
        }
        let [channels, rows, columns] = self.key.shape;
        let shape = [entry.num_frames, channels, rows, columns];
        let mut planes = BTreeMap::new();
        for name in file.names() {
            let plane = match self.key.dtype {
                LatentType::F16 => {
                    let bytes = &file.bytes[file.expect(name, Dtype::F16, &shape)?];
                    let value = |b: &[u8]| f16::from_le_bytes([b[0], b[1]]);
                    Plane::F16(bytes.chunks_exact(2).map(value).collect())
                }
                LatentType::F32 => Plane::F32(f32_values(&file.bytes[file.expect(name, Dtype::F32, &shape)?])),
            };
            planes.insert(name.to_owned(), plane);
        }
        Ok(Latents { num_frames: entry.num_frames, shape: self.key.shape, planes })
    }

    /// Makes what is missing: for each clip that has no latents of this key, `encode` is called with
    /// the clip and gives its named arrays. May be stopped at any time and called again. Returns how
    /// many clips were encoded.
    ///
    /// # Errors
    /// Those of `encode`, of loading a clip, and of [`LatentStore::write`].
    pub fn fill<E: From<DataError>>(
        &self,
        data: &Dataset,
        clips: &[usize],
        mut encode: impl FnMut(usize, &crate::Clip) -> Result<Vec<(&'static str, Vec<f32>)>, E>,
    ) -> Result<usize, E> {
        let mut encoded = 0;
        for clip in clips {
            let loaded = match data.clips().get(*clip) {
                Some(entry) if self.contains(entry) => continue,
                _ => data.load(*clip)?,
            };
            let arrays = encode(*clip, &loaded)?;
            let lent: Vec<(&str, &[f32])> = arrays.iter().map(|(n, v)| (*n, &v[..])).collect();
            self.write(&data.clips()[*clip], &lent)?;
            encoded += 1;
        }
        Ok(encoded)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataset::tests::folder_of;

    fn key(dtype: LatentType) -> LatentKey {
        let (network, input) = ("abc".into(), "aligned_fixed".into());
        LatentKey { network, input, shape: [3, 2, 2], dtype, copy: 0 }
    }

    #[test]
    fn latents_survive_the_disk_and_filling_resumes() {
        let (folder, entries) = folder_of(&[("a", 3, None), ("a", 5, None), ("b", 2, None)]);
        let data = Dataset::open(folder.path(), 1 << 20).unwrap();
        for dtype in [LatentType::F16, LatentType::F32] {
            let cache = tempfile::tempdir().unwrap();
            let store = LatentStore::new(cache.path(), key(dtype));
            let encode = |clip: usize, loaded: &crate::Clip| {
                let count = loaded.num_frames() * 12;
                let target: Vec<f32> = (0..count).map(|v| v as f32 * 0.125 - 1.0).collect();
                Ok(vec![("target", target), ("masked", vec![clip as f32; count])])
            };
            let mut calls = 0;
            let stopped = store.fill(&data, &[0, 1, 2], |clip, loaded| {
                calls += 1;
                let stop = || DataError::Internal { stage: "test", detail: String::new() };
                if clip == 1 { Err(stop()) } else { encode(clip, loaded) }
            });
            assert!(stopped.is_err() && calls == 2);
            assert_eq!(store.fill(&data, &[0, 1, 2], encode).map_err(|e: DataError| e).unwrap(), 2);
            assert_eq!(store.fill(&data, &[0, 1, 2], encode).map_err(|e: DataError| e).unwrap(), 0);
            let latents = store.read(&entries[1]).unwrap();
            assert_eq!((latents.num_frames(), latents.shape()), (5, [3, 2, 2]));
            assert_eq!(latents.names().collect::<Vec<_>>(), ["masked", "target"]);
            // Multiples of an eighth are exact in half precision.
            let target: Vec<f32> = latents.values("target").unwrap().collect();
            assert_eq!((target.len(), target[59]), (60, 59.0 * 0.125 - 1.0));
            assert!(latents.values("masked").unwrap().all(|value| value == 1.0));
            assert!(latents.values("other").is_err());
        }
    }

    #[test]
    fn latents_of_other_weights_inputs_or_data_are_not_used() {
        let (_folder, entries) = folder_of(&[("a", 2, None)]);
        let cache = tempfile::tempdir().unwrap();
        let base = key(LatentType::F16);
        let store = LatentStore::new(cache.path(), base.clone());
        let values = [0.5f32; 24];
        store.write(&entries[0], &[("target", &values)]).unwrap();
        assert!(store.contains(&entries[0]));
        for other in [
            LatentKey { network: "abd".into(), ..base.clone() },
            LatentKey { input: "face_box_lower_half".into(), ..base.clone() },
            LatentKey { shape: [3, 4, 1], ..base.clone() },
            LatentKey { dtype: LatentType::F32, ..base.clone() },
            LatentKey { copy: 1, ..base.clone() },
        ] {
            let other = LatentStore::new(cache.path(), other);
            assert!(!other.contains(&entries[0]));
            // Nor when the file was carried into its folder; and what it writes leaves this one alone.
            let path = other.path(&entries[0]);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::copy(store.path(&entries[0]), path).unwrap();
            assert!(matches!(other.read(&entries[0]), Err(DataError::BadFile { .. })));
            other.write(&entries[0], &[("target", &values)]).unwrap();
            assert!(other.contains(&entries[0]) && store.contains(&entries[0]));
        }
        // Copies lie beside the clip, and none is taken for another.
        store.of_copy(1).write(&entries[0], &[("target", &[0.25f32; 24])]).unwrap();
        assert_ne!(store.of_copy(1).read(&entries[0]).unwrap(), store.read(&entries[0]).unwrap());
        let moved = store.of_copy(2).path(&entries[0]);
        std::fs::create_dir_all(moved.parent().unwrap()).unwrap();
        std::fs::copy(store.of_copy(1).path(&entries[0]), moved).unwrap();
        assert!(store.of_copy(1).contains(&entries[0]) && !store.of_copy(2).contains(&entries[0]));
        let changed = ClipEntry { content: "other".into(), ..entries[0].clone() };
        assert!(matches!(store.read(&changed), Err(DataError::BadFile { .. })));
        for wrong in [&values[1..], &[f32::NAN; 24], &[1e5; 24]] {
            let written = store.write(&entries[0], &[("target", wrong)]);
            assert!(matches!(written, Err(DataError::Parameter { .. })));
        }
        let path = store.path(&entries[0]);
        let bytes = std::fs::read(&path).unwrap();
        std::fs::write(&path, &bytes[..bytes.len() - 3]).unwrap();
        assert!(!store.contains(&entries[0]));
    }
}
