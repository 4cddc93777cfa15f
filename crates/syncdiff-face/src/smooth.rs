//! The alignment of a track over time: smooth, without lag, never across cuts or gaps.
//!
//! Each value of the pose is replaced by a straight line fitted around the frame with Gaussian
//! weights. Inside a segment that equals a Gaussian mean; at its ends, where a mean would lag
//! behind a moving head, the line still follows it.

use crate::align::Pose;
use crate::outline::{NUM_RAYS, Outline};
use crate::{Affine, FaceBox, FaceRecord, Track};
use std::ops::Range;

/// How the alignment is smoothed over time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SmoothOptions {
    /// Standard deviation of the two-sided kernel, in frames; 0 turns smoothing off.
    pub sigma_frames: f64,
    /// Gaps of at most this many frames are bridged, if the face hardly moved; 0 bridges none.
    pub bridge_frames: usize,
}

impl Default for SmoothOptions {
    fn default() -> Self {
        SmoothOptions { sigma_frames: 1.5, bridge_frames: 3 }
    }
}

/// A gap is not bridged if the face moved further than this part of the crop's side meanwhile,
const BRIDGE_SHIFT: f64 = 0.15;
/// or if its size or direction changed by more than this part.
const BRIDGE_TURN: f64 = 0.12;

const NUM_VALUES: usize = 8 + NUM_RAYS;

/// Pose (centre, turn), box and outline of one frame.
type Values = [f32; NUM_VALUES];

fn values(record: &FaceRecord) -> Values {
    let (pose, b) = (record.pose(), record.face_box);
    let [cx, cy] = pose.centre.map(|v| v as f32);
    let [re, im] = pose.turn.map(|v| v as f32);
    let mut values = [0.0; NUM_VALUES];
    values[..8].copy_from_slice(&[cx, cy, re, im, b.x0, b.y0, b.x1, b.y1]);
    values[8..].copy_from_slice(&record.outline);
    values
}

fn pose([cx, cy, re, im, ..]: &Values) -> Pose {
    Pose { centre: [f64::from(*cx), f64::from(*cy)], turn: [f64::from(*re), f64::from(*im)] }
}

/// The smoothed alignment of one track over all frames of a clip.
#[derive(Clone, Debug)]
pub struct Alignment {
    num_frames: usize,
    cuts: Vec<u32>,
    /// Frame ranges with their values, in order; they do not overlap.
    segments: Vec<(Range<usize>, Vec<Values>)>,
}

impl Alignment {
    pub(crate) fn new(track: &Track, num_frames: usize, cuts: &[u32], options: &SmoothOptions) -> Self {
        let mut segments: Vec<(Range<usize>, Vec<Values>)> = Vec::new();
        for (frame, record) in track.iter() {
            let value = values(record);
            let cut = |from: usize| {
                let next = cuts.partition_point(|&c| (c as usize) < from);
                cuts.get(next).is_some_and(|&c| c as usize <= frame)
            };
            match segments.last_mut() {
                Some((range, list))
                    if !cut(range.end)
                        && frame - range.end <= options.bridge_frames
                        && (frame == range.end || holds_still(&list[list.len() - 1], &value)) =>
                {
                    bridge(list, &value, frame - range.end);
                    range.end = frame + 1;
                }
                _ => segments.push((frame..frame + 1, vec![value])),
            }
        }
        for (_, list) in &mut segments {
            smooth(list, options.sigma_frames);
        }
        Alignment { num_frames, cuts: cuts.to_vec(), segments }
    }

    /// Frames of the clip.
    pub fn num_frames(&self) -> usize {
        self.num_frames
    }

    fn values(&self, frame: usize) -> Option<&Values> {
        let after = self.segments.partition_point(|(range, _)| range.start <= frame);
        let (range, list) = self.segments.get(after.checked_sub(1)?)?;
        range.contains(&frame).then(|| &list[frame - range.start])
    }

    /// The map from frame pixels to pixels of a crop of `size`; `None` in a gap.
    pub fn crop_from_frame(&self, frame: usize, size: usize) -> Option<Affine> {
        self.values(frame).map(|v| pose(v).crop_from_frame(size))
    }

