//! Which face.
use crate::FaceError;
/// Which of the faces of a clip is meant.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum FaceChoice {
    /// The track with the largest sum of box areas.
    #[default]
    Largest,
    /// The track furthest to the left.
    Left,
    /// The track furthest to the right.
    Right,
    /// The track nearest to the middle of the picture.
    Center,
    /// A track by its number, as `scan` lists them.
    Id(u32),
    /// The face at a pixel of a frame.
    Point {
        /// Frame index, from 0.
        frame: usize,
        /// Column.
        x: f32,
        /// Row.
        y: f32,
    },
}
impl std::str::FromStr for FaceChoice { type Err = FaceError; fn from_str(_: &str) -> Result<Self, FaceError> { unimplemented!() } }
impl std::fmt::Display for FaceChoice { fn fmt(&self, _: &mut std::fmt::Formatter<'_>) -> std::fmt::Result { unimplemented!() } }
