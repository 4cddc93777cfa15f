//! Shows random crops of a prepared folder with their landmarks as one picture, and the correlation
//! of lip opening and loudness by corpus.
//!
//! `sheet PREPARED OUT.png [SEED] [PART_OF_CLIP_NAME]`

use std::collections::BTreeMap;
use std::path::Path;

use syncdiff_data::{Clip, DataError, Dataset, Draws};
use syncdiff_media::{Frame, write_png};

const COLUMNS: usize = 6;
const ROWS: usize = 2;
const TILE_PX: usize = 256;

fn main() -> std::process::ExitCode {
    match run() {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            std::process::ExitCode::from(error.fault().exit_code())
        }
    }
}

fn run() -> Result<(), DataError> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let usage =
        || DataError::Parameter { stage: "usage", detail: "sheet PREPARED OUT.png [SEED] [PART_OF_CLIP_NAME]".into() };
    let [folder, out, rest @ ..] = &args[..] else { return Err(usage()) };
    let seed = rest.first().map_or(Ok(0), |text| text.parse()).map_err(|_| usage())?;
    let part = rest.get(1).map(String::as_str).unwrap_or_default();
    let data = Dataset::open(Path::new(folder), 0)?;
    let clips: Vec<usize> = (0..data.clips().len()).filter(|at| data.clips()[*at].clip.contains(part)).collect();
    let mut draws = Draws::new(seed, 0, 0, *b"sheet\0\0\0");
    let mut sheet = Frame::filled(COLUMNS * TILE_PX, ROWS * TILE_PX, [0; 3]);
    for tile in 0..COLUMNS * ROWS {
        let clip = data.load(clips[draws.below(clips.len() as u64) as usize])?;
        let frame = draws.below(clip.num_frames() as u64) as usize;
        let picture = shown(&clip, frame)?;
        sheet.paste(&picture, tile % COLUMNS * TILE_PX, tile / COLUMNS * TILE_PX);
        println!(
            "tile {tile}: {} frame {frame}, valid {}, opening {:.3}",
            clip.meta().clip,
            clip.valid()[frame],
            clip.opening()[frame]
        );
    }
    write_png(Path::new(out), &sheet)?;
    let mut by_corpus: BTreeMap<&str, Vec<[f64; 5]>> = BTreeMap::new();
    for at in clips {
        let clip = data.load(at)?;
        let all = [-2, -1, 0, 1, 2].map(|shift| correlation(&clip, shift));
        if all.iter().all(|r| r.is_finite()) {
            by_corpus.entry(&data.clips()[at].corpus).or_default().push(all);
        }
    }
    println!("mean correlation of opening and loudness, the sound shifted by -2..2 frames:");
    for (corpus, all) in by_corpus {
        let mean = |k: usize| all.iter().map(|r| r[k]).sum::<f64>() / all.len() as f64;
        let means = [0, 1, 2, 3, 4].map(|k| format!("{:.3}", mean(k)));
        let positive = all.iter().filter(|r| r[2] > 0.0).count();
        println!("{corpus}\t{}\t{positive} of {} clips above 0", means.join(" "), all.len());
    }
    Ok(())
}

/// A crop at the tile's size with eye corners, nose, mouth and chin marked.
fn shown(clip: &Clip, frame: usize) -> Result<Frame, DataError> {
    let size = clip.crop_size();
    let crop = Frame::from_rgb(size, size, clip.frame(frame).to_vec())?;
    let mut tile = crop.resized(TILE_PX, TILE_PX);
    let scale = TILE_PX as f32 / size as f32;
    for point in [33, 263, 1, 13, 14, 61, 291, 152] {
        let at = &clip.landmarks(frame)[point * 2..point * 2 + 2];
        let [x, y] = [at[0], at[1]].map(|v| ((v + 0.5) * scale - 0.5).round());
        if (0.0..TILE_PX as f32).contains(&x) && (0.0..TILE_PX as f32).contains(&y) {
            tile.set_pixel(x as usize, y as usize, [0, 255, 0]);
        }
    }
    Ok(tile)
}

/// Correlation over the valid frames of lip opening and the logarithm of the sound's energy in the
/// frame that lies `shift` frames later.
fn correlation(clip: &Clip, shift: i64) -> f64 {
    let energy = |frame: i64| {
        let at = frame.clamp(0, clip.num_frames() as i64 - 1) as usize * 640;
        let sum: f64 = clip.speech()[at..at + 640].iter().map(|s| f64::from(*s).powi(2)).sum();
        (sum / 640.0 + 100.0).ln()
    };
    let pairs: Vec<(f64, f64)> = (0..clip.num_frames())
        .filter(|frame| clip.valid()[*frame] == 1)
        .map(|frame| (f64::from(clip.opening()[frame]), energy(frame as i64 + shift)))
        .collect();
    let count = pairs.len() as f64;
    let (a, b) = pairs.iter().fold((0.0, 0.0), |(a, b), pair| (a + pair.0, b + pair.1));
    let (a, b) = (a / count, b / count);
    let (mut ab, mut aa, mut bb) = (0.0, 0.0, 0.0);
    for (x, y) in &pairs {
        ab += (x - a) * (y - b);
        aa += (x - a).powi(2);
        bb += (y - b).powi(2);
    }
    ab / (aa * bb).sqrt()
}
