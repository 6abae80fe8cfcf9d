"""The Gaussian blur against scipy's and TorchIO's, given the same standard deviations."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torchio
from scipy import ndimage

from datasets.transforms.blur import GaussianBlur
from utils.seeding import generator

STDS = [(0, 0, 0), (0.1, 1.9, 0), (2, 2, 2), (0.124, 0.126, 0.5), (1e-20, 1, 1.5), (0.3, 0.6, 1.2)]


@pytest.mark.parametrize("shape", [(64, 64, 32), (33, 20, 14), (6, 3, 1)])
@pytest.mark.parametrize("stds", STDS)
def test_equals_scipy(shape: tuple[int, ...], stds: tuple[float, ...]) -> None:
    # The last shape is shorter than the kernel, which then meets the mirror images of mirror images.
    image = generator(0).random(shape, dtype=np.float32)
    result = GaussianBlur(np.array(stds)).apply(image)
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, ndimage.gaussian_filter(image, stds), rtol=0, atol=1e-6)


def test_equals_torchio() -> None:
    rng = generator(0)
    for _ in range(20):
        image = rng.random((64, 64, 32), dtype=np.float32)
        blur = GaussianBlur.sample(rng)
        expected = torchio.Blur(std=tuple(blur.stds))(torch.from_numpy(image.copy())[None])[0].numpy()
        np.testing.assert_allclose(blur.apply(image), expected, rtol=0, atol=1e-5)


def test_draws() -> None:
    rng = generator(0)
    stds = np.array([GaussianBlur.sample(rng).stds for _ in range(2000)])
    assert stds.min() >= 0
    assert stds.max() <= 2
    quarters = np.quantile(stds, [0.25, 0.5, 0.75], axis=0)
    assert np.abs(quarters - np.array([[0.5], [1.0], [1.5]])).max() < 0.08
    assert np.abs(np.corrcoef(stds.T) - np.eye(3)).max() < 0.1  # each axis has its own draw
