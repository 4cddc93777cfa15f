//! The drawn head: a height field made of formulas, with its colours, lit.
//!
//! The head lives in its own units: x to the right of the picture, y down, z towards the camera, the eyes at y = 0,
//! the chin at y = 1.17, the face 1.74 wide. A port of `tools/demo_clip.py`, which draws the demo clip at high
//! resolution, with the looks as parameters and without the details that a small picture cannot show.

use crate::rng::Draws;
use crate::synthetic::field::{Light, arch, bell, blur, bump, dot, linear, mix, smooth, times, unit};
use crate::synthetic::looks::Looks;

/// Grid points for each pixel of the picture: the camera takes colours between them.
const FINENESS: f32 = 1.5;
/// Half the width of the grid.
const X: f32 = 1.2;
/// Upper and lower edge of the grid.
const Y: (f32, f32) = (-1.5, 1.6);
/// y of the closed mouth.
const REST_LINE: f32 = 0.685;
/// Half the width of the mouth at rest.
pub(super) const REST_MOUTH: f32 = 0.33;
/// Height where there is no head.
const NO_HEAD: f32 = -9.0;

const SCLERA: [f32; 3] = [0.90, 0.88, 0.86];
const TEETH: [f32; 3] = [0.90, 0.87, 0.82];
const MOUTH: [f32; 3] = [0.20, 0.06, 0.06];
const TONGUE: [f32; 3] = [0.62, 0.28, 0.27];

/// What changes from frame to frame. Angles in radians, lengths in head units.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Pose {
    pub(super) yaw: f32,
    pub(super) pitch: f32,
    pub(super) roll: f32,
    pub(super) shift: [f32; 2],
    /// 0 open, 1 shut.
    pub(super) blink: f32,
    /// The lower lip's way down.
    pub(super) drop: f32,
    /// The upper lip's way up.
    pub(super) lift: f32,
    /// Half the width of the mouth.
    pub(super) mouth: f32,
}

impl Pose {
    /// Facing the camera, eyes open, mouth closed.
    #[cfg(test)]
    pub(super) const REST: Pose =
        Pose { yaw: 0.0, pitch: 0.0, roll: 0.0, shift: [0.0; 2], blink: 0.0, drop: 0.0, lift: 0.0, mouth: REST_MOUTH };

    /// Head to camera: yaw, then pitch, then roll.
    pub(super) fn rotation(&self) -> [[f32; 3]; 3] {
        let ((sy, cy), (sp, cp), (sr, cr)) = (self.yaw.sin_cos(), self.pitch.sin_cos(), self.roll.sin_cos());
        let yaw = [[cy, 0.0, sy], [0.0, 1.0, 0.0], [-sy, 0.0, cy]];
        let pitch = [[1.0, 0.0, 0.0], [0.0, cp, sp], [0.0, -sp, cp]];
        let roll = [[cr, -sr, 0.0], [sr, cr, 0.0], [0.0, 0.0, 1.0]];
        product(&roll, &product(&pitch, &yaw))
    }
}

fn product(a: &[[f32; 3]; 3], b: &[[f32; 3]; 3]) -> [[f32; 3]; 3] {
    std::array::from_fn(|i| std::array::from_fn(|j| (0..3).map(|k| a[i][k] * b[k][j]).sum()))
}

/// Where a point of the moved lower face lies at rest.
struct Moved {
    /// Place at rest.
    rest: [f32; 2],
    /// How far inside the open mouth, 0 to 1.
    inside: f32,
    /// Depth below the edge of the upper lip.
    deep: f32,
}

/// The line between the closed lips.
pub(super) fn mouth_line(x: f32) -> f32 {
    REST_LINE - 0.02 * (x / 0.33) * (x / 0.33) + 0.012 * bell(x, 0.06)
}

/// How far the lips are apart at x, from 1 in the middle to 0 at the corners.
pub(super) fn lip_arch(x: f32) -> f32 {
    arch(x / 0.315, 0.75)
}

