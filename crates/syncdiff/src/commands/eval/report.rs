//! What the command leaves behind for programs: JSON, CSV, a table.

use std::path::Path;

use serde::Serialize;
use syncdiff::Outcome;
use syncdiff::files::write_whole;
use syncdiff::report::write_json;
use syncdiff_eval::{FeatureStatistics, METRICS, Metric, Row, Summary, Wanted, frechet_distance, markdown, rounded};
use syncdiff_model::weights::{TensorMap, open_safetensors};

use super::instruments::NO_INCEPTION;

const STAGE: &str = "write report";

/// The Fréchet distance between all generated and all original frames.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(super) struct Fid {
    /// The distance.
    pub(super) value: Option<f64>,
    /// Pictures: generated, original.
    pub(super) pictures: Option<[usize; 2]>,
    /// Why there is none.
    pub(super) absent: Option<String>,
}

impl Fid {
    /// Of the features in a file.
    ///
    /// # Errors
    /// A file that cannot be read or holds other tensors.
    pub(super) fn of(features: Option<&Path>) -> Outcome<Self> {
        let Some(path) = features else { return Ok(Fid { absent: Some(NO_INCEPTION.into()), ..Fid::default() }) };
        let tensors = open_safetensors(path)?;
        let [(ours, a), (truth, b)] =
            [statistics(&tensors, path, "generated")?, statistics(&tensors, path, "reference")?];
        let value = frechet_distance(&ours, &truth)?;
        Ok(Fid { value: Some(rounded(value)), pictures: Some([a, b]), absent: None })
    }

    /// A line under the table.
    pub(super) fn line(&self) -> String {
        match (self.value, self.pictures, &self.absent) {
            (Some(value), Some([a, b]), _) => format!("FID: {value:.4} ({a} generated and {b} original pictures)\n"),
            (_, _, Some(reason)) => format!("FID: absent: {reason}\n"),
            _ => String::new(),
        }
    }
}

fn statistics(tensors: &TensorMap, path: &Path, name: &str) -> Outcome<(FeatureStatistics, usize)> {
    let rows = tensors.get(name).and_then(|tensor| match *tensor.shape() {
        [pictures, values] => Some((tensor, pictures, values)),
        _ => None,
    });
    let Some((tensor, pictures, values)) = rows else {
        let what = format!("--features {path:?} has no tensor `{name}` of [pictures, values]");
        return Err(syncdiff::Error::usage(what, "write the features of both sides under `generated` and `reference`"));
    };
    Ok((FeatureStatistics::of(&tensor.to_f32()?, values)?, pictures))
}

/// All that the report tells.
#[derive(Debug, Serialize)]
pub(super) struct Report<'a> {
    /// Version of the program.
    pub(super) version: &'static str,
    /// What was asked for.
    pub(super) metrics: &'a str,
    /// LPIPS of mouth, full frame and on VGG looked at every so many frames.
    pub(super) every: usize,
    /// Who judged: what for, and who or why nobody.
    pub(super) judges: &'a [(String, String)],
    /// Over all clips.
    pub(super) summary: &'a Summary,
    /// Over all frames.
    pub(super) fid: Option<&'a Fid>,
    /// Clip by clip.
    pub(super) rows: &'a [Row],
}

impl<'a> Report<'a> {
    /// Puts it together.
    pub(super) fn new(
        metrics: &'a str,
        wanted: &Wanted,
        judges: &'a [(String, String)],
        summary: &'a Summary,
        fid: Option<&'a Fid>,
        rows: &'a [Row],
    ) -> Self {
        Report { version: syncdiff::VERSION, metrics, every: wanted.every, judges, summary, fid, rows }
    }

    /// The table for people.
    pub(super) fn table(&self) -> String {
        markdown(self.summary) + &self.fid.map(|fid| format!("\n{}", fid.line())).unwrap_or_default()
    }

