//! The sub-word units of a reader.

use std::collections::HashMap;

use crate::error::{ModelError, ModelResult};

/// Index of the symbol that begins a sentence (of a language model; readers begin with [`END`]).
pub const BEGIN: usize = 0;
/// Index of padding.
pub const PADDING: usize = 1;
/// Index of the symbol that ends a sentence, and with which decoding begins.
pub const END: usize = 2;
/// Index of the symbol for what is unknown.
pub const UNKNOWN: usize = 3;

/// Symbols that every dictionary begins with.
pub const NUM_SPECIAL: usize = 4;
/// How they are written.
const SPECIAL: [&str; NUM_SPECIAL] = ["<s>", "<pad>", "</s>", "<unk>"];
/// What sentence-piece writes in place of a space.
const SPACE: char = '\u{2581}';
/// Largest number of symbols that is believed.
const MAX_SYMBOLS: usize = 1 << 20;

/// Symbols and their indices.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dictionary {
    symbols: Vec<String>,
    indices: HashMap<String, usize>,
}

impl Dictionary {
    /// Reads fairseq's text form: a symbol, a space and its count on each line. The four special symbols come first
    /// and stand in no line.
    ///
    /// # Errors
    /// [`ModelError::Parameter`] for a line without a count and for a symbol that stands there twice without
    /// `#fairseq:overwrite`.
    pub fn parse(text: &str) -> ModelResult<Self> {
        let mut symbols: Vec<String> = SPECIAL.map(str::to_owned).into();
        let mut indices: HashMap<String, usize> = symbols.iter().cloned().zip(0..).collect();
        let fault = |number: usize, line: &str, allowed: &str| {
            Err(ModelError::parameter("dictionary", format!("line {}", number + 1), format!("{line:?}"), allowed))
        };
        for (number, line) in text.lines().enumerate() {
            let overwrite = line.strip_suffix(" #fairseq:overwrite");
            let Some((symbol, count)) = overwrite.unwrap_or(line).rsplit_once(' ') else {
                return fault(number, line, "a line is a symbol, a space and a count");
            };
            if count.parse::<u64>().is_err() {
                return fault(number, line, "a line is a symbol, a space and a count");
            }
            if symbols.len() == MAX_SYMBOLS {
                return fault(number, line, "a dictionary has at most 1048576 symbols");
            }
            if indices.contains_key(symbol) && overwrite.is_none() {
                return fault(number, line, "the symbol stands in an earlier line, or is a special one");
            }
            indices.insert(symbol.to_owned(), symbols.len());
            symbols.push(symbol.to_owned());
        }
        Ok(Self { symbols, indices })
    }

    /// Number of symbols, the special ones among them.
    pub fn len(&self) -> usize {
        self.symbols.len()
    }

    /// Whether there are no symbols but the special ones.
    pub fn is_empty(&self) -> bool {
        self.symbols.len() == SPECIAL.len()
    }

    /// The symbol of an index.
    pub fn symbol(&self, index: usize) -> Option<&str> {
        self.symbols.get(index).map(String::as_str)
    }

    /// The index of a symbol; [`UNKNOWN`] for one that is not there.
    pub fn index(&self, symbol: &str) -> usize {
        self.indices.get(symbol).copied().unwrap_or(UNKNOWN)
    }

    /// Joins sub-word pieces to words. Special symbols but `<unk>` are left out, as are indices beyond the dictionary.
    pub fn text(&self, tokens: &[usize]) -> String {
        let kept = tokens.iter().filter(|token| ![BEGIN, PADDING, END].contains(token));
        let joined: String = kept.filter_map(|token| self.symbol(*token)).collect();
        joined.replace(SPACE, " ").trim().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_become_words() {
        let dictionary = Dictionary::parse("\u{2581}thank 10\ns 7\n\u{2581}you 3\n\u{2581} 1\n").unwrap();
        assert_eq!((dictionary.len(), dictionary.is_empty()), (8, false));
        assert_eq!((dictionary.index("s"), dictionary.index("z")), (5, UNKNOWN));
        assert_eq!(dictionary.text(&[END, 4, 5, 6, END, 99]), "thanks you");
        assert_eq!(dictionary.text(&[4, UNKNOWN]), "thank<unk>");
        assert!(Dictionary::parse("").unwrap().is_empty());
    }

    #[test]
    fn faulty_lines_are_named() {
        for (text, line) in [("a 1\nb\n", "line 2"), ("a x\n", "line 1"), ("a 1\na 2\n", "line 2"), ("<s> 1", "line 1")]
        {
            let error = Dictionary::parse(text).unwrap_err();
            assert!(error.to_string().contains(line), "{error}");
        }
        assert_eq!(Dictionary::parse("a 1\na 2 #fairseq:overwrite\n").unwrap().index("a"), 5);
    }
}
