"""A random Gaussian blur of 3D crops, as a product with one small matrix an axis.

The same as TorchIO's ``RandomBlur()``, which calls ``scipy.ndimage.gaussian_filter``: the kernel is cut off
at four standard deviations, rounded to whole voxels, and the image is mirrored at its borders (d c b a |
a b c d | d c b a). A crop's axes are short, so the matrices fit into the cache, and a matrix product beats
a loop over the kernel's taps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

STDS = (0.0, 2.0)
KERNEL_STDS = 4.0


@dataclass(frozen=True)
class GaussianBlur:
    """``stds`` (3,): standard deviations along the axes, in voxels."""

    stds: np.ndarray

    @classmethod
    def sample(cls, rng: np.random.Generator) -> GaussianBlur:
        """Standard deviations uniform in 0..2 voxels, drawn for each axis."""
        return cls(rng.uniform(*STDS, size=3))

    def matrices(self, shape: tuple[int, ...]) -> list[np.ndarray]:
        """For an image of this shape, one float32 (size, size) an axis, to be multiplied along that axis."""
        return [_matrix(std, size) for std, size in zip(self.stds, shape, strict=True)]

    def apply(self, image: np.ndarray) -> np.ndarray:
        """Blur ``image``, float32 (X, Y, Z)."""
        matrices = [torch.from_numpy(matrix)[None] for matrix in self.matrices(image.shape)]
        return blur(torch.from_numpy(image)[None], matrices)[0].numpy()


def blur(images: Tensor, matrices: Sequence[Tensor]) -> Tensor:
    """``images`` (N, X, Y, Z), multiplied along each axis by its matrices, (N, size, size).

    By torch, and not only because it knows other devices: in a worker process it uses one thread, where
    numpy's product would start as many as there are cores.
    """
    along_x, along_y, along_z = matrices
    blurred = (along_x @ images.flatten(2)).view(images.shape)
    blurred = along_y[:, None] @ blurred
    return (blurred.flatten(1, 2) @ along_z.mT).view(images.shape)


def _matrix(std: float, size: int) -> np.ndarray:
    """(size, size) float32: row i holds the weights that voxel i gives to all voxels of its line."""
    radius = int(KERNEL_STDS * std + 0.5)
    if radius == 0:
        return np.eye(size, dtype=np.float32)
    taps = np.arange(-radius, radius + 1)
    weights = np.exp(-0.5 * (taps / std) ** 2)
    weights /= weights.sum()
    columns = (np.arange(size)[:, None] + taps) % (2 * size)
    columns = np.minimum(columns, 2 * size - 1 - columns)  # the mirror image
    matrix = np.zeros((size, size))
    np.add.at(matrix, (np.arange(size)[:, None], columns), weights)
    return matrix.astype(np.float32)
