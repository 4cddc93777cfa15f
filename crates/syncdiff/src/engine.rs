//! What clips that are made one after the other, or at once, have in common: the networks, read once.

use std::sync::{Arc, Mutex, PoisonError};

use burn::tensor::Device;
use syncdiff_face::FaceModels;
use syncdiff_model::generate::FrameSampler;

use crate::device::{self, DeviceChoice};
use crate::error::{Error, Outcome};
use crate::network::{Drawing, Recipe};
use crate::settings::ModelSettings;
use crate::together::Together;
use crate::wav2lip::Wav2Lip;

/// The networks under one choice of weights, device and sampling. Each is read when the first clip needs it.
pub struct Engine {
    settings: ModelSettings,
    device: Device,
    device_name: DeviceChoice,
    recipe: Option<Recipe>,
    faces: Once<FaceModels>,
    network: Once<Drawing>,
    seats: usize,
}

impl Engine {
    /// Settles device and sampling. No weights are read yet.
    ///
    /// # Errors
    /// Those of [`device::resolve`] and of [`Recipe::read`]; a precision that the device lacks.
    pub fn new(settings: &ModelSettings) -> Outcome<Self> {
        let (device, device_name) = device::resolve(settings.device)?;
        settings.precision.check(&device)?;
        let recipe = (!Wav2Lip::is_meant(&settings.weights)).then(|| Recipe::read(settings)).transpose()?;
        let settings = settings.clone();
        Ok(Engine { settings, device, device_name, recipe, faces: Once::new(), network: Once::new(), seats: 1 })
    }

    /// About how much memory its clips take; none where that is not known.
    pub fn memory_bytes(&self) -> Option<u64> {
        self.recipe.as_ref().map(|recipe| recipe.memory_bytes(self.seats))
    }

    /// Lets so many clips be made at once; their mouths are drawn as one batch.
    #[must_use]
    pub fn together(self, clips: usize) -> Self {
        Engine { seats: clips.max(1), ..self }
    }

    /// What it was made from.
    pub fn settings(&self) -> &ModelSettings {
        &self.settings
    }

    /// The model before its weights; none for Wav2Lip.
    pub fn recipe(&self) -> Option<&Recipe> {
        self.recipe.as_ref()
    }

    /// Where the networks run, and its name.
    pub fn device(&self) -> (&Device, DeviceChoice) {
        (&self.device, self.device_name)
    }

    /// The face models.
    ///
    /// # Errors
    /// Those of the files.
    pub fn faces(&self) -> Outcome<Arc<FaceModels>> {
        self.faces.get(|| Ok(FaceModels::load(&self.settings.face_models)?))
    }

    /// The model, and how it samples.
    ///
    /// # Errors
    /// Those of the weights; [`Error::Usage`] for Wav2Lip, which does not sample.
    pub fn sampler(&self) -> Outcome<Arc<FrameSampler>> {
        let Some(recipe) = &self.recipe else {
            let what = format!("{:?} holds Wav2Lip, which has no sampler", self.settings.weights);
            return Err(Error::usage(what, "name a folder of weights"));
        };
        Ok(Arc::clone(&self.drawing(recipe)?.sampler))
    }

    /// The model, and where clips draw together.
    pub(crate) fn drawing(&self, recipe: &Recipe) -> Outcome<Arc<Drawing>> {
        self.network.get(|| {
            let sampler = Arc::new(recipe.load(&self.device)?);
            sampler.at_most(self.settings.batch * self.seats);
            let together = (self.seats > 1).then(|| Together::new(Arc::clone(&sampler))).transpose()?;
            Ok(Drawing { sampler, together })
        })
    }
}

/// What is made when it is first asked for, and shared from then on. Whoever asks meanwhile waits; what could not be made
/// is tried again.
struct Once<T>(Mutex<Option<Arc<T>>>);

impl<T> Once<T> {
    fn new() -> Self {
        Once(Mutex::new(None))
    }

    fn get(&self, make: impl FnOnce() -> Outcome<T>) -> Outcome<Arc<T>> {
        let mut made = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(made) = &*made {
            return Ok(Arc::clone(made));
        }
        Ok(Arc::clone(made.insert(Arc::new(make()?))))
    }
}
