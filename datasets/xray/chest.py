"""ChestX-ray14, and X-rays like it: two augmented views of each image."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from datasets.transforms import xray_batched
from datasets.transforms.xray import XRayParams, view
from datasets.xray.dataset import XRays
from datasets.xray.files import find_chest
from utils.seeding import generator

__all__ = ["ChestPairs", "augment_batch", "find_chest"]


class ChestPairs(XRays):
    """Pairs of views of X-rays, by (epoch, index of the image).

    A sample holds float32 tensors: ``input1 input2`` (the augmented views), ``mask1 mask2`` (their spatial
    transforms, to be reconstructed) and ``gt1 gt2`` (the crops alone), each (channels, size, size), and
    ``aug1 aug2`` (6,), the codes of the spatial transforms. It depends on the seed and on its key, not on
    who makes it. If not ``augmented`` it holds what :func:`augment_batch` makes this of.
    """

    def __init__(
        self, files: Sequence[str], seed: int, channels: int = 3, size: int = 224, augmented: bool = True
    ) -> None:
        """``files``: paths as :func:`find_chest` gives them, of image files or all in one store.

        ``channels``: 3, or 1 for grey views.

        Compiles the augmentation, which takes seconds on the first run on a machine: worker processes that
        are forked later find it done.
        """
        super().__init__(files, channels)
        self.seed, self.size, self.augmented = seed, size, augmented
        rng = np.random.default_rng(0)
        view(np.zeros((size, size), np.uint8), XRayParams.sample(size, size, size, rng), channels, size)

    def __getitem__(self, key: tuple[int, int]) -> dict[str, torch.Tensor]:
        """The sample of this (epoch, index); UserError, naming the file, if it is no image."""
        epoch, index = key
        rng = generator(self.seed, "chest", epoch, index)
        image = self.pixels(index)
        height, width = image.shape[:2]
        sample: dict[str, np.ndarray] = {}
        for number in ("1", "2"):
            params = XRayParams.sample(height, width, self.size, rng)
            if self.augmented:
                arrays = zip(("input", "mask", "gt"), view(image, params, self.channels, self.size), strict=True)
                own = dict(arrays) | {"aug": params.spatial.code}
            else:
                own = xray_batched.parameters(image, params, self.channels, self.size)
            sample |= {name + number: array for name, array in own.items()}
        return {name: torch.from_numpy(array) for name, array in sample.items()}


def augment_batch(batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A batch of samples that are not augmented -> the batch that augmented ones would have given, to the bit."""
    whole: dict[str, torch.Tensor] = {}
    for number in ("1", "2"):
        own = {name.removesuffix(number): values for name, values in batch.items() if name.endswith(number)}
        whole |= {name + number: values for name, values in xray_batched.finish(own).items()}
    return whole
