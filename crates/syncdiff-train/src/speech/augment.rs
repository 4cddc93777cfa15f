//! Changes of the sound of a training clip: another microphone, another voice, another pace.
//!
//! An hour of speech has few voices. Bands moved along the frequency axis stand for vocal tracts of other lengths
//! (Jaitly and Hinton 2013); a change of pace moves pitch, formants and lips together.

use super::{LIP_VALUES, SpeechClip};
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use syncdiff_model::audio::{Bands, FEATURES_PER_ROW, NUM_BANDS, log_filterbank, normalise, speech_rows, stack};

/// How much the sound of training clips is changed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SpeechAugmentation {
    /// Share of clips with white noise at a random level, 5 to 35 dB below the speech.
    pub noise: f64,
    /// Largest tilt and bend of the log bands: a random smooth equaliser.
    pub equaliser: f32,
    /// Largest relative move of the bands along the frequency axis; of the filter bank alone.
    pub warp: f32,
    /// Largest relative change of pace, of sound and lips together.
    pub speed: f32,
}

/// Weight of the sample before, in a waveform's tilt: up to 14 dB between the lowest and the highest frequency.
const LARGEST_TILT: f32 = 0.67;

/// Features of an utterance as it is, [frames * features].
pub(super) fn plain_features(samples: &[i16], frames: usize) -> Vec<f32> {
    speech_rows(samples, frames).into_iter().flatten().collect()
}

impl SpeechAugmentation {
    /// Changes nothing.
    pub const NONE: Self = Self { noise: 0.0, equaliser: 0.0, warp: 0.0, speed: 0.0 };

    /// Filter bank of a changed utterance.
    pub(crate) fn bands(&self, samples: &[i16], random: &mut ChaCha8Rng) -> Vec<Bands> {
        let mut bands = if random.random_bool(self.noise) {
            log_filterbank(&with_noise(samples, random))
        } else {
            log_filterbank(samples)
        };
        let mut within = |most: f32| random.random_range(-1.0..1.0f32) * most;
        let (tilt, bend, warp) = (within(1.5 * self.equaliser), within(self.equaliser), 1.0 + within(self.warp));
        let phase = random.random_range(0.0..6.3f32);
        for frame in &mut bands {
            let before = *frame;
            for (i, band) in frame.iter_mut().enumerate() {
                let x = i as f32 / (NUM_BANDS - 1) as f32;
                *band = between(&before, i as f32 * warp) + tilt * (x - 0.5) + bend * (6.3 * x + phase).sin();
            }
        }
        bands
    }

    /// Features of a changed utterance, [frames * features].
    pub(crate) fn features(&self, samples: &[i16], frames: usize, random: &mut ChaCha8Rng) -> Vec<f32> {
        let mut rows = stack(&self.bands(samples, random));
        rows.iter_mut().for_each(normalise);
        rows.resize(frames, [0.0; FEATURES_PER_ROW]);
        rows.into_iter().flatten().collect()
    }

    /// A changed utterance as a waveform: noise, and a tilt of the spectrum in place of the equaliser.
    pub(crate) fn waveform(&self, samples: &[i16], random: &mut ChaCha8Rng) -> Vec<i16> {
        let noisy = random.random_bool(self.noise);
        let samples = if noisy { Cow::Owned(with_noise(samples, random)) } else { Cow::Borrowed(samples) };
        let tilt = random.random_range(-1.0..1.0f32) * LARGEST_TILT * self.equaliser.min(1.0);
        let before = std::iter::once(&0).chain(samples.iter());
        let tilted = before.zip(samples.iter()).map(|(a, b)| f32::from(*b) + tilt * f32::from(*a));
        tilted.map(|sample| sample.clamp(-32768.0, 32767.0) as i16).collect()
    }

