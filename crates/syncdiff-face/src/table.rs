//! All tracks of a clip, in a form that stays small for an hour of video, and the choice of one.

use crate::{Alignment, FaceChoice, FaceError, FaceRecord, FacesInFrame, SmoothOptions};
use std::ops::Range;

/// `left`, `right` and `center` pass over tracks that are this many times shorter than the longest.
const BLIP: usize = 10;

/// One face over time.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Track {
    id: u32,
    frames: Vec<u32>,
    records: Vec<FaceRecord>,
}

impl Track {
    /// Its number, as `id:N` means it.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// In how many frames it was seen.
    pub fn num_frames(&self) -> usize {
        self.frames.len()
    }

    /// What is known of it at a frame.
    pub fn get(&self, frame: usize) -> Option<&FaceRecord> {
        let frame = u32::try_from(frame).ok()?;
        self.frames.binary_search(&frame).ok().map(|i| &self.records[i])
    }

    /// All frames with what is known, in order.
    pub fn iter(&self) -> impl Iterator<Item = (usize, &FaceRecord)> {
        self.frames.iter().map(|&f| f as usize).zip(&self.records)
    }

    /// The frame ranges in which it was seen, in order.
    pub fn ranges(&self) -> Vec<Range<usize>> {
        let mut ranges: Vec<Range<usize>> = Vec::new();
        for &frame in &self.frames {
            let frame = frame as usize;
            match ranges.last_mut() {
                Some(last) if last.end == frame => last.end += 1,
                _ => ranges.push(frame..frame + 1),
            }
        }
        ranges
    }

    fn mean(&self, value: impl Fn(&FaceRecord) -> f32) -> f64 {
        let sum: f64 = self.records.iter().map(|r| f64::from(value(r))).sum();
        sum / self.records.len().max(1) as f64
    }
}

/// All tracks of a clip.
#[derive(Clone, Debug, Default)]
pub struct TrackTable {
    width: usize,
    height: usize,
    num_frames: usize,
    cuts: Vec<u32>,
    tracks: Vec<Track>,
}

impl TrackTable {
    /// An empty table for frames of this size.
    pub fn new(width: usize, height: usize) -> Self {
        TrackTable { width, height, ..TrackTable::default() }
    }

    /// Adds what a [`crate::Tracker`] found in the next frame.
    pub fn push(&mut self, found: &FacesInFrame) {
        self.push_records(found.cut, found.records());
    }

    /// Adds the next frame by what is kept of it, each face with the number of its track.
    pub fn push_records(&mut self, cut: bool, found: impl IntoIterator<Item = (u32, FaceRecord)>) {
        let frame = self.num_frames as u32;
        self.num_frames += 1;
        if cut && frame > 0 {
            self.cuts.push(frame);
        }
        for (id, record) in found {
            let place = self.tracks.binary_search_by_key(&id, |t| t.id);
            let place = place.unwrap_or_else(|place| {
                self.tracks.insert(place, Track { id, ..Track::default() });
                place
            });
            self.tracks[place].frames.push(frame);
            self.tracks[place].records.push(record);
        }
    }

    /// Frames pushed so far.
    pub fn num_frames(&self) -> usize {
        self.num_frames
    }

    /// Frames that begin a new shot, in order; never frame 0.
    pub fn cuts(&self) -> &[u32] {
        &self.cuts
    }

    /// All tracks by ascending number.
    pub fn tracks(&self) -> &[Track] {
        &self.tracks
    }

    /// The track with this number.
    pub fn track(&self, id: u32) -> Option<&Track> {
        self.tracks.binary_search_by_key(&id, |t| t.id).ok().map(|i| &self.tracks[i])
    }

    /// The track that is meant.
    ///
    /// # Errors
    /// [`FaceError::NoSuchFace`] if the clip has no face at all or none that fits.
    pub fn choose(&self, choice: &FaceChoice) -> Result<&Track, FaceError> {
        let longest = self.tracks.iter().map(Track::num_frames).max().unwrap_or(0);
        let smallest_by = |value: &dyn Fn(&Track) -> f64| {
            let lasting = self.tracks.iter().filter(|t| t.num_frames() * BLIP >= longest);
            lasting.min_by(|a, b| value(a).total_cmp(&value(b)))
        };
        let x = |t: &Track| t.mean(|r| r.face_box.centre()[0]);
        let y = |t: &Track| t.mean(|r| r.face_box.centre()[1]);
        let found = match *choice {
            FaceChoice::Largest => smallest_by(&|t| -t.mean(|r| r.face_box.area()) * t.num_frames() as f64),
            FaceChoice::Left => smallest_by(&x),
            FaceChoice::Right => smallest_by(&|t| -x(t)),
            FaceChoice::Center => {
                let (w, h) = (self.width as f64 / 2.0, self.height as f64 / 2.0);
                smallest_by(&|t| (x(t) - w).hypot(y(t) - h))
            }
            FaceChoice::Id(id) => self.track(id),
            FaceChoice::Point { frame, x, y } => self.at_point(frame, x, y),
        };
        found.ok_or_else(|| FaceError::NoSuchFace { choice: choice.to_string(), detail: self.what_there_is(choice) })
    }

