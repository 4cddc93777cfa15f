//! Word and character error rates of what a lip reader read.
//!
//! # Source
//! jiwer's `wer` and `cer`: no change of case or punctuation; words are split at white space, of characters only
//! white space at both ends is left out.

use std::iter::Sum;
use std::ops::Add;

/// The fewest edits that turn a reference into what was read. Where several ways need equally many, hits and
/// substitutions come before insertions and deletions; only the number of edits is unique.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EditCounts {
    /// Equal.
    pub hits: usize,
    /// Replaced.
    pub substitutions: usize,
    /// In the reference only.
    pub deletions: usize,
    /// In what was read only.
    pub insertions: usize,
}

impl EditCounts {
    /// Compares word by word.
    pub fn of_words(reference: &str, read: &str) -> Self {
        let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        align(&words(reference), &words(read))
    }

    /// Compares character by character (Unicode scalar values), white space inside included.
    pub fn of_characters(reference: &str, read: &str) -> Self {
        let characters = |text: &str| text.trim().chars().collect::<Vec<_>>();
        align(&characters(reference), &characters(read))
    }

    /// Substitutions, deletions and insertions.
    pub fn edits(&self) -> usize {
        self.substitutions + self.deletions + self.insertions
    }

    /// Length of the reference.
    pub fn reference_length(&self) -> usize {
        self.hits + self.substitutions + self.deletions
    }

    /// Edits for each word or character of the reference; may exceed 1. Of an empty reference: 0 when nothing was
    /// read, else infinite.
    pub fn rate(&self) -> f64 {
        if self.edits() == 0 { 0.0 } else { self.edits() as f64 / self.reference_length() as f64 }
    }
}

impl Add for EditCounts {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            hits: self.hits + other.hits,
            substitutions: self.substitutions + other.substitutions,
            deletions: self.deletions + other.deletions,
            insertions: self.insertions + other.insertions,
        }
    }
}

/// Over a whole corpus: rates are those of all edits against all references, not means of rates.
impl Sum for EditCounts {
    fn sum<I: Iterator<Item = Self>>(counts: I) -> Self {
        counts.fold(Self::default(), Add::add)
    }
}

/// Edit distance row by row, each cell with its counts, so that memory grows with one length only.
fn align<T: PartialEq>(reference: &[T], read: &[T]) -> EditCounts {
    let inserted = |insertions| EditCounts { insertions, ..EditCounts::default() };
    let mut row: Vec<EditCounts> = (0..=read.len()).map(inserted).collect();
    for wanted in reference {
        let mut diagonal = row[0];
        row[0].deletions += 1;
        for (i, found) in read.iter().enumerate() {
            let mut across = diagonal;
            if wanted == found {
                across.hits += 1;
            } else {
                across.substitutions += 1;
            }
            let mut deleted = row[i + 1];
            deleted.deletions += 1;
            let mut inserted = row[i];
            inserted.insertions += 1;
            diagonal = row[i + 1];
            let best = [across, deleted, inserted].into_iter().min_by_key(EditCounts::edits);
            row[i + 1] = best.unwrap_or(across);
        }
    }
    row[read.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_of_each_kind() {
        let counts = EditCounts::of_words("place  blue at f two now", "place red f two right now ");
        assert_eq!(counts, EditCounts { hits: 4, substitutions: 1, deletions: 1, insertions: 1 });
        assert_eq!(counts.reference_length(), 6);
        assert!((counts.rate() - 0.5).abs() < 1e-15);
        assert_eq!(EditCounts::of_characters(" straße ", "strasse").edits(), 2);
    }

    #[test]
    fn empty_texts() {
        assert_eq!(EditCounts::of_words("", " ").rate(), 0.0);
        assert!(EditCounts::of_words("", "a").rate().is_infinite());
        assert_eq!(EditCounts::of_words("a b", "").rate(), 1.0);
        let all: EditCounts = [("", "a"), ("b c", "b c")].iter().map(|(a, b)| EditCounts::of_words(a, b)).sum();
        assert_eq!(all.rate(), 0.5);
    }
}
