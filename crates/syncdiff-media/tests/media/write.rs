//! What is written has the planned frames at the planned times, beside the sound.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use syncdiff_media::process::{Limits, run};
use syncdiff_media::{
    Colour, Fault, Frame, FrameIndex, LengthPolicy, MediaError, MediaInfo, OddSize, Plan, Rational, ReadOptions, Sound,
    SourceWalk, Time, Tools, VideoWriter, WriterOptions, Written, decode_speech, probe, scan_index,
};

use crate::support::{X264, entries, folder, make, names, near, packet_pts, read_whole, tools};

fn quick() -> WriterOptions {
    WriterOptions { preset: "ultrafast".into(), ..WriterOptions::default() }
}

/// Copies a clip frame by frame under a policy, with the sound of another file.
fn copy(video: &Path, sound: &Path, out: &Path, policy: LengthPolicy, options: &WriterOptions) -> (Plan, Written) {
    let (clip, heard) = (Clip::open(video), probe(&tools(), sound).unwrap());
    let speech = decode_speech(&tools(), &heard).unwrap().duration();
    clip.copy(Sound(heard), speech, out, policy, options)
}

struct Clip {
    info: MediaInfo,
    index: FrameIndex,
}

impl Clip {
    fn open(path: &Path) -> Self {
        let info = probe(&tools(), path).unwrap();
        let (index, _) = scan_index(&tools(), &info, &ReadOptions::default()).unwrap();
        Clip { info, index }
    }

    fn copy(
        &self,
        sound: Sound,
        speech: Time,
        out: &Path,
        policy: LengthPolicy,
        options: &WriterOptions,
    ) -> (Plan, Written) {
        let plan = Plan::new(&self.index, policy, speech).unwrap();
        let size = self.info.video.as_ref().map(|video| (video.width, video.height)).unwrap();
        let mut writer = VideoWriter::create(&tools(), out, size, &plan, Some(&sound), options).unwrap();
        let (read, all) = (ReadOptions::default(), 0..plan.len());
        let walk = SourceWalk::new(&tools(), &self.info, &self.index, &plan, all, &read).unwrap();
        for frame in walk {
            let frame = frame.unwrap();
            writer.push(&frame.frame, frame.pts).unwrap();
        }
        (plan, writer.finish().unwrap())
    }
}

/// Start and end of the first stream of a kind, in seconds.
fn span(path: &Path, kind: &str) -> (f64, f64) {
    let line = entries(path, kind, "stream=start_time,duration").remove(0);
    let mut parts = line.split(',').map(|part| part.parse::<f64>().unwrap_or(f64::NAN));
    let (start, duration) = (parts.next().unwrap(), parts.next().unwrap());
    (start, start + duration)
}

#[test]
fn planned_times_and_lengths_are_in_the_file() {
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    let tone = make(&at("tone.wav"), "-f lavfi -i sine=r=44100:d=1.313");
    let clip = |name: &str, args: &str| make(&at(name), &format!("-f lavfi -i testsrc2=s=64x48{args}"));
    let vfr = format!(
        ":r=50:d=0.5 -vf settb=1/12800,setpts=13*(N*N+7*N) -fps_mode passthrough -enc_time_base \
         1/12800 {X264} -bf 2"
    );
    use LengthPolicy::{Audio, Cut, Loop, Video};
    let clips = [
        (clip("a.mp4", &format!(":r=25:d=1 {X264}")), vec![Audio, Loop]),
        (clip("b.mp4", &format!(":r=30000/1001:d=2 {X264}")), vec![Audio]),
        (clip("c.avi", ":r=50:d=1 -c:v mpeg4"), vec![Cut]),
        (clip("d.mp4", &vfr), vec![Audio, Video]),
        (clip("e.png", " -frames:v 1"), vec![Audio]),
    ];
    let heard = probe(&tools(), &tone).unwrap();
    let speech = decode_speech(&tools(), &heard).unwrap().duration();
    assert_eq!(speech.millis(), 1313);
    for (clip, policies) in &clips {
        let clip = Clip::open(clip);
        for policy in policies {
            let out = at("out.mp4");
            let (plan, written) = clip.copy(Sound(heard.clone()), speech, &out, *policy, &quick());
            assert_eq!(written.num_frames, plan.len());
            assert_eq!(written.sound_copied, Some(false));
            let what = format!("{:?} {policy:?}", clip.info.path.file_name());
            let result = probe(&tools(), &out).unwrap();
            let (video, audio) = (result.video.unwrap(), result.audio.unwrap());
            let time = |pts| Time::new(pts, plan.time_base());
            let expected: Vec<Time> = plan.frames().map(|frame| time(frame.pts)).collect();
            let found: Vec<Time> = packet_pts(&out).iter().map(|pts| Time::new(*pts, video.time_base)).collect();
            assert_eq!(found, expected, "{what}");
            // Both streams start at 0 and end with the plan; mp4 tells the end of sound in
            // milliseconds.
            assert_eq!((video.start, audio.start), (0, 0), "{what}");
            let end = Time::new(video.duration.unwrap(), video.time_base);
            assert_eq!(end, plan.duration(), "{what}");
            let heard = Time::new(audio.duration.unwrap(), audio.time_base).secs();
            assert!((heard - end.secs()).abs() < 0.0011, "{what}: {heard} {end:?}");
            assert_eq!((audio.codec.as_str(), audio.rate), ("aac", 44_100));
            let head = std::fs::read(&out).unwrap();
            let find = |tag: &[u8]| head.windows(4).position(|bytes| bytes == tag).unwrap();
            assert!(find(b"moov") < find(b"mdat"), "the index comes first");
            assert_eq!(out.metadata().unwrap().permissions().mode() & 0o777, 0o644);
        }
    }
}

