//! `syncdiff eval`.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread::available_parallelism;

use clap::Args;
use serde::Serialize;
use syncdiff::device::{DeviceChoice, resolve};
use syncdiff::progress::{Cancel, Watch};
use syncdiff::render::BATCH;
use syncdiff::report::write_json;
use syncdiff::settings::Silence;
use syncdiff::silence::speech_frames;
use syncdiff::{Error, GenerateSettings, Outcome, generate};
use syncdiff_data::{ClipSource, read_manifest};
use syncdiff_eval::{
    CROP, ClipFigures, Reference, SheetRow, compare, contact_sheet, correlation, measure_faces, motion, mouth, paired,
    psnr, read_frames, ssim,
};
use syncdiff_face::{Affine, FaceModels, KeepMask, PasteMask, paste_back, warp};
use syncdiff_media::{Frame, LengthPolicy, Rational, Tools, decode_speech, probe, write_png};
use syncdiff_model::LipSync;
use syncdiff_model::generate::{rgb_to_tensor, tensor_to_rgb};

use crate::cli::{CompositeArg, FeedbackArg};
use crate::folders;
use crate::terminal::say;

/// Generate the clips of a split and score them against the originals
///
/// Every clip is driven by its own speech, and once more by the speech of another clip, which must not make the mouth
/// follow the original. Writes clips, contact sheets, `figures.json` and a summary.
#[derive(Debug, Args)]
pub(crate) struct EvalArgs {
    /// Manifest of clips (tab-separated, with `path` and `split` columns)
    #[arg(long, value_name = "FILE")]
    manifest: PathBuf,

    /// Split to score
    #[arg(long, value_name = "NAME", default_value = "test")]
    split: String,

    /// Folder for clips, sheets and figures
    #[arg(long, value_name = "DIR")]
    out: PathBuf,

    /// Weights folder; the preset's when not given
    #[arg(long, value_name = "DIR")]
    weights: Option<PathBuf>,

    /// Preset whose weights are scored
    #[arg(long, value_name = "NAME", default_value = "lite")]
    preset: String,

    /// Most clips of one speaker, spread evenly; 0 takes all
    #[arg(long, value_name = "N", default_value_t = 0)]
    per_speaker: usize,

    /// Contact sheets to write: of the first clip of each of the first N speakers
    #[arg(long, value_name = "N", default_value_t = 3)]
    sheets: usize,

    /// Clips worked on at once; each takes about one core and a few hundred MB [default: the number of cores]
    #[arg(long, value_name = "N")]
    jobs: Option<usize>,

    /// Steps of the sampler; the model's own default when not given
    #[arg(long, value_name = "N")]
    steps: Option<usize>,

    /// Weight of the speech, 1 to 20; the model's own default when not given
    #[arg(long, value_name = "WEIGHT")]
    guidance: Option<f32>,

    /// How the mouth gets into the frame
    #[arg(long, value_enum, default_value_t = CompositeArg::Face)]
    composite: CompositeArg,

    /// What a drawn frame hands to the next; the model's own default when not given
    #[arg(long, value_enum)]
    feedback: Option<FeedbackArg>,

    /// Where the networks run: auto, cpu, vulkan:N, cuda:N
    #[arg(long, value_name = "DEVICE", default_value = "auto")]
    device: DeviceChoice,
}

/// Scores of one clip.
#[derive(Debug, Serialize)]
struct Row {
    clip: String,
    speaker: String,
    corpus: String,
    own_speech: ClipFigures,
    other_speech: ClipFigures,
    other_speech_from: String,
    /// Correlation of the true openings of both clips, over the shorter one: what a perfect model would score with the
    /// other speech.
    other_truth_correlation: Option<f64>,
    autoencoder_mouth_psnr: f64,
    autoencoder_mouth_ssim: f64,
    seconds_per_frame: f64,
    /// Frames in which the own speech is silent.
    silent_frames: usize,
    /// Mean change of the lip opening from frame to frame while the speech is silent: of the original and of the
    /// generated clip.
    silent_motion: Option<[f64; 2]>,
}

