//! The networks that judge: where they lie, what they are, and why one is not there.

use std::path::{Path, PathBuf};

use burn::tensor::Device;
use syncdiff_eval::{
    EvalResult, Group, Instruments, Judge, Maybe, MouthReader, OwnJudge, OwnReader, Reader, SyncNetV2, Wanted,
};
use syncdiff_face::FaceModels;
use syncdiff_model::scorers::{Lpips, LpipsFile, LpipsTrunk, SyncNet};
use syncdiff_model::weights::{WeightsFolder, sha256_of_file};

use syncdiff_train::run::{READER_FILE, SYNCNET_FILE};

use crate::folders::{self, ImportedFolder};

/// FID needs the features of a network that this program does not have.
pub(super) const NO_INCEPTION: &str = "this program has no Inception network; give features with --features";

/// Where the networks lie.
#[derive(Debug)]
pub(super) struct Shelf {
    wanted: Wanted,
    faces: PathBuf,
    lpips: PathBuf,
    syncnet: Option<ImportedFolder>,
    own_syncnet: Option<PathBuf>,
    reader: Option<ImportedFolder>,
    own_reader: Option<PathBuf>,
}

impl Shelf {
    /// Looks where they lie; reads none.
    pub(super) fn find(wanted: &Wanted, judge: Option<&Path>, reader: Option<&Path>) -> Self {
        let mut imported = folders::imported();
        let mut take = |layout: &str| {
            let at = imported.iter().position(|folder| folder.layout == layout)?;
            Some(imported.swap_remove(at))
        };
        Shelf {
            wanted: wanted.clone(),
            faces: folders::face_models(),
            lpips: folders::files_folder(folders::LPIPS),
            syncnet: take("syncnet_v2").filter(|_| judge.is_none()),
            own_syncnet: judge.map(Path::to_path_buf).or_else(|| own("syncnet", SYNCNET_FILE)),
            reader: take("avhubert_finetuned").filter(|_| reader.is_none()),
            own_reader: reader.map(Path::to_path_buf).or_else(|| own("reader", READER_FILE)),
        }
    }

    fn wants(&self, group: Group) -> bool {
        self.wanted.groups.contains(&group)
    }

    /// Reads those that are wanted. One that cannot be used is absent with the reason.
    pub(super) fn load(&self, device: &Device) -> Instruments {
        let lpips = |trunk: LpipsTrunk, wanted: bool| match wanted {
            true => Lpips::open(trunk, &self.lpips, device).map_err(|error| error.to_string()),
            false => not_asked(),
        };
        let vgg = self.wants(Group::LpipsVgg) || self.wants(Group::LpipsVggFull);
        Instruments {
            faces: FaceModels::load(&self.faces).map_err(|error| error.to_string()),
            alex: lpips(LpipsTrunk::Alex, self.wants(Group::Lpips)),
            vgg: lpips(LpipsTrunk::Vgg, vgg),
            judge: if self.wants(Group::Lse) { self.judge(device) } else { not_asked() },
            reader: if self.wants(Group::Wer) { self.reader(device) } else { not_asked() },
            device: device.clone(),
        }
    }

    fn judge(&self, device: &Device) -> Maybe<Box<dyn Judge>> {
        let Some(imported) = &self.syncnet else {
            let Some(own) = &self.own_syncnet else {
                let reason = "no judge: import syncnet_v2 with `syncdiff models import --layout syncnet_v2`, or name our \
                              own with --judge";
                return Err(reason.into());
            };
            let own = OwnJudge::load(own, device).map_err(|error| error.to_string())?;
            return Ok(Box::new(own));
        };
        let load = || -> EvalResult<SyncNetV2> {
            let net = WeightsFolder::open(&imported.folder)?.load(SyncNet::new(device), &SyncNet::remap())?;
            Ok(SyncNetV2::new(net, device, format!("imported, {}", imported.licence)))
        };
        load().map(|judge| Box::new(judge) as Box<dyn Judge>).map_err(|error| error.to_string())
    }

    fn reader(&self, device: &Device) -> Maybe<Box<dyn Reader>> {
        let load = || -> EvalResult<Option<Box<dyn Reader>>> {
            Ok(match (&self.reader, &self.own_reader) {
                (Some(imported), _) => Some(Box::new(MouthReader::load(&imported.folder, device)?)),
                (None, Some(own)) => Some(Box::new(OwnReader::load(own, device)?)),
                (None, None) => None,
            })
        };
        load().map_err(|error| error.to_string())?.ok_or_else(|| {
            "no lip reader: import one with `syncdiff models import --layout avhubert_finetuned`, name our own with \
             --reader, or give what another one read (column `read` of --pairs)"
                .into()
        })
    }

    /// All that the figures depend on besides the clips: other networks, other rows.
    pub(super) fn identity(&self) -> String {
        let manifest = |folder: &Option<ImportedFolder>, wanted: bool| match folder {
            Some(folder) if wanted => std::fs::read_to_string(folder.folder.join("weights.toml")).unwrap_or_default(),
            _ => String::new(),
        };
        let there = |trunk: LpipsTrunk| self.lpips.join(LpipsFile::of(trunk).name).is_file();
        let face = syncdiff_face::MODEL_FILES.iter().map(|file| (file.name, self.faces.join(file.name).is_file()));
        format!(
            "{:?} faces {:?} lpips {} {} judge {} {:?} reader {} {:?}",
            self.wanted,
            face.collect::<Vec<_>>(),
            there(LpipsTrunk::Alex),
            there(LpipsTrunk::Vgg),
            manifest(&self.syncnet, self.wants(Group::Lse)),
            self.own_syncnet.as_ref().map(|path| sha256_of_file(path).ok()),
            manifest(&self.reader, self.wants(Group::Wer)),
            self.own_reader.as_ref().filter(|_| self.wants(Group::Wer)).map(|path| sha256_of_file(path).ok()),
        )
    }
}

/// A network of our own, where it lies beside the other models.
fn own(kind: &str, file: &str) -> Option<PathBuf> {
    folders::preset_places(kind).into_iter().map(|place| place.join(file)).find(|path| path.is_file())
}

/// Who judged, in words, for the report.
pub(super) fn judges(instruments: &Instruments) -> Vec<(String, String)> {
    let mut judges = Vec::new();
    let or = |found: Maybe<String>| found.unwrap_or_else(|reason| format!("absent: {reason}"));
    let describe = |judge: &dyn Judge| format!("{}: {}", judge.name(), judge.description());
    judges.push(("judge of sync".into(), or(instruments.judge.as_deref().map(describe).map_err(String::clone))));
    let reader = instruments.reader.as_ref().map(|reader| reader.description()).map_err(String::clone);
    judges.push(("lip reader".into(), or(reader)));
    judges
}

fn not_asked<T>() -> Maybe<T> {
    Err("not asked for".to_owned())
}
