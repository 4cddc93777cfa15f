//! A generated crop back into its frame, at the frame's own resolution.
//!
//! Only pixels whose feathered weight is above 0 are written; every other byte of the frame stays
//! as it was. Enlarged crops are resampled with Catmull-Rom splines, so that they are not blurred;
//! reduced ones by area.

use crate::colour::Gains;
use crate::outline::{Outline, OutlineMask};
use crate::{Affine, ColourMatch, FaceError, KeepMask, SkinMatch};
use pulp::{Arch, Simd, WithSimd};
use syncdiff_media::Frame;

/// Kept pixels up to this part of the crop's side from the hidden region show the seam's colour.
const RING: f64 = 0.07;
/// About so many of them are looked at.
const RING_PIXELS: usize = 700;

/// Feathered weights over a crop: 0 where the model saw the pixels and on the border of the hidden
/// region, rising to 1 inside it.
#[derive(Clone, Debug, PartialEq)]
pub struct PasteMask {
    size: usize,
    weight: Vec<f32>,
    /// First and last column and row with a weight above 0.
    columns: (usize, usize),
    rows: (usize, usize),
    pub(crate) ring: Vec<[u16; 2]>,
}

impl PasteMask {
    /// Weights for the hidden region of `keep`. `feather` is the width of the ramp as a part of the
    /// crop's side; 0.06 is a good value. The crop's own edge counts as kept.
    pub fn from_keep(keep: &KeepMask, feather: f64) -> Self {
        let size = keep.size;
        let ramp = (feather * size as f64).max(1e-3) as f32;
        let reach = (RING * size as f64).max(2.0) as f32;
        let inside = distances(size, |i| keep.keep[i] == 0, true, ramp + 1.0);
        let outside = distances(size, |i| keep.keep[i] != 0, false, reach);
        let weight: Vec<f32> = inside
            .iter()
            .map(|&d| {
                // The outermost hidden pixels lie at distance 1 and get no weight.
                let t = ((d - 1.0) / ramp).clamp(0.0, 1.0);
                t * t * (3.0 - 2.0 * t)
            })
            .collect();
        let (columns, rows) = extent(size, &weight);
        let near: Vec<usize> = (0..size * size).filter(|&i| outside[i] > 0.0 && outside[i] <= reach).collect();
        let stride = near.len().div_ceil(RING_PIXELS).max(1);
        let ring = near.iter().step_by(stride).map(|&i| [(i % size) as u16, (i / size) as u16]).collect();
        PasteMask { size, weight, columns, rows, ring }
    }

    /// The part of this mask within a face's outline: what lies outside shows the frame itself.
    ///
    /// # Panics
    /// If `outlines` is for crops of another size.
    #[must_use]
    pub fn within(&self, outlines: &OutlineMask, outline: &Outline) -> Self {
        assert_eq!(outlines.size(), self.size, "side of the crop");
        let weight: Vec<f32> = self.weight.iter().zip(outlines.weights(outline)).map(|(a, b)| a * b).collect();
        let (columns, rows) = extent(self.size, &weight);
        PasteMask { size: self.size, weight, columns, rows, ring: self.ring.clone() }
    }

    /// Side of the crop in pixels.
    pub fn size(&self) -> usize {
        self.size
    }

    /// `size * size` weights in [0, 1], row-major.
    pub fn weight(&self) -> &[f32] {
        &self.weight
    }

    /// The weight between the crop's pixels; 0 outside.
    #[inline(always)]
    fn at(&self, u: f32, v: f32) -> f32 {
        let last = (self.size - 1) as f32;
        if !(u >= 0.0 && v >= 0.0 && u < last && v < last) {
            // The outermost pixels of a crop have no weight, so nothing is lost beyond them.
            return 0.0;
        }
        let (iu, iv) = (u as i32, v as i32);
        let (fu, fv) = (u - iu as f32, v - iv as f32);
        let at = iv as usize * self.size + iu as usize;
        let (top, bottom) = (&self.weight[at..at + 2], &self.weight[at + self.size..][..2]);
        let upper = top[0] + (top[1] - top[0]) * fu;
        let lower = bottom[0] + (bottom[1] - bottom[0]) * fu;
        upper + (lower - upper) * fv
    }
}

/// First and last column and row with a weight above 0.
fn extent(size: usize, weight: &[f32]) -> ((usize, usize), (usize, usize)) {
    let (mut columns, mut rows) = ((usize::MAX, 0), (usize::MAX, 0));
    for (i, _) in weight.iter().enumerate().filter(|(_, w)| **w > 0.0) {
        let (x, y) = (i % size, i / size);
        columns = (columns.0.min(x), columns.1.max(x));
        rows = (rows.0.min(y), rows.1.max(y));
    }
    (columns, rows)
}

