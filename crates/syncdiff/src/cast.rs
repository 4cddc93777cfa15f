//! Who speaks: the faces of every shot, and the one of each that was chosen.
//!
//! A track ends at a hard cut, so a choice such as `largest` is made anew in every shot: the person on the screen goes
//! on speaking after a cut. A choice by number or by point means one track, and with it one shot.

use std::ops::Range;

use syncdiff_face::{
    Affine, Alignment, FaceBox, FaceChoice, FaceError, FaceRecord, FacesInFrame, Outline, SmoothOptions, Track,
    TrackTable,
};

use crate::error::Outcome;

/// The faces of a clip by shot: some hundred bytes a frame and face.
#[derive(Clone, Debug)]
pub struct Faces {
    size: (usize, usize),
    num_frames: usize,
    shots: Vec<Shot>,
}

#[derive(Clone, Debug)]
struct Shot {
    first: usize,
    /// Frames are counted from the shot's first.
    table: TrackTable,
}

impl Faces {
    /// Nothing yet, for frames of this size.
    pub fn new(width: usize, height: usize) -> Self {
        Faces { size: (width, height), num_frames: 0, shots: Vec::new() }
    }

    /// Adds what was found in the next frame.
    pub fn push(&mut self, found: &FacesInFrame) {
        self.push_records(found.cut, found.records());
    }

    /// Adds the next frame by what is kept of it, each face with the number of its track.
    pub fn push_records(&mut self, cut: bool, found: impl IntoIterator<Item = (u32, FaceRecord)>) {
        if self.shots.is_empty() || cut {
            self.shots.push(Shot { first: self.num_frames, table: TrackTable::new(self.size.0, self.size.1) });
        }
        if let Some(shot) = self.shots.last_mut() {
            shot.table.push_records(cut, found);
        }
        self.num_frames += 1;
    }

    /// Width and height of the frames.
    pub fn size(&self) -> (usize, usize) {
        self.size
    }

    /// Frames looked at.
    pub fn num_frames(&self) -> usize {
        self.num_frames
    }

    /// Frames that begin a new shot; never frame 0.
    pub fn cuts(&self) -> Vec<usize> {
        self.shots.iter().skip(1).map(|shot| shot.first).collect()
    }

    /// All tracks, each with the frame from which its own frame numbers count.
    pub fn tracks(&self) -> impl Iterator<Item = (usize, &Track)> {
        self.shots.iter().flat_map(|shot| shot.table.tracks().iter().map(|track| (shot.first, track)))
    }

    /// The tracks that a choice means, at most one a shot, as (first frame of the shot, number of the track).
    ///
    /// # Errors
    /// [`FaceError::NoSuchFace`] if it means none.
    pub fn chosen(&self, choice: &FaceChoice) -> Outcome<Vec<(usize, u32)>> {
        let found: Vec<(usize, u32)> = self
            .shots
            .iter()
            .enumerate()
            .filter_map(|(number, shot)| {
                let choice = self.local(choice, number)?;
                Some((shot.first, shot.table.choose(&choice).ok()?.id()))
            })
            .collect();
        if found.is_empty() {
            let ids: Vec<String> = self.tracks().map(|(_, track)| format!("id:{}", track.id())).collect();
            let detail = match *choice {
                FaceChoice::Point { frame, .. } if frame >= self.num_frames => {
                    format!("only {} frames were looked at, counted from 0", self.num_frames)
                }
                FaceChoice::Point { frame, .. } => {
                    format!("no face is there; frame {frame} holds {}", self.seen(frame))
                }
                _ => format!("there is no such face; the clip shows {}", ids.join(", ")),
            };
            return Err(FaceError::NoSuchFace { choice: choice.to_string(), detail }.into());
        }
        Ok(found)
    }

    /// The chosen face of every shot, aligned.
    ///
    /// # Errors
    /// As [`Faces::chosen`].
    pub fn cast(&self, choice: &FaceChoice, smooth: &SmoothOptions) -> Outcome<Cast> {
        let chosen = self.chosen(choice)?;
        let roles = self.shots.iter().map(|shot| {
            let id = chosen.iter().find(|(first, _)| *first == shot.first).map(|(_, id)| *id);
            let track = id.and_then(|id| shot.table.track(id));
            Role { first: shot.first, id, alignment: track.map(|track| shot.table.alignment(track, smooth)) }
        });
        Ok(Cast { num_frames: self.num_frames, roles: roles.collect() })
    }

