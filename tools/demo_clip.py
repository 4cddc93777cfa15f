"""Draws the demo clip: a shaded talking head (assets/demo/face.mp4) and a sentence for it to say (speech.wav).

Nobody was filmed and nobody's voice was recorded: the head is a height field made of formulas, lit and drawn with
numpy, and the voices are espeak-ng's. How to run it: assets/demo/README.md.

The head lives in its own units: x to the right of the picture, y down, z towards the camera, the eyes at y = 0, the
chin at y = 1.17, the face 1.74 wide. Each frame is made in two steps. `HeadMap` computes height, colour and light over
a grid of (x, y), with this frame's lips, jaw and lids; `Picture` finds for each pixel where its ray meets the turned
height field and takes the colour there. Colours are given as sRGB and lit as linear light.
"""

import argparse
import subprocess
import tempfile
import wave
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

SIZE = 512  # side of the picture in pixels
FPS = 25
FRAMES = 104
SUPERSAMPLE = 2
UNIT_PX = 148.0  # one head unit in pixels of the picture
EYES_AT = (256.0, 226.0)  # where the point between the eyes rests
SEED = 20
OWN_WORDS = "Good morning everyone. My name is Ada, and I am here to talk about the weather."
OWN_VOICE = ["-v", "en-us+f3", "-s", "165", "-p", "45"]
NEW_WORDS = "This face was drawn by a program, and now it says whatever you would like to hear."
NEW_VOICE = ["-v", "en-gb", "-s", "172", "-p", "50"]


def linear(red, green, blue):
    """An sRGB colour as linear light."""
    return np.array([red, green, blue], np.float32) ** 2.2


SKIN = linear(0.87, 0.68, 0.58)
BLUSH = linear(0.85, 0.52, 0.46)
LIPS = linear(0.74, 0.33, 0.34)
HAIR = linear(0.27, 0.17, 0.11)
BROW = linear(0.25, 0.16, 0.11)
SCLERA = linear(0.90, 0.88, 0.86)
IRIS = linear(0.34, 0.42, 0.42)
TEETH = linear(0.90, 0.87, 0.82)
MOUTH = linear(0.20, 0.06, 0.06)
TONGUE = linear(0.62, 0.28, 0.27)
SHIRT = linear(0.22, 0.36, 0.46)


def smooth(low, high, x):
    """0 below `low`, 1 above `high`, smooth between."""
    t = np.clip((x - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


def bump(x, y, cx, cy, rx, ry):
    """A bell of height 1 round (cx, cy)."""
    return np.exp(-(((x - cx) / rx) ** 2) - ((y - cy) / ry) ** 2)


def arch(t, power):
    """1 in the middle, 0 from |t| = 1 on."""
    return np.clip(1 - t * t, 0, 1) ** power


def mix(a, b, amount):
    """`a` (H, W, 3) or a colour, replaced by `b` where `amount` (H, W) is 1."""
    rows, columns = np.flatnonzero((amount > 1e-4).any(1)), np.flatnonzero((amount > 1e-4).any(0))
    mixed = np.array(np.broadcast_to(a, amount.shape + (3,)), np.float32)
    if rows.size:
        # Most features are small: only the box round them is worked on.
        box = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
        part = amount[box][..., None]
        mixed[box] = mixed[box] * (1 - part) + (b[box] if b.ndim == 3 else b) * part
    return mixed


def blur(field, radius):
    """Nearly a Gaussian: two box means each way, edges repeated."""
    for axis in (0, 1, 0, 1):
        pad = [(0, 0), (0, 0)]
        pad[axis] = (radius + 1, radius)
        total = np.cumsum(np.pad(field, pad, mode="edge"), axis=axis, dtype=np.float64)
        size = 2 * radius + 1
        after, before = [slice(None)] * 2, [slice(None)] * 2
        after[axis], before[axis] = slice(size, None), slice(None, -size)
        field = ((total[tuple(after)] - total[tuple(before)]) / size).astype(np.float32)
    return field


@dataclass
class Pose:
    """What changes from frame to frame. Angles in radians, lengths in head units."""

    yaw: float = 0.0
    pitch: float = 0.0
    roll: float = 0.0
    shift: tuple = (0.0, 0.0)
    blink: float = 0.0  # 0 open, 1 shut
    drop: float = 0.0  # the lower lip's way down
    lift: float = 0.0  # the upper lip's way up
    mouth: float = 0.33  # half the width of the mouth

    def rotation(self):
        """Head to camera."""
        (sy, cy), (sp, cp), (sr, cr) = [(np.sin(a), np.cos(a)) for a in (self.yaw, self.pitch, self.roll)]
        yaw = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
        pitch = np.array([[1, 0, 0], [0, cp, sp], [0, -sp, cp]])
        roll = np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]])
        return (roll @ pitch @ yaw).astype(np.float32)