/// For pixels where `of` holds, the distance to the nearest pixel where it does not (`edge`: the
/// outside of the crop counts as such); 0 elsewhere. Exact up to `reach`, larger beyond.
fn distances(size: usize, of: impl Fn(usize) -> bool, edge: bool, reach: f32) -> Vec<f32> {
    let far = (2 * size) as f32;
    let span = reach.ceil() as usize;
    // Along columns first, then the lower envelope along rows (exact, Euclidean).
    let mut vertical = vec![0.0f32; size * size];
    for x in 0..size {
        let mut run = if edge { 0.0 } else { far };
        for y in 0..size {
            run = if of(y * size + x) { (run + 1.0).min(far) } else { 0.0 };
            vertical[y * size + x] = run;
        }
        let mut run = if edge { 0.0 } else { far };
        for y in (0..size).rev() {
            run = if of(y * size + x) { (run + 1.0).min(far) } else { 0.0 };
            let cell = &mut vertical[y * size + x];
            *cell = cell.min(run);
        }
    }
    let mut result = vec![0.0f32; size * size];
    for y in 0..size {
        let row = &vertical[y * size..(y + 1) * size];
        for x in 0..size {
            let mut best = row[x] * row[x];
            if edge {
                let side = (x + 1).min(size - x) as f32;
                best = best.min(side * side);
            }
            let window = x.saturating_sub(span)..(x + span + 1).min(size);
            for (other, &d) in window.clone().zip(&row[window]) {
                let across = other.abs_diff(x) as f32;
                best = best.min(across * across + d * d);
            }
            result[y * size + x] = best.sqrt();
        }
    }
    result
}

/// The half-open rectangle of frame pixels that [`paste_back`] may have changed; empty if none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Touched {
    /// First column.
    pub x0: usize,
    /// First row.
    pub y0: usize,
    /// Column behind the last.
    pub x1: usize,
    /// Row behind the last.
    pub y1: usize,
}

/// The pixels of a row between which both crop coordinates lie within the weighted region.
fn row_span(map: &Affine, y: usize, width: usize, mask: &PasteMask) -> std::ops::Range<usize> {
    let (mut low, mut high) = (0.0f64, width as f64 - 1.0);
    for (row, (first, last)) in map.m.iter().zip([mask.columns, mask.rows]) {
        let start = row[1] * y as f64 + row[2];
        let (from, to) = (first as f64 - 1.0 - start, last as f64 + 1.0 - start);
        if row[0].abs() < 1e-9 {
            if from > 0.0 || to < 0.0 {
                return 0..0;
            }
            continue;
        }
        let (a, b) = (from / row[0], to / row[0]);
        low = low.max(a.min(b));
        high = high.min(a.max(b));
    }
    if low > high { 0..0 } else { low.floor() as usize..(high.ceil() as usize + 1).min(width) }
}

/// Calls `with` for every frame pixel of weight above 0: its column and row, its place in the crop,
/// its weight. Everything that is written, or said to be written, comes through here.
#[inline(always)]
fn for_each_weighted(
    (width, height): (usize, usize),
    map: &Affine,
    mask: &PasteMask,
    mut with: impl FnMut(usize, usize, f32, f32, f32),
) -> Result<Touched, FaceError> {
    let Some(inverse) = map.invert() else {
        return Err(FaceError::Internal { stage: "paste back", detail: "the alignment has no inverse".into() });
    };
    if mask.columns.0 > mask.columns.1 {
        return Ok(Touched::default());
    }
    let corner = |x: usize, y: usize, d: f64, e: f64| inverse.apply([x as f64 + d, y as f64 + e]);
    let corners = [
        corner(mask.columns.0, mask.rows.0, -1.0, -1.0),
        corner(mask.columns.1, mask.rows.0, 1.0, -1.0),
        corner(mask.columns.0, mask.rows.1, -1.0, 1.0),
        corner(mask.columns.1, mask.rows.1, 1.0, 1.0),
    ];
    let low = corners.iter().map(|c| c[1]).fold(f64::INFINITY, f64::min);
    let high = corners.iter().map(|c| c[1]).fold(f64::NEG_INFINITY, f64::max);
    let rows = low.max(0.0) as usize..((high.max(-1.0) + 2.0) as usize).min(height);
    let mut touched = Touched { x0: usize::MAX, y0: usize::MAX, x1: 0, y1: 0 };
    for y in rows {
        let (u0, v0) = (map.m[0][1] * y as f64 + map.m[0][2], map.m[1][1] * y as f64 + map.m[1][2]);
        let (mut first, mut end) = (usize::MAX, 0);
        for x in row_span(map, y, width, mask) {
            let u = (map.m[0][0] * x as f64 + u0) as f32;
            let v = (map.m[1][0] * x as f64 + v0) as f32;
            let weight = mask.at(u, v);
            if weight > 0.0 {
                with(x, y, u, v, weight);
                first = first.min(x);
                end = x + 1;
            }
        }
        if first < end {
            touched.x0 = touched.x0.min(first);
            touched.x1 = touched.x1.max(end);
            touched.y0 = touched.y0.min(y);
            touched.y1 = y + 1;
        }
    }
    Ok(if touched.y1 == 0 { Touched::default() } else { touched })
}

