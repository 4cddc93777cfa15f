//! How far a face reaches from its mouth, sideways and down: where a generated mouth may be seen without the neck,
//! collar, hair and background that the model had to make up round it.

use crate::Mesh;
use crate::align::Pose;

/// Directions of an [`Outline`], evenly spaced from the picture's right (+x) over straight down to its left.
pub const NUM_RAYS: usize = 17;
/// Where the rays begin, in unit crop coordinates: the middle of the mouth, see [`crate::TEMPLATE`].
pub const ORIGIN: [f64; 2] = [0.5, 0.62];

/// How far beyond the outline, in sides of the crop, the generated crop shows fully, and the width of the ramp behind.
/// Sideways, where hair and background begin, the ramp lies within the face; below there is room for a chin that sinks
/// when the mouth opens.
const SIDEWAYS: [f32; 2] = [-0.03, 0.04];
const BELOW: [f32; 2] = [0.05, 0.08];

/// Lengths of the rays from [`ORIGIN`] to the edge of the face, in sides of the aligned crop.
pub type Outline = [f32; NUM_RAYS];

/// The outline of a mesh: where each ray leaves the convex hull of all landmarks. 0 where it never enters it.
pub(crate) fn outline(mesh: &Mesh, pose: &Pose) -> Outline {
    let unit_from_frame = pose.unit_from_frame();
    let points = mesh.points.iter().map(|&[x, y, _]| {
        let [u, v] = unit_from_frame.apply([f64::from(x), f64::from(y)]);
        [u - ORIGIN[0], v - ORIGIN[1]]
    });
    let hull = convex_hull(points.collect());
    std::array::from_fn(|ray| {
        let (sin, cos) = angle(ray).sin_cos();
        let edges = hull.iter().zip(hull.iter().cycle().skip(1));
        edges.filter_map(|(a, b)| crossing([cos, sin], *a, *b)).fold(0.0, f64::max) as f32
    })
}

fn angle(ray: usize) -> f64 {
    std::f64::consts::PI * ray as f64 / (NUM_RAYS - 1) as f64
}

/// Distance from the origin along a direction to the segment from `a` to `b`.
fn crossing(direction: [f64; 2], a: [f64; 2], b: [f64; 2]) -> Option<f64> {
    let cross = |p: [f64; 2], q: [f64; 2]| p[0] * q[1] - p[1] * q[0];
    let along = [b[0] - a[0], b[1] - a[1]];
    let det = cross(direction, along);
    if det == 0.0 {
        return None;
    }
    let (distance, part) = (cross(a, along) / det, cross(a, direction) / det);
    (distance >= 0.0 && (0.0..=1.0).contains(&part)).then_some(distance)
}

/// Corners in order (Andrew's monotone chain).
fn convex_hull(mut points: Vec<[f64; 2]>) -> Vec<[f64; 2]> {
    points.sort_by(|a, b| a[0].total_cmp(&b[0]).then(a[1].total_cmp(&b[1])));
    let turns_right =
        |o: [f64; 2], a: [f64; 2], b: [f64; 2]| (a[0] - o[0]) * (b[1] - o[1]) - (a[1] - o[1]) * (b[0] - o[0]) <= 0.0;
    let chain = |points: &mut dyn Iterator<Item = [f64; 2]>| {
        let mut chain: Vec<[f64; 2]> = Vec::new();
        for point in points {
            while let [.., o, a] = chain[..] {
                if !turns_right(o, a, point) {
                    break;
                }
                chain.pop();
            }
            chain.push(point);
        }
        // The last one begins the other chain.
        chain.pop();
        chain
    };
    let mut hull = chain(&mut points.iter().copied());
    hull.extend(chain(&mut points.iter().rev().copied()));
    hull
}

/// Weights over the pixels of a crop: 1 inside an outline, falling to 0 outside.
#[derive(Clone, Debug)]
pub struct OutlineMask {
    size: usize,
    /// For each pixel its distance from the origin, and its direction in rays.
    places: Vec<[f32; 2]>,
}