    /// The clip at another pace.
    pub(super) fn change_speed<'a>(&self, clip: &'a SpeechClip, random: &mut ChaCha8Rng) -> Cow<'a, SpeechClip> {
        if self.speed == 0.0 {
            return Cow::Borrowed(clip);
        }
        let speed = 1.0 + random.random_range(-1.0..1.0f32) * self.speed;
        let length = |n: usize| ((n.max(1) - 1) as f32 / speed) as usize + 1;
        let samples = (0..length(clip.samples.len())).map(|i| {
            let (k, next, share) = split(i as f32 * speed, clip.samples.len());
            (f32::from(clip.samples[k]) * (1.0 - share) + f32::from(clip.samples[next]) * share) as i16
        });
        let (mut shapes, mut valid) = (Vec::new(), Vec::new());
        for t in 0..length(clip.shapes.len()) {
            let (k, next, share) = split(t as f32 * speed, clip.shapes.len());
            let mut shape = [0f32; LIP_VALUES];
            for (v, (a, b)) in shape.iter_mut().zip(clip.shapes[k].iter().zip(&clip.shapes[next])) {
                *v = a * (1.0 - share) + b * share;
            }
            shapes.push(shape);
            valid.push(clip.valid[k] && clip.valid[next]);
        }
        Cow::Owned(SpeechClip { samples: samples.collect(), shapes, valid })
    }
}

/// Neighbours of a position in a list, and the share of the second.
fn split(at: f32, len: usize) -> (usize, usize, f32) {
    let k = (at as usize).min(len - 1);
    (k, (k + 1).min(len - 1), at.fract())
}

fn between(bands: &Bands, at: f32) -> f32 {
    let (k, next, share) = split(at, NUM_BANDS);
    bands[k] * (1.0 - share) + bands[next] * share
}

fn with_noise(samples: &[i16], random: &mut ChaCha8Rng) -> Vec<i16> {
    let power = samples.iter().map(|s| f64::from(*s).powi(2)).sum::<f64>() / samples.len().max(1) as f64;
    let rms = (power.sqrt() * 10f64.powf(-random.random_range(5.0..35.0) / 20.0)) as f32;
    // The sum of two uniform numbers is close enough to a normal one; its deviation is 0.41.
    let mut noise = || (random.random::<f32>() + random.random::<f32>() - 1.0) * rms / 0.41;
    samples.iter().map(|s| (f32::from(*s) + noise()).clamp(-32768.0, 32767.0) as i16).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    const ALL: SpeechAugmentation = SpeechAugmentation { noise: 0.5, equaliser: 1.0, warp: 0.2, speed: 0.2 };

    fn tone() -> Vec<i16> {
        (0..6400).map(|i| ((i as f32 * 0.2).sin() * 4000.0) as i16).collect()
    }

    #[test]
    fn features_change_but_not_their_number() {
        let (samples, mut random) = (tone(), ChaCha8Rng::seed_from_u64(1));
        let plain = plain_features(&samples, 10);
        let changed = ALL.features(&samples, 10, &mut random);
        assert_eq!((plain.len(), changed.len()), (10 * FEATURES_PER_ROW, 10 * FEATURES_PER_ROW));
        assert!(changed.iter().all(|v| v.is_finite()) && changed != plain);
        assert_eq!(SpeechAugmentation::NONE.features(&samples, 10, &mut random), plain);
    }

    #[test]
    fn a_waveform_changes_but_not_its_length() {
        let (samples, mut random) = (tone(), ChaCha8Rng::seed_from_u64(2));
        let changed = ALL.waveform(&samples, &mut random);
        assert!(changed.len() == samples.len() && changed != samples);
        assert_eq!(SpeechAugmentation::NONE.waveform(&samples, &mut random), samples);
    }

    #[test]
    fn sound_and_lips_change_pace_together() {
        let shapes = (0..10).map(|t| [t as f32 * 0.002; LIP_VALUES]).collect();
        let clip = SpeechClip::new(tone(), shapes, vec![true; 10]);
        let mut random = ChaCha8Rng::seed_from_u64(3);
        let lengths: Vec<_> = (0..20)
            .map(|_| {
                let changed = ALL.change_speed(&clip, &mut random);
                assert!(changed.samples.len().abs_diff(changed.shapes.len() * 640) <= 1300);
                // A straight line stays one, steeper or flatter.
                let step = changed.shapes[1][0] - changed.shapes[0][0];
                assert!((changed.shapes[5][0] - changed.shapes[0][0] - 5.0 * step).abs() < 1e-4);
                changed.shapes.len()
            })
            .collect();
        assert!(lengths.iter().any(|n| *n < 10) && lengths.iter().any(|n| *n > 10));
        assert_eq!(*SpeechAugmentation::NONE.change_speed(&clip, &mut random).samples, clip.samples);
    }
}
