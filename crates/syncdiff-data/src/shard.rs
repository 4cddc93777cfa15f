//! Shards: tar files of many clips, in the form that WebDataset reads.
//!
//! A clip is four members of one name: `KEY.json` (its line of the index), `KEY.safetensors` (the prepared clip),
//! `KEY.wav` (its 16 kHz speech) and `KEY.txt` (its transcript, as LRS has it). This program reads only the second, by
//! the place that the index tells; the others are for everybody else. A dot in the last part of a name is written
//! `%2E`, since the name of a sample ends at its first dot. Equal clips give equal bytes.

use std::io::Write;
use std::path::Path;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::atomic::write_whole;
use crate::clip::{Clip, hex};
use crate::error::DataError;
use crate::index::ClipEntry;

const STAGE: &str = "write shard";

/// Members of a tar file begin on multiples of this.
const BLOCK: u64 = 512;

/// Where a clip lies in its shard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Place {
    pub(crate) clip: String,
    pub(crate) offset: u64,
    pub(crate) num_bytes: u64,
    pub(crate) sha256: String,
}

impl Place {
    /// The clip's line in the index, once it lies in the shard.
    pub(crate) fn put_into(&self, entry: &mut ClipEntry, shard: &str) {
        entry.file = shard.to_owned();
        entry.offset = self.offset;
        entry.num_bytes = self.num_bytes;
        entry.sha256.clone_from(&self.sha256);
    }
}

/// File name of a shard; the split is the first part of its clips' names.
pub(crate) fn shard_name(split: &str, number: usize) -> String {
    format!("{split}-{number:06}.tar")
}

/// The split and the number in the file name of a shard.
pub(crate) fn shard_number(file: &str) -> Option<(&str, usize)> {
    let (split, number) = file.strip_suffix(".tar")?.rsplit_once('-')?;
    Some((split, number.parse().ok()?))
}

/// Writes the clips, which lie somewhere below `from`, into one tar file; an existing one is replaced when the new one
/// is whole.
pub(crate) fn write_shard(path: &Path, from: &Path, clips: &[&ClipEntry]) -> Result<Vec<Place>, DataError> {
    let mut places = Vec::with_capacity(clips.len());
    let mut failure = None;
    let written = write_whole(path, |file| {
        let mut tar = tar::Builder::new(Counted { file, num_bytes: 0 });
        for entry in clips {
            match Members::of(entry, from) {
                Ok(members) => places.push(members.append(&mut tar)?),
                Err(error) => {
                    failure = Some(error);
                    return Err(std::io::ErrorKind::Other.into());
                }
            }
        }
        tar.into_inner().map(drop)
    });
    match failure {
        Some(error) => Err(error),
        None => written.map(|()| places),
    }
}

/// What a clip puts into its shard.
struct Members {
    clip: String,
    clip_bytes: Vec<u8>,
    json: Vec<u8>,
    wav: Vec<u8>,
    text: String,
}

impl Members {
    fn of(entry: &ClipEntry, from: &Path) -> Result<Self, DataError> {
        let clip_bytes = entry.read(STAGE, from)?;
        let clip = Clip::parse(STAGE, &from.join(&entry.file), clip_bytes)?;
        let wav = syncdiff_media::wav_bytes(clip.speech(), syncdiff_media::time::SPEECH_RATE as u32, 1)?;
        let clip_bytes = clip.into_bytes();
        let told = ClipEntry {
            file: format!("{}.safetensors", entry.clip),
            offset: 0,
            num_bytes: clip_bytes.len() as u64,
            sha256: hex(&Sha256::digest(&clip_bytes)),
            ..entry.clone()
        };
        let json = serde_json::to_vec(&told)
            .map_err(|error| DataError::Internal { stage: STAGE, detail: error.to_string() })?;
        Ok(Members { clip: entry.clip.clone(), text: format!("Text:  {}\n", entry.transcript), clip_bytes, json, wav })
    }

