//! One clip in the report: its figures, its lengths, its remarks.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::inputs::Scored;
use crate::pairs::ClipFacts;

/// One clip.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// Its name.
    pub clip: String,
    /// Who speaks.
    pub speaker: String,
    /// Body of data it belongs to.
    pub corpus: String,
    /// The generated file.
    pub generated_path: String,
    /// The reference.
    pub reference_path: String,
    /// Why it could not be scored; then the rest is empty.
    pub failure: Option<String>,
    /// The generated clip.
    pub generated: ClipFacts,
    /// The reference.
    pub reference: ClipFacts,
    /// Pairs of frames that were scored.
    pub pairs: usize,
    /// Pairs in which the reference shows a face.
    pub face_pairs: usize,
    /// What is unequal about the clips, and what else a reader must know.
    pub remarks: Vec<String>,
    /// By the keys of [`crate::METRICS`].
    pub figures: BTreeMap<String, f64>,
    /// Why a wanted figure is not there.
    pub absent: BTreeMap<String, String>,
    /// Wrong words, and words of the transcript.
    pub words: Option<[usize; 2]>,
    /// Other files that belong to this clip, by what they are.
    pub files: BTreeMap<String, String>,
    /// Lip opening of every pair: the reference's and the generated clip's.
    pub opening: [Vec<Option<f64>>; 2],
}

impl Row {
    /// Takes over what was scored, rounded so that it is read back as it was written.
    pub fn take(&mut self, scored: Scored) {
        self.figures = scored.figures.into_iter().map(|(key, value)| (key, rounded(value))).collect();
        self.absent = scored.absent;
        self.remarks = scored.remarks;
        [self.generated, self.reference] = scored.facts;
        for facts in [&mut self.generated, &mut self.reference] {
            facts.secs = rounded(facts.secs);
        }
        (self.pairs, self.face_pairs) = (scored.pairs, scored.face_pairs);
        self.words = scored.words.map(|counts| [counts.edits(), counts.reference_length()]);
        self.opening = scored.opening.map(|series| series.into_iter().map(|value| value.map(rounded)).collect());
    }

    /// Adds a figure that is a number.
    pub fn put(&mut self, key: &str, value: Option<f64>) {
        if let Some(value) = value.filter(|value| value.is_finite()) {
            self.absent.remove(key);
            self.figures.insert(key.to_owned(), rounded(value));
        }
    }
}

/// A value with 13 significant digits: as many as every JSON reader gives back bit by bit.
pub fn rounded(value: f64) -> f64 {
    format!("{value:.12e}").parse().unwrap_or(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_come_back_from_json_bit_by_bit() {
        let mut value = 0.123_456_789_012_345_67;
        for _ in 0..2000 {
            value = (value * 997.0_f64 + 1.0 / 3.0) % 40.0;
            let short = rounded(value);
            let back: f64 = serde_json::from_str(&serde_json::to_string(&short).unwrap()).unwrap();
            assert_eq!(back.to_bits(), short.to_bits());
            assert!((short - value).abs() < 1e-11);
        }
    }
}
