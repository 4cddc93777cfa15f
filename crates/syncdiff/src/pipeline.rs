//! The program on one page: a clip and a speech in, a clip that speaks out.

use std::time::Instant;

use syncdiff_face::{FaceChoice, SmoothOptions};
use syncdiff_media::{Plan, Rational, SourceWalk, Speech, Tools};

use crate::cache::speech::encode_speech;
use crate::cache::tracks::track;
use crate::cache::{Cache, Kept};
use crate::cast::Cast;
use crate::clock::{Clock, Phase};
use crate::engine::Engine;
use crate::error::{Error, Outcome};
use crate::mouth::MouthModel;
use crate::network::Network;
use crate::preview::preview_range;
use crate::progress::{Stage, Watch};
use crate::render::{FADE_FRAMES, Scene, render};
use crate::report::{CacheReport, ModelReport, Report, Summary};
use crate::settings::{GenerateSettings, Settings, Silence};
use crate::silence;
use crate::sink::Sink;
use crate::source::Source;
use crate::timeline::num_model_frames;
use crate::tracking::Tracked;
use crate::wav2lip::Wav2Lip;

/// Makes the mouth of a clip follow a speech, with an engine that other clips may use as well, even at the same time.
///
/// Two passes over the clip: the first finds the faces, so that a clip without any ends here, before a network is
/// read; the second draws and writes frame by frame in bounded memory. The output appears only when it is whole.
///
/// # Errors
/// Everything that [`Error`] lists; then no output is written, and one that was there stays.
pub fn generate(engine: &Engine, tools: &Tools, settings: &GenerateSettings, watch: &mut Watch<'_>) -> Outcome<Report> {
    let (start, mut clock) = (Instant::now(), Clock::default());
    let choice: FaceChoice = settings.face.parse()?;
    let still_rate: Rational = settings.fps.parse().map_err(|wrong: String| Error::usage(wrong, "give --fps 25"))?;

    let source = Source::open(tools, settings, still_rate)?;
    let cache = settings.cache.as_deref().map(Cache::open).transpose()?;
    let models = engine.faces()?;
    let speech = clock.time(Phase::Audio, || source.speech(tools))?;
    let needed = source.needed(settings.length, &speech);
    let (tracked, kept_tracks) =
        track(cache.as_ref(), tools, &source.video, &models, &source.read, needed, &mut clock, watch)?;
    tracked.require_a_face(&settings.video)?;
    let cast = tracked.faces.cast(&choice, &SmoothOptions::default())?;
    let plan = Plan::new(&tracked.index, settings.length, speech.duration())?;

    let shoot = Shoot { engine, tools, settings, source, tracked, cast, plan, kept_tracks, start };

    watch.step(Stage::Load, 0, None)?;
    let Some(recipe) = engine.recipe() else {
        let (weights, device) = (&engine.settings().weights, engine.device().0);
        let model = clock.time(Phase::Load, || Wav2Lip::load(weights, &speech.samples, device))?;
        return shoot.draw(&model, model.about(), speech, None, clock, watch);
    };
    let drawing = clock.time(Phase::Load, || engine.drawing(recipe))?;
    watch.step(Stage::Speech, 0, None)?;
    let (tokens, kept_speech) = clock.time(Phase::Audio, || {
        let (model, num_frames) = (drawing.sampler.model(), num_model_frames(&shoot.plan));
        encode_speech(cache.as_ref(), recipe, model, engine.device(), &speech.samples, num_frames)
    })?;
    let network = Network::listen(recipe.clone(), drawing, tokens);
    shoot.draw(&network, network.about(), speech, kept_speech, clock, watch)
}

/// All that is known before the first mouth is drawn.
struct Shoot<'a> {
    engine: &'a Engine,
    tools: &'a Tools,
    settings: &'a GenerateSettings,
    source: Source,
    tracked: Tracked,
    cast: Cast,
    plan: Plan,
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
        let Shoot { engine, tools, settings, source, tracked, cast, plan, kept_tracks, start } = self;
        let speaking = (settings.silence == Silence::Keep).then(|| silence::of_plan(&speech.samples, &plan));
        let speech_opacity = speaking.as_ref().map(|speaking| silence::opacity(speaking, FADE_FRAMES));
        let scene = Scene {
            plan: &plan,
            cast: &cast,
            speech_opacity: speech_opacity.as_deref(),
            composite: settings.composite,
            batch: engine.settings().batch,
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
            settings: Settings { clip: settings.clone(), model: engine.settings().clone() },
            model: about,
            device: engine.device().1.to_string(),
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
