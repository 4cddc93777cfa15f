//! The commands of the GRID corpus: six words, each out of its own short list.
//!
//! # Source
//! Cooke, Barker, Cunningham and Shao, "An audio-visual corpus for speech perception and automatic speech recognition"
//! (2006), table I.

use std::fmt;

/// Words of a command.
pub const SLOTS: usize = 6;

/// The words that each place of a command can have: command, colour, preposition, letter, digit, adverb.
pub const VOCABULARY: [&[&str]; SLOTS] = [
    &["bin", "lay", "place", "set"],
    &["blue", "green", "red", "white"],
    &["at", "by", "in", "with"],
    &[
        "a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l", "m", "n", "o", "p", "q", "r", "s", "t", "u", "v",
        "x", "y", "z",
    ],
    &["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"],
    &["again", "now", "please", "soon"],
];

/// What the places are called.
pub const SLOT_NAMES: [&str; SLOTS] = ["command", "colour", "preposition", "letter", "digit", "adverb"];

/// A command, as the number of each word in its list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GridSentence([usize; SLOTS]);

impl GridSentence {
    /// The command that a transcript is; `None` for any other sentence. Words are in small letters, as readers write,
    /// and nothing else stands between them but white space.
    pub fn parse(transcript: &str) -> Option<Self> {
        let mut words = transcript.split_whitespace();
        let mut indices = [0; SLOTS];
        for (index, known) in indices.iter_mut().zip(VOCABULARY) {
            let word = words.next()?;
            *index = known.iter().position(|other| *other == word)?;
        }
        words.next().is_none().then_some(Self(indices))
    }

    /// The command of these words; `None` where a list has no such number.
    pub fn of_indices(indices: [usize; SLOTS]) -> Option<Self> {
        indices.iter().zip(VOCABULARY).all(|(index, known)| *index < known.len()).then_some(Self(indices))
    }

    /// The number of each word in its list.
    pub fn indices(&self) -> [usize; SLOTS] {
        self.0
    }

    /// Its words.
    pub fn words(&self) -> [&'static str; SLOTS] {
        std::array::from_fn(|slot| VOCABULARY[slot][self.0[slot]])
    }
}

/// The sentence, its words separated by spaces.
impl fmt::Display for GridSentence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.words().join(" "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_numbers_are_each_other() {
        let sentence = GridSentence::parse(" place  red at g nine\tnow\n").unwrap();
        assert_eq!(sentence.indices(), [2, 2, 0, 6, 9, 1]);
        assert_eq!(sentence.to_string(), "place red at g nine now");
        assert_eq!(GridSentence::of_indices([2, 2, 0, 6, 9, 1]), Some(sentence));
        for (slot, known) in VOCABULARY.iter().enumerate() {
            for number in 0..known.len() {
                let mut indices = [1; SLOTS];
                indices[slot] = number;
                let made = GridSentence::of_indices(indices).unwrap();
                assert_eq!(GridSentence::parse(&made.to_string()), Some(made));
            }
            let mut indices = [0; SLOTS];
            indices[slot] = known.len();
            assert_eq!(GridSentence::of_indices(indices), None);
        }
    }

    #[test]
    fn other_sentences_are_refused() {
        for text in [
            "",
            "bin blue at f two",
            "bin blue at f two now please",
            "bin blue at w two now",
            "blue bin at f two now",
            "Bin blue at f two now",
            "bin blue at f 2 now",
            "good evening and welcome to the news",
        ] {
            assert_eq!(GridSentence::parse(text), None, "{text}");
        }
    }
}
