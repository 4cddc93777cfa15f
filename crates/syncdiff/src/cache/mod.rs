//! What was found out about a clip or a speech, kept for later runs with the same one.
//!
//! An entry is named by the SHA-256 of all that it depends on: the content of the input, the models, the settings,
//! the versions of the programs. So no entry is ever out of date: what has changed has another name. Entries appear
//! whole or not at all, and carry a digest of their own; one that is damaged is as good as absent, and is written
//! anew. Several programs may share a folder. Above [`MAX_BYTES`] those that were not used for longest are removed;
//! other files in the folder are never touched.
//!
//! Once the folder is open, nothing here ends the work: what cannot be kept is made again next time.

mod codec;
pub mod speech;
pub mod tracks;

use std::fmt::Write;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::error::{Error, Outcome};
use crate::files::{check_place, write_whole};

/// Size of all entries of a folder together.
pub const MAX_BYTES: u64 = 512 << 20;

const STAGE: &str = "cache";
const MAGIC: &[u8; 16] = b"syncdiff cache 1";
const DIGEST_BYTES: usize = 32;
const ENDING: &str = ".cache";

/// A kind of entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The faces and time stamps of a clip.
    Tracks,
    /// The encoded speech.
    Speech,
}

impl Kind {
    const ALL: [Kind; 2] = [Kind::Tracks, Kind::Speech];

    fn prefix(self) -> &'static str {
        match self {
            Kind::Tracks => "tracks-",
            Kind::Speech => "speech-",
        }
    }
}

/// What came of asking for an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kept {
    /// It was there and was used.
    Found,
    /// It was made, and is there for the next run.
    Stored,
    /// It was made and could not be kept: the folder cannot be written, the input changed meanwhile, or it is no file.
    NotStored,
}

/// The name of an entry under construction: everything that its value depends on goes in.
#[derive(Clone, Debug)]
pub struct Key {
    kind: Kind,
    hash: Sha256,
}

impl Key {
    /// Nothing yet but the version of this program; `format` changes whenever values are made or written otherwise.
    pub fn new(kind: Kind, format: u32) -> Self {
        Key { kind, hash: Sha256::new() }.with(crate::VERSION).with(format.to_le_bytes())
    }

    /// Adds a value. Its length goes in as well, so that no two lists of values are alike.
    pub fn with(mut self, value: impl AsRef<[u8]>) -> Self {
        let value = value.as_ref();
        self.hash.update((value.len() as u64).to_le_bytes());
        self.hash.update(value);
        self
    }

    /// Adds the content of a file.
    ///
    /// # Errors
    /// The system's own.
    pub fn with_file(self, path: &Path) -> std::io::Result<Self> {
        let mut hash = Sha256::new();
        std::io::copy(&mut File::open(path)?, &mut hash)?;
        Ok(self.with(hash.finalize()))
    }

    fn name(self) -> String {
        let mut name = self.kind.prefix().to_owned();
        for byte in self.hash.finalize() {
            let _ = write!(name, "{byte:02x}");
        }
        name + ENDING
    }
}

/// A folder of entries.
#[derive(Clone, Debug)]
pub struct Cache {
    folder: PathBuf,
    max_bytes: u64,
}

impl Cache {
    /// Opens a folder; one that is not there is made.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be made or written.
    pub fn open(folder: &Path) -> Outcome<Self> {
        fs::create_dir_all(folder).map_err(|source| Error::io(STAGE, folder, source))?;
        check_place(&folder.join(format!("{STAGE}{ENDING}")))?;
        Ok(Cache { folder: folder.to_path_buf(), max_bytes: MAX_BYTES })
    }

