//! Pictures, time stamps and sound come out of files as they are in them.

use syncdiff_media::{
    Frame, FrameReader, LengthPolicy, MediaKind, Orientation, Plan, Rational, ReadOptions, SourceWalk, Time,
    decode_speech, probe, scan_index,
};

use crate::support::{X264, folder, make, near, packet_pts, read_whole, times, tools};

#[test]
fn time_stamps_are_exact_at_every_rate() {
    let folder = folder();
    for (rate, file) in [("25", "a.mp4"), ("30000/1001", "b.mp4"), ("24", "c.mkv"), ("50", "d.avi"), ("25", "e.ts")] {
        // avi holds no display order: without B-frames its times are those of decoding.
        let codec = if file.ends_with("avi") { "-c:v mpeg4".into() } else { format!("{X264} -bf 2") };
        let path = make(&folder.path().join(file), &format!("-f lavfi -i testsrc2=s=64x48:r={rate}:d=1 {codec}"));
        let whole = read_whole(&path);
        assert_eq!(times(&whole.index), packet_pts(&path), "{file}");
        assert!(!whole.index.is_variable_rate(), "{file}");
        assert!(whole.warnings.is_empty(), "{file}: {:?}", whole.warnings);
        let rate: Rational = rate.parse().unwrap();
        assert!((whole.index.average_rate().to_f64() - rate.to_f64()).abs() < 0.05, "{file}");
        assert!((whole.index.duration().secs() - 1.0).abs() < 0.02, "{file}");
    }
}

#[test]
fn variable_rate_is_exact() {
    let folder = folder();
    let path = make(
        &folder.path().join("vfr.mp4"),
        &format!(
            "-f lavfi -i testsrc2=s=64x48:r=50:d=1 -vf settb=1/12800,setpts=13*(N*N+7*N) -fps_mode \
             passthrough -enc_time_base 1/12800 {X264} -bf 2"
        ),
    );
    let whole = read_whole(&path);
    assert_eq!(whole.frames.len(), 50);
    assert_eq!(times(&whole.index), packet_pts(&path));
    assert!(whole.index.is_variable_rate() && whole.info.video.as_ref().unwrap().variable_rate);
    assert_eq!(scan_index(&tools(), &whole.info, &ReadOptions::default()).unwrap().0, whole.index);
}

/// Left half red, right half blue, 64x32, so that every turn shows.
const HALVES: &str = "-f lavfi -i color=red:s=32x32:d=0.2,pad=64:32:0:0:blue";

#[test]
fn rotation_and_pixel_shape_are_honoured() {
    let folder = folder();
    let plain = make(&folder.path().join("plain.mp4"), &format!("{HALVES} {X264} -qp 5"));
    let bytes = std::fs::read(&plain).unwrap();
    // The display matrix stands in the track header; this writes [a b; c d] into it.
    let header = bytes.windows(4).position(|name| name == b"tkhd").unwrap() + 44;
    for (orientation, turn, red, blue) in [
        (Orientation::Rotate90, [0, 1, -1, 0], (16, 16), (16, 48)),
        (Orientation::Rotate270, [0, -1, 1, 0], (16, 48), (16, 16)),
        (Orientation::Rotate180, [-1, 0, 0, -1], (48, 16), (16, 16)),
        (Orientation::FlipHorizontal, [-1, 0, 0, 1], (48, 16), (16, 16)),
        (Orientation::Transpose, [0, 1, 1, 0], (16, 16), (16, 48)),
    ] {
        let mut bytes = bytes.clone();
        for (place, value) in [0, 4, 12, 16].into_iter().zip(turn) {
            let fixed = (value * 65_536i32).to_be_bytes();
            bytes[header + place..header + place + 4].copy_from_slice(&fixed);
        }
        let path = folder.path().join("turned.mp4");
        std::fs::write(&path, bytes).unwrap();
        let whole = read_whole(&path);
        assert_eq!(whole.info.video.as_ref().unwrap().orientation, orientation);
        let frame = &whole.frames[0];
        let size = if orientation.swaps_sides() { (32, 64) } else { (64, 32) };
        assert_eq!((frame.width, frame.height), size);
        let found = (frame.pixel(red.0, red.1), frame.pixel(blue.0, blue.1));
        assert!(near(found.0, [254, 0, 0], 12), "{orientation:?} {found:?}");
        assert!(near(found.1, [0, 0, 254], 12), "{orientation:?} {found:?}");
    }
    for (aspect, size) in [("4/3", (85, 32)), ("1/2", (64, 64))] {
        let path = make(&folder.path().join("sar.mp4"), &format!("{HALVES},setsar={aspect} {X264}"));
        let whole = read_whole(&path);
        assert_eq!((whole.frames[0].width, whole.frames[0].height), size, "{aspect}");
        assert_eq!(whole.info.video.unwrap().coded, (64, 32));
    }
}

