//! Preparation of real and hostile files, end to end. Real clips are those of the shared data
//! folder (`SYNCDIFF_DATA`), the face models those of `SYNCDIFF_MODELS`; where one is absent
//! the test says so.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;

use syncdiff_data::{
    Clip, ClipArrays, ClipFilter, ClipSource, ClipSync, DataError, Dataset, Layout, PrepareOptions, PrepareReport,
    SampleOptions, Sampler, SyncJudge, SyntheticOptions, Verdict, Voice, prepare, read_inputs, read_manifest,
    synthesize_media,
};
use syncdiff_face::FaceModels;
use syncdiff_media::Tools;

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn folder(variable: &str, otherwise: &str) -> PathBuf {
    std::env::var_os(variable).map_or_else(|| workspace().join(otherwise), PathBuf::from)
}

fn models() -> Option<FaceModels> {
    let path = folder("SYNCDIFF_MODELS", ".cache/models").join("face");
    if !path.is_dir() {
        println!("skipped: face models {path:?} absent");
        return None;
    }
    Some(FaceModels::load(&path).expect("the face models are whole"))
}

/// Three clips of the shared folder: two corpora, 25 and 30 frames a second.
fn real_clips() -> Option<Vec<ClipSource>> {
    let path = folder("SYNCDIFF_DATA", "../shared/data").join("manifest.tsv");
    if !path.is_file() {
        println!("skipped: shared data {path:?} absent");
        return None;
    }
    let clips = read_manifest(&path).expect("the manifest is read");
    let text = std::fs::read_to_string(&path).expect("the manifest is text");
    let fps_of: HashMap<&str, &str> = text
        .lines()
        .map(|line| line.split('\t').collect::<Vec<_>>())
        .filter_map(|cells| Some((*cells.first()?, *cells.get(6)?)))
        .collect();
    let first = |corpus: &str, fps: &str| {
        clips
            .iter()
            .find(|clip| {
                let wanted = fps_of.get(relative(&path, &clip.path).as_str()) == Some(&fps);
                clip.corpus == corpus && clip.split == "train" && wanted
            })
            .cloned()
    };
    Some([first("GRID", "25")?, first("LRW-AR", "25.0")?, first("LRW-AR", "30.0")?].into())
}

fn relative(manifest: &Path, clip: &Path) -> String {
    let folder = manifest.parent().expect("a folder");
    clip.strip_prefix(folder).expect("below the manifest").display().to_string()
}

fn run(models: &FaceModels, clips: &[ClipSource], out: &Path) -> Result<PrepareReport, DataError> {
    // A file for each clip: what a run touches and what not shows file by file.
    let options = PrepareOptions { crop_size: 64, num_threads: 2, shard_bytes: 0, ..PrepareOptions::default() };
    prepare(&Tools::default(), models, clips, out, &options, None, &mut |_| ControlFlow::Continue(()))
}

/// Bytes and time of change of all files but those that a run always writes anew.
fn state(folder: &Path) -> HashMap<PathBuf, (Vec<u8>, SystemTime)> {
    let mut files = HashMap::new();
    let mut open = vec![folder.to_path_buf()];
    while let Some(next) = open.pop() {
        for entry in std::fs::read_dir(next).expect("a folder").flatten() {
            let path = entry.path();
            if path.is_dir() {
                open.push(path);
            } else {
                let changed = entry.metadata().and_then(|m| m.modified()).expect("a time");
                files.insert(path.clone(), (std::fs::read(&path).expect("a file"), changed));
            }
        }
    }
    files
}