    /// Gives what `read` makes of an entry, or else makes the value and keeps what `write` makes of it. Without a
    /// cache or a key the value is made.
    ///
    /// # Errors
    /// Those of `make`.
    pub fn find_or_make<T>(
        cache: Option<&Cache>,
        key: Option<Key>,
        read: impl FnOnce(&[u8]) -> Option<T>,
        make: impl FnOnce() -> Outcome<T>,
        write: impl FnOnce(&T) -> Option<Vec<u8>>,
    ) -> Outcome<(T, Option<Kept>)> {
        let Some(cache) = cache else { return Ok((make()?, None)) };
        let Some(name) = key.map(Key::name) else { return Ok((make()?, Some(Kept::NotStored))) };
        if let Some(value) = cache.get(&name).and_then(|payload| read(&payload)) {
            return Ok((value, Some(Kept::Found)));
        }
        let value = make()?;
        let stored = write(&value).is_some_and(|payload| cache.put(&name, &payload));
        Ok((value, Some(if stored { Kept::Stored } else { Kept::NotStored })))
    }

    /// The payload of an entry; none if it is absent or damaged.
    fn get(&self, name: &str) -> Option<Vec<u8>> {
        let path = self.folder.join(name);
        if fs::metadata(&path).ok()?.len() > self.max_bytes {
            return None;
        }
        let mut bytes = fs::read(&path).ok()?;
        let head = MAGIC.len() + DIGEST_BYTES;
        let (start, payload) = bytes.split_at_checked(head)?;
        if start[..MAGIC.len()] != MAGIC[..] || start[MAGIC.len()..] != Sha256::digest(payload)[..] {
            return None;
        }
        // Only for the order of removal: on a disk that cannot be written the entry serves all the same.
        if let Ok(file) = File::options().append(true).open(&path) {
            let _ = file.set_modified(SystemTime::now());
        }
        bytes.drain(..head);
        Some(bytes)
    }

    /// Writes an entry and makes room for it; says whether it is there.
    fn put(&self, name: &str, payload: &[u8]) -> bool {
        let mut bytes = MAGIC.to_vec();
        bytes.extend(Sha256::digest(payload));
        bytes.extend(payload);
        if bytes.len() as u64 > self.max_bytes || write_whole(STAGE, &self.folder.join(name), &bytes).is_err() {
            return false;
        }
        self.tidy(name);
        true
    }

    /// Removes the entries that were not used for longest until the rest fits, but never the one just written.
    fn tidy(&self, newest: &str) {
        let Ok(listed) = fs::read_dir(&self.folder) else { return };
        let mut entries: Vec<(SystemTime, u64, PathBuf)> = listed
            .flatten()
            .filter(|entry| entry.file_name().to_str().is_some_and(is_entry))
            .filter_map(|entry| {
                let about = entry.metadata().ok()?;
                Some((about.modified().ok()?, about.len(), entry.path()))
            })
            .collect();
        entries.sort();
        let mut total: u64 = entries.iter().map(|(_, len, _)| len).sum();
        for (_, len, path) in entries {
            if total <= self.max_bytes {
                return;
            }
            if !path.ends_with(newest) && fs::remove_file(&path).is_ok() {
                total -= len;
            }
        }
    }
}

