"""The grid of a volume: made upright where its axes are not at right angles to one another. Free of torch."""

from __future__ import annotations

from itertools import product

import numpy as np
import SimpleITK as sitk

from datasets.ct.errors import ScanError

ROUNDED = 1e-6  # cosines of this size are rounding
SKEW_DEGREES = 0.25  # axes that are this far from a right angle at most are rounded numbers, not a tilt
UNEVEN = 0.01  # how far from 1 the length of a direction may be
MOST_DEGREES = 45.0  # a gantry tilts by 30; axes that are further from a right angle are a damaged header's


def skew_degrees(direction: np.ndarray) -> float:
    """How far from a right angle two axes of a direction matrix (3, 3; unit columns) are at most, in degrees."""
    cosines = np.abs(np.triu(direction.T @ direction, 1))
    return float(np.degrees(np.arcsin(min(cosines.max(), 1.0))))


def nearest_rotation(direction: np.ndarray) -> np.ndarray:
    """The orthonormal matrix (3, 3) that is nearest to ``direction``."""
    left, _, right = np.linalg.svd(direction)
    return left @ right


def upright_spacing(direction: np.ndarray, spacing: np.ndarray) -> np.ndarray:
    """The spacing (mm) that :func:`upright` gives a volume of this direction (3, 3) and spacing (3,)."""
    if skew_degrees(direction) <= SKEW_DEGREES:
        return spacing
    return _axes(direction, spacing)[1].diagonal()


def upright(image: sitk.Image, nearest: bool = False) -> sitk.Image:
    """A 3D image whose axes are at right angles: the image itself if they are.

    Up to 0.25 degrees off, the image gets the nearest rotation. Beyond, it is sheared (CT of a tilted gantry): it is
    resampled, linearly or to the ``nearest`` voxel, such that x keeps its direction and the planes of x and y stay.
    What lies beyond the old edges gets the image's smallest value. ScanError beyond 45 degrees, which no scanner does,
    and if directions are not of length 1.
    """
    direction, spacing = np.reshape(image.GetDirection(), (3, 3)), np.array(image.GetSpacing())
    if np.abs(np.linalg.norm(direction, axis=0) - 1).max() > UNEVEN:
        raise ScanError("its directions are no unit vectors, so that its spacing is not known")
    degrees = skew_degrees(direction)
    if degrees <= np.degrees(ROUNDED):
        return image
    if degrees <= SKEW_DEGREES:
        image.SetDirection(nearest_rotation(direction).ravel().tolist())
        return image
    if degrees > MOST_DEGREES:
        raise ScanError(f"two of its axes are {degrees:.0f} degrees from a right angle: its directions must be wrong")
    axes, shear = _axes(direction, spacing)
    steps = shear.diagonal()
    corners = np.array(list(product(*((0, n - 1) for n in image.GetSize())))) @ shear.T / steps
    first = np.floor(corners.min(axis=0) + 1e-6).astype(int)  # whole voxels, so that the planes stay where they are
    last = np.ceil(corners.max(axis=0) - 1e-6).astype(int)
    return sitk.Resample(
        image,
        (last - first + 1).tolist(),
        sitk.Transform(),
        sitk.sitkNearestNeighbor if nearest else sitk.sitkLinear,
        (np.array(image.GetOrigin()) + axes @ (first * steps)).tolist(),
        steps.tolist(),
        axes.ravel().tolist(),
        float(sitk.GetArrayViewFromImage(image).min()),
        image.GetPixelID(),
    )


def _axes(direction: np.ndarray, spacing: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Orthonormal axes Q and the upper triangular R (diagonal > 0) with Q R = the steps of x, y and z in mm."""
    axes, shear = np.linalg.qr(direction * spacing)
    signs = np.sign(shear.diagonal())
    return axes * signs, shear * signs[:, None]
