//! One clip of a step: which windows, how they are cut and coloured, how they sound.

use super::SyncNetTraining;
use crate::error::{TrainError, TrainResult};
use crate::images::{Area, View};
use crate::talk::{MAX_TRIES, TalkSource, TalkingClip, draw_clip};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::collections::BTreeMap;
use syncdiff_data::{ColourJitter, JitterRanges};
use syncdiff_model::audio::Bands;
use syncdiff_model::scorers::own_syncnet::{
    MOUTH_LEFT, MOUTH_SIDE, MOUTH_SIZE, MOUTH_TOP, WINDOW_FRAMES, padded, sound_bands,
};

/// Where the network looks.
const MOUTH: Area = Area { left: MOUTH_LEFT, top: MOUTH_TOP, side: MOUTH_SIDE };

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
    let colour = ColourJitter::draw(&JitterRanges::default().times(settings.colour), seed, 0, 0);
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
                    let clip = &self.clip.clip;
                    let mut mouth = MOUTH.cut(clip.frame(frame), clip.crop_size(), MOUTH_SIZE, self.view);
                    self.colour.apply(&mut mouth);
                    (0..3).flat_map(|c| mouth.iter().skip(c).step_by(3)).map(|v| f32::from(*v) / 127.5 - 1.0).collect()
                });
                pixels.extend_from_slice(planes);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::Device;
    use syncdiff_model::generate::rgb_to_tensor;
    use syncdiff_model::scorers::own_syncnet::mouths;

    const PLAIN: View = View::PLAIN;

    fn cut(crop: &[u8], side: usize, view: View) -> Vec<u8> {
        MOUTH.cut(crop, side, MOUTH_SIZE, view)
    }

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