impl OutlineMask {
    /// For crops of `size` pixels.
    pub fn new(size: usize) -> Self {
        let unit = |pixel: usize| (pixel as f64 + 0.5) / size as f64;
        let place = |i: usize| {
            let (x, y) = (unit(i % size) - ORIGIN[0], unit(i / size) - ORIGIN[1]);
            // Above the mouth only the distance to the side counts.
            let y = y.max(0.0);
            let rays = y.atan2(x) / std::f64::consts::PI * (NUM_RAYS - 1) as f64;
            [x.hypot(y) as f32, rays as f32]
        };
        OutlineMask { size, places: (0..size * size).map(place).collect() }
    }

    /// Side of the crop in pixels.
    pub fn size(&self) -> usize {
        self.size
    }

    /// `size * size` weights in [0, 1], row-major.
    pub fn weights<'a>(&'a self, outline: &'a Outline) -> impl Iterator<Item = f32> + 'a {
        let margins: [[f32; 2]; NUM_RAYS] = std::array::from_fn(|ray| {
            let down = angle(ray).sin().powi(4) as f32;
            std::array::from_fn(|i| SIDEWAYS[i] + (BELOW[i] - SIDEWAYS[i]) * down)
        });
        self.places.iter().map(move |&[distance, rays]| {
            let ray = (rays as usize).min(NUM_RAYS - 2);
            let part = rays - ray as f32;
            let between = |of: &dyn Fn(usize) -> f32| of(ray) + (of(ray + 1) - of(ray)) * part;
            let reach = between(&|ray| outline[ray] + margins[ray][0]);
            let ramp = between(&|ray| margins[ray][1]);
            let t = ((reach + ramp - distance) / ramp).clamp(0.0, 1.0);
            t * t * (3.0 - 2.0 * t)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::face_at;

    #[test]
    fn the_rays_end_at_the_edge_of_the_face_wherever_it_is() {
        for (x, y, side, turn) in [(100.0, 80.0, 90.0, 0.0), (300.0, 200.0, 210.0, 0.4)] {
            let mesh = face_at(x, y, side, turn);
            let outline = outline(&mesh, &Pose::fit(&mesh).unwrap());
            // The mesh is an ellipse about the crop's middle, 0.35 wide and 0.4 high each way.
            for (ray, length) in outline.iter().enumerate() {
                let (sin, cos) = angle(ray).sin_cos();
                let (px, py) = (f64::from(*length) * cos, f64::from(*length) * sin + ORIGIN[1] - 0.5);
                let edge = (px / 0.35).hypot(py / 0.4);
                assert!((edge - 1.0).abs() < 0.01, "ray {ray}: {edge}");
            }
        }
    }

    #[test]
    fn a_face_elsewhere_than_its_pose_has_no_outline() {
        let mut mesh = face_at(100.0, 80.0, 90.0, 0.0);
        let pose = Pose::fit(&mesh).unwrap();
        mesh.points.iter_mut().for_each(|point| point[1] -= 500.0);
        assert_eq!(outline(&mesh, &pose), [0.0; NUM_RAYS]);
    }

    #[test]
    fn weights_are_whole_inside_nothing_outside_and_fall_between() {
        let size = 128;
        let outline = [0.2; NUM_RAYS];
        let weights: Vec<f32> = OutlineMask::new(size).weights(&outline).collect();
        let at = |u: f64, v: f64| weights[(v * size as f64) as usize * size + (u * size as f64) as usize];
        for (u, v) in [(0.5, 0.62), (0.65, 0.62), (0.35, 0.5), (0.5, 0.85), (0.4, 0.75)] {
            assert_eq!(at(u, v), 1.0, "{u} {v}");
        }
        for (u, v) in [(0.8, 0.62), (0.2, 0.5), (0.5, 0.97), (0.75, 0.85)] {
            assert_eq!(at(u, v), 0.0, "{u} {v}");
        }
        let below: Vec<f32> = (0..30).map(|i| at(0.5, 0.84 + 0.005 * f64::from(i))).collect();
        assert!(below.is_sorted_by(|a, b| a >= b) && below.iter().any(|w| (0.3..0.7).contains(w)), "{below:?}");
        // The chin gets more room than the cheeks.
        assert!(at(0.5, 0.89) > at(0.77, 0.62));
    }
}
