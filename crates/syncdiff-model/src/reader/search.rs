//! Searching for the likeliest sentence: greedily, or along a beam.

use crate::error::{ModelError, ModelResult};
use crate::reader::dictionary::{END, PADDING};

/// A model of the next token. It holds any number of hypotheses, all of the same length.
pub trait NextToken {
    /// Replaces the hypotheses: the i-th becomes the old one `parents[i]` with `tokens[i]` behind it. The first call
    /// has one parent, 0, the empty sentence. Returns the log-probabilities of the token that comes next, per
    /// hypothesis, over the whole vocabulary.
    fn advance(&mut self, parents: &[usize], tokens: &[usize]) -> Vec<Vec<f32>>;
}

/// A finished sentence.
#[derive(Debug, Clone, PartialEq)]
pub struct Hypothesis {
    /// Without the symbols that begin and end it.
    pub tokens: Vec<usize>,
    /// Sum of the log-probabilities over length^length_penalty; the end symbol counts.
    pub score: f64,
}

/// Settings of a beam search.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BeamSearch {
    /// Hypotheses kept at each length.
    pub beam: usize,
    /// Exponent of the length in the score: 0 favours short sentences, 1 compares means.
    pub length_penalty: f64,
    /// Longest sentence in tokens, without the end symbol.
    pub max_len: usize,
}

impl BeamSearch {
    /// That of the published readers: beam 50, length penalty 1, at most one token per video frame.
    pub fn new(num_frames: usize) -> Self {
        Self { beam: 50, length_penalty: 1.0, max_len: num_frames }
    }

    /// Finds settings that cannot run.
    ///
    /// # Errors
    /// [`ModelError::Parameter`] for a beam or a length of 0, or a penalty that is not finite.
    pub fn check(&self) -> ModelResult<()> {
        for (name, value) in [("beam", self.beam), ("max_len", self.max_len)] {
            if value == 0 {
                return Err(ModelError::parameter("beam search", name, value, "must be 1 or more"));
            }
        }
        if !self.length_penalty.is_finite() {
            let allowed = "must be finite";
            return Err(ModelError::parameter("beam search", "length_penalty", self.length_penalty, allowed));
        }
        Ok(())
    }
}

/// The likeliest token at each place; ends at the end symbol or after `max_len` tokens. The end symbol is not returned.
pub fn greedy(model: &mut dyn NextToken, max_len: usize) -> Vec<usize> {
    let mut sentence = Vec::new();
    let mut last = END;
    while sentence.len() < max_len {
        let log_probs = &model.advance(&[0], &[last])[0];
        // Of equal ones the first, as torch.argmax does.
        last = (1..log_probs.len()).fold(0, |best, i| if log_probs[i] > log_probs[best] { i } else { best });
        if last == END {
            break;
        }
        sentence.push(last);
    }
    sentence
}

/// A continuation of a hypothesis.
#[derive(Clone, Copy)]
struct Candidate {
    parent: usize,
    token: usize,
    sum: f64,
}

