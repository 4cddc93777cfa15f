//! The drawn head over a grid of points: height and lit colour for each pose.
//!
//! A port of `tools/demo_clip.py`, which draws the demo clip at high resolution, with the looks as parameters.

use crate::rng::Draws;
use crate::synthetic::field::{Light, blur, dot, mix, smooth, times, unit};
use crate::synthetic::looks::Looks;
use crate::synthetic::paint::{eyes, inner_mouth, skin};
use crate::synthetic::shape::{Moved, Pose, features, moved, outline, skull};

/// Grid points for each pixel of the picture: the camera takes colours between them.
const FINENESS: f32 = 1.5;
/// Half the width of the grid.
const X: f32 = 1.2;
/// Upper and lower edge of the grid.
const Y: (f32, f32) = (-1.5, 1.6);
/// Height where there is no head.
const NO_HEAD: f32 = -9.0;

/// Height and lit colour of a head over a grid of (x, y).
pub(crate) struct HeadMap {
    /// Grid points in a unit.
    density: f32,
    columns: usize,
    rows: usize,
    looks: Looks,
    grain: Vec<f32>,
    /// How much hair covers each point, its height, its outline as [`outline`] has it, and its streaks.
    hair: Vec<[f32; 4]>,
    /// Of the last pose: [`NO_HEAD`] outside the head.
    pub(super) height: Vec<f32>,
    /// Of the last pose.
    pub(super) colour: Vec<Light>,
}

/// One grid point before it is lit.
#[derive(Clone, Copy, Default)]
struct Point {
    rest: [f32; 2],
    inside: f32,
    deep: f32,
    height: f32,
    albedo: Light,
    gloss: f32,
    covered: bool,
}

impl HeadMap {
    /// A head of these looks; its noise is that of `draws`.
    pub(crate) fn new(looks: &Looks, draws: &mut Draws) -> Self {
        let density = looks.unit_px[1] * FINENESS;
        let columns = (2.0 * X * density) as usize;
        let rows = ((Y.1 - Y.0) * density) as usize;
        let mut map = HeadMap {
            density,
            columns,
            rows,
            looks: looks.clone(),
            grain: Vec::new(),
            hair: Vec::new(),
            height: vec![NO_HEAD; columns * rows],
            colour: vec![[0.0; 3]; columns * rows],
        };
        // Of variance 1.
        let mut noise =
            |count: usize| -> Vec<f32> { (0..count).map(|_| (draws.signed_unit() * 3f64.sqrt()) as f32).collect() };
        let skin = noise(columns * rows);
        let (fine, coarse) = (blur(&skin, columns, 1), blur(&skin, columns, 3));
        map.grain = fine.iter().zip(&coarse).map(|(a, b)| (a + 2.0 * b) * 0.5).collect();
        let strands: [Vec<f32>; 3] =
            std::array::from_fn(|_| blur(&noise(4096), 4096, 1).into_iter().map(|v| v * 1.7).collect());
        map.hair = (0..columns * rows).map(|at| map.hair_at(at, &strands)).collect();
        map
    }

    fn place(&self, at: usize) -> [f32; 2] {
        [(at % self.columns) as f32 / self.density - X, (at / self.columns) as f32 / self.density + Y.0]
    }

    fn hair_at(&self, at: usize, strands: &[Vec<f32>; 3]) -> [f32; 4] {
        let [x, y] = self.place(at);
        // Light and dark hairs that fan out from the parting.
        let (dx, dy) = (x - 0.28, y + 1.75);
        let fan = dx.atan2(dy) * 260.0 + 8.0 * (dx.hypot(dy) * 5.0).sin() + 2000.0;
        let streak = [0.15, 0.4, 1.0].iter().zip(strands).enumerate().map(|(i, (scale, strand))| {
            let place = (fan * scale).clamp(0.0, (strand.len() - 2) as f32);
            let (low, part) = (place as usize, place.fract());
            (strand[low] * (1.0 - part) + strand[low + 1] * part) / (1 + i) as f32
        });
        let streak: f32 = streak.sum();
        let side = smooth(0.56, 0.84, x.abs());
        let line = self.looks.hair_line + 0.10 * ((x - 0.25) * 3.6).cos() + 0.15 * x * x + self.looks.hair_side * side;
        let ragged = 0.012 * (x * 38.0 + 3.0 * (x * 17.0).sin()).sin() + 0.016 * streak * (1.0 - side);
        let hair = smooth(-0.035, 0.035, line - y + ragged);
        let height = skull(x, y, 0.97, 1.34, 0.95) + 0.03 + 0.006 * streak;
        [hair, height, outline(x, y, 0.97, 1.34), streak]
    }

    /// Fills height and colour (linear light) for a pose.
    pub(crate) fn draw(&mut self, pose: &Pose) {
        let points: Vec<Point> = (0..self.columns * self.rows).map(|at| self.point(at, pose)).collect();
        self.light(&points, pose);
        let (columns, density, looks) = (self.columns, self.density, &self.looks);
        for (at, point) in points.iter().enumerate() {
            let place = [(at % columns) as f32 / density - X, (at / columns) as f32 / density + Y.0];
            if place[1].abs() < 0.2 {
                self.colour[at] = eyes(self.colour[at], point.rest, pose, looks);
            }
            if point.inside > 1e-4 {
                self.colour[at] = mix(self.colour[at], inner_mouth(place, point.deep, pose), point.inside);
            }
            self.height[at] = if point.covered { point.height } else { NO_HEAD };
        }
    }

