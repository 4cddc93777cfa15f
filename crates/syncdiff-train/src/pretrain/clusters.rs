//! What the network has to guess: for every frame, which cluster its sound belongs to.
//!
//! In the first iteration clusters are of cepstra; later ones cluster the hidden rows of the network of the iteration
//! before, which knows more of speech than cepstra do.
//!
//! # Source
//! Hsu et al. 2021 (HuBERT), section II; Shi et al. 2022 (AV-HuBERT), section 3.2. There the cluster of a frame in the
//! first iteration is that of the first of its four cepstra; here their mean is clustered, without the clip's own mean,
//! which is the voice's and the microphone's rather than what is said.

use super::examples::{Batch, Example};
use super::kmeans::{Centres, Rows};
use super::net::Pretrainee;
use crate::error::{TrainError, TrainResult};
use crate::talk::{TalkSource, TalkingClip};
use burn::tensor::Device;
use std::path::Path;
use syncdiff_model::audio::filterbank::{FRAMES_PER_ROW, NUM_CEPSTRA, mfcc};
use syncdiff_model::weights::folder::save_safetensors;
use syncdiff_model::weights::{Storage, StoredTensor, TensorMap, open_safetensors};

/// Cepstra and their first and second differences.
const FEATURES: usize = 3 * NUM_CEPSTRA;
/// Frames on both sides that a difference looks at.
const REACH: usize = 2;
/// Most clusters: a label has two bytes.
const MOST: usize = 1 << 16;

/// The cluster of every frame of sound of every clip.
#[derive(Clone, Debug)]
pub struct SoundClusters {
    /// How many clusters there are.
    pub count: usize,
    /// Training clips, frame by frame.
    pub train: Vec<Vec<u16>>,
    /// Held-out clips.
    pub valid: Vec<Vec<u16>>,
    /// What the clusters are, as it is written to the file.
    centres: TensorMap,
}

impl SoundClusters {
    /// Clusters of cepstra: the first iteration.
    ///
    /// # Errors
    /// Clips that cannot be read; [`TrainError::Parameter`] for more clusters than frames.
    pub fn of_cepstra(count: usize, seed: u64, clips: &dyn TalkSource, valid: &dyn TalkSource) -> TrainResult<Self> {
        let features = |talk: &TalkingClip| Ok(cepstra(talk.clip.speech(), talk.clip.num_frames()));
        Self::find(count, seed, clips, valid, [FEATURES, NUM_CEPSTRA], &features)
    }

    /// Clusters of what a layer of an earlier network (counted from 1) makes of sound and sight: a later iteration.
    ///
    /// # Errors
    /// As [`Self::of_cepstra`]; [`TrainError::Parameter`] for a layer that the network does not have.
    pub fn of_layer(
        count: usize,
        seed: u64,
        clips: &dyn TalkSource,
        valid: &dyn TalkSource,
        (net, layer): (&Pretrainee, usize),
        device: &Device,
    ) -> TrainResult<Self> {
        let features = |talk: &TalkingClip| {
            let batch = Batch::of(&[Example::plain(talk)], device)?;
            let (sound, sight) = net.halves(&batch);
            let mut layers = net.audio.forward_halves(sound, sight, None).layers;
            if !(1..=layers.len()).contains(&layer) {
                return Err(TrainError::Parameter {
                    name: "pretrain.cluster_layer",
                    value: layer.to_string(),
                    allowed: format!("1 to {}, the layers of the encoder", layers.len()),
                });
            }
            let rows = layers.swap_remove(layer - 1);
            let width = rows.dims()[2];
            let values = rows.into_data().convert::<f32>().try_into_vec().expect("converted to f32");
            Ok(Rows { width, values })
        };
        Self::find(count, seed, clips, valid, [net.width(); 2], &features)
    }

