//! A table for people and programs: our figures beside the printed ones.

use std::path::Path;

use serde::Serialize;
use syncdiff::files::write_whole;
use syncdiff::report::write_json;
use syncdiff::{Error, Outcome};
use syncdiff_eval::{Interval, PaperColumn, PaperTable, Row, bootstrap, paper_tables, summarise};

use super::ExperimentArgs;
use super::args::Budget;
use super::plan::RowPlan;
use crate::commands::eval::csv_cell;

const STAGE: &str = "write report";
/// The paper's columns as ours: what it is called, in which of our figures it is found (the first that a row has), its
/// factor, and which printed column it stands beside.
const COLUMNS: [Column; 8] = [
    Column { title: "PSNR", keys: &["crop96.psnr"], factor: 1.0, printed: None, digits: 2 },
    Column { title: "PSNR wrapped", keys: &["crop96.psnr_u8wrap"], factor: 1.0, printed: Some(0), digits: 2 },
    Column { title: "SSIM", keys: &["crop96.ssim"], factor: 1.0, printed: Some(1), digits: 3 },
    Column { title: "LPIPS", keys: &["crop96.lpips_alex"], factor: 1.0, printed: Some(2), digits: 3 },
    Column { title: "LSE-C", keys: &LSE_C, factor: 1.0, printed: Some(3), digits: 3 },
    Column { title: "LSE-D", keys: &LSE_D, factor: 1.0, printed: Some(4), digits: 3 },
    Column { title: "WER", keys: &["words.wer"], factor: 100.0, printed: Some(5), digits: 1 },
    Column { title: "lip opening", keys: &["lips.opening_correlation"], factor: 1.0, printed: None, digits: 3 },
];
/// Confidence of the judge there is: syncnet_v2 as the paper, on the whole frame, else our own.
const LSE_C: [&str; 3] = ["sync.lrs.lse_c", "sync.wild.lse_c", "sync.own.lse_c"];
const LSE_D: [&str; 3] = ["sync.lrs.lse_d", "sync.wild.lse_d", "sync.own.lse_d"];
/// The claim of the paper and the two figures that it rests on.
const CLAIM: &str = "the paper prints +27.7 % on LRS2 (7.80 against 6.11); its +62.3 % on LRS3 does not follow from its own \
                     table (6.82 against 4.80: +42.1 %)";

struct Column {
    title: &'static str,
    keys: &'static [&'static str],
    factor: f64,
    printed: Option<usize>,
    digits: usize,
}

/// One figure of a row.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Cell {
    /// The column.
    pub(super) column: String,
    /// Which figure of `eval` it is.
    pub(super) metric: String,
    #[serde(flatten)]
    pub(super) interval: Interval,
    /// Clips that have it.
    pub(super) clips: usize,
}

/// What became of a row.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct RowResult {
    pub(super) name: &'static str,
    /// How it differs from the paper's row.
    pub(super) note: String,
    /// Where weights or clips come from.
    pub(super) how: String,
    /// Why there are no figures.
    pub(super) reason: Option<String>,
    /// Clips that were scored, and that could not be.
    pub(super) clips: [usize; 2],
    /// Who judged, by what: as `eval` names them.
    pub(super) judges: Vec<(String, String)>,
    pub(super) cells: Vec<Cell>,
    #[serde(skip)]
    pub(super) rows: Vec<Row>,
}

impl RowResult {
    /// A row that says why it has no figures.
    pub(super) fn without(plan: &RowPlan, reason: String) -> Self {
        RowResult {
            name: plan.name,
            note: plan.note.clone(),
            how: String::new(),
            reason: Some(reason),
            clips: [0, 0],
            judges: Vec::new(),
            cells: Vec::new(),
            rows: Vec::new(),
        }
    }

    /// A row of these cells, of so many clips.
    pub(super) fn of_cells(plan: &RowPlan, how: String, clips: usize, cells: Vec<Cell>) -> Self {
        RowResult { how, reason: None, clips: [clips, 0], cells, ..Self::without(plan, String::new()) }
    }