class HeadMap:
    """Height and lit colour of the head over a grid of (x, y)."""

    DENSITY = UNIT_PX * SUPERSAMPLE * 0.9  # grid points in a unit
    X, Y = 1.2, (-1.5, 1.6)
    KEY_LIGHT = np.array([-0.5, -0.55, 0.8], np.float32)  # in camera space, towards the light
    REST_LINE = 0.685  # y of the closed mouth

    def __init__(self):
        xs = np.arange(-self.X, self.X, 1 / self.DENSITY, np.float32)
        ys = np.arange(*self.Y, 1 / self.DENSITY, dtype=np.float32)
        self.x, self.y = np.meshgrid(xs, ys)
        rng = np.random.default_rng(SEED)
        noise = rng.standard_normal(self.x.shape).astype(np.float32)
        self.grain = (blur(noise, 1) + blur(noise, 2) * 2 + blur(noise, 5) * 2) * 0.5
        self.hair = self._hair(self.x, self.y, self._strands(rng))

    def draw(self, pose):
        """Fills `height` (outside the head -9) and `colour` (linear light) for a pose."""
        x, y = self.x, self.y
        sx, sy, inside, depth_in = self._moved(pose)
        height = self._skull(sx, sy, 0.87, 1.2, 0.85)
        edge = self._outline(sx, sy, 0.87, 1.2)
        height = height + self._features(sx, sy, pose.blink) * smooth(1.0, 0.85, edge)
        albedo, gloss = self._skin(sx, sy, pose)
        hair, hair_height, hair_edge, streak = self.hair
        height = height * (1 - hair) + hair_height * hair
        albedo = mix(albedo, HAIR * (1 + 0.30 * streak[..., None]), hair)
        gloss = gloss * (1 - hair) + 0.25 * hair
        height = height - 0.12 * inside
        self.covered = (edge < 1) | ((hair > 0.5) & (hair_edge < 1))
        self.colour = self._lit(height, albedo, gloss, hair, pose)
        self._eyes(sx, sy, pose)
        self._inner_mouth(x, y, inside, depth_in, pose)
        self.height = np.where(self.covered, height, -9).astype(np.float32)

    def _moved(self, pose):
        """Where each point of the moved lower face lies at rest; how far inside the mouth it is."""
        x, y = self.x, self.y
        at_mouth = bump(x, y, 0, self.REST_LINE, 0.6, 0.35)
        sx = x * (1 + (0.33 / pose.mouth - 1) * at_mouth)
        line = self._line(sx)
        open_ = arch(sx / 0.315, 0.75)
        top, bottom = line - pose.lift * open_, line + pose.drop * open_
        below, above = np.maximum(y - bottom, 0), np.maximum(top - y, 0)
        jaw = 0.85 * pose.drop * np.exp(-((x / 0.75) ** 4))
        # The lip moves by its own opening, the chin with the jaw: over 0.45 the one becomes the other.
        down = pose.drop * open_ + (jaw - pose.drop * open_) * smooth(0, 0.45, below)
        up = pose.lift * open_ * np.exp(-((above / 0.16) ** 2))
        sy = np.where(y > bottom, y - down, np.where(y < top, y + up, line))
        soft = 0.006
        inside = smooth(-soft, soft, np.minimum(y - top, bottom - y)) * smooth(0.02, 0.12, open_)
        inside = inside * smooth(0.004, 0.02, pose.drop + pose.lift)
        return sx, sy, inside, (y - top)

    def _line(self, x):
        return self.REST_LINE - 0.02 * (x / 0.33) ** 2 + 0.012 * np.exp(-((x / 0.06) ** 2))

    @staticmethod
    def _outline(x, y, half_width, crown):
        """Less than 1 inside the outline of the head."""
        y = y / np.where(y < 0, crown, 1.17)
        return np.abs(x / half_width) ** 2.3 + np.abs(y) ** 2.25

    @staticmethod
    def _skull(x, y, half_width, crown, depth):
        outside = HeadMap._outline(x, y, half_width, crown) - 1
        y = np.abs(y / np.where(y < 0, crown, 1.17))
        width = half_width * np.clip(1 - y**2.25, 1e-4, 1) ** (1 / 2.3)
        front = depth * np.sqrt(np.clip(1 - y**4, 0, 1) * np.clip(1 - np.abs(x / width) ** 2.3, 0, 1))
        # It goes on down behind the outline, so that the light at the outline is that of a turned-away surface.
        return front - 4 * np.clip(outside, 0, 0.3)

    def _features(self, x, y, blink):
        """What stands out from the skull."""
        a = np.abs(x)
        z = 0.05 * bump(a, y, 0.33, -0.22, 0.30, 0.09) - 0.075 * bump(a, y, 0.34, -0.02, 0.22, 0.14)
        z += (0.05 + 0.015 * blink) * bump(a, y, 0.37, 0.005, 0.15, 0.10)
        z += 0.05 * bump(a, y, 0.47, 0.30, 0.24, 0.20) - 0.05 * bump(a, y, 0.62, 0.62, 0.22, 0.25)
        # The nose: a ridge that rises and widens to the tip, a ball, two wings.
        along = np.clip((y + 0.12) / 0.5, 0, 1)
        ridge = (0.03 + 0.19 * along**1.3) * np.exp(-((x / (0.075 + 0.05 * along)) ** 2))
        z += ridge * smooth(-0.25, -0.02, y) * smooth(0.50, 0.37, y)
        z += 0.075 * bump(x, y, 0, 0.37, 0.12, 0.10) + 0.085 * bump(a, y, 0.145, 0.405, 0.065, 0.07)
        z -= 0.03 * bump(a, y, 0.072, 0.465, 0.045, 0.025)
        # Philtrum, lips, chin, and the folds beside and below them.
        z += 0.05 * bump(x, y, 0, 0.68, 0.42, 0.24) - 0.016 * bump(x, y, 0, 0.555, 0.028, 0.06)
        line = self._line(x)
        z += 0.05 * bump(x, y - line, 0, -0.045, 0.25, 0.05) + 0.065 * bump(x, y - line, 0, 0.06, 0.21, 0.055)
        z -= 0.045 * np.exp(-(((y - line) / 0.014) ** 2)) * arch(x / 0.37, 0.5)
        z -= 0.035 * bump(a, y, 0.35, 0.665, 0.035, 0.04) + 0.03 * bump(x, y, 0, 0.87, 0.22, 0.05)
        z += 0.085 * bump(x, y, 0, 1.0, 0.20, 0.11)
        fold = 0.19 + 0.5 * np.clip(y - 0.4, 0, 0.3)
        return z - 0.018 * np.exp(-(((a - fold - 0.02) / 0.03) ** 2)) * smooth(0.38, 0.46, y) * smooth(0.68, 0.55, y)

    def _skin(self, x, y, pose):
        """Colour without light, and gloss, of skin, lips, brows, nostrils and lids."""
        a = np.abs(x)
        colour = SKIN * (1 + 0.10 * self.grain[..., None])
        blush = 0.45 * bump(a, y, 0.50, 0.33, 0.22, 0.16) + 0.35 * bump(x, y, 0, 0.38, 0.16, 0.10)
        colour = mix(colour, BLUSH, blush + 0.15 * bump(x, y, 0, 1.0, 0.25, 0.12))
        line = self._line(x)
        upper = 0.088 * arch(x / 0.335, 0.62) - 0.020 * np.exp(-((x / 0.05) ** 2))
        lower = 0.118 * arch(x / 0.315, 0.65)
        off = np.where(y < line, upper - (line - y), lower - (y - line))
        lips = smooth(-0.008, 0.012, off) * smooth(0.34, 0.325, a)
        tone = 1 - 0.28 * smooth(0.0, 0.09, line - y)
        creases = 1 + 0.05 * np.sin(x * 150 + 6 * np.sin(x * 31)) * smooth(0.0, 0.03, off)
        colour = mix(colour, LIPS * (tone * creases)[..., None], lips)
        seam = np.exp(-(((y - line) / 0.009) ** 2)) * arch(x / 0.36, 0.4)
        colour = mix(colour, MOUTH, 0.85 * seam)
        # Brows: thick towards the nose, thin outside, made of slanted hairs.
        t = np.clip((a - 0.12) / 0.47, -0.1, 1.1)
        middle = -0.215 - 0.075 * np.sin(np.clip(t, 0, 1) * 2.3) + 0.03 * t
        thick = 0.048 * (1 - 0.6 * np.clip(t, 0, 1))
        brow = smooth(thick, 0.3 * thick, np.abs(y - middle)) * smooth(-0.03, 0.08, t) * smooth(1.02, 0.85, t)
        hairs = 0.9 + 0.1 * np.sin((a * 1.3 + (y - middle) * 1.2) * 120)
        colour = mix(colour, BROW, 0.88 * brow * hairs)
        nostril = bump(a, y, 0.078, 0.463, 0.042, 0.020)
        colour = mix(colour, MOUTH * 0.6, 0.95 * smooth(0.25, 0.8, nostril))
        for side in (-1, 1):
            t, ey, upper_lid, lower_lid = self._lids(x, y, side, pose.blink)
            near = smooth(1.12, 0.9, np.abs(t))
            lash = np.exp(-(((ey - upper_lid + 0.004) / 0.013) ** 2)) * (0.75 + 0.2 * np.clip(t, -1, 1))
            colour = mix(colour, BROW * 0.4, np.clip(lash, 0, 1) * near)
            rest = self._lids(x, y, side, 0.35 * pose.blink)[2]
            crease = np.exp(-(((ey - rest + 0.040) / 0.011) ** 2))
            colour = mix(colour, BLUSH * 0.35, 0.40 * crease * near * (1 - 0.6 * pose.blink))
            under = np.exp(-(((ey - lower_lid - 0.006) / 0.010) ** 2))
            colour = mix(colour, BLUSH * 0.5, 0.5 * under * near)
        return colour, 0.22 + 0.35 * lips + 0.10 * bump(x, y, 0, 0.34, 0.1, 0.1)

    @staticmethod
    def _lids(x, y, side, blink):
        """Place along an eye (-1 at the nose, 1 outside), height from its middle, and the edges of its lids."""
        t, ey = (x * side - 0.37) / 0.178, y + 0.012 * (x * side - 0.37) / 0.178
        lower = 0.052 * arch(t * 0.98 - 0.02, 0.8)
        upper = -0.079 * arch(t * 0.98 + 0.06, 0.72)
        return t, ey, upper * (1 - blink) + (lower - 0.004) * blink, lower

    def _eyes(self, x, y, pose):
        """The eyeballs, looking into the camera, drawn over the lit skin."""
        band = np.abs(self.y[:, 0]) < 0.2
        x, y, skin = x[band], y[band], self.colour[band]
        for side in (-1, 1):
            t, ey, upper, lower = self._lids(x, y, side, pose.blink)
            open_ = smooth(-0.004, 0.006, np.minimum(ey - upper, lower - ey)) * smooth(1.0, 0.93, np.abs(t))
            gx, gy = x - side * 0.362 + 0.16 * pose.yaw, y + 0.014 + 0.16 * pose.pitch
            r = np.hypot(gx, gy)
            shade = (0.62 - 0.16 * t * t) * (0.45 + 0.55 * smooth(-0.01, 0.06, ey - upper))
            ball = mix(SCLERA, BLUSH, 0.35 * smooth(0.75, 1.0, np.abs(t))) * shade[..., None]
            rays = 0.75 + 0.25 * np.sin(np.arctan2(gy, gx) * 26) + 0.8 * smooth(0.02, 0.07, r) * (gy > 0)
            iris = IRIS * (0.65 * rays * smooth(0.0, 0.05, r) * (1 - 0.75 * smooth(0.062, 0.08, r)))[..., None]
            iris = mix(iris, np.zeros(3, np.float32), smooth(0.040, 0.033, r))
            ball = mix(ball, iris * (0.4 + shade[..., None]), smooth(0.086, 0.077, r))
            ball = mix(ball, np.full(3, 0.9, np.float32), smooth(0.017, 0.010, np.hypot(gx + 0.028, gy + 0.030)))
            skin = mix(skin, ball, open_)
        self.colour[band] = skin

    def _inner_mouth(self, x, y, inside, deep, pose):
        """The dark of the mouth, the upper teeth, which stay with the skull, and the tongue."""
        inner = np.broadcast_to(MOUTH * 0.5, x.shape + (3,))
        tongue = smooth(1.0, 0.6, np.hypot(x / 0.19, (y - self.REST_LINE - pose.drop - 0.02) / 0.10))
        inner = mix(inner, TONGUE * 0.35, 0.8 * tongue)
        edge = self.REST_LINE + 0.040 - 0.10 * x * x
        gaps = 1 - 0.25 * np.exp(-((((x / 0.058 + 0.5) % 1 - 0.5) / 0.09) ** 2))
        shade = 0.62 * arch(x / 0.36, 0.8) * gaps * (0.5 + 0.5 * smooth(0.0, 0.03, deep))
        inner = mix(inner, TEETH * shade[..., None], smooth(0.006, -0.006, y - edge) * smooth(0.27, 0.23, np.abs(x)))
        self.colour = mix(self.colour, inner, inside)

    def _hair(self, x, y, streak):
        """How much hair covers each point, its height, its outline as `_outline` has it, and its streaks."""
        a = np.abs(x)
        side = smooth(0.56, 0.84, a)
        line = -0.80 + 0.10 * np.cos((x - 0.25) * 3.6) + 0.15 * a * a + 0.86 * side
        ragged = 0.012 * np.sin(x * 38 + 3 * np.sin(x * 17)) + 0.016 * streak * (1 - side)
        hair = smooth(-0.035, 0.035, line - y + ragged)
        height = self._skull(x, y, 0.97, 1.34, 0.95) + 0.03 + 0.006 * streak
        return hair, height, self._outline(x, y, 0.97, 1.34), streak

    def _strands(self, rng):
        """Light and dark hairs that fan out from the parting."""
        dx, dy = self.x - 0.28, self.y + 1.75
        fan = np.arctan2(dx, dy) * 260 + 8 * np.sin(np.hypot(dx, dy) * 5) + 2000
        strand, places = blur(rng.standard_normal((3, 4096)).astype(np.float32), 1) * 1.7, np.arange(4096)
        streak = sum(np.interp(fan * s, places, strand[i]) / (1 + i) for i, s in enumerate((0.15, 0.4, 1.0)))
        return streak.astype(np.float32)

    def _lit(self, height, albedo, gloss, hair, pose):
        px = self.DENSITY
        dy, dx = np.gradient(height * px)
        normal = np.stack([-dx, -dy, np.ones_like(dx)], -1)
        normal /= np.linalg.norm(normal, axis=-1, keepdims=True)
        to_head = pose.rotation().T
        key = to_head @ (self.KEY_LIGHT / np.linalg.norm(self.KEY_LIGHT))
        fill = to_head @ np.array([0.75, -0.1, 0.65], np.float32)
        eye = to_head @ np.array([0, 0, 1], np.float32)
        # Light that is hidden by the nose and the brows, seen by walking over the field towards the lamp.
        hidden = np.zeros_like(height)
        for step in (0.03, 0.06, 0.09, 0.13, 0.18, 0.24):
            ox, oy = int(round(key[0] * step * px)), int(round(key[1] * step * px))
            over = np.roll(height, (-oy, -ox), (0, 1)) - height - key[2] * step
            hidden = np.maximum(hidden, over / step)
        seen = 1 - 0.75 * blur(smooth(-0.12, 0.25, hidden), 3)
        open_ = np.clip(1 - 2.2 * np.maximum(blur(height, int(0.07 * px)) - height, 0), 0.35, 1)
        lamp = normal @ key
        # Skin lets light through: red reaches further round the edge of the light than blue.
        wrap = np.array([0.32, 0.16, 0.10], np.float32)
        diffuse = np.clip((lamp[..., None] + wrap) / (1 + wrap), 0, None) * seen[..., None]
        diffuse = diffuse * np.array([1.0, 0.96, 0.90], np.float32) * 0.98
        sky = (0.20 - 0.07 * normal[..., 1] + 0.22 * np.clip(normal @ fill, 0, None)) * open_
        light = diffuse + sky[..., None] * np.array([0.92, 0.97, 1.05], np.float32)
        half = (key + eye) / np.linalg.norm(key + eye)
        shine = np.clip(normal @ half, 0, 1)
        shine = gloss * seen * (0.16 * shine**14 + 0.30 * shine**60 * (1 - 0.6 * hair))
        return albedo * light + shine[..., None]


