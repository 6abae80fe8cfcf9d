"""A voxel grid in HU on which soft-edged shapes, tubes and smooth noise are painted. Pure numpy.

Everything is painted in the patient's own frame, in mm: x to the patient's left, y to the back, z to the
head (DICOM's LPS). A :class:`Pose` says how the patient lies on the grid. Shapes are given by a *level*: a
function that is about the signed distance to the surface in mm, negative inside; the soft edge stands for
the partial-volume effect of a scanner.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating]  # float32 wherever there are many numbers: it is twice as fast
Height = Array | np.floating | float  # z: of points, or of a whole slice
Level = Callable[[Array, Array, Array], Array]

_SPLAT_VOXELS = 2_000_000  # tubes are splatted in chunks of about so many voxels, to bound the memory


def soft(level: Array, edge_mm: float) -> Array:
    """Turn a level in mm into the covered share of each voxel, 0..1, over an edge of ``edge_mm``."""
    return np.clip(np.float32(0.5) - level * np.float32(1 / edge_mm), 0, 1)


def smooth_max(a: Array, b: Array, radius_mm: float) -> Array:
    """Intersection of two levels whose common edge is rounded over about ``radius_mm``."""
    blend = np.maximum(np.float32(radius_mm) - np.abs(a - b), 0)
    return np.maximum(a, b) + blend * blend * np.float32(0.25 / radius_mm)


def smooth_min(a: Array, b: Array, radius_mm: float) -> Array:
    """Union of two levels whose common edge is filled over about ``radius_mm``."""
    return -smooth_max(-a, -b, radius_mm)


@dataclass(frozen=True)
class Pose:
    """How the patient lies: turned by ``roll_rad`` about the body's axis and leaning, in mm per mm of height."""

    roll_rad: float = 0.0
    lean: tuple[float, float] = (0.0, 0.0)

    def to_patient(self, x: Array, y: Array, z: Array) -> tuple[Array, Array]:
        """The patient's x and y of grid positions (any shapes that broadcast); z is the same in both."""
        cos, sin = np.float32(np.cos(self.roll_rad)), np.float32(np.sin(self.roll_rad))
        x, y = x - np.float32(self.lean[0]) * z, y - np.float32(self.lean[1]) * z
        return cos * x + sin * y, cos * y - sin * x

    def to_grid(self, points: NDArray[np.floating]) -> NDArray[np.float64]:
        """The inverse for points of shape (..., 3)."""
        cos, sin = np.cos(self.roll_rad), np.sin(self.roll_rad)
        x, y, z = np.moveaxis(np.asarray(points, dtype=np.float64), -1, 0)
        return np.stack([cos * x - sin * y + self.lean[0] * z, sin * x + cos * y + self.lean[1] * z, z], -1)


class SmoothNoise:
    """Noise of mean 0 and a standard deviation near 1, smooth over ``scale_mm``, given slice by slice."""

    def __init__(self, rng: np.random.Generator, canvas: Canvas, scale_mm: float) -> None:
        self._at = [self._nodes(axis, scale_mm) for axis in (canvas.z, canvas.y, canvas.x)]
        nodes = tuple(int(left[-1]) + 2 for left, _ in self._at)
        # Interpolation between independent nodes keeps about 2/3 of the variance on each axis.
        self._coarse = np.float32(1.8) * rng.standard_normal(nodes, dtype=np.float32)

    @staticmethod
    def _nodes(axis: Array, scale_mm: float) -> tuple[NDArray[np.intp], Array]:
        position = (axis - axis[0]) / np.float32(scale_mm)
        left = position.astype(np.intp)
        return left, (position - left).astype(np.float32)

    def slice(self, k: int) -> Array:
        """The noise in slice ``k``: shape (ny, nx)."""
        (left_z, part_z), (left_y, part_y), (left_x, part_x) = self._at
        low, high = self._coarse[left_z[k]], self._coarse[left_z[k] + 1]
        plane = low + part_z[k] * (high - low)
        plane = plane[left_y] + part_y[:, None] * (plane[left_y + 1] - plane[left_y])
        before = plane.take(left_x, axis=1)
        return before + part_x * (plane.take(left_x + 1, axis=1) - before)