/// Is this a name that [`Key`] gives?
fn is_entry(name: &str) -> bool {
    let digits = |kind: &Kind| name.strip_prefix(kind.prefix()).and_then(|rest| rest.strip_suffix(ENDING));
    let digits = Kind::ALL.iter().find_map(digits);
    digits.is_some_and(|digits| {
        digits.len() == 2 * DIGEST_BYTES && digits.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn key(text: &str) -> Key {
        Key::new(Kind::Speech, 1).with(text)
    }

    /// Asks for a value that is made as `made`.
    fn ask(cache: &Cache, text: &str, made: &[u8]) -> (Vec<u8>, Option<Kept>) {
        let read = |bytes: &[u8]| Some(bytes.to_vec());
        Cache::find_or_make(Some(cache), Some(key(text)), read, || Ok(made.to_vec()), |value| Some(value.clone()))
            .unwrap()
    }

    #[test]
    fn names_tell_all_values_apart() {
        let names = [
            key("ab").name(),
            key("a").with("b").name(),
            key("b").with("a").name(),
            Key::new(Kind::Tracks, 1).with("ab").name(),
            Key::new(Kind::Speech, 2).with("ab").name(),
        ];
        for (at, name) in names.iter().enumerate() {
            assert!(is_entry(name), "{name}");
            assert!(!names[..at].contains(name), "{name}");
        }
        assert_eq!(key("ab").name(), names[0]);
        assert!(!is_entry("speech-12.cache") && !is_entry("notes.txt"));
    }

    #[test]
    fn what_was_kept_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::open(&folder.path().join("new/cache")).unwrap();
        assert_eq!(ask(&cache, "a", b"one"), (b"one".to_vec(), Some(Kept::Stored)));
        assert_eq!(ask(&cache, "a", b"two"), (b"one".to_vec(), Some(Kept::Found)));
        assert_eq!(ask(&cache, "b", b"two"), (b"two".to_vec(), Some(Kept::Stored)));
        let absent = Cache::find_or_make(None, Some(key("a")), |_| Some(1), || Ok(2), |_| None).unwrap();
        assert_eq!(absent, (2, None));
        let keyless = Cache::find_or_make(Some(&cache), None, |_| Some(1), || Ok(2), |_| None).unwrap();
        assert_eq!(keyless, (2, Some(Kept::NotStored)));
    }

    #[test]
    fn every_damage_is_noticed_and_mended() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::open(folder.path()).unwrap();
        ask(&cache, "a", b"the value");
        let path = folder.path().join(key("a").name());
        let whole = fs::read(&path).unwrap();
        let mut damaged: Vec<Vec<u8>> = (0..whole.len()).map(|len| whole[..len].to_vec()).collect();
        damaged.push([&whole[..], b"x"].concat());
        damaged.extend((0..whole.len()).map(|at| {
            let mut bytes = whole.clone();
            bytes[at] ^= 1;
            bytes
        }));
        for bytes in damaged {
            fs::write(&path, &bytes).unwrap();
            assert_eq!(ask(&cache, "a", b"the value"), (b"the value".to_vec(), Some(Kept::Stored)));
            assert_eq!(fs::read(&path).unwrap(), whole);
        }
    }

    #[test]
    fn what_was_not_used_for_longest_goes_first() {
        let folder = tempfile::tempdir().unwrap();
        let mut cache = Cache::open(folder.path()).unwrap();
        let entry = MAGIC.len() + DIGEST_BYTES + 100;
        cache.max_bytes = 3 * entry as u64;
        fs::write(folder.path().join("notes.txt"), [0; 1000]).unwrap();
        let aged = |text: &str, secs: u64| {
            let file = File::options().append(true).open(folder.path().join(key(text).name())).unwrap();
            file.set_modified(SystemTime::now() - Duration::from_secs(secs)).unwrap();
        };
        for (text, secs) in [("a", 300), ("b", 200), ("c", 100)] {
            ask(&cache, text, &[7; 100]);
            aged(text, secs);
        }
        // Use makes it young again.
        assert_eq!(ask(&cache, "a", b"").1, Some(Kept::Found));
        ask(&cache, "d", &[7; 100]);
        let there = |text: &str| folder.path().join(key(text).name()).exists();
        assert_eq!(["a", "b", "c", "d"].map(there), [true, false, true, true]);
        assert!(folder.path().join("notes.txt").exists());
        // What could never fit is not kept, and nothing goes for it.
        assert_eq!(ask(&cache, "e", &[7; 1000]).1, Some(Kept::NotStored));
        assert_eq!(["a", "b", "c", "d"].map(there), [true, false, true, true]);
    }

    #[test]
    fn a_place_that_cannot_be_a_folder_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "x").unwrap();
        let error = Cache::open(&file).unwrap_err();
        assert_eq!(error.exit_code(), 7);
        assert!(error.to_string().contains("file"), "{error}");
    }
}
