//! The arguments of `experiment`.

use std::path::PathBuf;
use std::str::FromStr;

use clap::Args;
use syncdiff::device::DeviceChoice;

/// Run a table of the paper: train the variants, generate and score test clips, print our figures beside the printed ones
///
/// Each row trains its variant (or takes the finished weights of an earlier run from its folder in --out), generates the
/// test clips and scores them as `eval` does. All rows have the same budget and start from the same autoencoder, speech
/// encoder and latents. A row that fails, or that needs what is not there, is a row with its reason. Interrupted, the
/// same command goes on where it stopped.
///
/// table1: GT, GT-REC, Wav2Lip, SadTalker, TalkLip, DiffTalk, SyncDiff. table2: audio features DS, FBANK, AVH. table3:
/// reference frame RND, PRV, PRV-, RND+PRV-. table4: variance of the latent representation IDENT, POSE. table5: previous
/// frames NP 1, NP 5, NP 10. table6: frozen layers of the speech encoder NF 3, NF 6, NF 9, NF 12 (of 12; for an encoder
/// of fewer layers the same share).
#[derive(Debug, Args)]
#[command(
    after_help = "Exit codes: 0 every row has figures, 3 at least one has a reason instead. Otherwise as `syncdiff \
                  --help` lists them."
)]
pub(crate) struct ExperimentArgs {
    /// Which table: table1 to table6
    #[arg(value_name = "TABLE", value_parser = ["table1", "table2", "table3", "table4", "table5", "table6"])]
    pub(super) table: String,

    /// Folder made by `syncdiff prepare`, to learn from
    #[arg(long, value_name = "DIR")]
    pub(super) data: PathBuf,

    /// Manifest of the clips to generate and score (tab-separated, with `path` and `split` columns)
    #[arg(long, value_name = "FILE")]
    pub(super) manifest: PathBuf,

    /// Folder for weights, clips and the table; rows that several tables share are trained once
    #[arg(long, value_name = "DIR")]
    pub(super) out: PathBuf,

    /// Training of each row: so many steps (`4000`), or so many hours of steps on this machine (`2h`)
    #[arg(long, value_name = "STEPS|Nh", required_unless_present = "eval_only")]
    pub(super) budget: Option<Budget>,

    /// Rows to run, by their names, separated by commas [default: all]
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub(super) rows: Vec<String>,

    /// Train nothing: rows without finished weights say so
    #[arg(long)]
    pub(super) eval_only: bool,

    /// Clips of another system for a row, `NAME=DIR`: files named as the test clips, below the folder
    #[arg(long, value_name = "NAME=DIR")]
    pub(super) outputs: Vec<Outputs>,

    /// Configuration of `train diffusion` that every row changes in its one respect [default: that of `lite`]
    #[arg(long, value_name = "FILE", help_heading = "Training")]
    pub(super) config: Option<PathBuf>,

    /// Autoencoder of all rows [default: the one in the preset's weights]
    #[arg(long, value_name = "FILE", help_heading = "Training")]
    pub(super) autoencoder: Option<PathBuf>,

    /// Speech encoder of all rows [default: the one in the preset's weights]
    #[arg(long, value_name = "FILE", help_heading = "Training")]
    pub(super) speech: Option<PathBuf>,

    /// How far picture and sound of each clip are apart: `offsets.tsv` of `train speech`
    #[arg(long, value_name = "FILE", help_heading = "Training")]
    pub(super) offsets: Option<PathBuf>,

    /// Result of `train syncnet` for the sync loss of Wav2Lip; another one must judge
    #[arg(long, value_name = "FILE", help_heading = "Training")]
    pub(super) syncnet: Option<PathBuf>,

    /// Split to score
    #[arg(long, value_name = "NAME", default_value = "test", help_heading = "Scoring")]
    pub(super) split: String,

    /// Most clips of one speaker, spread evenly; 0 takes all
    #[arg(long, value_name = "N", default_value_t = 3, help_heading = "Scoring")]
    pub(super) per_speaker: usize,

    /// Steps of the sampler; the model's own default when not given
    #[arg(long, value_name = "N", help_heading = "Scoring")]
    pub(super) steps: Option<usize>,

    /// Weight of the speech, 1 to 20; the model's own default when not given
    #[arg(long, value_name = "WEIGHT", help_heading = "Scoring")]
    pub(super) guidance: Option<f32>,

    /// What to measure, as of `eval`
    #[arg(long, value_name = "LIST", default_value = "psnr,ssim,lpips,lse,wer,lips", help_heading = "Scoring")]
    pub(super) metrics: String,

    /// Judge of sync, as of `eval`: with another seed than the network of any loss
    #[arg(long, value_name = "FILE", help_heading = "Scoring")]
    pub(super) judge: Option<PathBuf>,

    /// Clips scored at once [default: the number of cores]
    #[arg(long, value_name = "N", help_heading = "Scoring")]
    pub(super) jobs: Option<usize>,

    /// Where the networks run: auto, cpu, vulkan:N, cuda:N, metal:N, libtorch[:N]
    #[arg(long, value_name = "DEVICE", default_value = "auto")]
    pub(super) device: DeviceChoice,
}

/// How long each row is trained.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Budget {
    /// So many steps.
    Steps(u64),
    /// So many hours of steps.
    Hours(f64),
}

impl FromStr for Budget {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let budget = match text.strip_suffix('h') {
            Some(hours) => {
                hours.parse().ok().filter(|hours: &f64| *hours > 0.0 && hours.is_finite()).map(Budget::Hours)
            }
            None => text.parse().ok().filter(|steps| *steps > 0).map(Budget::Steps),
        };
        budget.ok_or_else(|| "give a number of steps such as 4000, or hours such as 2h".into())
    }
}

/// Clips of another system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Outputs {
    /// Name of the row.
    pub(super) name: String,
    /// Where they lie.
    pub(super) folder: PathBuf,
}

impl FromStr for Outputs {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            Some((name, folder)) if !name.is_empty() && !folder.is_empty() => {
                Ok(Outputs { name: name.to_owned(), folder: folder.into() })
            }
            _ => Err("give the row's name and a folder, such as TalkLip=clips/talklip".into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn budgets_are_steps_or_hours() {
        assert_eq!("4000".parse(), Ok(Budget::Steps(4000)));
        assert_eq!("1.5h".parse(), Ok(Budget::Hours(1.5)));
        for wrong in ["", "0", "0h", "-1h", "infh", "NaNh", "2 h", "2m", "h"] {
            assert!(wrong.parse::<Budget>().is_err(), "{wrong}");
        }
        let outputs = Outputs { name: "TalkLip".into(), folder: "a=b".into() };
        assert_eq!("TalkLip=a=b".parse(), Ok(outputs));
        assert!("TalkLip".parse::<Outputs>().is_err() && "=x".parse::<Outputs>().is_err());
    }
}
