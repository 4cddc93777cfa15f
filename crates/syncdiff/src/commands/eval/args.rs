//! The arguments of `eval`.

use std::collections::BTreeSet;
use std::path::PathBuf;

use clap::{ArgGroup, Args};
use syncdiff::device::DeviceChoice;
use syncdiff::network::sampler_names;
use syncdiff::{Error, Outcome};
use syncdiff_eval::{Group, Wanted};
use syncdiff_model::{LipSyncConfig, Precision};

use crate::cli::{CompositeArg, FeedbackArg};

/// Score generated clips against the originals
///
/// Either clips of any system (`--generated` and `--reference`, or `--pairs`), or clips that this program generates
/// first (`--manifest`): each driven by its own speech, and once more by the speech of another clip, which must not
/// make the mouth follow the original.
///
/// Writes `report.html` (self-contained, with players), `figures.json`, `figures.csv` and `summary.md` into the folder.
/// Clips that were scored before, from the same files with the same settings, are read back from `clips/`.
#[derive(Debug, Args)]
#[command(group(ArgGroup::new("clips").required(true).args(["generated", "pairs", "manifest"])))]
#[command(
    after_help = "Exit codes: 0 every clip was scored, 3 at least one was not: its row says why, the others are \
                        in the report. Otherwise as `syncdiff --help` lists them."
)]
pub(crate) struct EvalArgs {
    /// Folder of generated clips
    #[arg(long, value_name = "DIR", allow_hyphen_values = true, requires = "reference")]
    pub(super) generated: Option<PathBuf>,

    /// Folder of the originals: clips of the same name below their folder belong together, whatever their endings. A
    /// text file beside a clip (`NAME.txt`) is its transcript
    #[arg(long, value_name = "DIR", allow_hyphen_values = true, requires = "generated")]
    pub(super) reference: Option<PathBuf>,

    /// Table of clips instead of two folders (tab-separated, the first line names the columns): `generated` and
    /// `reference`, relative to the table; where wanted `name`, `speaker`, `speech` (the file that drove the clip, if
    /// its sound is another), `transcript`, and `read` (what some lip reader read off it)
    #[arg(long, value_name = "FILE", allow_hyphen_values = true)]
    pub(super) pairs: Option<PathBuf>,

    /// What to measure: `all`, or some of psnr, ssim, lpips, lpips-vgg, lpips-vgg-full (seconds a frame; not in `all`),
    /// fid, lse, wer, lips, time, separated by commas. A figure whose network is missing is absent, with the reason
    #[arg(long, value_name = "LIST", default_value = "all")]
    pub(super) metrics: String,

    /// Folder for the report
    #[arg(long, value_name = "DIR", allow_hyphen_values = true)]
    pub(super) out: PathBuf,

    /// LPIPS of mouth, full frame and on VGG look at every N-th frame; that on AlexNet over the face box at all
    #[arg(long, value_name = "N", default_value_t = 15, value_parser = clap::value_parser!(u16).range(1..))]
    pub(super) every: u16,

    /// Inception features of all frames for FID, from another program: a safetensors file with `generated` and
    /// `reference`, each [pictures, values]
    #[arg(long, value_name = "FILE", allow_hyphen_values = true)]
    pub(super) features: Option<PathBuf>,

    /// Judge of sync: a file that `train syncnet` wrote, with another seed than the network of any loss [default:
    /// imported syncnet_v2, else our own in `models/syncnet`]
    #[arg(long, value_name = "FILE", allow_hyphen_values = true)]
    pub(super) judge: Option<PathBuf>,

    /// Lip reader for word error rates: a file that `train reader` wrote, which reads GRID commands only [default:
    /// imported AV-HuBERT, else our own in `models/reader`]
    #[arg(long, value_name = "FILE", allow_hyphen_values = true)]
    pub(super) reader: Option<PathBuf>,

    /// Clips worked on at once; each takes about one core and a few hundred MB [default: the number of cores]
    #[arg(long, value_name = "N")]
    pub(super) jobs: Option<usize>,

    /// Copy the clips that the report shows into its folder, so that it can be moved
    #[arg(long)]
    pub(super) copy_clips: bool,

    /// Score clips again that were scored before
    #[arg(long)]
    pub(super) fresh: bool,

    /// Where the networks run: auto, cpu, vulkan:N, cuda:N, metal:N, libtorch[:N]
    #[arg(long, value_name = "DEVICE", default_value = "auto")]
    pub(super) device: DeviceChoice,

