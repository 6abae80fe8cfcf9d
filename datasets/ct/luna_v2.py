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
from datasets.transforms import crops_v2_batched
from datasets.transforms.crops_v2 import CropAugmentationV2
from datasets.transforms.intensity import SWAPPED_BOX
from utils.errors import UserError
from utils.seeding import generator

LOCALS = "1 or more"  # crops of a file
LOCAL = "local_"  # before the names of what is to be done to the local crops


def local_file(path: str) -> str:
    """The file of the local crops that belong to a file of global ones."""
    match = GLOBAL.fullmatch(Path(path).name)
    assert match, "found by this pattern"
    return str(Path(path).with_name(local_name(match["uid"], int(match["number"]))))


class LunaViews(Dataset[dict[str, torch.Tensor]]):
    """Augmented crops, by (epoch, index of the file).

    A sample holds float32 tensors: ``input1 input2`` (the views, of mean 0 and deviation 1), ``gt1`` (what view 1 is
    to be restored to, in [0, 1]), each (1, X, Y, Z), and ``locals`` (L, 1, x, y, z). It depends on the seed and on its
    key, not on who makes it. If not ``augmented`` it holds what :func:`augment_batch` makes this of.
    """

    def __init__(self, files: Sequence[str], seed: int, augmented: bool = True) -> None:
        """``files``: of global crops that all have the shape of the first one that is whole, as have the local ones.

        Compiles the augmentation, which takes seconds on the first run on a machine: worker processes that
        are forked later find it done. Raises UserError if there is no file, or none of the first ones is whole.
        """
        if not files:
            raise UserError("no LUNA16 crops to train on")
        self.files, self.seed, self.augmented = list(files), seed, augmented
        self.shape, self.local_shape = _first_shapes(self.files[:LOOKED_AT])
        if (np.array(self.shape) < SWAPPED_BOX).any():
            raise UserError(f"{files[0]}: crops of {self.shape} voxels are too small to augment; {REMEDY}")
        rng = np.random.default_rng(0)
        CropAugmentationV2.sample((9, 9, 9), False, rng).apply(rng.random((9, 9, 9), dtype=np.float32))

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
        if not self.augmented:
            return _unaugmented(pair, views, crops, locals_)
        try:
            (first, target), (second, _) = (each.apply(crop) for each, crop in zip(views, pair, strict=True))
            small = np.stack([each.apply(crop)[0] for each, crop in zip(locals_, crops, strict=True)])
        except ValueError as error:
            raise UserError(f"{path} or its local crops: {error}; {REMEDY}") from error
        sample = {"input1": first[None], "input2": second[None], "gt1": target[None], "locals": small[:, None]}
        return {name: torch.from_numpy(values) for name, values in sample.items()}


def _unaugmented(
    pair: np.ndarray,
    views: Sequence[CropAugmentationV2],
    crops: np.ndarray,
    locals_: Sequence[CropAugmentationV2],
) -> dict[str, torch.Tensor]:
    """The crops as they are on disk, and what is to be done to each: what :func:`augment_batch` takes."""
    sample: dict[str, np.ndarray] = {}
    for number, (crop, view) in enumerate(zip(pair, views, strict=True), start=1):
        own = {"gt": crop[None]} | crops_v2_batched.parameters(view, crop.shape)
        sample |= {f"{name}{number}": values for name, values in own.items()}
    each = [crops_v2_batched.parameters(local, crops.shape[1:]) for local in locals_]
    sample |= {"locals": crops[:, None]} | {LOCAL + name: np.stack([one[name] for one in each]) for name in each[0]}
    return {name: torch.from_numpy(values) for name, values in sample.items()}


def augment_batch(batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A batch of samples that are not augmented -> the batch that augmented ones would have given."""
    names = [name.removesuffix("1") for name in batch if name.endswith("1")]
    both = {name: torch.cat([batch[f"{name}1"], batch[f"{name}2"]]) for name in names}
    inputs, targets = crops_v2_batched.augment(both["gt"][:, 0], both)
    first, second = inputs[:, None].chunk(2)
    crops = batch["locals"]
    of_locals = {name.removeprefix(LOCAL): values.flatten(0, 1) for name, values in batch.items() if LOCAL in name}
    small, _ = crops_v2_batched.augment(crops.flatten(0, 2), of_locals)
    return {"input1": first, "input2": second, "gt1": targets[: len(first), None], "locals": small.view(crops.shape)}


def _first_shapes(files: Sequence[str]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The shape of a global crop and that of all local ones, of the first file that is whole; UserError if none is."""
    faults = []
    for file in files:
        try:
            return read_pair(file).shape[1:], read_crops(local_file(file), LOCALS).shape
        except UserError as fault:
            faults.append(fault)
    raise faults[0]
