//! The clips of a row: generated, reconstructed, or given by another system; and their figures.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use syncdiff::files::write_whole;
use syncdiff::progress::Watch;
use syncdiff::{Engine, Error, ModelSettings, Outcome, generate};
use syncdiff_data::{ClipSource, Layout, read_inputs};
use syncdiff_eval::{EvalError, Row, measure_faces};
use syncdiff_face::FaceModels;
use syncdiff_media::{
    FrameReader, LengthPolicy, Plan, ReadOptions, Sound, Time, VideoWriter, WriterOptions, probe, scan_index,
};
use syncdiff_model::LipSync;
use syncdiff_model::autoencoder::Autoencoder;
use syncdiff_model::weights::{Remap, load_into, open_safetensors, sha256_of_file};

use super::plan::RowPlan;
use super::report::RowResult;
use super::{Lab, eval};
use crate::commands::first_stage::FirstStage;
use crate::folders;
use crate::terminal::say;

const STAGE: &str = "experiment";
/// What the clips of a folder were made with.
const MADE_WITH: &str = "made-with.txt";

/// Clips of a row with their originals.
pub(super) type Pairs<'a> = Vec<(PathBuf, &'a ClipSource)>;

/// Finds the clips of another system by the names of the originals: alone, or behind the speaker's where that is needed.
///
/// # Errors
/// A folder that cannot be read, or holds none of the clips.
pub(super) fn given<'a>(folder: &Path, clips: &'a [ClipSource]) -> Outcome<Pairs<'a>> {
    let mut by_name: HashMap<String, Vec<PathBuf>> = HashMap::new();
    for found in read_inputs(folder, Some(Layout::Folder))?.clips {
        by_name.entry(stem(&found.path)).or_default().push(found.path);
    }
    let place = |clip: &ClipSource| {
        let found = by_name.get(&stem(&clip.path))?;
        let speaker = clip.path.parent().and_then(Path::file_name);
        let beside = found.iter().find(|path| path.parent().and_then(Path::file_name) == speaker);
        beside.or(found.first().filter(|_| found.len() == 1)).cloned()
    };
    let pairs: Pairs<'a> = clips
        .iter()
        // One that is not there is a row of its own in the figures.
        .map(|clip| (place(clip).unwrap_or_else(|| folder.join(format!("{}.mp4", stem(&clip.path)))), clip))
        .collect();
    if pairs.iter().any(|(path, _)| path.is_file()) {
        return Ok(pairs);
    }
    let example = clips.first().map(|clip| stem(&clip.path)).unwrap_or_default();
    let what = format!("--outputs: {folder:?} has no clip of the split");
    Err(Error::usage(what, format!("name the files as the originals, such as {example}.mp4")))
}

