//! Faces followed through the frames of a clip.
//!
//! A face that is known is followed by its own mesh: the square for the next frame comes from the
//! landmarks of this one, and the mesh's presence says when the face is lost. The detectors run
//! only at the start, after a cut, when a face was lost, and now and then for newcomers.

use crate::cut::Scene;
use crate::search::Searcher;
use crate::{CutDetector, FaceBox, FaceError, FaceModels, FaceRecord, Mesh, MeshNet, Roi};
use std::collections::VecDeque;
use syncdiff_media::Frame;

/// How faces are followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TrackerOptions {
    /// Most faces at a time; the best detections come first.
    pub max_faces: usize,
    /// The detector looks for newcomers every so many frames; at least 1.
    pub detect_every: usize,
    /// A face that was lost for at most this many frames gets its old number back where it was.
    pub reidentify_frames: usize,
}

impl Default for TrackerOptions {
    fn default() -> Self {
        TrackerOptions { max_faces: 4, detect_every: 12, reidentify_frames: 50 }
    }
}

/// Presence from which a new face is believed. Faces give 10 to 30, other things below 0.
const NEW_PRESENCE: f32 = 4.0;
/// Presence below which a known face is lost.
const LOST_PRESENCE: f32 = 0.0;
/// Two boxes that overlap by more than this show the same face.
const SAME_FACE_IOU: f32 = 0.3;
/// A face moves less than this part of its box from one frame to the next,
const LARGEST_STEP: f32 = 0.5;
/// and changes its size by less than this factor.
const LARGEST_GROWTH: f32 = 1.5;

/// So many shots are remembered.
const REMEMBERED_SHOTS: usize = 8;

/// One face in one frame.
#[derive(Clone, Debug, PartialEq)]
pub struct TrackedFace {
    /// Number of the track, stable over the clip.
    pub track: u32,
    /// Box round the landmarks, in frame pixels.
    pub face_box: FaceBox,
    /// 468 landmarks in frame pixels, and presence.
    pub mesh: Mesh,
}

/// All faces in one frame.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FacesInFrame {
    /// By number of the track.
    pub faces: Vec<TrackedFace>,
    /// Whether this frame begins a new shot; never the first frame.
    pub cut: bool,
}

impl FacesInFrame {
    /// What is kept of each face, with the number of its track; points that cannot be a face are left out.
    pub fn records(&self) -> impl Iterator<Item = (u32, FaceRecord)> {
        self.faces.iter().filter_map(|face| Some((face.track, FaceRecord::from_mesh(&face.mesh)?)))
    }
}

#[derive(Clone, Debug)]
struct Lost {
    track: u32,
    face_box: FaceBox,
    frame: usize,
}

/// Follows faces through the frames of a clip, pushed in order.
#[derive(Clone, Debug)]
pub struct Tracker {
    options: TrackerOptions,
    mesh: MeshNet,
    searcher: Searcher,
    cuts: CutDetector,
    known: Vec<TrackedFace>,
    lost: Vec<Lost>,
    /// How recent shots ended, newest last, with the faces in them.
    shots: VecDeque<(Scene, Vec<Lost>)>,
    next_track: u32,
    frame: usize,
    next_search: usize,
}

impl Tracker {
    /// A tracker that has seen nothing yet.
    ///
    /// # Errors
    /// [`FaceError::BadModel`] if the models are not those networks, [`FaceError::Parameter`] for
    /// options of 0.
    pub fn new(models: &FaceModels, options: TrackerOptions) -> Result<Self, FaceError> {
        if options.max_faces == 0 || options.detect_every == 0 {
            return Err(FaceError::Parameter {
                stage: "face tracking",
                detail: "max_faces and detect_every must be at least 1".into(),
            });
        }
        Ok(Tracker {
            options,
            mesh: MeshNet::new(models)?,
            searcher: Searcher::new(models)?,
            cuts: CutDetector::new(),
            known: Vec::new(),
            lost: Vec::new(),
            shots: VecDeque::new(),
            next_track: 0,
            frame: 0,
            next_search: 0,
        })
    }

    /// Finds the faces of the next frame.
    pub fn push(&mut self, frame: &Frame) -> FacesInFrame {
        let cut = self.cuts.push(frame);
        if cut {
            self.change_shot();
        }
        let lost_one = self.follow(frame);
        if cut || lost_one {
            self.searcher.hurry();
        }
        if cut || lost_one || self.frame >= self.next_search {
            self.search(frame);
            self.next_search = self.frame + self.options.detect_every;
        }
        if self.known.is_empty() {
            // Nobody in sight: whoever comes is to be seen at once.
            self.next_search = self.frame + 1;
        }
        self.known.sort_by_key(|face| face.track);
        let now = self.frame;
        self.lost.retain(|lost| now - lost.frame <= self.options.reidentify_frames);
        self.frame += 1;
        FacesInFrame { faces: self.known.clone(), cut }
    }