/// Finished sentences, best first, at most `beam` of them.
///
/// Of all continuations the best 2 x beam are looked at: those among the first `beam` that end are finished, and the
/// best `beam` that do not end go on. A sentence has at least one token; one of `max_len` tokens must end. The search
/// ends when `beam` sentences are finished.
///
/// # Errors
/// As [`BeamSearch::check`].
///
/// # Source
/// fairseq `SequenceGenerator` with `normalize_scores`, `min_len=1`, no n-gram blocking.
pub fn beam_search(model: &mut dyn NextToken, settings: &BeamSearch) -> ModelResult<Vec<Hypothesis>> {
    settings.check()?;
    let mut finished: Vec<Hypothesis> = Vec::new();
    let mut live: Vec<(Vec<usize>, f64)> = vec![(Vec::new(), 0.0)];
    let (mut parents, mut tokens) = (vec![0], vec![END]);
    for length in 0..=settings.max_len {
        let log_probs = model.advance(&parents, &tokens);
        let mut candidates = Vec::new();
        for (parent, row) in log_probs.iter().enumerate() {
            let allowed = |token: &usize| match *token {
                PADDING => false,
                END => length > 0,
                _ => length < settings.max_len,
            };
            let sums = (0..row.len()).filter(allowed).filter(|token| !row[*token].is_nan());
            candidates.extend(sums.map(|token| Candidate {
                parent,
                token,
                sum: live[parent].1 + f64::from(row[token]),
            }));
        }
        candidates.retain(|candidate| candidate.sum > f64::NEG_INFINITY);
        // A stable sort: of equal ones the earlier hypothesis and the smaller token.
        candidates.sort_by(|a, b| b.sum.total_cmp(&a.sum));
        candidates.truncate(2 * settings.beam);
        for ended in candidates.iter().take(settings.beam).filter(|candidate| candidate.token == END) {
            if finished.len() < settings.beam {
                let score = ended.sum / ((length + 1) as f64).powf(settings.length_penalty);
                finished.push(Hypothesis { tokens: live[ended.parent].0.clone(), score });
            }
        }
        if finished.len() == settings.beam {
            break;
        }
        let going_on = candidates.iter().filter(|candidate| candidate.token != END).take(settings.beam);
        let going_on: Vec<Candidate> = going_on.copied().collect();
        if going_on.is_empty() {
            break;
        }
        parents = going_on.iter().map(|candidate| candidate.parent).collect();
        tokens = going_on.iter().map(|candidate| candidate.token).collect();
        live = going_on
            .iter()
            .map(|candidate| {
                let sentence = live[candidate.parent].0.iter().copied().chain([candidate.token]).collect();
                (sentence, candidate.sum)
            })
            .collect();
    }
    finished.sort_by(|a, b| b.score.total_cmp(&a.score));
    Ok(finished)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Probabilities that depend on the whole sentence so far, over 3 words and the end.
    struct Toy {
        sentences: Vec<Vec<usize>>,
    }

    const VOCABULARY: usize = 7;

    impl Toy {
        fn new() -> Self {
            Self { sentences: vec![Vec::new()] }
        }

        fn log_probs(sentence: &[usize]) -> Vec<f32> {
            let mut state =
                sentence.iter().fold(17u32, |state, token| state.wrapping_mul(31).wrapping_add(*token as u32));
            let raw: Vec<f64> = (0..VOCABULARY)
                .map(|token| {
                    state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    if token < 2 || token == 3 { 1e-9 } else { 0.05 + f64::from(state >> 16) / 65536.0 }
                })
                .collect();
            let sum: f64 = raw.iter().sum();
            raw.iter().map(|p| (p / sum).ln() as f32).collect()
        }
    }

    impl NextToken for Toy {
        fn advance(&mut self, parents: &[usize], tokens: &[usize]) -> Vec<Vec<f32>> {
            let extend = |(parent, token): (&usize, &usize)| [&self.sentences[*parent][..], &[*token]].concat();
            self.sentences = parents.iter().zip(tokens).map(extend).collect();
            self.sentences.iter().map(|sentence| Self::log_probs(sentence)).collect()
        }
    }

    /// All sentences up to a length with their scores, best first.
    fn exhaustive(max_len: usize, length_penalty: f64) -> Vec<Hypothesis> {
        let mut all = Vec::new();
        let mut open = vec![(vec![END], 0.0f64)];
        while let Some((sentence, sum)) = open.pop() {
            let log_probs = Toy::log_probs(&sentence);
            let len = sentence.len() - 1;
            if len > 0 {
                let score = (sum + f64::from(log_probs[END])) / ((len + 1) as f64).powf(length_penalty);
                all.push(Hypothesis { tokens: sentence[1..].to_vec(), score });
            }
            if len < max_len {
                let next = (0..VOCABULARY).filter(|token| ![PADDING, END].contains(token));
                open.extend(next.map(|token| ([&sentence[..], &[token]].concat(), sum + f64::from(log_probs[token]))));
            }
        }
        all.sort_by(|a, b| b.score.total_cmp(&a.score));
        all
    }

    #[test]
    fn a_beam_wider_than_the_space_finds_the_best_sentence() {
        for length_penalty in [0.0, 1.0, 2.0] {
            let settings = BeamSearch { beam: 2000, length_penalty, max_len: 3 };
            let found = beam_search(&mut Toy::new(), &settings).unwrap();
            let all = exhaustive(3, length_penalty);
            assert_eq!(found.len(), all.len());
            for (a, b) in found.iter().zip(&all).take(20) {
                assert_eq!(a.tokens, b.tokens);
                assert!((a.score - b.score).abs() < 1e-9);
            }
        }
    }

    #[test]
    fn length_penalty_and_limits() {
        let best = |length_penalty| {
            let settings = BeamSearch { beam: 4, length_penalty, max_len: 6 };
            beam_search(&mut Toy::new(), &settings).unwrap().remove(0).tokens.len()
        };
        assert!(best(0.0) < best(3.0), "{} {}", best(0.0), best(3.0));
        let settings = BeamSearch { beam: 4, length_penalty: 1.0, max_len: 1 };
        let found = beam_search(&mut Toy::new(), &settings).unwrap();
        assert_eq!(found.len(), 4);
        assert!(found.iter().all(|hypothesis| hypothesis.tokens.len() == 1));
        for wrong in [
            BeamSearch { beam: 0, ..settings },
            BeamSearch { max_len: 0, ..settings },
            BeamSearch { length_penalty: f64::NAN, ..settings },
        ] {
            assert!(beam_search(&mut Toy::new(), &wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn greedy_takes_the_likeliest_step_by_step() {
        let sentence = greedy(&mut Toy::new(), 5);
        assert!(sentence.len() <= 5);
        let mut prefix = vec![END];
        for token in &sentence {
            let log_probs = Toy::log_probs(&prefix);
            assert!(log_probs.iter().all(|other| *other <= log_probs[*token]));
            prefix.push(*token);
        }
        if sentence.len() < 5 {
            let log_probs = Toy::log_probs(&prefix);
            assert!(log_probs.iter().all(|other| *other <= log_probs[END]));
        }
    }
}
