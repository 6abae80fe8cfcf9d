"""Noise, gamma, swapped boxes and normalisation of 3D crops, as TorchIO's transforms of these names do them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from datasets.transforms.corruption import random_seed, uniform_words
from utils.jit import compiled

NOISE_STD = (0.0, 0.25)
LOG_GAMMA = (-0.3, 0.3)
SWAPS = 100
SWAPPED_BOX = (8, 4, 4)  # voxels


@dataclass(frozen=True)
class Noise:
    """Gaussian noise of mean 0. ``seed`` (below 2^63) of the words that it is made from: voxel i has its own two."""

    std: float
    seed: int

    @classmethod
    def sample(cls, rng: np.random.Generator) -> Noise:
        """The standard deviation is uniform in 0..0.25."""
        return cls(rng.uniform(*NOISE_STD), random_seed(rng))

    def values(self, shape: tuple[int, ...]) -> np.ndarray:
        """Standard normal values, float32, by Box and Muller's formula."""
        count = int(np.prod(shape))
        radius, angle = uniform_words(self.seed, 2 * count).reshape(2, count)
        normal = np.sqrt(-2 * np.log1p(-radius)) * np.cos(np.float32(2 * np.pi) * angle)
        return normal.reshape(shape)

    def apply(self, image: np.ndarray) -> np.ndarray:
        return image + np.float32(self.std) * self.values(image.shape)


@dataclass(frozen=True)
class Gamma:
    """Values v become sign(v) |v|^gamma."""

    gamma: float

    @classmethod
    def sample(cls, rng: np.random.Generator) -> Gamma:
        """The logarithm of gamma is uniform in -0.3..0.3."""
        return cls(float(np.exp(rng.uniform(*LOG_GAMMA))))

    def apply(self, image: np.ndarray) -> np.ndarray:
        return np.sign(image) * np.abs(image) ** np.float32(self.gamma)


@dataclass(frozen=True)
class Swaps:
    """Pairs of boxes of ``size`` voxels change places, one pair after the other. ``starts``: (pairs, 2, 3)."""

    size: tuple[int, ...]
    starts: np.ndarray

    @classmethod
    def sample(cls, shape: tuple[int, ...], rng: np.random.Generator) -> Swaps:
        """100 pairs; starts are uniform, but the last possible one is never drawn (as published).

        The two boxes of a pair differ, and may overlap. An axis that a box fills has the start 0.
        """
        room = np.maximum(np.array(shape) - SWAPPED_BOX, 1)
        starts = rng.integers(0, room, (SWAPS, 2, 3))
        while room.max() > 1 and (same := (starts[:, 0] == starts[:, 1]).all(axis=1)).any():
            starts[same, 1] = rng.integers(0, room, (int(same.sum()), 3))
        return cls(SWAPPED_BOX, starts)

    def places(self, shape: tuple[int, ...]) -> np.ndarray:
        """Where the boxes' voxels lie in an image of this shape in C order: int32 (pairs, 2, voxels of a box)."""
        strides = np.array([shape[1] * shape[2], shape[2], 1])
        within = np.indices(self.size).reshape(3, -1)
        return ((self.starts @ strides)[..., None] + strides @ within).astype(np.int32)

    def apply(self, image: np.ndarray) -> np.ndarray:
        """Of overlapping boxes: the first is written to the second's place, then what was there to the first's."""
        return _swap(image, self.starts, *self.size)


@compiled
def _swap(image: np.ndarray, starts: np.ndarray, side_x: int, side_y: int, side_z: int) -> np.ndarray:
    swapped = image.copy()
    of_first = np.empty((side_x, side_y, side_z), image.dtype)
    of_second = np.empty_like(of_first)
    for pair in range(len(starts)):
        x, y, z = starts[pair, 0]
        u, v, w = starts[pair, 1]
        of_first[:] = swapped[x : x + side_x, y : y + side_y, z : z + side_z]
        of_second[:] = swapped[u : u + side_x, v : v + side_y, w : w + side_z]
        swapped[u : u + side_x, v : v + side_y, w : w + side_z] = of_first
        swapped[x : x + side_x, y : y + side_y, z : z + side_z] = of_second
    return swapped


def z_normalise(image: np.ndarray) -> np.ndarray:
    """``image`` less its mean, divided by its standard deviation (unbiased). ValueError if it is constant."""
    std = image.std(ddof=1, dtype=np.float64)
    if std == 0:
        raise ValueError("the crop is constant")
    return ((image - image.mean(dtype=np.float64)) / std).astype(np.float32)
