//! Prepares the clips of a manifest or a folder into a folder of training data.
//!
//! `prepare INPUT OUT FACE_MODELS [SPLIT,SPLIT...] [CROP_SIZE] [THREADS]`

use std::ops::ControlFlow;
use std::path::Path;
use std::time::Instant;

use syncdiff_data::{DataError, PrepareOptions, Progress, prepare, read_manifest, scan_folder};
use syncdiff_face::FaceModels;
use syncdiff_media::Tools;

fn main() -> std::process::ExitCode {
    match run() {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            std::process::ExitCode::from(error.fault().exit_code())
        }
    }
}

fn run() -> Result<(), DataError> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let usage = |detail: &str| DataError::Parameter { stage: "usage", detail: detail.into() };
    let [input, out, models, rest @ ..] = &args[..] else {
        return Err(usage("prepare INPUT OUT FACE_MODELS [SPLITS] [CROP_SIZE] [THREADS]"));
    };
    let number = |at: usize, otherwise: usize| match rest.get(at) {
        Some(text) => text.parse().map_err(|_| usage("CROP_SIZE and THREADS are numbers")),
        None => Ok(otherwise),
    };
    let input = Path::new(input);
    let mut clips = if input.is_dir() { scan_folder(input)? } else { read_manifest(input)? };
    if let Some(splits) = rest.first() {
        clips.retain(|clip| splits.split(',').any(|split| split == clip.split));
    }
    let options =
        PrepareOptions { crop_size: number(1, 128)?, num_threads: number(2, 0)?, ..PrepareOptions::default() };
    let models = FaceModels::load(Path::new(models))?;
    let start = Instant::now();
    let mut show = |progress: &Progress<'_>| {
        let (clip, secs) = (progress.clip, start.elapsed().as_secs_f64());
        if !clip.reason.is_empty() || progress.finished.is_multiple_of(50) {
            println!(
                "{}/{} {secs:.0} s {} {} {}",
                progress.finished, progress.total, clip.clip, clip.verdict, clip.reason
            );
        }
        ControlFlow::Continue(())
    };
    let report = prepare(&Tools::default(), &models, &clips, Path::new(out), &options, &mut show)?;
    println!("{:.0} s, {} resumed", start.elapsed().as_secs_f64(), report.resumed);
    for (verdict, count) in report.counts() {
        println!("{verdict}\t{count}");
    }
    Ok(())
}
