//! One generated clip against its reference.

use crate::error::{EvalError, EvalResult};
use crate::lips::{best_correlation, correlation, paired, shifted};
use crate::picture::{psnr, psnr_u8wrap, ssim};
use serde::Serialize;
use std::path::Path;
use syncdiff_face::lips::opening;
use syncdiff_face::{Affine, FaceChoice, FaceModels, SmoothOptions, TrackTable, Tracker, TrackerOptions, warp};
use syncdiff_media::{Frame, FrameReader, ReadOptions, Tools, probe};

/// Side of the mouth picture that is compared, and of the aligned crop it is cut from.
pub const CROP: usize = 160;
/// Largest lag at which lip openings are compared, in frames.
pub const MOST_LAG: usize = 3;
/// The mouth's rectangle in the aligned crop: left, top, width, height. Lips lie around (0.5, 0.66).
const MOUTH: [usize; 4] = [32, 76, 96, 72];

/// The chosen face of a clip over time.
#[derive(Clone, Debug)]
pub struct FaceSeries {
    /// Inner-lip opening over eye distance per frame; `None` where no face is seen.
    pub opening: Vec<Option<f64>>,
    /// From frame pixels to a crop of 160 pixels, smoothed; `None` where no face is seen.
    pub crop_from_frame: Vec<Option<Affine>>,
}

/// What one comparison gives.
#[derive(Clone, Debug, Serialize)]
pub struct ClipFigures {
    /// Lip opening of every frame of the reference.
    pub reference_opening: Vec<Option<f64>>,
    /// Lip opening of every frame of the generated clip.
    pub opening: Vec<Option<f64>>,
    /// Correlation over time of the lip opening, generated against reference.
    pub opening_correlation: Option<f64>,
    /// Largest such correlation when the generated opening is moved by up to [`MOST_LAG`] frames, and the frames by which
    /// it lags there: sound and picture of the reference itself may be apart by as much.
    pub opening_best: Option<(f64, isize)>,
    /// The reference's opening against itself half a clip away: what chance gives.
    pub opening_correlation_other_time: Option<f64>,
    /// Deviation over time of the generated opening divided by that of the reference.
    pub opening_range_ratio: Option<f64>,
    /// Mouth rectangle, generated against reference, dB; mean over frames.
    pub mouth_psnr: f64,
    /// The same with 8-bit wrapping (see [`psnr_u8wrap`]).
    pub mouth_psnr_u8wrap: f64,
    /// Mouth rectangle; mean over frames.
    pub mouth_ssim: f64,
    /// Mean absolute change from frame to frame inside the mouth rectangle, generated divided by reference.
    pub flicker_ratio: f64,
}

/// Shows every frame of a clip; returns how many there were.
///
/// # Errors
/// A clip that cannot be decoded, and those of `each`.
pub fn read_frames(
    tools: &Tools,
    path: &Path,
    mut each: impl FnMut(usize, &Frame) -> EvalResult<()>,
) -> EvalResult<usize> {
    let info = probe(tools, path)?;
    let mut count = 0;
    for timed in FrameReader::open(tools, &info, &ReadOptions::default())? {
        let timed = timed?;
        each(count, &timed.frame)?;
        count += 1;
    }
    Ok(count)
}

/// Follows the largest face of a clip.
///
/// # Errors
/// A clip that cannot be decoded or shows no face.
pub fn measure_faces(tools: &Tools, models: &FaceModels, path: &Path) -> EvalResult<FaceSeries> {
    let mut tracker = Tracker::new(models, TrackerOptions::default())?;
    let mut table: Option<TrackTable> = None;
    let mut openings: Vec<Vec<(u32, f64)>> = Vec::new();
    read_frames(tools, path, |_, frame| {
        let found = tracker.push(frame);
        table.get_or_insert_with(|| TrackTable::new(frame.width, frame.height)).push(&found);
        openings.push(found.faces.iter().map(|face| (face.track, f64::from(opening(&face.mesh)))).collect());
        Ok(())
    })?;
    let unequal = |detail: &str| EvalError::Unequal { what: "clip", detail: format!("{}: {detail}", path.display()) };
    let table = table.ok_or_else(|| unequal("has no frames"))?;
    let track = table.choose(&FaceChoice::Largest)?;
    let alignment = table.alignment(track, &SmoothOptions::default());
    let id = track.id();
    Ok(FaceSeries {
        opening: openings.iter().map(|faces| faces.iter().find(|(face, _)| *face == id).map(|(_, o)| *o)).collect(),
        crop_from_frame: (0..openings.len()).map(|frame| alignment.crop_from_frame(frame, CROP)).collect(),
    })
}