class Canvas:
    """A volume ``hu`` of shape (nz, ny, nx), float32, whose voxel centres lie at ``x``, ``y``, ``z`` in mm."""

    def __init__(
        self,
        shape: tuple[int, int, int],
        spacing_mm: tuple[float, float, float],
        origin_mm: tuple[float, float, float],
        pose: Pose,
        edge_mm: float,
    ) -> None:
        """``shape``, ``spacing_mm`` and ``origin_mm`` (centre of the first voxel) are in the order x, y, z."""
        self.spacing_mm, self.origin_mm, self.pose, self.edge_mm = spacing_mm, origin_mm, pose, edge_mm
        self.x, self.y, self.z = (
            (origin + spacing * np.arange(size)).astype(np.float32)
            for origin, spacing, size in zip(origin_mm, spacing_mm, shape, strict=True)
        )
        self.hu: Array = np.full(shape[::-1], -1000, dtype=np.float32)
        self._coverage: Array = np.zeros(self.hu.size, dtype=np.float32)  # all zero between two calls

    def patient_slice(self, k: int) -> tuple[Array, Array]:
        """The patient's x and y over slice ``k``, each of shape (ny, nx)."""
        return self.pose.to_patient(self.x[None, :], self.y[:, None], self.z[k])

    def window(self, low_mm: tuple[float, float], high_mm: tuple[float, float]) -> tuple[slice, slice]:
        """The part (y, x) of every slice that holds the patient's x and y from ``low_mm`` to ``high_mm``."""
        corners = product((low_mm[0], high_mm[0]), (low_mm[1], high_mm[1]), self.z[[0, -1]])
        at = self.pose.to_grid(np.array(list(corners)))
        (x0, y0), (x1, y1) = at[:, :2].min(axis=0), at[:, :2].max(axis=0)
        rows, columns = np.searchsorted(self.y, (y0, y1)), np.searchsorted(self.x, (x0, x1))
        return slice(int(rows[0]), int(rows[1])), slice(int(columns[0]), int(columns[1]))

    def blend(self, view: Array, coverage: Array, hu: Array | float) -> None:
        """Paint ``hu`` over ``view`` (a part of ``self.hu``, changed in place) as far as it is covered."""
        view += coverage * (hu - view)

    def shape(self, level: Level, center_mm: NDArray[np.floating], reach_mm: float, hu: float) -> None:
        """Paint the inside of a level around ``center_mm`` (patient's frame), which ends within ``reach_mm``."""
        center = self.pose.to_grid(center_mm)
        box = []
        for axis, middle in zip((self.z, self.y, self.x), center[::-1], strict=True):
            start, stop = np.searchsorted(axis, (middle - reach_mm, middle + reach_mm))
            box.append(slice(int(start), int(stop)))
        z, y, x = (
            axis[part].reshape(place)
            for axis, part, place in zip(
                (self.z, self.y, self.x), box, ((-1, 1, 1), (1, -1, 1), (1, 1, -1)), strict=True
            )
        )
        view = self.hu[tuple(box)]
        if view.size:
            self.blend(view, soft(level(*self.pose.to_patient(x, y, z), z), self.edge_mm), hu)

    def tubes(
        self, points_mm: NDArray[np.floating], radii_mm: NDArray[np.floating], hu: float, tall: float = 1.0
    ) -> None:
        """Paint the union of balls (N, 3), (N,) that follow each other closely: tubes, plates, anything.

        ``tall`` stretches the balls along z. Tubes thinner than a voxel keep their share of its intensity.
        """
        centers = self.pose.to_grid(points_mm)
        radii = np.asarray(radii_mm, dtype=np.float32)
        stretch = np.array([1, 1, tall], dtype=np.float32)
        reach = np.ceil((radii[:, None] + self.edge_mm / 2) * stretch / self.spacing_mm).astype(int)
        boxes = np.ravel_multi_index(tuple(reach.T), tuple(reach.max(axis=0, initial=0) + 1))  # as one number each
        touched = [
            self._splat(centers[chunk], radii[chunk], reach[chunk[0]], stretch)
            for box, first in zip(*np.unique(boxes, return_index=True), strict=True)
            for chunk in _chunks(np.flatnonzero(boxes == box), int(np.prod(2 * reach[first] + 1)))
        ]
        index = np.concatenate([np.empty(0, dtype=np.int64), *touched])
        flat = self.hu.reshape(-1)
        before = flat[index]  # an index may come twice: both times with the same values, so it is no harm
        flat[index] = before + self._coverage[index] * (np.float32(hu) - before)
        self._coverage[index] = 0

    def _splat(
        self, centers: NDArray[np.float64], radii: Array, reach: NDArray[np.int_], stretch: Array
    ) -> NDArray[np.int64]:
        """Raise ``self._coverage`` to that of these balls; return the flat indices of the voxels touched."""
        squares, indices, inside = [], [], []
        nz, ny, nx = self.hu.shape
        for axis, (size, stride) in enumerate(((nx, 1), (ny, nx), (nz, nx * ny))):
            position = (centers[:, axis] - self.origin_mm[axis]) / self.spacing_mm[axis]
            voxel = np.rint(position).astype(np.int64)[:, None] + np.arange(-reach[axis], reach[axis] + 1)
            offset = (voxel - position[:, None]) * (self.spacing_mm[axis] / stretch[axis])
            place = [slice(None), None, None, None]
            place[3 - axis] = slice(None)
            squares.append((offset * offset).astype(np.float32)[tuple(place)])
            indices.append((voxel * stride)[tuple(place)])
            inside.append(((voxel >= 0) & (voxel < size))[tuple(place)])
        distance = np.sqrt(squares[0] + squares[1] + squares[2])
        wide = radii[:, None, None, None]
        coverage = soft(distance - wide, self.edge_mm) * np.minimum(1, wide * (2 / self.edge_mm))
        hit = (coverage > 0) & inside[0] & inside[1] & inside[2]
        index = (indices[0] + indices[1] + indices[2])[hit]
        np.maximum.at(self._coverage, index, coverage[hit])
        return index


def _chunks(which: NDArray[np.intp], voxels_each: int) -> list[NDArray[np.intp]]:
    """Split ``which`` so that one part stays below the splatting limit."""
    return np.array_split(which, -(-len(which) * voxels_each // _SPLAT_VOXELS))
