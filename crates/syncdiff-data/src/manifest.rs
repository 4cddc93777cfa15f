//! Lists of clips: a table with one line per clip; and how clips are named.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use crate::clip::ClipMeta;
use crate::error::DataError;

/// One clip to prepare.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClipSource {
    /// The media file.
    pub path: PathBuf,
    /// Which body of data it belongs to.
    pub corpus: String,
    /// `train`, `valid`, `test` or another word.
    pub split: String,
    /// Who speaks.
    pub speaker: String,
    /// Name among the clips of the speaker.
    pub name: String,
    /// What is said; may be empty.
    pub transcript: String,
    /// Terms of use; may be empty.
    pub licence: String,
    /// Where it comes from; may be empty.
    pub origin: String,
}

impl ClipSource {
    /// The clip's identity and the place of its output: `split/corpus/speaker/name`, each part
    /// reduced to letters, digits, dot, dash and underscore.
    pub fn key(&self) -> String {
        [&self.split, &self.corpus, &self.speaker, &self.name].map(|part| tame(part)).join("/")
    }

    /// What goes into the prepared file: this, and the rate, the size and the fingerprint of what was read.
    pub(crate) fn meta(&self, source_fps: String, (width, height): (usize, usize), fingerprint: &str) -> ClipMeta {
        ClipMeta {
            clip: self.key(),
            corpus: self.corpus.clone(),
            split: self.split.clone(),
            speaker: self.speaker.clone(),
            transcript: self.transcript.clone(),
            licence: self.licence.clone(),
            origin: self.origin.clone(),
            source_fps,
            source_size: format!("{width}x{height}"),
            fingerprint: fingerprint.to_owned(),
        }
    }
}

/// A word that is safe as a file name everywhere.
fn tame(part: &str) -> String {
    let keep = |c: char| c.is_alphanumeric() || matches!(c, '.' | '-' | '_' | '~');
    let mut name: String = part.chars().map(|c| if keep(c) { c } else { '_' }).take(120).collect();
    if name.starts_with(['.', '-']) || name.is_empty() {
        name.insert(0, '_');
    }
    name
}

/// File name endings that a folder is searched for.
const VIDEO_ENDINGS: [&str; 9] = ["mp4", "mov", "mkv", "webm", "avi", "mpg", "mpeg", "m4v", "flv"];

/// Deepest nesting of folders that is followed; links are not.
const MAX_DEPTH: usize = 16;

/// Reads a table with tabs between the columns. The first line names them: `path` (relative to the
/// table's folder) must be there; `corpus`, `split`, `speaker`, `transcript`, `licence` and `source`
/// may be; others are ignored. Empty lines and lines that begin with `#` are skipped.
///
/// Where a column is missing, the corpus is `unknown`, the split `train`, and the speaker the
/// clip's folder. Clips of one speaker with equal file names get `~2`, `~3` behind the name.
///
/// # Errors
/// [`DataError::Io`], [`DataError::Manifest`] with the line, [`DataError::NoClips`].
pub fn read_manifest(path: &Path) -> Result<Vec<ClipSource>, DataError> {
    let bytes = std::fs::read(path).map_err(|error| DataError::io("manifest", path, error))?;
    let wrong = |line: usize, detail: String| DataError::Manifest { path: path.to_path_buf(), line: line + 1, detail };
    let text = String::from_utf8(bytes).map_err(|error| {
        let before = error.utf8_error().valid_up_to();
        let line = error.as_bytes()[..before].iter().filter(|b| **b == b'\n').count();
        wrong(line, "the text is not UTF-8; save the table as UTF-8".into())
    })?;
    let mut lines = text
        .trim_start_matches('\u{feff}')
        .lines()
        .enumerate()
        .filter(|(_, line)| !line.trim().is_empty() && !line.starts_with('#'));
    let Some((header_line, header)) = lines.next() else {
        return Err(wrong(0, "the table is empty; the first line must name the columns".into()));
    };
    let mut columns = HashMap::new();
    for (at, name) in header.split('\t').map(str::trim).enumerate() {
        if columns.insert(name, at).is_some() {
            return Err(wrong(header_line, format!("column {name:?} is named twice")));
        }
    }
    if !columns.contains_key("path") {
        let detail = format!("no column `path` in {header:?}; columns are separated by tabs");
        return Err(wrong(header_line, detail));
    }
    let folder = path.parent().unwrap_or(Path::new("."));
    let mut clips = Vec::new();
    for (number, line) in lines {
        let cells: Vec<&str> = line.split('\t').map(str::trim).collect();
        if cells.len() > columns.len() {
            let detail = format!("{} cells for {} columns; a tab too many?", cells.len(), columns.len());
            return Err(wrong(number, detail));
        }
        let cell = |name: &str| columns.get(name).and_then(|at| cells.get(*at)).copied().unwrap_or_default();
        let word = |name: &str, otherwise: &str| {
            let value = cell(name);
            if value.is_empty() { otherwise.to_owned() } else { value.to_owned() }
        };
        if cell("path").is_empty() {
            return Err(wrong(number, "the path is empty".into()));
        }
        let relative = Path::new(cell("path"));
        clips.push(ClipSource {
            path: folder.join(relative),
            corpus: word("corpus", "unknown"),
            split: word("split", "train"),
            speaker: word("speaker", &folder_name(relative)),
            name: stem(relative),
            transcript: cell("transcript").to_owned(),
            licence: cell("licence").to_owned(),
            origin: cell("source").to_owned(),
        });
    }
    finish(clips, path, "give a table with a line for each clip")
}