    /// Clusters of rows of features of a width, of which so many columns have a scale of their own.
    fn find(
        count: usize,
        seed: u64,
        clips: &dyn TalkSource,
        valid: &dyn TalkSource,
        [width, own]: [usize; 2],
        features: &dyn Fn(&TalkingClip) -> TrainResult<Rows>,
    ) -> TrainResult<Self> {
        let (mut rows, mut lengths) = (Rows { width, values: Vec::new() }, Vec::new());
        for index in 0..clips.num_clips() {
            let found = features(&clips.clip(index)?)?;
            lengths.push(found.len());
            rows.values.extend(found.values);
        }
        if count == 0 || count > rows.len().min(MOST) {
            return Err(TrainError::Parameter {
                name: "pretrain.clusters",
                value: count.to_string(),
                allowed: format!("1 to {}: the clips have {} frames", rows.len().min(MOST), rows.len()),
            });
        }
        let centres = Centres::find(&rows, own, count, seed);
        let train = cut(&centres.of(&rows), &lengths);
        let labels = |index| -> TrainResult<Vec<u16>> { Ok(centres.of(&features(&valid.clip(index)?)?)) };
        let valid = (0..valid.num_clips()).map(labels).collect::<TrainResult<_>>()?;
        let centres = centres.tensors().map(|(name, tensor)| (name.to_owned(), tensor)).into();
        Ok(Self { count, train, valid, centres })
    }

    /// The cluster that most training frames belong to.
    pub(super) fn most_frequent(&self) -> u16 {
        let mut sizes = vec![0usize; self.count];
        self.train.iter().flatten().for_each(|label| sizes[usize::from(*label)] += 1);
        let best = (0..self.count).max_by_key(|cluster| sizes[*cluster]).unwrap_or(0);
        best as u16
    }

    /// Writes clusters and labels; the file is whole as soon as it is there.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn save(&self, path: &Path) -> TrainResult<()> {
        let mut tensors = self.centres.clone();
        for (name, clips) in [("train", &self.train), ("valid", &self.valid)] {
            let lengths: Vec<f32> = clips.iter().map(|clip| clip.len() as f32).collect();
            let labels: Vec<f32> = clips.iter().flatten().map(|label| f32::from(*label)).collect();
            tensors.insert(format!("{name}.lengths"), StoredTensor::from_f32(&[lengths.len()], &lengths));
            tensors.insert(format!("{name}.labels"), StoredTensor::from_f32(&[labels.len()], &labels));
        }
        let partial = path.with_extension("partial");
        save_safetensors(&tensors, Storage::F32, &partial)?;
        std::fs::rename(&partial, path).map_err(|error| TrainError::io(path, error))
    }

    /// Reads what [`Self::save`] wrote.
    ///
    /// # Errors
    /// A file that cannot be read or holds something else.
    pub fn load(path: &Path) -> TrainResult<Self> {
        let tensors = open_safetensors(path)?;
        let tensor = |name: &str| {
            let missing =
                || TrainError::io(path, format!("`{name}` is missing: these are no clusters; remove the file"));
            tensors.get(name).ok_or_else(missing)
        };
        let count = tensor("centres")?.shape().first().copied().unwrap_or(0);
        let clips = |name: &str| -> TrainResult<Vec<Vec<u16>>> {
            let numbers = |part: &str| Ok::<_, TrainError>(tensor(&format!("{name}.{part}"))?.to_f32()?);
            let lengths: Vec<usize> = numbers("lengths")?.into_iter().map(|length| length as usize).collect();
            let labels: Vec<u16> = numbers("labels")?.into_iter().map(|label| label as u16).collect();
            let fit = lengths.iter().sum::<usize>() == labels.len() && labels.iter().all(|l| usize::from(*l) < count);
            if !fit {
                return Err(TrainError::io(path, format!("the labels of `{name}` do not fit; remove the file")));
            }
            Ok(cut(&labels, &lengths))
        };
        let (train, valid) = (clips("train")?, clips("valid")?);
        let about = |name: &str| -> TrainResult<_> { Ok((name.to_owned(), tensor(name)?.clone())) };
        let centres = [about("mean")?, about("deviation")?, about("centres")?].into();
        Ok(Self { count, train, valid, centres })
    }
}

/// Labels of clips behind each other, clip by clip.
fn cut(labels: &[u16], lengths: &[usize]) -> Vec<Vec<u16>> {
    let mut left = labels;
    let part = |length: &usize| {
        let (part, rest) = left.split_at(*length);
        left = rest;
        part.to_vec()
    };
    lengths.iter().map(part).collect()
}

