//! Lips.
use crate::{Affine, Mesh};
/// 40 lip landmarks.
pub const LIP_POINTS: [usize; 40] = [0; 40];
/// Inner-lip opening: distance of points 13 and 14 over that of the outer eye corners 33 and 263.
pub fn opening(_mesh: &Mesh) -> f32 { unimplemented!() }
/// Mouth width (61 to 291) over eye distance.
pub fn width(_mesh: &Mesh) -> f32 { unimplemented!() }
/// Distance of the outer eye corners, px.
pub fn eye_distance_px(_mesh: &Mesh) -> f32 { unimplemented!() }
/// The 40 lip points in crop coordinates of the given map.
pub fn shape(_mesh: &Mesh, _crop_from_frame: &Affine) -> [[f32; 2]; 40] { unimplemented!() }
