//! The first pass alone: which faces a clip shows, when, and what they look like.

use std::ops::Range;

use serde::Serialize;
use syncdiff_face::{FaceBox, FaceChoice, FaceModels, FacesInFrame};
use syncdiff_media::{Frame, MediaInfo, ReadOptions, Time, Tools, Warning};

use crate::clock::Clock;
use crate::error::Outcome;
use crate::progress::Watch;
use crate::tracking::{picture, track};

/// Side of a thumbnail in pixels.
pub const THUMBNAIL_PX: usize = 160;
/// A new thumbnail must be so much larger than the last, so that few are made.
const BETTER: f32 = 1.2;

/// What `scan` found.
#[derive(Clone, Debug, Serialize)]
pub struct Scan {
    /// Width of the upright picture with square pixels.
    pub width: usize,
    /// Height of the upright picture with square pixels.
    pub height: usize,
    /// Number of frames.
    pub frames: usize,
    /// Mean frame rate.
    pub rate: String,
    /// Length in seconds.
    pub secs: f64,
    /// Frames that begin a new shot.
    pub cuts: Vec<usize>,
    /// The faces by number.
    pub faces: Vec<ScannedFace>,
    /// What was wrong with the clip.
    pub warnings: Vec<Warning>,
}

/// One face.
#[derive(Clone, Debug, Serialize)]
pub struct ScannedFace {
    /// Its number, for `--face id:N`.
    pub id: u32,
    /// Number of frames in which it is seen.
    pub frames: usize,
    /// Frame ranges in which it is seen, ends not included.
    pub ranges: Vec<Range<usize>>,
    /// Where it is first seen, in seconds.
    pub first_secs: f64,
    /// Where it was last seen, in seconds.
    pub last_secs: f64,
    /// Mean side of its box in pixels.
    pub mean_side_px: f32,
    /// The frame of the thumbnail.
    pub thumbnail_frame: usize,
    /// The names of `--face` that mean this face in its shot.
    pub choices: Vec<String>,
    /// File name of the thumbnail, where thumbnails were written.
    pub thumbnail: Option<String>,
    /// The picture.
    #[serde(skip)]
    pub picture: Frame,
}

struct Best {
    id: u32,
    area: f32,
    frame: usize,
    picture: Frame,
}

/// Follows all faces of a clip.
///
/// # Errors
/// A clip that cannot be decoded, [`crate::Error::Cancelled`]. A clip without faces is no error.
pub fn scan(
    tools: &Tools,
    info: &MediaInfo,
    models: &FaceModels,
    read: &ReadOptions,
    watch: &mut Watch<'_>,
) -> Outcome<Scan> {
    let video = picture(info)?;
    let mut best: Vec<Best> = Vec::new();
    let mut observer = |index: usize, frame: &Frame, found: &FacesInFrame| {
        for face in &found.faces {
            let area = face.face_box.area();
            let known = best.iter_mut().find(|best| best.id == face.track);
            match known {
                Some(known) if area <= known.area * BETTER => {}
                Some(known) => {
                    *known = Best { id: face.track, area, frame: index, picture: thumbnail(frame, &face.face_box) };
                }
                None => {
                    best.push(Best { id: face.track, area, frame: index, picture: thumbnail(frame, &face.face_box) });
                }
            }
        }
    };
    let tracked = track(tools, info, models, read, None, &mut observer, &mut Clock::default(), watch)?;
    let index = &tracked.index;
    let secs_at = |frame: usize| Time::new(index.since_start(frame), index.time_base()).secs();
    let names = [FaceChoice::Largest, FaceChoice::Left, FaceChoice::Right, FaceChoice::Center];
    let meant = names.map(|name| (name, tracked.faces.chosen(&name).unwrap_or_default()));
    let faces = tracked.faces.tracks().filter_map(|(start, track)| {
        let best = best.iter().find(|best| best.id == track.id())?;
        let ranges: Vec<Range<usize>> =
            track.ranges().into_iter().map(|range| range.start + start..range.end + start).collect();
        let sides: f32 = track.iter().map(|(_, record)| record.face_box.area().sqrt()).sum();
        let means = |(name, ids): &(FaceChoice, Vec<(usize, u32)>)| {
            ids.contains(&(start, track.id())).then(|| name.to_string())
        };
        Some(ScannedFace {
            id: track.id(),
            frames: track.num_frames(),
            first_secs: secs_at(ranges.first()?.start),
            last_secs: secs_at(ranges.last()?.end - 1),
            ranges,
            mean_side_px: sides / track.num_frames().max(1) as f32,
            thumbnail_frame: best.frame,
            choices: meant.iter().filter_map(means).collect(),
            thumbnail: None,
            picture: best.picture.clone(),
        })
    });
    Ok(Scan {
        width: video.width,
        height: video.height,
        frames: index.len(),
        rate: index.average_rate().to_string(),
        secs: index.duration().secs(),
        cuts: tracked.faces.cuts(),
        faces: faces.collect(),
        warnings: tracked.warnings.clone(),
    })
}

/// The face with some room around it, as a square.
fn thumbnail(frame: &Frame, face_box: &FaceBox) -> Frame {
    let [x, y] = face_box.centre();
    let side = (face_box.width().max(face_box.height()) * 1.5).max(2.0);
    let corner = |centre: f32| (centre - side / 2.0).round() as i64;
    frame.crop(corner(x), corner(y), side as usize, side as usize).resized(THUMBNAIL_PX, THUMBNAIL_PX)
}
