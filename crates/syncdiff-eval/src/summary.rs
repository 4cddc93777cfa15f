//! Means over clips, and the table that shows them.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::bootstrap::{Interval, bootstrap};
use crate::metrics::{Group, METRICS, Metric};
use crate::row::Row;

/// One figure over all clips.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Mean {
    /// Key of the metric.
    pub metric: &'static str,
    /// Clips that have it.
    pub clips: usize,
    /// Mean over clips with the interval of 95 %. Of word error rates: all edits over all words.
    #[serde(flatten)]
    pub interval: Interval,
    /// Mean over all frames of all clips, as the paper averages pictures.
    pub over_frames: Option<f64>,
}

/// All clips together.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Summary {
    /// Clips that were scored.
    pub clips: usize,
    /// Clips that could not be scored.
    pub failures: usize,
    /// Clips whose lengths, sizes or rates are unequal.
    pub unequal: usize,
    /// In the order of [`METRICS`].
    pub means: Vec<Mean>,
    /// Metrics that no clip has: key and reason.
    pub absent: BTreeMap<String, String>,
}

/// Means over the clips of these rows.
pub fn summarise(rows: &[Row]) -> Summary {
    let scored: Vec<&Row> = rows.iter().filter(|row| row.failure.is_none()).collect();
    let means: Vec<Mean> = METRICS.iter().filter_map(|metric| mean_of(metric, &scored)).collect();
    let mut absent = BTreeMap::new();
    for (key, reason) in scored.iter().flat_map(|row| &row.absent) {
        if means.iter().all(|mean| mean.metric != key) {
            absent.entry(key.clone()).or_insert_with(|| reason.clone());
        }
    }
    let unequal = |row: &&&Row| {
        let (a, b) = (&row.generated, &row.reference);
        (a.frames, a.width, a.height, &a.rate) != (b.frames, b.width, b.height, &b.rate)
    };
    Summary {
        clips: scored.len(),
        failures: rows.len() - scored.len(),
        unequal: scored.iter().filter(unequal).count(),
        means,
        absent,
    }
}

fn mean_of(metric: &Metric, rows: &[&Row]) -> Option<Mean> {
    let having: Vec<(&Row, f64)> = rows.iter().filter_map(|row| Some((*row, *row.figures.get(metric.key)?))).collect();
    let words: Vec<[f64; 2]> =
        having.iter().filter_map(|(row, _)| Some(row.words?.map(|count| count as f64))).collect();
    let interval = if metric.key == "words.wer" && words.len() == having.len() {
        bootstrap(words.len(), |chosen| {
            let sum = |part: usize| chosen.iter().map(|i| words[*i][part]).sum::<f64>();
            sum(0) / sum(1)
        })
    } else {
        bootstrap(having.len(), |chosen| chosen.iter().map(|i| having[*i].1).sum::<f64>() / chosen.len() as f64)
    }?;
    let full = metric.key.starts_with("full.");
    let frames = |row: &Row| (if full { row.pairs } else { row.face_pairs }) as f64;
    let over_frames = matches!(metric.group, Group::Psnr | Group::Ssim).then(|| {
        let all: f64 = having.iter().map(|(row, _)| frames(row)).sum();
        having.iter().map(|(row, value)| value * frames(row)).sum::<f64>() / all
    });
    let over_frames = over_frames.filter(|value| value.is_finite());
    Some(Mean { metric: metric.key, clips: having.len(), interval, over_frames })
}

/// The summary as a Markdown table, aligned for a terminal.
pub fn markdown(summary: &Summary) -> String {
    let head = ["metric", "better", "clips", "mean", "95 % interval", "over all frames"].map(String::from);
    let mut lines = vec![head];
    for mean in &summary.means {
        let Some(metric) = crate::metrics::metric(mean.metric) else { continue };
        let text = |value: f64| format!("{value:.*}", metric.digits);
        let Interval { value, low, high } = mean.interval;
        lines.push([
            metric.title.to_owned(),
            metric.better.text(),
            mean.clips.to_string(),
            text(value),
            format!("{} to {}", text(low), text(high)),
            mean.over_frames.map_or("-".into(), text),
        ]);
    }
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; 6] = std::array::from_fn(width);
    let show = |line: &[String; 6]| {
        let cells: Vec<String> = line
            .iter()
            .zip(widths)
            .enumerate()
            .map(|(at, (cell, width))| if at < 2 { format!("{cell:<width$}") } else { format!("{cell:>width$}") })
            .collect();
        format!("| {} |", cells.join(" | "))
    };
    let rule: Vec<String> =
        widths.iter().enumerate().map(|(at, w)| "-".repeat(w + 1) + if at < 2 { "-" } else { ":" }).collect();
    let mut text = vec![show(&lines[0]), format!("|{}|", rule.join("|"))];
    text.extend(lines[1..].iter().map(show));
    let plural = |count: usize, what: &str| format!("{count} {what}{}", if count == 1 { "" } else { "s" });
    text.push(String::new());
    text.push(format!(
        "{} scored, {} failed, {} with unequal length, size or rate. Intervals: bootstrap over clips.",
        plural(summary.clips, "clip"),
        summary.failures,
        summary.unequal
    ));
    if !summary.absent.is_empty() {
        text.push("\nAbsent:\n".into());
        let mut reasons: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (key, reason) in &summary.absent {
            reasons.entry(reason).or_default().push(key);
        }
        text.extend(reasons.into_iter().map(|(reason, keys)| format!("- {}: {reason}", keys.join(", "))));
    }
    text.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(clip: &str, figures: &[(&str, f64)], pairs: usize) -> Row {
        Row {
            clip: clip.into(),
            figures: figures.iter().map(|(key, value)| ((*key).to_owned(), *value)).collect(),
            pairs,
            face_pairs: pairs,
            ..Row::default()
        }
    }

    #[test]
    fn means_over_clips_and_over_frames_differ() {
        let mut rows = vec![
            row("a", &[("full.psnr", 30.0), ("words.wer", 1.0)], 10),
            row("b", &[("full.psnr", 40.0), ("words.wer", 0.0)], 30),
        ];
        (rows[0].words, rows[1].words) = (Some([1, 1]), Some([0, 9]));
        rows.push(Row { clip: "c".into(), failure: Some("damaged".into()), ..Row::default() });
        rows[1].absent.insert("full.ssim".into(), "why".into());
        rows[1].generated.frames = 3;
        let summary = summarise(&rows);
        assert_eq!((summary.clips, summary.failures, summary.unequal), (2, 1, 1));
        let psnr = &summary.means[0];
        assert_eq!((psnr.metric, psnr.interval.value, psnr.over_frames), ("full.psnr", 35.0, Some(37.5)));
        assert_eq!((psnr.interval.low, psnr.interval.high), (30.0, 40.0));
        // One wrong word of ten, not the mean of 1 and 0.
        assert_eq!(summary.means[1].interval.value, 0.1);
        assert_eq!(summary.absent["full.ssim"], "why");
        let table = markdown(&summary);
        assert!(table.contains("| PSNR, full frame (dB) ") && table.contains("30.00 to 40.00"), "{table}");
        assert!(table.contains("- full.ssim: why") && table.contains("1 failed"), "{table}");
    }
}