#[test]
fn real_clips_are_prepared_once() {
    let (Some(models), Some(clips)) = (models(), real_clips()) else { return };
    let out = tempfile::tempdir().unwrap();
    let report = run(&models, &clips, out.path()).unwrap();
    assert_eq!((report.clips.len(), report.resumed), (3, 0));
    for clip in &report.clips {
        assert!(clip.verdict.is_kept(), "{}: {} {}", clip.clip, clip.verdict, clip.reason);
        let entry = clip.entry.as_ref().unwrap();
        let read = Clip::read(&out.path().join(&entry.file)).unwrap();
        assert_eq!(read.num_frames(), entry.num_frames);
        assert!(entry.num_frames >= 20 && entry.num_valid * 10 >= entry.num_frames * 9);
        assert!(read.speech().iter().any(|sample| sample.abs() > 500), "there is speech");
        // The face is where the template puts it: the lips (13, 14) below the eyes (33, 263), all
        // inside the crop, in every frame.
        for frame in entry.valid_frames() {
            let points = read.landmarks(frame);
            let y = |point: usize| points[point * 2 + 1];
            assert!(y(33) < y(13) && y(263) < y(13) && y(13) <= y(14) + 1.0, "frame {frame}");
            for point in [33, 263, 13, 14, 61, 291] {
                let (x, y) = (points[point * 2], points[point * 2 + 1]);
                assert!((0.0..64.0).contains(&x) && (0.0..64.0).contains(&y), "{point}: {x}, {y}");
            }
        }
        assert!((0.0..0.5).contains(&entry.mean_opening), "{}", entry.mean_opening);
    }

    // A second run touches no clip and ends in the same bytes.
    let before = state(out.path());
    let again = run(&models, &clips, out.path()).unwrap();
    assert_eq!((again.resumed, &again.clips), (3, &report.clips));
    let after = state(out.path());
    assert_eq!(before.len(), after.len());
    for (path, (bytes, changed)) in &before {
        assert_eq!(bytes, &after[path].0, "{path:?}");
        if path.extension().is_some_and(|e| e == "safetensors") {
            assert_eq!(changed, &after[path].1, "{path:?} was written again");
        }
    }

    // A lost file is made again, with the same bytes.
    let lost = out.path().join(&report.clips[1].entry.as_ref().unwrap().file);
    std::fs::remove_file(&lost).unwrap();
    assert_eq!(run(&models, &clips, out.path()).unwrap().resumed, 2);
    assert_eq!(std::fs::read(&lost).unwrap(), before[&lost].0);

    let data = Dataset::open(out.path(), 1 << 30).unwrap();
    let options = SampleOptions::default();
    let sampler = Sampler::new(&data, &ClipFilter::split("train"), options).unwrap();
    let sample = sampler.sample(&data, 3, 7).unwrap();
    assert_eq!(sample.target().len(), 64 * 64 * 3);
    assert_ne!(sample.target(), sample.identity());
}

#[test]
fn stopping_and_running_again_ends_as_one_run() {
    let (Some(models), Some(clips)) = (models(), real_clips()) else { return };
    let (whole, parts) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    run(&models, &clips, whole.path()).unwrap();
    let options = PrepareOptions { crop_size: 64, num_threads: 1, shard_bytes: 0, ..PrepareOptions::default() };
    let stopped =
        prepare(&Tools::default(), &models, &clips, parts.path(), &options, None, &mut |_| ControlFlow::Break(()));
    assert!(matches!(stopped, Err(DataError::Cancelled { finished: 1, total: 3 })));
    assert!(Dataset::open(parts.path(), 1).is_err(), "no index before the end");
    // A file cut off by a kill, under its temporary name and under its own.
    let files = state(parts.path());
    let (clip, (bytes, _)) =
        files.iter().find(|(path, _)| path.extension().is_some_and(|e| e == "safetensors")).unwrap();
    std::fs::write(clip, &bytes[..bytes.len() / 2]).unwrap();
    std::fs::write(clip.with_file_name(".part-Abc123"), &bytes[..99]).unwrap();
    assert_eq!(run(&models, &clips, parts.path()).unwrap().resumed, 0);
    let (whole_files, part_files) = (state(whole.path()), state(parts.path()));
    assert_eq!(whole_files.len(), part_files.len());
    for (path, (bytes, _)) in &whole_files {
        let same = parts.path().join(path.strip_prefix(whole.path()).unwrap());
        assert!(bytes == &part_files[&same].0, "{same:?} differs");
    }
    let other = PrepareOptions { crop_size: 96, ..options };
    let mixed =
        prepare(&Tools::default(), &models, &clips, parts.path(), &other, None, &mut |_| ControlFlow::Continue(()));
    assert!(matches!(mixed, Err(DataError::Parameter { .. })), "no mixture of crop sizes");
}

fn ffmpeg(args: &[&str], out: &Path) {
    let ran = Command::new("ffmpeg")
        .args(["-hide_banner", "-loglevel", "error", "-nostdin", "-y"])
        .args(args)
        .arg(out)
        .status()
        .expect("ffmpeg is installed");
    assert!(ran.success(), "{args:?}");
}

