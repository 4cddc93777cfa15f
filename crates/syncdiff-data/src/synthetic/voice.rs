//! What a drawn speaker says: espeak-ng where it is installed, syllables of our own otherwise.

use std::path::Path;

use syncdiff_media::process::{Limits, run};
use syncdiff_media::time::SPEECH_RATE;

use crate::error::DataError;
use crate::rng::Draws;
use crate::synthetic::looks::Looks;

/// Who speaks in drawn clips.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Voice {
    /// espeak-ng if it is installed, tones otherwise.
    #[default]
    Auto,
    /// Vowel-like and consonant-like tones; the same on every machine.
    Tones,
    /// espeak-ng.
    Espeak,
}

/// Speech with its words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Utterance {
    /// 16 kHz mono.
    pub(super) samples: Vec<i16>,
    pub(super) words: String,
}

const ESPEAK: &str = "espeak-ng";
const PURPOSE: [u8; 8] = *b"speech\0\0";
/// Loudest sample.
const PEAK: f32 = 14_000.0;

impl Voice {
    /// What [`Voice::Auto`] means on this machine.
    ///
    /// # Errors
    /// [`DataError::Media`] if espeak-ng is asked for and missing.
    pub(super) fn resolve(self) -> Result<Voice, DataError> {
        match (self, run(Path::new(ESPEAK), ["--version"], &Limits::default())) {
            (Voice::Tones, _) | (Voice::Auto, Err(_)) => Ok(Voice::Tones),
            (_, Ok(_)) => Ok(Voice::Espeak),
            (Voice::Espeak, Err(error)) => Err(error.into()),
        }
    }

    /// The name of a resolved voice; two versions of espeak-ng may sound differently.
    pub(super) fn name(self) -> Result<String, DataError> {
        match self {
            Voice::Espeak => {
                let told = run(Path::new(ESPEAK), ["--version"], &Limits::default())?;
                let told = String::from_utf8_lossy(&told.stdout);
                Ok(told.split("Data at").next().unwrap_or_default().trim().replace(' ', "_"))
            }
            _ => Ok("tones".into()),
        }
    }

    /// `num_samples` of speech of a speaker by a resolved voice; which words is a matter of seed and clip.
    pub(super) fn speak(self, looks: &Looks, seed: u64, clip: u64, num_samples: usize) -> Result<Utterance, DataError> {
        let mut draws = Draws::new(seed, 0, clip, PURPOSE);
        match self {
            Voice::Espeak => espeak(looks, &mut draws, num_samples),
            _ => Ok(tones(looks, &mut draws, num_samples)),
        }
    }
}

fn pick<'a>(draws: &mut Draws, list: &[&'a str]) -> &'a str {
    list[draws.below(list.len() as u64) as usize]
}

/// A sentence of everyday words with all sounds in it, said by espeak-ng.
fn espeak(looks: &Looks, draws: &mut Draws, num_samples: usize) -> Result<Utterance, DataError> {
    const WHO: [&str; 8] =
        ["my mother", "the baker", "every child", "a fox", "our boat", "the judge", "she", "whoever"];
    const DOES: [&str; 8] =
        ["put away", "often saw", "bought", "will change", "thought of", "may push", "usually made", "jumped over"];
    const WHAT: [&str; 8] = [
        "five blue boxes",
        "the old bridge",
        "warm apple pie",
        "a heavy book",
        "some fresh air",
        "the right way",
        "zero food",
        "that large map",
    ];
    const WHEN: [&str; 6] = ["before noon", "this evening", "in early spring", "for a whole year", "now", "with joy"];
    let secs = num_samples as f64 / SPEECH_RATE as f64;
    let lead = 1200 + draws.below(2400) as usize;
    // About two and a half words a second, a sentence at least.
    let mut words: Vec<&str> = Vec::new();
    while words.is_empty() || (words.len() as f64) < 2.8 * secs {
        for list in [&WHO[..], &DOES, &WHAT, &WHEN] {
            words.extend(pick(draws, list).split(' '));
        }
    }
    // A speaker keeps the voice.
    let kind = looks.pitch_hz as u32;
    let voice = match looks.formants > 1.08 {
        true => format!("en-us+f{}", 1 + kind % 4),
        false => format!("en-us+m{}", 1 + kind % 7),
    };
    let (pitch, speed) = ((looks.pitch_hz / 4.0).clamp(15.0, 75.0) as u32, 150 + kind % 40);
    loop {
        let args = ["-v", &voice, "-p", &pitch.to_string(), "-s", &speed.to_string(), "--stdout", &words.join(" ")]
            .map(str::to_owned);
        let output = run(Path::new(ESPEAK), args, &Limits::default())?;
        let fail = || DataError::Internal { stage: ESPEAK, detail: format!("no WAVE came out: {}", output.stderr) };
        let (samples, rate) = parse(&output.stdout).ok_or_else(fail)?;
        let sound = resample(&samples, f64::from(rate));
        // Words that do not fit are not said, so that the transcript is exact.
        if lead + sound.len() <= num_samples || words.len() == 1 {
            let sound: Vec<f32> = std::iter::repeat_n(0.0, lead).chain(sound).collect();
            return Ok(Utterance { samples: level(&sound, num_samples), words: words.join(" ").to_uppercase() });
        }
        words.pop();
    }
}

