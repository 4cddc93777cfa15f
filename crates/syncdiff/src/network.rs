//! The trained model as the renderer sees it: weights of a folder, a sampler, and the speech it has listened to.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use burn::tensor::Device;
use syncdiff_face::KeepMaskKind;
use syncdiff_media::Frame;
use syncdiff_model::diffusion::{Sampler, SamplerKind, Spacing};
use syncdiff_model::generate::{Drawn, Sampling, Seen};
use syncdiff_model::weights::{FolderManifest, Storage};
use syncdiff_model::{FrameGenerator, FrameSampler, LipSync, LipSyncConfig, Precision, Speaker, SpeechTokens};

use crate::clock::Clock;
use crate::error::{Error, Outcome};
use crate::mouth::{MouthModel, MouthSequence};
use crate::report::ModelReport;
use crate::settings::ModelSettings;
use crate::together::{Seat, Together, draw, laps};

const STAGE: &str = "weights";
/// What decoding, drawing and encoding of a clip take beside the weights.
const WORK_BYTES: u64 = 300 << 20;
/// A configuration has a few KB; more is no configuration.
const MAX_TEXT_BYTES: u64 = 1 << 20;

/// What is known of a model before its weights are read.
#[derive(Clone, Debug)]
pub struct Recipe {
    folder: PathBuf,
    manifest: FolderManifest,
    config: LipSyncConfig,
    keep_mask: KeepMaskKind,
    sampling: Sampling,
    precision: Precision,
}

impl Recipe {
    /// Reads a weights folder's texts and settles the sampling, without reading the weights.
    ///
    /// # Errors
    /// [`Error::Weights`] for a folder that is missing or incomplete, [`Error::Usage`] for a sampler that does not fit.
    pub fn read(settings: &ModelSettings) -> Outcome<Self> {
        let folder = &settings.weights;
        let manifest = read_manifest(folder)?;
        let config_path = folder.join("config.toml");
        // Here a wrong value is the folder's fault, not the user's.
        let foreign = |cause: String| Error::Weights {
            stage: STAGE,
            what: format!("{config_path:?}: {cause}"),
            remedy: "use weights and program of the same release".into(),
        };
        let config = LipSyncConfig::from_toml(&read_text(&config_path)?).map_err(|error| foreign(error.to_string()))?;
        let keep_mask =
            config.keep_mask.parse().map_err(|error: syncdiff_face::FaceError| foreign(error.to_string()))?;
        let sampling = Sampling {
            sampler: choose_sampler(&config.sampler, settings.sampler.as_deref(), settings.steps)?,
            guidance: choose_guidance(config.guidance, settings.guidance)?,
            feedback: settings.feedback.unwrap_or(config.feedback),
            seed: settings.seed,
        };
        Ok(Recipe { folder: folder.clone(), manifest, config, keep_mask, sampling, precision: settings.precision })
    }

    /// The model's shape.
    pub fn config(&self) -> &LipSyncConfig {
        &self.config
    }

    /// About how much memory the model takes: its values as 32-bit floats twice (from disk, and in the networks), and
    /// room for what is computed for so many clips at once.
    pub fn memory_bytes(&self, clips: usize) -> u64 {
        let stored: u64 = self.manifest.files.iter().map(|file| file.size_bytes).sum();
        let growth = if self.manifest.storage == Storage::F32 { 1 } else { 2 };
        2 * growth * stored + clips as u64 * WORK_BYTES
    }

    /// SHA-256 of every file of the weights: what they are, whatever their folder is called.
    pub fn checksums(&self) -> impl Iterator<Item = &str> {
        self.manifest.files.iter().map(|file| &file.sha256[..])
    }

    /// Reads the weights.
    ///
    /// # Errors
    /// Those of the weights folder.
    pub fn load(&self, device: &Device) -> Outcome<FrameSampler> {
        let model = LipSync::load(&self.folder, device)?.in_precision(self.precision)?;
        Ok(FrameSampler::new(Arc::new(model), &self.sampling)?)
    }

