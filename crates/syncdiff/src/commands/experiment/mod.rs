//! `syncdiff experiment`: a table of the paper, row by row.
//!
//! ```text
//! rows    = plan::rows(table), those of --rows
//! row     = weights (trained, or taken) -> clips (generated, or given) -> figures (as `eval` scores them)
//! table   = all rows so far beside the printed ones       written anew after every row: Markdown, CSV, JSON
//! ```
//!
//! Everything a row leaves lies in a folder of its own below `--out` and is taken again by the next run.

mod args;
mod clips;
mod plan;
mod report;
mod training;
mod variance;

use std::path::PathBuf;
use std::time::Instant;

use burn::tensor::Device;
use syncdiff::device::resolve;
use syncdiff::progress::Cancel;
use syncdiff::{Error, Outcome};
use syncdiff_data::{ClipSource, Dataset};
use syncdiff_media::Tools;
use syncdiff_model::LipSyncConfig;
use syncdiff_train::run::{MODEL_FOLDER, RunConfig};

pub(crate) use args::ExperimentArgs;
use plan::{RowPlan, System};
use report::{RowResult, TableReport};

use super::{eval, train};
use crate::terminal::say;

/// Some row has no figures.
const SOME_FAILED: u8 = 3;
/// The configuration of a row's training unless another is given.
const LITE: &str = include_str!("../../../../../configs/lite/diffusion.toml");

/// What all rows work with.
struct Lab<'a> {
    args: &'a ExperimentArgs,
    cancel: &'a Cancel,
    tools: Tools,
    /// What every variant changes in its own respect.
    base: RunConfig,
    model: LipSyncConfig,
    data: Dataset,
    clips: Vec<ClipSource>,
    device: Device,
    started: Instant,
}

pub(crate) fn run(args: &ExperimentArgs, cancel: &Cancel) -> Outcome<u8> {
    let lab = Lab::open(args, cancel)?;
    let number = args.table.trim_start_matches("table").parse().unwrap_or(1);
    let all = plan::rows(number, lab.model.audio.num_layers);
    if let Some(unknown) = args.outputs.iter().find(|given| all.iter().all(|row| row.name != given.name)) {
        let known: Vec<&str> = all.iter().map(|row| row.name).collect();
        let what = format!("--outputs: the table has no row {:?}", unknown.name);
        return Err(Error::usage(what, format!("choose among {}", known.join(", "))));
    }
    let rows = plan::choose(all, &args.rows)?;
    let mut table = TableReport::new(number, args);
    for row in &rows {
        say(&format!("\n== {} ==", row.name));
        let result = lab.row(row)?;
        if let Some(reason) = &result.reason {
            say(&format!("{}: no figures: {reason}", row.name));
        }
        table.rows.push(result);
        // After every row: a run that is ended leaves what it has.
        table.write(&args.out)?;
    }
    say(&format!("\n{}", table.markdown()));
    say(&format!("table: {}", args.out.join(format!("{}.md", args.table)).display()));
    Ok(if table.rows.iter().any(|row| row.reason.is_some()) { SOME_FAILED } else { 0 })
}

impl<'a> Lab<'a> {
    fn open(args: &'a ExperimentArgs, cancel: &'a Cancel) -> Outcome<Self> {
        let base = match &args.config {
            Some(path) => {
                let text = std::fs::read_to_string(path).map_err(|cause| Error::io("experiment", path, cause))?;
                RunConfig::from_toml(&text)?
            }
            None => RunConfig::from_toml(LITE)?,
        };
        let model = base.model()?;
        let clips = eval::choose(&args.manifest, &args.split, args.per_speaker)?;
        let tools = Tools::default();
        tools.check()?;
        let data = Dataset::open(&args.data, train::CLIP_CACHE_BYTES)?;
        std::fs::create_dir_all(&args.out).map_err(|cause| Error::io("experiment", &args.out, cause))?;
        let device = resolve(args.device)?.0;
        Ok(Lab { args, cancel, tools, base, model, data, clips, device, started: Instant::now() })
    }

    /// A row with its figures, or with the reason why it has none.
    ///
    /// # Errors
    /// [`Error::Cancelled`]: everything else is a reason.
    fn row(&self, plan: &RowPlan) -> Outcome<RowResult> {
        match self.try_row(plan) {
            Err(Error::Cancelled) => Err(Error::Cancelled),
            Err(error) => Ok(RowResult::without(plan, error.to_string())),
            Ok(row) => Ok(row),
        }
    }

    fn try_row(&self, plan: &RowPlan) -> Outcome<RowResult> {
        if let Some(given) = self.args.outputs.iter().find(|given| given.name == plan.name) {
            let folder = self.folder("systems", plan.name);
            let how = format!("clips of {}", given.folder.display());
            return self.score(plan, &folder, clips::given(&given.folder, &self.clips)?, how);
        }
        match &plan.system {
            System::Truth => {
                let pairs = self.clips.iter().map(|clip| (clip.path.clone(), clip)).collect();
                self.score(plan, &self.folder("systems", plan.name), pairs, "the originals".into())
            }
            System::Reconstruction => {
                let folder = self.folder("systems", plan.name);
                self.score(plan, &folder, self.reconstructed(&folder)?, "encoded and decoded".into())
            }
            System::Foreign => Err(Error::usage(
                format!("{} is not part of this program", plan.name),
                format!("make its clips with its own program and give --outputs {}=DIR", plan.name),
            )),
            System::Wav2Lip => {
                let folder = self.folder("systems", plan.name);
                let trained = self.wav2lip(&folder)?;
                let clips = self.generated(&folder, &trained.weights)?;
                self.score(plan, &folder, clips, trained.how)
            }
            System::Variant(variant) => {
                let folder = self.folder("variants", &variant.folder);
                let trained = self.variant(variant, &folder)?;
                let clips = self.generated(&folder, &trained.weights)?;
                self.score(plan, &folder, clips, trained.how)
            }
            System::Variance(varied) => self.variance(plan, *varied),
        }
    }

    fn folder(&self, kind: &str, name: &str) -> PathBuf {
        self.args.out.join(kind).join(name.to_lowercase())
    }

    /// The weights folder of a variant's run.
    fn model_folder(&self, variant: &plan::Variant) -> PathBuf {
        self.folder("variants", &variant.folder).join(MODEL_FOLDER)
    }
}
