//! Plane geometry: points, boxes and affine maps. Pixel centres lie at integer coordinates.

/// A point or a vector in the plane: x to the right, y down.
pub type Point = [f64; 2];

/// An affine map of the plane, `(x, y) -> (m00 x + m01 y + m02, m10 x + m11 y + m12)`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Affine {
    /// The 2x3 matrix.
    pub m: [[f64; 3]; 2],
}

impl Affine {
    /// The map that changes nothing.
    pub const IDENTITY: Affine = Affine { m: [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]] };

    /// Scaling by `s` about the origin, then a shift.
    pub fn scale_shift(s: f64, dx: f64, dy: f64) -> Self {
        Affine { m: [[s, 0.0, dx], [0.0, s, dy]] }
    }

    /// Rotation by `angle` (radians, from x towards y) and scaling by `scale` about the origin,
    /// then a shift by `shift`.
    pub fn similarity(scale: f64, angle: f64, shift: Point) -> Self {
        let (sin, cos) = angle.sin_cos();
        Affine { m: [[scale * cos, -scale * sin, shift[0]], [scale * sin, scale * cos, shift[1]]] }
    }

    /// The image of a point.
    pub fn apply(&self, p: Point) -> Point {
        let [r0, r1] = &self.m;
        [r0[0] * p[0] + r0[1] * p[1] + r0[2], r1[0] * p[0] + r1[1] * p[1] + r1[2]]
    }

    /// The map that applies `self` first and `next` after it.
    pub fn then(&self, next: &Affine) -> Affine {
        let mut m = [[0.0; 3]; 2];
        for (row, n) in m.iter_mut().zip(&next.m) {
            for (k, cell) in row.iter_mut().enumerate() {
                *cell = n[0] * self.m[0][k] + n[1] * self.m[1][k];
            }
            row[2] += n[2];
        }
        Affine { m }
    }

    /// Determinant of the linear part: the factor by which areas grow.
    pub fn determinant(&self) -> f64 {
        self.m[0][0] * self.m[1][1] - self.m[0][1] * self.m[1][0]
    }

    /// The inverse map, or `None` when the map squeezes the plane onto a line or is not finite.
    pub fn invert(&self) -> Option<Affine> {
        let det = self.determinant();
        if !det.is_finite() || det.abs() < 1e-12 {
            return None;
        }
        let [[a, b, tx], [c, d, ty]] = self.m;
        let (ia, ib, ic, id) = (d / det, -b / det, -c / det, a / det);
        let inverse = Affine { m: [[ia, ib, -(ia * tx + ib * ty)], [ic, id, -(ic * tx + id * ty)]] };
        inverse.m.iter().flatten().all(|v| v.is_finite()).then_some(inverse)
    }

    /// Square root of the area factor: pixels of the target for one pixel of the source.
    pub fn scale(&self) -> f64 {
        self.determinant().abs().sqrt()
    }
}

/// An upright box in pixels; `x1`, `y1` are the far edges.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct FaceBox {
    /// Left edge.
    pub x0: f32,
    /// Upper edge.
    pub y0: f32,
    /// Right edge.
    pub x1: f32,
    /// Lower edge.
    pub y1: f32,
}

impl FaceBox {
    /// Width, never negative.
    pub fn width(&self) -> f32 {
        (self.x1 - self.x0).max(0.0)
    }

    /// Height, never negative.
    pub fn height(&self) -> f32 {
        (self.y1 - self.y0).max(0.0)
    }

    /// Area.
    pub fn area(&self) -> f32 {
        self.width() * self.height()
    }

    /// Middle.
    pub fn centre(&self) -> [f32; 2] {
        [(self.x0 + self.x1) * 0.5, (self.y0 + self.y1) * 0.5]
    }

    /// Intersection over union, in [0, 1].
    pub fn iou(&self, other: &FaceBox) -> f32 {
        let w = self.x1.min(other.x1) - self.x0.max(other.x0);
        let h = self.y1.min(other.y1) - self.y0.max(other.y0);
        if w <= 0.0 || h <= 0.0 {
            return 0.0;
        }
        let shared = w * h;
        shared / (self.area() + other.area() - shared).max(f32::MIN_POSITIVE)
    }

    /// Whether the point lies inside.
    pub fn contains(&self, x: f32, y: f32) -> bool {
        x >= self.x0 && x <= self.x1 && y >= self.y0 && y <= self.y1
    }

    /// The smallest box round some points; `None` without points.
    pub fn around(points: impl IntoIterator<Item = [f32; 2]>) -> Option<FaceBox> {
        points.into_iter().fold(None, |acc: Option<FaceBox>, [x, y]| {
            let b = acc.unwrap_or(FaceBox { x0: x, y0: y, x1: x, y1: y });
            Some(FaceBox { x0: b.x0.min(x), y0: b.y0.min(y), x1: b.x1.max(x), y1: b.y1.max(y) })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn inverse_undoes(scale in 0.01f64..50.0, angle in -3.1f64..3.1,
                          dx in -2000.0f64..2000.0, dy in -2000.0f64..2000.0,
                          x in -2000.0f64..2000.0, y in -2000.0f64..2000.0) {
            let map = Affine::similarity(scale, angle, [dx, dy]);
            let back = map.invert().unwrap();
            let [u, v] = back.apply(map.apply([x, y]));
            prop_assert!((u - x).abs() < 1e-6 && (v - y).abs() < 1e-6);
            let both = map.then(&back);
            for (row, want) in both.m.iter().zip(&Affine::IDENTITY.m) {
                for (a, b) in row.iter().zip(want) {
                    prop_assert!((a - b).abs() < 1e-6);
                }
            }
            prop_assert!((map.scale() - scale).abs() < 1e-9 * scale.max(1.0));
        }
    }

    #[test]
    fn a_flat_map_has_no_inverse() {
        assert!(Affine { m: [[1.0, 2.0, 0.0], [2.0, 4.0, 0.0]] }.invert().is_none());
        assert!(Affine { m: [[f64::NAN, 2.0, 0.0], [2.0, 4.0, 0.0]] }.invert().is_none());
    }

    #[test]
    fn boxes_overlap_as_expected() {
        let a = FaceBox { x0: 0.0, y0: 0.0, x1: 10.0, y1: 10.0 };
        let b = FaceBox { x0: 5.0, y0: 0.0, x1: 15.0, y1: 10.0 };
        assert!((a.iou(&b) - 1.0 / 3.0).abs() < 1e-6);
        assert_eq!(a.iou(&FaceBox { x0: 20.0, y0: 0.0, x1: 30.0, y1: 9.0 }), 0.0);
        assert!(a.contains(3.0, 10.0) && !a.contains(11.0, 3.0));
    }
}
