//! Clips of talking faces with their sound, for those who learn from both at once.

use crate::error::TrainResult;
use rand::Rng;
use std::sync::Arc;
use syncdiff_data::Clip;

/// Clips that are tried before the data counts as too short.
pub(crate) const MAX_TRIES: usize = 200;

/// A prepared clip, and how far its picture is from its sound.
#[derive(Clone, Debug)]
pub struct TalkingClip {
    /// Crops, flags and speech.
    pub clip: Arc<Clip>,
    /// Frames by which the picture lags behind the sound; 0 where nothing is known.
    pub offset: isize,
}

impl TalkingClip {
    /// The first frames of windows of so many frames that all show the face and whose sound lies within the clip.
    pub(crate) fn starts(&self, window: usize) -> Vec<usize> {
        let valid = self.clip.valid();
        let fits = |start: &usize| {
            let seen = valid[*start..start + window].iter().all(|v| *v != 0);
            seen && self.heard(*start).is_some_and(|heard| heard + window <= valid.len())
        };
        (0..(valid.len() + 1).saturating_sub(window)).filter(fits).collect()
    }

    /// The frame of sound that belongs to a frame of picture; `None` before the clip's beginning.
    pub(crate) fn heard(&self, frame: usize) -> Option<usize> {
        frame.checked_add_signed(-self.offset)
    }
}

/// Where clips come from.
pub trait TalkSource: Sync {
    /// How many there are; at least one.
    fn num_clips(&self) -> usize;

    /// One of them.
    ///
    /// # Errors
    /// When the data cannot be read.
    fn clip(&self, index: usize) -> TrainResult<TalkingClip>;
}

/// A random clip with at least so many windows, and all their first frames; `None` when [`MAX_TRIES`] clips have not.
pub(crate) fn draw_clip(
    clips: &dyn TalkSource,
    window: usize,
    least: usize,
    random: &mut impl Rng,
) -> TrainResult<Option<(TalkingClip, Vec<usize>)>> {
    for _ in 0..MAX_TRIES {
        let clip = clips.clip(random.random_range(0..clips.num_clips()))?;
        let starts = clip.starts(window);
        if starts.len() >= least {
            return Ok(Some((clip, starts)));
        }
    }
    Ok(None)
}

impl TalkSource for Vec<TalkingClip> {
    fn num_clips(&self) -> usize {
        self.len()
    }

    fn clip(&self, index: usize) -> TrainResult<TalkingClip> {
        Ok(self[index].clone())
    }
}
