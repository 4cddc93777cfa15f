//! The faces of a clip over time: one for every shot.

use crate::error::EvalResult;
use std::path::Path;
use syncdiff_face::lips::{LIP_POINTS, eye_distance_px, opening};
use syncdiff_face::{
    Affine, FaceBox, FaceChoice, FaceModels, Mesh, SmoothOptions, TrackTable, Tracker, TrackerOptions,
};
use syncdiff_media::{Frame, FrameReader, ReadOptions, Tools, probe};

use crate::region::CROP;

/// The lips of one face in one frame.
#[derive(Clone, Debug, PartialEq)]
pub struct Lips {
    /// [`LIP_POINTS`] in frame pixels.
    pub points: [[f32; 2]; LIP_POINTS.len()],
    /// Distance of the outer eye corners in frame pixels.
    pub eye_distance_px: f32,
    /// Inner-lip opening over eye distance.
    pub opening: f64,
}

impl Lips {
    /// Those of a mesh.
    pub fn of(mesh: &Mesh) -> Self {
        Lips {
            points: LIP_POINTS.map(|i| mesh.xy(i)),
            eye_distance_px: eye_distance_px(mesh),
            opening: f64::from(opening(mesh)),
        }
    }
}

/// The largest face of every shot of a clip over time; about 450 bytes a frame.
#[derive(Clone, Debug, Default)]
pub struct FaceSeries {
    /// Its lips; `None` where no face is seen.
    pub lips: Vec<Option<Lips>>,
    /// From frame pixels to a crop of [`CROP`] pixels, smoothed; `None` where no face is seen.
    pub crop_from_frame: Vec<Option<Affine>>,
    /// Box round the landmarks in frame pixels, smoothed; `None` where no face is seen.
    pub face_box: Vec<Option<FaceBox>>,
}

impl FaceSeries {
    /// Inner-lip opening over eye distance per frame.
    pub fn opening(&self) -> Vec<Option<f64>> {
        self.lips.iter().map(|lips| lips.as_ref().map(|lips| lips.opening)).collect()
    }

    /// Is a face seen in any frame?
    pub fn has_face(&self) -> bool {
        self.face_box.iter().any(Option::is_some)
    }

    /// The box in a frame.
    pub fn face_box_at(&self, frame: usize) -> Option<&FaceBox> {
        self.face_box.get(frame)?.as_ref()
    }

    /// The alignment of a frame.
    pub fn crop_at(&self, frame: usize) -> Option<&Affine> {
        self.crop_from_frame.get(frame)?.as_ref()
    }
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

/// One shot: its tracks, and the lips of all faces in its frames.
struct Shot {
    table: TrackTable,
    lips: Vec<Vec<(u32, Lips)>>,
}

impl Shot {
    /// Adds the largest face of the shot, or frames without one.
    fn append_to(&self, series: &mut FaceSeries) {
        let track = self.table.choose(&FaceChoice::Largest).ok();
        let alignment = track.map(|track| (track.id(), self.table.alignment(track, &SmoothOptions::default())));
        for (frame, faces) in self.lips.iter().enumerate() {
            let chosen = alignment.as_ref();
            let lips = chosen.and_then(|(id, _)| faces.iter().find(|(face, _)| face == id));
            series.lips.push(lips.map(|(_, lips)| lips.clone()));
            series.crop_from_frame.push(chosen.and_then(|(_, a)| a.crop_from_frame(frame, CROP)));
            series.face_box.push(chosen.and_then(|(_, a)| a.face_box(frame)));
        }
    }
}

/// Follows the largest face of every shot. A clip without a face gives a series of nothing.
///
/// # Errors
/// A clip that cannot be decoded, and those of `each`, which is asked before every frame.
pub fn measure_faces(
    tools: &Tools,
    models: &FaceModels,
    path: &Path,
    mut each: impl FnMut() -> EvalResult<()>,
) -> EvalResult<FaceSeries> {
    let mut tracker = Tracker::new(models, TrackerOptions::default())?;
    let mut series = FaceSeries::default();
    let mut shot: Option<Shot> = None;
    read_frames(tools, path, |_, frame| {
        each()?;
        let found = tracker.push(frame);
        if found.cut
            && let Some(ended) = shot.take()
        {
            ended.append_to(&mut series);
        }
        let new = || Shot { table: TrackTable::new(frame.width, frame.height), lips: Vec::new() };
        let shot = shot.get_or_insert_with(new);
        shot.table.push_records(false, found.records());
        shot.lips.push(found.faces.iter().map(|face| (face.track, Lips::of(&face.mesh))).collect());
        Ok(())
    })?;
    if let Some(last) = shot {
        last.append_to(&mut series);
    }
    Ok(series)
}
