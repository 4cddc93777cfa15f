//! One worker: scores one clip after the other, with its own judges; what generates is shared by all.

use std::path::Path;

use syncdiff::progress::Cancel;
use syncdiff::silence::speech_frames;
use syncdiff::{Error, Outcome};
use syncdiff_eval::{
    ClipInputs, EvalError, EvalResult, FaceSeries, Group, Instruments, Row, Scored, Wanted, motion, score_clip,
    truth_of,
};
use syncdiff_media::{Rational, Tools, decode_speech, probe};

use super::generator::Generator;
use super::jobs::Job;

/// What a worker works with.
pub(super) struct Worker<'a> {
    pub(super) tools: &'a Tools,
    pub(super) wanted: &'a Wanted,
    pub(super) instruments: Instruments,
    pub(super) generator: Option<Generator<'a>>,
    pub(super) cancel: &'a Cancel,
}

impl Worker<'_> {
    /// The row of a clip. A clip that cannot be scored is a row that says why.
    ///
    /// # Errors
    /// [`Error::Cancelled`], and want of memory, which stands in the way of every clip.
    pub(super) fn row(&self, job: &Job) -> Outcome<Row> {
        let mut row = Row {
            clip: job.clip.clone(),
            speaker: job.speaker.clone(),
            corpus: job.corpus.clone(),
            generated_path: job.generated.display().to_string(),
            reference_path: job.reference.display().to_string(),
            ..Row::default()
        };
        let outcome = match &job.missing {
            Some(reason) => {
                row.failure = Some(reason.clone());
                return Ok(row);
            }
            None => self.fill(job, &mut row),
        };
        match outcome {
            Ok(()) => Ok(row),
            Err(error) if matches!(error.exit_code(), 6 | 8) => Err(error),
            Err(error) => Ok(Row { failure: Some(error.to_string()), ..empty(row) }),
        }
    }

    fn fill(&self, job: &Job, row: &mut Row) -> Outcome<()> {
        if let Some(generator) = &self.generator {
            generator.make(job)?;
        }
        let truth = stopped(truth_of(self.tools, &self.instruments, &job.reference, &|| self.check()))?;
        let scored = self.score(job, &job.generated, &truth)?;
        row.take(scored);
        if self.wanted.groups.contains(&Group::Time) {
            let chatter = self.chatter(&job.reference, &row.opening)?;
            row.put("time.chatter_ratio", chatter);
        }
        match &self.generator {
            Some(generator) => generator.measure(self, job, &truth, row),
            None => Ok(()),
        }
    }

    /// The figures of a clip against the reference of a job.
    pub(super) fn score(&self, job: &Job, generated: &Path, truth: &FaceSeries) -> Outcome<Scored> {
        let inputs = ClipInputs {
            generated,
            reference: &job.reference,
            speech: job.speech.as_deref(),
            transcript: job.transcript.as_deref(),
            read: job.read.as_deref(),
        };
        stopped(score_clip(self.tools, &self.instruments, self.wanted, &inputs, truth, &|| self.check()))
    }

    pub(super) fn check(&self) -> EvalResult<()> {
        self.cancel.check().map_err(|_| EvalError::Stopped)
    }

    /// Lip motion while the reference's speech is silent, over the reference's own; none without such frames.
    fn chatter(&self, reference: &Path, opening: &[Vec<Option<f64>>; 2]) -> Outcome<Option<f64>> {
        let info = probe(self.tools, reference)?;
        if info.audio.is_none() {
            return Ok(None);
        }
        let silent = silence(self.tools, reference, opening[0].len())?;
        let [truth, ours] = [0, 1].map(|side| motion(&opening[side], &silent));
        Ok(truth.zip(ours).map(|(truth, ours)| ours / truth))
    }
}

fn empty(row: Row) -> Row {
    let Row { clip, speaker, corpus, generated_path, reference_path, .. } = row;
    Row { clip, speaker, corpus, generated_path, reference_path, ..Row::default() }
}

/// A wish to stop is no fault of the clip.
pub(super) fn stopped<T>(result: EvalResult<T>) -> Outcome<T> {
    result.map_err(|error| match error {
        EvalError::Stopped => Error::Cancelled,
        error => error.into(),
    })
}

/// For each frame of a clip: is its own speech silent?
fn silence(tools: &Tools, clip: &Path, frames: usize) -> Outcome<Vec<bool>> {
    let info = probe(tools, clip)?;
    let samples = decode_speech(tools, &info)?.samples;
    let rate = info.video.as_ref().map_or(Rational::new(25, 1), |video| video.average_rate);
    let model_frame = |frame: usize| frame * 25 * rate.den as usize / rate.num as usize;
    let speaking = speech_frames(&samples, model_frame(frames) + 1);
    Ok((0..frames).map(|frame| !speaking[model_frame(frame)]).collect())
}
