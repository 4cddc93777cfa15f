//! Which frames make a training sample: target, identity and previous frame of one clip.

use std::sync::Arc;

use crate::clip::Clip;
use crate::dataset::{ClipFilter, Dataset};
use crate::error::DataError;
use crate::rng::Draws;

/// What is drawn equally often.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Balance {
    /// Every target frame of the selection.
    #[default]
    Frames,
    /// Every corpus, and within it every target frame.
    Corpora,
}

/// How samples are drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SampleOptions {
    /// Seed of all draws.
    pub seed: u64,
    /// What is drawn equally often.
    pub balance: Balance,
    /// Least distance of the identity frame from the target, in frames, where the clip allows it.
    pub min_identity_distance: usize,
}

impl Default for SampleOptions {
    /// Seed 0, every frame, five frames.
    fn default() -> Self {
        SampleOptions { seed: 0, balance: Balance::Frames, min_identity_distance: 5 }
    }
}

/// The frames of a sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SampleSpec {
    /// Number of the clip in the data set.
    pub clip: usize,
    /// The frame to be generated, t.
    pub target: usize,
    /// The frame that shows who speaks, r.
    pub identity: usize,
    /// The frame before the target, t - 1.
    pub previous: usize,
}

/// A sample with its clip in memory.
#[derive(Clone, Debug)]
pub struct Sample {
    /// Which frames.
    pub spec: SampleSpec,
    /// The clip, with speech, landmarks and all frames.
    pub clip: Arc<Clip>,
}

impl Sample {
    /// u8 [R, R, 3].
    pub fn target(&self) -> &[u8] {
        self.clip.frame(self.spec.target)
    }

    /// u8 [R, R, 3].
    pub fn identity(&self) -> &[u8] {
        self.clip.frame(self.spec.identity)
    }

    /// u8 [R, R, 3].
    pub fn previous(&self) -> &[u8] {
        self.clip.frame(self.spec.previous)
    }
}

/// The clips of a selection with their weights. Sample `index` of step `step` is a function of the
/// seed, the selection and these two numbers alone.
///
/// # Source
/// SyncDiff section 3.3 of the method notes: t uniform over 1..N-1, r uniform over the clip with a
/// distance from t. Here only usable frames count, and t - 1 must be usable and of the same shot.
#[derive(Clone, Debug)]
pub struct Sampler {
    options: SampleOptions,
    /// Groups that are drawn with equal chance.
    groups: Vec<Group>,
}

#[derive(Clone, Debug, Default)]
struct Group {
    /// Clip numbers with the runs of usable frames.
    clips: Vec<(usize, Vec<[usize; 2]>)>,
    /// Targets of this clip and all before it.
    ends: Vec<u64>,
}

impl Group {
    fn num_targets(&self) -> u64 {
        self.ends.last().copied().unwrap_or(0)
    }
}

const PURPOSE: [u8; 8] = *b"frames\0\0";

impl Sampler {
    /// Weighs the clips of a selection.
    ///
    /// # Errors
    /// [`DataError::Parameter`] if the selection has no two usable frames in a row.
    pub fn new(data: &Dataset, filter: &ClipFilter, options: SampleOptions) -> Result<Self, DataError> {
        let mut groups: std::collections::BTreeMap<&str, Group> = Default::default();
        for clip in data.select(filter) {
            let entry = &data.clips()[clip];
            let corpus = match options.balance {
                Balance::Frames => "",
                Balance::Corpora => entry.corpus.as_str(),
            };
            let targets: usize = entry.runs.iter().map(|run| run[1] - run[0] - 1).sum();
            if targets > 0 {
                let group = groups.entry(corpus).or_default();
                group.ends.push(group.num_targets() + targets as u64);
                group.clips.push((clip, entry.runs.clone()));
            }
        }
        if groups.is_empty() {
            let detail = format!(
                "no clip fits {filter:?} in {:?}; known splits, corpora and speakers stand in {}",
                data.folder(),
                crate::INDEX_FILE
            );
            return Err(DataError::Parameter { stage: "sampling", detail });
        }
        Ok(Sampler { options, groups: groups.into_values().collect() })
    }

    /// Number of different target frames.
    pub fn num_targets(&self) -> u64 {
        self.groups.iter().map(Group::num_targets).sum()
    }

    /// Number of clips with target frames.
    pub fn num_clips(&self) -> usize {
        self.groups.iter().map(|group| group.clips.len()).sum()
    }

    /// The frames of sample `index` of a step. Reads nothing.
    pub fn spec(&self, step: u64, index: u64) -> SampleSpec {
        let mut draws = Draws::new(self.options.seed, step, index, PURPOSE);
        let group = &self.groups[draws.below(self.groups.len() as u64) as usize];
        let at = draws.below(group.num_targets());
        let position = group.ends.partition_point(|end| *end <= at);
        let (clip, runs) = &group.clips[position];
        let mut rest = (at - position.checked_sub(1).map_or(0, |p| group.ends[p])) as usize;
        let mut target = 0;
        for [first, end] in runs {
            let targets = end - first - 1;
            if rest < targets {
                target = first + 1 + rest;
                break;
            }
            rest -= targets;
        }
        let identity = identity(runs, target, self.options.min_identity_distance, &mut draws);
        SampleSpec { clip: *clip, target, identity, previous: target - 1 }
    }

