//! Trains our lip reader: which six words a mouth says.
//!
//! Six cross-entropies, one for each place of a GRID command; where in the clip a word is said nobody tells the network.
//! An hour of prepared data holds a few hundred commands of two speakers, so that nearly all of the work is not to
//! learn them by heart: clips are moved, grown, mirrored, coloured, stretched in time and begun late or early, frames
//! and spans of time are lost, and what is between the layers is dropped out.
//!
//! # Source
//! A closed vocabulary with a class for each word of a GRID sentence is as old as Wand, Koutnik and Schmidhuber, "Lipreading
//! with long short-term memory" (2016), who cut the words out; the network is our own.

mod examples;

use crate::best::Measure;
use crate::error::{TrainError, TrainResult};
use crate::images::stored;
use crate::seeds::mix;
use crate::talk::TalkSource;
use crate::trainer::{Shard, StepLoss, Task};
use burn::tensor::activation::log_softmax;
use burn::tensor::{DType, Device, Tensor, TensorData};
use examples::Example;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use std::ops::Range;
use syncdiff_model::reader::grid::{PICTURE, grid_pictures};
use syncdiff_model::reader::grid_sentence::{SLOT_NAMES, SLOTS};
use syncdiff_model::reader::{GridReader, GridSentence};
use syncdiff_model::weights::TensorMap;

/// Settings of the lip reader's training.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReaderTraining {
    /// Largest move of the mouth's window, in pixels of the window.
    pub shift: f32,
    /// Largest relative change of its size.
    pub zoom: f32,
    /// Strength of the change of colours; 1 is what cameras and lamps do.
    pub colour: f64,
    /// Largest relative change of pace.
    pub stretch: f64,
    /// Most frames by which a clip begins earlier or later.
    pub start: f64,
    /// Share of frames in whose place the one before is seen.
    pub lost: f64,
    /// Most frames of a span of which nothing is seen.
    pub hidden: usize,
    /// Share of values that are dropped out between the layers.
    pub dropout: f64,
    /// Share of a word's certainty that is spread over its list.
    pub smoothing: f64,
}

impl ReaderTraining {
    pub(crate) fn check(&self) -> TrainResult<()> {
        for (name, value, most) in [
            ("reader.zoom", f64::from(self.zoom), 0.5),
            ("reader.stretch", self.stretch, 0.5),
            ("reader.lost", self.lost, 0.9),
            ("reader.dropout", self.dropout, 0.9),
            ("reader.smoothing", self.smoothing, 0.9),
            ("reader.start", self.start, 1000.0),
            ("reader.shift", f64::from(self.shift), PICTURE as f64),
            ("reader.colour", self.colour, 4.0),
        ] {
            if !(0.0..=most).contains(&value) {
                return Err(TrainError::Parameter { name, value: value.to_string(), allowed: format!("0 to {most}") });
            }
        }
        Ok(())
    }
}

/// The task of [`crate::train`].
pub struct ReaderTask<'a> {
    settings: ReaderTraining,
    batch_size: usize,
    seed: u64,
    device: Device,
    clips: &'a dyn TalkSource,
    valid: &'a dyn TalkSource,
}

/// Clips on a device, the shorter ones filled up.
struct Batch {
    /// [batch, time, 64, 64]
    pictures: Tensor<4>,
    lengths: Vec<usize>,
    said: Vec<GridSentence>,
}

impl<'a> ReaderTask<'a> {
    /// `batch_size` counts clips, all of which are commands.
    ///
    /// # Errors
    /// [`TrainError::Parameter`] for settings out of range.
    pub fn new(
        settings: ReaderTraining,
        batch_size: usize,
        seed: u64,
        device: Device,
        clips: &'a dyn TalkSource,
        valid: &'a dyn TalkSource,
    ) -> TrainResult<Self> {
        settings.check()?;
        Ok(Self { settings, batch_size, seed, device, clips, valid })
    }