/// How much the width of the mouth pulls at a point.
pub(super) fn mouth_pull(x: f32, y: f32) -> f32 {
    bump(x, y, 0.0, REST_LINE, 0.6, 0.35)
}

/// How far the jaw moves a point that lies `below` the edge of the lower lip; x in the picture, `open` by
/// [`lip_arch`]. The lip moves by its own opening, the chin with the jaw: over 0.45 the one becomes the other.
pub(super) fn jaw_way(drop: f32, x: f32, open: f32, below: f32) -> f32 {
    let lip = drop * open;
    let jaw = 0.85 * drop * (-(x / 0.75).powi(4)).exp();
    lip + (jaw - lip) * smooth(0.0, 0.45, below)
}

/// How far the upper lip moves a point that lies `above` its edge.
pub(super) fn lift_way(lift: f32, open: f32, above: f32) -> f32 {
    lift * open * bell(above, 0.16)
}

fn moved(x: f32, y: f32, pose: &Pose) -> Moved {
    let sx = x * (1.0 + (REST_MOUTH / pose.mouth - 1.0) * mouth_pull(x, y));
    let (line, open) = (mouth_line(sx), lip_arch(sx));
    let (top, bottom) = (line - pose.lift * open, line + pose.drop * open);
    let sy = if y > bottom {
        y - jaw_way(pose.drop, x, open, y - bottom)
    } else if y < top {
        y + lift_way(pose.lift, open, top - y)
    } else {
        line
    };
    let soft = 0.010;
    let inside = smooth(-soft, soft, (y - top).min(bottom - y))
        * smooth(0.02, 0.12, open)
        * smooth(0.004, 0.02, pose.drop + pose.lift);
    Moved { rest: [sx, sy], inside, deep: y - top }
}

/// Less than 1 inside the outline of a head of this half width and height of the crown.
fn outline(x: f32, y: f32, half_width: f32, crown: f32) -> f32 {
    let y = y / if y < 0.0 { crown } else { 1.17 };
    (x / half_width).abs().powf(2.3) + y.abs().powf(2.25)
}

fn skull(x: f32, y: f32, half_width: f32, crown: f32, depth: f32) -> f32 {
    let outside = outline(x, y, half_width, crown) - 1.0;
    let y = (y / if y < 0.0 { crown } else { 1.17 }).abs();
    let width = half_width * (1.0 - y.powf(2.25)).clamp(1e-4, 1.0).powf(1.0 / 2.3);
    let front = (1.0 - y.powi(4)).clamp(0.0, 1.0) * (1.0 - (x / width).abs().powf(2.3)).clamp(0.0, 1.0);
    // It goes on down behind the outline, so that the light at the outline is that of a turned-away surface.
    depth * front.sqrt() - 4.0 * outside.clamp(0.0, 0.3)
}

/// What stands out from the skull.
fn features(x: f32, y: f32, blink: f32, nose: f32) -> f32 {
    let a = x.abs();
    let mut z = 0.05 * bump(a, y, 0.33, -0.22, 0.30, 0.09) - 0.075 * bump(a, y, 0.34, -0.02, 0.22, 0.14);
    z += (0.05 + 0.015 * blink) * bump(a, y, 0.37, 0.005, 0.15, 0.10);
    z += 0.05 * bump(a, y, 0.47, 0.30, 0.24, 0.20) - 0.05 * bump(a, y, 0.62, 0.62, 0.22, 0.25);
    // The nose: a ridge that rises and widens to the tip, a ball, two wings.
    let along = ((y + 0.12) / 0.5).clamp(0.0, 1.0);
    let ridge = nose * (0.03 + 0.19 * along.powf(1.3)) * bell(x, 0.075 + 0.05 * along);
    z += ridge * smooth(-0.25, -0.02, y) * smooth(0.50, 0.37, y);
    z += nose * (0.075 * bump(x, y, 0.0, 0.37, 0.12, 0.10) + 0.085 * bump(a, y, 0.145, 0.405, 0.065, 0.07));
    z -= 0.03 * bump(a, y, 0.072, 0.465, 0.045, 0.025);
    // Philtrum, lips, chin, and the folds beside and below them.
    z += 0.05 * bump(x, y, 0.0, 0.68, 0.42, 0.24) - 0.016 * bump(x, y, 0.0, 0.555, 0.028, 0.06);
    let line = mouth_line(x);
    z += 0.05 * bump(x, y - line, 0.0, -0.045, 0.25, 0.05) + 0.065 * bump(x, y - line, 0.0, 0.06, 0.21, 0.055);
    z -= 0.045 * bell(y - line, 0.014) * arch(x / 0.37, 0.5);
    z -= 0.035 * bump(a, y, 0.35, 0.665, 0.035, 0.04) + 0.03 * bump(x, y, 0.0, 0.87, 0.22, 0.05);
    z += 0.085 * bump(x, y, 0.0, 1.0, 0.20, 0.11);
    let fold = 0.19 + 0.5 * (y - 0.4).clamp(0.0, 0.3);
    z - 0.018 * bell(a - fold - 0.02, 0.03) * smooth(0.38, 0.46, y) * smooth(0.68, 0.55, y)
}