class Picture:
    """A camera that sees the head without perspective, before a wall, on a neck and shoulders."""

    def __init__(self):
        side = SIZE * SUPERSAMPLE
        pixels = (np.arange(side, dtype=np.float32) + 0.5) / SUPERSAMPLE - 0.5
        xs, ys = (pixels - EYES_AT[0]) / UNIT_PX, (pixels - EYES_AT[1]) / UNIT_PX
        self.x, self.y = np.meshgrid(xs, ys)
        glow = bump(self.x, self.y, -0.6, -0.5, 1.7, 1.6)[..., None]
        self.wall = linear(0.36, 0.41, 0.46) + glow * linear(0.46, 0.46, 0.45)

    def take(self, head, pose):
        """The picture as (SIZE, SIZE, 3) bytes."""
        picture = self._body(self.wall, pose)
        turn = pose.rotation()
        x, y = self.x - pose.shift[0], self.y - pose.shift[1]
        picture = self._ears(picture, x, y, turn)
        box = (np.abs(x) < 1.15) & (y > -1.5) & (y < 1.5)
        sx, sy = x[box], y[box]

        def at(depth):
            """Points of the rays at a camera depth, in grid positions, and their height in the head."""
            hx, hy, hz = (turn[0, i] * sx + turn[1, i] * sy + turn[2, i] * depth for i in range(3))
            return (hx + head.X) * head.DENSITY, (hy - head.Y[0]) * head.DENSITY, hz

        def under(depth):
            u, v, z = at(depth)
            h = nearest(head.height, u, v)
            return (z < h) & (z > -0.5 * h - 0.05)

        near, far = np.full(sx.shape, 9, np.float32), np.full(sx.shape, -9, np.float32)
        steps = np.linspace(1.35, -0.5, 26, dtype=np.float32)
        for before, depth in zip(steps, steps[1:]):
            hit = (far < -8) & under(depth)
            near[hit], far[hit] = before, depth
        found = far > -8
        for _ in range(5):
            middle = (near + far) / 2
            hit = under(middle)
            far, near = np.where(hit, middle, far), np.where(hit, near, middle)
        u, v, z = at(far)
        # Behind the outline the surface is turned away from camera and lamp, which the map does not know.
        colour = bilinear(head.colour, u, v) * np.clip(1 + 5 * z, 0.3, 1)[:, None]
        inner = picture[box]
        inner[found] = colour[found]
        picture[box] = inner
        picture = picture.reshape(SIZE, SUPERSAMPLE, SIZE, SUPERSAMPLE, 3).mean((1, 3))
        return (np.clip(picture, 0, 1) ** (1 / 2.2) * 255 + 0.5).astype(np.uint8)

    def _body(self, picture, pose):
        x, y = self.x - 0.4 * pose.shift[0], self.y - 0.4 * pose.shift[1]
        a = np.abs(x)
        half = 0.50 + 0.25 * smooth(1.15, 1.75, y) ** 2
        t = np.clip(x / half, -1, 1)
        light = 0.15 + 0.50 * np.clip(0.72 * np.sqrt(1 - t * t) - 0.55 * t, 0, 1)
        # The chin's shadow.
        light = light * (1 - 0.62 * smooth(1.62, 1.15, y - 0.25 * x + pose.drop * 0.3))
        cords = 1 - 0.10 * np.exp(-(((a - 0.20 - 0.15 * (1.6 - y)) / 0.05) ** 2))
        picture = mix(picture, SKIN * (light * cords)[..., None], smooth(0.008, -0.008, a - half) * (y > 0.2))
        top = 1.44 + 0.42 * smooth(0.40, 1.75, a) + 0.10 * smooth(0.9, 1.8, a) ** 2
        collar = 1.63 - 0.20 * np.clip(a / 0.55, 0, 1) ** 2.5
        top = np.where(a < 0.55, collar, top)
        slope = smooth(0, 0.5, y - top)
        light = (0.52 - 0.18 * x) * (0.85 - 0.35 * slope) + 0.14 * np.exp(-(((y - top - 0.05) / 0.05) ** 2))
        folds = 1 + 0.06 * np.sin(x * 7 + 3 * np.sin(y * 4)) * slope
        return mix(picture, SHIRT * (light * folds)[..., None], smooth(-0.006, 0.006, y - top))

    def _ears(self, picture, x, y, turn):
        for side in (-1, 1):
            cx, cy = (turn @ np.array([side * 0.88, 0.13, -0.05], np.float32))[:2]
            ex, ey = (x - cx) * side + 0.12 * (y - cy), y - cy
            r = np.hypot(ex / 0.125, ey / (0.245 - 0.05 * smooth(0, 0.2, ey)))
            rim = 0.85 + 0.25 * smooth(0.6, 0.85, r) - 0.45 * bump(ex, ey, 0.01, -0.02, 0.05, 0.11)
            light = (0.50 if side < 0 else 0.27) * rim * (0.6 + 0.4 * smooth(1.0, 0.85, r))
            picture = mix(picture, (SKIN * 0.6 + BLUSH * 0.4) * light[..., None], smooth(1.03, 0.97, r))
        return picture