pub(crate) fn run(args: &EvalArgs, cancel: &Cancel) -> Outcome<u8> {
    let tools = Tools::default();
    let clips = choose(&args.manifest, &args.split, args.per_speaker)?;
    let weights = match &args.weights {
        Some(folder) => folder.clone(),
        None => folders::require_preset(&args.preset)?,
    };
    std::fs::create_dir_all(&args.out).map_err(|cause| Error::io("eval", &args.out, cause))?;
    let board = Mutex::new(Board { rows: (0..clips.len()).map(|_| None).collect(), failure: None });
    let next = AtomicUsize::new(0);
    let worker = || -> Outcome<()> {
        let scorer = Scorer::new(args, &weights, &tools, cancel)?;
        while board.lock().unwrap_or_else(PoisonError::into_inner).failure.is_none() {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some(clip) = clips.get(at) else { break };
            // Half the list away: another speaker wherever the split has more than one.
            let row = scorer.score(clip, &clips[(at + clips.len().div_ceil(2)) % clips.len()])?;
            if shows_sheet(&clips, at, args.sheets) {
                scorer.sheet(clip)?;
            }
            let mut board = board.lock().unwrap_or_else(PoisonError::into_inner);
            board.rows[at] = Some(row);
            let done: Vec<&Row> = board.rows.iter().flatten().collect();
            say(&format!("{}/{} {}", done.len(), clips.len(), board.rows[at].as_ref().map(line).unwrap_or_default()));
            write_json(&args.out.join("figures.json"), &done)?;
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let jobs = args.jobs.unwrap_or_else(|| available_parallelism().map_or(1, usize::from));
        for _ in 0..jobs.max(1).min(clips.len()) {
            scope.spawn(|| {
                if let Err(error) = worker() {
                    board.lock().unwrap_or_else(PoisonError::into_inner).failure.get_or_insert(error);
                }
            });
        }
    });
    let board = board.into_inner().unwrap_or_else(PoisonError::into_inner);
    if let Some(failure) = board.failure {
        return Err(failure);
    }
    say(&summary(&board.rows.into_iter().flatten().collect::<Vec<_>>()));
    Ok(0)
}

/// What the workers share.
struct Board {
    rows: Vec<Option<Row>>,
    failure: Option<Error>,
}

/// Whether the clip is the first one of one of the first `sheets` speakers.
fn shows_sheet(clips: &[ClipSource], at: usize, sheets: usize) -> bool {
    let begins = |i: usize| i == 0 || clips[i].speaker != clips[i - 1].speaker;
    begins(at) && (0..at).filter(|i| begins(*i)).count() < sheets
}

/// Generates and scores one clip after the other.
struct Scorer<'a> {
    args: &'a EvalArgs,
    weights: &'a Path,
    tools: &'a Tools,
    cancel: &'a Cancel,
    models: FaceModels,
    model: LipSync,
}

impl<'a> Scorer<'a> {
    fn new(args: &'a EvalArgs, weights: &'a Path, tools: &'a Tools, cancel: &'a Cancel) -> Outcome<Self> {
        let models = FaceModels::load(&folders::face_models())?;
        let model = LipSync::load(weights, &resolve(args.device)?.0)?;
        Ok(Self { args, weights, tools, cancel, models, model })
    }

    /// The clip driven by its own speech, and by another's.
    fn outputs(&self, clip: &ClipSource) -> (PathBuf, PathBuf) {
        let name = clip.key().replace('/', "_");
        (self.args.out.join(format!("{name}.mp4")), self.args.out.join(format!("{name}.other-speech.mp4")))
    }

    fn score(&self, clip: &ClipSource, other: &ClipSource) -> Outcome<Row> {
        let make = |speech: &Path, to: &Path| {
            let settings = settings(self.args, self.weights, &clip.path, speech, to);
            generate(self.tools, &settings, &mut Watch::new(self.cancel.clone(), |_| {}))
        };
        let (own, wrong) = self.outputs(clip);
        let report = make(&clip.path, &own)?;
        make(&other.path, &wrong)?;
        let reference = Reference::read(self.tools, &self.models, &clip.path)?;
        let (psnr, ssim) = reconstruction(self.tools, &reference, &self.model, &clip.path)?;
        let score = |generated: &Path| compare(self.tools, &self.models, &reference, generated);
        let own_speech = score(&own)?;
        let silent = self.silent(&clip.path, own_speech.opening.len())?;
        let still = |opening: &[Option<f64>]| motion(opening, &silent);
        Ok(Row {
            silent_frames: silent.iter().filter(|silent| **silent).count(),
            silent_motion: still(&own_speech.reference_opening).zip(still(&own_speech.opening)).map(<[f64; 2]>::from),
            clip: clip.key(),
            speaker: clip.speaker.clone(),
            corpus: clip.corpus.clone(),
            own_speech,
            other_speech: score(&wrong)?,
            other_speech_from: other.key(),
            other_truth_correlation: self.truths_correlation(&reference, other)?,
            autoencoder_mouth_psnr: psnr,
            autoencoder_mouth_ssim: ssim,
            seconds_per_frame: report.seconds.per_output_frame,
        })
    }