    /// Writes `figures.json`, `figures.csv` and `summary.md`.
    ///
    /// # Errors
    /// [`syncdiff::Error::Io`].
    pub(super) fn write(&self, out: &Path) -> Outcome<()> {
        write_json(&out.join("figures.json"), self)?;
        write_whole(STAGE, &out.join("figures.csv"), csv(self.rows).as_bytes())?;
        let mut text = self.table();
        for (what, who) in self.judges {
            text += &format!("\n{what}: {who}\n");
        }
        for row in self.rows.iter().filter(|row| row.failure.is_some() || !row.remarks.is_empty()) {
            let remarks: Vec<&str> = row.failure.iter().chain(&row.remarks).map(String::as_str).collect();
            text += &format!("\n- {}: {}", row.clip, remarks.join("; "));
        }
        write_whole(STAGE, &out.join("summary.md"), (text.trim_end().to_owned() + "\n").as_bytes())
    }
}

/// The metrics that some row has, in their order.
pub(super) fn shown(rows: &[Row]) -> Vec<&'static Metric> {
    METRICS.iter().filter(|metric| rows.iter().any(|row| row.figures.contains_key(metric.key))).collect()
}

/// One line a clip.
fn csv(rows: &[Row]) -> String {
    let metrics = shown(rows);
    let head = [
        "clip",
        "speaker",
        "corpus",
        "failure",
        "generated",
        "reference",
        "generated_frames",
        "reference_frames",
        "generated_secs",
        "reference_secs",
        "generated_size",
        "reference_size",
        "generated_rate",
        "reference_rate",
        "pairs",
        "face_pairs",
        "remarks",
    ];
    let mut text = String::new();
    line(&mut text, head.into_iter().map(str::to_owned).chain(metrics.iter().map(|metric| metric.key.to_owned())));
    for row in rows {
        let size = |facts: &syncdiff_eval::ClipFacts| format!("{}x{}", facts.width, facts.height);
        let (ours, truth) = (&row.generated, &row.reference);
        let facts = [
            row.clip.clone(),
            row.speaker.clone(),
            row.corpus.clone(),
            row.failure.clone().unwrap_or_default(),
            row.generated_path.clone(),
            row.reference_path.clone(),
            ours.frames.to_string(),
            truth.frames.to_string(),
            ours.secs.to_string(),
            truth.secs.to_string(),
            size(ours),
            size(truth),
            ours.rate.clone(),
            truth.rate.clone(),
            row.pairs.to_string(),
            row.face_pairs.to_string(),
            row.remarks.join("; "),
        ];
        let figure = |metric: &&Metric| row.figures.get(metric.key).map(f64::to_string).unwrap_or_default();
        line(&mut text, facts.into_iter().chain(metrics.iter().map(figure)));
    }
    text
}

/// A cell of a CSV table, quoted where it must be.
pub(crate) fn csv_cell(cell: &str) -> String {
    match cell.contains(['"', ',', '\n', '\r']) {
        true => format!("\"{}\"", cell.replace('"', "\"\"")),
        false => cell.to_owned(),
    }
}

fn line(text: &mut String, cells: impl Iterator<Item = String>) {
    *text += &cells.map(|cell| csv_cell(&cell)).collect::<Vec<_>>().join(",");
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_quoted_and_columns_are_those_that_some_clip_has() {
        let mut row = Row { clip: "a,\"b\"".into(), remarks: vec!["x".into(), "y\nz".into()], ..Row::default() };
        row.figures.insert("full.ssim".into(), 0.5);
        let text = csv(&[row, Row { clip: "c".into(), failure: Some("gone".into()), ..Row::default() }]);
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[0].starts_with("clip,speaker,") && lines[0].ends_with(",remarks,full.ssim"), "{text}");
        assert!(text.contains("\"a,\"\"b\"\"\",") && text.contains("\"x; y\nz\",0.5\n"), "{text}");
        assert!(lines[3].starts_with("c,,,gone,") && lines[3].ends_with(",,"), "{text}");
    }
}