def nearest(field, u, v):
    """`field` at the grid points nearest to (u, v)."""
    rows, columns = field.shape[:2]
    row, column = (v + 0.5).astype(np.int32), (u + 0.5).astype(np.int32)
    return field[np.clip(row, 0, rows - 1), np.clip(column, 0, columns - 1)]


def bilinear(field, u, v):
    """`field` between its grid points."""
    u0, v0 = np.floor(u), np.floor(v)
    fu, fv = (u - u0)[:, None], (v - v0)[:, None]
    upper = nearest(field, u0, v0) * (1 - fu) + nearest(field, u0 + 1, v0) * fu
    lower = nearest(field, u0, v0 + 1) * (1 - fu) + nearest(field, u0 + 1, v0 + 1) * fu
    return upper * (1 - fv) + lower * fv


def speak(words, voice, path, rate=16000, wait_ms=80):
    """Has espeak-ng say `words` after a short silence, as 16-bit mono at `rate`."""
    with tempfile.TemporaryDirectory() as folder:
        raw = Path(folder) / "voice.wav"
        subprocess.run(["espeak-ng", *voice, "-w", str(raw), words], check=True)
        convert = ["-af", f"adelay={wait_ms}", "-ac", "1", "-ar", str(rate), "-c:a", "pcm_s16le", "-map_metadata", "-1", "-fflags", "+bitexact"]
        subprocess.run(["ffmpeg", "-v", "error", "-y", "-i", str(raw), *convert, str(path)], check=True)


