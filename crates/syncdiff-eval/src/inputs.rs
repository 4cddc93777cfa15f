//! What the scoring of a clip is given, and what it gives.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use burn::tensor::Device;
use syncdiff_face::FaceModels;
use syncdiff_model::scorers::Lpips;

use crate::judge::Judge;
use crate::metrics::Group;
use crate::pairs::ClipFacts;
use crate::read::Reader;
use crate::words::EditCounts;

/// Which figures are wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// By what they are asked for with.
    pub groups: BTreeSet<Group>,
    /// LPIPS of the mouth, of the full frame and on VGG look at every so many frames; at least 1.
    pub every: usize,
}

impl Wanted {
    pub(crate) fn has(&self, group: Group) -> bool {
        self.groups.contains(&group)
    }
}

/// A network, or why there is none.
pub type Maybe<T> = Result<T, String>;

/// The networks that look at clips. Each worker has its own.
pub struct Instruments {
    /// Finds faces.
    pub faces: Maybe<FaceModels>,
    /// LPIPS on AlexNet.
    pub alex: Maybe<Lpips>,
    /// LPIPS on VGG-16.
    pub vgg: Maybe<Lpips>,
    /// Judges sync.
    pub judge: Maybe<Box<dyn Judge>>,
    /// Reads lips.
    pub reader: Maybe<Box<dyn Reader>>,
    /// Where LPIPS runs.
    pub device: Device,
}

/// One clip to score.
#[derive(Clone, Copy, Debug)]
pub struct ClipInputs<'a> {
    /// What a system made.
    pub generated: &'a Path,
    /// The truth.
    pub reference: &'a Path,
    /// The speech that drove it, where it is neither in the generated clip nor that of the reference.
    pub speech: Option<&'a Path>,
    /// What is said, where that is known.
    pub transcript: Option<&'a str>,
    /// What somebody else's lip reader read off the generated clip.
    pub read: Option<&'a str>,
}

/// What came out.
#[derive(Clone, Debug)]
pub struct Scored {
    /// Figures by the keys of [`METRICS`].
    pub figures: BTreeMap<String, f64>,
    /// Why a wanted figure is not there.
    pub absent: BTreeMap<String, String>,
    /// What is unequal about the clips, and what else a reader must know.
    pub remarks: Vec<String>,
    /// The generated clip and the reference.
    pub facts: [ClipFacts; 2],
    /// Pairs of frames that were scored.
    pub pairs: usize,
    /// Pairs in which the reference shows a face.
    pub face_pairs: usize,
    /// Edits and words, where words were compared.
    pub words: Option<EditCounts>,
    /// Lip opening per pair: the reference's and the generated clip's.
    pub opening: [Vec<Option<f64>>; 2],
}
