"""Single X-rays: what is judged on is torchvision's resize; what is learned from depends on seed and key alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision.transforms.functional as F
from PIL import Image

from datasets.transforms.single import plain_view
from datasets.transforms.xray import IMAGENET_MEAN, IMAGENET_STD, normalise
from datasets.xray.labelled import SingleXRays


@pytest.fixture
def file(tmp_path: Path) -> str:
    rng = np.random.default_rng(0)
    path = tmp_path / "a.png"
    Image.fromarray(rng.integers(0, 256, (300, 300), dtype=np.uint8)).save(path)
    return str(path)


def test_a_plain_image_is_resized_and_normalised_as_torchvision_does(file: str) -> None:
    image = Image.open(file).convert("RGB").resize((224, 224), Image.Resampling.BILINEAR)
    expected = F.normalize(F.to_tensor(image), list(IMAGENET_MEAN), list(IMAGENET_STD))
    sample = SingleXRays([file], np.array([[0, 1]], np.float32))[(3, 0)]
    assert torch.equal(sample["image"], expected)
    assert sample["label"].tolist() == [0, 1]
    assert SingleXRays([file], channels=1)[(0, 0)]["image"].shape == (1, 224, 224)


def test_an_augmented_image_depends_on_seed_and_key_alone(file: str) -> None:
    samples = SingleXRays([file, file], seed=1)
    first = samples[(0, 0)]["image"]
    assert first.shape == (3, 224, 224)
    assert torch.equal(first, SingleXRays([file, file], seed=1)[(0, 0)]["image"])
    others = [samples[(0, 1)], samples[(1, 0)], SingleXRays([file], seed=2)[(0, 0)]]
    assert not any(torch.equal(first, other["image"]) for other in others)


@pytest.mark.parametrize(("height", "width"), [(100, 400), (400, 100), (300, 299), (1, 500), (64, 64)])
@pytest.mark.parametrize("channels", [1, 3])
def test_what_is_judged_keeps_its_shape(height: int, width: int, channels: int) -> None:
    rng = np.random.default_rng(0)
    for colour in ((), (3,)):
        image = rng.integers(1, 256, (height, width, *colour), dtype=np.uint8)
        view = plain_view(image, channels, 64)
        rows, columns = (max(1, round(side * 64 / max(height, width))) for side in (height, width))
        top, left = (64 - rows) // 2, (64 - columns) // 2
        small = Image.fromarray(image)
        small = small.convert("L") if channels == 1 else small
        expected = np.zeros((64, 64, *np.asarray(small).shape[2:]), np.uint8)
        inside = small.resize((columns, rows), Image.Resampling.BILINEAR)
        expected[top : top + rows, left : left + columns] = np.asarray(inside)
        np.testing.assert_array_equal(view, normalise(expected, channels))
