//! Which rows a table has, and what makes the clips of each.

use syncdiff::{Error, Outcome};
use syncdiff_train::run::{FeaturesName, ModelChanges, PriorsName};

/// Layers of the encoder that the paper freezes some of.
const PAPER_LAYERS: usize = 12;

/// One row.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct RowPlan {
    /// Its name in the paper, where that has the row.
    pub(super) name: &'static str,
    /// What it is here, where that is not what the paper has.
    pub(super) note: String,
    pub(super) system: System,
}

/// What makes the clips.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum System {
    /// The original itself.
    Truth,
    /// The autoencoder alone.
    Reconstruction,
    /// Wav2Lip on the same data.
    Wav2Lip,
    /// Another project's program.
    Foreign,
    /// A variant of the model.
    Variant(Variant),
    /// No clips: how much the latent representation varies.
    Variance(Varied),
}

/// What is varied while the rest stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Varied {
    /// The identity frame.
    Identity,
    /// The clip, with equally open mouths.
    Pose,
}

/// A variant of the model, trained once for all tables.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Variant {
    /// Name of its folder.
    pub(super) folder: String,
    pub(super) changes: ModelChanges,
}

/// RND, the paper's model, and others that differ from the preset by their priors alone.
pub(super) fn of_priors(priors: PriorsName) -> Variant {
    let folder = match priors {
        PriorsName::Rnd => "rnd",
        PriorsName::Prv => "prv",
        PriorsName::PrvBottleneck => "prv-bottleneck",
        PriorsName::RndPrvBottleneck => "syncdiff",
    };
    Variant { folder: folder.into(), changes: ModelChanges { priors: Some(priors), ..ModelChanges::default() } }
}

fn of_features(folder: &str, features: FeaturesName) -> Variant {
    let changes = ModelChanges { features: Some(features), ..of_priors(PriorsName::Rnd).changes };
    Variant { folder: folder.into(), changes }
}

fn row(name: &'static str, note: &str, system: System) -> RowPlan {
    RowPlan { name, note: note.into(), system }
}

fn variant(name: &'static str, note: &str, variant: Variant) -> RowPlan {
    row(name, note, System::Variant(variant))
}

/// The rows of a table, for a speech encoder of `layers` layers.
pub(super) fn rows(table: u8, layers: usize) -> Vec<RowPlan> {
    let ours = || of_priors(PriorsName::RndPrvBottleneck);
    match table {
        1 => vec![
            row("GT", "", System::Truth),
            row("GT-REC", "autoencoder alone", System::Reconstruction),
            row("Wav2Lip", "small width, same data", System::Wav2Lip),
            row("SadTalker", "", System::Foreign),
            row("TalkLip", "", System::Foreign),
            variant("DiffTalk", "filter bank + RND in place of DS + RND", difftalk()),
            variant("SyncDiff", "", ours()),
        ],
        2 => vec![
            variant("DS", "", of_features("deep-speech", FeaturesName::DeepSpeech)),
            variant("FBANK", "filter bank without encoder; not in the paper", difftalk()),
            variant("AVH", "the preset's own encoder", of_priors(PriorsName::Rnd)),
        ],
        3 => vec![
            variant("RND", "", of_priors(PriorsName::Rnd)),
            variant("PRV", "", of_priors(PriorsName::Prv)),
            variant("PRV-", "", of_priors(PriorsName::PrvBottleneck)),
            variant("RND+PRV-", "", ours()),
        ],
        4 => vec![
            row("IDENT", "", System::Variance(Varied::Identity)),
            row("POSE", "equally open mouths in place of a word marked by hand", System::Variance(Varied::Pose)),
        ],
        5 => vec![variant("NP 1", "", ours()), previous("NP 5", 5), previous("NP 10", 10)],
        _ => [("NF 3", 3), ("NF 6", 6), ("NF 9", 9), ("NF 12", 12)]
            .map(|(name, frozen)| frozen_layers(name, frozen, layers))
            .into(),
    }
}