#[test]
fn depth_alpha_and_odd_sizes_become_plain_rgb() {
    let folder = folder();
    let ten =
        make(&folder.path().join("ten.mkv"), "-f lavfi -i color=0x4080c0:s=64x48:d=0.2 -c:v ffv1 -pix_fmt yuv420p10le");
    let whole = read_whole(&ten);
    assert_eq!(whole.info.video.as_ref().unwrap().bit_depth, 10);
    assert!(near(whole.frames[0].pixel(30, 20), [0x40, 0x80, 0xC0], 3));

    let alpha = make(
        &folder.path().join("alpha.mov"),
        "-f lavfi -i color=white@0.5:s=64x48:d=0.2,format=rgba -c:v qtrle -pix_fmt argb",
    );
    let whole = read_whole(&alpha);
    assert!(whole.info.video.as_ref().unwrap().has_alpha);
    assert!(near(whole.frames[0].pixel(30, 20), [128; 3], 3), "white at one half on black");

    let odd = make(&folder.path().join("odd.mkv"), "-f lavfi -i testsrc=s=63x47:d=0.2 -c:v ffv1 -pix_fmt yuv444p");
    let whole = read_whole(&odd);
    assert_eq!((whole.frames[0].width, whole.frames[0].height), (63, 47));
}

#[test]
fn stills_of_every_kind() {
    let folder = folder();
    for file in ["a.png", "b.jpg", "c.webp", "d.bmp"] {
        let path = make(&folder.path().join(file), "-f lavfi -i color=0x4080c0:s=63x47:d=1 -frames:v 1");
        let whole = read_whole(&path);
        assert_eq!(whole.info.kind, MediaKind::Still, "{file}");
        assert_eq!((whole.frames.len(), whole.index.is_still()), (1, true));
        assert!(
            near(whole.frames[0].pixel(30, 20), [0x40, 0x80, 0xC0], 6),
            "{file} {:?}",
            whole.frames[0].pixel(30, 20)
        );
        let plan = Plan::new(&whole.index, LengthPolicy::Audio, Time::from_samples(8000)).unwrap();
        let walk = SourceWalk::new(&tools(), &whole.info, &whole.index, &plan, 0..plan.len(), &ReadOptions::default());
        let walked: Vec<_> = walk.unwrap().map(|frame| frame.unwrap()).collect();
        assert_eq!(walked.len(), 13, "half a second at 25 frames a second");
        assert!(walked.iter().enumerate().all(|(i, f)| f.pts == i as i64 && f.source == 0));
        assert_eq!(*walked[12].frame, whole.frames[0]);
    }
}

#[test]
fn ranges_are_the_same_frames_as_the_whole() {
    let folder = folder();
    for (file, codec) in [
        ("a.mp4", "-c:v libx264 -preset ultrafast -bf 3 -g 20"),
        ("b.mkv", "-c:v libx264 -preset ultrafast -bf 3 -g 20 -x264-params open-gop=1"),
        ("d.ts", "-c:v mpeg2video -bf 2 -g 15"),
    ] {
        let path =
            make(&folder.path().join(file), &format!("-f lavfi -i testsrc2=s=64x48:r=25:d=5 -pix_fmt yuv420p {codec}"));
        let whole = read_whole(&path);
        for range in [57..61, 120..125] {
            let reader =
                FrameReader::open_range(&tools(), &whole.info, &whole.index, range.clone(), &ReadOptions::default());
            let part: Vec<_> = reader.unwrap().map(|frame| frame.unwrap()).collect();
            assert_eq!(part.len(), range.len(), "{file}");
            for (frame, at) in part.iter().zip(range) {
                assert_eq!((frame.index, frame.pts), (at, whole.index.pts(at)), "{file}");
                assert_eq!(frame.frame, whole.frames[at], "{file}, frame {at}");
            }
        }
        let outside = 124..126;
        assert!(
            FrameReader::open_range(&tools(), &whole.info, &whole.index, outside, &ReadOptions::default()).is_err()
        );
    }
}

