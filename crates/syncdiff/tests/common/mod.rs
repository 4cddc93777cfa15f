//! What the end-to-end tests share: the program, a tiny untrained model, clips with and without a face.
//!
//! Clips with a face come from the folder named by `SYNCDIFF_DATA` (default `../shared/data` beside the project) or
//! from `assets/demo`; where neither is there, the test says so and passes.
#![allow(dead_code)] // each test file uses its own part

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

use burn::tensor::Device;
use syncdiff_model::weights::Storage;
use syncdiff_model::{LipSync, LipSyncConfig};
use tempfile::TempDir;

/// The project's root.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().expect("the project's root")
}

/// An untrained model so small that a frame takes milliseconds; one for all tests of a file.
pub(crate) fn tiny_model() -> &'static Path {
    static FOLDER: OnceLock<TempDir> = OnceLock::new();
    FOLDER
        .get_or_init(|| {
            let folder = TempDir::new().expect("a folder");
            let model = LipSync::random(&tiny_config(), 1, &Device::flex()).expect("a tiny model");
            model.save(folder.path(), Storage::F16, "# tiny\n", "MIT").expect("saved");
            folder
        })
        .path()
}

fn tiny_config() -> LipSyncConfig {
    let mut config = LipSyncConfig::lite().hearing(0);
    config.name = "tiny".into();
    config.crop_size = 64;
    config.autoencoder.ch = 8;
    config.unet.model_channels = 32;
    config.unet.channel_mult = vec![1, 2];
    config.unet.attention_resolutions = vec![2];
    config.unet.context_dim = 32;
    config.audio.dim = 32;
    config.audio.num_layers = 1;
    config.audio.num_heads = 2;
    config.audio.feed_forward_dim = 64;
    config.conditioning.dim = 32;
    config.sampler.num_steps = 2;
    config
}

/// The folder of the face models, or a line that says why the test does nothing.
pub(crate) fn face_models() -> Option<PathBuf> {
    let folder = match std::env::var_os("SYNCDIFF_MODELS") {
        Some(folder) => PathBuf::from(folder).join("face"),
        None => root().join(".cache/models/face"),
    };
    if folder.join("face_landmark.tflite").is_file() {
        return Some(folder);
    }
    println!("skipped: face models absent; run `syncdiff models pull`");
    None
}

/// A real clip with a face, or a line that says why the test does nothing.
pub(crate) fn face_clip() -> Option<PathBuf> {
    let data = match std::env::var_os("SYNCDIFF_DATA") {
        Some(folder) => PathBuf::from(folder),
        None => root().join("../shared/data"),
    };
    let grid = std::fs::read_dir(data.join("grid/s26")).into_iter().flatten().flatten().map(|entry| entry.path());
    let demo = std::fs::read_dir(root().join("assets/demo")).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut clips: Vec<PathBuf> = grid.filter(|path| path.extension().is_some_and(|e| e == "mp4")).collect();
    clips.sort();
    let mut demos: Vec<PathBuf> = demo.filter(|path| path.extension().is_some_and(|e| e == "mp4")).collect();
    demos.sort();
    let clip = clips.into_iter().chain(demos).next();
    if clip.is_none() {
        println!("skipped: no clip with a face: ../shared/data and assets/demo are absent");
    }
    clip
}

/// Everything that an end-to-end test with a face needs.
pub(crate) struct Stage {
    /// A folder of its own.
    pub(crate) folder: TempDir,
    /// One second of a face, 25 frames a second, with sound.
    pub(crate) clip: PathBuf,
    face_models: PathBuf,
}

impl Stage {
    /// Sets up, or says why not.
    pub(crate) fn set() -> Option<Stage> {
        let (face_models, source) = (face_models()?, face_clip()?);
        let folder = TempDir::new().expect("a folder");
        let clip = folder.path().join("face.mp4");
        let cut = ["-t", "1", "-vf", "fps=25", "-c:v", "libx264", "-crf", "12", "-pix_fmt", "yuv420p", "-c:a", "aac"];
        ffmpeg(&[&["-i", text(&source)], &cut[..], &[text(&clip)]].concat());
        Some(Stage { folder, clip, face_models })
    }

    /// A path in the folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Runs `generate` with the tiny model and these arguments.
    pub(crate) fn generate(&self, args: &[&str]) -> Output {
        let fixed = ["generate", "--weights", text(tiny_model()), "--face-models", text(&self.face_models)];
        syncdiff(&[&fixed[..], args].concat())
    }

    /// The command of [`Stage::generate`], not started.
    pub(crate) fn generate_command(&self, args: &[&str]) -> Command {
        self.command("generate", args)
    }

    /// A verb with the tiny model and these arguments, in the folder, not started.
    pub(crate) fn command(&self, verb: &str, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_syncdiff"));
        command.args([verb, "--weights", text(tiny_model()), "--face-models", text(&self.face_models)]);
        command.args(args).current_dir(self.folder.path()).env_remove("SYNCDIFF_CACHE");
        command
    }

    /// Names in the folder, hidden ones too.
    pub(crate) fn names(&self) -> Vec<String> {
        names_in(self.folder.path())
    }
}

/// Names in a folder, hidden ones too, sorted.
pub(crate) fn names_in(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).expect("a folder").flatten();
    let mut names: Vec<String> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// Runs the program.
pub(crate) fn syncdiff(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_syncdiff"))
        .args(args)
        .env_remove("SYNCDIFF_CACHE")
        .output()
        .expect("the program starts")
}

/// Runs ffmpeg, which must do well.
pub(crate) fn ffmpeg(args: &[&str]) {
    let output = Command::new("ffmpeg")
        .args(["-hide_banner", "-nostdin", "-loglevel", "error", "-y"])
        .args(args)
        .output()
        .expect("ffmpeg starts");
    assert!(output.status.success(), "ffmpeg {args:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A path as an argument.
pub(crate) fn text(path: &Path) -> &str {
    path.to_str().expect("a path in UTF-8")
}

/// What the program said on its error stream.
pub(crate) fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The run ended well.
pub(crate) fn assert_done(output: &Output) {
    assert_eq!(output.status.code(), Some(0), "{}", said(output));
}

/// The run failed with this code, and its message holds all of these parts.
pub(crate) fn assert_failed(output: &Output, code: i32, parts: &[&str]) {
    let said = said(output);
    assert_eq!(output.status.code(), Some(code), "{said}");
    for part in parts {
        assert!(said.contains(part), "`{part}` is not in: {said}");
    }
    assert!(!said.contains("panicked"), "{said}");
}

/// A sine of some seconds as WAV.
pub(crate) fn tone(path: &Path, secs: &str) {
    let source = format!("sine=frequency=220:duration={secs}:sample_rate=16000");
    ffmpeg(&["-f", "lavfi", "-i", &source, "-c:a", "pcm_s16le", text(path)]);
}

/// A clip without a face: colour bars of one second.
pub(crate) fn bars(path: &Path, extra: &[&str]) {
    let source = ["-f", "lavfi", "-i", "testsrc2=size=160x120:rate=25:duration=1"];
    ffmpeg(&[&source[..], extra, &[text(path)]].concat());
}
