//! The parts of a frame that are compared: the paper's crop, the whole frame, the mouth.

use crate::error::{EvalError, EvalResult};
use syncdiff_face::{Affine, FaceBox, warp};
use syncdiff_media::Frame;

/// Side of the paper's crop.
pub const PAPER_SIDE: usize = 96;
/// Side of the aligned crop that the aligned mouth is cut from.
pub const CROP: usize = 160;
/// The mouth's rectangle in the aligned crop: left, top, width, height. Lips lie around (0.5, 0.66).
const MOUTH: [usize; 4] = [32, 76, 96, 72];

/// A part of the frame; always placed by the face of the reference, so that both clips show the same pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Region {
    /// The box round the face, resized to 96 x 96: the protocol of the paper's tables.
    Crop96,
    /// All of it, at its own size.
    Full,
    /// The smallest upright rectangle round the aligned mouth, at its own size.
    Mouth,
}

impl Region {
    /// All of them.
    pub const ALL: [Region; 3] = [Region::Crop96, Region::Full, Region::Mouth];

    /// What the keys of its metrics begin with.
    pub fn key(self) -> &'static str {
        match self {
            Region::Crop96 => "crop96",
            Region::Full => "full",
            Region::Mouth => "mouth",
        }
    }

    /// The part of a frame; `None` where it needs a face and there is none.
    pub fn cut(self, frame: &Frame, face_box: Option<&FaceBox>, crop_from_frame: Option<&Affine>) -> Option<Frame> {
        match self {
            Region::Crop96 => paper_crop(frame, face_box?).ok(),
            Region::Full => Some(frame.clone()),
            Region::Mouth => {
                let [x, y, width, height] = mouth_rectangle(crop_from_frame?, frame)?;
                Some(frame.crop(x as i64, y as i64, width, height))
            }
        }
    }
}

/// The box of the face in whole pixels, cut at the frame's edges, resized to 96 x 96.
///
/// # Errors
/// [`EvalError::Unequal`] for a box that holds no pixel of the frame.
///
/// # Source
/// TalkLip `evaluation/visual_quality.py`: `cv2.resize` of the box, bilinear. Its boxes come from a detector; here
/// they go round the face mesh, from brow to chin.
pub fn paper_crop(frame: &Frame, face_box: &FaceBox) -> EvalResult<Frame> {
    let whole = |value: f32, most: usize| (value.max(0.0) as usize).min(most);
    let (x0, y0) = (whole(face_box.x0, frame.width), whole(face_box.y0, frame.height));
    let (x1, y1) = (whole(face_box.x1.ceil(), frame.width), whole(face_box.y1.ceil(), frame.height));
    if x1 <= x0 || y1 <= y0 {
        let detail = format!("{face_box:?} in a frame of {}x{}", frame.width, frame.height);
        return Err(EvalError::Unequal { what: "face box", detail });
    }
    Ok(resized_bilinear(&frame.crop(x0 as i64, y0 as i64, x1 - x0, y1 - y0), PAPER_SIDE, PAPER_SIDE))
}

/// The mouth's rectangle of one frame in the aligned crop: free of head motion.
pub fn mouth(frame: &Frame, crop_from_frame: &Affine) -> Frame {
    let [left, top, width, height] = MOUTH;
    warp(frame, crop_from_frame, CROP).crop(left as i64, top as i64, width, height)
}

/// Left, top, width and height in whole frame pixels, inside the frame.
fn mouth_rectangle(crop_from_frame: &Affine, frame: &Frame) -> Option<[usize; 4]> {
    let frame_from_crop = crop_from_frame.invert()?;
    let [left, top, width, height] = MOUTH.map(|v| v as f64);
    let corners = [[left, top], [left + width, top], [left, top + height], [left + width, top + height]];
    bounding(corners.map(|corner| frame_from_crop.apply(corner)), frame.width, frame.height)
}

/// Left, top, width and height of the pixels between the outermost of four corners, cut at the frame's edges; `None`
/// where nothing is left.
fn bounding(corners: [[f64; 2]; 4], width: usize, height: usize) -> Option<[usize; 4]> {
    let span = |axis: usize, len: usize| {
        let low = corners.iter().map(|corner| corner[axis]).fold(f64::INFINITY, f64::min);
        let high = corners.iter().map(|corner| corner[axis]).fold(f64::NEG_INFINITY, f64::max);
        let whole = |value: f64| (value.round().max(0.0) as usize).min(len);
        (whole(high) > whole(low)).then(|| (whole(low), whole(high) - whole(low)))
    };
    let ((x, w), (y, h)) = (span(0, width)?, span(1, height)?);
    Some([x, y, w, h])
}