/// The mouth's rectangle of one frame, at the size that is compared.
pub fn mouth(frame: &Frame, crop_from_frame: &Affine) -> Frame {
    let [left, top, width, height] = MOUTH;
    warp(frame, crop_from_frame, CROP).crop(left as i64, top as i64, width, height)
}

/// The mouth of every frame, cut by the reference's alignment so that both clips show the same pixels.
fn mouths(tools: &Tools, path: &Path, faces: &FaceSeries) -> EvalResult<Vec<Option<Frame>>> {
    let mut cut = Vec::new();
    read_frames(tools, path, |index, frame| {
        let crop_from_frame = faces.crop_from_frame.get(index).copied().flatten();
        cut.push(crop_from_frame.map(|m| mouth(frame, &m)));
        Ok(())
    })?;
    Ok(cut)
}

/// A clip that generated ones are compared with, measured once.
pub struct Reference {
    /// Its face.
    pub faces: FaceSeries,
    /// Its mouth, see [`mouth`]; `None` where no face is seen.
    pub mouths: Vec<Option<Frame>>,
}

impl Reference {
    /// Measures a clip.
    ///
    /// # Errors
    /// A clip that cannot be decoded or shows no face.
    pub fn read(tools: &Tools, models: &FaceModels, path: &Path) -> EvalResult<Self> {
        let faces = measure_faces(tools, models, path)?;
        let mouths = mouths(tools, path, &faces)?;
        Ok(Self { faces, mouths })
    }
}

/// Compares a generated clip with its reference, frame by frame (the shorter one decides how many).
///
/// # Errors
/// A clip that cannot be decoded or shows no face.
pub fn compare(tools: &Tools, models: &FaceModels, reference: &Reference, generated: &Path) -> EvalResult<ClipFigures> {
    let Reference { faces: truth, mouths: truth_mouths } = reference;
    let ours = measure_faces(tools, models, generated)?;
    let (a, b) = paired(&truth.opening, &ours.opening);

    let our_mouths = mouths(tools, generated, truth)?;
    let (mut psnr_sum, mut wrap_sum, mut ssim_sum, mut count) = (0.0, 0.0, 0.0, 0.0);
    let (mut truth_change, mut our_change) = (0.0, 0.0);
    let mut before: Option<(&Frame, &Frame)> = None;
    for pair in truth_mouths.iter().zip(&our_mouths) {
        let (Some(x), Some(y)) = pair else {
            before = None;
            continue;
        };
        // Equal pictures (a gap that passed through) count as 60 dB, not as infinity.
        psnr_sum += psnr(x, y)?.min(60.0);
        wrap_sum += psnr_u8wrap(x, y)?.min(100.0);
        ssim_sum += ssim(x, y)?;
        count += 1.0;
        if let Some((last_x, last_y)) = before {
            truth_change += change(last_x, x);
            our_change += change(last_y, y);
        }
        before = Some((x, y));
    }
    Ok(ClipFigures {
        opening_correlation: correlation(&a, &b),
        opening_best: best_correlation(&truth.opening, &ours.opening, MOST_LAG),
        opening_correlation_other_time: correlation(&a, &shifted(&a)),
        opening_range_ratio: Some(deviation(&b) / deviation(&a)).filter(|r| r.is_finite()),
        mouth_psnr: psnr_sum / count,
        mouth_psnr_u8wrap: wrap_sum / count,
        mouth_ssim: ssim_sum / count,
        flicker_ratio: our_change / truth_change,
        reference_opening: truth.opening.clone(),
        opening: ours.opening,
    })
}

fn change(a: &Frame, b: &Frame) -> f64 {
    a.data.iter().zip(&b.data).map(|(x, y)| f64::from(x.abs_diff(*y))).sum::<f64>() / a.data.len() as f64
}

fn deviation(values: &[f64]) -> f64 {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    (values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n).sqrt()
}