fn stem(path: &Path) -> String {
    path.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

impl Lab<'_> {
    /// The test clips as weights draw them; those that earlier runs drew with the same weights are taken again.
    pub(super) fn generated(&self, folder: &Path, weights: &Path) -> Outcome<Pairs<'_>> {
        let made_of = match weights.is_file() {
            true => sha256_of_file(weights)?,
            false => {
                let list = weights.join("weights.toml");
                std::fs::read_to_string(&list).map_err(|cause| Error::io(STAGE, &list, cause))?
            }
        };
        let identity = format!("{made_of} {:?} {:?}", self.args.steps, self.args.guidance);
        let engine = Engine::new(&ModelSettings {
            steps: self.args.steps,
            guidance: self.args.guidance,
            ..ModelSettings::new(weights.to_path_buf(), folders::face_models(), self.args.device)
        })?;
        self.made(folder, &identity, &mut |clip, out| {
            let settings = eval::scored_clip([&clip.path, &clip.path, out]);
            generate(&engine, &self.tools, &settings, &mut Watch::new(self.cancel.clone(), |_| {})).map(drop)
        })
    }

    /// The test clips with the aligned face encoded and decoded.
    pub(super) fn reconstructed(&self, folder: &Path) -> Outcome<Pairs<'_>> {
        let file = self.part(&self.args.autoencoder)?;
        let fresh = Autoencoder::new(&self.model.autoencoder, &self.device);
        let names = Remap::identity().with_prefix("autoencoder.");
        let autoencoder = load_into(fresh, &open_safetensors(&file)?, &names)?;
        let faces = FaceModels::load(&folders::face_models())?;
        self.made(folder, &sha256_of_file(&file)?, &mut |clip, out| self.reconstruct(&autoencoder, &faces, clip, out))
    }

    /// Makes the clips that are not there yet. One that cannot be made is left out, and a row of the figures says so.
    fn made(
        &self,
        folder: &Path,
        identity: &str,
        make: &mut dyn FnMut(&ClipSource, &Path) -> Outcome<()>,
    ) -> Outcome<Pairs<'_>> {
        let place = folder.join("clips");
        let told = place.join(MADE_WITH);
        let identity = format!("{} {identity}", syncdiff::VERSION);
        if std::fs::read_to_string(&told).ok().as_deref() != Some(&identity) && place.exists() {
            std::fs::remove_dir_all(&place).map_err(|cause| Error::io(STAGE, &place, cause))?;
        }
        std::fs::create_dir_all(&place).map_err(|cause| Error::io(STAGE, &place, cause))?;
        write_whole(STAGE, &told, identity.as_bytes())?;
        let (mut pairs, mut first_failure) = (Vec::new(), None);
        for (number, clip) in self.clips.iter().enumerate() {
            self.cancel.check()?;
            let out = place.join(format!("{}.mp4", clip.key().replace('/', "_")));
            if !out.is_file() {
                match make(clip, &out) {
                    Err(Error::Cancelled) => return Err(Error::Cancelled),
                    Err(error) => {
                        say(&format!("{}: {error}", clip.key()));
                        first_failure.get_or_insert(error);
                    }
                    Ok(()) => say(&format!("clip {}/{} {}", number + 1, self.clips.len(), clip.key())),
                }
            }
            pairs.push((out, clip));
        }
        match first_failure {
            Some(error) if pairs.iter().all(|(path, _)| !path.is_file()) => Err(error),
            _ => Ok(pairs),
        }
    }

    fn reconstruct(&self, autoencoder: &Autoencoder, faces: &FaceModels, clip: &ClipSource, out: &Path) -> Outcome<()> {
        let stop = || self.cancel.check().map_err(|_| EvalError::Stopped);
        let truth = measure_faces(&self.tools, faces, &clip.path, stop).map_err(|error| match error {
            EvalError::Stopped => Error::Cancelled,
            error => error.into(),
        })?;
        let info = probe(&self.tools, &clip.path)?;
        let (index, _) = scan_index(&self.tools, &info, &ReadOptions::default())?;
        let plan = Plan::new(&index, LengthPolicy::Video, Time::from_samples(0))?;
        let sound = info.audio.is_some().then(|| Sound(info.clone()));
        let options = WriterOptions { crf: eval::SCORED_CRF, ..WriterOptions::default() };
        let first_stage = FirstStage::new(autoencoder, self.model.crop_size, &self.device);
        let mut writer: Option<VideoWriter> = None;
        for (number, timed) in FrameReader::open(&self.tools, &info, &ReadOptions::default())?.enumerate() {
            let mut frame = timed?.frame;
            if let Some(crop) = truth.crop_at(number) {
                first_stage.redraw(&mut frame, crop)?;
            }
            let size = (frame.width, frame.height);
            let writer = match &mut writer {
                Some(writer) => writer,
                None => writer.insert(VideoWriter::create(&self.tools, out, size, &plan, sound.as_ref(), &options)?),
            };
            writer.push(&frame, plan.pts(number))?;
        }
        if let Some(writer) = writer {
            writer.finish()?;
        }
        Ok(())
    }

    /// The figures of a row's clips, as `eval` scores them.
    pub(super) fn score(&self, plan: &RowPlan, folder: &Path, pairs: Pairs<'_>, how: String) -> Outcome<RowResult> {
        std::fs::create_dir_all(folder).map_err(|cause| Error::io(STAGE, folder, cause))?;
        let table = folder.join("pairs.tsv");
        let mut text = String::from("generated\treference\tname\tspeaker\ttranscript\n");
        for (generated, clip) in &pairs {
            let (generated, reference) = (absolute(generated)?, absolute(&clip.path)?);
            let (name, said) = (clip.key(), &clip.transcript);
            text += &format!("{}\t{}\t{name}\t{}\t{said}\n", generated.display(), reference.display(), clip.speaker);
        }
        write_whole(STAGE, &table, text.as_bytes())?;
        let out = folder.join("eval");
        let args = eval::EvalArgs::of_pairs(table, self.args.metrics.clone(), out.clone(), self.args.device);
        eval::run(&args.judged_by(self.args.judge.clone(), self.args.jobs), self.cancel)?;
        let path = out.join("figures.json");
        let bytes = std::fs::read(&path).map_err(|cause| Error::io(STAGE, &path, cause))?;
        let figures: Figures = serde_json::from_slice(&bytes)
            .map_err(|error| Error::Internal { stage: STAGE, detail: format!("{path:?}: {error}") })?;
        RowResult::scored(plan, how, figures.judges, figures.rows)
    }

    /// A trained variant, for studies of the network itself.
    pub(super) fn load(&self, folder: &Path) -> Outcome<LipSync> {
        Ok(LipSync::load(folder, &self.device)?)
    }
}

/// What `eval` leaves, as far as it is needed here.
#[derive(serde::Deserialize)]
struct Figures {
    judges: Vec<(String, String)>,
    rows: Vec<Row>,
}

fn absolute(path: &Path) -> Outcome<PathBuf> {
    std::path::absolute(path).map_err(|cause| Error::io(STAGE, path, cause))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clip(path: &str) -> ClipSource {
        ClipSource {
            path: path.into(),
            corpus: "c".into(),
            split: "test".into(),
            speaker: "s".into(),
            name: stem(Path::new(path)),
            transcript: String::new(),
            licence: String::new(),
            origin: String::new(),
        }
    }

    #[test]
    fn clips_of_others_are_found_by_name_then_by_speaker() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["s1/x.mp4", "s2/x.mp4", "deep/er/y.avi"] {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "x").unwrap();
        }
        let clips = ["a/s2/x.mp4", "a/s3/x.mp4", "a/s1/y.mp4"].map(clip);
        let found: Vec<PathBuf> = given(folder.path(), &clips).unwrap().into_iter().map(|(path, _)| path).collect();
        // Two bear the name x, and none of them is of s3: it is not there.
        assert_eq!(found, ["s2/x.mp4", "x.mp4", "deep/er/y.avi"].map(|name| folder.path().join(name)));
        let error = given(folder.path(), &[clip("a/s1/z.mp4")]).unwrap_err();
        assert!(error.to_string().contains("z.mp4"), "{error}");
    }
}
