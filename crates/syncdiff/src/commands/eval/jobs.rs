//! Which clips are scored: pairs out of two folders, or out of a table.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};

use syncdiff::{Error, Outcome};
use syncdiff_data::{ClipSource, Layout, read_inputs, read_transcript};

/// One clip to score.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Job {
    /// Its name; unique, and safe as a file name once tamed.
    pub(super) clip: String,
    pub(super) speaker: String,
    pub(super) corpus: String,
    pub(super) generated: PathBuf,
    pub(super) reference: PathBuf,
    pub(super) speech: Option<PathBuf>,
    pub(super) transcript: Option<String>,
    pub(super) read: Option<String>,
    /// Why it cannot be scored, where that is known beforehand.
    pub(super) missing: Option<String>,
}

impl Job {
    /// Its name as a file name.
    pub(super) fn file_name(&self) -> String {
        let keep = |c: char| c.is_alphanumeric() || matches!(c, '.' | '-' | '_' | '~');
        let name: String = self.clip.chars().map(|c| if keep(c) { c } else { '_' }).take(160).collect();
        if name.starts_with('.') || name.is_empty() { format!("_{name}") } else { name }
    }
}

/// Pairs clips by their path below the two folders without its ending, else by their bare name where only one original
/// bears it. A clip without a partner is a job that says so.
///
/// # Errors
/// A folder that cannot be read or holds no clip.
pub(super) fn of_folders(generated: &Path, reference: &Path) -> Outcome<Vec<Job>> {
    let videos = |folder: &Path| -> Outcome<Vec<ClipSource>> { Ok(read_inputs(folder, Some(Layout::Folder))?.clips) };
    let (ours, truths) = (videos(generated)?, videos(reference)?);
    let stem = |clip: &ClipSource, folder: &Path| {
        let path = clip.path.strip_prefix(folder).unwrap_or(&clip.path).with_extension("");
        path.to_string_lossy().replace('\\', "/")
    };
    let by_path: BTreeMap<String, &ClipSource> = truths.iter().map(|clip| (stem(clip, reference), clip)).collect();
    let mut by_name: HashMap<String, Vec<&ClipSource>> = HashMap::new();
    for clip in &truths {
        let name = clip.path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        by_name.entry(name).or_default().push(clip);
    }
    let mut used: HashSet<&Path> = HashSet::new();
    let mut jobs = Vec::new();
    for clip in &ours {
        let name = stem(clip, generated);
        let bare = clip.path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let truth = by_path.get(&name).copied().or_else(|| match by_name.get(&bare).map(Vec::as_slice) {
            Some([only]) => Some(*only),
            _ => None,
        });
        let mut job = Job { clip: name, generated: clip.path.clone(), ..Job::default() };
        match truth {
            Some(truth) => {
                used.insert(&truth.path);
                job.fill(truth);
            }
            None => {
                (job.speaker, job.corpus) = (clip.speaker.clone(), clip.corpus.clone());
                job.missing = Some(format!("no original of this name in {reference:?}"));
            }
        }
        jobs.push(job);
    }
    for truth in truths.iter().filter(|truth| !used.contains(truth.path.as_path())) {
        let missing = Some(format!("no generated clip of this name in {generated:?}"));
        let mut job = Job { clip: stem(truth, reference), missing, ..Job::default() };
        job.fill(truth);
        jobs.push(job);
    }
    finish(jobs)
}

impl Job {
    fn fill(&mut self, truth: &ClipSource) {
        self.reference = truth.path.clone();
        (self.speaker, self.corpus) = (truth.speaker.clone(), truth.corpus.clone());
        self.transcript = beside(&truth.path);
    }
}

/// The transcript in the text file beside a clip, in small letters as readers write.
fn beside(clip: &Path) -> Option<String> {
    Some(read_transcript(clip).to_lowercase()).filter(|said| !said.is_empty())
}