    fn truths_correlation(&self, reference: &Reference, other: &ClipSource) -> Outcome<Option<f64>> {
        let faces = measure_faces(self.tools, &self.models, &other.path)?;
        let (a, b) = paired(&reference.faces.opening, &faces.opening);
        Ok(correlation(&a, &b))
    }

    /// For each frame of a clip: is its own speech silent?
    fn silent(&self, clip: &Path, frames: usize) -> Outcome<Vec<bool>> {
        let info = probe(self.tools, clip)?;
        let samples = decode_speech(self.tools, &info)?.samples;
        let rate = info.video.as_ref().map_or(Rational::new(25, 1), |video| video.average_rate);
        let model_frame = |frame: usize| frame * 25 * rate.den as usize / rate.num as usize;
        let speaking = speech_frames(&samples, model_frame(frames) + 1);
        Ok((0..frames).map(|frame| !speaking[model_frame(frame)]).collect())
    }

    fn sheet(&self, clip: &ClipSource) -> Outcome<()> {
        let (own, wrong) = self.outputs(clip);
        let rows = [SheetRow { clip: &clip.path }, SheetRow { clip: &own }, SheetRow { clip: &wrong }];
        let sheet = contact_sheet(self.tools, &self.models, &rows, 10, 160)?;
        Ok(write_png(&self.args.out.join(format!("sheet-{}.png", clip.speaker)), &sheet)?)
    }
}

fn choose(manifest: &Path, split: &str, per_speaker: usize) -> Outcome<Vec<ClipSource>> {
    let mut all = read_manifest(manifest)?;
    all.retain(|clip| clip.split == split);
    all.sort_by(|a, b| (&a.speaker, &a.path).cmp(&(&b.speaker, &b.path)));
    let mut chosen = Vec::new();
    for speaker in all.chunk_by(|a, b| a.speaker == b.speaker) {
        let count = if per_speaker == 0 { speaker.len() } else { per_speaker.min(speaker.len()) };
        chosen.extend((0..count).map(|i| speaker[i * speaker.len() / count].clone()));
    }
    if chosen.is_empty() {
        let what = format!("{manifest:?} has no clip of the split {split:?}");
        return Err(Error::usage(what, "name another --split"));
    }
    Ok(chosen)
}

fn settings(args: &EvalArgs, weights: &Path, video: &Path, speech: &Path, out: &Path) -> GenerateSettings {
    GenerateSettings {
        video: video.to_path_buf(),
        audio: speech.to_path_buf(),
        mix: None,
        out: out.to_path_buf(),
        weights: weights.to_path_buf(),
        face_models: folders::face_models(),
        device: args.device,
        sampler: None,
        steps: args.steps,
        guidance: args.guidance,
        feedback: args.feedback.map(Into::into),
        batch: BATCH,
        seed: 0,
        length: LengthPolicy::Video,
        face: "largest".into(),
        fps: "25".into(),
        // Near lossless, so that the figures are the model's and not the encoder's.
        crf: 8,
        composite: args.composite.into(),
        silence: Silence::Model,
        cache: None,
        preview: None,
        report: None,
        frames: None,
    }
}