    /// A row of scored clips.
    ///
    /// # Errors
    /// [`Error::Usage`] with the first clip's reason where none could be scored.
    pub(super) fn scored(plan: &RowPlan, how: String, judges: Vec<(String, String)>, rows: Vec<Row>) -> Outcome<Self> {
        let summary = summarise(&rows);
        if summary.clips == 0 {
            let why = rows.iter().find_map(|row| row.failure.clone()).unwrap_or_else(|| "there are none".into());
            return Err(Error::usage(format!("no clip could be scored: {why}"), "look at the row's folder"));
        }
        // The original against itself has no distance in decibels.
        let same = |column: &Column| plan.name == "GT" && column.title.starts_with("PSNR");
        let mut cells = Vec::new();
        for column in COLUMNS.iter().filter(|column| !same(column)) {
            let found = column.keys.iter().find_map(|key| summary.means.iter().find(|mean| mean.metric == *key));
            let Some(mean) = found else { continue };
            let [value, low, high] =
                [mean.interval.value, mean.interval.low, mean.interval.high].map(|value| value * column.factor);
            cells.push(Cell {
                column: column.title.into(),
                metric: mean.metric.into(),
                interval: Interval { value, low, high },
                clips: mean.clips,
            });
        }
        let clips = [summary.clips, summary.failures];
        Ok(RowResult { clips, judges, rows, ..Self::of_cells(plan, how, 0, cells) })
    }

    fn cell(&self, column: &str) -> Option<&Cell> {
        self.cells.iter().find(|cell| cell.column == column)
    }
}

/// The measured form of the paper's claim.
#[derive(Clone, Debug, PartialEq, Serialize)]
struct Claim {
    /// Confidence of SyncDiff over that of the earlier system, less 1, in percent.
    gain_percent: Interval,
    /// Clips that both have.
    clips: usize,
    /// What the paper says.
    printed: &'static str,
}

/// The table.
#[derive(Debug, Serialize)]
pub(super) struct TableReport {
    version: &'static str,
    table: u8,
    title: &'static str,
    budget: String,
    split: String,
    per_speaker: usize,
    pub(super) rows: Vec<RowResult>,
    claim: Option<Claim>,
}

impl TableReport {
    /// A table without rows yet.
    pub(super) fn new(table: u8, args: &ExperimentArgs) -> Self {
        TableReport {
            version: syncdiff::VERSION,
            table,
            title: paper_tables(table).next().map_or("", |table| table.title),
            budget: match args.budget.filter(|_| !args.eval_only) {
                Some(Budget::Steps(steps)) => format!("{steps} steps for each row"),
                Some(Budget::Hours(hours)) => format!("{hours} h of steps for each row"),
                None => "none: finished weights".into(),
            },
            split: args.split.clone(),
            per_speaker: args.per_speaker,
            rows: Vec::new(),
            claim: None,
        }
    }

    /// Writes `tableN.md`, `tableN.csv` and `tableN.json`.
    pub(super) fn write(&mut self, out: &Path) -> Outcome<()> {
        self.claim = if self.table == 1 { self.measured_claim() } else { None };
        let place = |ending: &str| out.join(format!("table{}.{ending}", self.table));
        write_json(&place("json"), self)?;
        write_whole(STAGE, &place("csv"), self.csv().as_bytes())?;
        write_whole(STAGE, &place("md"), self.markdown().as_bytes())
    }

    /// The same clips are drawn for both systems, so that hard clips weigh on both.
    fn measured_claim(&self) -> Option<Claim> {
        let row = |name: &str| self.rows.iter().find(|row| row.name == name);
        let (ours, theirs) = (row("SyncDiff")?, row("DiffTalk")?);
        let key = &ours.cell("LSE-C")?.metric;
        let of = |row: &Row| row.figures.get(key).copied();
        let pairs: Vec<[f64; 2]> = ours
            .rows
            .iter()
            .filter_map(|row| {
                let other = theirs.rows.iter().find(|other| other.clip == row.clip)?;
                Some([of(row)?, of(other)?])
            })
            .collect();
        let gain_percent = bootstrap(pairs.len(), |chosen| {
            let sum = |side: usize| chosen.iter().map(|at| pairs[*at][side]).sum::<f64>();
            100.0 * (sum(0) / sum(1) - 1.0)
        })?;
        Some(Claim { gain_percent, clips: pairs.len(), printed: CLAIM })
    }