    /// How frames will be drawn.
    pub fn sampling(&self) -> &Sampling {
        &self.sampling
    }
}

/// The list of files of a weights folder.
///
/// # Errors
/// [`Error::Weights`].
pub fn read_manifest(folder: &Path) -> Outcome<FolderManifest> {
    let path = folder.join("weights.toml");
    toml::from_str(&read_text(&path)?).map_err(|error| Error::Weights {
        stage: STAGE,
        what: format!("{path:?} is not the list of a weights folder: {}", error.message()),
        remedy: "fetch the weights again".into(),
    })
}

fn read_text(path: &Path) -> Outcome<String> {
    let wrong = |what: String| Error::Weights {
        stage: STAGE,
        what: format!("{path:?}: {what}"),
        remedy:
            "name a folder of weights with --weights, or fetch it again; `syncdiff models list` shows what is there"
                .into(),
    };
    let size = path.metadata().map_err(|error| wrong(error.to_string()))?.len();
    if size > MAX_TEXT_BYTES {
        return Err(wrong(format!("it has {size} bytes, at most {MAX_TEXT_BYTES} are expected")));
    }
    std::fs::read_to_string(path).map_err(|error| wrong(error.to_string()))
}

/// The words of `--sampler`.
pub const SAMPLERS: [(&str, SamplerKind); 5] = [
    ("ddim", SamplerKind::Ddim),
    ("dpm++2m", SamplerKind::DpmPlusPlus2m),
    ("euler", SamplerKind::Euler),
    ("heun", SamplerKind::Heun),
    ("lcm", SamplerKind::Lcm),
];

/// All words of `--sampler`.
pub fn sampler_names() -> [&'static str; 5] {
    SAMPLERS.map(|(name, _)| name)
}

/// The word of `--sampler` for a kind.
pub fn sampler_name(kind: SamplerKind) -> &'static str {
    SAMPLERS.iter().find(|(_, known)| *known == kind).map_or("unknown", |(name, _)| name)
}

/// The model's own sampler, changed by what the user chose.
fn choose_sampler(own: &Sampler, name: Option<&str>, steps: Option<usize>) -> Outcome<Sampler> {
    let mut sampler = *own;
    if let Some(name) = name {
        let known = SAMPLERS.iter().find(|(known, _)| *known == name);
        let kind = known.map(|(_, kind)| *kind).ok_or_else(|| {
            let names = sampler_names().join(", ");
            Error::usage(format!("--sampler {name} is not known"), format!("choose one of {names}"))
        })?;
        if kind != own.kind {
            // Few-step sampling of another kind: from the noisiest timestep to the clean latent.
            sampler = Sampler { kind, spacing: Spacing::Trailing, eta: 0.0, ..*own };
        }
    }
    sampler.num_steps = steps.unwrap_or(sampler.num_steps);
    if sampler.num_steps == 0 {
        return Err(Error::usage("--steps 0", "give at least 1 step"));
    }
    Ok(sampler)
}

/// The model's own weight of the speech, changed by what the user chose.
fn choose_guidance(own: f32, chosen: Option<f32>) -> Outcome<f32> {
    match chosen {
        Some(weight) if !(1.0..=20.0).contains(&weight) => {
            Err(Error::usage(format!("--guidance {weight} makes no sense"), "give a weight of 1 (none) to 20"))
        }
        chosen => Ok(chosen.unwrap_or(own)),
    }
}

/// The model, and how frames of it are drawn.
pub(crate) struct Drawing {
    pub(crate) sampler: Arc<FrameSampler>,
    /// Where frames of several clips meet; none where clips draw for themselves.
    pub(crate) together: Option<Together>,
}

/// A loaded model that has listened to a speech.
pub struct Network {
    recipe: Recipe,
    drawing: Arc<Drawing>,
    speaker: Speaker,
}