    /// The sample itself.
    ///
    /// # Errors
    /// As [`Dataset::load`].
    pub fn sample(&self, data: &Dataset, step: u64, index: u64) -> Result<Sample, DataError> {
        let spec = self.spec(step, index);
        Ok(Sample { spec, clip: data.load(spec.clip)? })
    }
}

/// Uniform over the usable frames at the wanted distance or more; where there are none, over the
/// most distant ones.
fn identity(runs: &[[usize; 2]], target: usize, distance: usize, draws: &mut Draws) -> usize {
    let mut distance = distance;
    loop {
        let far = |frame: usize| frame.abs_diff(target) >= distance;
        let usable = || runs.iter().flat_map(|[first, end]| *first..*end).filter(|f| far(*f));
        let count = usable().count() as u64;
        if count > 0 {
            let chosen = draws.below(count) as usize;
            return usable().nth(chosen).unwrap_or(target);
        }
        if distance == 0 {
            return target;
        }
        distance -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataset::tests::folder_of;
    use std::collections::HashMap;

    fn sampler(data: &Dataset, balance: Balance, seed: u64) -> Sampler {
        let options = SampleOptions { seed, balance, ..SampleOptions::default() };
        Sampler::new(data, &ClipFilter::split("train"), options).unwrap()
    }

    #[test]
    fn every_target_frame_is_equally_likely() {
        let runs = Some(vec![[1, 4], [6, 7], [9, 14]]);
        let (folder, _) = folder_of(&[("a", 11, None), ("a", 15, runs), ("b", 31, None)]);
        let data = Dataset::open(folder.path(), 1 << 20).unwrap();
        let sampler = sampler(&data, Balance::Frames, 5);
        assert_eq!((sampler.num_targets(), sampler.num_clips()), (10 + 6 + 30, 3));
        let mut counts: HashMap<(usize, usize), f64> = HashMap::new();
        let num = 46 * 400;
        for index in 0..num {
            let spec = sampler.spec(index / 8, index % 8);
            *counts.entry((spec.clip, spec.target)).or_default() += 1.0;
            assert_eq!(spec.previous + 1, spec.target);
            assert!(spec.identity.abs_diff(spec.target) >= 5, "{spec:?}");
            let entry = &data.clips()[spec.clip];
            for frame in [spec.target, spec.previous, spec.identity] {
                assert!(entry.valid_frames().any(|valid| valid == frame), "{spec:?}");
            }
        }
        assert_eq!(counts.len(), 46);
        // Chi-square with 45 degrees of freedom exceeds 90 once in ten thousand; fixed seed.
        let chi: f64 = counts.values().map(|c| (c - 400.0).powi(2) / 400.0).sum();
        assert!(chi < 90.0, "{chi}");
    }

    #[test]
    fn corpora_can_be_drawn_equally_often() {
        let (folder, _) = folder_of(&[("a", 6, None), ("b", 40, None), ("b", 40, None)]);
        let data = Dataset::open(folder.path(), 1 << 20).unwrap();
        let sampler = sampler(&data, Balance::Corpora, 1);
        let a = (0..4000).filter(|at| sampler.spec(0, *at).clip == 0).count();
        // The standard deviation is 32.
        assert!((1870..2130).contains(&a), "{a}");
    }

    #[test]
    fn a_sample_depends_on_its_address_alone() {
        let (folder, _) = folder_of(&[("a", 30, None), ("b", 50, None)]);
        let data = Dataset::open(folder.path(), 1 << 20).unwrap();
        let one = sampler(&data, Balance::Frames, 3);
        let forwards: Vec<_> = (0..64).map(|index| one.spec(9, index)).collect();
        let backwards: Vec<_> = (0..64).rev().map(|index| one.clone().spec(9, index)).collect();
        assert!(forwards.iter().eq(backwards.iter().rev()));
        let other_seed = sampler(&data, Balance::Frames, 4);
        assert_ne!(forwards, (0..64).map(|index| other_seed.spec(9, index)).collect::<Vec<_>>());
        assert_ne!(forwards, (0..64).map(|index| one.spec(10, index)).collect::<Vec<_>>());
        // Recorded once: a change here changes every training run.
        let spec = one.spec(0, 0);
        assert_eq!(spec, SampleSpec { clip: 0, target: 29, identity: 10, previous: 28 });
        let sample = one.sample(&data, 0, 0).unwrap();
        assert_eq!(sample.target()[5], spec.target as u8);
        assert_eq!(sample.identity()[5], spec.identity as u8);
        assert_eq!(sample.previous()[5], spec.previous as u8);
        assert_eq!(sample.clip.speech().len(), sample.clip.num_frames() * 640);
    }

    #[test]
    fn short_clips_take_the_most_distant_identity() {
        let (folder, _) = folder_of(&[("a", 4, None)]);
        let data = Dataset::open(folder.path(), 1 << 20).unwrap();
        let sampler = sampler(&data, Balance::Frames, 0);
        for index in 0..50 {
            let spec = sampler.spec(0, index);
            let farthest = spec.target.max(3 - spec.target);
            assert_eq!(spec.identity.abs_diff(spec.target), farthest);
        }
        let none = Sampler::new(&data, &ClipFilter::split("x"), SampleOptions::default());
        assert!(matches!(none, Err(DataError::Parameter { .. })));
    }
}