#[test]
fn every_unfit_clip_gets_its_verdict() {
    let Some(models) = models() else { return };
    let inputs = tempfile::tempdir().unwrap();
    let path = |name: &str| inputs.path().join(name);
    let bars = "testsrc=size=96x64:rate=25:duration=1";
    let tone = "sine=frequency=300:duration=1";
    let both = ["-f", "lavfi", "-i", bars, "-f", "lavfi", "-i", tone, "-c:v", "mpeg4"];
    ffmpeg(&both, &path("-no face.mp4"));
    ffmpeg(&["-f", "lavfi", "-i", bars, "-c:v", "mpeg4"], &path("mute.mp4"));
    ffmpeg(&["-f", "lavfi", "-i", tone, "-vn"], &path("blind.m4v"));
    let bytes = std::fs::read(path("-no face.mp4")).unwrap();
    std::fs::write(path("cut.mp4"), &bytes[..bytes.len() / 3]).unwrap();
    std::fs::write(path("text.mp4"), "this is no video at all, but a sentence").unwrap();
    std::fs::write(path("empty.mkv"), "").unwrap();
    let mut clips = read_inputs(inputs.path(), Some(Layout::Folder)).unwrap().clips;
    clips.push(ClipSource { path: path("gone.mp4"), name: "gone".into(), ..clips[0].clone() });
    let out = tempfile::tempdir().unwrap();
    let report = run(&models, &clips, out.path()).unwrap();
    let verdict = |name: &str| {
        let found = report.clips.iter().find(|clip| clip.clip.ends_with(name)).unwrap();
        assert!(!found.reason.is_empty() && found.entry.is_none(), "{found:?}");
        found.verdict
    };
    assert_eq!(verdict("_-no_face"), Verdict::NoFace);
    assert_eq!(verdict("mute"), Verdict::NoAudio);
    assert_eq!(verdict("blind"), Verdict::NoVideo);
    for name in ["cut", "text", "empty", "gone"] {
        assert_eq!(verdict(name), Verdict::Unreadable, "{name}");
    }
    let table = std::fs::read_to_string(out.path().join(syncdiff_data::REPORT_FILE)).unwrap();
    assert_eq!(table.lines().count(), 1 + clips.len());
    assert!(table.lines().all(|line| line.split('\t').count() == 16), "{table}");
    assert!(matches!(Dataset::open(out.path(), 1), Err(DataError::NoClips { .. })));
    // Verdicts are kept as well, and a file that appears is taken up.
    std::fs::copy(path("mute.mp4"), path("gone.mp4")).unwrap();
    let again = run(&models, &clips, out.path()).unwrap();
    assert_eq!(again.resumed, clips.len() - 1);
    let options = PrepareOptions { max_frames: 10, ..PrepareOptions::default() };
    let short = tempfile::tempdir().unwrap();
    let report = prepare(&Tools::default(), &models, &clips[..1], short.path(), &options, None, &mut |_| {
        ControlFlow::Continue(())
    })
    .unwrap();
    assert_eq!(report.clips[0].verdict, Verdict::TooLong);
}

#[test]
fn impossible_requests_are_refused() {
    let Some(models) = models() else { return };
    let out = tempfile::tempdir().unwrap();
    let clip = ClipSource {
        path: "x.mp4".into(),
        corpus: "c".into(),
        split: "train".into(),
        speaker: "s".into(),
        name: "n".into(),
        transcript: String::new(),
        licence: String::new(),
        origin: String::new(),
    };
    let refused = |clips: &[ClipSource], options: PrepareOptions, tools: &Tools| {
        prepare(tools, &models, clips, out.path(), &options, None, &mut |_| ControlFlow::Continue(())).unwrap_err()
    };
    let base = PrepareOptions::default();
    let tools = Tools::default();
    let twice = [clip.clone(), clip.clone()];
    assert!(matches!(refused(&twice, base, &tools), DataError::Parameter { .. }));
    for options in [
        PrepareOptions { crop_size: 30, ..base },
        PrepareOptions { crop_size: 2048, ..base },
        PrepareOptions { crop_size: 129, ..base },
        PrepareOptions { min_valid_frames: 0, ..base },
        PrepareOptions { max_frames: 3, ..base },
    ] {
        let error = refused(std::slice::from_ref(&clip), options, &tools);
        assert!(matches!(error, DataError::Parameter { .. }), "{error}");
    }
    let missing = refused(&[clip], base, &Tools::new("/nowhere/ffmpeg", "/nowhere/ffprobe"));
    assert!(matches!(missing, DataError::Media(_)), "{missing}");
}

