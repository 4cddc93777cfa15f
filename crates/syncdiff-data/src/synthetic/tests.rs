use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use syncdiff_face::{FaceModels, NUM_LANDMARKS, Tracker, TrackerOptions, lips};

use super::shape::Pose;
use super::*;
use crate::prepare::go_on;
use crate::{ClipFilter, Dataset, MIRRORED_LANDMARK, SampleOptions, Sampler};

fn small(num_clips: usize) -> SyntheticOptions {
    SyntheticOptions { num_clips, num_frames: 12, crop_size: 32, voice: Voice::Tones, ..SyntheticOptions::default() }
}

fn models() -> Option<FaceModels> {
    let home = std::env::var_os("SYNCDIFF_MODELS").map(|folder| PathBuf::from(folder).join("face"));
    let folder = home.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.cache/models/face"));
    if !folder.is_dir() {
        println!("skipped: face models {folder:?} absent");
        return None;
    }
    Some(FaceModels::load(&folder).expect("the face models are whole"))
}

#[test]
fn a_clip_depends_on_its_seed_and_number_only() {
    let draw =
        |seed, clip, num_clips| SyntheticClip::draw(&SyntheticOptions { seed, ..small(num_clips) }, clip).unwrap();
    let one = draw(1, 0, 1);
    let same = draw(1, 0, 20);
    assert!(one.frames == same.frames && one.speech == same.speech && one.meshes == same.meshes);
    for other in [draw(2, 0, 1), draw(1, 1, 20), draw(1, 16, 20)] {
        assert!(one.frames != other.frames && one.speech != other.speech);
    }
    assert_eq!((one.frames.len(), one.frames[0].width, one.speech.len()), (12, 48, 12 * 640));
    for options in [
        SyntheticOptions { crop_size: 30, ..small(1) },
        SyntheticOptions { num_frames: 3, ..small(1) },
        SyntheticOptions { num_frames: 4000, ..small(1) },
        small(0),
    ] {
        assert!(matches!(SyntheticClip::draw(&options, 0), Err(DataError::Parameter { .. })));
    }
}

#[test]
fn landmarks_follow_the_lips_and_are_even_sided() {
    let looks = Looks::of(1, 0, 192);
    let opening = |drop: f32, yaw: f32| {
        let pose = Pose { drop, lift: drop * 0.1, yaw, ..Pose::REST };
        lips::opening(&landmarks::mesh(&looks, &pose))
    };
    assert!(opening(0.0, 0.0) < 0.01, "{}", opening(0.0, 0.0));
    // The lips of this head part by drop and lift, its outer eye corners are 1.1 apart.
    for drop in [0.05f32, 0.1, 0.19] {
        let expected = drop * 1.1 / 1.1 * looks.unit_px[1] / looks.unit_px[0];
        assert!((opening(drop, 0.0) / expected - 1.0).abs() < 0.15, "{drop}: {}", opening(drop, 0.0));
        assert!((opening(drop, 0.1) / opening(drop, 0.0) - 1.0).abs() < 0.1);
    }
    let mesh = landmarks::mesh(&looks, &Pose { drop: 0.1, ..Pose::REST });
    for (point, other) in MIRRORED_LANDMARK.iter().enumerate() {
        let (a, b) = (mesh.xy(point), mesh.xy(usize::from(*other)));
        let middle = (a[0] + b[0]) / 2.0 - looks.eyes_at[0];
        assert!(middle.abs() < 0.05 && (a[1] - b[1]).abs() < 0.05, "{point} {other}: {a:?} {b:?}");
    }
    // The lower lip lies below the upper one, the chin below both.
    assert!(mesh.xy(13)[1] < mesh.xy(14)[1] && mesh.xy(14)[1] < mesh.xy(17)[1] && mesh.xy(17)[1] < mesh.xy(152)[1]);
}

#[test]
fn drawn_clips_are_a_prepared_folder() {
    let out = tempfile::tempdir().unwrap();
    let options = SyntheticOptions { shard_bytes: 1 << 20, ..small(5) };
    let report = synthesize(&options, out.path(), &mut go_on).unwrap();
    assert_eq!((report.made, report.resumed), (5, 0));
    let data = Dataset::open(out.path(), 1 << 24).unwrap();
    let splits: BTreeSet<&str> = data.clips().iter().map(|entry| entry.split.as_str()).collect();
    assert_eq!(splits, BTreeSet::from(["train", "valid", "test"]));
    assert!(data.damaged().is_empty());
    for (at, entry) in data.clips().iter().enumerate() {
        let clip = data.load(at).unwrap();
        assert_eq!((entry.num_valid, clip.num_frames(), clip.crop_size()), (12, 12, 32));
        let quality = entry.quality.unwrap();
        assert!(quality.other_faces == 0.0 && quality.yaw_degrees < 15.0, "{quality:?}");
        assert!(entry.opening_deviation > 0.01, "the mouth moves: {}", entry.opening_deviation);
        // The crop is that of the template: eyes at a quarter of the height, lips at six tenths.
        let points = clip.landmarks(5);
        assert!((points[33 * 2 + 1] / 32.0 - 0.27).abs() < 0.05 && (points[13 * 2 + 1] / 32.0 - 0.62).abs() < 0.08);
        assert!(!entry.transcript.is_empty());
    }
    let sampler = Sampler::new(&data, &ClipFilter::split("train"), SampleOptions::default()).unwrap();
    let sample = sampler.sample(&data, 1, 2).unwrap();
    assert_ne!(sample.target(), sample.identity());
    assert_eq!(synthesize(&options, out.path(), &mut go_on).unwrap().resumed, 5);
    let other = SyntheticOptions { seed: 9, ..options };
    assert!(matches!(synthesize(&other, out.path(), &mut go_on), Err(DataError::Parameter { .. })));
}

