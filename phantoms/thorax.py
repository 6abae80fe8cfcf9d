"""The shape of one phantom patient's chest: sampled sizes, and the levels of its surfaces. Pure numpy.

Lengths are mm in the patient's frame (x to the left, y to the back, z to the head); z = 0 lies near the
tracheal bifurcation. A level is negative inside, about the distance to the surface (see phantom_canvas).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from phantoms.canvas import Array, Height, smooth_max, smooth_min

RIGHT, LEFT = -1, 1  # the sign of x
SUPINE, UPRIGHT = "supine", "upright"

CARDIOMEGALY, EFFUSION, MASS, NODULE = "Cardiomegaly", "Effusion", "Mass", "Nodule"
PNEUMOTHORAX, CONSOLIDATION = "Pneumothorax", "Consolidation"


def _power(ratio: Array) -> Array:
    """|ratio| ** 2.5: the exponent that makes a chest's cross-section, without a costly pow."""
    size = np.abs(ratio)
    return size * size * np.sqrt(size)


def _length(a: Array, b: Array) -> Array:
    """Length of (a, b): several times as fast as np.hypot."""
    return np.sqrt(a * a + b * b)


def _ramp(value: Height, start: float, stop: float) -> Array:
    """0 before ``start``, 1 after ``stop``, smooth between."""
    t = np.clip((np.asarray(value, dtype=np.float32) - start) / (stop - start), 0, 1)
    return t * t * (3 - 2 * t)


@dataclass(frozen=True)
class Ellipsoid:
    """A turned ellipsoid: half axes in mm along the orthonormal columns of ``axes``."""

    center: NDArray[np.float64]
    half_mm: NDArray[np.float64]
    axes: NDArray[np.float64]

    def level(self, x: Array, y: Array, z: Height) -> Array:
        """About the signed distance to the surface."""
        form = (self.axes / self.half_mm**2) @ self.axes.T
        form = form.astype(np.float32)
        dx, dy, dz = (a - np.float32(c) for a, c in zip((x, y, z), self.center, strict=True))
        square = form[0, 0] * dx * dx + form[1, 1] * dy * dy + form[2, 2] * dz * dz
        square = square + 2 * (form[0, 1] * dx * dy + form[0, 2] * dx * dz + form[1, 2] * dy * dz)
        return (np.sqrt(np.maximum(square, 0)) - 1) * np.float32(self.half_mm.mean())

    def extent(self) -> NDArray[np.float64]:
        """Half of the extent along x, y, z."""
        return np.sqrt(((self.axes * self.half_mm) ** 2).sum(axis=1))


def upright_ellipsoid(center: tuple[float, ...], half_mm: tuple[float, ...]) -> Ellipsoid:
    """An ellipsoid along the body's axes."""
    return Ellipsoid(np.array(center), np.array(half_mm), np.eye(3))