fn difftalk() -> Variant {
    of_features("difftalk", FeaturesName::FilterBank)
}

fn previous(name: &'static str, count: usize) -> RowPlan {
    let ours = of_priors(PriorsName::RndPrvBottleneck).changes;
    let changes = ModelChanges { previous_frames: Some(count), ..ours };
    variant(name, "", Variant { folder: format!("np-{count}"), changes })
}

/// The same share of the layers as in the paper.
fn frozen_layers(name: &'static str, of_twelve: usize, layers: usize) -> RowPlan {
    let frozen = (of_twelve * layers + PAPER_LAYERS / 2) / PAPER_LAYERS;
    let note = if layers == PAPER_LAYERS { String::new() } else { format!("{frozen} of {layers} layers") };
    let ours = of_priors(PriorsName::RndPrvBottleneck);
    // With all of them frozen it is the model of the other tables.
    let made = match frozen < layers {
        true => Variant {
            folder: format!("nf-{frozen}"),
            changes: ModelChanges { frozen_layers: Some(frozen), ..ours.changes },
        },
        false => ours,
    };
    RowPlan { note, ..variant(name, "", made) }
}

/// Leaves the rows that `--rows` names.
///
/// # Errors
/// [`Error::Usage`] for a name that the table has not.
pub(super) fn choose(all: Vec<RowPlan>, wanted: &[String]) -> Outcome<Vec<RowPlan>> {
    let known: Vec<&str> = all.iter().map(|row| row.name).collect();
    if let Some(name) = wanted.iter().find(|name| !known.contains(&name.trim())) {
        let remedy = format!("choose among {}", known.join(", "));
        return Err(Error::usage(format!("--rows: the table has no row {name:?}"), remedy));
    }
    Ok(all.into_iter().filter(|row| wanted.is_empty() || wanted.iter().any(|name| name.trim() == row.name)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;
    use syncdiff_eval::paper_tables;
    use syncdiff_model::LipSyncConfig;

    #[test]
    fn every_row_of_the_paper_is_there_in_its_order() {
        for table in 1..=6 {
            let names: Vec<&str> = rows(table, 4).iter().map(|row| row.name).filter(|name| *name != "FBANK").collect();
            for paper in paper_tables(table) {
                assert_eq!(names, paper.rows.iter().map(|row| row.name).collect::<Vec<_>>(), "table {table}");
            }
        }
    }

    /// One folder never stands for two models; all but DeepSpeech can be built.
    #[test]
    fn a_folder_is_one_model() {
        let mut models = HashMap::new();
        for row in (1..=6).flat_map(|table| rows(table, 4)) {
            let System::Variant(Variant { folder, changes }) = row.system else { continue };
            let made = changes.apply(LipSyncConfig::lite());
            assert_eq!(made.is_err(), row.name == "DS", "{}", row.name);
            assert_eq!(*models.entry(folder).or_insert_with(|| changes.clone()), changes, "{}", row.name);
        }
        let frozen = |layers: usize| {
            let told = rows(6, layers).into_iter().map(|row| match row.system {
                System::Variant(variant) => variant.changes.frozen_layers,
                _ => None,
            });
            told.collect::<Vec<_>>()
        };
        assert_eq!(frozen(4), [Some(1), Some(2), Some(3), None]);
        assert_eq!(frozen(12), [Some(3), Some(6), Some(9), None]);
    }

    #[test]
    fn rows_are_chosen_by_name() {
        let names = |wanted: &[&str]| {
            let wanted: Vec<String> = wanted.iter().map(|name| (*name).to_owned()).collect();
            choose(rows(3, 4), &wanted).map(|rows| rows.iter().map(|row| row.name).collect::<Vec<_>>())
        };
        assert_eq!(names(&[]).unwrap().len(), 4);
        assert_eq!(names(&["RND+PRV-", " RND"]).unwrap(), ["RND", "RND+PRV-"]);
        assert!(names(&["PRW"]).unwrap_err().to_string().contains("RND, PRV, PRV-, RND+PRV-"));
    }
}