    fn point(&self, at: usize, pose: &Pose) -> Point {
        let [x, y] = self.place(at);
        let Moved { rest, inside, deep } = moved(x, y, pose);
        let [hair, hair_height, hair_edge, streak] = self.hair[at];
        let edge = outline(rest[0], rest[1], 0.87, 1.2);
        let covered = edge < 1.0 || (hair > 0.5 && hair_edge < 1.0);
        // Far outside nothing is seen: not even the light looks there.
        if !covered && edge > 1.6 {
            return Point { rest, inside, deep, height: -2.0, ..Point::default() };
        }
        let mut height = skull(rest[0], rest[1], 0.87, 1.2, 0.85);
        height += features(rest[0], rest[1], pose.blink, self.looks.nose) * smooth(1.0, 0.85, edge);
        let (colour, gloss) = skin(&self.looks, rest, self.grain[at], pose);
        let albedo = mix(colour, times(self.looks.hair, 1.0 + 0.30 * streak), hair);
        Point {
            rest,
            inside,
            deep,
            height: height * (1.0 - hair) + hair_height * hair - 0.12 * inside,
            albedo,
            gloss: gloss * (1.0 - hair) + 0.25 * hair,
            covered,
        }
    }

    /// Light from a lamp, the sky and a reflector, with shadows of nose and brows.
    fn light(&mut self, points: &[Point], pose: &Pose) {
        let (columns, rows, density) = (self.columns, self.rows, self.density);
        let turn = pose.rotation();
        // From camera to head.
        let to_head = |v: [f32; 3]| -> [f32; 3] { std::array::from_fn(|i| (0..3).map(|k| turn[k][i] * v[k]).sum()) };
        let key = to_head(unit(self.looks.lamp));
        let (fill, eye) = (to_head([0.75, -0.1, 0.65]), to_head([0.0, 0.0, 1.0]));
        let half = unit(std::array::from_fn(|i| key[i] + eye[i]));
        let height: Vec<f32> = points.iter().map(|point| point.height).collect();
        let get = |row: isize, column: isize| {
            height[row.clamp(0, rows as isize - 1) as usize * columns + column.clamp(0, columns as isize - 1) as usize]
        };
        // Light that is hidden by the nose and the brows, seen by walking over the field towards the lamp.
        let walk: Vec<(isize, isize, f32)> = [0.03f32, 0.06, 0.09, 0.13, 0.18, 0.24]
            .iter()
            .map(|step| ((key[0] * step * density).round() as isize, (key[1] * step * density).round() as isize, *step))
            .collect();
        let hidden: Vec<f32> = (0..height.len())
            .map(|at| {
                let (row, column) = ((at / columns) as isize, (at % columns) as isize);
                let over = |(ox, oy, step): &(isize, isize, f32)| {
                    (get(row + oy, column + ox) - height[at] - key[2] * step) / step
                };
                smooth(-0.12, 0.25, walk.iter().map(over).fold(0.0, f32::max))
            })
            .collect();
        let hidden = blur(&hidden, columns, 1);
        let around = blur(&height, columns, (0.07 * density) as usize);
        for (at, point) in points.iter().enumerate() {
            let (row, column) = ((at / columns) as isize, (at % columns) as isize);
            let dx = (get(row, column + 1) - get(row, column - 1)) * 0.5 * density;
            let dy = (get(row + 1, column) - get(row - 1, column)) * 0.5 * density;
            let normal = unit([-dx, -dy, 1.0]);
            let seen = 1.0 - 0.75 * hidden[at];
            let open = (1.0 - 2.2 * (around[at] - height[at]).max(0.0)).clamp(0.35, 1.0);
            let lamp = dot(normal, key);
            let sky = (0.20 - 0.07 * normal[1] + 0.22 * dot(normal, fill).max(0.0)) * open;
            let shine = dot(normal, half).clamp(0.0, 1.0);
            let shine =
                point.gloss * seen * (0.16 * shine.powi(14) + 0.30 * shine.powi(60) * (1.0 - 0.6 * self.hair[at][0]));
            // Skin lets light through: red reaches further round the edge of the light than blue.
            let (wrap, warm, cool) = ([0.32, 0.16, 0.10], [1.0, 0.96, 0.90], [0.92, 0.97, 1.05]);
            self.colour[at] = std::array::from_fn(|i| {
                let diffuse = ((lamp + wrap[i]) / (1.0 + wrap[i])).max(0.0) * seen * warm[i] * 0.98;
                point.albedo[i] * (diffuse + sky * cool[i]) + shine
            });
        }
    }

    /// Grid position of a point in head units.
    pub(super) fn grid(&self, x: f32, y: f32) -> [f32; 2] {
        [(x + X) * self.density, (y - Y.0) * self.density]
    }

    fn nearest(&self, u: f32, v: f32) -> usize {
        let clamp = |value: f32, count: usize| (value.max(0.0) as usize).min(count - 1);
        clamp(v + 0.5, self.rows) * self.columns + clamp(u + 0.5, self.columns)
    }

    /// Height at the grid point nearest to (u, v).
    pub(super) fn height_at(&self, [u, v]: [f32; 2]) -> f32 {
        self.height[self.nearest(u, v)]
    }

    /// Colour between grid points.
    pub(super) fn colour_at(&self, [u, v]: [f32; 2]) -> Light {
        let (u0, v0) = (u.floor(), v.floor());
        let (fu, fv) = (u - u0, v - v0);
        let corner = |du: f32, dv: f32| self.colour[self.nearest(u0 + du, v0 + dv)];
        let (a, b, c, d) = (corner(0.0, 0.0), corner(1.0, 0.0), corner(0.0, 1.0), corner(1.0, 1.0));
        std::array::from_fn(|i| (a[i] * (1.0 - fu) + b[i] * fu) * (1.0 - fv) + (c[i] * (1.0 - fu) + d[i] * fu) * fv)
    }
}