def mouth_motion(path):
    """From a wav: opening (0 to 1) and spread (-1 round, 1 wide) for each frame of the clip."""
    with wave.open(str(path)) as file:
        rate = file.getframerate()
        sound = np.frombuffer(file.readframes(file.getnframes()), np.int16).astype(np.float64) / 32768
    hop = rate // FPS
    sound = np.pad(sound, (hop, hop * (FRAMES + 2)))
    loud, bright = np.zeros(FRAMES), np.zeros(FRAMES)
    for i in range(FRAMES):
        piece = sound[i * hop : i * hop + 2 * hop] * np.hanning(2 * hop)
        power = np.abs(np.fft.rfft(piece)) ** 2
        hertz = np.fft.rfftfreq(len(piece), 1 / rate)
        # Vowels open the mouth, hisses do not.
        loud[i] = np.sqrt(power[(hertz > 150) & (hertz < 1600)].sum())
        low, high = power[(hertz > 200) & (hertz < 900)].sum(), power[(hertz > 1600) & (hertz < 3500)].sum()
        bright[i] = np.log((high + 1e-6) / (low + 1e-6))
    opening = np.clip(loud / np.percentile(loud, 92), 0, 1) ** 0.8
    opening[opening < 0.06] = 0
    voiced = opening > 0.1
    spread = np.where(voiced, np.tanh((bright - bright[voiced].mean()) / (bright[voiced].std() + 1e-6)), 0)
    weights = np.array([0.2, 0.6, 0.2])
    return np.convolve(opening, weights, "same"), np.convolve(spread, weights, "same")