/// Cepstra without the clip's mean and their differences, the mean over the 10 ms frames of each video frame.
///
/// Differences are scaled as the cepstra themselves are: brought to unit variance they would, being two thirds of the
/// columns, make clusters of changes, and hardly a sound would last for two frames.
fn cepstra(samples: &[i16], frames: usize) -> Rows {
    let mut plain = mfcc::<NUM_CEPSTRA>(samples);
    let mut mean = [0f64; NUM_CEPSTRA];
    for cepstrum in &plain {
        mean.iter_mut().zip(cepstrum).for_each(|(sum, value)| *sum += f64::from(*value) / plain.len() as f64);
    }
    for cepstrum in &mut plain {
        cepstrum.iter_mut().zip(mean).for_each(|(value, mean)| *value -= mean as f32);
    }
    let first = differences(&plain);
    let second = differences(&first);
    let last = plain.len().saturating_sub(1);
    let mut values = Vec::with_capacity(frames * FEATURES);
    for frame in 0..frames {
        // The sound of the last frame may end before its fourth cepstrum does.
        let from = (frame * FRAMES_PER_ROW).min(last);
        let part = from..((frame + 1) * FRAMES_PER_ROW).min(plain.len()).max(from + 1);
        for cepstra in [&plain, &first, &second] {
            let part = &cepstra[part.clone()];
            values.extend((0..NUM_CEPSTRA).map(|k| part.iter().map(|c| c[k]).sum::<f32>() / part.len() as f32));
        }
    }
    Rows { width: FEATURES, values }
}

/// Slopes of the straight lines through five frames each; at the ends the first and the last count several times.
///
/// # Source
/// torchaudio `compute_deltas` with its default window of 5, which AV-HuBERT's `dump_mfcc_feature.py` calls.
fn differences(cepstra: &[[f32; NUM_CEPSTRA]]) -> Vec<[f32; NUM_CEPSTRA]> {
    let weight: usize = (1..=REACH).map(|k| 2 * k * k).sum();
    let last = cepstra.len().saturating_sub(1);
    let slope = |at: usize| {
        std::array::from_fn(|i| {
            let step = |k: usize| k as f32 * (cepstra[(at + k).min(last)][i] - cepstra[at.saturating_sub(k)][i]);
            (1..=REACH).map(step).sum::<f32>() / weight as f32
        })
    };
    (0..cepstra.len()).map(slope).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tone(frames: usize, hz: f32, level: f32) -> Vec<i16> {
        (0..frames * 640).map(|i| ((i as f32 * hz * std::f32::consts::TAU / 16_000.0).sin() * level) as i16).collect()
    }

    #[test]
    fn differences_are_slopes() {
        let line: Vec<[f32; NUM_CEPSTRA]> = (0..8).map(|t| [3.0 * t as f32; NUM_CEPSTRA]).collect();
        let slopes = differences(&line);
        assert_eq!(slopes.len(), 8);
        assert!((2..6).all(|t| (slopes[t][4] - 3.0).abs() < 1e-6));
        // (1 * 3 + 2 * 6) / 10 with the first frame for those before it.
        assert!((slopes[0][0] - 1.5).abs() < 1e-6);
        assert!(differences(&[[2.0; NUM_CEPSTRA]; 3]).as_flattened().iter().all(|slope| *slope == 0.0));
    }

    #[test]
    fn every_frame_has_a_row_whatever_the_length_of_the_sound() {
        for (samples, frames) in [(0, 2), (300, 1), (640 * 5, 5), (640 * 3, 5)] {
            let rows = cepstra(&vec![1000; samples], frames);
            assert_eq!((rows.len(), rows.width), (frames, FEATURES));
            assert!(rows.values.iter().all(|value| value.is_finite()));
        }
    }

    #[test]
    fn loudness_and_other_constants_of_a_clip_are_taken_away() {
        let (loud, quiet) = (cepstra(&tone(10, 440.0, 8000.0), 10), cepstra(&tone(10, 440.0, 4000.0), 10));
        // The first cepstrum is the logarithm of the energy: four times as much.
        for (a, b) in loud.iter().zip(quiet.iter()) {
            assert!((a[0] - b[0]).abs() < 0.05, "{} {}", a[0], b[0]);
        }
        let mut changing = tone(10, 440.0, 8000.0);
        changing[3200..].copy_from_slice(&tone(5, 1700.0, 8000.0));
        let rows = cepstra(&changing, 10);
        let far = |a: usize, b: usize| -> f32 {
            let rows: Vec<&[f32]> = rows.iter().collect();
            rows[a][..NUM_CEPSTRA].iter().zip(rows[b]).map(|(a, b)| (a - b).powi(2)).sum()
        };
        assert!(far(2, 7) > 100.0 * far(1, 2).max(far(7, 8)), "{} {} {}", far(2, 7), far(1, 2), far(7, 8));
    }
}