    /// Some clips of a step.
    fn batch(&self, step: u64, clips: Range<usize>) -> TrainResult<Batch> {
        let draw = |index: usize| Example::draw(self.clips, &self.settings, mix(self.seed, step, index as u64));
        let examples = clips.map(draw).collect::<TrainResult<Vec<Example>>>()?;
        let lengths: Vec<usize> = examples.iter().map(Example::len).collect();
        let time = lengths.iter().copied().max().unwrap_or(0);
        let mut values = Vec::with_capacity(examples.len() * time * PICTURE.pow(2));
        for (number, example) in examples.iter().enumerate() {
            let mut pictures = grid_pictures(&example.grey);
            pictures[example.hidden.start * PICTURE.pow(2)..example.hidden.end * PICTURE.pow(2)].fill(0.0);
            values.extend(pictures);
            values.resize((number + 1) * time * PICTURE.pow(2), 0.0);
        }
        let data = TensorData::new(values, [examples.len(), time, PICTURE, PICTURE]);
        let pictures = Tensor::from_data(data, (&self.device, DType::F32));
        Ok(Batch { pictures, lengths, said: examples.into_iter().map(|example| example.said).collect() })
    }

    /// With a share of its values dropped out, and the others larger by as much. Not by the device's generator, which
    /// two parts of a step would draw from at once.
    fn dropped(&self, x: Tensor<3>, random: &mut ChaCha8Rng) -> Tensor<3> {
        if self.settings.dropout == 0.0 {
            return x;
        }
        let shape = x.dims();
        let kept = (1.0 / (1.0 - self.settings.dropout)) as f32;
        let value = |_| if random.random_bool(self.settings.dropout) { 0.0 } else { kept };
        let mask: Vec<f32> = (0..shape.iter().product()).map(value).collect();
        x * Tensor::from_data(TensorData::new(mask, shape), (&self.device, DType::F32))
    }
}

/// Mean over clips and places of the cross-entropy with the right word, of whose certainty a share is spread over its
/// list.
///
/// # Shapes
/// six of [batch, words] -> [1]
fn cross_entropy(logits: &[Tensor<2>], said: &[GridSentence], smoothing: f64) -> Tensor<1> {
    let one = |(slot, logits): (usize, &Tensor<2>)| {
        let [batch, words] = logits.dims();
        let mut targets = vec![(smoothing / words as f64) as f32; batch * words];
        for (row, sentence) in targets.chunks_exact_mut(words).zip(said) {
            row[sentence.indices()[slot]] += (1.0 - smoothing) as f32;
        }
        let targets = Tensor::<2>::from_data(TensorData::new(targets, [batch, words]), (&logits.device(), DType::F32));
        (log_softmax(logits.clone(), 1) * targets).sum()
    };
    let sums = logits.iter().enumerate().map(one).reduce(|a, b| a + b).expect("six places");
    sums / (-((SLOTS * said.len()) as f64))
}

