"""The augmentation of a pair of 3D crops: everything that happens to them before the network sees them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from datasets.transforms.affine import Affine
from datasets.transforms.blur import GaussianBlur
from datasets.transforms.corruption import LocalShuffling, Painting
from datasets.transforms.spatial import SpatialTransform

SHUFFLING_PROBABILITY = 0.5
PAINTING_PROBABILITY = 0.9
IN_PAINTING_PROBABILITY = 0.2  # of the painted pairs; the others are out-painted


@dataclass(frozen=True)
class CropAugmentation:
    """One crop's parameters, in the order in which they are applied."""

    affine: Affine
    blur: GaussianBlur
    shuffling: LocalShuffling | None
    painting: Painting | None
    spatial: SpatialTransform

    @classmethod
    def sample(cls, shape: tuple[int, ...], painted: bool, inside: bool, rng: np.random.Generator) -> CropAugmentation:
        """Draw for a crop of this (X, Y, Z); whether it is painted, and inside its boxes, is given."""
        return cls(
            affine=Affine.sample(rng),
            blur=GaussianBlur.sample(rng),
            shuffling=LocalShuffling.sample(rng) if rng.random() < SHUFFLING_PROBABILITY else None,
            painting=Painting.sample(shape, inside, rng) if painted else None,
            spatial=SpatialTransform.sample(shape, rng),
        )

    def apply(self, crop: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """``crop``, a contiguous float32 (X, Y, Z) -> (the network's input, its reconstruction target).

        The target is the spatial transform of the input; both are contiguous, new arrays.
        """
        image = self.blur.apply(self.affine.apply(crop))
        if self.shuffling is not None:
            image = self.shuffling.apply(image)
        if self.painting is not None:
            image = self.painting.apply(image)
        return image, self.spatial.apply(image).copy(order="C")


def sample_pair(shape: tuple[int, ...], rng: np.random.Generator) -> tuple[CropAugmentation, CropAugmentation]:
    """Draw for the two crops of a pair: independently, but both are painted in the same way or not at all."""
    painted = bool(rng.random() < PAINTING_PROBABILITY)
    inside = bool(rng.random() < IN_PAINTING_PROBABILITY)
    return (
        CropAugmentation.sample(shape, painted, inside, rng),
        CropAugmentation.sample(shape, painted, inside, rng),
    )
