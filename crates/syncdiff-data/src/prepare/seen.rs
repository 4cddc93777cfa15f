//! What was seen in the frames of a clip, and the arrays that follow from it.

use std::collections::HashMap;

use syncdiff_face::{Alignment, FaceBox, FacesInFrame, Mesh, NUM_LANDMARKS, TrackTable, lips};

use crate::clip::ClipArrays;

/// The landmarks of one face in one source frame.
pub(crate) struct Face {
    /// Source pixels.
    pub(crate) points: Vec<[f32; 2]>,
    /// Inner-lip opening over eye distance.
    pub(crate) opening: f32,
    /// How far the head is turned away to the side, in degrees, 0 or more.
    pub(crate) yaw_degrees: f32,
}

impl Face {
    pub(crate) fn of(mesh: &Mesh) -> Face {
        // The outer eye corners lie on a line across the head, so that their depths tell how it is turned.
        let ([ax, ay, az], [bx, by, bz]) = (mesh.points[33], mesh.points[263]);
        Face {
            points: mesh.points.iter().map(|p| [p[0], p[1]]).collect(),
            opening: lips::opening(mesh),
            yaw_degrees: (bz - az).abs().atan2((bx - ax).hypot(by - ay)).to_degrees(),
        }
    }
}

/// The faces of a clip: a small table of all tracks, and the landmarks of every frame by track.
pub(crate) struct Faces {
    pub(crate) table: TrackTable,
    pub(crate) by_frame: Vec<HashMap<u32, Face>>,
}

impl Faces {
    /// No frame yet, of frames of this size.
    pub(crate) fn new(width: usize, height: usize) -> Self {
        Faces { table: TrackTable::new(width, height), by_frame: Vec::new() }
    }

    /// Adds the next frame.
    pub(crate) fn push(&mut self, found: &FacesInFrame) {
        self.table.push(found);
        self.by_frame.push(found.faces.iter().map(|face| (face.track, Face::of(&face.mesh))).collect());
    }

    /// The arrays of one track, without pixels and speech. Model frame k shows source frame `source_frames[k]`.
    pub(crate) fn arrays(
        &self,
        track: u32,
        alignment: &Alignment,
        source_frames: &[usize],
        crop_size: usize,
    ) -> ClipArrays {
        let n = source_frames.len();
        let mut arrays = ClipArrays {
            crop_size,
            crop_from_frame: vec![0.0; n * 6],
            face_box: vec![0.0; n * 4],
            landmarks: vec![0.0; n * NUM_LANDMARKS * 2],
            opening: vec![0.0; n],
            valid: vec![0; n],
            ..ClipArrays::default()
        };
        for (k, source) in source_frames.iter().enumerate() {
            let Some(crop_from_frame) = alignment.crop_from_frame(*source, crop_size) else { continue };
            for (to, from) in arrays.crop_from_frame[k * 6..].iter_mut().zip(crop_from_frame.m.iter().flatten()) {
                *to = *from as f32;
            }
            if let Some(FaceBox { x0, y0, x1, y1 }) = alignment.face_box(*source) {
                arrays.face_box[k * 4..(k + 1) * 4].copy_from_slice(&[x0, y0, x1, y1]);
            }
            let Some(face) = self.by_frame[*source].get(&track) else { continue };
            let cells = &mut arrays.landmarks[k * NUM_LANDMARKS * 2..(k + 1) * NUM_LANDMARKS * 2];
            for (cell, [x, y]) in cells.chunks_exact_mut(2).zip(&face.points) {
                let point = crop_from_frame.apply([f64::from(*x), f64::from(*y)]);
                cell.copy_from_slice(&point.map(|v| v as f32));
            }
            arrays.opening[k] = face.opening;
            arrays.valid[k] = 1;
        }
        arrays
    }
}
