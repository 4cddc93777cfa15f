//! Contact sheets: rows of clips, columns of moments.

use crate::error::{EvalError, EvalResult};
use crate::faces::measure_faces;
use std::path::Path;
use syncdiff_face::{FaceModels, warp};
use syncdiff_media::{Frame, FrameReader, ReadOptions, Tools, probe};

/// One row: the same face at the sheet's moments in one clip.
#[derive(Clone, Copy, Debug)]
pub struct SheetRow<'a> {
    /// The clip.
    pub clip: &'a Path,
}

/// Pictures of the face (aligned by the first row's clip) at `columns` moments spread over the clip.
///
/// # Errors
/// A clip that cannot be decoded or shows no face.
pub fn contact_sheet(
    tools: &Tools,
    models: &FaceModels,
    rows: &[SheetRow<'_>],
    columns: usize,
    cell: usize,
) -> EvalResult<Frame> {
    let Some(first) = rows.first() else {
        return Err(EvalError::Unequal { what: "contact sheet", detail: "no rows".into() });
    };
    let faces = measure_faces(tools, models, first.clip, || Ok(()))?;
    // The crop of 160 pixels scaled to the cell.
    let scale = cell as f64 / 160.0;
    let count = faces.crop_from_frame.len();
    let moments: Vec<usize> = (0..columns).map(|c| (2 * c + 1) * count / (2 * columns)).collect();
    let mut sheet = Frame::filled(columns * cell, rows.len() * cell, [0, 0, 0]);
    for (r, row) in rows.iter().enumerate() {
        let info = probe(tools, row.clip)?;
        for (index, timed) in FrameReader::open(tools, &info, &ReadOptions::default())?.enumerate() {
            let timed = timed?;
            let Some(crop) = faces.crop_from_frame.get(index).copied().flatten() else { continue };
            for c in moments.iter().enumerate().filter(|(_, at)| **at == index).map(|(c, _)| c) {
                let scaled = syncdiff_face::Affine { m: crop.m.map(|row| row.map(|v| v * scale)) };
                sheet.paste(&warp(&timed.frame, &scaled, cell), c * cell, r * cell);
            }
        }
    }
    Ok(sheet)
}
