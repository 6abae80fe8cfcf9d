"""ChestX-ray14, and X-rays like it, for PCRLv2: two views of each image, and local ones."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch.utils.data import Dataset

from datasets.transforms.xray import XRayParams
from datasets.transforms.xray_v2 import LOCAL_VIEWS, local_size, local_view, sample_local, sample_view, view
from datasets.xray.images import read_image
from datasets.xray.store import store_of
from utils.errors import UserError
from utils.seeding import generator


class ChestViews(Dataset[dict[str, torch.Tensor]]):
    """Views of X-rays, by (epoch, index of the image).

    A sample holds float32 tensors: ``input1 input2`` (the views), ``gt1`` (what view 1 is to be restored to), each
    (channels, size, size), and ``locals`` (6, channels, local size, local size). It depends on the seed and on its key,
    not on who makes it.
    """

    def __init__(
        self, files: Sequence[str], seed: int, channels: int = 3, size: int = 224, local_views: int = LOCAL_VIEWS
    ) -> None:
        """``files``: paths as ``find_chest`` gives them, of image files or all in one store. ``channels``: 3 or 1.

        Compiles the augmentation, which takes seconds on the first run on a machine: worker processes that
        are forked later find it done.
        """
        if channels not in (1, 3):
            raise UserError(f"X-rays are read with 1 or 3 channels, not {channels}")
        self.files = list(files)
        self.store = store_of(self.files[0]) if self.files else None
        self.seed, self.channels = seed, channels
        self.size, self.local_size, self.local_views = size, local_size(size), local_views
        rng = np.random.default_rng(0)
        view(np.zeros((size, size), np.uint8), sample_view(size, size, size, rng), channels, size)

    def __len__(self) -> int:
        return len(self.files)

    def draw(self, key: tuple[int, int], height: int, width: int) -> tuple[list[XRayParams], list[XRayParams]]:
        """The parameters of the views and of the local views of this (epoch, index), of an image of this size."""
        rng = generator(self.seed, "chest_v2", *key)
        views = [sample_view(height, width, self.size, rng) for _ in range(2)]
        return views, [sample_local(height, width, self.size, rng) for _ in range(self.local_views)]

    def __getitem__(self, key: tuple[int, int]) -> dict[str, torch.Tensor]:
        """The sample of this (epoch, index); UserError, naming the file, if it is no image."""
        path = self.files[key[1]]
        image = self.store.read(path) if self.store else read_image(path)
        views, locals_ = self.draw(key, *image.shape[:2])
        first, target = view(image, views[0], self.channels, self.size)
        second, _ = view(image, views[1], self.channels, self.size)
        crops = np.stack([local_view(image, params, self.channels, self.local_size) for params in locals_])
        sample = {"input1": first, "input2": second, "gt1": target, "locals": crops}
        return {name: torch.from_numpy(array) for name, array in sample.items()}
