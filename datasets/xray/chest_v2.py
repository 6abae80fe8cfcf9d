"""ChestX-ray14, and X-rays like it, for PCRLv2: two views of each image, and local ones."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from datasets.transforms.xray import XRayParams
from datasets.transforms.xray_batched import normalise, planes, with_holes
from datasets.transforms.xray_v2 import LOCAL_VIEWS, local_size, local_view, pixels, sample_local, sample_view, view
from datasets.xray.dataset import XRays
from utils.seeding import generator


class ChestViews(XRays):
    """Views of X-rays, by (epoch, index of the image).

    A sample holds float32 tensors: ``input1 input2`` (the views), ``gt1`` (what view 1 is to be restored to), each
    (channels, size, size), and ``locals`` (6, channels, local size, local size). It depends on the seed and on its key,
    not on who makes it. If not ``augmented`` it holds what :func:`augment_batch` makes this of.
    """

    def __init__(
        self, files: Sequence[str], seed: int, channels: int = 3, size: int = 224, augmented: bool = True
    ) -> None:
        """``files``: paths as ``find_chest`` gives them, of image files or all in one store. ``channels``: 3 or 1.

        Compiles the augmentation, which takes seconds on the first run on a machine: worker processes that
        are forked later find it done.
        """
        super().__init__(files, channels)
        self.seed, self.size, self.local_size, self.augmented = seed, size, local_size(size), augmented
        rng = np.random.default_rng(0)
        view(np.zeros((size, size), np.uint8), sample_view(size, size, size, rng), channels, size)

    def draw(self, key: tuple[int, int], height: int, width: int) -> tuple[list[XRayParams], list[XRayParams]]:
        """The parameters of the views and of the local views of this (epoch, index), of an image of this size."""
        rng = generator(self.seed, "chest_v2", *key)
        views = [sample_view(height, width, self.size, rng) for _ in range(2)]
        return views, [sample_local(height, width, self.size, rng) for _ in range(LOCAL_VIEWS)]

    def __getitem__(self, key: tuple[int, int]) -> dict[str, torch.Tensor]:
        """The sample of this (epoch, index); UserError, naming the file, if it is no image."""
        image = self.pixels(key[1])
        views, locals_ = self.draw(key, *image.shape[:2])
        if not self.augmented:
            return self._pixels(image, views, locals_)
        first, target = view(image, views[0], self.channels, self.size)
        second, _ = view(image, views[1], self.channels, self.size)
        crops = np.stack([local_view(image, params, self.channels, self.local_size) for params in locals_])
        sample = {"input1": first, "input2": second, "gt1": target, "locals": crops}
        return {name: torch.from_numpy(array) for name, array in sample.items()}

    def _pixels(
        self, image: np.ndarray, views: Sequence[XRayParams], locals_: Sequence[XRayParams]
    ) -> dict[str, torch.Tensor]:
        """8-bit pixels of the views, and where their holes are."""
        (first, target), (second, _) = (pixels(image, params, self.channels, self.size) for params in views)
        crops = [pixels(image, params, self.channels, self.local_size)[0] for params in locals_]
        named = {"input1": first, "input2": second, "gt1": target}
        sample = {name: planes(values, self.channels) for name, values in named.items()}
        sample["locals"] = np.stack([planes(crop, self.channels) for crop in crops])
        sample |= {f"holes{number}": np.array(params.holes, np.int64) for number, params in enumerate(views, start=1)}
        return {name: torch.from_numpy(array) for name, array in sample.items()}


@torch.no_grad()
def augment_batch(batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A batch of samples that are not augmented -> the batch that augmented ones would have given, to the bit."""
    locals_ = batch["locals"]
    return {
        "input1": with_holes(normalise(batch["input1"]), batch["holes1"]),
        "input2": with_holes(normalise(batch["input2"]), batch["holes2"]),
        "gt1": normalise(batch["gt1"]),
        "locals": normalise(locals_.flatten(0, 1)).unflatten(0, locals_.shape[:2]),
    }