    /// Puts the faces of the last shot away; where a shot comes back (after a flash, or a cut to somebody else), its
    /// faces may get their numbers back.
    fn change_shot(&mut self) {
        let frame = self.frame;
        let mut faces = std::mem::take(&mut self.lost);
        faces.extend(self.known.drain(..).map(|face| Lost { track: face.track, face_box: face.face_box, frame }));
        let (Some(now), Some(before)) = self.cuts.scenes() else { return };
        let back = self.shots.iter().rposition(|(scene, _)| scene.is_like(now));
        if let Some((_, faces)) = back.and_then(|i| self.shots.remove(i)) {
            self.lost = faces.into_iter().map(|lost| Lost { frame, ..lost }).collect();
        }
        self.shots.push_back((before.clone(), faces));
        if self.shots.len() > REMEMBERED_SHOTS {
            self.shots.pop_front();
        }
    }

    /// Moves the known faces on by one frame; true if one was lost.
    fn follow(&mut self, frame: &Frame) -> bool {
        let before = self.known.len();
        let mut kept: Vec<TrackedFace> = Vec::with_capacity(before);
        for face in std::mem::take(&mut self.known) {
            let mesh = self.mesh.run(frame, &Roi::from_mesh(&face.mesh));
            let face_box = mesh.face_box();
            let twin = kept.iter().any(|k| k.face_box.iou(&face_box) > SAME_FACE_IOU);
            if mesh.presence > LOST_PRESENCE && !twin && is_face(&mesh, frame) && is_next(&face.face_box, &face_box) {
                kept.push(TrackedFace { face_box, mesh, ..face });
            } else {
                self.lost.push(Lost { track: face.track, face_box: face.face_box, frame: self.frame });
            }
        }
        self.known = kept;
        self.known.len() < before
    }

    /// Looks for faces that are not known yet.
    fn search(&mut self, frame: &Frame) {
        for detection in self.searcher.search(frame, self.known.is_empty(), self.frame) {
            if self.known.len() >= self.options.max_faces {
                return;
            }
            let first = self.mesh.run(frame, &Roi::from_detection(&detection));
            if first.presence < NEW_PRESENCE || !is_face(&first, frame) {
                continue;
            }
            // Once more from its own landmarks, as in all frames to come: no jump at the start.
            let mesh = self.mesh.run(frame, &Roi::from_mesh(&first));
            let face_box = mesh.face_box();
            let seen = self.known.iter().any(|k| {
                let [x, y] = face_box.centre();
                k.face_box.iou(&face_box) > SAME_FACE_IOU || k.face_box.contains(x, y)
            });
            if mesh.presence < NEW_PRESENCE || !is_face(&mesh, frame) || seen {
                continue;
            }
            let track = self.identify(&face_box);
            self.known.push(TrackedFace { track, face_box, mesh });
        }
    }

    /// The number of the lost face that was here, or a new one.
    fn identify(&mut self, face_box: &FaceBox) -> u32 {
        let distance = |lost: &Lost| {
            let ([ax, ay], [bx, by]) = (lost.face_box.centre(), face_box.centre());
            (ax - bx).hypot(ay - by) / face_box.width().max(1.0)
        };
        let place = (0..self.lost.len())
            .filter(|&i| {
                let growth = face_box.width() / self.lost[i].face_box.width().max(1.0);
                distance(&self.lost[i]) < 1.0 && growth < 2.0 && growth > 0.5
            })
            .min_by(|&a, &b| distance(&self.lost[a]).total_cmp(&distance(&self.lost[b])));
        match place {
            Some(i) => self.lost.swap_remove(i).track,
            None => {
                self.next_track += 1;
                self.next_track - 1
            }
        }
    }
}

/// Finite landmarks of a size and place that a face can have.
fn is_face(mesh: &Mesh, frame: &Frame) -> bool {
    let Some(record) = FaceRecord::from_mesh(mesh) else { return false };
    let [x, y] = record.face_box.centre();
    record.eye_distance_px > 6.0
        && record.side_px < 4.0 * frame.width.max(frame.height) as f32
        && x >= 0.0
        && y >= 0.0
        && x < frame.width as f32
        && y < frame.height as f32
}

/// Whether a box can be the same face one frame later.
fn is_next(last: &FaceBox, now: &FaceBox) -> bool {
    let ([ax, ay], [bx, by]) = (last.centre(), now.centre());
    let growth = now.width() / last.width().max(1.0);
    (ax - bx).hypot(ay - by) < LARGEST_STEP * last.width() && growth < LARGEST_GROWTH && growth > 1.0 / LARGEST_GROWTH
}