/// Adds the videos below a folder.
pub(crate) fn collect(folder: &Path, depth: usize, files: &mut Vec<PathBuf>) -> Result<(), DataError> {
    let io = |error| DataError::io("inputs", folder, error);
    for entry in std::fs::read_dir(folder).map_err(io)? {
        let entry = entry.map_err(io)?;
        let path = entry.path();
        // What a link leads to counts: corpora are often gathered by links. One that leads nowhere is no video.
        let Ok(kind) = std::fs::metadata(&path).map(|about| about.file_type()) else { continue };
        let ending = path.extension().map(|e| e.to_string_lossy().to_lowercase());
        if kind.is_dir() && depth < MAX_DEPTH {
            // A link to a folder that it lies in would list everything again.
            let leads_back = |real: PathBuf| folder.canonicalize().is_ok_and(|here| here.starts_with(real));
            if !path.canonicalize().is_ok_and(leads_back) {
                collect(&path, depth + 1, files)?;
            }
        } else if kind.is_file() && ending.is_some_and(|e| VIDEO_ENDINGS.contains(&e.as_str())) {
            files.push(path);
        }
    }
    Ok(())
}

/// A file name without its ending.
pub(crate) fn stem(path: &Path) -> String {
    path.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

/// The path of folders to a file, as one word.
pub(crate) fn folder_name(relative: &Path) -> String {
    let parts: Vec<String> = relative
        .parent()
        .into_iter()
        .flat_map(Path::components)
        .map(|part| part.as_os_str().to_string_lossy().into_owned())
        .collect();
    if parts.is_empty() { "unknown".into() } else { parts.join("_") }
}

/// Makes every key unique, in order.
pub(crate) fn finish(
    mut clips: Vec<ClipSource>,
    path: &Path,
    remedy: &'static str,
) -> Result<Vec<ClipSource>, DataError> {
    if clips.is_empty() {
        return Err(DataError::NoClips { path: path.to_path_buf(), remedy });
    }
    make_unique(&mut clips);
    Ok(clips)
}

/// Puts `~2`, `~3` behind names that would share an output file. Compared without case, as some
/// file systems do.
pub(crate) fn make_unique(clips: &mut [ClipSource]) {
    let mut seen = std::collections::HashSet::new();
    for clip in clips {
        let name = clip.name.clone();
        let mut number = 1;
        while !seen.insert(clip.key().to_lowercase()) {
            number += 1;
            clip.name = format!("{name}~{number}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(text: &[u8]) -> Result<Vec<ClipSource>, DataError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("list.tsv");
        std::fs::write(&path, text).unwrap();
        read_manifest(&path).map(|mut clips| {
            for clip in &mut clips {
                clip.path = clip.path.strip_prefix(folder.path()).unwrap().to_path_buf();
            }
            clips
        })
    }

    #[test]
    fn columns_are_found_by_name_in_any_order() {
        let clips = manifest(
            b"split\tpath\twidth\tspeaker\tcorpus\ttranscript\n# note\n\
              test\ta/b c.mp4\t360\ts 1\tGRID\tbin blue\n\ntrain\ta/d.mp4\n",
        )
        .unwrap();
        assert_eq!(clips.len(), 2);
        assert_eq!(clips[0].key(), "test/GRID/s_1/b_c");
        assert_eq!((clips[0].transcript.as_str(), clips[0].licence.as_str()), ("bin blue", ""));
        assert_eq!(clips[0].path, Path::new("a/b c.mp4"));
        assert_eq!(clips[1].key(), "train/unknown/a/d", "missing cells fall back");
    }

    #[test]
    fn wrong_tables_name_the_line() {
        for (text, line) in [
            (&b""[..], 1),
            (b"file\tsplit\nx\ty\n", 1),
            (b"path\tpath\nx\ty\n", 1),
            (b"path\n\nx.mp4\ty\n", 3),
            (b"path\tsplit\n\ttrain\n", 2),
            (b"path\n\xff\xfe\n", 2),
        ] {
            match manifest(text) {
                Err(DataError::Manifest { line: found, .. }) => assert_eq!(found, line, "{text:?}"),
                other => panic!("{text:?}: {other:?}"),
            }
        }
        assert!(matches!(manifest(b"path\n"), Err(DataError::NoClips { .. })));
    }

    #[test]
    fn keys_are_unique_and_never_leave_the_folder() {
        let clips = manifest(b"path\tspeaker\tsplit\n../x/a.mp4\t..\t/\nb/A.mkv\t..\t/\n-c.mp4\t\t\n").unwrap();
        let keys: Vec<String> = clips.iter().map(ClipSource::key).collect();
        assert_eq!(keys, ["_/unknown/_../a", "_/unknown/_../A~2", "train/unknown/unknown/_-c"]);
    }
}
