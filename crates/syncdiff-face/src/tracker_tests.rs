//! Tracking on real clips and on what tests make of them.

use crate::testing::{clip_frames, models};
use crate::{FaceChoice, FaceModels, FacesInFrame, SmoothOptions, TrackTable, Tracker, TrackerOptions};
use syncdiff_media::Frame;

fn track(models: &FaceModels, frames: &[Frame]) -> (TrackTable, Vec<FacesInFrame>) {
    let mut tracker = Tracker::new(models, TrackerOptions::default()).unwrap();
    let mut table = TrackTable::new(frames[0].width, frames[0].height);
    let found: Vec<_> = frames.iter().map(|frame| tracker.push(frame)).collect();
    found.iter().for_each(|f| table.push(f));
    (table, found)
}

#[test]
fn real_clips_give_one_smooth_track_without_gaps() {
    let Some(models) = models() else { return };
    // A small studio face, a 1080p presenter, and a head that turns and moves.
    let clips = ["grid/s1/bbaf4p.mp4", "wild/newsdesk_1080p_smallface.mp4", "wild/interview_224.mp4"];
    for clip in clips {
        let Some(frames) = clip_frames(clip, 40) else { return };
        let (table, found) = track(&models, &frames);
        assert!(table.cuts().is_empty(), "{clip}: cuts at {:?}", table.cuts());
        assert_eq!(table.tracks().len(), 1, "{clip}");
        let track = table.choose(&FaceChoice::Largest).unwrap();
        assert_eq!((track.id(), track.num_frames()), (0, frames.len()), "{clip}");
        let alignment = table.alignment(track, &SmoothOptions::default());
        assert!(alignment.gaps().is_empty());
        // From frame to frame neither landmarks nor crops jump, and the crop shakes less than the
        // landmarks do.
        let mut steps = 0.0f32;
        for pair in found.windows(2) {
            let (a, b) = (&pair[0].faces[0], &pair[1].faces[0]);
            let sum: f32 =
                a.mesh.points.iter().zip(&b.mesh.points).map(|(p, q)| (p[0] - q[0]).hypot(p[1] - q[1])).sum();
            steps = steps.max(sum / a.mesh.points.len() as f32 / a.face_box.width());
        }
        let centre = |frame: usize| {
            let crop = alignment.crop_from_frame(frame, 128).unwrap();
            (crop.invert().unwrap().apply([63.5, 40.0]), crop.scale())
        };
        let mut shake = 0.0f64;
        for frame in 1..frames.len() - 1 {
            let ([a, s], [b, _], [c, _]) = (
                {
                    let (p, s) = centre(frame - 1);
                    [p, [s, s]]
                },
                {
                    let (p, s) = centre(frame);
                    [p, [s, s]]
                },
                {
                    let (p, s) = centre(frame + 1);
                    [p, [s, s]]
                },
            );
            let bend = (a[0] - 2.0 * b[0] + c[0]).hypot(a[1] - 2.0 * b[1] + c[1]);
            shake = shake.max(bend * s[0]);
        }
        println!("{clip}: largest step {steps:.3} face widths, largest bend {shake:.2} crop px");
        assert!(steps < 0.12, "{clip}: landmarks jump by {steps} face widths");
        assert!(shake < 2.5, "{clip}: the crop bends by {shake} crop pixels");
    }
}

#[test]
fn a_cut_between_clips_ends_the_track() {
    let Some(models) = models() else { return };
    let (Some(mut frames), Some(second)) =
        (clip_frames("grid/s1/bbaf4p.mp4", 14), clip_frames("grid/s26/bgbsza.mp4", 14))
    else {
        return;
    };
    frames.extend(second);
    let (table, _) = track(&models, &frames);
    assert_eq!(table.cuts(), [14]);
    let ranges: Vec<_> = table.tracks().iter().flat_map(|t| t.ranges()).collect();
    assert_eq!(ranges, [0..14, 14..28]);
    // Back to the first shot: its face is known again, and the other one is not.
    let first = frames[..14].to_vec();
    frames.extend(first);
    let (table, _) = track(&models, &frames);
    assert_eq!(table.cuts(), [14, 28]);
    assert_eq!(table.tracks()[0].ranges(), [0..14, 28..42]);
    assert_eq!(table.tracks().len(), 2);
}

#[test]
fn a_face_that_was_hidden_keeps_its_number() {
    let Some(models) = models() else { return };
    let Some(mut frames) = clip_frames("grid/s1/bbaf4p.mp4", 30) else { return };
    // Something grey is held before the face.
    let (before, _) = track(&models, &frames[..1]);
    let b = before.tracks()[0].get(0).unwrap().face_box;
    for frame in &mut frames[12..18] {
        for y in b.y0 as usize..b.y1 as usize {
            for x in b.x0 as usize..b.x1 as usize {
                frame.set_pixel(x, y, [110, 115, 120]);
            }
        }
    }
    let (table, _) = track(&models, &frames);
    assert_eq!(table.tracks().len(), 1, "{:?}", table.cuts());
    assert_eq!(table.tracks()[0].ranges(), [0..12, 18..30]);
    let alignment = table.alignment(&table.tracks()[0], &SmoothOptions::default());
    assert_eq!(alignment.gaps(), [std::ops::Range { start: 12, end: 18 }]);
    assert!(alignment.opacity(11, 3) < 0.5 && alignment.opacity(0, 3) == 1.0);
}

#[test]
fn what_is_no_face_gives_no_track() {
    let Some(models) = models() else { return };
    let mut state = 5u32;
    let mut noise = |width: usize, height: usize| {
        let mut frame = Frame::filled(width, height, [0; 3]);
        for byte in &mut frame.data {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            *byte = (state >> 24) as u8;
        }
        frame
    };
    for (width, height) in [(1, 1), (2, 700), (64, 48), (640, 500)] {
        let mut frames = vec![Frame::filled(width, height, [90, 140, 200]); 3];
        frames.extend((0..3).map(|_| noise(width, height)));
        let (table, _) = track(&models, &frames);
        assert!(table.tracks().is_empty(), "a face in noise of {width}x{height}");
        assert!(table.choose(&FaceChoice::Largest).is_err());
    }
}