/// Height of the face at rest: where a landmark lies in depth.
pub(super) fn rest_height(x: f32, y: f32, nose: f32) -> f32 {
    let edge = outline(x, y, 0.87, 1.2);
    (skull(x, y, 0.87, 1.2, 0.85) + features(x, y, 0.0, nose) * smooth(1.0, 0.85, edge)).max(-0.2)
}

/// Place along an eye (-1 at the nose, 1 outside), height from its middle, and the edges of its lids.
fn lids(x: f32, y: f32, side: f32, blink: f32) -> (f32, f32, f32, f32) {
    let t = (x * side - 0.37) / 0.178;
    let ey = y + 0.012 * t;
    let lower = 0.052 * arch(t * 0.98 - 0.02, 0.8);
    let upper = -0.079 * arch(t * 0.98 + 0.06, 0.72);
    (t, ey, upper * (1.0 - blink) + (lower - 0.004) * blink, lower)
}

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
        let (skin, gloss) = self.skin(rest, self.grain[at], pose);
        let albedo = mix(skin, times(self.looks.hair, 1.0 + 0.30 * streak), hair);
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

    /// Colour without light, and gloss, of skin, lips, brows, nostrils and lids.
    fn skin(&self, [x, y]: [f32; 2], grain: f32, pose: &Pose) -> (Light, f32) {
        let (a, looks) = (x.abs(), &self.looks);
        let mouth = linear(MOUTH);
        let mut colour = times(looks.skin, 1.0 + 0.08 * grain);
        let blush = 0.45 * bump(a, y, 0.50, 0.33, 0.22, 0.16) + 0.35 * bump(x, y, 0.0, 0.38, 0.16, 0.10);
        colour = mix(colour, looks.blush, blush + 0.15 * bump(x, y, 0.0, 1.0, 0.25, 0.12));
        let line = mouth_line(x);
        let upper = looks.lip_fullness * (0.088 * arch(x / 0.335, 0.62) - 0.020 * bell(x, 0.05));
        let lower = looks.lip_fullness * 0.118 * arch(x / 0.315, 0.65);
        let off = if y < line { upper - (line - y) } else { lower - (y - line) };
        let lips = smooth(-0.010, 0.014, off) * smooth(0.34, 0.325, a);
        let tone = 1.0 - 0.28 * smooth(0.0, 0.09, line - y);
        colour = mix(colour, times(looks.lips, tone), lips);
        let seam = bell(y - line, 0.010) * arch(x / 0.36, 0.4);
        colour = mix(colour, mouth, 0.85 * seam);
        // Brows: thick towards the nose, thin outside.
        let t = ((a - 0.12) / 0.47).clamp(-0.1, 1.1);
        let middle = -0.215 - 0.075 * (t.clamp(0.0, 1.0) * 2.3).sin() + 0.03 * t;
        let thick = looks.brow_thickness * (1.0 - 0.6 * t.clamp(0.0, 1.0));
        let brow = smooth(thick, 0.3 * thick, (y - middle).abs()) * smooth(-0.03, 0.08, t) * smooth(1.02, 0.85, t);
        colour = mix(colour, looks.brow, 0.85 * brow);
        let nostril = bump(a, y, 0.078, 0.463, 0.042, 0.020);
        colour = mix(colour, times(mouth, 0.6), 0.95 * smooth(0.25, 0.8, nostril));
        if y.abs() < 0.25 && a < 0.7 {
            for side in [-1.0, 1.0] {
                let (t, ey, upper_lid, lower_lid) = lids(x, y, side, pose.blink);
                let near = smooth(1.12, 0.9, t.abs());
                let lash = bell(ey - upper_lid + 0.004, 0.014) * (0.75 + 0.2 * t.clamp(-1.0, 1.0));
                colour = mix(colour, times(looks.brow, 0.4), lash.clamp(0.0, 1.0) * near);
                let rest = lids(x, y, side, 0.35 * pose.blink).2;
                let crease = bell(ey - rest + 0.040, 0.012) * 0.40 * near * (1.0 - 0.6 * pose.blink);
                colour = mix(colour, times(looks.blush, 0.35), crease);
                let under = bell(ey - lower_lid - 0.006, 0.011);
                colour = mix(colour, times(looks.blush, 0.5), 0.5 * under * near);
            }
        }
        (colour, 0.22 + 0.35 * lips + 0.10 * bump(x, y, 0.0, 0.34, 0.1, 0.1))
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

/// The eyeballs, looking into the camera, drawn over the lit skin.
fn eyes(skin: Light, [x, y]: [f32; 2], pose: &Pose, looks: &Looks) -> Light {
    let mut colour = skin;
    for side in [-1.0, 1.0] {
        let (t, ey, upper, lower) = lids(x, y, side, pose.blink);
        let open = smooth(-0.004, 0.008, (ey - upper).min(lower - ey)) * smooth(1.0, 0.93, t.abs());
        if open < 1e-4 {
            continue;
        }
        let (gx, gy) = (x - side * 0.362 + 0.16 * pose.yaw, y + 0.014 + 0.16 * pose.pitch);
        let r = gx.hypot(gy);
        let shade = (0.62 - 0.16 * t * t) * (0.45 + 0.55 * smooth(-0.01, 0.06, ey - upper));
        let mut ball = times(mix(linear(SCLERA), looks.blush, 0.35 * smooth(0.75, 1.0, t.abs())), shade);
        let rays = 0.9 + if gy > 0.0 { 0.8 * smooth(0.02, 0.07, r) } else { 0.0 };
        let ring = 0.65 * rays * smooth(0.0, 0.05, r) * (1.0 - 0.75 * smooth(0.062, 0.08, r));
        let iris = mix(times(looks.iris, ring), [0.0; 3], smooth(0.040, 0.033, r));
        ball = mix(ball, times(iris, 0.4 + shade), smooth(0.086, 0.077, r));
        ball = mix(ball, [0.9; 3], smooth(0.019, 0.010, (gx + 0.028).hypot(gy + 0.030)));
        colour = mix(colour, ball, open);
    }
    colour
}

/// The dark of the mouth, the upper teeth, which stay with the skull, and the tongue.
fn inner_mouth([x, y]: [f32; 2], deep: f32, pose: &Pose) -> Light {
    let mut inner = times(linear(MOUTH), 0.5);
    let tongue = smooth(1.0, 0.6, (x / 0.19).hypot((y - REST_LINE - pose.drop - 0.02) / 0.10));
    inner = mix(inner, times(linear(TONGUE), 0.35), 0.8 * tongue);
    let edge = REST_LINE + 0.040 - 0.10 * x * x;
    let shade = 0.62 * arch(x / 0.36, 0.8) * (0.5 + 0.5 * smooth(0.0, 0.03, deep));
    mix(inner, times(linear(TEETH), shade), smooth(0.008, -0.008, y - edge) * smooth(0.27, 0.23, x.abs()))
}