/// Bilinear resizing without a mean over the covered area, pixel centres at halves: what `cv2.resize` does by default.
/// OpenCV rounds its weights to 11 bits, so single values may differ by one.
pub fn resized_bilinear(frame: &Frame, width: usize, height: usize) -> Frame {
    if (frame.width, frame.height) == (width, height) {
        return frame.clone();
    }
    let columns = taps(frame.width, width);
    let mut data = Vec::with_capacity(width * height * 3);
    for (y0, y1, v) in taps(frame.height, height) {
        let (above, below) = (frame.row(y0), frame.row(y1));
        for (x0, x1, u) in &columns {
            for c in 0..3 {
                let along = |row: &[u8]| {
                    let (a, b) = (f32::from(row[x0 * 3 + c]), f32::from(row[x1 * 3 + c]));
                    a + (b - a) * u
                };
                let (a, b) = (along(above), along(below));
                data.push((a + (b - a) * v).round() as u8);
            }
        }
    }
    Frame { width, height, data }
}

/// For each place: the two source places beside it, and the weight of the second.
fn taps(source: usize, target: usize) -> Vec<(usize, usize, f32)> {
    let scale = source as f64 / target as f64;
    let last = source - 1;
    (0..target)
        .map(|i| {
            let at = ((i as f64 + 0.5) * scale - 0.5).clamp(0.0, last as f64);
            let first = at as usize;
            (first, (first + 1).min(last), (at - first as f64) as f32)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bilinear_as_opencv_does_it() {
        // cv2.resize([0, 100, 200, 50] as one row, to 2): the means of the middle pairs, halves between.
        let row = |values: &[u8]| Frame {
            width: values.len(),
            height: 1,
            data: values.iter().flat_map(|value| [*value; 3]).collect(),
        };
        let reds = |frame: Frame| frame.data.iter().step_by(3).copied().collect::<Vec<u8>>();
        assert_eq!(reds(resized_bilinear(&row(&[0, 100, 200, 50]), 2, 1)), [50, 125]);
        // Twice as large: a quarter of the way, ends repeated.
        assert_eq!(reds(resized_bilinear(&row(&[0, 100]), 4, 1)), [0, 25, 75, 100]);
        // No mean over the area: of nine pixels only the fifth is seen.
        assert_eq!(reds(resized_bilinear(&row(&[9, 9, 9, 9, 77, 9, 9, 9, 9]), 1, 1)), [77]);
    }

    #[test]
    fn a_box_of_96_pixels_is_copied_and_one_outside_refused() {
        let data: Vec<u8> = (0..120 * 110 * 3).map(|i| (i * 7 % 251) as u8).collect();
        let frame = Frame { width: 120, height: 110, data };
        let face_box = FaceBox { x0: 3.9, y0: 5.2, x1: 98.1, y1: 100.5 };
        assert_eq!(paper_crop(&frame, &face_box).unwrap(), frame.crop(3, 5, 96, 96));
        let outside = FaceBox { x0: 130.0, y0: 5.0, x1: 150.0, y1: 90.0 };
        assert!(paper_crop(&frame, &outside).is_err());
    }

    #[test]
    fn the_native_mouth_is_the_aligned_one_where_the_crop_is_the_frame() {
        let data: Vec<u8> = (0..160 * 160 * 3).map(|i| (i * 11 % 253) as u8).collect();
        let frame = Frame { width: 160, height: 160, data };
        let native = Region::Mouth.cut(&frame, None, Some(&Affine::IDENTITY)).unwrap();
        assert_eq!(native, mouth(&frame, &Affine::IDENTITY));
        assert!(Region::Mouth.cut(&frame, None, None).is_none() && Region::Crop96.cut(&frame, None, None).is_none());
    }

    #[test]
    fn rectangles_stay_inside() {
        let square = |x: f64, y: f64| [[x, y], [x + 10.0, y], [x, y + 10.0], [x + 10.0, y + 10.0]];
        assert_eq!(bounding(square(3.2, 4.0), 100, 50), Some([3, 4, 10, 10]));
        assert_eq!(bounding(square(-4.0, 44.0), 100, 50), Some([0, 44, 6, 6]));
        assert_eq!(bounding(square(200.0, 0.0), 100, 50), None);
    }
}