@dataclass(frozen=True)
class Thorax:
    """Sizes in mm and findings of one patient; its methods are the levels of the surfaces.

    ``ctr`` is the cardiothoracic ratio: the heart's width over the inner width of the chest on a frontal
    X-ray; above 0.5 is cardiomegaly. ``effusion`` is (side, mm of fluid above the dome), ``pneumothorax``
    (side, mm between chest wall and lung).
    """

    half_width: float  # of the pleural cavity at its widest
    half_depth: float
    apex_z: float
    dome_z: tuple[float, float]  # tops of the diaphragm, right and left
    body_half: tuple[float, float]
    fat_mm: float
    breast_mm: float  # 0: none
    mediastinum_mm: float
    scoliosis_mm: float
    vertebra_pitch: float
    ctr: float
    heart_tilt: float
    organ_scale: float
    blood_hu: float
    gas_mm: float  # depth of the bubble in the stomach
    effusion: tuple[int, float] | None
    pneumothorax: tuple[int, float] | None
    consolidation: Ellipsoid | None

    @cached_property
    def widest_z(self) -> float:
        """Height at which the cavity is widest."""
        return self.dome_z[0] + 25

    @cached_property
    def top_z(self) -> float:
        """Height at which the contour of the ribs closes."""
        return self.apex_z + 15

    @cached_property
    def heart(self) -> Ellipsoid:
        """The ventricles: long axis to the left, front and down; as wide as ``ctr`` says."""
        long = np.array([np.cos(self.heart_tilt), -0.45, -np.sin(self.heart_tilt)])
        long /= np.linalg.norm(long)
        across = np.cross(long, [0, 1, 0])
        across /= np.linalg.norm(across)
        axes = np.stack([long, across, np.cross(long, across)], axis=1)
        width = self.ctr * self.half_width  # half of the heart's
        short = np.array([47.0, 44.0]) * (0.55 + 0.8 * self.ctr)
        half = np.array([np.sqrt(width**2 - ((axes[0, 1:] * short) ** 2).sum()) / axes[0, 0], *short])
        center = np.array([0.32 * width, -24.0, self.dome_z[0] + 34])
        return Ellipsoid(center, half, axes)

    @cached_property
    def atria(self) -> Ellipsoid:
        """Right and left atrium, behind and above the ventricles."""
        heart = self.heart
        half = heart.half_mm[1]
        center = (0.0, -4.0, heart.center[2] + 0.08 * half)
        return upright_ellipsoid(center, (0.62 * self.ctr * self.half_width, 0.7 * half, 0.78 * half))

    def cavity_axes(self, z: Height) -> tuple[Array, Array, Array]:
        """Half width, half depth and the y of the middle of the chest's inner contour at these heights."""
        above = np.maximum(z - np.float32(self.widest_z), 0) / np.float32(self.top_z - self.widest_z)
        below = np.maximum(np.float32(self.widest_z) - z, 0) / 100
        narrow = np.sqrt(np.clip(1 - above**2.5, 0.09, 1)) * (1 - np.float32(0.04) * below * below)
        shallow = 0.35 + 0.65 * narrow
        depth = np.float32(self.half_depth) * shallow
        back = np.float32(self.half_depth) * (0.5 + 0.5 * shallow)  # the back wall recedes less than the front
        return np.float32(self.half_width) * narrow, depth, back - depth - 3

    def cavity_level(self, x: Array, y: Array, z: Height) -> Array:
        """The chest's inner contour: pleura, mediastinum and, further down, the abdomen."""
        width, depth, middle = self.cavity_axes(z)
        share = _power(x / width) + _power((y - middle) / depth)
        return (share - 1) * (np.float32(0.2) * (width + depth))

    def spine_xy(self, z: Height) -> tuple[Array, Array]:
        """Middle of the vertebral bodies: kyphosis backwards, a little scoliosis sideways."""
        bend = (np.asarray(z, dtype=np.float32) - 10) / 170
        y = self.half_depth - 31 - 14 * bend * bend
        return np.asarray(self.scoliosis_mm * np.sin(2.2 * bend), dtype=np.float32), y

    def dome(self, x: Array, y: Array) -> Array:
        """Height of the diaphragm: a dome on either side, falling steeply to the costophrenic angle."""
        across = (np.abs(x) - np.float32(0.47 * self.half_width)) / np.float32(0.53 * self.half_width)
        across = np.where(across < 0, 0.5 * across, across)  # in the middle it carries the heart
        along = (y + 20) / np.float32(self.half_depth + 6)
        square = across * across + along * along
        top = np.where(x < 0, np.float32(self.dome_z[0]), np.float32(self.dome_z[1]))
        return top - 72 * square * np.sqrt(np.sqrt(square))

    def mediastinum_level(self, x: Array, y: Array, z: Height) -> Array:
        """What lies between the lungs: great vessels, spine, the line behind the sternum."""
        spine_x, spine_y = self.spine_xy(z)
        half = np.float32(self.mediastinum_mm) * (1 - np.float32(0.35) * _ramp(-np.asarray(z), 0, 60))
        level = (_length(x / half, (y + 8) / 64) - 1) * half
        gutter = (_length((x - spine_x) / 24, (y - spine_y - 12) / 34) - 1) * 26
        level = smooth_min(level, gutter, 12)
        return np.minimum(level, np.abs(x) - 3)

    def lung_level(self, x: Array, y: Array, z: Height, collapsed: bool = True) -> Array:
        """Both lungs. ``collapsed``: the lung itself if there is a pneumothorax, else the pleural space."""
        wall = self.cavity_level(x, y, z) + 3
        if collapsed and self.pneumothorax is not None:
            side, gap = self.pneumothorax
            drop = gap * (0.45 + 0.85 * _ramp(z, self.dome_z[0], self.apex_z))
            wall = np.where(x * side > 0, wall + np.float32(drop), wall)
        level = smooth_max(wall, (self.dome(x, y) - z) * np.float32(0.6), 6)
        level = smooth_max(level, -self.mediastinum_level(x, y, z), 14)
        level = smooth_max(level, (z - np.float32(self.apex_z)) + 0.012 * np.square(np.abs(x) - 46), 20)
        for part in (self.heart, self.atria):
            if np.min(np.abs(z - part.center[2])) < part.extent()[2] + 25:
                level = smooth_max(level, 5 - part.level(x, y, z), 10)
        return level

    def fluid_level(self, x: Array, y: Array, z: Height, posture: str) -> Array | None:
        """Pleural fluid, to be cut with the pleural space: it sinks to the base or, lying, to the back of the base."""
        if self.effusion is None:
            return None
        side, amount = self.effusion
        above_dome = z - np.float32(self.dome_z[0] if side == RIGHT else self.dome_z[1])
        if posture == UPRIGHT:  # with a meniscus at the chest wall
            level = above_dome - amount - 25 * np.exp(self.cavity_level(x, y, z) / 15)
        else:
            level = 62 - amount - 0.85 * y + 0.5 * above_dome
        return np.where(x * side > 0, level, np.float32(1000))

    def body_levels(self, x: Array, y: Array, z: Height, posture: str) -> tuple[Array, Array]:
        """In one slice: the skin, and the trunk's surface without the breasts (which fat is measured from)."""
        shoulder = _ramp(z, self.apex_z - 150, self.apex_z - 20)
        width = self.body_half[0] + 45 * shoulder
        depth = self.body_half[1] * (1 - 0.1 * shoulder)
        across, along = x / width, (y - 2 - 6 * shoulder) / depth
        share = _power(across) + _power(along)
        if shoulder > 0:  # the shoulders taper off to the sides
            share = share + shoulder * (across * across + along * along - share)
        trunk = (share - 1) * np.float32(0.2) * (width + depth)
        if z > self.apex_z - 50:
            roof = z - np.float32(self.apex_z + 48) + 0.42 * np.maximum(np.abs(x) - 50, 0)
            trunk = smooth_max(trunk, roof, 60)
            trunk = smooth_min(trunk, (_length(x / 56, (y - 14) / 60) - 1) * 58, 25)
        if posture == UPRIGHT:
            trunk = smooth_min(trunk, self.arm_level(x, y, z), 10)
        skin = trunk
        height = self.dome_z[0] + (40 if posture == SUPINE else 10)
        if self.breast_mm and abs(z - height) < 80:
            breast = upright_ellipsoid(
                (0.6 * self.half_width, 12 - self.body_half[1], height), (58, self.breast_mm, 62)
            )
            skin = smooth_min(skin, breast.level(np.abs(x), y, z), 18)
        return skin, trunk

    def arm_axis(self, side: int) -> NDArray[np.float64]:
        """Shoulder and elbow of a hanging arm, shape (2, 3)."""
        x = self.body_half[0] + 3
        return np.array([[side * x, 6, self.apex_z - 42], [side * (x + 45), 4, self.apex_z - 330]])

    def arm_level(self, x: Array, y: Array, z: Height) -> Array:
        """Both hanging arms: capsules around their axes."""
        shoulder, elbow = self.arm_axis(LEFT).astype(np.float32)
        along = np.clip((z - shoulder[2]) / (elbow[2] - shoulder[2]), 0, 1)
        middle_x, middle_y, middle_z = (a + along * (b - a) for a, b in zip(shoulder, elbow, strict=True))
        dx, dy, dz = np.abs(x) - middle_x, y - middle_y, z - middle_z
        return np.sqrt(dx * dx + dy * dy + dz * dz) - (42 - 8 * along)