#[test]
fn other_containers_keep_the_times_too() {
    let folder = folder();
    let tone = make(&folder.path().join("tone.wav"), "-f lavfi -i sine=r=48000:d=0.73");
    let clip = make(&folder.path().join("a.mp4"), &format!("-f lavfi -i testsrc2=s=64x48:r=30000/1001:d=1 {X264}"));
    for name in ["out.mkv", "out.mov"] {
        let out = folder.path().join(name);
        let (plan, _) = copy(&clip, &tone, &out, LengthPolicy::Audio, &quick());
        let whole = read_whole(&out);
        assert_eq!(whole.index.len(), plan.len(), "{name}");
        for frame in plan.frames() {
            let found = Time::new(whole.index.since_start(frame.output), whole.index.time_base());
            let expected = Time::new(frame.pts, plan.time_base());
            assert!((found.secs() - expected.secs()).abs() <= 0.0006, "{name} {frame:?} {found:?}");
        }
        let (video, audio) = (whole.info.video.unwrap(), whole.info.audio.unwrap());
        assert_eq!((video.start, audio.start), (0, 0), "{name}");
        for (duration, base) in [(video.duration, video.time_base), (audio.duration, audio.time_base)] {
            let end = Time::new(duration.unwrap(), base).secs();
            assert!((end - plan.duration().secs()).abs() <= 0.0011, "{name}: {end}");
        }
    }
}

/// Decoded samples of a file at 44.1 kHz, one channel.
fn decoded(path: &Path) -> Vec<u8> {
    let path = path.to_str().unwrap();
    let args = ["-v", "error", "-i", path, "-map", "0:a", "-f", "s16le", "-ac", "1", "-"];
    run(&tools().ffmpeg, args, &Limits::default()).unwrap().stdout
}

#[test]
fn own_sound_is_copied_and_shifted_sound_is_not() {
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    let source = make(
        &at("a.mp4"),
        &format!(
            "-f lavfi -i testsrc2=s=64x48:r=25:d=1.5 -f lavfi -i aevalsrc=random(0)*0.3:s=44100:d=1.5 {X264} -c:a aac"
        ),
    );
    let (plan, written) = copy(&source, &source, &at("out.mp4"), LengthPolicy::Audio, &quick());
    assert_eq!(written.sound_copied, Some(true));
    let packets = |path: &Path| entries(path, "a:0", "packet=pts,size");
    assert_eq!(packets(&at("out.mp4")), packets(&source), "the same packets at the same times");
    assert_eq!(decoded(&at("out.mp4")), decoded(&source), "the same samples");
    let (video, audio) = (span(&at("out.mp4"), "v:0"), span(&at("out.mp4"), "a:0"));
    assert!((video.0 - audio.0).abs() < 0.02 && (video.1 - audio.1).abs() < 0.02);
    assert!(plan.len() >= 37);

    // The picture starts 0.2 s after the sound: what comes before it is cut from both.
    let shifted = make(
        &at("b.mp4"),
        &format!(
            "-itsoffset 0.2 -f lavfi -i testsrc2=s=64x48:d=1 -f lavfi -i \
         aevalsrc=0.5*sin(2*PI*800*t)*gte(t\\,0.7):s=44100:d=1.2 -fps_mode passthrough {X264} -c:a aac"
        ),
    );
    let (_, written) = copy(&shifted, &shifted, &at("out3.mp4"), LengthPolicy::Audio, &quick());
    assert_eq!(written.sound_copied, Some(false));
    let result = probe(&tools(), &at("out3.mp4")).unwrap();
    let speech = decode_speech(&tools(), &result).unwrap();
    let onset = speech.samples.iter().position(|s| s.unsigned_abs() > 1500).unwrap();
    assert!(onset.abs_diff(8000) < 40, "the tone begins 0.5 s after the first frame: {onset}");
}

