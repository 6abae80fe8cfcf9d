"""A random flip, scaling and rotation of a 3D crop, resampled linearly in one pass.

The same as TorchIO's ``RandomFlip(axes=0)`` followed by ``RandomAffine()`` with their default values.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from utils.jit import compiled

SCALES = (0.9, 1.1)
DEGREES = (-10.0, 10.0)
FLIP_PROBABILITY = 0.5


@dataclass(frozen=True)
class Affine:
    """A flip along the first axis, then a rotation, then a scaling, each about the image's centre.

    ``scales`` (3,): above 1 things grow along that axis. ``degrees`` (3,): angles about the three axes;
    the rotation about the second axis is done first, then the first axis, then the third.
    """

    flip: bool
    scales: np.ndarray
    degrees: np.ndarray

    @classmethod
    def sample(cls, rng: np.random.Generator) -> Affine:
        """Flip with p 0.5; scales and angles uniform, drawn for each axis."""
        flip = bool(rng.random() < FLIP_PROBABILITY)
        return cls(flip, rng.uniform(*SCALES, size=3), rng.uniform(*DEGREES, size=3))

    def places(self, shape: tuple[int, ...]) -> np.ndarray:
        """(3, 4) float64 that makes, of an output voxel (i, j, k, 1), the place where the input is read.

        In voxels of an image of this shape; fractions lie between voxels.
        """
        (cos_x, cos_y, cos_z), (sin_x, sin_y, sin_z) = _cos_sin(self.degrees)
        about_x = np.array([[1, 0, 0], [0, cos_x, -sin_x], [0, sin_x, cos_x]])
        about_y = np.array([[cos_y, 0, sin_y], [0, 1, 0], [-sin_y, 0, cos_y]])
        about_z = np.array([[cos_z, -sin_z, 0], [sin_z, cos_z, 0], [0, 0, 1]])
        rotation = about_z @ about_x @ about_y
        inverse = rotation.T / self.scales
        if self.flip:
            inverse[0] = -inverse[0]
        centre = (np.array(shape) - 1) / 2
        return np.column_stack([inverse, centre - inverse @ centre])

    def apply(self, image: np.ndarray) -> np.ndarray:
        """Transform ``image``, a contiguous float32 (X, Y, Z); outside of it lies its minimum."""
        return _resample(image, self.places(image.shape), image.min())


def _cos_sin(degrees: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    radians = np.radians(degrees)
    return np.cos(radians), np.sin(radians)


@compiled
def _resample(image: np.ndarray, places: np.ndarray, fill: np.float32) -> np.ndarray:
    """Read ``image`` (X, Y, Z), each axis of 2 voxels at least, at ``places @ (i, j, k, 1)``.

    Voxels are cells: what lies up to half a voxel beyond the outermost centres is still inside, and takes
    the border's value. Places and weights of a line are computed first (this loop becomes vector
    instructions), then the voxels gathered.
    """
    size_x, size_y, size_z = image.shape
    stride_x, stride_y = size_y * size_z, size_z
    step_x, step_y, step_z = places[0, 2], places[1, 2], places[2, 2]
    voxels = image.ravel()
    output = np.empty(voxels.size, np.float32)
    corners = np.empty(size_z, np.int32)
    inside = np.empty(size_z, np.bool_)
    weights_x, weights_y, weights_z = np.empty((3, size_z), np.float32)
    for i in range(size_x):
        for j in range(size_y):
            start_x = places[0, 3] + places[0, 0] * i + places[0, 1] * j
            start_y = places[1, 3] + places[1, 0] * i + places[1, 1] * j
            start_z = places[2, 3] + places[2, 0] * i + places[2, 1] * j
            for k in range(size_z):
                x, y, z = start_x + k * step_x, start_y + k * step_y, start_z + k * step_z
                inside[k] = _within(x, size_x) & _within(y, size_y) & _within(z, size_z)
                low_x, weights_x[k] = _cell(x, size_x)
                low_y, weights_y[k] = _cell(y, size_y)
                low_z, weights_z[k] = _cell(z, size_z)
                corners[k] = low_x * stride_x + low_y * stride_y + low_z
            line = (i * size_y + j) * size_z
            for k in range(size_z):
                if inside[k]:
                    output[line + k] = _between(
                        voxels, corners[k], stride_x, stride_y, weights_x[k], weights_y[k], weights_z[k]
                    )
                else:
                    output[line + k] = fill
    return output.reshape(image.shape)


@compiled
def _within(place: float, size: int) -> bool:
    return (place >= -0.5) & (place < size - 0.5)


@compiled
def _cell(place: float, size: int) -> tuple[int, float]:
    """The voxel below ``place`` on an axis, and how far ``place`` lies from it to the next, 0..1."""
    place = min(max(place, 0.0), size - 1.0)
    low = np.int32(min(place, size - 2.0))
    return low, place - low


@compiled
def _between(
    voxels: np.ndarray,
    corner: int,
    stride_x: int,
    stride_y: int,
    weight_x: np.float32,
    weight_y: np.float32,
    weight_z: np.float32,
) -> np.float32:
    """Trilinear interpolation between the eight voxels that follow ``corner``."""
    near = np.uint64(corner)  # unsigned: numba leaves out the handling of negative indices
    far = np.uint64(corner + stride_x)
    stride = np.uint64(stride_y)
    one = np.uint64(1)
    value_00 = voxels[near] + weight_z * (voxels[near + one] - voxels[near])
    near += stride
    value_01 = voxels[near] + weight_z * (voxels[near + one] - voxels[near])
    value_10 = voxels[far] + weight_z * (voxels[far + one] - voxels[far])
    far += stride
    value_11 = voxels[far] + weight_z * (voxels[far + one] - voxels[far])
    value_0 = value_00 + weight_y * (value_01 - value_00)
    value_1 = value_10 + weight_y * (value_11 - value_10)
    return value_0 + weight_x * (value_1 - value_0)
