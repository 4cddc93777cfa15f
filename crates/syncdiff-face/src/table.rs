//! Table.
use crate::{Alignment, FaceChoice, FaceError, FaceRecord, FacesInFrame, SmoothOptions};
use std::ops::Range;
/// One face over time.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Track { id: u32, frames: Vec<u32>, records: Vec<FaceRecord> }
impl Track {
    /// Its number, as `id:N` means it.
    pub fn id(&self) -> u32 { self.id }
    /// Frames with this face.
    pub fn num_frames(&self) -> usize { self.frames.len() }
    /// What is known at a frame.
    pub fn get(&self, _frame: usize) -> Option<&FaceRecord> { unimplemented!() }
    /// All (frame, record), in order.
    pub fn iter(&self) -> impl Iterator<Item = (usize, &FaceRecord)> { self.frames.iter().map(|&f| f as usize).zip(&self.records) }
    /// Frame ranges with this face.
    pub fn ranges(&self) -> Vec<Range<usize>> { unimplemented!() }
}
/// All tracks of a clip.
#[derive(Clone, Debug, Default)]
pub struct TrackTable;
impl TrackTable {
    /// For frames of this size.
    pub fn new(_width: usize, _height: usize) -> Self { unimplemented!() }
    /// Adds the next frame.
    pub fn push(&mut self, _found: &FacesInFrame) -> Result<(), FaceError> { unimplemented!() }
    /// Frames seen.
    pub fn num_frames(&self) -> usize { unimplemented!() }
    /// Frames that begin a new shot (never 0).
    pub fn cuts(&self) -> &[u32] { unimplemented!() }
    /// By id, ascending.
    pub fn tracks(&self) -> &[Track] { unimplemented!() }
    /// One track.
    pub fn track(&self, _id: u32) -> Option<&Track> { unimplemented!() }
    /// Picks a track; [`FaceError::NoSuchFace`] (fault `NoFace`) if nothing fits.
    pub fn choose(&self, _choice: &FaceChoice) -> Result<&Track, FaceError> { unimplemented!() }
    /// The smoothed alignment of a track.
    pub fn alignment(&self, _track: &Track, _options: &SmoothOptions) -> Alignment { unimplemented!() }
}
