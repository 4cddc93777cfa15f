//! `syncdiff prepare`.

use std::ops::ControlFlow;
use std::path::PathBuf;

use clap::Args;
use syncdiff::Outcome;
use syncdiff::progress::Cancel;
use syncdiff_data::{PrepareOptions, Progress, prepare, read_manifest, scan_folder};
use syncdiff_face::FaceModels;
use syncdiff_media::Tools;

use crate::folders;
use crate::terminal::say;

/// Turn clips into aligned training data
///
/// Every clip is decoded to 25 frames a second, its largest face tracked and cut out, its sound brought to 16 kHz.
/// Every clip gets a verdict in OUT/report.tsv; a clip that is already there is not done again.
#[derive(Debug, Args)]
pub(crate) struct PrepareArgs {
    /// Manifest (tab-separated, with a `path` column) or a folder of videos
    #[arg(long, value_name = "PATH")]
    input: PathBuf,

    /// Folder for the prepared clips
    #[arg(long, value_name = "DIR")]
    out: PathBuf,

    /// Splits to prepare; all when not given
    #[arg(long, value_name = "SPLIT", value_delimiter = ',')]
    splits: Vec<String>,

    /// Side of the aligned crops in pixels
    #[arg(long, value_name = "PX", default_value_t = 128)]
    crop_size: usize,

    /// Clips prepared at once; 0 takes one for each processor
    #[arg(long, value_name = "N", default_value_t = 0)]
    threads: usize,

    /// Folder of the face models
    #[arg(long, value_name = "DIR")]
    face_models: Option<PathBuf>,
}

pub(crate) fn run(args: &PrepareArgs, cancel: &Cancel) -> Outcome<u8> {
    let mut clips = if args.input.is_dir() { scan_folder(&args.input)? } else { read_manifest(&args.input)? };
    if !args.splits.is_empty() {
        clips.retain(|clip| args.splits.contains(&clip.split));
    }
    let models = FaceModels::load(&args.face_models.clone().unwrap_or_else(folders::face_models))?;
    let options = PrepareOptions { crop_size: args.crop_size, num_threads: args.threads, ..PrepareOptions::default() };
    let mut show = |progress: &Progress<'_>| {
        let clip = progress.clip;
        if !clip.reason.is_empty() || progress.finished.is_multiple_of(50) || progress.finished == progress.total {
            say(&format!("{}/{} {} {} {}", progress.finished, progress.total, clip.clip, clip.verdict, clip.reason));
        }
        if cancel.check().is_err() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let report = prepare(&Tools::default(), &models, &clips, &args.out, &options, &mut show)?;
    cancel.check()?;
    for (verdict, count) in report.counts() {
        say(&format!("{verdict}\t{count}"));
    }
    Ok(0)
}
