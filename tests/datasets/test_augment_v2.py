"""PCRLv2's views made on the device: those that the workers make, from the same draws."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import default_collate

from datasets.ct import luna_v2
from datasets.ct.luna_v2 import LunaViews
from datasets.transforms.crops_v2 import CropAugmentationV2
from datasets.transforms.crops_v2_batched import augment, parameters
from datasets.transforms.intensity import SWAPPED_BOX, Swaps
from datasets.xray import chest_v2
from datasets.xray.chest_v2 import ChestViews
from datasets.xray.files import find_chest
from tests.conftest import write_xrays
from tests.crops_v2 import write_crops_v2
from utils.seeding import generator

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("shape", "is_local"), [((32, 24, 16), False), ((8, 4, 9), False), ((16, 16, 16), True)])
def test_crops_of_a_batch_equal_single_ones(shape: tuple[int, ...], is_local: bool, device: str) -> None:
    rng = generator(0, *shape)
    crops = rng.random((6, *shape), dtype=np.float32)
    augmentations = [CropAugmentationV2.sample(shape, is_local, rng) for _ in crops]
    each = [parameters(one, shape) for one in augmentations]
    stacked = {name: torch.from_numpy(np.stack([one[name] for one in each])).to(device) for name in each[0]}
    assert ("swaps" in stacked) is not is_local
    inputs, targets = augment(torch.from_numpy(crops).to(device), stacked)
    for crop, one, image, target in zip(crops, augmentations, inputs.cpu().numpy(), targets.cpu().numpy(), strict=True):
        expected_image, expected_target = one.apply(crop)
        np.testing.assert_allclose(target, expected_target, rtol=0, atol=1e-6)
        np.testing.assert_allclose(image, expected_image, rtol=1e-4, atol=1e-4)


def test_boxes_that_overlap_change_places_one_after_the_other() -> None:
    """Against a plain loop over the pairs; many of them overlap in so small a crop."""
    shape, rng = (12, 9, 7), np.random.default_rng(0)
    image, swaps = rng.random(shape, dtype=np.float32), Swaps.sample(shape, rng)
    expected = image.copy()
    for pair in swaps.starts:
        first, second = (tuple(slice(s, s + n) for s, n in zip(start, SWAPPED_BOX, strict=True)) for start in pair)
        of_first, of_second = expected[first].copy(), expected[second].copy()
        expected[second], expected[first] = of_first, of_second
    assert np.array_equal(swaps.apply(image), expected)


def same_batches(
    by_workers: dict[str, torch.Tensor], by_device: dict[str, torch.Tensor], rtol: float, atol: float
) -> None:
    assert by_workers.keys() == by_device.keys()
    for name, values in by_workers.items():
        torch.testing.assert_close(by_device[name], values, rtol=rtol, atol=atol, msg=name)


@pytest.mark.parametrize("device", DEVICES)
def test_a_batch_of_crops(device: str, tmp_path: Path) -> None:
    files = sorted(str(path) for path in write_crops_v2(tmp_path).rglob("*_global_*.npy"))
    keys = [(1, index) for index in range(len(files))]
    whole, raw = (default_collate([LunaViews(files, 3, augmented)[key] for key in keys]) for augmented in (True, False))
    assert raw["gt1"].shape[1:] == whole["gt1"].shape[1:], "what a run checks the sizes by"
    made = luna_v2.augment_batch({name: values.to(device) for name, values in raw.items()})
    same_batches(whole, {name: values.cpu() for name, values in made.items()}, 1e-4, 1e-4)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_batch_of_x_rays_to_the_bit(channels: int, tmp_path: Path) -> None:
    files = find_chest(write_xrays(tmp_path, count=3, size=80), "none")
    keys = [(epoch, index) for epoch in range(2) for index in range(len(files))]
    whole, raw = (
        default_collate([ChestViews(files, 3, channels, 64, augmented)[key] for key in keys])
        for augmented in (True, False)
    )
    assert {values.dtype for values in raw.values()} == {torch.uint8, torch.int64}
    same_batches(whole, chest_v2.augment_batch(raw), 0, 0)