    /// The table for people.
    pub(super) fn markdown(&self) -> String {
        let papers: Vec<&PaperTable> = paper_tables(self.table).collect();
        let mut text = format!("# Table {}: {}\n\n", self.table, self.title);
        text += &format!(
            "Training: {}. Scored: split `{}`, {} of a speaker.",
            self.budget,
            self.split,
            match self.per_speaker {
                0 => "all clips".to_owned(),
                count => format!("at most {count} clips"),
            }
        );
        // Without a figure of theirs nobody need know that they were absent.
        for (what, column) in [("judge of sync", "LSE-C"), ("lip reader", "WER")] {
            let judged = self.rows.iter().find(|row| row.cell(column).is_some());
            if let Some((_, who)) = judged.and_then(|row| row.judges.iter().find(|(named, _)| named == what)) {
                text += &format!(" By the {what}: {who}.");
            }
        }
        let data: Vec<&str> = papers.iter().map(|paper| paper.data).collect();
        text += &format!(
            " Each figure with its 95 % interval over clips; \"paper\" is what the paper prints for {}.\n\n",
            data.join(" and, behind the stroke, for ")
        );
        text += if self.table == 4 {
            "Mean over elements of the variance of the middle block's output at timestep 500 while one input varies; \
             lower is steadier. Per cell: plain, and of values divided by their deviation over all pictures. The paper \
             names neither layer nor timestep.\n\n"
        } else {
            "Face boxes at 96x96. The paper's PSNR very likely wraps at 8 bits: it stands beside ours that does. WER in \
             percent. Lip opening: correlation with the truth.\n\n"
        };
        text += &grid(&self.lines(&papers));
        for row in &self.rows {
            if let Some(reason) = &row.reason {
                text += &format!("\n- {}: {}", row.name, reason.replace('\n', " "));
            }
            if row.clips[1] > 0 {
                text += &format!("\n- {}: {} clips could not be scored", row.name, row.clips[1]);
            }
        }
        if self.table != 4 {
            text += &self.order(&papers);
        }
        if let Some(Claim { gain_percent: Interval { value, low, high }, clips, printed }) = &self.claim {
            text += &format!(
                "\n- LSE-C of SyncDiff over DiffTalk here: {value:+.1} % (95 % interval {low:+.1} to {high:+.1} %, \
                 {clips} clips); {printed}."
            );
        }
        text.trim_end().to_owned() + "\n"
    }

    fn lines(&self, papers: &[&PaperTable]) -> Vec<Vec<String>> {
        let columns = self.columns(papers);
        let mut head = vec!["row".to_owned(), "clips".to_owned()];
        for (title, printed, _) in &columns {
            head.push(title.clone());
            head.extend(printed.map(|_| "paper".to_owned()));
        }
        head.push("weights or clips".into());
        let mut lines = vec![head];
        for row in &self.rows {
            let name = if row.note.is_empty() { row.name.into() } else { format!("{} ({})", row.name, row.note) };
            let mut line = vec![name, row.clips[0].to_string()];
            for (title, printed, digits) in &columns {
                line.push(row.cell(title).map_or("-".into(), |cell| {
                    let Interval { value, low, high } = cell.interval;
                    format!("{value:.digits$} ({low:.digits$} to {high:.digits$})")
                }));
                if let Some(at) = printed {
                    let told = papers.iter().map(|paper| printed_cell(paper, row.name, *at));
                    line.push(told.collect::<Vec<_>>().join(" / "));
                }
            }
            line.push(if row.reason.is_some() { "none, see below".into() } else { row.how.clone() });
            lines.push(line);
        }
        lines
    }

    /// Title, printed column and digits of every column that is shown.
    fn columns(&self, papers: &[&PaperTable]) -> Vec<(String, Option<usize>, usize)> {
        if self.table == 4 {
            let columns = papers.iter().flat_map(|paper| paper.columns.iter().enumerate());
            return columns
                .flat_map(|(at, column)| {
                    let standardised = (format!("{} standardised", column.title), None, column.digits);
                    [(column.title.to_owned(), Some(at), column.digits + 1), standardised]
                })
                .collect();
        }
        COLUMNS.iter().map(|column| (column.title.to_owned(), column.printed, column.digits)).collect()
    }

    /// Rows from the best to the worst sync, here and in the paper.
    fn order(&self, papers: &[&PaperTable]) -> String {
        let sorted = |mut named: Vec<(&str, f64)>| {
            named.sort_by(|a, b| b.1.total_cmp(&a.1));
            named.into_iter().map(|(name, _)| name).collect::<Vec<_>>().join(" > ")
        };
        let ours: Vec<(&str, f64)> =
            self.rows.iter().filter_map(|row| Some((row.name, row.cell("LSE-C")?.interval.value))).collect();
        if ours.len() < 2 {
            return String::new();
        }
        let mut text = format!("\n- Order by LSE-C here: {}", sorted(ours.clone()));
        for paper in papers {
            let printed = |name: &str| paper.row(name).and_then(|row| row.figures[3]);
            let theirs = ours.iter().filter_map(|(name, _)| Some((*name, printed(name)?))).collect();
            text += &format!("; in the paper on {}: {}", paper.data, sorted(theirs));
        }
        text + "."
    }

