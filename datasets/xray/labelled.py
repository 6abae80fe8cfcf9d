"""Single X-rays as samples, with labels or without, for what comes after pre-training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from datasets.transforms.single import augmented_view, plain_view
from datasets.xray.dataset import XRays
from utils.seeding import generator


class SingleXRays(XRays):
    """X-rays by (epoch, index): ``image`` float32 (channels, size, size), normalised as for pre-training.

    With labels, ``label`` float32 (classes,) too. Augmented with a ``seed``: a sample then depends on it and on its
    key alone. Without one, the whole image, resized.
    """

    def __init__(
        self,
        files: Sequence[str | Path],
        labels: np.ndarray | None = None,
        channels: int = 3,
        seed: int | None = None,
        size: int = 224,
        mirror: bool = True,
    ) -> None:
        """``files``: of images, or all in one store. ``labels``: float32 (N, classes).

        ``mirror``: whether the augmentation exchanges left and right.
        """
        super().__init__(files, channels)
        self.mirror = mirror
        self.labels, self.seed, self.size = labels, seed, size
        plain_view(np.zeros((size, size), np.uint8), channels, size)  # compiled before workers are forked

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Tensor]:
        """The sample of this (epoch, index); UserError, naming the file, if it is no image."""
        epoch, index = key
        pixels = self.pixels(index)
        if self.seed is None:
            image = plain_view(pixels, self.channels, self.size)
        else:
            rng = generator(self.seed, "x-ray", epoch, index)
            image = augmented_view(pixels, self.channels, self.size, rng, self.mirror)
        sample = {"image": torch.from_numpy(image)}
        if self.labels is not None:
            sample["label"] = torch.from_numpy(self.labels[index])
        return sample
