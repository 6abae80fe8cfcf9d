"""Single X-rays: what is judged on is torchvision's resize; what is learned from depends on seed and key alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision.transforms.functional as F
from PIL import Image

from datasets.transforms.xray import IMAGENET_MEAN, IMAGENET_STD
from datasets.xray.labelled import SingleXRays


@pytest.fixture
def file(tmp_path: Path) -> str:
    rng = np.random.default_rng(0)
    path = tmp_path / "a.png"
    Image.fromarray(rng.integers(0, 256, (300, 260), dtype=np.uint8)).save(path)
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
