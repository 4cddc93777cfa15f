//! What `bench-torch` measures, and how it prints it.

use serde::Serialize;

/// One comparison.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Row {
    pub op: &'static str,
    pub preset: &'static str,
    pub dtype: &'static str,
    pub threads: usize,
    /// Median over the rounds; none where we have no such operation.
    pub ours_ms: Option<f64>,
    pub torch_ms: Option<f64>,
    /// Our time over PyTorch's.
    pub ratio: Option<f64>,
    /// Largest difference of the outputs, as a share of the largest output.
    pub error: Option<f64>,
    /// Growth of the resident memory at its peak, weights included.
    pub ours_peak_mb: Option<f64>,
    pub torch_peak_mb: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<&'static str>,
}

/// The figure in the middle; the mean of the two there for an even number.
pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    if sorted.len() % 2 == 1 { sorted[middle] } else { (sorted[middle - 1] + sorted[middle]) / 2.0 }
}

/// The rows as a table in Markdown.
pub(crate) fn table(rows: &[Row]) -> String {
    let mut text = String::from(
        "| operation | preset | type | threads | ours ms | PyTorch ms | ratio | difference | ours MB | PyTorch MB |\n\
         |---|---|---|---|---|---|---|---|---|---|\n",
    );
    rows.iter().for_each(|row| text += &line(row));
    text
}

/// One line of [`table`].
pub(crate) fn line(row: &Row) -> String {
    let number = |value: Option<f64>, digits: usize| value.map_or("-".to_owned(), |v| format!("{v:.digits$}"));
    let difference = row.error.map_or("-".to_owned(), |error| format!("{error:.0e}"));
    format!(
        "| {} | {} | {} | {} | {} | {} | {} | {difference} | {} | {} |{}\n",
        row.op,
        row.preset,
        row.dtype,
        row.threads,
        number(row.ours_ms, 2),
        number(row.torch_ms, 2),
        number(row.ratio, 3),
        number(row.ours_peak_mb, 0),
        number(row.torch_peak_mb, 0),
        row.note.map_or(String::new(), |note| format!(" {note}")),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_of_odd_and_even_numbers() {
        assert_eq!(median(&[5.0, 1.0, 3.0]), 3.0);
        assert_eq!(median(&[4.0, 1.0, 3.0, 2.0]), 2.5);
    }

    #[test]
    fn what_was_not_measured_is_a_dash() {
        let row = Row {
            op: "unet_forward",
            preset: "lite",
            dtype: "bf16",
            threads: 2,
            ours_ms: None,
            torch_ms: Some(1.5),
            ratio: None,
            error: None,
            ours_peak_mb: None,
            torch_peak_mb: Some(10.4),
            note: Some("not here"),
        };
        let expected = "| unet_forward | lite | bf16 | 2 | - | 1.50 | - | - | - | 10 | not here";
        assert!(table(std::slice::from_ref(&row)).ends_with(&format!("{expected}\n")));
        let json = serde_json::to_value(&row).unwrap();
        assert!(json["ratio"].is_null() && json["torch_ms"] == 1.5);
    }
}
