//! Unfit files and names: each has its error, and none hangs or escapes.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use syncdiff_media::{
    Fault, Frame, FrameReader, LengthPolicy, MediaError, Plan, ReadOptions, Sound, Time, Tools, VideoWriter, Warning,
    WriterOptions, decode_speech, probe, scan_index,
};

use crate::support::{X264, folder, make, read_whole, tools};

fn refused(path: &Path) -> MediaError {
    let error = probe(&tools(), path).expect_err("must be refused");
    let name = path.file_name().unwrap().to_str().unwrap();
    assert!(error.to_string().contains(name), "the message names the file: {error}");
    assert_eq!(error.fault(), Fault::Input, "{error}");
    error
}

#[test]
fn what_is_no_media_is_named() {
    let folder = folder();
    let file = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    };
    assert!(matches!(refused(&folder.path().join("none.mp4")), MediaError::NoSuchFile { .. }));
    assert!(matches!(refused(folder.path()), MediaError::NotAFile { .. }));
    assert!(matches!(refused(&file("empty.mp4", b"")), MediaError::EmptyFile { .. }));
    assert!(matches!(refused(&file("text.mp4", b"hello\n")), MediaError::NotMedia { .. }));
    assert!(matches!(refused(&file("zeros.mp4", &[0; 999])), MediaError::NotMedia { .. }));
    assert!(matches!(refused(&file("list.mp4", b"#EXTM3U\n#EXTINF:1,\n/etc/passwd\n")), MediaError::Playlist { .. }));
    assert!(matches!(
        refused(&file("concat.mp4", b"ffconcat version 1.0\nfile '/etc/passwd'\n")),
        MediaError::Playlist { .. }
    ));
    let junk: Vec<u8> = b"\0\0\0\x20ftypisom".iter().copied().chain((0..2000).map(|i| (i * 7) as u8)).collect();
    assert!(matches!(refused(&file("junk.mp4", &junk)), MediaError::Damaged { .. }));
}

#[test]
fn names_are_data() {
    let folder = folder();
    let base = make(
        &folder.path().join("base.mp4"),
        &format!("-f lavfi -i testsrc2=s=64x48:d=0.2 -f lavfi -i sine=d=0.2 {X264}"),
    );
    let mut names: Vec<std::ffi::OsString> = [
        "-y.mp4",
        "it's \"quoted\".mp4",
        "http:x%20y.mp4",
        "$(touch x);`x` y.mp4",
        "concat:a|b %03d *?[].mp4",
        "new\nline.mp4",
    ]
    .map(Into::into)
    .to_vec();
    names.push(std::ffi::OsStr::from_bytes(b"latin1-\xE4.mp4").to_owned());
    for name in names {
        let path = folder.path().join(&name);
        std::fs::copy(&base, &path).unwrap();
        assert_eq!(read_whole(&path).frames.len(), 5, "{name:?}");
    }
    // The same names for sound, and for the output.
    let hard = folder.path().join("it's \"quoted\".mp4");
    let info = probe(&tools(), &hard).unwrap();
    assert!(!decode_speech(&tools(), &info).unwrap().samples.is_empty());
    let (index, _) = scan_index(&tools(), &info, &ReadOptions::default()).unwrap();
    let plan = Plan::new(&index, LengthPolicy::Video, Time::from_samples(1)).unwrap();
    let out = folder.path().join("-out 'x\" %d.mp4");
    let sound = Sound(info);
    let options = WriterOptions::default();
    let mut writer = VideoWriter::create(&tools(), &out, (64, 48), &plan, Some(&sound), &options).unwrap();
    for planned in plan.frames() {
        writer.push(&Frame::filled(64, 48, [9; 3]), planned.pts).unwrap();
    }
    writer.finish().unwrap();
    assert!(probe(&tools(), &out).unwrap().audio.is_some());
    // A relative name with a leading dash is the hard case; the folder of tests is not changed,
    // so the name goes through a path that begins with it.
    let dashed = Path::new("-dash");
    assert!(matches!(probe(&tools(), dashed), Err(MediaError::NoSuchFile { .. })));
}

