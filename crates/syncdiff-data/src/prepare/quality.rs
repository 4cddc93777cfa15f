//! How good the pictures of a clip are, and what is too bad to learn from.

use syncdiff_face::Track;
use syncdiff_media::Frame;

use crate::clip::ClipArrays;
use crate::index::ClipQuality;
use crate::prepare::seen::Faces;
use crate::prepare::verdict::Verdict;

/// Clips beyond these bounds are not kept.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct QualityLimits {
    /// Least distance of the outer eye corners, in pixels of the source.
    pub min_eye_distance_px: f32,
    /// Least sharpness, see [`ClipQuality::sharpness`].
    pub min_sharpness: f32,
    /// Largest angle of the head to the side, in degrees.
    pub max_yaw_degrees: f32,
    /// Largest part of the frames with another face of about the same size.
    pub max_other_faces: f32,
}

impl Default for QualityLimits {
    /// Eyes 16 pixels apart (a face about 40 pixels wide), sharper than a blur, turned by at most 60 degrees, alone in
    /// half of the frames.
    fn default() -> Self {
        QualityLimits { min_eye_distance_px: 16.0, min_sharpness: 1.0, max_yaw_degrees: 60.0, max_other_faces: 0.5 }
    }
}

impl QualityLimits {
    /// The verdict on a clip that is beyond a bound, with the value and the bound.
    pub(super) fn judge(&self, quality: &ClipQuality) -> Option<(Verdict, String)> {
        let checks = [
            (
                quality.other_faces > self.max_other_faces,
                Verdict::SeveralFaces,
                format!(
                    "another face of about the same size is seen in {:.0} % of the frames, at most {:.0} % are asked for",
                    quality.other_faces * 100.0,
                    self.max_other_faces * 100.0
                ),
            ),
            (
                quality.eye_distance_px < self.min_eye_distance_px,
                Verdict::TooSmall,
                format!(
                    "the eyes are {:.1} pixels apart, at least {} are asked for",
                    quality.eye_distance_px, self.min_eye_distance_px
                ),
            ),
            (
                quality.yaw_degrees > self.max_yaw_degrees,
                Verdict::TurnedAway,
                format!(
                    "the head is turned by {:.0} degrees, at most {} are asked for",
                    quality.yaw_degrees, self.max_yaw_degrees
                ),
            ),
            (
                quality.sharpness < self.min_sharpness,
                Verdict::Blurred,
                format!("the sharpness is {:.2}, at least {} is asked for", quality.sharpness, self.min_sharpness),
            ),
        ];
        checks.into_iter().find(|(beyond, ..)| *beyond).map(|(_, verdict, reason)| (verdict, reason))
    }

    /// As text: equal text, equal limits.
    pub(super) fn shaping(&self) -> String {
        format!(
            "eyes={} sharp={} yaw={} others={}",
            self.min_eye_distance_px, self.min_sharpness, self.max_yaw_degrees, self.max_other_faces
        )
    }
}

/// Frames whose sharpness is measured, spread over the clip.
const MEASURED_FRAMES: usize = 16;

/// Side of the crop in which sharpness is measured.
const MEASURED_SIDE: usize = 128;

/// Measures one track of a clip whose arrays are complete.
pub(crate) fn measure(faces: &Faces, track: &Track, arrays: &ClipArrays, source_frames: &[usize]) -> ClipQuality {
    let valid: Vec<usize> = (0..arrays.num_frames()).filter(|k| arrays.valid[*k] == 1).collect();
    let yaw = |k: &usize| faces.by_frame[source_frames[*k]].get(&track.id()).map(|face| face.yaw_degrees);
    let eyes = |k: &usize| track.get(source_frames[*k]).map(|record| record.eye_distance_px);
    let with_others = valid.iter().filter(|k| {
        let source = source_frames[**k];
        let Some(own) = track.get(source) else { return false };
        let others = faces.table.tracks().iter().filter(|other| other.id() != track.id());
        others.filter_map(|other| other.get(source)).any(|other| other.face_box.area() >= 0.5 * own.face_box.area())
    });
    let size = arrays.crop_size;
    let pixels = size * size * 3;
    let step = valid.len().div_ceil(MEASURED_FRAMES).max(1);
    let sharp = valid.iter().step_by(step).map(|k| {
        let data = arrays.frames[k * pixels..(k + 1) * pixels].to_vec();
        let crop = Frame { width: size, height: size, data };
        if size == MEASURED_SIDE { sharpness(&crop) } else { sharpness(&crop.resized(MEASURED_SIDE, MEASURED_SIDE)) }
    });
    ClipQuality {
        eye_distance_px: median(valid.iter().filter_map(eyes).collect()),
        sharpness: median(sharp.collect()),
        yaw_degrees: median(valid.iter().filter_map(yaw).collect()),
        other_faces: with_others.count() as f32 / valid.len().max(1) as f32,
    }
}

/// Mean absolute Laplacian of the brightness of the inner part of a crop, where there is face, in grey levels.
fn sharpness(crop: &Frame) -> f32 {
    let grey = |x: usize, y: usize| {
        let [r, g, b] = crop.pixel(x, y).map(f32::from);
        0.299 * r + 0.587 * g + 0.114 * b
    };
    let (from, to) = (crop.width / 8, crop.width * 7 / 8);
    let mut sum = 0.0;
    for y in from..to {
        for x in from..to {
            let around = grey(x - 1, y) + grey(x + 1, y) + grey(x, y - 1) + grey(x, y + 1);
            sum += (around - 4.0 * grey(x, y)).abs();
        }
    }
    sum / ((to - from) * (to - from)) as f32
}

/// The middle value; 0 of nothing.
fn median(mut values: Vec<f32>) -> f32 {
    values.sort_by(f32::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: ClipQuality = ClipQuality { eye_distance_px: 60.0, sharpness: 4.0, yaw_degrees: 8.0, other_faces: 0.0 };

    #[test]
    fn each_bound_has_its_verdict_and_names_the_value() {
        let limits = QualityLimits::default();
        assert_eq!(limits.judge(&GOOD), None);
        for (quality, verdict, value) in [
            (ClipQuality { eye_distance_px: 9.0, ..GOOD }, Verdict::TooSmall, "9.0"),
            (ClipQuality { sharpness: 0.25, ..GOOD }, Verdict::Blurred, "0.25"),
            (ClipQuality { yaw_degrees: 75.0, ..GOOD }, Verdict::TurnedAway, "75"),
            (ClipQuality { other_faces: 0.8, ..GOOD }, Verdict::SeveralFaces, "80 %"),
        ] {
            let (found, reason) = limits.judge(&quality).unwrap();
            assert!(found == verdict && reason.contains(value), "{found}: {reason}");
        }
    }

    #[test]
    fn a_blur_takes_the_sharpness_away() {
        let mut sharp = Frame::filled(128, 128, [90, 90, 90]);
        for y in 0..128 {
            for x in 0..128 {
                let level = 90 + 40 * u8::from((x / 4 + y / 4) % 2 == 0);
                sharp.set_pixel(x, y, [level, level, level]);
            }
        }
        let blurred = sharp.resized(16, 16).resized(128, 128);
        let (clear, dull) = (sharpness(&sharp), sharpness(&blurred));
        assert!(clear > 8.0 * dull.max(0.1), "{clear} {dull}");
        assert_eq!(sharpness(&Frame::filled(128, 128, [7, 7, 7])), 0.0);
    }
}
