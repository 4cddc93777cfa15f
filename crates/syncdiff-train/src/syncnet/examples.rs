//! One clip of a step: which windows, how they are cut and coloured, how they sound.

use super::SyncNetTraining;
use crate::error::{TrainError, TrainResult};
use crate::talk::{MAX_TRIES, TalkSource, TalkingClip, draw_clip};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::collections::BTreeMap;
use syncdiff_data::{ColourJitter, JitterRanges};
use syncdiff_model::audio::Bands;
use syncdiff_model::scorers::own_syncnet::{
    MOUTH_LEFT, MOUTH_SIDE, MOUTH_SIZE, MOUTH_TOP, WINDOW_FRAMES, padded, sound_bands,
};

/// How the mouths of one clip are cut: all alike, as cameras do.
#[derive(Clone, Copy, Debug, PartialEq)]
struct View {
    /// Move of the window in its own pixels.
    shift: [f32; 2],
    /// Size of the window relative to the normal one.
    zoom: f32,
    mirrored: bool,
}

pub(super) struct Example {
    clip: TalkingClip,
    /// First frames of the windows, ascending.
    starts: Vec<usize>,
    view: View,
    colour: ColourJitter,
    /// The whole clip's sound.
    pub(super) bands: Vec<Bands>,
}

/// Draws a clip that is long enough, and its windows.
pub(super) fn draw(clips: &dyn TalkSource, settings: &SyncNetTraining, seed: u64) -> TrainResult<Example> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let (count, distance) = (settings.windows_per_clip, settings.least_distance);
    let needed = (count - 1) * distance + 1;
    let drawn = draw_clip(clips, WINDOW_FRAMES, needed, &mut random)?;
    let (clip, all) = drawn.ok_or_else(|| TrainError::Parameter {
        name: "syncnet.windows_per_clip",
        value: count.to_string(),
        allowed: format!("of {MAX_TRIES} clips none has so many windows {distance} frames apart: take fewer"),
    })?;
    // Any choice of windows far enough apart is as likely as any other.
    let mut places: Vec<usize> = (0..count).map(|_| random.random_range(0..=all.len() - needed)).collect();
    places.sort_unstable();
    let starts = places.iter().enumerate().map(|(k, place)| all[place + k * distance]).collect();
    let within = |random: &mut ChaCha8Rng, most: f32| random.random_range(-1.0..=1.0f32) * most;
    let view = View {
        shift: [within(&mut random, settings.shift), within(&mut random, settings.shift)],
        zoom: 1.0 + within(&mut random, settings.zoom),
        mirrored: random.random(),
    };
    let strength = settings.colour;
    let usual = JitterRanges::default();
    let ranges = JitterRanges {
        brightness: usual.brightness * strength,
        contrast: usual.contrast * strength,
        gamma: usual.gamma * strength,
        saturation: usual.saturation * strength,
    };
    let colour = ColourJitter::draw(&ranges, seed, 0, 0);
    let frames = clip.clip.num_frames();
    let bands = sound_bands(settings.augment.bands(&padded(clip.clip.speech()), &mut random), frames);
    Ok(Example { clip, starts, view, colour, bands })
}

impl Example {
    /// First frames of sound of the windows.
    pub(super) fn heard(&self) -> impl Iterator<Item = usize> + '_ {
        self.starts.iter().map(|start| self.clip.heard(*start).expect("windows are chosen so"))
    }

    /// Appends the pixels of the windows: [windows, 15, 64, 64] in [-1, 1].
    pub(super) fn extend_pixels(&self, pixels: &mut Vec<f32>) {
        let mut frames: BTreeMap<usize, Vec<f32>> = BTreeMap::new();
        for start in &self.starts {
            for frame in *start..start + WINDOW_FRAMES {
                let planes = frames.entry(frame).or_insert_with(|| {
                    let mut mouth = cut(self.clip.clip.frame(frame), self.clip.clip.crop_size(), self.view);
                    self.colour.apply(&mut mouth);
                    (0..3).flat_map(|c| mouth.iter().skip(c).step_by(3)).map(|v| f32::from(*v) / 127.5 - 1.0).collect()
                });
                pixels.extend_from_slice(planes);
            }
        }
    }
}