/// Exactly the pixels that [`paste_back`] writes at an opacity above 0, row-major over the frame.
///
/// # Errors
/// [`FaceError::Internal`] if the map has no inverse.
pub fn touched_pixels(
    width: usize,
    height: usize,
    crop_from_frame: &Affine,
    mask: &PasteMask,
) -> Result<Vec<bool>, FaceError> {
    let mut touched = vec![false; width * height];
    for_each_weighted((width, height), crop_from_frame, mask, |x, y, _, _, _| {
        touched[y * width + x] = true;
    })?;
    Ok(touched)
}

/// How a crop is made like its frame before it is put there. Needs a generated crop that is whole, kept parts included.
#[derive(Debug)]
pub enum Tone<'a> {
    /// Not at all.
    AsDrawn,
    /// Its colours are matched to the frame's around the hidden region.
    Seam(&'a mut ColourMatch),
    /// Its skin takes colours and fine texture of the frame.
    Skin(&'a mut SkinMatch),
}

/// Puts a generated crop into the frame and says which rectangle it may have changed.
///
/// `crop_from_frame` is the map that the crop was cut with; `opacity` in [0, 1] fades the whole
/// crop, for the edges of gaps.
///
/// # Errors
/// [`FaceError::Internal`] if sizes contradict each other or the map has no inverse.
pub fn paste_back(
    frame: &mut Frame,
    generated: &Frame,
    crop_from_frame: &Affine,
    mask: &PasteMask,
    tone: Tone<'_>,
    opacity: f32,
) -> Result<Touched, FaceError> {
    if (generated.width, generated.height) != (mask.size, mask.size) {
        return Err(FaceError::Internal {
            stage: "paste back",
            detail: format!("a generated crop of {}x{} for a mask of {}", generated.width, generated.height, mask.size),
        });
    }
    if opacity.is_nan() || opacity <= 0.0 {
        return Ok(Touched::default());
    }
    let opacity = opacity.min(1.0);
    let source = match tone {
        Tone::AsDrawn => Source::new(generated, mask, None),
        Tone::Seam(colour) => Source::new(generated, mask, colour.update(frame, generated, crop_from_frame, mask)),
        Tone::Skin(skin) => Source::of_skin(&skin.update(frame, generated, crop_from_frame, mask), mask),
    };
    Arch::new().dispatch(Blend { frame, source, map: crop_from_frame, mask, opacity })
}

struct Blend<'a> {
    frame: &'a mut Frame,
    source: Source,
    map: &'a Affine,
    mask: &'a PasteMask,
    opacity: f32,
}

impl WithSimd for Blend<'_> {
    type Output = Result<Touched, FaceError>;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _simd: S) -> Self::Output {
        let Blend { frame, source, map, mask, opacity } = self;
        let (width, size) = (frame.width, (frame.width, frame.height));
        let data = &mut frame.data;
        if map.scale() <= 1.0 {
            return for_each_weighted(size, map, mask, |x, y, u, v, weight| {
                blend(&mut data[(y * width + x) * 3..][..3], source.spline(u, v), weight * opacity);
            });
        }
        let shifts = area_shifts(map);
        let share = 1.0 / shifts.len() as f32;
        for_each_weighted(size, map, mask, |x, y, u, v, weight| {
            let mut sum = [0.0; 4];
            for [du, dv] in &shifts {
                let value = source.linear(u + du, v + dv);
                for (s, v) in sum.iter_mut().zip(value) {
                    *s += v * share;
                }
            }
            blend(&mut data[(y * width + x) * 3..][..3], sum, weight * opacity);
        })
    }
}

/// The first three values, and the share of the pixel itself that the fourth one adds, take its place by `weight`.
#[inline(always)]
fn blend(pixel: &mut [u8], value: [f32; 4], weight: f32) {
    let [.., share] = value;
    for (to, value) in pixel.iter_mut().zip(value) {
        let old = f32::from(*to);
        let value = value + share * old;
        // A float cast saturates, so the splines' overshoot is cut off.
        *to = (old + (value - old) * weight + 0.5) as u8;
    }
}