/// Reads a table of pairs.
///
/// # Errors
/// A table that cannot be read, or whose columns are not those of `--pairs`.
pub(super) fn of_table(table: &Path) -> Outcome<Vec<Job>> {
    const COLUMNS: [&str; 7] = ["generated", "reference", "name", "speaker", "speech", "transcript", "read"];
    let text = std::fs::read_to_string(table).map_err(|source| Error::io("pairs", table, source))?;
    let remedy = format!("the first line names the columns, separated by tabs: {}", COLUMNS.join(", "));
    let wrong = |line: usize, detail: String| {
        Err(Error::usage(format!("--pairs {table:?}: line {}: {detail}", line + 1), remedy.clone()))
    };
    let text = text.trim_start_matches('\u{feff}');
    let mut lines = text.lines().enumerate().filter(|(_, l)| !l.trim().is_empty() && !l.starts_with('#'));
    let Some((_, head)) = lines.next() else { return wrong(0, "the table is empty".into()) };
    let columns: Vec<&str> = head.split('\t').map(str::trim).collect();
    for needed in &COLUMNS[..2] {
        if !columns.contains(needed) {
            return wrong(0, format!("no column `{needed}`"));
        }
    }
    let folder = table.parent().unwrap_or(Path::new("."));
    let mut jobs = Vec::new();
    for (number, line) in lines {
        let cells: Vec<&str> = line.split('\t').map(str::trim).collect();
        if cells.len() > columns.len() {
            return wrong(number, format!("{} cells for {} columns", cells.len(), columns.len()));
        }
        let cell = |name: &str| {
            let at = columns.iter().position(|column| *column == name)?;
            cells.get(at).copied().filter(|cell| !cell.is_empty())
        };
        let (Some(generated), Some(reference)) = (cell("generated"), cell("reference")) else {
            return wrong(number, "`generated` or `reference` is empty".into());
        };
        let reference = folder.join(reference);
        let path = Path::new(generated).with_extension("");
        let stem = if path.is_absolute() { path.file_name().map(Path::new) } else { Some(path.as_path()) };
        let stem = stem.unwrap_or(&path).to_string_lossy().into_owned();
        // A reader that read nothing said an empty sentence, which is not the same as no reader.
        let read = columns.contains(&"read").then(|| cell("read").unwrap_or_default().to_owned());
        jobs.push(Job {
            clip: cell("name").map_or(stem, str::to_owned),
            speaker: cell("speaker").unwrap_or("unknown").to_owned(),
            corpus: "pairs".into(),
            generated: folder.join(generated),
            speech: cell("speech").map(|speech| folder.join(speech)),
            transcript: cell("transcript").map(str::to_owned).or_else(|| beside(&reference)),
            read,
            reference,
            missing: None,
        });
    }
    if jobs.is_empty() {
        return wrong(0, "no line with a clip".into());
    }
    finish(jobs)
}

/// In the order of names, each unique as a file name.
fn finish(mut jobs: Vec<Job>) -> Outcome<Vec<Job>> {
    jobs.sort_by(|a, b| (&a.clip, &a.generated).cmp(&(&b.clip, &b.generated)));
    let mut seen = HashSet::new();
    for job in &mut jobs {
        let clip = job.clip.clone();
        let mut number = 1;
        while !seen.insert(job.file_name().to_lowercase()) {
            number += 1;
            job.clip = format!("{clip}~{number}");
        }
    }
    Ok(jobs)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(folder: &Path, names: &[&str]) {
        for name in names {
            let path = folder.join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "x").unwrap();
        }
    }

    #[test]
    fn clips_are_paired_by_path_then_by_name_and_orphans_are_told() {
        let folder = tempfile::tempdir().unwrap();
        let (a, b) = (folder.path().join("a"), folder.path().join("b"));
        files(&a, &["s1/x.mp4", "s2/x.mp4", "loose.avi", "alone.mp4"]);
        files(&b, &["s1/x.mkv", "s2/x.mkv", "s3/loose.mp4", "s3/never.mp4"]);
        std::fs::write(b.join("s1/x.txt"), "Text:  BIN BLUE\nConf: 3\n").unwrap();
        std::fs::write(b.join("s2/x.txt"), "bin  red\nnow\n").unwrap();
        let jobs = of_folders(&a, &b).unwrap();
        let told: Vec<(&str, &str, Option<&str>, bool)> = jobs
            .iter()
            .map(|j| (j.clip.as_str(), j.speaker.as_str(), j.transcript.as_deref(), j.missing.is_some()))
            .collect();
        assert_eq!(
            told,
            [
                ("alone", "unknown", None, true),
                ("loose", "s3", None, false),
                ("s1/x", "s1", Some("bin blue"), false),
                ("s2/x", "s2", Some("bin red"), false),
                ("s3/never", "s3", None, true),
            ]
        );
        assert_eq!(jobs[1].reference, b.join("s3/loose.mp4"));
        assert_eq!(jobs[2].file_name(), "s1_x");
    }

    #[test]
    fn tables_name_their_columns_and_faults_their_line() {
        let folder = tempfile::tempdir().unwrap();
        let table = folder.path().join("pairs.tsv");
        let jobs = |text: &str| {
            std::fs::write(&table, text).unwrap();
            of_table(&table)
        };
        let found = jobs("reference\tgenerated\tread\n# a note\nr.mp4\tg/x.mp4\t\nr.mp4\tg_x.mp4\ta b\n").unwrap();
        assert_eq!((found[0].clip.as_str(), found[1].clip.as_str()), ("g/x", "g_x~2"));
        assert_eq!(found[0].reference, folder.path().join("r.mp4"));
        assert_eq!((found[0].read.as_deref(), found[1].read.as_deref()), (Some(""), Some("a b")));
        for (text, part) in [
            ("", "empty"),
            ("generated\tx\n", "no column `reference`"),
            ("generated\treference\na\tb\nc\n", "line 3"),
            ("generated\treference\na\tb\tc\n", "3 cells"),
            ("generated\treference\n", "no line"),
        ] {
            let error = jobs(text).unwrap_err();
            assert!(error.to_string().contains(part) && error.exit_code() == 2, "{error}");
        }
    }
}