    /// A choice as the table of a shot understands it; none where it does not mean this shot.
    fn local(&self, choice: &FaceChoice, shot: usize) -> Option<FaceChoice> {
        let first = self.shots[shot].first;
        let end = self.shots.get(shot + 1).map_or(self.num_frames, |next| next.first);
        match *choice {
            FaceChoice::Point { frame, x, y } if (first..end).contains(&frame) => {
                Some(FaceChoice::Point { frame: frame - first, x, y })
            }
            FaceChoice::Point { .. } => None,
            other => Some(other),
        }
    }

    /// The faces of a frame, in words.
    fn seen(&self, frame: usize) -> String {
        let here = self.tracks().filter_map(|(first, track)| Some((track.id(), track.get(frame.checked_sub(first)?)?)));
        let words: Vec<String> = here
            .map(|(id, record)| {
                let FaceBox { x0, y0, x1, y1 } = record.face_box;
                format!("id:{id} from {x0:.0},{y0:.0} to {x1:.0},{y1:.0}")
            })
            .collect();
        if words.is_empty() { "no face".to_owned() } else { words.join(", ") }
    }
}

/// Where the chosen face is in every frame.
#[derive(Clone, Debug)]
pub struct Cast {
    num_frames: usize,
    roles: Vec<Role>,
}

#[derive(Clone, Debug)]
struct Role {
    first: usize,
    id: Option<u32>,
    alignment: Option<Alignment>,
}

impl Cast {
    /// The shot that a frame belongs to, counted from 0.
    pub fn shot(&self, frame: usize) -> usize {
        self.roles.partition_point(|role| role.first <= frame).saturating_sub(1)
    }

    fn at(&self, frame: usize) -> Option<(&Alignment, usize)> {
        let role = self.roles.get(self.shot(frame))?;
        Some((role.alignment.as_ref()?, frame - role.first))
    }

    /// Map from frame pixels to the pixels of a crop of `size`; none where the face is not seen.
    pub fn crop_from_frame(&self, frame: usize, size: usize) -> Option<Affine> {
        self.at(frame).and_then(|(alignment, frame)| alignment.crop_from_frame(frame, size))
    }

    /// Box round the face in frame pixels.
    pub fn face_box(&self, frame: usize) -> Option<FaceBox> {
        self.at(frame).and_then(|(alignment, frame)| alignment.face_box(frame))
    }

    /// How far the face reaches from the mouth, in sides of the crop.
    pub fn outline(&self, frame: usize) -> Option<Outline> {
        self.at(frame).and_then(|(alignment, frame)| alignment.outline(frame))
    }

    /// Weight of the generated mouth: 0 where the face is not seen, rising to 1 within `fade_frames` of such a gap.
    /// Cuts and the ends of the clip need no fading.
    pub fn opacity(&self, frame: usize, fade_frames: usize) -> f32 {
        self.at(frame).map_or(0.0, |(alignment, frame)| alignment.opacity(frame, fade_frames))
    }

    /// The tracks of the chosen face, one for each shot that shows it.
    pub fn ids(&self) -> Vec<u32> {
        self.roles.iter().filter_map(|role| role.id).collect()
    }

    /// Frame ranges in which the face is not seen, in order, joined across cuts.
    pub fn gaps(&self) -> Vec<Range<usize>> {
        let mut gaps: Vec<Range<usize>> = Vec::new();
        for (number, role) in self.roles.iter().enumerate() {
            let end = self.roles.get(number + 1).map_or(self.num_frames, |next| next.first);
            let inside = match &role.alignment {
                Some(alignment) => alignment.gaps(),
                None => std::iter::once(0..end - role.first).collect(),
            };
            for gap in inside {
                let gap = gap.start + role.first..gap.end + role.first;
                match gaps.last_mut() {
                    Some(last) if last.end == gap.start => last.end = gap.end,
                    _ => gaps.push(gap),
                }
            }
        }
        gaps
    }
}
