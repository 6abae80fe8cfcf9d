"""Frontal X-rays of thorax phantoms: what reaches the detector, and the film curve that shows it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import affine_transform, gaussian_filter
from scipy.special import expit, logit

from phantoms.anatomy import Phantom, paint
from phantoms.canvas import Array
from phantoms.patient import Patient
from phantoms.thorax import UPRIGHT
from utils.seeding import generator

VOXEL_MM = (1.7, 3.0, 1.7)  # of the volume that is projected: sharp across the rays, coarse along them
SHARP_SIZE, COARSEST = 192, 2.0  # smaller images have pixels of over 2 mm: larger voxels show as much in them
SOURCE_MM = 1800.0  # from the tube to the detector
DETECTOR_MM = 40.0  # from the detector to the volume
WATER_PER_MM = 0.02  # attenuation at a chest X-ray's mean energy, about 70 keV
SCATTER = 0.012  # what the anti-scatter grid lets through, as a share of the open beam
BONE_HU, BONE_GAIN = 150.0, 1.7  # the calcium of bone attenuates more there than at a CT's 120 kVp


@dataclass(frozen=True)
class View:
    """How one X-ray is taken."""

    turn_rad: float = 0.0  # of the patient about the body's axis
    roll_rad: float = 0.0  # of the image
    shift_mm: tuple[float, float] = (0.0, 0.0)
    field_mm: float = 385.0  # side of the image, on the detector
    lung_grey: float = 0.3  # where the film curve puts the lungs and what is dense, 0..1
    dense_grey: float = 0.85
    grain: float = 0.01
    marker: bool = False  # a lead letter L on the patient's left
    seed: int = 0  # of the grain and the marker's place


def sample_view(rng: np.random.Generator) -> View:
    """Draw the small differences between two X-rays of a patient."""
    shift_x, shift_z = rng.uniform(-9, 9, 2)
    return View(
        turn_rad=rng.uniform(-0.06, 0.06),
        roll_rad=rng.uniform(-0.05, 0.05),
        shift_mm=(float(shift_x), float(shift_z)),
        field_mm=rng.uniform(370, 412),
        lung_grey=rng.uniform(0.22, 0.45),
        dense_grey=rng.uniform(0.8, 0.9),
        grain=rng.uniform(0.006, 0.016),
        marker=bool(rng.random() < 0.8),
        seed=int(rng.integers(2**31)),
    )


def upright_phantom(patient: Patient, rng: np.random.Generator, size: int = SHARP_SIZE) -> Phantom:
    """The volume to project to ``size`` x ``size`` pixels: the patient upright, arms down."""
    larger = float(np.clip(SHARP_SIZE / size, 1, COARSEST))
    sx, sy, sz = (larger * side for side in VOXEL_MM)
    return paint(patient, rng, (sx, sy, sz), UPRIGHT)


def project(phantom: Phantom, view: View, size: int) -> NDArray[np.uint8]:
    """An X-ray of ``size`` x ``size`` pixels: head up, the patient's left on the right, bone bright.

    The tube stands behind the patient and the detector before the chest (postero-anterior), so that the
    heart, which lies in front, is hardly magnified.
    """
    image = develop(_at_detector(attenuation(phantom, view), phantom.spacing_mm, view, size), view)
    if view.marker:
        _mark_left(image, view)
    return image


def attenuation(phantom: Phantom, view: View) -> Array:
    """Line integrals of the attenuation along the rays: shape (nz, nx), on the volume's own grid."""
    _, sy, _ = phantom.spacing_mm
    nx, ny, nz = phantom.hu.shape
    center_x, center_z = (nx - 1) / 2, (nz - 1) / 2
    hu = phantom.hu.transpose(1, 2, 0).astype(np.float32)  # planes across the rays
    share = np.maximum(hu * np.float32(0.001) + 1, 0)
    share += np.maximum(hu - BONE_HU, 0) * np.float32(0.001 * (BONE_GAIN - 1))
    total = np.zeros((nz, nx), dtype=np.float32)
    for j in np.flatnonzero(share.max(axis=(1, 2)) > 0.1):
        from_detector = (j + 0.5) * sy + DETECTOR_MM
        shrink = (SOURCE_MM - from_detector) / SOURCE_MM  # one over this plane's magnification
        slide = np.tan(view.turn_rad) * (j - (ny - 1) / 2) * sy / phantom.spacing_mm[0]
        rows = np.arange(nz) * shrink + center_z * (1 - shrink)
        columns = np.arange(nx) * shrink + center_x * (1 - shrink) + slide
        total += _between(_between(share[j], rows, axis=0), columns, axis=1)
    return total * np.float32(WATER_PER_MM * sy)


def _between(plane: Array, places: NDArray[np.floating], axis: int) -> Array:
    """Linear interpolation at ``places`` along an axis; beyond the edge, the edge's values."""
    places = places.clip(0, plane.shape[axis] - 1)
    lower = np.minimum(places.astype(int), plane.shape[axis] - 2)
    share = np.expand_dims((places - lower).astype(np.float32), 1 - axis)
    return plane.take(lower, axis) * (1 - share) + plane.take(lower + 1, axis) * share


def _at_detector(integrals: Array, spacing: tuple[float, float, float], view: View, size: int) -> Array:
    """Resample to the detector's pixels, upside up: rows run from head to feet."""
    pixel = view.field_mm / size
    cos, sin = np.cos(view.roll_rad), np.sin(view.roll_rad)
    voxel = np.array([spacing[2], spacing[0]])
    matrix = np.array([[-cos, -sin], [-sin, cos]]) * pixel / voxel[:, None]
    middle = (np.array(integrals.shape) - 1) / 2 + np.array(view.shift_mm[::-1]) / voxel
    offset = middle - matrix @ np.full(2, (size - 1) / 2)
    return affine_transform(integrals, matrix, offset, (size, size), order=3)


def _mark_left(image: NDArray[np.uint8], view: View) -> None:
    """Draw the letter L into the upper right corner, in place."""
    size = len(image)
    height, stroke = size // 22, max(1, size // 110)
    row, column = (size * generator(view.seed, "marker").uniform((0.03, 0.88), (0.08, 0.94))).astype(int)
    image[row : row + height, column : column + stroke] = 250
    image[row + height - stroke : row + height, column : column + height // 2] = 250


def develop(integrals: Array, view: View) -> NDArray[np.uint8]:
    """From line integrals to grey values: scatter, grain, edges raised as digital systems do, film curve."""
    size = len(integrals)
    exposure = np.exp(-integrals) + np.float32(SCATTER)
    grain = generator(view.seed, "grain").standard_normal(integrals.shape, dtype=np.float32)
    density = -np.log(exposure) + view.grain * grain / np.sqrt(np.maximum(exposure, 1e-4) / 0.1)
    density += 0.8 * (density - gaussian_filter(density, size / 45))
    body = density[size // 8 : -size // 8, size // 6 : -size // 6]
    lung, dense = np.percentile(body, (8, 75))
    low, high = logit(view.lung_grey), logit(view.dense_grey)
    grey = expit(low + (high - low) / (dense - lung) * (density - lung))
    return np.rint(255 * grey).astype(np.uint8)