/// Three drawn clips as videos with a manifest.
fn drawn(folder: &Path) -> Vec<ClipSource> {
    let options = SyntheticOptions {
        num_clips: 3,
        num_frames: 20,
        crop_size: 128,
        voice: Voice::Tones,
        ..SyntheticOptions::default()
    };
    let manifest = synthesize_media(&options, &Tools::default(), folder, &mut |_| true).unwrap();
    let clips = read_inputs(&manifest, None).unwrap();
    assert_eq!((clips.layout, clips.clips.len()), (Layout::Manifest, 3));
    // A second call draws nothing and lists the same.
    assert_eq!(synthesize_media(&options, &Tools::default(), folder, &mut |_| true).unwrap(), manifest);
    assert_eq!(read_manifest(&manifest).unwrap(), clips.clips);
    let other = SyntheticOptions { seed: 1, ..options };
    let mixed = synthesize_media(&other, &Tools::default(), folder, &mut |_| true);
    assert!(matches!(mixed, Err(DataError::Parameter { .. })), "no mixture of seeds");
    clips.clips
}

/// Hears a sound that is two frames late everywhere but in the clip of the test split.
struct Judge;

impl SyncJudge for Judge {
    fn name(&self) -> String {
        "test judge".into()
    }

    fn judge(&self, clip: &ClipArrays) -> Result<ClipSync, String> {
        if clip.opening[0] < 0.0 || clip.frames.is_empty() || clip.speech.is_empty() {
            return Err("no clip".into());
        }
        Ok(ClipSync { offset_frames: 2, confidence: 6.5 })
    }
}

struct Deaf;

impl SyncJudge for Deaf {
    fn name(&self) -> String {
        "deaf".into()
    }

    fn judge(&self, _: &ClipArrays) -> Result<ClipSync, String> {
        Err("it hears nothing".into())
    }
}

#[test]
fn drawn_videos_are_prepared_into_shards_with_quality_and_judge() {
    let Some(models) = models() else { return };
    let inputs = tempfile::tempdir().unwrap();
    let clips = drawn(inputs.path());
    let options = PrepareOptions { num_threads: 2, ..PrepareOptions::default() };
    let go = |out: &Path, options: &PrepareOptions, judge: Option<&dyn SyncJudge>| {
        prepare(&Tools::default(), &models, &clips, out, options, judge, &mut |_| ControlFlow::Continue(())).unwrap()
    };
    let out = tempfile::tempdir().unwrap();
    let report = go(out.path(), &options, Some(&Judge));
    assert!(report.clips.iter().all(|clip| clip.verdict == Verdict::Kept), "{:?}", report.clips);
    let data = Dataset::open(out.path(), 0).unwrap();
    assert!(data.damaged().is_empty());
    for (at, entry) in data.clips().iter().enumerate() {
        assert_eq!(entry.file, format!("{}-000000.tar", entry.split));
        let quality = entry.quality.unwrap();
        assert!((40.0..90.0).contains(&quality.eye_distance_px) && quality.yaw_degrees < 25.0, "{quality:?}");
        assert!(quality.sharpness > 1.0 && quality.other_faces == 0.0, "{quality:?}");
        assert_eq!(entry.sync, Some(ClipSync { offset_frames: 2, confidence: 6.5 }));
        assert_eq!(data.load(at).unwrap().meta().transcript, entry.transcript);
    }
    let table = std::fs::read_to_string(out.path().join(syncdiff_data::REPORT_FILE)).unwrap();
    assert!(table.lines().skip(1).all(|line| line.contains("\t2\t6.500\t")), "{table}");

    let deaf = tempfile::tempdir().unwrap();
    let report = go(deaf.path(), &options, Some(&Deaf));
    assert!(report.clips.iter().all(|clip| clip.verdict.is_kept() && clip.reason.contains("hears nothing")));
    let table = std::fs::read_to_string(deaf.path().join(syncdiff_data::REPORT_FILE)).unwrap();
    assert!(table.lines().skip(1).all(|line| line.contains("\tno judge\tno judge\t")), "{table}");

    for (quality, verdict) in [
        (syncdiff_data::QualityLimits { min_eye_distance_px: 200.0, ..options.quality }, Verdict::TooSmall),
        (syncdiff_data::QualityLimits { min_sharpness: 99.0, ..options.quality }, Verdict::Blurred),
        (syncdiff_data::QualityLimits { max_yaw_degrees: 0.0, ..options.quality }, Verdict::TurnedAway),
    ] {
        let strict = tempfile::tempdir().unwrap();
        let report = go(strict.path(), &PrepareOptions { quality, ..options }, None);
        assert!(report.clips.iter().all(|clip| clip.verdict == verdict && clip.entry.is_none()), "{verdict}");
    }
}
