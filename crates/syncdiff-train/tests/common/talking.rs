//! Drawn faces whose mouths open as their sound gets louder, as prepared clips.
#![allow(dead_code)] // each test file uses its own part

use std::path::Path;

use syncdiff_data::{CLIP_FORMAT, ClipArrays, ClipEntry, ClipMeta, INDEX_FILE};

const LANDMARKS: usize = 468;

/// How far the mouth of a clip is open in a frame, 0 to 1: no two stretches are alike.
fn open(clip: usize, frame: usize) -> f32 {
    let t = frame as f32;
    let phase = clip as f32 * 1.7;
    0.5 + 0.25 * (t * 0.9 + phase).sin() + 0.25 * (t * 0.37 + t * t * 0.021 + phase).sin()
}

/// What is said in a clip: commands of GRID that differ in every word from one clip to the next.
pub(crate) fn said(clip: usize) -> String {
    const WORDS: [[&str; 4]; 6] = [
        ["bin", "lay", "place", "set"],
        ["red", "white", "blue", "green"],
        ["at", "by", "in", "with"],
        ["b", "f", "o", "z"],
        ["one", "five", "zero", "nine"],
        ["soon", "again", "now", "please"],
    ];
    WORDS.map(|words| words[clip % 4]).join(" ")
}

/// A clip of so many frames with crops of `size` pixels.
pub(crate) fn arrays(clip: usize, frames: usize, size: usize) -> ClipArrays {
    let mut pixels = Vec::with_capacity(frames * size * size * 3);
    let mut speech = Vec::with_capacity(frames * 640);
    for frame in 0..frames {
        let gap = 0.01 + 0.11 * open(clip, frame);
        for y in 0..size {
            for x in 0..size {
                let [u, v] = [x, y].map(|at| (at as f32 + 0.5) / size as f32);
                let inside = ((u - 0.5) / 0.14).powi(2) + ((v - 0.68) / gap).powi(2) < 1.0;
                let skin = [200.0 - 40.0 * v, 150.0 - 30.0 * u, 120.0 + 20.0 * clip as f32];
                pixels.extend(if inside { [60, 20, 30] } else { skin.map(|c| c as u8) });
            }
        }
        // Louder and brighter where it is open.
        for i in 0..640 {
            let (time, level) = ((frame * 640 + i) as f32 / 16_000.0, open(clip, frame));
            let tone = |hz: f32| (time * hz * std::f32::consts::TAU).sin();
            let sound = tone(200.0) + level * tone(700.0 + 100.0 * clip as f32) + level * level * tone(1900.0);
            speech.push((sound * (500.0 + 6000.0 * level)) as i16);
        }
    }
    let opening: Vec<f32> = (0..frames).map(|frame| 0.02 + 0.2 * open(clip, frame)).collect();
    let mut landmarks = vec![0f32; frames * LANDMARKS * 2];
    for (frame, points) in landmarks.chunks_exact_mut(LANDMARKS * 2).enumerate() {
        for (point, at) in points.chunks_exact_mut(2).enumerate() {
            at[0] = size as f32 * (0.3 + 0.4 * (point % 20) as f32 / 20.0);
            at[1] = size as f32 * (0.68 + opening[frame] * 0.3 * if point % 2 == 0 { 1.0 } else { -1.0 });
        }
    }
    ClipArrays {
        crop_size: size,
        frames: pixels,
        crop_from_frame: [1.0, 0.0, 0.0, 0.0, 1.0, 0.0].repeat(frames),
        face_box: [0.1, 0.1, 0.9, 0.95].map(|edge| edge * size as f32).repeat(frames),
        landmarks,
        opening,
        valid: vec![1; frames],
        speech,
    }
}

/// A prepared folder with clips of 128 pixels: three to learn from and one held out.
pub(crate) fn prepare(folder: &Path) {
    let mut clips = Vec::new();
    for (number, split) in ["train", "train", "train", "valid"].into_iter().enumerate() {
        let clip = format!("{split}/drawn/s{number}/{number:03}");
        let file = format!("{clip}.safetensors");
        let arrays = arrays(number, 40, 128);
        let licence = "CC0-1.0".to_owned();
        let transcript = said(number);
        let meta = ClipMeta {
            clip: clip.clone(),
            split: split.into(),
            licence: licence.clone(),
            transcript: transcript.clone(),
            ..ClipMeta::default()
        };
        let content = arrays.write(&folder.join(&file), &meta).expect("a folder that can be written");
        clips.push(ClipEntry {
            num_bytes: std::fs::metadata(folder.join(&file)).expect("just written").len(),
            clip,
            file,
            offset: 0,
            corpus: "drawn".into(),
            split: split.into(),
            speaker: format!("s{number}"),
            licence,
            transcript,
            num_frames: 40,
            num_valid: 40,
            runs: vec![[0, 40]],
            crop_size: 128,
            crop_scale: 1.0,
            mean_opening: 0.1,
            opening_deviation: 0.05,
            quality: None,
            sync: None,
            source_fps: "25".into(),
            source_size: "128x128".into(),
            content,
            sha256: String::new(),
        });
    }
    let index = serde_json::json!({ "format": CLIP_FORMAT, "options": "drawn", "clips": clips });
    std::fs::write(folder.join(INDEX_FILE), index.to_string()).expect("a folder that can be written");
}
