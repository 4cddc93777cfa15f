//! Prepared clips with their table of offsets, loaded when they are asked for.

use crate::error::TrainResult;
use crate::speech::read_offsets;
use crate::talk::{TalkSource, TalkingClip};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use syncdiff_data::Dataset;

/// Chosen clips of a prepared folder.
pub(super) struct PreparedTalks<'a> {
    data: &'a Dataset,
    chosen: Vec<usize>,
    offsets: BTreeMap<String, isize>,
}

impl<'a> PreparedTalks<'a> {
    /// `offsets` is a table that `train speech` wrote; clips that it lacks are not moved.
    pub(super) fn new(data: &'a Dataset, chosen: Vec<usize>, offsets: Option<&Path>) -> TrainResult<Self> {
        Ok(Self { data, chosen, offsets: offsets.map(read_offsets).transpose()?.unwrap_or_default() })
    }

    /// At most so many clips, spread evenly.
    pub(super) fn at_most(mut self, count: usize) -> Self {
        let len = self.chosen.len();
        if len > count {
            self.chosen = (0..count).map(|i| self.chosen[i * len / count]).collect();
        }
        self
    }

    /// Frames of each clip.
    pub(super) fn lengths(&self) -> Vec<usize> {
        self.chosen.iter().map(|clip| self.data.clips()[*clip].num_frames).collect()
    }

    /// Corpora with the number of their clips, and the terms that come with them.
    pub(super) fn described(&self) -> (String, String) {
        let (mut corpora, mut terms) = (BTreeMap::<&str, usize>::new(), BTreeSet::new());
        for clip in self.chosen.iter().map(|clip| &self.data.clips()[*clip]) {
            *corpora.entry(&clip.corpus).or_default() += 1;
            terms.insert(if clip.licence.is_empty() { "unspecified" } else { &clip.licence });
        }
        let corpora: Vec<String> = corpora.iter().map(|(name, clips)| format!("{name} ({clips} clips)")).collect();
        (corpora.join(", "), terms.into_iter().collect::<Vec<_>>().join("; "))
    }
}

impl TalkSource for PreparedTalks<'_> {
    fn num_clips(&self) -> usize {
        self.chosen.len()
    }

    fn clip(&self, index: usize) -> TrainResult<TalkingClip> {
        let number = self.chosen[index];
        let offset = self.offsets.get(&self.data.clips()[number].clip).copied().unwrap_or(0);
        Ok(TalkingClip { clip: self.data.load(number)?, offset })
    }
}