impl Network {
    /// Takes the whole speech, encoded once for all frames of an output.
    pub(crate) fn listen(recipe: Recipe, drawing: Arc<Drawing>, speech: SpeechTokens) -> Self {
        let speaker = drawing.sampler.speaker(speech);
        Network { recipe, drawing, speaker }
    }

    /// What the report says of it.
    pub fn about(&self) -> ModelReport {
        let Recipe { manifest, config, keep_mask, sampling: Sampling { sampler, guidance, feedback, .. }, .. } =
            &self.recipe;
        let weights = manifest.files.iter().find(|file| file.name.ends_with(".safetensors"));
        ModelReport {
            name: config.name.clone(),
            weights_sha256: weights.map(|file| file.sha256.clone()).unwrap_or_default(),
            licence: manifest.licence.clone(),
            parameters: self.speaker.sampler().model().num_params().iter().sum(),
            crop_size_px: config.crop_size,
            keep_mask: keep_mask.to_string(),
            sampler: sampler_name(sampler.kind).to_owned(),
            steps: sampler.num_steps,
            guidance: *guidance,
            feedback: *feedback,
        }
    }
}

impl MouthModel for Network {
    type Seen = Seen;
    type Drawn = Drawn;

    fn crop_size(&self) -> usize {
        self.recipe.config.crop_size
    }

    fn keep_mask(&self) -> KeepMaskKind {
        self.recipe.keep_mask
    }

    fn look(&self, masked: &[(Frame, usize)], clock: &mut Clock) -> Outcome<Vec<Seen>> {
        let crops: Vec<(&[u8], usize)> = masked.iter().map(|(crop, frame)| (&crop.data[..], *frame)).collect();
        Ok(self.speaker.look(&crops, &mut laps(clock))?)
    }

    fn draws_elsewhere(&self) -> bool {
        self.drawing.together.is_some()
    }

    fn start(&self, identity: &Frame) -> Outcome<Box<dyn MouthSequence<Self> + '_>> {
        let seat = self.drawing.together.as_ref().map(Together::seat);
        Ok(Box::new(Sequence { generator: self.speaker.start(&identity.data)?, network: self, seat }))
    }

    fn picture(&self, drawn: Drawn) -> Outcome<Frame> {
        let size = self.crop_size();
        Ok(Frame::from_rgb(size, size, self.speaker.picture(drawn))?)
    }
}

/// One person in one shot.
struct Sequence<'a> {
    network: &'a Network,
    generator: FrameGenerator<'a>,
    /// Its place among clips that draw together.
    seat: Option<Seat>,
}

impl MouthSequence<Network> for Sequence<'_> {
    fn draw(&mut self, seen: Seen, clock: &mut Clock) -> Outcome<Drawn> {
        let task = self.generator.ask(seen);
        let drawn = match &self.seat {
            Some(seat) => seat.draw(task, clock)?,
            None => draw(self.network.speaker.sampler(), &[task], clock)?.remove(0),
        };
        Ok(self.generator.take(drawn))
    }

    fn restart(&mut self) {
        self.generator.restart();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_users_sampler_wins_over_the_models() {
        let own = LipSyncConfig::lite().sampler;
        assert_eq!(choose_sampler(&own, None, None).unwrap(), own);
        let chosen = choose_sampler(&own, Some("dpm++2m"), Some(5)).unwrap();
        assert_eq!((chosen.kind, chosen.num_steps), (SamplerKind::DpmPlusPlus2m, 5));
        assert_eq!(choose_sampler(&own, Some("ddim"), None).unwrap(), own);
        assert_eq!(choose_sampler(&own, Some("rk45"), None).unwrap_err().exit_code(), 2);
        assert_eq!(choose_sampler(&own, None, Some(0)).unwrap_err().exit_code(), 2);
        assert_eq!((choose_guidance(2.0, None).unwrap(), choose_guidance(2.0, Some(1.0)).unwrap()), (2.0, 1.0));
        for senseless in [0.5, 21.0, f32::NAN] {
            assert_eq!(choose_guidance(2.0, Some(senseless)).unwrap_err().exit_code(), 2);
        }
    }
}