/// The mouth of an aligned crop, bilinear: RGB, [64, 64, 3].
fn cut(crop: &[u8], side: usize, view: View) -> Vec<u8> {
    let step = (side as f64 * MOUTH_SIDE / MOUTH_SIZE as f64) as f32;
    let half = MOUTH_SIZE as f32 / 2.0;
    // Pixel centres lie at integers.
    let line = |from: f64, shift: f32| -> Vec<(usize, usize, f32)> {
        let centre = (side as f64 * (from + MOUTH_SIDE / 2.0)) as f32 - 0.5;
        let last = (side - 1) as f32;
        let at = |i: usize| {
            let x = (centre + ((i as f32 + 0.5 - half) * view.zoom + shift) * step).clamp(0.0, last);
            (x as usize, (x as usize + 1).min(side - 1), x.fract())
        };
        (0..MOUTH_SIZE).map(at).collect()
    };
    let (mut columns, lines) = (line(MOUTH_LEFT, view.shift[0]), line(MOUTH_TOP, view.shift[1]));
    if view.mirrored {
        columns.reverse();
    }
    let mut out = Vec::with_capacity(MOUTH_SIZE * MOUTH_SIZE * 3);
    for (top, bottom, down) in lines {
        for (left, right, across) in &columns {
            for c in 0..3 {
                let at = |y: usize, x: usize| f32::from(crop[(y * side + x) * 3 + c]);
                let upper = at(top, *left) * (1.0 - across) + at(top, *right) * across;
                let lower = at(bottom, *left) * (1.0 - across) + at(bottom, *right) * across;
                out.push((upper * (1.0 - down) + lower * down + 0.5) as u8);
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::Device;
    use syncdiff_model::generate::rgb_to_tensor;
    use syncdiff_model::scorers::own_syncnet::mouths;

    const PLAIN: View = View { shift: [0.0; 2], zoom: 1.0, mirrored: false };

    fn crop(side: usize) -> Vec<u8> {
        (0..side * side * 3).map(|i| ((i / 3 % side) + i / 3 / side + 10 * (i % 3)) as u8).collect()
    }

    #[test]
    fn an_unchanged_view_is_what_the_network_cuts_itself() {
        let crop = crop(128);
        let cut = cut(&crop, 128, PLAIN);
        let seen = mouths(rgb_to_tensor(&crop, 128, &Device::flex())).unwrap();
        let seen: Vec<f32> = seen.into_data().try_into_vec().unwrap();
        for (i, value) in seen.iter().enumerate() {
            let (c, at) = (i / MOUTH_SIZE.pow(2), i % MOUTH_SIZE.pow(2));
            assert!((f32::from(cut[at * 3 + c]) / 127.5 - 1.0 - value).abs() < 1e-5, "{i}");
        }
    }

    #[test]
    fn views_move_grow_and_mirror() {
        let crop = crop(128);
        let red = |view: View| -> Vec<u8> { cut(&crop, 128, view).into_iter().step_by(3).collect() };
        let plain = red(PLAIN);
        let moved = red(View { shift: [3.0, 1.0], ..PLAIN });
        assert!(moved.iter().zip(&plain).all(|(a, b)| *a == b + 4));
        let mirrored = red(View { mirrored: true, ..PLAIN });
        assert_eq!(mirrored[0], plain[63]);
        let wide = red(View { zoom: 1.5, ..PLAIN });
        assert!(wide[0] < plain[0] && wide[64 * 64 - 1] > plain[64 * 64 - 1]);
        // Beyond the crop its edge goes on.
        assert_eq!(cut(&crop, 128, View { shift: [500.0, 500.0], ..PLAIN })[0], crop[(128 * 128 - 1) * 3]);
    }
}