/// Mouth PSNR and SSIM of the autoencoder alone: each original crop encoded, decoded and pasted back. The ceiling of
/// what the denoiser can reach.
fn reconstruction(tools: &Tools, reference: &Reference, model: &LipSync, clip: &Path) -> Outcome<(f64, f64)> {
    let size = model.config().crop_size;
    let mask = PasteMask::from_keep(&KeepMask::aligned_fixed(size), syncdiff::render::FEATHER);
    let scale = size as f64 / CROP as f64;
    let (mut psnr_sum, mut ssim_sum, mut count) = (0.0, 0.0, 0.0);
    let mut failure: Option<Error> = None;
    read_frames(tools, clip, |index, frame| {
        let Some(to_measure) = reference.faces.crop_from_frame.get(index).copied().flatten() else { return Ok(()) };
        let to_model = Affine { m: to_measure.m.map(|row| row.map(|v| v * scale)) };
        let crop = warp(frame, &to_model, size);
        let picture = rgb_to_tensor(&crop.data, size, model.device());
        let decoded = tensor_to_rgb(model.autoencoder.decode(model.autoencoder.encode(picture)));
        let mut pasted = frame.clone();
        let decoded = Frame { width: size, height: size, data: decoded };
        if let Err(error) = paste_back(&mut pasted, &decoded, &to_model, &mask, None, 1.0) {
            failure.get_or_insert(error.into());
            return Ok(());
        }
        let Some(Some(truth)) = reference.mouths.get(index) else { return Ok(()) };
        let ours = mouth(&pasted, &to_measure);
        psnr_sum += psnr(truth, &ours)?.min(60.0);
        ssim_sum += ssim(truth, &ours)?;
        count += 1.0;
        Ok(())
    })?;
    match failure {
        Some(error) => Err(error),
        None => Ok((psnr_sum / count, ssim_sum / count)),
    }
}

fn line(row: &Row) -> String {
    let r = |value: Option<f64>| value.map_or("  - ".into(), |v| format!("{v:.2}"));
    format!(
        "{}: lip opening {} (other speech {}, other time {}), mouth PSNR {:.1} of {:.1} dB, SSIM {:.3} of {:.3}",
        row.clip,
        r(row.own_speech.opening_correlation),
        r(row.other_speech.opening_correlation),
        r(row.own_speech.opening_correlation_other_time),
        row.own_speech.mouth_psnr,
        row.autoencoder_mouth_psnr,
        row.own_speech.mouth_ssim,
        row.autoencoder_mouth_ssim
    )
}

/// Means by corpus and over all clips.
fn summary(rows: &[Row]) -> String {
    let mut corpora: Vec<&str> = rows.iter().map(|row| row.corpus.as_str()).collect();
    corpora.sort_unstable();
    corpora.dedup();
    let mut lines = vec![format!(
        "{:<10} {:>5} {:>8} {:>8} {:>8} {:>8} {:>8} {:>8} {:>8} {:>8} {:>8} {:>8} {:>8} {:>8} {:>8} {:>8}",
        "corpus",
        "clips",
        "opening",
        "wrong",
        "moved",
        "w.moved",
        "perfect",
        "shifted",
        "range",
        "PSNR",
        "AE PSNR",
        "SSIM",
        "AE SSIM",
        "flicker",
        "chatter",
        "s/frame"
    )];
    for corpus in corpora.into_iter().map(Some).chain([None]) {
        let chosen: Vec<&Row> = rows.iter().filter(|row| corpus.is_none_or(|c| c == row.corpus)).collect();
        let mean = |value: &dyn Fn(&Row) -> Option<f64>| {
            let values: Vec<f64> = chosen.iter().filter_map(|row| value(row)).collect();
            values.iter().sum::<f64>() / values.len() as f64
        };
        lines.push(format!(
            "{:<10} {:>5} {:>8.3} {:>8.3} {:>8.3} {:>8.3} {:>8.3} {:>8.3} {:>8.3} {:>8.2} {:>8.2} {:>8.4} {:>8.4} {:>8.3} {:>8.3} {:>8.3}",
            corpus.unwrap_or("all"),
            chosen.len(),
            mean(&|r| r.own_speech.opening_correlation),
            mean(&|r| r.other_speech.opening_correlation),
            mean(&|r| r.own_speech.opening_best.map(|(r, _)| r)),
            mean(&|r| r.other_speech.opening_best.map(|(r, _)| r)),
            mean(&|r| r.other_truth_correlation),
            mean(&|r| r.own_speech.opening_correlation_other_time),
            mean(&|r| r.own_speech.opening_range_ratio),
            mean(&|r| Some(r.own_speech.mouth_psnr)),
            mean(&|r| Some(r.autoencoder_mouth_psnr)),
            mean(&|r| Some(r.own_speech.mouth_ssim)),
            mean(&|r| Some(r.autoencoder_mouth_ssim)),
            mean(&|r| Some(r.own_speech.flicker_ratio)),
            mean(&|r| r.silent_motion.map(|[original, generated]| generated / original)),
            mean(&|r| Some(r.seconds_per_frame)),
        ));
    }
    lines.join("\n")
}
