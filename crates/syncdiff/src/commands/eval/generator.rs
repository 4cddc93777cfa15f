//! Clips that this program generates itself before they are scored: with their own speech, and with another's.

use std::path::{Path, PathBuf};

use syncdiff::progress::{Cancel, Watch};
use syncdiff::{Engine, Error, GenerateSettings, ModelSettings, Outcome, generate};
use syncdiff_data::{ClipSource, read_manifest};
use syncdiff_eval::{
    EQUAL_DB, FaceSeries, Group, Row, SheetRow, contact_sheet, correlation, measure_faces, mouth, paired, psnr,
    read_frames, ssim,
};
use syncdiff_media::{LengthPolicy, Tools, write_png};

use super::args::EvalArgs;
use super::jobs::Job;
use super::worker::{Worker, stopped};
use crate::cli::CompositeArg;
use crate::commands::first_stage::FirstStage;
use crate::folders;

/// Whose figures with the other speech are shown: the first of these that the judge has.
const SYNC: [&str; 2] = ["sync.wild", "sync.own"];
/// Near lossless, so that the figures are the model's and not the encoder's.
pub(crate) const SCORED_CRF: u8 = 8;
/// What the other clip is called among the files of a row.
const OTHER: &str = "other_speech";

/// The clips of a split, as jobs whose generated clips lie in the output folder, and for each the clip whose speech
/// must not help: half the list away, another speaker wherever the split has more than one.
///
/// # Errors
/// A manifest that cannot be read or has no clip of the split.
pub(super) fn jobs(args: &EvalArgs, manifest: &Path) -> Outcome<(Vec<Job>, Vec<ClipSource>)> {
    let clips = choose(manifest, &args.split, args.per_speaker)?;
    let jobs: Vec<Job> = clips
        .iter()
        .map(|clip| {
            let mut job = Job {
                clip: clip.key(),
                speaker: clip.speaker.clone(),
                corpus: clip.corpus.clone(),
                reference: clip.path.clone(),
                transcript: Some(clip.transcript.clone()).filter(|said| !said.is_empty()),
                ..Job::default()
            };
            job.generated = args.out.join(format!("{}.mp4", job.file_name()));
            job
        })
        .collect();
    let count = clips.len();
    let others = (0..count).map(|at| clips[(at + count.div_ceil(2)) % count].clone()).collect();
    Ok((jobs, others))
}

/// The clips of a split, at most so many of a speaker, spread evenly; 0 takes all.
///
/// # Errors
/// A manifest that cannot be read or has no clip of the split.
pub(crate) fn choose(manifest: &Path, split: &str, per_speaker: usize) -> Outcome<Vec<ClipSource>> {
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

/// What a generated clip depends on besides its inputs.
pub(super) fn identity(args: &EvalArgs, weights: &Path) -> String {
    let manifest = std::fs::read_to_string(weights.join("weights.toml")).unwrap_or_default();
    let EvalArgs { sampler, steps, guidance, precision, composite, feedback, .. } = args;
    format!("{manifest} {sampler:?} {steps:?} {guidance:?} {precision} {composite:?} {feedback:?}")
}

/// Generates clips and measures what only their maker can: leak and ceiling.
pub(super) struct Generator<'a> {
    args: &'a EvalArgs,
    engine: &'a Engine,
    tools: &'a Tools,
    cancel: &'a Cancel,
    jobs: &'a [Job],
    others: &'a [ClipSource],
}

impl<'a> Generator<'a> {
    /// For the clips of a split, with what all workers share.
    pub(super) fn new(
        args: &'a EvalArgs,
        engine: &'a Engine,
        tools: &'a Tools,
        cancel: &'a Cancel,
        jobs: &'a [Job],
        others: &'a [ClipSource],
    ) -> Self {
        Self { args, engine, tools, cancel, jobs, others }
    }

    fn at(&self, job: &Job) -> Option<usize> {
        self.jobs.iter().position(|other| other.clip == job.clip)
    }

    /// The clip whose speech drives the second one.
    fn other(&self, job: &Job) -> Outcome<&ClipSource> {
        let found = self.at(job).and_then(|at| self.others.get(at));
        found.ok_or_else(|| Error::Internal { stage: "eval", detail: format!("{} is no clip of the split", job.clip) })
    }

    /// Generates a clip with its own speech and with another's.
    pub(super) fn make(&self, job: &Job) -> Outcome<()> {
        let make = |speech: &Path, to: &Path| {
            let settings =
                GenerateSettings { composite: self.args.composite.into(), ..scored_clip([&job.reference, speech, to]) };
            generate(self.engine, self.tools, &settings, &mut Watch::new(self.cancel.clone(), |_| {}))
        };
        make(&job.reference, &job.generated)?;
        make(&self.other(job)?.path, &with_other_speech(&job.generated))?;
        Ok(())
    }

