"""The augmentation of a pair of crops as a whole."""

from __future__ import annotations

import numpy as np
import pytest

from datasets.transforms.crops import sample_pair
from datasets.transforms.spatial import SpatialTransform
from utils.seeding import generator

SMALL = (16, 16, 14)


def test_frequencies() -> None:
    rng = generator(0)
    pairs = [sample_pair(SMALL, rng) for _ in range(3000)]
    painted = [one.painting is not None for one, _ in pairs]
    assert painted == [two.painting is not None for _, two in pairs]
    assert abs(np.mean(painted) - 0.9) < 0.02
    inside = [(one.painting.inside, two.painting.inside) for one, two in pairs if one.painting and two.painting]
    assert all(first == second for first, second in inside)
    assert abs(np.mean(inside) - 0.2) < 0.03
    shuffled = np.array([[crop.shuffling is not None for crop in pair] for pair in pairs])
    assert np.abs(shuffled.mean(axis=0) - 0.5).max() < 0.04
    assert abs((shuffled[:, 0] == shuffled[:, 1]).mean() - 0.5) < 0.04  # drawn for each crop
    flips = np.array([[crop.spatial.flips for crop in pair] for pair in pairs]).reshape(len(pairs), -1)
    assert np.abs(flips.mean(axis=0) - 0.5).max() < 0.04
    turns = np.array([[crop.spatial.turns for crop in pair] for pair in pairs])
    assert np.abs(np.bincount(turns.ravel()) / turns.size - 0.25).max() < 0.03


def test_what_the_crops_of_a_pair_do_not_share() -> None:
    rng = generator(0)
    one, two = sample_pair(SMALL, rng)
    while one.painting is None or two.painting is None or one.shuffling is None or two.shuffling is None:
        one, two = sample_pair(SMALL, rng)
    assert one.painting.seed != two.painting.seed
    assert (one.affine.degrees != two.affine.degrees).all()
    assert (one.blur.stds != two.blur.stds).all()
    assert one.shuffling.seed != two.shuffling.seed


@pytest.mark.parametrize("shape", [(64, 64, 32), (32, 32, 16), (24, 40, 14)])
def test_steps_in_their_order(shape: tuple[int, ...]) -> None:
    rng = generator(0)
    crop = rng.random(shape, dtype=np.float32)
    original = crop.copy()
    for _ in range(4):
        for augmentation in sample_pair(shape, rng):
            image, target = augmentation.apply(crop)
            expected = augmentation.blur.apply(augmentation.affine.apply(crop))
            for step in (augmentation.shuffling, augmentation.painting):
                expected = expected if step is None else step.apply(expected)
            np.testing.assert_array_equal(image, expected)
            assert image.shape == target.shape == shape
            spatial = SpatialTransform.from_code(augmentation.spatial.code)
            np.testing.assert_array_equal(spatial.invert(target), image)
            assert image.flags.c_contiguous
            assert target.flags.c_contiguous
            assert not np.shares_memory(image, target)
            assert not np.shares_memory(image, crop)
    np.testing.assert_array_equal(crop, original)
