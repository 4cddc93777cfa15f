//! `syncdiff generate`.

use std::path::PathBuf;

use serde_json::json;
use syncdiff::network::{Recipe, sampler_name};
use syncdiff::progress::Cancel;
use syncdiff::report::{Report, write_json};
use syncdiff::wav2lip::Wav2Lip;
use syncdiff::{Error, GenerateSettings, Outcome, generate};
use syncdiff_media::Tools;

use crate::cli::GenerateArgs;
use crate::terminal::{Display, ProgressKind, event, say};
use crate::{folders, system};

pub(crate) fn run(args: GenerateArgs, cancel: &Cancel) -> Outcome<u8> {
    let (progress, print_config) = (args.progress, args.print_config);
    let mut settings = resolve(args)?;
    let recipe = (!Wav2Lip::is_meant(&settings.weights)).then(|| Recipe::read(&settings)).transpose()?;
    if print_config {
        if let Some(recipe) = &recipe {
            settings.sampler = Some(sampler_name(recipe.sampling().sampler.kind).to_owned());
            settings.steps = Some(recipe.sampling().sampler.num_steps);
            settings.guidance = Some(recipe.sampling().guidance);
            settings.feedback = Some(recipe.sampling().feedback);
        }
        let text = toml::to_string(&settings).map_err(|error| {
            Error::usage(format!("the settings cannot be shown as TOML: {error}"), "use file names in UTF-8")
        })?;
        say(text.trim_end());
        return Ok(0);
    }
    if let Some(recipe) = &recipe {
        check_memory(recipe, &settings)?;
    }
    if progress.is_json() {
        let text = format!("syncdiff {}: {:?}", syncdiff::VERSION, settings.video);
        event(&json!({"event": "start", "version": syncdiff::VERSION, "settings": settings, "text": text}));
    }
    let mut display = Display::new(progress);
    let mut report = generate(&Tools::default(), &settings, &mut display.watch(cancel.clone()))?;
    drop(display);
    report.peak_memory_bytes = system::peak_memory_bytes();
    if let Some(path) = &settings.report {
        write_json(path, &report)?;
    }
    let result = settings.preview.as_ref().unwrap_or(&settings.out);
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

/// Compares what the model needs with what is free: an allocation that fails later would end the program without a word.
pub(super) fn check_memory(recipe: &Recipe, settings: &GenerateSettings) -> Outcome<()> {
    let needed = recipe.memory_bytes();
    match system::memory_bytes() {
        Some((_, free)) if free < needed => {
            Err(Error::Memory { path: settings.weights.clone(), needed_mib: needed >> 20, free_mib: free >> 20 })
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

/// Fills in what the arguments leave open.
fn resolve(args: GenerateArgs) -> Outcome<GenerateSettings> {
    let weights = match args.weights {
        Some(folder) => folder,
        None => folders::require_preset(&args.preset)?,
    };
    Ok(GenerateSettings {
        video: args.video,
        audio: args.audio,
        mix: args.mix,
        // Only a preview or the printing of settings goes without; neither writes it.
        out: args.out.unwrap_or_else(|| PathBuf::from("out.mp4")),
        weights,
        face_models: args.face_models.unwrap_or_else(folders::face_models),
        device: args.device,
        precision: args.precision,
        sampler: args.sampler,
        steps: args.steps.map(usize::from),
        guidance: args.guidance,
        feedback: args.feedback.map(Into::into),
        batch: usize::from(args.batch),
        seed: args.seed,
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
    })
}
