"""The affine transform against TorchIO's own, given the same parameters."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torchio
from hypothesis import given, settings
from hypothesis import strategies as st

from datasets.transforms.affine import Affine
from tests.examples import examples
from utils.seeding import generator


def by_torchio(image: np.ndarray, affine: Affine) -> np.ndarray:
    tensor = torch.from_numpy(image.copy())[None]
    if affine.flip:
        tensor = torchio.Flip(axes=0)(tensor)
    transform = torchio.Affine(scales=affine.scales, degrees=affine.degrees, translation=(0, 0, 0))
    return transform(tensor)[0].numpy()


@pytest.mark.parametrize("shape", [(64, 64, 32), (19, 32, 16)])
def test_equals_torchio_borders_included(shape: tuple[int, ...]) -> None:
    rng = generator(0, "affine", *shape)
    flips = []
    for _ in range(20):
        image = (0.25 + 0.5 * rng.random(shape)).astype(np.float32)
        affine = Affine.sample(rng)
        result, expected = affine.apply(image), by_torchio(image, affine)
        assert result.dtype == np.float32
        np.testing.assert_allclose(result, expected, rtol=0, atol=1e-5)
        flips.append(affine.flip)
    assert {True, False} == set(flips)


def test_outside_is_the_crops_minimum_and_half_a_voxel_still_inside() -> None:
    image = np.full((16, 16, 16), 0.5, np.float32)
    image[8, 8, 8] = 0.25
    shrunk = Affine(False, np.array([0.5, 1.0, 1.0]), np.zeros(3)).apply(image)
    # Half the size about the centre 7.5: the image's cells, 0..16 from their outer faces, end at 4 and 12.
    assert (shrunk[:4] == 0.25).all()
    assert (shrunk[12:] == 0.25).all()
    assert (shrunk[4:12, 0] == 0.5).all()


def test_no_change_is_exact() -> None:
    image = generator(0).random((14, 15, 16), dtype=np.float32)
    np.testing.assert_array_equal(Affine(False, np.ones(3), np.zeros(3)).apply(image), image)
    np.testing.assert_array_equal(Affine(True, np.ones(3), np.zeros(3)).apply(image), image[::-1])


def test_a_quarter_turn_about_the_third_axis_is_rot90() -> None:
    image = generator(0).random((16, 16, 14), dtype=np.float32)
    turned = Affine(False, np.ones(3), np.array([0.0, 0.0, 90.0])).apply(image)
    np.testing.assert_allclose(turned, np.rot90(image), atol=1e-6)


@settings(deadline=None, max_examples=examples(20), derandomize=True)
@given(shape=st.tuples(*[st.integers(2, 20)] * 3), seed=st.integers(0, 2**32))
def test_values_stay_between_the_smallest_and_the_largest(shape: tuple[int, ...], seed: int) -> None:
    rng = generator(seed)
    image = rng.random(shape, dtype=np.float32)
    result = Affine.sample(rng).apply(image)
    assert result.shape == shape
    assert result.min() >= image.min()
    assert result.max() <= image.max() + 1e-6


def test_draws() -> None:
    rng = generator(0)
    draws = [Affine.sample(rng) for _ in range(2000)]
    scales = np.array([draw.scales for draw in draws])
    degrees = np.array([draw.degrees for draw in draws])
    assert abs(np.mean([draw.flip for draw in draws]) - 0.5) < 0.05
    for values, low, high in ((scales, 0.9, 1.1), (degrees, -10, 10)):
        assert values.min() >= low
        assert values.max() <= high
        quarters = np.quantile(values, [0.25, 0.5, 0.75], axis=0)
        expected = low + (high - low) * np.array([0.25, 0.5, 0.75])
        assert np.abs(quarters - expected[:, None]).max() < 0.04 * (high - low)
        assert np.abs(np.corrcoef(values.T) - np.eye(3)).max() < 0.1  # each axis has its own draw