#[test]
fn cut_files_are_errors_or_warnings() {
    let folder = folder();
    let whole = make(
        &folder.path().join("whole.mp4"),
        &format!("-f lavfi -i testsrc2=s=128x96:d=3 -f lavfi -i sine=d=3 {X264} -g 10 -movflags +faststart"),
    );
    let bytes = std::fs::read(&whole).unwrap();
    let cut = folder.path().join("cut.mp4");
    std::fs::write(&cut, &bytes[..bytes.len() * 6 / 10]).unwrap();
    let read = read_whole(&cut);
    assert!(read.frames.len() > 20 && read.frames.len() < 75, "{}", read.frames.len());
    let early = read.warnings.iter().find_map(|warning| match warning {
        Warning::EarlyEnd { frames, promised_ms, .. } => Some((*frames, *promised_ms)),
        _ => None,
    });
    assert_eq!(early, Some((read.frames.len() as u64, 3000)), "{:?}", read.warnings);
    let speech = decode_speech(&tools(), &read.info).unwrap();
    assert!(matches!(speech.warnings[..], [Warning::SoundEarlyEnd { promised_ms: 3000, .. }]));

    // Without its index at the end, nothing can be read.
    let slow = make(&folder.path().join("slow.mp4"), &format!("-f lavfi -i testsrc2=s=128x96:d=1 {X264}"));
    let bytes = std::fs::read(&slow).unwrap();
    std::fs::write(&slow, &bytes[..bytes.len() / 2]).unwrap();
    let error = refused(&slow);
    assert!(error.to_string().contains("moov"), "{error}");
    // Only a header.
    let head = folder.path().join("head.mkv");
    make(&head, &format!("-f lavfi -i testsrc2=s=128x96:d=1 {X264}"));
    let bytes = std::fs::read(&head).unwrap();
    std::fs::write(&head, &bytes[..700]).unwrap();
    match probe(&tools(), &head) {
        Err(error) => assert_eq!(error.fault(), Fault::Input),
        Ok(info) => {
            let error = scan_index(&tools(), &info, &ReadOptions::default()).unwrap_err();
            assert_eq!(error.fault(), Fault::Input, "{error}");
        }
    }
}

#[test]
fn damaged_frames_are_reported_with_their_number() {
    let folder = folder();
    let path =
        make(&folder.path().join("a.mkv"), &format!("-f lavfi -i testsrc2=s=160x120:r=25:d=2 {X264} -g 50 -bf 0"));
    // Break the payload of frame 30, found by its position in the file.
    let positions: Vec<usize> = crate::support::entries(&path, "v:0", "packet=pos,size")
        .iter()
        .map(|line| line.split(',').nth(1).unwrap().parse().unwrap())
        .collect();
    let mut bytes = std::fs::read(&path).unwrap();
    for byte in &mut bytes[positions[30] + 200..positions[31] - 20] {
        *byte = byte.wrapping_mul(31).wrapping_add(97);
    }
    std::fs::write(&path, bytes).unwrap();
    let read = read_whole(&path);
    let reported: Vec<u64> = read
        .warnings
        .iter()
        .filter_map(|warning| match warning {
            Warning::DamagedFrame { frame, .. } | Warning::LostData { frame, .. } => Some(*frame),
            _ => None,
        })
        .collect();
    assert!(reported.contains(&30), "{:?}", read.warnings);
    assert!(reported.iter().all(|frame| (30..32).contains(frame)), "{:?}", read.warnings);
}

#[test]
fn missing_tracks_and_sizes_are_named() {
    let folder = folder();
    let silent = make(&folder.path().join("silent.mp4"), &format!("-f lavfi -i testsrc2=s=64x48:d=0.2 {X264}"));
    let error = decode_speech(&tools(), &probe(&tools(), &silent).unwrap()).unwrap_err();
    assert!(matches!(error, MediaError::NoAudio { .. }) && error.fault() == Fault::Input);
    let sound = make(&folder.path().join("sound.wav"), "-f lavfi -i sine=d=0.05");
    let info = probe(&tools(), &sound).unwrap();
    assert!(matches!(
        FrameReader::open(&tools(), &info, &ReadOptions::default()).err(),
        Some(MediaError::NoVideo { .. })
    ));
    assert_eq!(decode_speech(&tools(), &info).unwrap().samples.len(), 800, "0.05 s is speech");
    let huge = make(&folder.path().join("huge.png"), "-f lavfi -i color=s=8194x16:d=1 -frames:v 1");
    assert!(matches!(refused(&huge), MediaError::Limit { .. }));
    let wide = make(&folder.path().join("wide.mp4"), &format!("-f lavfi -i color=s=640x16:d=0.1,setsar=20/1 {X264}"));
    assert!(matches!(refused(&wide), MediaError::Limit { .. }));
    // A header that promises far more pixels than the file has.
    let mut png =
        std::fs::read(make(&folder.path().join("bomb.png"), "-f lavfi -i color=s=16x16:d=1 -frames:v 1")).unwrap();
    png[16..24].copy_from_slice(&[0, 1, 0, 0, 0, 1, 0, 0]);
    let bomb = folder.path().join("bomb.png");
    std::fs::write(&bomb, png).unwrap();
    refused(&bomb);
}

#[test]
fn missing_and_wrong_programs_are_named() {
    let folder = folder();
    let path = make(&folder.path().join("a.png"), "-f lavfi -i color=s=16x16:d=1 -frames:v 1");
    let missing = Tools::new("/no/such/ffmpeg", "/no/such/ffprobe");
    for error in [missing.check().unwrap_err(), probe(&missing, &path).unwrap_err()] {
        assert!(matches!(error, MediaError::ToolMissing { .. }));
        assert!(error.to_string().contains("apt-get install ffmpeg"), "{error}");
    }
    assert!(matches!(Tools::new("true", "true").check(), Err(MediaError::ToolFailed { .. })));
}
