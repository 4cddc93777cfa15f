//! Where the speech is silent: an energy gate with hysteresis on the 16 kHz copy.
//!
//! The gate works on model frames (40 ms). It opens at a level that follows the recording: between its quiet tenth and
//! its loud twentieth, so that a noisy room is not taken for speech; short pauses inside of speech never close it.

use syncdiff_media::Plan;
use syncdiff_media::time::SAMPLES_PER_MODEL_FRAME;

use crate::timeline::num_model_frames;

/// Below this level nothing is speech, in dB of full scale.
const FLOOR_DB: f32 = -60.0;
/// The gate opens at most this far below the loud frames.
const OPEN_BELOW_LOUD_DB: f32 = 30.0;
/// The gate opens at least this far below the loud frames, whatever the noise.
const OPEN_NEAR_LOUD_DB: f32 = 12.0;
/// The gate opens this far above the quiet frames.
const OPEN_ABOVE_QUIET_DB: f32 = 6.0;
/// The gate closes this far below where it opens.
const HYSTERESIS_DB: f32 = 4.0;
/// A shorter pause belongs to the speech: closures of stops take up to 150 ms.
const MIN_SILENCE_FRAMES: usize = 8;
/// Speech is taken to begin and end so many frames further out: the mouth moves before and after the sound.
const GUARD_FRAMES: usize = 2;

/// For each model frame of an output: is there speech?
pub fn of_plan(samples: &[i16], plan: &Plan) -> Vec<bool> {
    speech_frames(samples, num_model_frames(plan))
}

/// For each model frame: is there speech?
///
/// `num_frames` may be more than the samples cover; beyond them there is silence.
pub fn speech_frames(samples: &[i16], num_frames: usize) -> Vec<bool> {
    let frame = SAMPLES_PER_MODEL_FRAME as usize;
    let level = |index: usize| {
        let start = (index * frame).min(samples.len());
        level_db(&samples[start..(start + frame).min(samples.len())])
    };
    let levels: Vec<f32> = (0..num_frames).map(level).collect();
    let mut sorted: Vec<f32> = levels.iter().copied().take(samples.len().div_ceil(frame).max(1)).collect();
    if sorted.is_empty() {
        return Vec::new();
    }
    sorted.sort_by(f32::total_cmp);
    let at = |part: f32| sorted[((sorted.len() - 1) as f32 * part) as usize];
    let (quiet, loud) = (at(0.10), at(0.95));
    let open = (loud - OPEN_BELOW_LOUD_DB).max((quiet + OPEN_ABOVE_QUIET_DB).min(loud - OPEN_NEAR_LOUD_DB));
    let open = open.max(FLOOR_DB);
    let mut speaking = false;
    let mut speech: Vec<bool> = levels
        .iter()
        .map(|level| {
            speaking = *level >= if speaking { open - HYSTERESIS_DB } else { open };
            speaking
        })
        .collect();
    guard(&mut speech);
    fill_short_pauses(&mut speech);
    speech
}

/// Level of some samples in dB of full scale.
fn level_db(samples: &[i16]) -> f32 {
    if samples.is_empty() {
        return f32::NEG_INFINITY;
    }
    let energy: f64 = samples.iter().map(|sample| f64::from(*sample).powi(2)).sum::<f64>() / samples.len() as f64;
    (10.0 * (energy / (32768.0 * 32768.0)).log10()) as f32
}

/// Lets speech begin earlier and end later.
fn guard(speech: &mut [bool]) {
    let inner = speech.to_vec();
    for (index, flag) in speech.iter_mut().enumerate() {
        let from = index.saturating_sub(GUARD_FRAMES);
        let to = (index + GUARD_FRAMES + 1).min(inner.len());
        *flag = inner[from..to].contains(&true);
    }
}

/// Turns pauses that are too short into speech; those at the begin and end stay.
fn fill_short_pauses(speech: &mut [bool]) {
    let mut last = None;
    for index in 0..speech.len() {
        if !speech[index] {
            continue;
        }
        if let Some(last) = last
            && index - last - 1 < MIN_SILENCE_FRAMES
        {
            speech[last + 1..index].fill(true);
        }
        last = Some(index);
    }
}

/// Weight of the generated mouth at each model frame: 1 in speech, falling to 0 within `fade_frames` of silence.
pub fn opacity(speech: &[bool], fade_frames: usize) -> Vec<f32> {
    // Distance to the nearest speech on each side, the smaller of both.
    let mut distance = vec![usize::MAX; speech.len()];
    let mut sweep = |order: &mut dyn Iterator<Item = usize>| {
        let mut since = usize::MAX;
        for index in order {
            since = if speech[index] { 0 } else { since.saturating_add(1) };
            distance[index] = distance[index].min(since);
        }
    };
    sweep(&mut (0..speech.len()));
    sweep(&mut (0..speech.len()).rev());
    let weight = |far: usize| {
        if far > fade_frames { 0.0 } else { 1.0 - far as f32 / (fade_frames + 1) as f32 }
    };
    distance.into_iter().map(weight).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Frames of a 200 Hz tone at a level in dB of full scale.
    fn tone(levels: &[f32]) -> Vec<i16> {
        let sample = |index: usize| {
            let amplitude = 32768.0 * 2f32.sqrt() * 10f32.powf(levels[index / 640] / 20.0);
            (amplitude * (index as f32 * std::f32::consts::TAU * 200.0 / 16_000.0).sin()) as i16
        };
        (0..levels.len() * 640).map(sample).collect()
    }

    #[test]
    fn speech_silence_speech_is_found_with_its_guard() {
        let mut levels = vec![-20.0; 20];
        levels.extend([-70.0; 30]);
        levels.extend([-25.0; 20]);
        let speech = speech_frames(&tone(&levels), 80);
        let expected = |index: usize| index < 22 || (48..72).contains(&index);
        assert_eq!(speech, (0..80).map(expected).collect::<Vec<_>>());
    }

    #[test]
    fn a_noisy_room_is_still_silence_and_short_pauses_are_not() {
        let mut levels = vec![-20.0; 30];
        levels.extend([-40.0; 20]);
        levels.extend([-20.0; 20]);
        levels.extend([-40.0; 9]);
        levels.extend([-20.0; 10]);
        let speech = speech_frames(&tone(&levels), levels.len());
        assert!(speech[..30].iter().all(|on| *on) && !speech[33..47].iter().any(|on| *on));
        assert!(speech[50..].iter().all(|on| *on), "{speech:?}");
    }

    #[test]
    fn pure_silence_holds_no_speech_and_even_speech_no_silence() {
        assert!(!speech_frames(&[0; 6400], 10).contains(&true));
        assert!(!speech_frames(&tone(&[-20.0; 30]), 30).contains(&false));
        assert!(speech_frames(&[], 0).is_empty());
        assert_eq!(speech_frames(&[], 2), [false, false]);
    }

    #[test]
    fn opacity_falls_over_the_fade_and_no_further() {
        let speech = [true, false, false, false, false, false, false, false, false, true];
        assert_eq!(opacity(&speech, 3), [1.0, 0.75, 0.5, 0.25, 0.0, 0.0, 0.25, 0.5, 0.75, 1.0]);
        assert_eq!(opacity(&[false; 3], 3), [0.0; 3]);
    }
}
