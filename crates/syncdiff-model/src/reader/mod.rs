//! Lip reading: from mouth pictures to words.
//!
//! Two readers: AV-HuBERT's, whose weights are imported and who reads English, and a small one of our own ([`grid`])
//! who reads the commands of the GRID corpus and nothing else. The first:
//!
//! ```text
//! memory     = reader.encode(mouths)                       [1, frames, dim], over the whole utterance, once
//! hypotheses = reader.beam_search(memory, &BeamSearch::new(frames))
//! text       = dictionary.text(&hypotheses[0].tokens)
//! ```
//!
//! # Source
//! Shi et al. 2022; facebookresearch/av_hubert `hubert_asr.py` and `decoder.py`; fairseq `TransformerDecoder` and
//! `SequenceGenerator`.

pub mod decoder;
pub mod decoder_layer;
pub mod dictionary;
pub mod grid;
pub mod grid_sentence;
pub mod lip_reader;
pub mod search;

pub use decoder::{Decoder, DecoderConfig};
pub use dictionary::Dictionary;
pub use grid::{AboutReader, GridReader};
pub use grid_sentence::GridSentence;
pub use lip_reader::{LipReader, LipReaderConfig};
pub use search::{BeamSearch, Hypothesis, NextToken, beam_search, greedy};
