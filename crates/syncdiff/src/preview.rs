//! Which frame a preview shows.

use std::ops::Range;

use syncdiff_media::Plan;
use syncdiff_media::time::SAMPLES_PER_MODEL_FRAME;

use crate::cast::Cast;
use crate::render::FADE_FRAMES;

/// Output frames that are looked at for the best one.
const SEARCHED_FRAMES: usize = 300;
/// Frames drawn before it, since each frame builds on the last.
const LEAD_FRAMES: usize = 4;

/// The frames to render for a preview; the last one is shown: the loudest frame near the start that shows the whole
/// face. None where no frame shows it.
pub fn preview_range(plan: &Plan, cast: &Cast, samples: &[i16]) -> Option<Range<usize>> {
    let loudness = |output: usize| {
        let frame = SAMPLES_PER_MODEL_FRAME as usize;
        let start = (plan.model_frame(output) * frame).min(samples.len());
        let part = &samples[start..(start + frame).min(samples.len())];
        part.iter().map(|sample| u64::from(sample.unsigned_abs()).pow(2)).sum::<u64>()
    };
    let shows_face = |output: &usize| cast.opacity(plan.source(*output), FADE_FRAMES) >= 1.0;
    let near = (0..plan.len().min(SEARCHED_FRAMES)).filter(shows_face).max_by_key(|output| loudness(*output));
    let best = near.or_else(|| (0..plan.len()).find(shows_face))?;
    Some(best.saturating_sub(LEAD_FRAMES)..best + 1)
}