/// Samples and rate of the mono 16-bit WAVE that espeak-ng writes to a pipe: its sizes are not to be believed.
fn parse(bytes: &[u8]) -> Option<(Vec<f32>, u32)> {
    let rate = u32::from_le_bytes(bytes.get(24..28)?.try_into().ok()?);
    let sound = bytes.get(..4).filter(|word| word == b"RIFF").and_then(|_| bytes.get(44..))?;
    let samples: Vec<f32> = sound.chunks_exact(2).map(|b| f32::from(i16::from_le_bytes([b[0], b[1]]))).collect();
    (!samples.is_empty() && (8000..=48_000).contains(&rate)).then_some((samples, rate))
}

/// To 16 kHz, by a windowed sinc that cuts below half of the lower rate.
fn resample(samples: &[f32], rate: f64) -> Vec<f32> {
    const REACH: f64 = 16.0;
    let ratio = rate / SPEECH_RATE as f64;
    let cut = 0.94 / ratio.max(1.0);
    let count = (samples.len() as f64 / ratio) as usize;
    (0..count)
        .map(|at| {
            let centre = at as f64 * ratio;
            let (from, to) = ((centre - REACH / cut).ceil().max(0.0), (centre + REACH / cut).floor());
            let mut sum = 0.0;
            for i in from as usize..=(to as usize).min(samples.len() - 1) {
                let t = (i as f64 - centre) * cut;
                let sinc =
                    if t.abs() < 1e-9 { 1.0 } else { (std::f64::consts::PI * t).sin() / (std::f64::consts::PI * t) };
                let window = 0.5 + 0.5 * (std::f64::consts::PI * t / REACH).cos();
                sum += f64::from(samples[i]) * sinc * window * cut;
            }
            sum as f32
        })
        .collect()
}

/// Cut or padded to length, the loudest sample at [`PEAK`].
fn level(sound: &[f32], num_samples: usize) -> Vec<i16> {
    let kept = &sound[..sound.len().min(num_samples)];
    let peak = kept.iter().fold(1e-9f32, |peak, v| peak.max(v.abs()));
    let mut samples: Vec<i16> = kept.iter().map(|v| (v / peak * PEAK) as i16).collect();
    // The end of a cut word fades away.
    let fade = samples.len().min(320);
    let start = samples.len() - fade;
    for (k, sample) in samples[start..].iter_mut().enumerate() {
        *sample = (f32::from(*sample) * (1.0 - k as f32 / fade as f32)) as i16;
    }
    samples.resize(num_samples, 0);
    samples
}

/// Name and first three formants of a man's vowels, in hertz.
const VOWELS: [(&str, [f32; 3]); 6] = [
    ("A", [730.0, 1090.0, 2440.0]),
    ("E", [530.0, 1840.0, 2480.0]),
    ("I", [270.0, 2290.0, 3010.0]),
    ("O", [570.0, 840.0, 2410.0]),
    ("U", [300.0, 870.0, 2240.0]),
    ("", [500.0, 1500.0, 2500.0]),
];