impl Task<GridReader> for ReaderTask<'_> {
    fn num_shards(&self) -> usize {
        Shard::count_for(self.batch_size)
    }

    fn loss(&self, model: &GridReader, step: u64, shard: Shard) -> TrainResult<StepLoss> {
        let Batch { pictures, lengths, said } = self.batch(step, shard.range(self.batch_size))?;
        // A seed that is no clip's.
        let mut random = ChaCha8Rng::seed_from_u64(mix(self.seed, step, u64::MAX - shard.index as u64));
        let rows = self.dropped(model.see(pictures), &mut random);
        let slots = self.dropped(model.gather(rows, &lengths), &mut random);
        let logits = model.say(slots);
        let (mut right, mut letters) = (0, 0);
        for (slot, logits) in logits.iter().enumerate() {
            let best: Vec<i64> = logits.clone().inner().argmax(1).into_data().iter::<i64>().collect();
            let hits = best.iter().zip(&said).filter(|(best, said)| **best == said.indices()[slot] as i64).count();
            right += hits;
            letters += if SLOT_NAMES[slot] == "letter" { hits } else { 0 };
        }
        let share = |hits: usize, of: usize| hits as f32 / (of * said.len()) as f32;
        let parts = vec![("words", share(right, SLOTS)), ("letters", share(letters, 1))];
        Ok(StepLoss { loss: cross_entropy(&logits, &said, self.settings.smoothing), parts })
    }

    fn batch_of(&self, step: u64) -> TrainResult<TensorMap> {
        let batch = self.batch(step, 0..self.batch_size)?;
        Ok([("pictures".to_owned(), stored(batch.pictures))].into())
    }

    /// On held-out clips as they are: the word error rate (`wer`), the share of commands without a fault
    /// (`sentences`), and the share of right words for each place.
    fn validate(&self, shadow: &GridReader) -> TrainResult<Vec<(&'static str, f32)>> {
        let device = self.device.clone().inner();
        let (mut hits, mut whole) = ([0usize; SLOTS], 0);
        let clips = self.valid.num_clips();
        for index in 0..clips {
            let example = Example::plain(&self.valid.clip(index)?.clip)?;
            let read = shadow.read(&example.grey, &device)?.indices();
            let said = example.said.indices();
            (0..SLOTS).for_each(|slot| hits[slot] += usize::from(read[slot] == said[slot]));
            whole += usize::from(read == said);
        }
        let share = |hits: usize, of: usize| hits as f32 / (of * clips).max(1) as f32;
        let wer = 1.0 - share(hits.iter().sum(), SLOTS);
        let figures = [("wer", wer), ("sentences", share(whole, 1))];
        Ok(figures.into_iter().chain(SLOT_NAMES.into_iter().zip(hits.map(|hits| share(hits, 1)))).collect())
    }

    fn best_by(&self) -> Option<Measure> {
        Some(Measure::Lowest("wer"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use syncdiff_model::reader::grid_sentence::VOCABULARY;

    #[test]
    fn not_knowing_costs_the_logarithm_of_the_lists_and_smoothing_forbids_certainty() {
        let device = Device::flex();
        let said = ["bin blue at a zero again", "set white with z nine soon"].map(|t| GridSentence::parse(t).unwrap());
        let even: Vec<Tensor<2>> = VOCABULARY.iter().map(|known| Tensor::zeros([2, known.len()], &device)).collect();
        let loss = |logits: &[Tensor<2>], smoothing| cross_entropy(logits, &said, smoothing).into_scalar::<f32>();
        let expected = VOCABULARY.iter().map(|known| (known.len() as f32).ln()).sum::<f32>() / 6.0;
        assert!((loss(&even, 0.0) - expected).abs() < 1e-5 && (loss(&even, 0.3) - expected).abs() < 1e-5);
        let sure = |slot: usize| {
            let words = VOCABULARY[slot].len();
            let right = |row: usize, word: usize| if said[row].indices()[slot] == word { 30f32 } else { 0.0 };
            let values: Vec<f32> = (0..2 * words).map(|i| right(i / words, i % words)).collect();
            Tensor::<2>::from_data(TensorData::new(values, [2, words]), (&device, DType::F32))
        };
        let sure: Vec<Tensor<2>> = (0..SLOTS).map(sure).collect();
        assert!(loss(&sure, 0.0) < 1e-5 && loss(&sure, 0.1) > 1.0);
        // Both clips the other way round.
        let wrong: Vec<Tensor<2>> = sure.into_iter().map(|x| x.flip([0])).collect();
        assert!((loss(&wrong, 0.0) - 30.0).abs() < 0.01);
    }

    #[test]
    fn settings_out_of_range_are_named() {
        let good = ReaderTraining {
            shift: 4.0,
            zoom: 0.1,
            colour: 1.0,
            stretch: 0.1,
            start: 3.0,
            lost: 0.1,
            hidden: 4,
            dropout: 0.2,
            smoothing: 0.1,
        };
        assert!(good.check().is_ok());
        for (bad, name) in [
            (ReaderTraining { stretch: 0.9, ..good.clone() }, "stretch"),
            (ReaderTraining { dropout: 1.0, ..good.clone() }, "dropout"),
            (ReaderTraining { smoothing: f64::NAN, ..good.clone() }, "smoothing"),
            (ReaderTraining { zoom: -0.1, ..good.clone() }, "zoom"),
        ] {
            assert!(bad.check().unwrap_err().to_string().contains(name));
        }
    }
}