/// Places within a frame pixel, in crop pixels, whose mean stands for its area.
fn area_shifts(map: &Affine) -> Vec<[f32; 2]> {
    let num = (map.scale().ceil().max(1.0) as usize).min(16);
    let mut shifts = Vec::with_capacity(num * num);
    for i in 0..num * num {
        let offset = |k: usize| (k as f64 + 0.5) / num as f64 - 0.5;
        let (dx, dy) = (offset(i % num), offset(i / num));
        let [row0, row1] = &map.m;
        shifts.push([row0[0] * dx + row0[1] * dy, row1[0] * dx + row1[1] * dy].map(|d| d as f32));
    }
    shifts
}

/// Pixels added around a crop so that taps need no bounds of their own.
const PAD: usize = 3;

/// The generated crop in floats, edges repeated: red, green, blue, and the share of the frame's own pixel that is added.
struct Source {
    stride: usize,
    last: f32,
    pixels: Vec<[f32; 4]>,
}

impl Source {
    fn new(generated: &Frame, mask: &PasteMask, gains: Option<Gains>) -> Self {
        let (size, stride) = (mask.size, mask.size + 2 * PAD);
        let mut pixels = Vec::with_capacity(stride * stride);
        for row in 0..stride {
            let y = row.saturating_sub(PAD).min(size - 1);
            let line = generated.row(y).as_chunks::<3>().0;
            let start = pixels.len();
            pixels.extend((0..stride).map(|column| {
                let [r, g, b] = line[column.saturating_sub(PAD).min(size - 1)].map(f32::from);
                [r, g, b, 0.0]
            }));
            if let Some(gains) = &gains {
                gains.apply_row(y, PAD, &mut pixels[start..]);
            }
        }
        Source { stride, last: size as f32, pixels }
    }

    fn of_skin(crop: &[[f32; 4]], mask: &PasteMask) -> Self {
        let (size, stride) = (mask.size, mask.size + 2 * PAD);
        let inside = |at: usize| at.saturating_sub(PAD).min(size - 1);
        let pixels = (0..stride * stride).map(|i| crop[inside(i / stride) * size + inside(i % stride)]);
        Source { stride, last: size as f32, pixels: pixels.collect() }
    }

    /// Index of the pixel up and left of a place, and the fractions to it.
    #[inline(always)]
    fn place(&self, u: f32, v: f32) -> (usize, f32, f32) {
        // Within the padding, also for places far outside.
        let u = u.clamp(-1.0, self.last) + PAD as f32;
        let v = v.clamp(-1.0, self.last) + PAD as f32;
        let (iu, iv) = (u as i32, v as i32);
        (iv as usize * self.stride + iu as usize, u - iu as f32, v - iv as f32)
    }

    #[inline(always)]
    fn spline(&self, u: f32, v: f32) -> [f32; 4] {
        let (at, fu, fv) = self.place(u, v);
        let (wu, wv) = (catmull_rom(fu), catmull_rom(fv));
        let mut sum = [0.0; 4];
        for (j, wv) in wv.iter().enumerate() {
            let start = at + j * self.stride - self.stride - 1;
            let taps: &[[f32; 4]] = &self.pixels[start..start + 4];
            let mut row = [0.0; 4];
            for (tap, wu) in taps.iter().zip(wu) {
                for c in 0..4 {
                    row[c] += tap[c] * wu;
                }
            }
            for c in 0..4 {
                sum[c] += row[c] * wv;
            }
        }
        sum
    }

    #[inline(always)]
    fn linear(&self, u: f32, v: f32) -> [f32; 4] {
        let (at, fu, fv) = self.place(u, v);
        let (top, bottom) = (&self.pixels[at..at + 2], &self.pixels[at + self.stride..][..2]);
        let mut value = [0.0; 4];
        for c in 0..4 {
            let upper = top[0][c] + (top[1][c] - top[0][c]) * fu;
            let lower = bottom[0][c] + (bottom[1][c] - bottom[0][c]) * fu;
            value[c] = upper + (lower - upper) * fv;
        }
        value
    }
}

/// Weights of the pixels -1, 0, 1, 2 for a place `t` behind pixel 0.
#[inline(always)]
fn catmull_rom(t: f32) -> [f32; 4] {
    let (t2, t3) = (t * t, t * t * t);
    [0.5 * (-t3 + 2.0 * t2 - t), 0.5 * (3.0 * t3 - 5.0 * t2 + 2.0), 0.5 * (-3.0 * t3 + 4.0 * t2 + t), 0.5 * (t3 - t2)]
}
