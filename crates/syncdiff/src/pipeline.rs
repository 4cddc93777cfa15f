//! The program on one page: a clip and a speech in, a clip that speaks out.

use std::time::Instant;

use syncdiff_face::{FaceChoice, FaceModels, SmoothOptions};
use syncdiff_media::{Plan, Rational, SourceWalk, Speech, Tools};

use crate::cache::speech::encode_speech;
use crate::cache::tracks::track;
use crate::cache::{Cache, Kept};
use crate::cast::Cast;
use crate::clock::{Clock, Phase};
use crate::device::DeviceChoice;
use crate::error::{Error, Outcome};
use crate::mouth::MouthModel;
use crate::network::{Network, Recipe};
use crate::preview::preview_range;
use crate::progress::{Stage, Watch};
use crate::render::{FADE_FRAMES, Scene, render};
use crate::report::{CacheReport, ModelReport, Report, Summary};
use crate::settings::{GenerateSettings, Silence};
use crate::sink::Sink;
use crate::source::Source;
use crate::timeline::num_model_frames;
use crate::tracking::Tracked;
use crate::wav2lip::Wav2Lip;
use crate::{device, silence};

/// Makes the mouth of a clip follow a speech.
///
/// Two passes over the clip: the first finds the faces, so that a clip without any ends here, before a network is
/// read; the second draws and writes frame by frame in bounded memory. The output appears only when it is whole.
///
/// # Errors
/// Everything that [`Error`] lists; then no output is written, and one that was there stays.
pub fn generate(tools: &Tools, settings: &GenerateSettings, watch: &mut Watch<'_>) -> Outcome<Report> {
    let (start, mut clock) = (Instant::now(), Clock::default());
    let choice: FaceChoice = settings.face.parse()?;
    let still_rate: Rational = settings.fps.parse().map_err(|wrong: String| Error::usage(wrong, "give --fps 25"))?;
    let (device, device_name) = device::resolve(settings.device)?;
    settings.precision.check(&device)?;
    let recipe = (!Wav2Lip::is_meant(&settings.weights)).then(|| Recipe::read(settings)).transpose()?;

    let source = Source::open(tools, settings, still_rate)?;
    let cache = settings.cache.as_deref().map(Cache::open).transpose()?;
    let models = FaceModels::load(&settings.face_models)?;
    let speech = clock.time(Phase::Audio, || source.speech(tools))?;
    let needed = source.needed(settings.length, &speech);
    let (tracked, kept_tracks) =
        track(cache.as_ref(), tools, &source.video, &models, &source.read, needed, &mut clock, watch)?;
    tracked.require_a_face(&settings.video)?;
    let cast = tracked.faces.cast(&choice, &SmoothOptions::default())?;
    let plan = Plan::new(&tracked.index, settings.length, speech.duration())?;

    let shoot = Shoot { tools, settings, source, tracked, cast, plan, device_name, kept_tracks, start };

    watch.step(Stage::Load, 0, None)?;
    let Some(recipe) = recipe else {
        let model = clock.time(Phase::Load, || Wav2Lip::load(&settings.weights, &speech.samples, &device))?;
        return shoot.draw(&model, model.about(), speech, None, clock, watch);
    };
    let model = clock.time(Phase::Load, || Network::load(&recipe, &device))?;
    watch.step(Stage::Speech, 0, None)?;
    let (network, kept_speech) = clock.time(Phase::Audio, || {
        let (device, num_frames) = ((&device, device_name), num_model_frames(&shoot.plan));
        let (tokens, kept) = encode_speech(cache.as_ref(), &recipe, &model, device, &speech.samples, num_frames)?;
        Ok::<_, Error>((Network::listen(recipe, &model, tokens)?, kept))
    })?;
    shoot.draw(&network, network.about(), speech, kept_speech, clock, watch)
}

/// All that is known before the first mouth is drawn.
struct Shoot<'a> {
    tools: &'a Tools,
    settings: &'a GenerateSettings,
    source: Source,
    tracked: Tracked,
    cast: Cast,
    plan: Plan,
    device_name: DeviceChoice,
    kept_tracks: Option<Kept>,
    start: Instant,
}

impl Shoot<'_> {
    /// The second pass, with a model that has heard the speech.
    fn draw<M: MouthModel>(
        self,
        model: &M,
        about: ModelReport,
        speech: Speech,
        kept_speech: Option<Kept>,
        mut clock: Clock,
        watch: &mut Watch<'_>,
    ) -> Outcome<Report> {
        let Shoot { tools, settings, source, tracked, cast, plan, device_name, kept_tracks, start } = self;
        let speaking = (settings.silence == Silence::Keep).then(|| silence::of_plan(&speech.samples, &plan));
        let speech_opacity = speaking.as_ref().map(|speaking| silence::opacity(speaking, FADE_FRAMES));
        let scene = Scene {
            plan: &plan,
            cast: &cast,
            speech_opacity: speech_opacity.as_deref(),
            composite: settings.composite,
            batch: settings.batch,
            model,
        };
        let outputs = match settings.preview {
            Some(_) => preview_range(&plan, &cast, &speech.samples)
                .ok_or_else(|| Error::NoFace { path: settings.video.clone(), frames: tracked.faces.num_frames() })?,
            None => 0..plan.len(),
        };
        // Heard and encoded: the samples of a long speech are let go before the drawing takes its memory.
        let (speech_length, speech_warnings) = (speech.duration(), speech.warnings);
        drop(speech.samples);
        let walk = SourceWalk::new(tools, &source.video, &tracked.index, &plan, outputs.clone(), &source.read)?;
        let mut sink = Sink::open(tools, settings, &source, &plan, &outputs)?;
        let counts = render(&scene, outputs, walk, &mut |frame, clock| sink.take(&frame, clock), &mut clock, watch)?;
        watch.check()?;
        let written = clock.time(Phase::Encode, || sink.finish())?;

        let summary = Summary {
            settings,
            model: about,
            device: device_name.to_string(),
            source: &source,
            tracked: &tracked,
            cast: &cast,
            speech_length,
            speech_warnings: &speech_warnings,
            speaking: speaking.as_deref(),
            plan: &plan,
            counts,
            written,
            cache: kept_tracks.zip(kept_speech).map(|(tracks, speech)| CacheReport { tracks, speech }),
            clock: &clock,
            total_secs: start.elapsed().as_secs_f64(),
        };
        summary.report(tools.check()?)
    }
}
