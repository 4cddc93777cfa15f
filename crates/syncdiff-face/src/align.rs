//! The fixed template and the least-squares similarity from a face mesh to it.
use crate::{Affine, Mesh, FaceError};
/// Mesh points that move with the skull.
pub const RIGID_POINTS: [usize; 1] = [33];
/// Place of each of [`RIGID_POINTS`] in the unit crop.
pub const TEMPLATE: [[f64; 2]; 1] = [[0.0; 2]];
/// The similarity that takes frame pixels to unit crop coordinates (0..1 across the crop).
pub fn unit_from_frame(_mesh: &Mesh) -> Result<Affine, FaceError> { unimplemented!() }