def sample_thorax(rng: np.random.Generator, findings: Collection[str]) -> Thorax:
    """Draw a patient. The draws do not depend on ``findings``: the same patient with and without them."""
    half_width, half_depth = rng.uniform(113, 128), rng.uniform(79, 91)
    fat, muscle, female = rng.uniform(6, 18), rng.uniform(6, 11), rng.random() < 0.5
    apex = rng.uniform(98, 112)
    right_dome = apex - rng.uniform(172, 205)
    normal, enlarged = rng.uniform(0.40, 0.47), rng.uniform(0.58, 0.66)
    contrast, enhanced = rng.uniform(160, 260), rng.random() < 0.25
    fluid = (int(rng.choice((RIGHT, LEFT))), rng.uniform(8, 42))
    air = (int(rng.choice((RIGHT, LEFT))), rng.uniform(14, 26))
    side = rng.choice((RIGHT, LEFT))
    place = (side * rng.uniform(0.55, 0.7) * half_width, rng.uniform(-25, 35), rng.uniform(-30, 45))
    turned, _ = np.linalg.qr(rng.standard_normal((3, 3)))
    patch = Ellipsoid(np.array(place), rng.uniform((28, 26, 22), (44, 38, 34)), turned)
    return Thorax(
        half_width=half_width,
        half_depth=half_depth,
        apex_z=apex,
        dome_z=(right_dome, right_dome - rng.uniform(3, 14)),
        body_half=(half_width + 17 + muscle + fat, half_depth + 17 + muscle + 0.9 * fat),
        fat_mm=fat,
        breast_mm=float(female) * rng.uniform(14, 32),
        mediastinum_mm=rng.uniform(19, 25),
        scoliosis_mm=rng.uniform(-5, 5),
        vertebra_pitch=rng.uniform(22, 25),
        ctr=enlarged if CARDIOMEGALY in findings else normal,
        heart_tilt=rng.uniform(0.35, 0.75),
        organ_scale=rng.uniform(0.9, 1.1),
        blood_hu=contrast if enhanced else 42.0,
        gas_mm=rng.uniform(4, 26),
        effusion=fluid if EFFUSION in findings else None,
        pneumothorax=air if PNEUMOTHORAX in findings else None,
        consolidation=patch if CONSOLIDATION in findings else None,
    )
