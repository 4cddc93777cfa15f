//! `syncdiff generate`: one clip, or the clips of a manifest.

mod manifest;
mod many;

use std::path::PathBuf;

use serde_json::json;
use syncdiff::network::{Recipe, sampler_name};
use syncdiff::progress::{Cancel, Watch};
use syncdiff::report::{Report, write_json};
use syncdiff::settings::Settings;
use syncdiff::wav2lip::Wav2Lip;
use syncdiff::{Engine, Error, GenerateSettings, ModelSettings, Outcome, generate};
use syncdiff_media::Tools;

use crate::cli::GenerateArgs;
use crate::terminal::{Display, ProgressKind, event, say};
use crate::{folders, system};

pub(crate) fn run(mut args: GenerateArgs, cancel: &Cancel) -> Outcome<u8> {
    let model = resolve_model(&args)?;
    if let Some(manifest) = args.manifest.take() {
        return many::run(&model, &manifest, &args, cancel);
    }
    if args.jobs.is_some() || args.skip_existing || args.fail_fast {
        // Not told by `requires`: an argument that others exclude is never required.
        return Err(Error::usage("--jobs, --skip-existing and --fail-fast are for many clips", "give --manifest"));
    }
    one(model, args, cancel)
}

fn one(mut model: ModelSettings, args: GenerateArgs, cancel: &Cancel) -> Outcome<u8> {
    let (progress, print_config) = (args.progress, args.print_config);
    let clip = resolve_clip(args);
    if print_config {
        // Without a look at the device: these may be the settings of another machine.
        if !Wav2Lip::is_meant(&model.weights) {
            let recipe = Recipe::read(&model)?;
            model.sampler = Some(sampler_name(recipe.sampling().sampler.kind).to_owned());
            model.steps = Some(recipe.sampling().sampler.num_steps);
            model.guidance = Some(recipe.sampling().guidance);
            model.feedback = Some(recipe.sampling().feedback);
        }
        let text = toml::to_string(&Settings { clip, model }).map_err(|error| {
            Error::usage(format!("the settings cannot be shown as TOML: {error}"), "use file names in UTF-8")
        })?;
        say(text.trim_end());
        return Ok(0);
    }
    let engine = Engine::new(&model)?;
    check_memory(&engine)?;
    if progress.is_json() {
        let text = format!("syncdiff {}: {:?}", syncdiff::VERSION, clip.video);
        let settings = Settings { clip: clip.clone(), model };
        event(&json!({"event": "start", "version": syncdiff::VERSION, "settings": settings, "text": text}));
    }
    let mut display = Display::new(progress);
    let report = make(&engine, &clip, &mut display.watch(cancel.clone()))?;
    drop(display);
    let result = clip.preview.as_ref().unwrap_or(&clip.out);
    if progress.is_json() {
        event(&json!({"event": "success", "output": result, "report": report, "text": summary(&report)}));
    } else {
        for warning in &report.warnings {
            eprintln!("warning: {warning}");
        }
        if progress != ProgressKind::None {
            eprintln!("{}", summary(&report));
        }
    }
    say(&result.to_string_lossy());
    Ok(0)
}

/// Makes a clip and writes its report.
fn make(engine: &Engine, clip: &GenerateSettings, watch: &mut Watch<'_>) -> Outcome<Report> {
    let mut report = generate(engine, &Tools::default(), clip, watch)?;
    report.peak_memory_bytes = system::peak_memory_bytes();
    if let Some(path) = &clip.report {
        write_json(path, &report)?;
    }
    Ok(report)
}

/// Compares what the model needs with what is free: an allocation that fails later would end the program without a word.
pub(super) fn check_memory(engine: &Engine) -> Outcome<()> {
    let Some(needed) = engine.memory_bytes() else { return Ok(()) };
    match system::memory_bytes() {
        Some((_, free)) if free < needed => {
            let path = engine.settings().weights.clone();
            Err(Error::Memory { path, needed_mib: needed >> 20, free_mib: free >> 20 })
        }
        _ => Ok(()),
    }
}

/// One line for people.
fn summary(report: &Report) -> String {
    let (output, seconds) = (&report.output, &report.seconds);
    let gaps = match report.face.gaps.len() {
        0 => String::new(),
        count => format!(", {count} gaps without the face passed through"),
    };
    format!(
        "{} frames ({:.2} s), {} with a new mouth{gaps}; {:.1} s, {:.3} s a frame",
        output.frames, output.secs, output.changed_frames, seconds.total, seconds.per_output_frame
    )
}

/// What the arguments say of the model.
fn resolve_model(args: &GenerateArgs) -> Outcome<ModelSettings> {
    let weights = folders::weights(args.weights.as_deref(), &args.preset)?;
    let face_models = args.face_models.clone().unwrap_or_else(folders::face_models);
    Ok(ModelSettings {
        precision: args.precision,
        sampler: args.sampler.clone(),
        steps: args.steps.map(usize::from),
        guidance: args.guidance,
        feedback: args.feedback.map(Into::into),
        batch: usize::from(args.batch),
        seed: args.seed,
        ..ModelSettings::new(weights, face_models, args.device)
    })
}

/// What the arguments say of a clip.
fn resolve_clip(args: GenerateArgs) -> GenerateSettings {
    GenerateSettings {
        video: args.video.unwrap_or_default(),
        audio: args.audio.unwrap_or_default(),
        mix: args.mix,
        // Only a preview, the printing of settings or a manifest goes without; none of them writes it.
        out: args.out.unwrap_or_else(|| PathBuf::from("out.mp4")),
        length: args.length.into(),
        face: args.face,
        fps: args.fps,
        crf: args.crf,
        composite: args.composite.into(),
        silence: args.silence.into(),
        cache: if args.no_cache { None } else { args.cache_dir.or_else(folders::cache_variable) },
        preview: args.preview,
        report: args.report,
        frames: args.lossless_frames,
    }
}
