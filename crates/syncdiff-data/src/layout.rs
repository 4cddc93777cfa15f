//! Which clips a path stands for: the layouts of LRS2 and LRS3, a table of clips, or any folder of videos.
//!
//! # Source
//! LRS2: `main/ID/NNNNN.mp4` with `.txt` beside it, `pretrain/`, and the lists `train.txt`, `val.txt`, `test.txt`
//! (a line is `ID/NNNNN`, in `test.txt` with a word behind it). LRS3: `trainval/`, `test/` and `pretrain/` of the same
//! make, without lists. Transcripts: the line `Text:  WORDS`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::error::DataError;
use crate::manifest::{ClipSource, collect, finish, folder_name, read_manifest, stem};

/// How a body of clips is laid out on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// `main/`, `pretrain/` and split lists.
    Lrs2,
    /// `trainval/`, `test/` and `pretrain/`.
    Lrs3,
    /// A table with a line for each clip, see [`read_manifest`].
    Manifest,
    /// Videos in folders, a folder for each speaker.
    Folder,
}

impl Layout {
    /// What a path looks like: a file is a table; a folder with `main/` is LRS2; one with `trainval/`, or with `test/`
    /// but no `train/`, `val/` or `valid/`, is LRS3; any other is a folder of videos.
    pub fn of(path: &Path) -> Layout {
        let has = |name: &str| path.join(name).is_dir();
        if !path.is_dir() {
            Layout::Manifest
        } else if has("main") {
            Layout::Lrs2
        } else if has("trainval") || (has("test") && !["train", "val", "valid"].into_iter().any(has)) {
            Layout::Lrs3
        } else {
            Layout::Folder
        }
    }
}

impl std::fmt::Display for Layout {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Layout::Lrs2 => "LRS2 layout",
            Layout::Lrs3 => "LRS3 layout",
            Layout::Manifest => "manifest",
            Layout::Folder => "folder of videos",
        })
    }
}

/// The clips of a path.
#[derive(Clone, Debug)]
pub struct Inputs {
    /// How they are laid out.
    pub layout: Layout,
    /// The clips.
    pub clips: Vec<ClipSource>,
    /// What the user should know: missing lists, clips in no list, how splits were made.
    pub notes: Vec<String>,
}

/// Lists the clips of a path, of the given layout or of the one that [`Layout::of`] sees.
///
/// Splits: of LRS2's `main/` as the lists say (`unlisted` for clips in none); of LRS3's `trainval/` and of a folder
/// by [`split_of_speaker`]; `pretrain/` is a split of its own. A folder with fewer than three speakers is all `train`;
/// one whose videos all lie in `train/`, `valid/` (or `val/`) and `test/` keeps these.
/// A clip that stands in a list but not on the disk is listed too, so that the report tells of it.
///
/// # Errors
/// [`DataError::Io`] if a folder or list cannot be read, [`DataError::Manifest`] for a damaged table,
/// [`DataError::NoClips`] if there is no video.
pub fn read_inputs(path: &Path, layout: Option<Layout>) -> Result<Inputs, DataError> {
    match layout.unwrap_or_else(|| Layout::of(path)) {
        Layout::Manifest => Ok(Inputs { layout: Layout::Manifest, clips: read_manifest(path)?, notes: Vec::new() }),
        Layout::Lrs2 => lrs2(path),
        Layout::Lrs3 => lrs3(path),
        Layout::Folder => folder(path),
    }
}

/// The split of a speaker by its name alone: 80 of 100 go to `train`, 10 to `valid`, 10 to `test`. No speaker is in
/// two splits, and one that is added later moves no other.
pub fn split_of_speaker(speaker: &str) -> &'static str {
    match Sha256::digest(speaker)[..8].iter().fold(0, |rest, byte| (rest * 256 + u32::from(*byte)) % 100) {
        0..80 => "train",
        80..90 => "valid",
        _ => "test",
    }
}