    /// One line for each figure, ours and printed.
    fn csv(&self) -> String {
        let mut text = String::from("row,note,source,column,metric,value,low,high,clips,reason\n");
        for row in &self.rows {
            let (note, how) = (csv_cell(&row.note), csv_cell(&row.how));
            for cell in &row.cells {
                let Interval { value, low, high } = cell.interval;
                let (column, metric, clips) = (&cell.column, &cell.metric, cell.clips);
                text += &format!("{},{note},{how},{column},{metric},{value},{low},{high},{clips},\n", row.name);
            }
            if let Some(reason) = &row.reason {
                text += &format!("{},{note},,,,,,,,{}\n", row.name, csv_cell(reason));
            }
            for paper in paper_tables(self.table) {
                for (PaperColumn { title, .. }, figure) in
                    paper.row(row.name).iter().flat_map(|printed| paper.columns.iter().zip(printed.figures))
                {
                    let value = figure.map(|value| value.to_string()).unwrap_or_default();
                    text += &format!(
                        "{},,{},{title},printed,{value},,,,\n",
                        row.name,
                        csv_cell(&format!("paper, {}", paper.data))
                    );
                }
            }
        }
        text
    }
}

/// A printed figure; `-` where the paper has none.
fn printed_cell(paper: &PaperTable, row: &str, at: usize) -> String {
    match paper.row(row).and_then(|row| row.figures[at]) {
        Some(value) => format!("{value:.*}", paper.columns[at].digits),
        None => "-".into(),
    }
}

/// Lines as a Markdown table, aligned for a terminal.
fn grid(lines: &[Vec<String>]) -> String {
    let width = |at: usize| lines.iter().map(|line| line[at].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..lines[0].len()).map(width).collect();
    let mut text = String::new();
    for (number, line) in lines.iter().enumerate() {
        let cells: Vec<String> = line.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        text += &format!("| {} |\n", cells.join(" | "));
        if number == 0 {
            let rule: Vec<String> = widths.iter().map(|width| "-".repeat(width + 2)).collect();
            text += &format!("|{}|\n", rule.join("|"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::plan;
    use super::*;

    fn report(table: u8) -> TableReport {
        TableReport {
            version: "0",
            table,
            title: "t",
            budget: "9 steps for each row".into(),
            split: "test".into(),
            per_speaker: 1,
            rows: Vec::new(),
            claim: None,
        }
    }

    fn scored(table: u8, name: &str, lse: &[f64]) -> RowResult {
        let plan = plan::rows(table, 4).into_iter().find(|row| row.name == name).unwrap();
        let clip = |(at, value): (usize, &f64)| Row {
            clip: at.to_string(),
            figures: [("sync.own.lse_c".to_owned(), *value), ("crop96.psnr".to_owned(), 30.0)].into(),
            ..Row::default()
        };
        let rows = lse.iter().enumerate().map(clip).collect();
        let judges = [("judge of sync", "own"), ("lip reader", "ours")].map(|(what, who)| (what.into(), who.into()));
        RowResult::scored(&plan, "how".into(), judges.into(), rows).unwrap()
    }

    #[test]
    fn the_claim_is_the_ratio_of_means_over_the_same_clips() {
        let folder = tempfile::tempdir().unwrap();
        let mut table = report(1);
        table.rows = vec![scored(1, "DiffTalk", &[1.0, 3.0, 2.0]), scored(1, "SyncDiff", &[2.0, 4.0])];
        table.write(folder.path()).unwrap();
        let claim = table.claim.clone().unwrap();
        // (2 + 4) / (1 + 3), and its draws between 4 / 3 and 2 / 1.
        assert!((claim.gain_percent.value - 50.0).abs() < 1e-9 && claim.clips == 2);
        assert!((claim.gain_percent.low - 100.0 / 3.0).abs() < 1e-9 && (claim.gain_percent.high - 100.0).abs() < 1e-9);
        let text = std::fs::read_to_string(folder.path().join("table1.md")).unwrap();
        for part in [
            "+50.0 %",
            "+27.7 %",
            "6.11 / 4.80",
            "Order by LSE-C here: SyncDiff > DiffTalk",
            "By the judge of sync: own",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(!text.contains("lip reader"), "nothing was read: {text}");
        assert!(
            std::fs::read_to_string(folder.path().join("table1.csv")).unwrap().contains("SyncDiff,,\"paper, LRS2\"")
        );
    }

    #[test]
    fn a_row_without_figures_tells_its_reason_and_keeps_the_printed_ones() {
        let mut table = report(3);
        let all = plan::rows(3, 4);
        table.rows = vec![scored(3, "RND", &[1.0]), RowResult::without(&all[1], "no, \"really\"".into())];
        let text = table.markdown();
        assert!(text.contains("- PRV: no, \"really\"") && text.contains("31.61") && text.contains("none, see below"));
        assert!(table.csv().contains("PRV,,,,,,,,,\"no, \"\"really\"\"\""), "{}", table.csv());
        // Truth against itself has no decibels.
        assert!(scored(1, "GT", &[1.0]).cell("PSNR").is_none() && table.rows[0].cell("PSNR").is_some());
    }
}
