"""The spatial transform and its code: exact, invertible, and in the stated order."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datasets.transforms.spatial import SpatialTransform
from tests.examples import examples
from utils.seeding import generator

ALL = {
    dims: [
        SpatialTransform(flips, turns) for flips in itertools.product((False, True), repeat=dims) for turns in range(4)
    ]
    for dims in (2, 3)
}


@pytest.mark.parametrize("transform", ALL[2], ids=str)
def test_2d_is_vertical_flip_then_horizontal_then_rot90(transform: SpatialTransform) -> None:
    image = np.arange(2 * 5 * 5).reshape(2, 5, 5)
    for channel, result in zip(image, transform.apply(image), strict=True):
        expected = channel
        if transform.flips[0]:
            expected = expected[::-1, :]
        if transform.flips[1]:
            expected = expected[:, ::-1]
        np.testing.assert_array_equal(result, np.rot90(expected, transform.turns))


@pytest.mark.parametrize("transform", ALL[3], ids=str)
def test_3d_is_flips_of_x_y_z_then_rot90_from_x_to_y(transform: SpatialTransform) -> None:
    image = np.arange(4 * 4 * 3).reshape(1, 4, 4, 3)
    expected = image[0]
    for axis, flip in enumerate(transform.flips):
        if flip:
            expected = np.flip(expected, axis)
    np.testing.assert_array_equal(transform.apply(image)[0], np.rot90(expected, transform.turns, (0, 1)))


@settings(deadline=None, max_examples=examples(60), derandomize=True)
@given(data=st.data(), dims=st.sampled_from([2, 3]), channels=st.integers(1, 3), seed=st.integers(0, 2**32))
def test_code_and_inverse_are_exact(data: st.DataObject, dims: int, channels: int, seed: int) -> None:
    shape = tuple(data.draw(st.lists(st.integers(1, 9), min_size=dims, max_size=dims)))
    rng = np.random.default_rng(seed)
    transform = SpatialTransform.sample(shape, rng)
    image = rng.random((channels, *shape))
    moved = transform.apply(image)
    assert moved.shape == image.shape
    np.testing.assert_array_equal(transform.invert(moved), image)
    assert transform.code.dtype == np.float32
    assert transform.code.shape == (dims + 4,)
    again = SpatialTransform.from_code(transform.code)
    assert again == transform
    np.testing.assert_array_equal(again.apply(image), moved)


def test_the_code_lists_flips_then_the_turn() -> None:
    assert SpatialTransform((True, False), 2).code.tolist() == [1, 0, 0, 0, 1, 0]
    assert SpatialTransform((False, True, True), 3).code.tolist() == [0, 1, 1, 0, 0, 0, 1]


@pytest.mark.parametrize(("shape", "turns"), [((8, 8), {0, 1, 2, 3}), ((8, 8, 4), {0, 1, 2, 3}), ((8, 6, 6), {0, 2})])
def test_every_transform_is_equally_likely(shape: tuple[int, ...], turns: set[int]) -> None:
    rng = generator(0, "spatial", *shape)
    draws = 4000
    drawn = [SpatialTransform.sample(shape, rng) for _ in range(draws)]
    kinds = {transform: drawn.count(transform) for transform in set(drawn)}
    assert len(kinds) == 2 ** len(shape) * len(turns)
    assert {transform.turns for transform in kinds} == turns
    expected = draws / len(kinds)
    statistic = sum((count - expected) ** 2 / expected for count in kinds.values())  # chi-square
    assert statistic < len(kinds) + 4 * np.sqrt(2 * len(kinds))
