//! The first pass: every frame is decoded once, its faces are followed, and a few tens of bytes a frame are kept.

use std::path::Path;

use syncdiff_face::{FaceModels, FacesInFrame, Tracker, TrackerOptions};
use syncdiff_media::{
    Frame, FrameIndex, FrameReader, MediaError, MediaInfo, Rational, ReadOptions, Time, Tools, VideoInfo, Warning,
};

use crate::cast::Faces;
use crate::clock::{Clock, Phase};
use crate::error::{Error, Outcome};
use crate::progress::{Stage, Watch};

/// Faces are looked for a little beyond the end of the output, so that smoothing has both sides.
const MARGIN_SECS: f64 = 1.0;

/// What the first pass leaves.
#[derive(Debug)]
pub struct Tracked {
    /// Time stamps of the whole clip.
    pub index: FrameIndex,
    /// The faces; as many frames as were looked at.
    pub faces: Faces,
    /// What was wrong with the clip without ending the work.
    pub warnings: Vec<Warning>,
}

impl Tracked {
    /// The error for a clip without any face.
    ///
    /// # Errors
    /// [`Error::NoFace`].
    pub fn require_a_face(&self, path: &Path) -> Outcome<()> {
        if self.faces.tracks().next().is_none() {
            return Err(Error::NoFace { path: path.to_path_buf(), frames: self.faces.num_frames() });
        }
        Ok(())
    }
}

/// Is told of every frame: its index, the picture, the faces in it.
pub type Observer<'a> = &'a mut dyn FnMut(usize, &Frame, &FacesInFrame);

/// The picture stream of a file.
///
/// # Errors
/// [`MediaError::NoVideo`].
pub fn picture(info: &MediaInfo) -> Outcome<&VideoInfo> {
    Ok(info.video.as_ref().ok_or_else(|| MediaError::NoVideo { path: info.path.clone() })?)
}

/// Follows the faces of a clip.
///
/// `needed` is the length of the output where the clip need not be looked at beyond it. Frames after it are decoded
/// for their time stamps only.
///
/// # Errors
/// A clip that cannot be decoded, [`Error::Cancelled`].
pub fn track(
    tools: &Tools,
    info: &MediaInfo,
    models: &FaceModels,
    read: &ReadOptions,
    needed: Option<Time>,
    observer: Observer<'_>,
    clock: &mut Clock,
    watch: &mut Watch<'_>,
) -> Outcome<Tracked> {
    let video = picture(info)?;
    let total = video.num_frames.map(|frames| frames as usize);
    let mut tracker = Tracker::new(models, TrackerOptions::default())?;
    let mut faces = Faces::new(video.width, video.height);
    let mut reader = FrameReader::open(tools, info, read)?;
    let mut first_pts = None;
    watch.step(Stage::Track, 0, total)?;
    while let Some(next) = clock.time(Phase::Decode, || reader.next()) {
        let timed = next?;
        let found = clock.time(Phase::Faces, || tracker.push(&timed.frame));
        faces.push(&found);
        observer(timed.index, &timed.frame, &found);
        watch.step(Stage::Track, timed.index + 1, total)?;
        let since_start = timed.pts - *first_pts.get_or_insert(timed.pts);
        if is_beyond(since_start, video.time_base, needed) {
            break;
        }
    }
    let (index, warnings) = clock.time(Phase::Decode, || reader.into_index())?;
    watch.check()?;
    Ok(Tracked { index, faces, warnings })
}

/// How many frames of a clip [`track`] looks at: all, or up to the first one beyond what is needed.
pub fn num_looked_at(index: &FrameIndex, needed: Option<Time>) -> usize {
    let beyond = (0..index.len()).find(|frame| is_beyond(index.since_start(*frame), index.time_base(), needed));
    beyond.map_or(index.len(), |frame| frame + 1)
}

/// Is a frame the last that is worth looking at?
fn is_beyond(since_start: i64, base: Rational, needed: Option<Time>) -> bool {
    needed.is_some_and(|needed| Time::new(since_start, base).secs() > needed.secs() + MARGIN_SECS)
}
