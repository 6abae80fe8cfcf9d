"""X-rays for PCRLv2: views equal to torchvision's steps one by one on RGB images, with the same draws."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision.transforms.functional as F
from PIL import Image, ImageFilter
from torchvision.transforms import InterpolationMode, RandomResizedCrop

from benchmarks.literal.chest_sample import normalise
from datasets.transforms.xray import XRayParams
from datasets.transforms.xray_v2 import local_size
from datasets.xray.chest_v2 import ChestViews

SIZE = 64
ADJUST = {
    "brightness": F.adjust_brightness,
    "contrast": F.adjust_contrast,
    "saturation": F.adjust_saturation,
    "hue": F.adjust_hue,
}


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    rng = np.random.default_rng(0)
    smooth = np.kron(rng.integers(0, 256, (10, 12), dtype=np.uint8), np.ones((12, 12), np.uint8))
    Image.fromarray(smooth).save(tmp_path / "grey.png")
    Image.fromarray(np.stack([smooth, smooth.T[:120, :144].repeat(2, 1)[:120, :144], 255 - smooth], 2)).save(
        tmp_path / "colour.png"
    )
    return [str(tmp_path / name) for name in ("grey.png", "colour.png")]


def literally(image: Image.Image, params: XRayParams, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Distorted and turned, without holes, in RGB."""
    turned = F.resized_crop(image, *params.box, [size, size], InterpolationMode.BILINEAR)
    turned = F.rotate(turned, params.angle, InterpolationMode.NEAREST, fill=0)
    if params.flip:
        turned = F.hflip(turned)
    out = F.rgb_to_grayscale(turned, 3) if params.gray else turned
    if params.blur is not None:
        out = out.filter(ImageFilter.GaussianBlur(params.blur))
    for name, factor in params.jitter:
        out = ADJUST[name](out, factor)
    return normalise(out), normalise(turned)


@pytest.mark.parametrize("index", [0, 1])
def test_a_sample_equals_torchvision_with_the_same_draws(files: list[str], index: int) -> None:
    data = ChestViews(files, seed=4, size=SIZE)
    image = Image.open(files[index]).convert("RGB")
    for epoch in range(6):
        sample = data[(epoch, index)]
        views, locals_ = data.draw((epoch, index), image.height, image.width)
        for number, params in enumerate(views, start=1):
            expected, target = literally(image, params, SIZE)
            for row, column in params.holes:
                half = round(32 * SIZE / 224) // 2
                side = round(32 * SIZE / 224)
                top, left = row - half, column - half
                expected[:, max(0, top) : top + side, max(0, left) : left + side] = 0
            assert torch.equal(sample[f"input{number}"], expected)
            if number == 1:
                assert torch.equal(sample["gt1"], target)
        assert sample["locals"].shape == (6, 3, 32, 32)
        for ours, params in zip(sample["locals"], locals_, strict=True):
            assert torch.equal(ours, literally(image, params, 32)[0])


def mean_area(part: tuple[float, float]) -> float:
    """Of the crops that torchvision draws in a square image."""
    torch.manual_seed(0)
    boxes = [RandomResizedCrop.get_params(torch.empty(1, 1000, 1000), part, [3 / 4, 4 / 3]) for _ in range(2000)]
    return float(np.mean([height * width / 1e6 for _, _, height, width in boxes]))


def test_areas_are_those_published_and_views_are_drawn_anew(files: list[str]) -> None:
    data = ChestViews(files, seed=0, size=224)
    views, locals_ = zip(*(data.draw((epoch, 0), 1000, 1000) for epoch in range(300)), strict=True)

    def areas(params: tuple[list[XRayParams], ...]) -> np.ndarray:
        return np.array([each.box[2] * each.box[3] / 1e6 for some in params for each in some])

    assert areas(views).min() >= 0.299
    assert areas(views).max() <= 1
    assert areas(views).mean() == pytest.approx(mean_area((0.3, 1.0)), abs=0.04)
    assert areas(locals_).min() >= 0.049
    assert areas(locals_).max() <= 0.301
    assert areas(locals_).mean() == pytest.approx(mean_area((0.05, 0.3)), abs=0.01)
    radii = [each.blur for some in locals_ for each in some if each.blur is not None]
    assert 0.1 <= min(radii) < 0.12
    assert 1.95 < max(radii) <= 2
    assert views[0] != views[1]


def test_grey_views_and_local_sizes(files: list[str]) -> None:
    assert [local_size(size) for size in (224, 448, 64, 32)] == [96, 192, 32, 32]
    sample = ChestViews(files, seed=0, channels=1, size=SIZE)[(0, 1)]
    assert sample["input1"].shape == sample["gt1"].shape == (1, SIZE, SIZE)
    assert sample["locals"].shape == (6, 1, 32, 32)
    again = ChestViews(files, seed=0, channels=1, size=SIZE)[(0, 1)]
    assert all(torch.equal(value, again[name]) for name, value in sample.items())
