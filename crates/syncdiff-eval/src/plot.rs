//! Plots as inline SVG, and text that is safe in it.

use std::collections::BTreeMap;
use std::fmt::Write;

use crate::row::Row;

const WIDTH: f64 = 360.0;
const HEIGHT: f64 = 110.0;
const LEFT: f64 = 8.0;
const BASE: f64 = 88.0;
const BARS: usize = 16;
const LINE: f64 = 18.0;
/// Room for the names of speakers.
const NAMES: f64 = 110.0;

/// Text as it may stand in HTML and SVG, in attributes as well.
pub fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            c => safe.push(c),
        }
    }
    safe
}

/// Smallest and largest value; a little apart where all are equal.
fn range(values: &[f64]) -> (f64, f64) {
    let low = values.iter().copied().fold(f64::INFINITY, f64::min);
    let high = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    if high > low { (low, high) } else { (low - 0.5, low + 0.5) }
}

/// How the clips' values are spread: bars, with the mean and its interval above them. Empty without values.
pub fn distribution(title: &str, values: &[f64], mean: f64, low: f64, high: f64, digits: usize) -> String {
    if values.is_empty() {
        return String::new();
    }
    let (from, to) = range(values);
    let mut bars = [0_usize; BARS];
    for value in values {
        bars[(((value - from) / (to - from) * BARS as f64) as usize).min(BARS - 1)] += 1;
    }
    let most = bars.iter().copied().max().unwrap_or(1).max(1) as f64;
    let x = |value: f64| LEFT + (value - from) / (to - from) * (WIDTH - 2.0 * LEFT);
    let mut svg = open(title, HEIGHT);
    for (i, count) in bars.iter().enumerate().filter(|(_, count)| **count > 0) {
        let height = *count as f64 / most * (BASE - 34.0);
        let wide = (WIDTH - 2.0 * LEFT) / BARS as f64;
        let _ = write!(
            svg,
            r#"<rect class="bar" x="{:.1}" y="{:.1}" width="{:.1}" height="{height:.1}"><title>{count}</title></rect>"#,
            LEFT + i as f64 * wide + 1.0,
            BASE - height,
            wide - 2.0
        );
    }
    let _ = write!(
        svg,
        r#"<line class="axis" x1="{LEFT}" y1="{BASE}" x2="{:.1}" y2="{BASE}"/><line class="mean" x1="{:.1}" y1="26" x2="{:.1}" y2="26"/><circle class="mean" cx="{:.1}" cy="26" r="3.5"/>"#,
        WIDTH - LEFT,
        x(low.clamp(from, to)),
        x(high.clamp(from, to)),
        x(mean.clamp(from, to))
    );
    label(&mut svg, LEFT, BASE + 15.0, "start", &format!("{from:.digits$}"));
    label(&mut svg, WIDTH - LEFT, BASE + 15.0, "end", &format!("{to:.digits$}"));
    svg + "</svg>"
}

/// The values of a metric by speaker: a dot a clip, a line at the mean. Empty where no clip has it.
pub fn speakers(title: &str, rows: &[Row], key: &str, digits: usize) -> String {
    let mut by_speaker: BTreeMap<&str, Vec<(f64, &str)>> = BTreeMap::new();
    for row in rows {
        if let Some(value) = row.figures.get(key) {
            by_speaker.entry(&row.speaker).or_default().push((*value, &row.clip));
        }
    }
    let values: Vec<f64> = by_speaker.values().flatten().map(|(value, _)| *value).collect();
    if values.is_empty() {
        return String::new();
    }
    let (from, to) = range(&values);
    let x = |value: f64| NAMES + (value - from) / (to - from) * (WIDTH - NAMES - LEFT);
    let height = 40.0 + LINE * by_speaker.len() as f64;
    let mut svg = open(title, height);
    for (i, (speaker, values)) in by_speaker.iter().enumerate() {
        let y = 34.0 + LINE * i as f64;
        let name: String = speaker.chars().take(16).collect();
        label(&mut svg, NAMES - 8.0, y + 4.0, "end", &name);
        let _ = write!(svg, r#"<line class="axis" x1="{NAMES}" y1="{y}" x2="{:.1}" y2="{y}"/>"#, WIDTH - LEFT);
        for (value, clip) in values {
            let clip = escape(clip);
            let _ = write!(
                svg,
                r#"<circle class="dot" cx="{:.1}" cy="{y}" r="3.5"><title>{clip}: {value:.digits$}</title></circle>"#,
                x(*value)
            );
        }
        let mean = x(values.iter().map(|(value, _)| value).sum::<f64>() / values.len() as f64);
        let (top, bottom) = (y - 7.0, y + 7.0);
        let _ = write!(svg, r#"<line class="mean" x1="{mean:.1}" y1="{top}" x2="{mean:.1}" y2="{bottom}"/>"#);
    }
    label(&mut svg, NAMES, height - 4.0, "start", &format!("{from:.digits$}"));
    label(&mut svg, WIDTH - LEFT, height - 4.0, "end", &format!("{to:.digits$}"));
    svg + "</svg>"
}

fn open(title: &str, height: f64) -> String {
    let title = escape(title);
    let mut svg = format!(
        r#"<svg viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" role="img" aria-label="{title}">"#
    );
    let _ = write!(svg, r#"<text class="title" x="{LEFT}" y="13">{title}</text>"#);
    svg
}

fn label(svg: &mut String, x: f64, y: f64, anchor: &str, text: &str) {
    let _ = write!(svg, r#"<text x="{x:.1}" y="{y:.1}" text-anchor="{anchor}">{}</text>"#, escape(text));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_hold_every_value_once() {
        let values = [0.0, 0.1, 1.0, 1.0, 0.5];
        let svg = distribution("SSIM", &values, 0.5, 0.2, 0.8, 2);
        let counts: usize = svg
            .match_indices("<title>")
            .map(|(at, _)| svg[at + 7..].split('<').next().unwrap().parse::<usize>().unwrap())
            .sum();
        assert_eq!(counts, values.len());
        assert!(distribution("x", &[3.0], 3.0, 3.0, 3.0, 1).contains(">2.5<"));
        assert_eq!(distribution("x", &[], 0.0, 0.0, 0.0, 1), "");
    }

    #[test]
    fn names_cannot_leave_their_place() {
        let evil = "<script>alert('x')</script>\"&";
        let mut row = Row { clip: evil.into(), speaker: evil.into(), ..Row::default() };
        row.figures.insert("full.ssim".into(), 0.5);
        let svg = speakers(evil, &[row], "full.ssim", 3);
        assert!(!svg.contains("<script") && !svg.contains("alert('"), "{svg}");
        assert!(svg.contains("&lt;script&gt;") && svg.contains("&quot;"));
        assert_eq!(speakers("x", &[], "full.ssim", 3), "");
    }
}