/// Kinds of consonants: name, length in milliseconds, loudness of voice and of noise, and the noise's middle in hertz.
const CONSONANTS: [(&str, f32, f32, f32, f32); 7] = [
    ("B", 70.0, 0.0, 0.0, 800.0),
    ("D", 60.0, 0.0, 0.02, 2600.0),
    ("M", 90.0, 0.22, 0.0, 800.0),
    ("S", 120.0, 0.0, 0.16, 5200.0),
    ("SH", 120.0, 0.0, 0.16, 2800.0),
    ("V", 80.0, 0.18, 0.05, 4000.0),
    ("", 20.0, 0.1, 0.0, 800.0),
];

/// What the sound tends to, for some samples.
struct Target {
    num_samples: usize,
    voice: f32,
    noise: f32,
    noise_hz: f32,
    formants: [f32; 3],
}

/// Syllables of a consonant and a vowel with pauses: a buzz and a hiss through resonators that glide.
fn tones(looks: &Looks, draws: &mut Draws, num_samples: usize) -> Utterance {
    let (targets, words) = syllables(looks, draws, num_samples);
    let rate = SPEECH_RATE as f32;
    let mut sound = Vec::with_capacity(num_samples);
    let (mut voice, mut noise, mut noise_hz, mut formants) = (0.0f32, 0.0f32, 2000.0f32, VOWELS[5].1);
    let (mut phase, mut drift) = (0.0f32, 0.0f32);
    let mut resonators = [Resonator::default(); 4];
    for target in &targets {
        for _ in 0..target.num_samples {
            // Ten milliseconds to go most of the way; mouths are no faster.
            let toward = |value: &mut f32, goal: f32, step: f32| *value += (goal - *value) * step;
            toward(&mut voice, target.voice, 0.006);
            toward(&mut noise, target.noise, 0.010);
            toward(&mut noise_hz, target.noise_hz, 0.010);
            for (formant, goal) in formants.iter_mut().zip(target.formants) {
                toward(formant, goal, 0.004);
            }
            if sound.len() % 40 == 0 {
                for (resonator, hz) in resonators.iter_mut().zip(formants) {
                    resonator.tune(hz, 60.0 + 0.05 * hz, rate);
                }
                resonators[3].tune(noise_hz, 900.0, rate);
                toward(&mut drift, draws.signed_unit() as f32, 0.02);
            }
            let fall = 1.12 - 0.24 * sound.len() as f32 / num_samples.max(1) as f32;
            phase = (phase + looks.pitch_hz * (fall + 0.1 * drift) / rate).fract();
            // A glottis: slowly open, quickly shut.
            let buzz = if phase < 0.7 { phase / 0.7 } else { 1.0 - (phase - 0.7) / 0.3 } - 0.5;
            let hiss = draws.signed_unit() as f32;
            let source = buzz * voice;
            let mut out = resonators[3].pass(hiss * noise);
            for (resonator, share) in resonators[..3].iter_mut().zip([1.0, 0.6, 0.3]) {
                out += share * resonator.pass(source);
            }
            sound.push(out + 2e-4 * hiss);
        }
    }
    Utterance { samples: level(&sound, num_samples), words }
}

fn syllables(looks: &Looks, draws: &mut Draws, num_samples_of_clip: usize) -> (Vec<Target>, String) {
    let millis = |ms: f32| (ms * SPEECH_RATE as f32 / 1000.0) as usize;
    let pause =
        |ms: f32| Target { num_samples: millis(ms), voice: 0.0, noise: 0.0, noise_hz: 2000.0, formants: VOWELS[5].1 };
    let mut targets = vec![pause(80.0 + 120.0 * draws.unit() as f32)];
    let mut words = String::new();
    let length = |targets: &[Target]| targets.iter().map(|target| target.num_samples).sum::<usize>();
    while length(&targets) < num_samples_of_clip {
        for _ in 0..1 + draws.below(4) {
            let (consonant, ms, voice, noise, noise_hz) = CONSONANTS[draws.below(CONSONANTS.len() as u64) as usize];
            let (vowel, formants) = VOWELS[draws.below(5) as usize];
            let formants = formants.map(|hz| hz * looks.formants);
            let closed = if consonant == "B" || consonant == "M" { [250.0, 900.0, 2200.0] } else { formants };
            targets.push(Target { num_samples: millis(ms), voice, noise, noise_hz, formants: closed });
            if consonant == "D" || consonant == "B" {
                targets.push(Target { num_samples: millis(12.0), voice: 0.1, noise: 0.25, noise_hz, formants: closed });
            }
            let num_samples = millis(110.0 + 130.0 * draws.unit() as f32);
            let voice = 0.7 + 0.3 * draws.unit() as f32;
            targets.push(Target { num_samples, voice, noise: 0.0, noise_hz: 2000.0, formants });
            // What is cut off is not written down.
            if length(&targets) <= num_samples_of_clip {
                words.push_str(consonant);
                words.push_str(vowel);
            }
        }
        targets.push(pause(if draws.below(4) == 0 { 320.0 } else { 90.0 }));
        words.push(' ');
    }
    (targets, words.trim_end().to_owned())
}