fn still_plan(frames: i64) -> Plan {
    let index = FrameIndex::still(Rational::new(25, 1)).unwrap();
    Plan::new(&index, LengthPolicy::Audio, Time::from_samples(640 * frames)).unwrap()
}

fn write_flat(out: &Path, frame: &Frame, frames: i64, options: &WriterOptions) -> Written {
    let plan = still_plan(frames);
    let size = (frame.width, frame.height);
    let mut writer = VideoWriter::create(&tools(), out, size, &plan, None, options).unwrap();
    for planned in plan.frames() {
        writer.push(frame, planned.pts).unwrap();
    }
    writer.finish().unwrap()
}

#[test]
fn colours_and_odd_sizes_survive() {
    let folder = folder();
    let out = folder.path().join("out.mp4");
    let colours = [[200, 60, 30], [20, 180, 90], [30, 60, 220], [128, 128, 128]];
    for (width, height) in [(64, 48), (1280, 720)] {
        let mut frame = Frame::filled(width, height, colours[0]);
        for (part, colour) in colours.iter().enumerate() {
            frame.paste(&Frame::filled(width / 4, height, *colour), part * width / 4, 0);
        }
        let options = WriterOptions { crf: 10, ..quick() };
        assert_eq!(write_flat(&out, &frame, 2, &options).sound_copied, None);
        let whole = read_whole(&out);
        for (part, colour) in colours.iter().enumerate() {
            let pixel = whole.frames[1].pixel(part * width / 4 + width / 8, height / 2);
            assert!(near(pixel, *colour, 3), "{width}: {pixel:?} for {colour:?}");
        }
        let tag = &entries(&out, "v:0", "stream=color_space,color_range")[0];
        let expected = if height >= 720 { "tv,bt709" } else { "tv,smpte170m" };
        assert_eq!(tag, expected);
    }
    let odd = Frame::filled(63, 47, [200, 60, 30]);
    assert_eq!(write_flat(&out, &odd, 2, &quick()).size, (64, 48));
    let whole = read_whole(&out);
    assert!(near(whole.frames[0].pixel(63, 47), [200, 60, 30], 5), "the edge is repeated");
    let keep = WriterOptions { odd_size: OddSize::Keep, ..quick() };
    assert_eq!(write_flat(&out, &odd, 2, &keep).size, (63, 47));
    let video = read_whole(&out).info.video.unwrap();
    assert_eq!((video.width, video.height, video.pixel_format.as_str()), (63, 47, "yuv444p"));
    let stated = Colour { transfer: Some("iec61966-2-1".into()), ..Colour::for_size(64, 48) };
    let stated = WriterOptions { colour: Some(stated), ..quick() };
    write_flat(&out, &odd, 1, &stated);
    assert_eq!(entries(&out, "v:0", "stream=color_transfer"), ["iec61966-2-1"]);
}

#[test]
fn nothing_partial_remains() {
    let folder = folder();
    let out = folder.path().join("out.mp4");
    std::fs::write(&out, b"what was there").unwrap();
    let frame = Frame::filled(64, 48, [1, 2, 3]);
    let plan = still_plan(50);
    let start = || VideoWriter::create(&tools(), &out, (64, 48), &plan, None, &quick()).unwrap();
    let unharmed = || {
        assert_eq!(std::fs::read(&out).unwrap(), b"what was there");
        assert_eq!(names(folder.path()), ["out.mp4"]);
    };
    // Dropped half-way.
    let mut writer = start();
    for planned in plan.frames().take(20) {
        writer.push(&frame, planned.pts).unwrap();
    }
    drop(writer);
    unharmed();
    // Ended too early; wrong size; wrong time.
    let mut writer = start();
    writer.push(&frame, 0).unwrap();
    assert_eq!(writer.push(&frame, 7).unwrap_err().fault(), Fault::Internal);
    assert_eq!(writer.push(&Frame::filled(2, 2, [0; 3]), 1).unwrap_err().fault(), Fault::Internal);
    assert!(writer.finish().is_err());
    unharmed();
    // Replaced on success only.
    write_flat(&out, &frame, 3, &quick());
    assert_eq!(names(folder.path()), ["out.mp4"]);
    assert_eq!(probe(&tools(), &out).unwrap().video.unwrap().num_frames, Some(3));
}

/// A stand-in for ffmpeg that answers `-version` and otherwise runs a script.
fn stand_in(folder: &Path, script: &str) -> Tools {
    let path = folder.join("stand-in");
    let text = format!("#!/bin/sh\nif [ \"$1\" = -version ]; then exec ffmpeg -version; fi\n{script}\n");
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    Tools::new(path, "ffprobe")
}

