"""One more spatial transform of view 1, a target of ``--model pcrl_paper``: what its hybrid encoder restores."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.data import Dataset

from datasets.loader import Batch, PairDataset
from datasets.transforms import batched, xray_batched
from datasets.transforms.spatial import SpatialTransform
from utils.seeding import generator


class ThirdTarget(Dataset[Batch]):
    """The samples of ``pairs``, each with ``mask3``, its ``input1`` transformed, and ``aug3``, the transform's code.

    Not ``augmented``: with ``aug3`` alone, from which :func:`with_third_target` makes the target. The transform depends
    on the seed and the sample's key.
    """

    def __init__(self, pairs: PairDataset, seed: int, augmented: bool) -> None:
        self.pairs, self.seed, self.augmented = pairs, seed, augmented

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, key: tuple[int, int]) -> Batch:
        sample = self.pairs[key]
        shape = tuple(sample["gt1"].shape[1:])
        third = SpatialTransform.sample(shape, generator(self.seed, "third target", *key))
        sample = sample | {"aug3": torch.from_numpy(third.code)}
        if self.augmented:
            sample["mask3"] = torch.from_numpy(third.apply(sample["input1"].numpy()).copy())
        return sample


def with_third_target(augment: Callable[[Batch], Batch]) -> Callable[[Batch], Batch]:
    """What makes samples of a batch of pairs, for a batch of :class:`ThirdTarget`."""

    def augment_batch(batch: Batch) -> Batch:
        codes = batch["aug3"]
        whole = augment({name: values for name, values in batch.items() if name != "aug3"})
        return whole | {"aug3": codes, "mask3": _transform(whole["input1"], codes)}

    return augment_batch


def _transform(images: Tensor, codes: Tensor) -> Tensor:
    """Each image (C, ...) by the spatial transform that its code stands for."""
    if images.dim() == 4:
        return xray_batched.transform(images, codes)
    return batched.transform(images[:, 0], codes)[:, None]