/// A two-pole filter that rings at one frequency.
#[derive(Clone, Copy, Default)]
struct Resonator {
    gain: f32,
    near: f32,
    far: f32,
    last: [f32; 2],
}

impl Resonator {
    fn tune(&mut self, hz: f32, bandwidth: f32, rate: f32) {
        let radius = (-std::f32::consts::PI * bandwidth / rate).exp();
        let angle = std::f32::consts::TAU * hz.min(0.45 * rate) / rate;
        self.near = 2.0 * radius * angle.cos();
        self.far = -radius * radius;
        self.gain = (1.0 - radius) * (1.0 + radius * radius - 2.0 * radius * (2.0 * angle).cos()).sqrt();
    }

    fn pass(&mut self, value: f32) -> f32 {
        let out = self.gain * value + self.near * self.last[0] + self.far * self.last[1];
        self.last = [out, self.last[0]];
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tones_are_speech_of_the_asked_length_and_differ_by_clip_only() {
        let looks = Looks::of(1, 0, 192);
        let say = |seed, clip| Voice::Tones.speak(&looks, seed, clip, 32_000).unwrap();
        let one = say(1, 2);
        assert_eq!(one, say(1, 2));
        assert_ne!(one.samples, say(1, 3).samples);
        assert_ne!(one.words, say(2, 2).words);
        assert_eq!(one.samples.len(), 32_000);
        let peak = one.samples.iter().map(|v| v.unsigned_abs()).max().unwrap();
        assert!((13_000..15_000).contains(&peak), "{peak}");
        // Loud and soft parts, as speech has them.
        let loudness: Vec<f64> = one
            .samples
            .chunks(640)
            .map(|part| (part.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>() / 640.0).sqrt())
            .collect();
        let quiet = loudness.iter().filter(|v| **v < 300.0).count();
        let loud = loudness.iter().filter(|v| **v > 1500.0).count();
        assert!(quiet >= 3 && loud >= 15, "{quiet} quiet and {loud} loud of {}", loudness.len());
    }

    #[test]
    fn espeak_says_only_what_fits() {
        let Ok(Voice::Espeak) = Voice::Auto.resolve() else {
            println!("skipped: espeak-ng absent");
            return;
        };
        let looks = Looks::of(1, 0, 192);
        let long = Voice::Espeak.speak(&looks, 1, 2, 48_000).unwrap();
        let short = Voice::Espeak.speak(&looks, 1, 2, 24_000).unwrap();
        assert_eq!((long.samples.len(), short.samples.len()), (48_000, 24_000));
        assert!(long.words.starts_with(&short.words) && short.words.len() > 3, "{} {}", long.words, short.words);
        assert!(long.samples.iter().filter(|v| v.unsigned_abs() > 1000).count() > 8000);
    }

    #[test]
    fn resampling_keeps_a_tone_and_drops_what_is_too_high() {
        let tone = |hz: f64, rate: f64| -> Vec<f32> {
            (0..4410).map(|i| (std::f64::consts::TAU * hz * i as f64 / rate).sin() as f32).collect()
        };
        let kept = resample(&tone(1000.0, 22_050.0), 22_050.0);
        let expected = tone(1000.0, 16_000.0);
        assert_eq!(kept.len(), 3200);
        for i in 100..3000 {
            assert!((kept[i] - expected[i]).abs() < 0.01, "{i}: {} {}", kept[i], expected[i]);
        }
        let dropped = resample(&tone(9500.0, 22_050.0), 22_050.0);
        assert!(dropped[100..3000].iter().all(|v| v.abs() < 0.02));
    }
}