    /// The smoothed box round the face, in frame pixels; `None` in a gap.
    pub fn face_box(&self, frame: usize) -> Option<FaceBox> {
        self.values(frame).map(|&[_, _, _, _, x0, y0, x1, y1, ..]| FaceBox { x0, y0, x1, y1 })
    }

    /// How far the face reaches from the mouth, smoothed, in sides of the crop; `None` in a gap.
    pub fn outline(&self, frame: usize) -> Option<Outline> {
        self.values(frame).map(|values| std::array::from_fn(|ray| values[8 + ray]))
    }

    /// Frame ranges with this face and without a cut inside, in order.
    pub fn segments(&self) -> Vec<Range<usize>> {
        self.segments.iter().map(|(range, _)| range.clone()).collect()
    }

    /// Frame ranges without this face, in order.
    pub fn gaps(&self) -> Vec<Range<usize>> {
        let mut gaps = Vec::new();
        let mut end = 0;
        for (range, _) in &self.segments {
            if range.start > end {
                gaps.push(end..range.start);
            }
            end = range.end;
        }
        if end < self.num_frames {
            gaps.push(end..self.num_frames);
        }
        gaps
    }

    /// Weight of a generated face: 0 in a gap, and from the edge of a gap a ramp of `fade_frames`
    /// frames up to 1. There is no ramp at a cut or at the ends of the clip.
    pub fn opacity(&self, frame: usize, fade_frames: usize) -> f32 {
        let after = self.segments.partition_point(|(range, _)| range.start <= frame);
        let Some((range, _)) = after.checked_sub(1).map(|i| &self.segments[i]) else { return 0.0 };
        if !range.contains(&frame) {
            return 0.0;
        }
        let hard = |at: usize| at == 0 || at == self.num_frames || self.cuts.binary_search(&(at as u32)).is_ok();
        let ramp = |distance: usize| ((distance + 1) as f32 / (fade_frames + 1) as f32).min(1.0);
        let rising = if hard(range.start) { 1.0 } else { ramp(frame - range.start) };
        let falling = if hard(range.end) { 1.0 } else { ramp(range.end - 1 - frame) };
        rising.min(falling)
    }
}

/// Whether the face is, after a gap, where it was before, so that a line across is no guess.
fn holds_still(a: &Values, b: &Values) -> bool {
    let (a, b) = (pose(a), pose(b));
    let side = a.side().max(1.0);
    let shift = (a.centre[0] - b.centre[0]).hypot(a.centre[1] - b.centre[1]);
    let turn = (a.turn[0] - b.turn[0]).hypot(a.turn[1] - b.turn[1]);
    shift < BRIDGE_SHIFT * side && turn < BRIDGE_TURN * side
}

/// Appends `num_missing` frames on the straight line to `value`, then `value` itself.
fn bridge(list: &mut Vec<Values>, value: &Values, num_missing: usize) {
    let last = list[list.len() - 1];
    for step in 1..=num_missing {
        let part = step as f32 / (num_missing + 1) as f32;
        let mut between = last;
        for (b, v) in between.iter_mut().zip(value) {
            *b += (v - *b) * part;
        }
        list.push(between);
    }
    list.push(*value);
}

