"""LUNA16 for PCRLv2: the crops that ``preprocess/luna_pre.py --recipe pcrlv2`` cut out of CT scans.

On disk: ``<data>/subset<n>/<series uid>_global_<k>.npy``, two overlapping crops (2, X, Y, Z), and beside it
``<series uid>_local_<k>.npy``, small crops from around them (L, x, y, z); floats in [0, 1].
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import Dataset

from datasets.ct.luna import LOOKED_AT, REMEDY, read_crops, read_pair
from datasets.layout import GLOBAL, local_name
from datasets.transforms.crops_v2 import CropAugmentationV2
from datasets.transforms.intensity import SWAPPED_BOX
from utils.errors import UserError
from utils.seeding import generator

LOCALS = "1 or more"  # crops of a file


def local_file(path: str) -> str:
    """The file of the local crops that belong to a file of global ones."""
    match = GLOBAL.fullmatch(Path(path).name)
    assert match, "found by this pattern"
    return str(Path(path).with_name(local_name(match["uid"], int(match["number"]))))


class LunaViews(Dataset[dict[str, torch.Tensor]]):
    """Augmented crops, by (epoch, index of the file).

    A sample holds float32 tensors: ``input1 input2`` (the views, of mean 0 and deviation 1), ``gt1`` (what view 1 is
    to be restored to, in [0, 1]), each (1, X, Y, Z), and ``locals`` (L, 1, x, y, z). It depends on the seed and on its
    key, not on who makes it.
    """

    def __init__(self, files: Sequence[str], seed: int) -> None:
        """``files``: of global crops that all have the shape of the first one that is whole, as have the local ones.

        Compiles the augmentation, which takes seconds on the first run on a machine: worker processes that
        are forked later find it done. Raises UserError if there is no file, or none of the first ones is whole.
        """
        if not files:
            raise UserError("no LUNA16 crops to train on")
        self.files, self.seed = list(files), seed
        self.shape, self.local_shape = _first_shapes(self.files[:LOOKED_AT])
        if (np.array(self.shape) < SWAPPED_BOX).any():
            raise UserError(f"{files[0]}: crops of {self.shape} voxels are too small to augment; {REMEDY}")
        rng = np.random.default_rng(0)
        CropAugmentationV2.sample((8, 8, 8), True, rng).apply(rng.random((8, 8, 8), dtype=np.float32))

    def __len__(self) -> int:
        return len(self.files)

    def draw(self, key: tuple[int, int]) -> tuple[list[CropAugmentationV2], list[CropAugmentationV2]]:
        """The augmentations of the global and of the local crops of this (epoch, index)."""
        rng = generator(self.seed, "luna_v2", *key)
        views = [CropAugmentationV2.sample(self.shape, False, rng) for _ in range(2)]
        return views, [CropAugmentationV2.sample(self.local_shape[1:], True, rng) for _ in range(self.local_shape[0])]

    def __getitem__(self, key: tuple[int, int]) -> dict[str, torch.Tensor]:
        """The sample of this (epoch, index); UserError if one of its files is damaged or of another shape."""
        path = self.files[key[1]]
        pair = read_pair(path, self.shape)
        crops = read_crops(local_file(path), LOCALS, self.local_shape)
        views, locals_ = self.draw(key)
        try:
            (first, target), (second, _) = (each.apply(crop) for each, crop in zip(views, pair, strict=True))
            small = np.stack([each.apply(crop)[0] for each, crop in zip(locals_, crops, strict=True)])
        except ValueError as error:
            raise UserError(f"{path} or its local crops: {error}; {REMEDY}") from error
        sample = {"input1": first[None], "input2": second[None], "gt1": target[None], "locals": small[:, None]}
        return {name: torch.from_numpy(values) for name, values in sample.items()}


def _first_shapes(files: Sequence[str]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The shape of a global crop and that of all local ones, of the first file that is whole; UserError if none is."""
    faults = []
    for file in files:
        try:
            return read_pair(file).shape[1:], read_crops(local_file(file), LOCALS).shape
        except UserError as fault:
            faults.append(fault)
    raise faults[0]