    /// Adds leak and ceiling to the row, and writes the contact sheet of the first clip of a speaker.
    pub(super) fn measure(&self, worker: &Worker<'_>, job: &Job, truth: &FaceSeries, row: &mut Row) -> Outcome<()> {
        let (other, wrong) = (self.other(job)?, with_other_speech(&job.generated));
        row.files.insert(OTHER.into(), wrong.display().to_string());
        row.remarks.push(format!("other speech: that of {}", other.key()));
        let scored = worker.score(&Job { speech: None, ..job.clone() }, &wrong, truth)?;
        let sync = |figure: &str| SYNC.iter().find_map(|key| scored.figures.get(&format!("{key}.{figure}"))).copied();
        for (leak, figure) in [("leak.lse_c", "lse_c"), ("leak.lse_d", "lse_d"), ("leak.offset", "offset")] {
            row.put(leak, sync(figure));
        }
        for (leak, key) in
            [("leak.opening_correlation", "lips.opening_correlation"), ("leak.opening_best", "lips.opening_best")]
        {
            row.put(leak, scored.figures.get(key).copied());
        }
        let Ok(models) = &worker.instruments.faces else { return Ok(()) };
        if worker.wanted.groups.contains(&Group::Lips) {
            let faces = stopped(measure_faces(self.tools, models, &other.path, || worker.check()))?;
            let (a, b) = paired(&truth.opening(), &faces.opening());
            row.put("leak.perfect", correlation(&a, &b));
        }
        if worker.wanted.groups.contains(&Group::Psnr) || worker.wanted.groups.contains(&Group::Ssim) {
            let (psnr, ssim) = self.ceiling(truth, &job.reference)?;
            row.put("ceiling.psnr", psnr);
            row.put("ceiling.ssim", ssim);
        }
        if self.shows_sheet(job) {
            let rows =
                [SheetRow { clip: &job.reference }, SheetRow { clip: &job.generated }, SheetRow { clip: &wrong }];
            let sheet = contact_sheet(self.tools, models, &rows, 10, 160)?;
            let name = format!("sheet-{}.png", Job { clip: job.speaker.clone(), ..Job::default() }.file_name());
            write_png(&self.args.out.join(name), &sheet)?;
        }
        Ok(())
    }

    /// Whether the clip is the first one of one of the first `sheets` speakers.
    fn shows_sheet(&self, job: &Job) -> bool {
        let begins = |i: usize| i == 0 || self.jobs[i].speaker != self.jobs[i - 1].speaker;
        self.at(job).is_some_and(|at| begins(at) && (0..at).filter(|i| begins(*i)).count() < self.args.sheets)
    }

    /// PSNR and SSIM of the aligned mouth when each original crop is encoded, decoded and pasted back: what the
    /// denoiser can reach at best.
    fn ceiling(&self, truth: &FaceSeries, clip: &Path) -> Outcome<(Option<f64>, Option<f64>)> {
        let sampler = self.engine.sampler()?;
        let model = sampler.model();
        let first_stage = FirstStage::new(&model.autoencoder, model.config().crop_size, model.device());
        let (mut psnr_sum, mut ssim_sum, mut count) = (0.0, 0.0, 0.0);
        let mut failure: Option<Error> = None;
        read_frames(self.tools, clip, |index, frame| {
            let Some(to_measure) = truth.crop_at(index) else { return Ok(()) };
            let mut pasted = frame.clone();
            if let Err(error) = first_stage.redraw(&mut pasted, to_measure) {
                failure.get_or_insert(error);
                return Ok(());
            }
            let (truth, ours) = (mouth(frame, to_measure), mouth(&pasted, to_measure));
            psnr_sum += psnr(&truth, &ours)?.min(EQUAL_DB);
            ssim_sum += ssim(&truth, &ours)?;
            count += 1.0;
            Ok(())
        })?;
        match failure {
            Some(error) => Err(error),
            // Without a face there is no number.
            None => Ok((Some(psnr_sum / count), Some(ssim_sum / count))),
        }
    }
}

/// The model as the arguments want it.
pub(super) fn engine(args: &EvalArgs, weights: PathBuf) -> Outcome<Engine> {
    Engine::new(&ModelSettings {
        precision: args.precision,
        sampler: args.sampler.clone(),
        steps: args.steps,
        guidance: args.guidance,
        feedback: args.feedback.map(Into::into),
        ..ModelSettings::new(weights, folders::face_models(), args.device)
    })
}

/// How a clip is generated that will be scored: the length of the original, nothing of the original's skin.
pub(crate) fn scored_clip([video, speech, out]: [&Path; 3]) -> GenerateSettings {
    GenerateSettings {
        length: LengthPolicy::Video,
        crf: SCORED_CRF,
        composite: CompositeArg::Face.into(),
        ..GenerateSettings::new(video.to_path_buf(), speech.to_path_buf(), out.to_path_buf())
    }
}

/// The clip driven by another speech lies beside the one driven by its own.
pub(super) fn with_other_speech(generated: &Path) -> PathBuf {
    generated.with_extension("other-speech.mp4")
}