fn smooth(list: &mut [Values], sigma: f64) {
    if sigma.is_nan() || sigma <= 0.0 || list.len() < 3 {
        return;
    }
    let reach = (3.0 * sigma).ceil() as usize;
    let kernel: Vec<f64> = (0..=reach).map(|d| (-0.5 * (d as f64 / sigma).powi(2)).exp()).collect();
    let source = list.to_vec();
    for (i, to) in list.iter_mut().enumerate() {
        let window = i.saturating_sub(reach)..(i + reach + 1).min(source.len());
        let (mut s0, mut s1, mut s2) = (0.0, 0.0, 0.0);
        let (mut y0, mut y1) = ([0.0; NUM_VALUES], [0.0; NUM_VALUES]);
        for j in window {
            let d = j as f64 - i as f64;
            let w = kernel[i.abs_diff(j)];
            s0 += w;
            s1 += w * d;
            s2 += w * d * d;
            for k in 0..NUM_VALUES {
                // Relative to the frame itself, so that large coordinates lose no digits.
                let y = f64::from(source[j][k]) - f64::from(source[i][k]);
                y0[k] += w * y;
                y1[k] += w * d * y;
            }
        }
        let det = s0 * s2 - s1 * s1;
        for k in 0..NUM_VALUES {
            to[k] = (f64::from(source[i][k]) + (y0[k] * s2 - y1[k] * s1) / det) as f32;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::face_at;
    use crate::{FacesInFrame, TrackTable, TrackedFace};

    fn table(places: &[Option<(f32, f32)>], cuts: &[usize]) -> TrackTable {
        let mut table = TrackTable::new(640, 360);
        for (i, place) in places.iter().enumerate() {
            let faces = place.map(|(x, side)| {
                let mesh = face_at(x, 150.0, side, 0.1);
                TrackedFace { track: 1, face_box: mesh.face_box(), mesh }
            });
            table.push(&FacesInFrame { faces: faces.into_iter().collect(), cut: cuts.contains(&i) });
        }
        table
    }

    fn alignment(table: &TrackTable, options: &SmoothOptions) -> Alignment {
        table.alignment(table.track(1).unwrap(), options)
    }

    #[test]
    fn steady_motion_is_followed_without_lag_and_noise_shrinks() {
        let steady: Vec<_> = (0..40).map(|i| Some((100.0 + 3.0 * i as f32, 120.0))).collect();
        let result = alignment(&table(&steady, &[]), &SmoothOptions::default());
        for i in 0..40 {
            let map = result.crop_from_frame(i, 128).unwrap();
            let [x, y] = map.apply([100.0 + 3.0 * i as f64, 150.0]);
            assert!((x - 63.5).abs() < 0.02 && (y - 63.5).abs() < 0.02, "frame {i}: {x} {y}");
        }
        let noisy: Vec<_> = (0..40).map(|i| Some((200.0 + if i % 2 == 0 { 0.5 } else { -0.5 }, 120.0))).collect();
        let result = alignment(&table(&noisy, &[]), &SmoothOptions::default());
        for i in 8..32 {
            let [x, _] = result.crop_from_frame(i, 120).unwrap().apply([200.0, 150.0]);
            assert!((x - 59.5).abs() < 0.05, "frame {i}: {x}");
        }
    }

    #[test]
    fn a_cut_is_no_place_to_smooth_over() {
        let jump: Vec<_> = (0..20).map(|i| Some((if i < 10 { 100.0 } else { 400.0 }, 90.0))).collect();
        let result = alignment(&table(&jump, &[10]), &SmoothOptions::default());
        assert_eq!(result.segments(), [0..10, 10..20]);
        assert!(result.gaps().is_empty());
        let [x, _] = result.crop_from_frame(9, 90).unwrap().apply([100.0, 150.0]);
        assert!((x - 44.5).abs() < 0.02);
        assert_eq!(result.opacity(9, 4), 1.0);
    }

    #[test]
    fn short_gaps_are_bridged_only_where_the_face_held_still() {
        let mut places: Vec<_> = (0..30).map(|_| Some((100.0, 90.0))).collect();
        places[8..10].fill(None);
        places[18..20].fill(None);
        places[20..].fill(Some((150.0, 90.0)));
        let result = alignment(&table(&places, &[]), &SmoothOptions::default());
        assert_eq!(result.gaps(), [Range { start: 18, end: 20 }]);
        assert!(result.face_box(9).is_some() && result.face_box(18).is_none());
        let none = SmoothOptions { bridge_frames: 0, ..SmoothOptions::default() };
        assert_eq!(alignment(&table(&places, &[]), &none).gaps(), [8..10, 18..20]);
    }

    #[test]
    fn opacity_ramps_at_gaps_only() {
        let mut places = vec![Some((100.0, 90.0)); 40];
        places[20..30].fill(None);
        let result = alignment(&table(&places, &[]), &SmoothOptions::default());
        assert_eq!(result.opacity(0, 3), 1.0);
        assert_eq!([16, 17, 18, 19, 20].map(|f| result.opacity(f, 3)), [1., 0.75, 0.5, 0.25, 0.]);
        assert_eq!([29, 30, 33].map(|f| result.opacity(f, 3)), [0., 0.25, 1.0]);
        assert_eq!(result.opacity(39, 3), 1.0);
        assert_eq!(result.opacity(19, 0), 1.0);
    }
}