#[test]
fn the_tracker_finds_drawn_faces_where_they_are() {
    let Some(models) = models() else { return };
    // Four speakers of different colours.
    for clip in (0..NUM_SPEAKERS).step_by(5) {
        let options = SyntheticOptions { num_frames: 12, crop_size: 128, ..small(NUM_SPEAKERS) };
        let drawn = SyntheticClip::draw(&options, clip).unwrap();
        let mut tracker = Tracker::new(&models, TrackerOptions::default()).unwrap();
        let (mut openings, mut error, mut count) = (Vec::new(), 0.0, 0.0);
        for (at, (frame, known)) in drawn.frames.iter().zip(&drawn.meshes).enumerate() {
            let found = tracker.push(frame);
            assert_eq!(found.faces.len(), 1, "speaker {clip}, frame {at}");
            let mesh = &found.faces[0].mesh;
            let eyes = lips::eye_distance_px(known);
            for point in 0..NUM_LANDMARKS {
                let ([ax, ay], [bx, by]) = (mesh.xy(point), known.xy(point));
                error += f64::from((ax - bx).hypot(ay - by) / eyes);
                count += 1.0;
            }
            openings.push([lips::opening(mesh), lips::opening(known)].map(f64::from));
        }
        let error = error / count;
        let together = correlation(&openings);
        println!("speaker {clip}: {error:.3} eye distances, correlation of the opening {together:.3}");
        assert!(error < 0.03, "speaker {clip}: landmarks are {error:.3} eye distances off");
        assert!(together > 0.95, "speaker {clip}: correlation of the lip opening {together:.3}");
    }
}

fn correlation(pairs: &[[f64; 2]]) -> f64 {
    let mean = |i: usize| pairs.iter().map(|p| p[i]).sum::<f64>() / pairs.len() as f64;
    let (a, b) = (mean(0), mean(1));
    let product = |i: usize, j: usize| {
        let off = [a, b];
        pairs.iter().map(|p| (p[i] - off[i]) * (p[j] - off[j])).sum::<f64>()
    };
    product(0, 1) / (product(0, 0) * product(1, 1)).sqrt().max(1e-12)
}

/// Looks at resting faces with the mesh network and prints `points.rs`, even-sided.
#[test]
#[ignore = "prints a table for points.rs"]
fn print_the_points_of_the_resting_face() {
    let models = models().expect("the face models are needed");
    let side = 384;
    let mut sums = vec![[0.0; 2]; NUM_LANDMARKS];
    for speaker in 0..NUM_SPEAKERS as u64 {
        let looks = Looks::of(0, speaker, side);
        let mut head = HeadMap::new(&looks, &mut Draws::new(0, 0, speaker, PURPOSE));
        head.draw(&Pose::REST);
        let frame = picture::take(&head, &looks, &Pose::REST, side);
        if let Some(folder) = std::env::var_os("SYNCDIFF_PORTRAITS") {
            let path = Path::new(&folder).join(format!("{speaker:02}.png"));
            syncdiff_media::write_png(&path, &frame).expect("a picture");
        }
        let mut tracker = Tracker::new(&models, TrackerOptions::default()).expect("a tracker");
        let found = (0..5).map(|_| tracker.push(&frame)).last().expect("five looks");
        assert_eq!(found.faces.len(), 1, "speaker {speaker}");
        for (sum, point) in sums.iter_mut().zip(&found.faces[0].mesh.points) {
            for axis in 0..2 {
                sum[axis] += f64::from((point[axis] - looks.eyes_at[axis]) / looks.unit_px[axis]);
            }
        }
    }
    let mean = |point: usize, axis: usize| sums[point][axis] / NUM_SPEAKERS as f64 * 1e4;
    for (point, other) in MIRRORED_LANDMARK.iter().enumerate() {
        let other = usize::from(*other);
        let place = [(mean(point, 0) - mean(other, 0)) / 2.0, (mean(point, 1) + mean(other, 1)) / 2.0];
        print!("[{:.0}, {:.0}], ", place[0], place[1]);
    }
    println!();
}