    /// The smallest box that holds the point: of two overlapping faces the one in front is meant
    /// by whoever points at its middle, and the smaller is the more exact.
    fn at_point(&self, frame: usize, x: f32, y: f32) -> Option<&Track> {
        self.tracks
            .iter()
            .filter_map(|t| t.get(frame).map(|r| (t, r.face_box)))
            .filter(|(_, b)| b.contains(x, y))
            .min_by(|a, b| a.1.area().total_cmp(&b.1.area()))
            .map(|(t, _)| t)
    }

    fn what_there_is(&self, choice: &FaceChoice) -> String {
        if self.tracks.is_empty() {
            return format!("no face was found in {} frames", self.num_frames);
        }
        if let FaceChoice::Point { frame, .. } = *choice {
            if frame >= self.num_frames {
                return format!("the clip has {} frames, counted from 0", self.num_frames);
            }
            let boxes: Vec<String> = self
                .tracks
                .iter()
                .filter_map(|t| t.get(frame).map(|r| (t.id, r.face_box)))
                .map(|(id, b)| format!("id:{id} at {:.0},{:.0} to {:.0},{:.0}", b.x0, b.y0, b.x1, b.y1))
                .collect();
            return if boxes.is_empty() {
                format!("frame {frame} holds no face")
            } else {
                format!("no face at this point; frame {frame} holds {}", boxes.join("; "))
            };
        }
        let ids: Vec<String> = self.tracks.iter().map(|t| t.id.to_string()).collect();
        format!("the clip has the tracks {}", ids.join(", "))
    }

    /// The alignment of a track over the whole clip, smoothed within each shot.
    pub fn alignment(&self, track: &Track, options: &SmoothOptions) -> Alignment {
        Alignment::new(track, self.num_frames, &self.cuts, options)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::face_at;
    use crate::{Fault, TrackedFace};

    fn faces(list: &[(u32, f32, f32, f32)]) -> FacesInFrame {
        let faces = list
            .iter()
            .map(|&(track, x, y, side)| {
                let mesh = face_at(x, y, side, 0.0);
                TrackedFace { track, face_box: mesh.face_box(), mesh }
            })
            .collect();
        FacesInFrame { faces, cut: false }
    }

    fn two_faces() -> TrackTable {
        let mut table = TrackTable::new(640, 360);
        for i in 0..20 {
            let shift = i as f32;
            let mut list = vec![(3, 100.0 + shift, 100.0, 90.0), (5, 400.0, 180.0, 60.0)];
            if i == 7 {
                list.push((9, 600.0, 40.0, 30.0));
            }
            if (10..12).contains(&i) {
                list.remove(0);
            }
            table.push(&faces(&list));
        }
        table
    }

    #[test]
    fn choices_find_their_track() {
        let table = two_faces();
        let id = |text: &str| table.choose(&text.parse().unwrap()).unwrap().id();
        assert_eq!((id("largest"), id("left"), id("right"), id("center")), (3, 3, 5, 5));
        assert_eq!((id("id:9"), id("point:7,600,40"), id("point:0,400,180")), (9, 9, 5));
    }

    #[test]
    fn ranges_show_the_gap() {
        let table = two_faces();
        assert_eq!(table.track(3).unwrap().ranges(), [0..10, 12..20]);
        assert!(table.track(3).unwrap().get(10).is_none());
    }

    #[test]
    fn misses_say_what_there_is() {
        let table = two_faces();
        let error = |text: &str| table.choose(&text.parse().unwrap()).unwrap_err();
        assert_eq!(error("id:4").fault(), Fault::NoFace);
        assert!(error("id:4").to_string().contains("3, 5, 9"));
        assert!(error("point:0,5,5").to_string().contains("id:5 at"));
        assert!(error("point:99,5,5").to_string().contains("20 frames"));
        let empty = TrackTable::new(8, 8);
        assert_eq!(empty.choose(&FaceChoice::Largest).unwrap_err().fault(), Fault::NoFace);
    }

    #[test]
    fn a_record_is_small() {
        assert_eq!(size_of::<FaceRecord>(), 112);
    }
}
