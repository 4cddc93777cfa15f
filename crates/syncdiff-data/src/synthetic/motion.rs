//! How a drawn speaker moves: lips by the sound, the rest by slow waves and blinks.

use rustfft::FftPlanner;
use rustfft::num_complex::Complex;
use syncdiff_media::time::{MODEL_RATE, SAMPLES_PER_MODEL_FRAME, SPEECH_RATE};

use crate::rng::Draws;
use crate::synthetic::shape::{Pose, REST_MOUTH};

const HOP: usize = SAMPLES_PER_MODEL_FRAME as usize;
const PURPOSE: [u8; 8] = *b"motion\0\0";

/// Opening (0 to 1) and spread (-1 round, 1 wide) of the mouth for each frame: vowels open it by their loudness,
/// hisses do not; high formants spread it.
pub(super) fn mouth_motion(samples: &[i16], num_frames: usize) -> Vec<[f32; 2]> {
    let window = 2 * HOP;
    let fft = FftPlanner::<f64>::new().plan_fft_forward(window);
    let mut loud = Vec::with_capacity(num_frames);
    let mut bright = Vec::with_capacity(num_frames);
    for frame in 0..num_frames {
        let mut piece: Vec<Complex<f64>> = (0..window)
            .map(|k| {
                let sample = (frame * HOP + k).checked_sub(HOP).and_then(|at| samples.get(at)).copied().unwrap_or(0);
                let turn = std::f64::consts::TAU * k as f64 / (window - 1) as f64;
                Complex::new(f64::from(sample) / 32_768.0 * (0.5 - 0.5 * turn.cos()), 0.0)
            })
            .collect();
        fft.process(&mut piece);
        let power = |low: f64, high: f64| -> f64 {
            let hertz = |bin: usize| bin as f64 * SPEECH_RATE as f64 / window as f64;
            (0..=window / 2)
                .filter(|bin| hertz(*bin) > low && hertz(*bin) < high)
                .map(|bin| piece[bin].norm_sqr())
                .sum()
        };
        loud.push(power(150.0, 1600.0).sqrt());
        bright.push(((power(1600.0, 3500.0) + 1e-6) / (power(200.0, 900.0) + 1e-6)).ln());
    }
    let mut sorted = loud.clone();
    sorted.sort_by(f64::total_cmp);
    let full = sorted.get(sorted.len() * 92 / 100).copied().unwrap_or(0.0).max(1e-6);
    let opening: Vec<f64> =
        loud.iter().map(|v| (v / full).clamp(0.0, 1.0).powf(0.8)).map(|v| if v < 0.06 { 0.0 } else { v }).collect();
    let voiced: Vec<f64> = bright.iter().zip(&opening).filter(|(_, o)| **o > 0.1).map(|(b, _)| *b).collect();
    let count = voiced.len().max(1) as f64;
    let mean = voiced.iter().sum::<f64>() / count;
    let deviation = (voiced.iter().map(|b| (b - mean).powi(2)).sum::<f64>() / count).sqrt() + 1e-6;
    let spread: Vec<f64> = bright
        .iter()
        .zip(&opening)
        .map(|(b, o)| if *o > 0.1 { ((b - mean) / deviation).tanh() } else { 0.0 })
        .collect();
    let calm = |values: &[f64], at: usize| {
        let get = |i: Option<usize>| i.and_then(|i| values.get(i)).copied().unwrap_or(0.0);
        (0.2 * get(at.checked_sub(1)) + 0.6 * values[at] + 0.2 * get(Some(at + 1))) as f32
    };
    (0..num_frames).map(|at| [calm(&opening, at), calm(&spread, at)]).collect()
}

/// The poses of a clip that says this; the sway of the head is a matter of seed and clip.
pub(super) fn poses(samples: &[i16], num_frames: usize, seed: u64, clip: u64) -> Vec<Pose> {
    let mut draws = Draws::new(seed, 0, clip, PURPOSE);
    // Size, waves a second and start of the slow movements.
    let mut wave = |size: f32, hertz: f32| {
        let (size, hertz) = (size * (0.5 + 0.5 * draws.unit() as f32), hertz * (0.7 + 0.6 * draws.unit() as f32));
        let start = std::f32::consts::TAU * draws.unit() as f32;
        move |secs: f32| size * (std::f32::consts::TAU * hertz * secs + start).sin()
    };
    let (yaw, nod, pitch) = (wave(6.0, 0.25), wave(1.5, 0.8), wave(2.5, 0.5));
    let (roll, across, down) = (wave(2.0, 0.3), wave(0.030, 0.25), wave(0.012, 0.4));
    let mut blinks = Vec::new();
    let mut at = 0.4 + 2.0 * draws.unit() as f32;
    while at < num_frames as f32 / MODEL_RATE as f32 {
        blinks.push(at);
        at += 1.5 + 2.5 * draws.unit() as f32;
    }
    let motion = mouth_motion(samples, num_frames);
    let pose = |(frame, [opening, spread]): (usize, &[f32; 2])| {
        let secs = frame as f32 / MODEL_RATE as f32;
        let blink = blinks.iter().map(|at| (1.0 - ((secs - at).abs() - 0.02).max(0.0) / 0.12).max(0.0));
        Pose {
            yaw: yaw(secs).to_radians(),
            pitch: (pitch(secs) + nod(secs)).to_radians(),
            roll: roll(secs).to_radians(),
            shift: [across(secs), down(secs)],
            blink: blink.fold(0.0, f32::max),
            drop: 0.19 * opening,
            lift: 0.022 * opening,
            mouth: REST_MOUTH * (1.0 + 0.10 * spread),
        }
    };
    motion.iter().enumerate().map(pose).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vowels_open_the_mouth_and_hisses_and_silence_do_not() {
        let mut draws = Draws::new(1, 0, 0, *b"test....");
        // A second each of a low buzz, of a high hiss, and of silence.
        let mut samples: Vec<i16> = (0..16_000).map(|i| if i % 100 < 50 { 6000 } else { -6000 }).collect();
        let mut last = 0.0;
        samples.extend((0..16_000).map(|_| {
            let (now, before) = (draws.signed_unit() * 5000.0, last);
            last = now;
            (now - before) as i16
        }));
        samples.extend([0; 16_000]);
        let motion = mouth_motion(&samples, 75);
        let mean = |from: usize, to: usize| motion[from..to].iter().map(|m| m[0]).sum::<f32>() / (to - from) as f32;
        assert!(mean(2, 23) > 0.9, "{}", mean(2, 23));
        assert!(mean(28, 48) < 0.5 * mean(2, 23), "{}", mean(28, 48));
        assert_eq!(mean(53, 75), 0.0);
        let poses = poses(&samples, 75, 3, 4);
        assert!(poses[10].drop > 0.15 && poses[60].drop == 0.0);
        assert!(poses.iter().any(|pose| pose.blink > 0.9) && poses.iter().any(|pose| pose.blink == 0.0));
        assert!(poses.iter().all(|pose| pose.yaw.abs() < 0.12 && pose.pitch.abs() < 0.08));
    }
}