    /// Manifest of clips to generate and score (tab-separated, with `path` and `split` columns)
    #[arg(long, value_name = "FILE", help_heading = "Generate first")]
    pub(super) manifest: Option<PathBuf>,

    /// Split to score
    #[arg(long, value_name = "NAME", default_value = "test", help_heading = "Generate first")]
    pub(super) split: String,

    /// Weights folder; the preset's when not given
    #[arg(long, value_name = "DIR", help_heading = "Generate first")]
    pub(super) weights: Option<PathBuf>,

    /// Preset whose weights are scored
    #[arg(long, value_parser = LipSyncConfig::PRESETS, default_value = "lite", help_heading = "Generate first")]
    pub(super) preset: String,

    /// Most clips of one speaker, spread evenly; 0 takes all
    #[arg(long, value_name = "N", default_value_t = 0, help_heading = "Generate first")]
    pub(super) per_speaker: usize,

    /// Contact sheets to write: of the first clip of each of the first N speakers
    #[arg(long, value_name = "N", default_value_t = 3, help_heading = "Generate first")]
    pub(super) sheets: usize,

    /// Sampler: ddim, dpm++2m, euler, heun or lcm; the model's own when not given
    #[arg(long, value_parser = sampler_names(), help_heading = "Generate first")]
    pub(super) sampler: Option<String>,

    /// Steps of the sampler; the model's own default when not given
    #[arg(long, value_name = "N", help_heading = "Generate first")]
    pub(super) steps: Option<usize>,

    /// Weight of the speech, 1 to 20; the model's own default when not given
    #[arg(long, value_name = "WEIGHT", help_heading = "Generate first")]
    pub(super) guidance: Option<f32>,

    /// Type in which U-Net and autoencoder compute, as of `generate`
    #[arg(long, default_value = "f32", help_heading = "Generate first")]
    pub(super) precision: Precision,

    /// How the mouth gets into the frame; `skin`, the default of `generate`, takes from the source what is scored
    /// against it
    #[arg(long, value_enum, default_value_t = CompositeArg::Face, help_heading = "Generate first")]
    pub(super) composite: CompositeArg,

    /// What a drawn frame hands to the next; the model's own default when not given
    #[arg(long, value_enum, help_heading = "Generate first")]
    pub(super) feedback: Option<FeedbackArg>,
}

impl EvalArgs {
    /// Clips of a table, scored as the command does by default.
    pub(crate) fn of_pairs(table: PathBuf, metrics: String, out: PathBuf, device: DeviceChoice) -> Self {
        EvalArgs {
            generated: None,
            reference: None,
            pairs: Some(table),
            metrics,
            out,
            every: 15,
            features: None,
            judge: None,
            reader: None,
            jobs: None,
            copy_clips: false,
            fresh: false,
            device,
            manifest: None,
            split: "test".into(),
            weights: None,
            preset: "lite".into(),
            per_speaker: 0,
            sheets: 0,
            sampler: None,
            steps: None,
            guidance: None,
            precision: Precision::F32,
            composite: CompositeArg::Face,
            feedback: None,
        }
    }

    /// With another judge of sync, and so many clips at once.
    pub(crate) fn judged_by(self, judge: Option<PathBuf>, jobs: Option<usize>) -> Self {
        EvalArgs { judge, jobs, ..self }
    }

    /// The figures that `--metrics` names.
    ///
    /// # Errors
    /// [`Error::Usage`] for an unknown name.
    pub(super) fn wanted(&self) -> Outcome<Wanted> {
        let mut groups = BTreeSet::new();
        for name in self.metrics.split(',').map(str::trim).filter(|name| !name.is_empty()) {
            if name == "all" {
                groups.extend(Group::NAMED.iter().filter(|(_, _, all)| *all).map(|(_, group, _)| *group));
                continue;
            }
            let Some((_, group, _)) = Group::NAMED.iter().find(|(known, _, _)| *known == name) else {
                let known: Vec<&str> = Group::NAMED.iter().map(|(name, _, _)| *name).collect();
                let remedy = format!("give `all` or some of {}", known.join(", "));
                return Err(Error::usage(format!("--metrics: {name:?} is no metric"), remedy));
            };
            groups.insert(*group);
        }
        if groups.is_empty() {
            return Err(Error::usage("--metrics names nothing", "give `all`, or names separated by commas"));
        }
        Ok(Wanted { groups, every: usize::from(self.every) })
    }
}