    fn append<W: Write>(&self, tar: &mut tar::Builder<Counted<W>>) -> std::io::Result<Place> {
        let key = match self.clip.rsplit_once('/') {
            Some((folder, name)) => format!("{folder}/{}", name.replace('.', "%2E")),
            None => self.clip.replace('.', "%2E"),
        };
        let mut append = |ending: &str, bytes: &[u8]| {
            let mut header = tar::Header::new_ustar();
            header.set_size(bytes.len() as u64);
            header.set_mode(0o644);
            header.set_mtime(0);
            tar.append_data(&mut header, format!("{key}.{ending}"), bytes)?;
            // Names too long for ustar have a block of their own before the header: the end is what is sure.
            Ok::<u64, std::io::Error>(tar.get_ref().num_bytes - (bytes.len() as u64).next_multiple_of(BLOCK))
        };
        append("json", &self.json)?;
        let offset = append("safetensors", &self.clip_bytes)?;
        append("wav", &self.wav)?;
        append("txt", self.text.as_bytes())?;
        Ok(Place {
            clip: self.clip.clone(),
            offset,
            num_bytes: self.clip_bytes.len() as u64,
            sha256: hex(&Sha256::digest(&self.clip_bytes)),
        })
    }
}

/// A writer that knows how far it is.
struct Counted<W> {
    file: W,
    num_bytes: u64,
}

impl<W: Write> Write for Counted<W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.num_bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.file.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::io::Read;

    use super::*;
    use crate::dataset::tests::folder_of;

    #[test]
    fn a_shard_is_a_tar_file_and_its_places_hold_the_clips() {
        let (folder, mut entries) = folder_of(&[("a", 6, None), ("b.c", 5, None), ("b.c", 4, None)]);
        entries[1].transcript = "bin blue".into();
        let shard = folder.path().join("train-000000.tar");
        let lent: Vec<&ClipEntry> = entries.iter().collect();
        let places = write_shard(&shard, folder.path(), &lent).unwrap();
        let again = folder.path().join("again.tar");
        assert_eq!(write_shard(&again, folder.path(), &lent).unwrap(), places);
        assert_eq!(std::fs::read(&shard).unwrap(), std::fs::read(&again).unwrap());

        let mut members = BTreeMap::new();
        let mut archive = tar::Archive::new(std::fs::File::open(&shard).unwrap());
        for member in archive.entries().unwrap() {
            let mut member = member.unwrap();
            let mut bytes = Vec::new();
            member.read_to_end(&mut bytes).unwrap();
            assert!(member.header().as_ustar().is_some());
            members.insert(member.path().unwrap().to_string_lossy().into_owned(), (member.raw_file_position(), bytes));
        }
        assert_eq!(members.len(), 12);
        assert_eq!(members["train/b.c/s/001.txt"].1, b"Text:  bin blue\n");
        assert_eq!(members["train/b.c/s/001.wav"].1.len(), 44 + 5 * 640 * 2);
        for (place, entry) in places.iter().zip(&entries) {
            let (at, bytes) = &members[&format!("{}.safetensors", entry.clip)];
            assert_eq!((*at, bytes.len() as u64), (place.offset, place.num_bytes));
            assert_eq!(bytes, &std::fs::read(folder.path().join(&entry.file)).unwrap());
            let told: ClipEntry = serde_json::from_slice(&members[&format!("{}.json", entry.clip)].1).unwrap();
            assert_eq!((told.num_frames, told.sha256), (entry.num_frames, place.sha256.clone()));
            let mut moved = entry.clone();
            place.put_into(&mut moved, "train-000000.tar");
            assert_eq!(Clip::open(folder.path(), &moved).unwrap().num_frames(), entry.num_frames);
        }
    }

    #[test]
    fn long_names_and_dots_keep_the_places_right() {
        let (folder, mut entries) = folder_of(&[("a", 4, None)]);
        entries[0].clip = format!("train/{}/{}/a.b", "c".repeat(120), "s".repeat(140));
        let shard = folder.path().join("x.tar");
        let places = write_shard(&shard, folder.path(), &[&entries[0]]).unwrap();
        places[0].put_into(&mut entries[0], "x.tar");
        assert_eq!(Clip::open(folder.path(), &entries[0]).unwrap().num_frames(), 4);
        let mut archive = tar::Archive::new(std::fs::File::open(&shard).unwrap());
        let names: Vec<String> =
            archive.entries().unwrap().map(|m| m.unwrap().path().unwrap().to_string_lossy().into_owned()).collect();
        assert!(names[1].ends_with("/a%2Eb.safetensors") && names[1].len() > 260, "{names:?}");
    }

    #[test]
    fn names_of_shards_are_read_back() {
        assert_eq!(shard_number(&shard_name("a-b", 12)), Some(("a-b", 12)));
        assert_eq!(shard_number("train/a/b/c.safetensors"), None);
    }
}
