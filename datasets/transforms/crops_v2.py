"""The augmentation of 3D crops for PCRLv2: what is shared by input and target, and what the input alone gets."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from datasets.transforms.affine import Affine
from datasets.transforms.blur import GaussianBlur
from datasets.transforms.intensity import Gamma, Noise, Swaps, z_normalise


@dataclass(frozen=True)
class CropAugmentationV2:
    """One crop's parameters, in the order in which they are applied. ``swaps``: None for a local crop."""

    affine: Affine
    blur: GaussianBlur
    noise: Noise
    gamma: Gamma
    swaps: Swaps | None

    @classmethod
    def sample(cls, shape: tuple[int, ...], is_local: bool, rng: np.random.Generator) -> CropAugmentationV2:
        """Draw for a crop of this (X, Y, Z)."""
        return cls(
            affine=Affine.sample(rng),
            blur=GaussianBlur.sample(rng),
            noise=Noise.sample(rng),
            gamma=Gamma.sample(rng),
            swaps=None if is_local else Swaps.sample(shape, rng),
        )

    def apply(self, crop: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """``crop``, a contiguous float32 (X, Y, Z) in [0, 1] -> (the network's input, what it is to restore).

        The target is the crop after the affine alone, in [0, 1]; the input is normalised to mean 0 and deviation 1.
        ValueError if the crop is constant.
        """
        target = self.affine.apply(crop)
        image = self.gamma.apply(self.noise.apply(self.blur.apply(target)))
        if self.swaps is not None:
            image = self.swaps.apply(image)
        return z_normalise(image), target