#[test]
fn walking_shows_the_planned_frames_with_small_windows() {
    let folder = folder();
    let path = make(&folder.path().join("a.mp4"), &format!("-f lavfi -i testsrc2=s=64x48:r=25:d=2 {X264} -g 12"));
    let whole = read_whole(&path);
    let walk = |policy, samples, bytes, outputs: Option<std::ops::Range<usize>>| {
        let plan = Plan::new(&whole.index, policy, Time::from_samples(samples)).unwrap();
        let outputs = outputs.unwrap_or(0..plan.len());
        let walk =
            SourceWalk::new(&tools(), &whole.info, &whole.index, &plan, outputs.clone(), &ReadOptions::default());
        let holds_all = bytes >= whole.frames.len() * 64 * 48 * 3;
        let mut handed_out = Vec::new();
        let mut next = outputs.start;
        for frame in walk.unwrap().with_window_bytes(bytes) {
            let frame = frame.unwrap();
            let planned = plan.get(next).unwrap();
            assert_eq!((frame.output, frame.source, frame.pts), (next, planned.source, planned.pts));
            assert_eq!(*frame.frame, whole.frames[planned.source], "output {next}");
            next += 1;
            // Frames that were handed out are not kept, unless the whole clip fits the window.
            handed_out.push(std::sync::Arc::downgrade(&frame.frame));
            let alive = handed_out.iter().filter(|frame| frame.strong_count() > 0).count();
            assert!(alive == 1 || holds_all, "{alive} frames are alive at output {next}");
        }
        assert_eq!(next, outputs.end);
    };
    let window = 64 * 48 * 3 * 17;
    walk(LengthPolicy::Audio, 16_000 * 5, window, None);
    walk(LengthPolicy::Loop, 16_000 * 5, window, None);
    walk(LengthPolicy::Bounce, 16_000 * 5, 1 << 30, None);
    walk(LengthPolicy::Audio, 16_000 * 5, window, Some(70..110));
    walk(LengthPolicy::Cut, 16_000, window, None);
}

/// Sample at which the sound starts: the first above a tenth of full scale.
fn onset(samples: &[i16]) -> usize {
    samples.iter().position(|sample| sample.unsigned_abs() > 1500).expect("a sound")
}

#[test]
fn speech_is_aligned_to_the_first_frame() {
    let folder = folder();
    // Silence, then a tone from 0.5 s on; 44.1 kHz stereo.
    let tone = "-f lavfi -i aevalsrc=0.5*sin(2*PI*800*t)*gte(t\\,0.5)|0.5*sin(2*PI*800*t)*gte(t\\,0.5):s=44100:d=1.5";
    for file in ["a.wav", "c.mp3", "d.ogg", "e.m4a", "f.aac"] {
        let path = make(&folder.path().join(file), tone);
        let info = probe(&tools(), &path).unwrap();
        assert_eq!((info.kind, info.audio.as_ref().unwrap().rate), (MediaKind::AudioOnly, 44_100));
        let speech = decode_speech(&tools(), &info).unwrap();
        // ADTS has no field for the coder's delay and padding of up to 1024 samples each.
        let (slack, length_slack) = if file == "f.aac" { (400, 0.07) } else { (24, 0.03) };
        assert!(onset(&speech.samples).abs_diff(8000) <= slack, "{file}: {}", onset(&speech.samples));
        assert!((speech.duration().secs() - 1.5).abs() < length_slack, "{file}: {:?}", speech.duration());
        assert!(speech.warnings.is_empty(), "{file}: {:?}", speech.warnings);
    }
    // In a file with pictures, sample 0 belongs to the first picture, whatever comes first.
    let sound = make(&folder.path().join("s.wav"), tone);
    for (picture, tone, expected) in [("0", "0", 8000), ("0.2", "0", 8000 - 3200), ("0", "0.2", 8000 + 3200)] {
        let path = make(
            &folder.path().join("shifted.mp4"),
            &format!(
                "-itsoffset {picture} -f lavfi -i testsrc2=s=64x48:d=1.5 -itsoffset {tone} -i {} \
                 -fps_mode passthrough {X264} -c:a aac",
                sound.display()
            ),
        );
        let info = probe(&tools(), &path).unwrap();
        let speech = decode_speech(&tools(), &info).unwrap();
        assert!(
            onset(&speech.samples).abs_diff(expected) <= 24,
            "{picture} {tone}: {} for {expected}",
            onset(&speech.samples)
        );
    }
}

#[test]
fn resized_frames_of_a_clip_keep_their_mean() {
    let folder = folder();
    let path = make(&folder.path().join("a.mp4"), &format!("-f lavfi -i testsrc2=s=64x48:d=0.04 {X264}"));
    let whole = read_whole(&path);
    let mean = |frame: &Frame| frame.data.iter().map(|v| f64::from(*v)).sum::<f64>() / frame.data.len() as f64;
    assert!((mean(&whole.frames[0]) - mean(&whole.frames[0].resized(16, 12))).abs() < 0.6);
}