/// Pushes everything and finishes; the error of whichever fails.
fn outcome(tools: &Tools, out: &Path, stall: std::time::Duration) -> MediaError {
    let frame = Frame::filled(640, 480, [1, 2, 3]);
    let plan = still_plan(20);
    let options = WriterOptions { stall, ..quick() };
    let mut writer = VideoWriter::create(tools, out, (640, 480), &plan, None, &options).unwrap();
    let pushed = plan.frames().try_for_each(|planned| writer.push(&frame, planned.pts));
    pushed.and_then(|()| writer.finish().map(|_| ())).expect_err("must fail")
}

#[test]
fn a_dying_or_silent_encoder_is_named() {
    let (bin, folder) = (folder(), folder());
    let out = folder.path().join("out.mp4");
    let long = std::time::Duration::from_secs(20);
    let full = stand_in(
        bin.path(),
        "head -c 100000 >/dev/null; echo 'av_interleaved_write_frame(): No space left on device' >&2; exit 1",
    );
    let error = outcome(&full, &out, long);
    assert!(matches!(error, MediaError::DiskFull { .. }) && error.fault() == Fault::Io, "{error}");
    let dead = stand_in(bin.path(), "head -c 100000 >/dev/null; kill -9 $$");
    let error = outcome(&dead, &out, long);
    assert!(error.to_string().contains("ended by a signal"), "{error}");
    let lazy = stand_in(bin.path(), "exec sleep 30");
    let error = outcome(&lazy, &out, std::time::Duration::from_millis(300));
    assert!(matches!(error, MediaError::Timeout { .. }), "{error}");
    let liar = stand_in(bin.path(), "cat >/dev/null");
    let error = outcome(&liar, &out, long);
    assert!(error.to_string().contains("cannot be read"), "{error}");
    assert!(names(folder.path()).is_empty());
}

#[test]
fn a_full_disk_is_an_io_error() {
    // A tiny file system needs rights that tests seldom have; the stand-in above is the fallback.
    let folder = folder();
    let point = folder.path().join("tiny");
    std::fs::create_dir(&point).unwrap();
    let mount = |args: &[&str]| {
        let output = run(Path::new("mount"), args, &Limits::default());
        output.is_ok_and(|output| output.success)
    };
    if !mount(&["-t", "tmpfs", "-o", "size=64k", "tmpfs", point.to_str().unwrap()]) {
        println!("skipped: a tiny file system cannot be mounted here");
        return;
    }
    let plan = still_plan(40);
    let error = (|| {
        let out = point.join("out.mp4");
        let mut writer = VideoWriter::create(&tools(), &out, (320, 240), &plan, None, &quick())?;
        for planned in plan.frames() {
            let noise = (0..320 * 240 * 3)
                .map(|i| ((i as u32).wrapping_mul(2_654_435_761).rotate_left(planned.output as u32) >> 7) as u8);
            writer.push(&Frame::from_rgb(320, 240, noise.collect())?, planned.pts)?;
        }
        writer.finish()
    })()
    .expect_err("64 kB are not enough");
    let left = names(&point);
    let _ = run(Path::new("umount"), [&point], &Limits::default());
    assert!(matches!(error, MediaError::DiskFull { .. }) && error.fault() == Fault::Io, "{error}");
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn outputs_that_cannot_be_are_refused_before_any_work() {
    let folder = folder();
    let plan = still_plan(1);
    let refuse =
        |path: PathBuf| VideoWriter::create(&tools(), &path, (64, 48), &plan, None, &quick()).map(|_| ()).unwrap_err();
    assert_eq!(refuse(folder.path().join("no/such/out.mp4")).fault(), Fault::Io);
    assert_eq!(refuse(folder.path().join("out.webm")).fault(), Fault::Usage);
    std::fs::create_dir(folder.path().join("dir.mp4")).unwrap();
    assert_eq!(refuse(folder.path().join("dir.mp4")).fault(), Fault::Io);
    assert_eq!(refuse(PathBuf::from("/proc/out.mp4")).fault(), Fault::Io);
    let silent: MediaInfo = {
        let path = make(&folder.path().join("s.mp4"), &format!("-f lavfi -i testsrc2=s=64x48:d=0.1 {X264}"));
        probe(&tools(), &path).unwrap()
    };
    let out = folder.path().join("out.mp4");
    let sound = Sound(silent);
    let result = VideoWriter::create(&tools(), &out, (64, 48), &plan, Some(&sound), &quick());
    assert!(matches!(result.map(|_| ()), Err(MediaError::NoAudio { .. })));
    assert_eq!(names(folder.path()), ["dir.mp4", "s.mp4"]);
}