/// The words of a transcript beside a video: of LRS's `Text:` line, or of the first line of a plain text.
pub fn read_transcript(video: &Path) -> String {
    /// A sentence has some hundred bytes; the rest of an LRS file is word times.
    const MOST_BYTES: u64 = 64 << 10;
    let mut bytes = Vec::new();
    let read = std::fs::File::open(video.with_extension("txt"))
        .and_then(|file| std::io::Read::read_to_end(&mut std::io::Read::take(file, MOST_BYTES), &mut bytes));
    if read.is_err() {
        return String::new();
    }
    let text = String::from_utf8_lossy(&bytes);
    let lines = || text.trim_start_matches('\u{feff}').lines().map(str::trim);
    let words = lines().find_map(|line| line.strip_prefix("Text:")).or_else(|| lines().find(|line| !line.is_empty()));
    words.unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The videos below `folder`, by their paths from it.
fn videos(folder: &Path) -> Result<Vec<PathBuf>, DataError> {
    let mut files = Vec::new();
    if folder.is_dir() {
        collect(folder, 0, &mut files)?;
    }
    files.sort();
    Ok(files.iter().map(|path| path.strip_prefix(folder).unwrap_or(path).to_path_buf()).collect())
}

fn clip(folder: &Path, video: &Path, corpus: &str, split: &str) -> ClipSource {
    let path = folder.join(video);
    ClipSource {
        corpus: corpus.to_owned(),
        split: split.to_owned(),
        speaker: folder_name(video),
        name: stem(video),
        transcript: read_transcript(&path),
        licence: String::new(),
        origin: String::new(),
        path,
    }
}

fn lrs2(root: &Path) -> Result<Inputs, DataError> {
    let mut notes = Vec::new();
    let mut split_of: BTreeMap<PathBuf, &'static str> = BTreeMap::new();
    for (list, split) in [("train.txt", "train"), ("val.txt", "valid"), ("test.txt", "test")] {
        match read_list(root, list)? {
            None => notes.push(format!("{list} is missing: no clip of main is in the split {split}")),
            Some(names) => names.into_iter().for_each(|name| {
                split_of.insert(name, split);
            }),
        }
    }
    let main = root.join("main");
    let mut unlisted = 0;
    let mut clips = Vec::new();
    for video in videos(&main)? {
        let split = split_of.remove(&video.with_extension("")).unwrap_or_else(|| {
            unlisted += 1;
            "unlisted"
        });
        clips.push(clip(&main, &video, "LRS2", split));
    }
    if unlisted > 0 {
        notes.push(format!("{unlisted} clips of main stand in no list; their split is `unlisted`"));
    }
    if !split_of.is_empty() {
        notes.push(format!("{} clips stand in a list but not in main; the report names them", split_of.len()));
    }
    clips.extend(split_of.iter().map(|(name, split)| clip(&main, &name.with_extension("mp4"), "LRS2", split)));
    let pretrain = root.join("pretrain");
    clips.extend(videos(&pretrain)?.iter().map(|video| clip(&pretrain, video, "LRS2", "pretrain")));
    let clips = finish(clips, root, "give the folder that holds `main` with the videos of LRS2")?;
    Ok(Inputs { layout: Layout::Lrs2, clips, notes })
}

/// The names in a split list, which lies in the folder or beside it.
fn read_list(root: &Path, list: &str) -> Result<Option<Vec<PathBuf>>, DataError> {
    let places = [root.join(list), root.join("..").join(list)];
    let Some(path) = places.iter().find(|path| path.is_file()) else { return Ok(None) };
    let bytes = std::fs::read(path).map_err(|error| DataError::io("split list", path, error))?;
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let mut names = Vec::new();
    for (at, line) in text.trim_start_matches('\u{feff}').lines().enumerate() {
        let Some(name) = line.split_whitespace().next() else { continue };
        let inside = Path::new(name).components().all(|part| matches!(part, std::path::Component::Normal(_)));
        if !inside {
            let detail = format!("{name:?} is no `ID/NNNNN`; is this the list of LRS2?");
            return Err(DataError::Manifest { path: path.clone(), line: at + 1, detail });
        }
        names.push(PathBuf::from(name.strip_suffix(".mp4").unwrap_or(name)));
    }
    Ok(Some(names))
}

fn lrs3(root: &Path) -> Result<Inputs, DataError> {
    let mut clips = Vec::new();
    for part in ["trainval", "test", "pretrain"] {
        let folder = root.join(part);
        for video in videos(&folder)? {
            let split = match part {
                "trainval" => match split_of_speaker(&folder_name(&video)) {
                    // LRS3 has a test set of its own: only the tenth for validation is taken out.
                    "valid" => "valid",
                    _ => "train",
                },
                other => other,
            };
            clips.push(clip(&folder, &video, "LRS3", split));
        }
    }
    let clips = finish(clips, root, "give the folder that holds `trainval`, `test` or `pretrain` of LRS3")?;
    let notes = vec!["of trainval, the tenth of the speakers that their names' hash picks is `valid`".into()];
    Ok(Inputs { layout: Layout::Lrs3, clips, notes })
}

const REMEDY: &str = "give a folder with mp4, mov, mkv, webm, avi, mpg, m4v or flv files";

fn folder(root: &Path) -> Result<Inputs, DataError> {
    let corpus = root
        .canonicalize()
        .ok()
        .and_then(|whole| whole.file_name().map(|name| name.to_string_lossy().into_owned()))
        .unwrap_or_else(|| "unknown".into());
    let mut files = Vec::new();
    collect(root, 0, &mut files)?;
    files.sort();
    let videos = files.iter().map(|path| path.strip_prefix(root).unwrap_or(path));
    let mut clips: Vec<ClipSource> = videos.map(|video| clip(root, video, &corpus, "train")).collect();
    if let Some(note) = own_splits(root, &mut clips) {
        return Ok(Inputs { layout: Layout::Folder, clips: finish(clips, root, REMEDY)?, notes: vec![note] });
    }
    let speakers: BTreeSet<String> = clips.iter().map(|clip| clip.speaker.clone()).collect();
    let note = if speakers.len() < 3 {
        format!("{} speaker(s), by folder: too few for splits, all clips are `train`", speakers.len())
    } else {
        clips.iter_mut().for_each(|clip| clip.split = split_of_speaker(&clip.speaker).into());
        format!("{} speakers, by folder; 80 % train, 10 % valid, 10 % test by the hash of their names", speakers.len())
    };
    Ok(Inputs { layout: Layout::Folder, clips: finish(clips, root, REMEDY)?, notes: vec![note] })
}

/// Where all videos lie in folders named by splits, these are the splits, and the speakers are what lies in them.
fn own_splits(root: &Path, clips: &mut [ClipSource]) -> Option<String> {
    let parted = |clip: &ClipSource| {
        let inside = clip.path.strip_prefix(root).ok()?;
        let split = match inside.iter().next()?.to_str()? {
            "val" | "valid" => "valid",
            split @ ("train" | "test") => split,
            _ => return None,
        };
        let rest: PathBuf = inside.iter().skip(1).collect();
        (!rest.as_os_str().is_empty()).then(|| (split.to_owned(), folder_name(&rest)))
    };
    let found: Vec<(String, String)> = clips.iter().map(parted).collect::<Option<_>>()?;
    for (clip, (split, speaker)) in clips.iter_mut().zip(found) {
        (clip.split, clip.speaker) = (split, speaker);
    }
    (!clips.is_empty()).then(|| "the folders train, valid (or val) and test are the splits".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder with these files; the text behind the name is the content.
    fn files(list: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in list {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        folder
    }

    fn keys(inputs: &Inputs) -> Vec<String> {
        let mut keys: Vec<String> = inputs.clips.iter().map(ClipSource::key).collect();
        keys.sort();
        keys
    }

    #[test]
    fn lrs2_takes_its_splits_from_the_lists() {
        let folder = files(&[
            ("main/55/00001.mp4", ""),
            ("main/55/00001.txt", "Text:  WHEN YOU'RE COOKING \nConf:  4\n"),
            ("main/55/00002.mp4", ""),
            ("main/63/00011.mp4", ""),
            ("main/99/00001.mp4", ""),
            ("pretrain/55/00007.mp4", ""),
            ("pretrain/55/00007.txt", "Text:  LONG TEXT\nConf: 3\n\nWORD START END ASDSCORE\nLONG 0.1 0.2 7\n"),
            ("train.txt", "55/00001\n\n55/00404\n"),
            ("val.txt", "\u{feff}55/00002\r\n"),
            ("test.txt", "63/00011 NF\n"),
        ]);
        let inputs = read_inputs(folder.path(), None).unwrap();
        assert_eq!(inputs.layout, Layout::Lrs2);
        assert_eq!(
            keys(&inputs),
            [
                "pretrain/LRS2/55/00007",
                "test/LRS2/63/00011",
                "train/LRS2/55/00001",
                "train/LRS2/55/00404",
                "unlisted/LRS2/99/00001",
                "valid/LRS2/55/00002"
            ]
        );
        let words = |name: &str| inputs.clips.iter().find(|c| c.key().ends_with(name)).unwrap().transcript.clone();
        assert_eq!(words("train/LRS2/55/00001"), "WHEN YOU'RE COOKING");
        assert_eq!(words("pretrain/LRS2/55/00007"), "LONG TEXT");
        assert_eq!(words("valid/LRS2/55/00002"), "");
        assert_eq!(inputs.notes.len(), 2, "one clip in no list, one in no folder: {:?}", inputs.notes);

        std::fs::write(folder.path().join("val.txt"), "../etc/passwd\n").unwrap();
        assert!(matches!(read_inputs(folder.path(), None), Err(DataError::Manifest { line: 1, .. })));
        for list in ["train.txt", "val.txt", "test.txt"] {
            std::fs::remove_file(folder.path().join(list)).unwrap();
        }
        let without = read_inputs(folder.path(), Some(Layout::Lrs2)).unwrap();
        assert!(without.clips.iter().all(|clip| ["unlisted", "pretrain"].contains(&clip.split.as_str())));
        assert_eq!(without.notes.len(), 4, "{:?}", without.notes);
    }

    #[test]
    fn lrs3_keeps_its_test_set_and_parts_the_rest_by_speaker() {
        let mut list: Vec<(String, &str)> = (0..60).map(|id| (format!("trainval/id{id:02}/50001.mp4"), "")).collect();
        list.extend((0..60).map(|id| (format!("trainval/id{id:02}/50002.mp4"), "")));
        list.push(("test/0Fi83BHQsMA/00002.mp4".into(), ""));
        list.push(("test/0Fi83BHQsMA/00002.txt".into(), "Text:  IT'S NOT JUST THE CONTENT\n"));
        let list: Vec<(&str, &str)> = list.iter().map(|(name, text)| (name.as_str(), *text)).collect();
        let folder = files(&list);
        let inputs = read_inputs(folder.path(), None).unwrap();
        assert_eq!((inputs.layout, inputs.clips.len()), (Layout::Lrs3, 121));
        let split = |wanted: &str| -> BTreeSet<String> {
            inputs.clips.iter().filter(|c| c.split == wanted).map(|c| c.speaker.clone()).collect()
        };
        assert_eq!(split("test"), BTreeSet::from(["0Fi83BHQsMA".to_owned()]));
        assert!(!split("valid").is_empty() && split("valid").len() < 15, "{:?}", split("valid"));
        assert!(split("train").is_disjoint(&split("valid")));
        let tested = inputs.clips.iter().find(|clip| clip.split == "test").unwrap();
        assert_eq!(tested.transcript, "IT'S NOT JUST THE CONTENT");
    }

    #[test]
    fn a_folder_is_listed_in_order_and_parted_by_speaker() {
        let folder =
            files(&[("p/q/2.MP4", ""), ("p/1.mkv", ""), ("z.txt", ""), ("a.mov", ""), ("p/1.txt", "so it is\n")]);
        let inputs = read_inputs(folder.path(), None).unwrap();
        let found: Vec<_> = inputs.clips.iter().map(|c| (c.speaker.as_str(), c.name.as_str())).collect();
        assert_eq!(found, [("unknown", "a"), ("p", "1"), ("p_q", "2")]);
        assert_eq!(inputs.clips[1].transcript, "so it is");
        for clip in &inputs.clips {
            assert_eq!(clip.split, split_of_speaker(&clip.speaker));
        }
        let own = files(&[("train/a/1.mp4", ""), ("val/b/1.mp4", ""), ("test/1.mp4", "")]);
        let inputs = read_inputs(own.path(), None).unwrap();
        assert_eq!(inputs.layout, Layout::Folder);
        let found: Vec<_> = inputs.clips.iter().map(|c| (c.split.as_str(), c.speaker.as_str())).collect();
        assert_eq!(found, [("test", "unknown"), ("train", "a"), ("valid", "b")]);
        let alone = files(&[("one/1.mp4", ""), ("two/1.mp4", "")]);
        let inputs = read_inputs(alone.path(), None).unwrap();
        assert!(inputs.clips.iter().all(|clip| clip.split == "train") && inputs.notes[0].contains("too few"));
        let empty = tempfile::tempdir().unwrap();
        assert!(matches!(read_inputs(empty.path(), None), Err(DataError::NoClips { .. })));
        assert!(matches!(read_inputs(empty.path(), Some(Layout::Lrs2)), Err(DataError::NoClips { .. })));
        let nowhere = empty.path().join("no");
        assert!(matches!(read_inputs(&nowhere, None), Err(DataError::Io { .. })));
        assert!(matches!(read_inputs(&nowhere, Some(Layout::Folder)), Err(DataError::Io { .. })));
    }

    #[cfg(unix)]
    #[test]
    fn links_count_as_what_they_lead_to_and_circles_end() {
        use std::os::unix::fs::symlink;
        let (elsewhere, folder) = (files(&[("one.mp4", ""), ("p/two.mp4", "")]), files(&[("q/three.mp4", "")]));
        symlink(elsewhere.path().join("one.mp4"), folder.path().join("one.mp4")).unwrap();
        symlink(elsewhere.path().join("p"), folder.path().join("p")).unwrap();
        symlink(folder.path(), folder.path().join("q/round")).unwrap();
        symlink(elsewhere.path().join("none.mp4"), folder.path().join("none.mp4")).unwrap();
        let names: Vec<String> =
            read_inputs(folder.path(), Some(Layout::Folder)).unwrap().clips.into_iter().map(|c| c.name).collect();
        assert_eq!(names, ["one", "two", "three"]);
    }

    #[test]
    fn speakers_are_parted_about_80_10_10() {
        let mut counts = BTreeMap::new();
        for at in 0..2000 {
            *counts.entry(split_of_speaker(&format!("speaker {at}"))).or_insert(0) += 1;
        }
        // Three standard deviations of a tenth of 2000 are 40.
        assert!((160..240).contains(&counts["valid"]) && (160..240).contains(&counts["test"]), "{counts:?}");
    }
}
