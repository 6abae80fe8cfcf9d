"""Samples of X-rays: what is in them, and that only the seed and the key decide."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, default_collate

from datasets.transforms.xray import XRayParams, view
from datasets.xray.chest import ChestPairs, augment_batch, find_chest
from datasets.xray.images import read_image
from utils.errors import UserError
from utils.seeding import generator

VIEWS = ("input1", "input2", "mask1", "mask2", "gt1", "gt2")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    (tmp_path / "images").mkdir()
    for number in range(4):
        pixels = rng.integers(0, 256, (120 + 30 * number, 200), dtype=np.uint8)
        Image.fromarray(pixels).resize((300, 280)).save(tmp_path / "images" / f"{number}.png")
    Image.fromarray(rng.integers(0, 256, (90, 120, 3), dtype=np.uint8)).save(tmp_path / "images" / "colour.jpg")
    return tmp_path


def assert_same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    for key, value in one.items():
        assert torch.equal(value, other[key]), key


@pytest.mark.parametrize("channels", [1, 3])
def test_what_a_sample_holds(folder: Path, channels: int) -> None:
    pairs = ChestPairs(find_chest(folder, "none"), 0, channels)
    assert len(pairs) == 5
    for index in range(5):
        sample = pairs[(0, index)]
        assert sorted(sample) == sorted((*VIEWS, "aug1", "aug2"))
        for key in VIEWS:
            assert sample[key].shape == (channels, 224, 224)
            assert sample[key].dtype == torch.float32
            assert sample[key].is_contiguous()
        for key in ("aug1", "aug2"):
            assert sample[key].shape == (6,)
            assert sample[key].dtype == torch.float32
            assert sample[key].sum() >= 1


def test_the_two_views_are_drawn_one_after_the_other(folder: Path) -> None:
    files = find_chest(folder, "none")
    sample = ChestPairs(files, 7)[(3, 1)]
    rng = generator(7, "chest", 3, 1)
    image = read_image(files[1])
    for number in "12":
        params = XRayParams.sample(*image.shape, 224, rng)
        for key, expected in zip(("input", "mask", "gt"), view(image, params), strict=True):
            np.testing.assert_array_equal(sample[key + number].numpy(), expected)
        np.testing.assert_array_equal(sample["aug" + number].numpy(), params.spatial.code)
    assert not torch.equal(sample["gt1"], sample["gt2"])


def test_only_the_seed_and_the_key_decide(folder: Path) -> None:
    files = find_chest(folder, "none")
    pairs, again = ChestPairs(files, 1), ChestPairs(files, 1)
    again[(0, 0)]  # whatever was asked for before
    assert_same(pairs[(2, 3)], again[(2, 3)])
    for other in (pairs[(1, 3)], ChestPairs(files, 2)[(2, 3)]):
        assert not torch.equal(pairs[(2, 3)]["gt1"], other["gt1"])
    same_file = ChestPairs([files[3]] * 4, 1)
    assert not torch.equal(same_file[(2, 2)]["gt1"], same_file[(2, 3)]["gt1"])


def test_workers_change_nothing(folder: Path) -> None:
    pairs = ChestPairs(find_chest(folder, "none"), 1, size=64)
    keys = [(epoch, index) for epoch in range(2) for index in range(5)]
    loader = DataLoader(pairs, sampler=keys, batch_size=None, num_workers=2)
    for key, sample in zip(keys, loader, strict=True):
        assert_same(sample, pairs[key])


DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"))]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("channels", [1, 3])
def test_the_last_steps_on_the_device_give_the_same_batch(folder: Path, channels: int, device: str) -> None:
    files = find_chest(folder, "none")
    whole, pixels = ChestPairs(files, 4, channels), ChestPairs(files, 4, channels, augmented=False)
    keys = [(epoch, index) for epoch in range(12) for index in range(5)]
    expected = default_collate([whole[key] for key in keys])
    assert len(expected["aug1"].unique(dim=0)) == 16  # every spatial transform
    handed_over = default_collate([pixels[key] for key in keys])
    assert all(handed_over[key].dtype == torch.uint8 for key in ("input1", "gt2"))
    batch = augment_batch({key: values.to(device) for key, values in handed_over.items()})
    assert all(values.device.type == device for values in batch.values())
    assert_same({key: values.cpu() for key, values in batch.items()}, expected)


def test_a_damaged_image_is_named_and_the_next_is_read(folder: Path) -> None:
    files = find_chest(folder, "none")
    content = Path(files[2]).read_bytes()
    Path(files[2]).write_bytes(content[: len(content) // 2])
    pairs = ChestPairs(files, 0)
    with pytest.raises(UserError, match=f"{os.path.basename(files[2])} cannot be decoded"):
        pairs[(0, 2)]
    assert pairs[(0, 3)]["gt1"].shape == (3, 224, 224)


def test_channels_are_one_or_three(folder: Path) -> None:
    with pytest.raises(UserError, match="1 or 3 channels, not 2"):
        ChestPairs(find_chest(folder, "none"), 0, 2)