def poses(opening, spread):
    """The motion of the clip. Its start and end meet, so that it can be played round and round."""
    made = []
    for i in range(FRAMES):
        a = 2 * np.pi * i / FRAMES
        blink = max(np.interp(abs(i - at), [0.5, 3.5], [1, 0]) for at in (22, 71))
        made.append(
            Pose(
                yaw=np.radians(5.0 * np.sin(a) + 1.5 * np.sin(3 * a + 1)),
                pitch=np.radians(2.0 * np.sin(2 * a + 0.7) + 1.0 * np.sin(5 * a)),
                roll=np.radians(1.8 * np.sin(a + 2)),
                shift=(0.030 * np.sin(a + 0.3), 0.012 * np.sin(2 * a)),
                blink=float(blink),
                drop=0.19 * opening[i],
                lift=0.022 * opening[i],
                mouth=0.33 * (1 + 0.10 * spread[i]),
            )
        )
    return made


def main():
    parser = argparse.ArgumentParser(description="Draw the demo clip and its speech.")
    parser.add_argument("--out", type=Path, default=Path(__file__).resolve().parent.parent / "assets/demo")
    parser.add_argument("--still", type=int, help="draw only this frame, as still.png, and no clip")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    head, camera = HeadMap(), Picture()

    def draw(pose):
        head.draw(pose)
        return camera.take(head, pose)

    with tempfile.TemporaryDirectory() as folder:
        own = Path(folder) / "own.wav"
        speak(OWN_WORDS, OWN_VOICE, own, 24000, 160)
        motion = poses(*mouth_motion(own))
        if args.still is not None:
            Image.fromarray(draw(motion[args.still])).save(args.out / "still.png")
            return
        speak(NEW_WORDS, NEW_VOICE, args.out / "speech.wav")
        size = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{SIZE}x{SIZE}", "-r", str(FPS), "-i", "-"]
        # The matrix is named, since players disagree on what an unnamed one means for small pictures.
        video = ["-vf", "scale=out_color_matrix=bt709:out_range=tv", "-colorspace", "bt709"]
        video += ["-color_primaries", "bt709", "-color_trc", "bt709"]
        video += ["-c:v", "libx264", "-preset", "slow", "-crf", "20", "-pix_fmt", "yuv420p"]
        sound = ["-af", "apad", "-t", str(FRAMES / FPS), "-c:a", "aac", "-b:a", "64k"]
        tidy = ["-threads", "1", "-map_metadata", "-1", "-fflags", "+bitexact", "-movflags", "+faststart"]
        target = ["-map", "0:v", "-map", "1:a", *video, *sound, *tidy, str(args.out / "face.mp4")]
        ffmpeg = ["ffmpeg", "-v", "error", "-y", *size, "-i", str(own), *target]
        with subprocess.Popen(ffmpeg, stdin=subprocess.PIPE) as encoder:
            for pose in motion:
                encoder.stdin.write(draw(pose).tobytes())
        if encoder.returncode:
            raise SystemExit(f"error: ffmpeg ended with {encoder.returncode}")


if __name__ == "__main__":
    main()
