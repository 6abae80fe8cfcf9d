"""Local shuffling and painting against literal loops, and the distributions of their draws."""

from __future__ import annotations

import random
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.literal import luna_sample as literal
from datasets.transforms.corruption import (
    BLOCKS,
    SMALLEST_AXIS,
    LocalShuffling,
    Painting,
    _shuffle,
    _word,
)
from tests.examples import examples
from utils.seeding import generator

SHAPES = [(64, 64, 32), (32, 40, 16)]
WORD = 2**64


def word(seed: int, index: int) -> int:
    """Word ``index`` of SplitMix64, in Python's integers."""
    word = (seed + (index + 1) * 0x9E3779B97F4A7C15) % WORD
    word = ((word ^ (word >> 30)) * 0xBF58476D1CE4E5B9) % WORD
    word = ((word ^ (word >> 27)) * 0x94D049BB133111EB) % WORD
    return word ^ (word >> 31)


def boxes(sides: np.ndarray, starts: np.ndarray) -> list[tuple[slice, ...]]:
    return [
        tuple(slice(start, start + side) for start, side in zip(one_starts, one_sides, strict=True))
        for one_starts, one_sides in zip(starts.T.tolist(), sides.T.tolist(), strict=True)
    ]


def shuffled_literally(image: np.ndarray, sides: np.ndarray, starts: np.ndarray, seed: int) -> np.ndarray:
    """Python's integers and lists only; each block's voxels come from the original."""
    result = image.copy()
    index = 60_000
    for block in boxes(sides, starts):
        voxels = image[block].ravel().tolist()
        for t in range(len(voxels)):
            chosen = t + ((word(seed, index) >> 32) * (len(voxels) - t) >> 32)
            voxels[t], voxels[chosen] = voxels[chosen], voxels[t]
            index += 1
        result[block] = np.array(voxels, np.float32).reshape(image[block].shape)
    return result


def test_the_words_are_those_of_splitmix64() -> None:
    # The first words that the algorithm's published C code gives from seed 1234567.
    expected = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431]
    assert [word(1234567, index) for index in range(4)] == expected
    assert [int(_word(np.uint64(1234567), index)) for index in range(4)] == expected


@pytest.mark.parametrize("shape", SHAPES)
def test_shuffling_equals_the_literal_loop(shape: tuple[int, ...]) -> None:
    rng = generator(0)
    image = rng.random(shape, dtype=np.float32)
    shuffling = LocalShuffling.sample(rng)
    sides, starts = shuffling.blocks(shape)
    covered = np.zeros(shape, int)
    for block in boxes(sides, starts):
        covered[block] += 1
    assert covered.max() > 5  # blocks overlap
    original = image.copy()
    result = shuffling.apply(image)
    np.testing.assert_array_equal(result, shuffled_literally(image, sides, starts, shuffling.seed))
    np.testing.assert_array_equal(result[covered == 0], image[covered == 0])
    np.testing.assert_array_equal(image, original)


@settings(deadline=None, max_examples=examples(30), derandomize=True)
@given(seed=st.integers(0, 2**63 - 1), blocks=st.integers(1, 12))
def test_shuffling_of_few_large_blocks_equals_the_literal_loop(seed: int, blocks: int) -> None:
    rng = generator(seed)
    shape = (7, 9, 5)
    image = rng.random(shape, dtype=np.float32)
    sides = rng.integers(1, 6, (3, blocks)).astype(np.int32)
    starts = rng.integers(0, np.array(shape)[:, None] - sides + 1).astype(np.int32)
    result = _shuffle(image, sides, starts, np.uint64(seed))
    np.testing.assert_array_equal(result, shuffled_literally(image, sides, starts, seed))


def test_every_permutation_is_equally_likely() -> None:
    rng = generator(0)
    image = np.zeros((14, 14, 14), np.float32)
    image[3:5, 4, 5:7] = [[1, 2], [3, 4]]
    sides = np.array([[2], [1], [2]], np.int32)
    starts = np.array([[3], [4], [5]], np.int32)
    counts: Counter[tuple[float, ...]] = Counter()
    for _ in range(4800):
        result = _shuffle(image, sides, starts, np.uint64(LocalShuffling.sample(rng).seed))
        counts[tuple(result[3:5, 4, 5:7].ravel().tolist())] += 1
    assert len(counts) == 24
    chi_squared = sum((count - 200) ** 2 / 200 for count in counts.values())
    assert chi_squared < 49.7  # 23 degrees of freedom: exceeded once in a thousand


@pytest.mark.parametrize("shape", SHAPES)
def test_blocks_are_uniform_with_both_ends(shape: tuple[int, ...]) -> None:
    all_sides, all_starts = LocalShuffling.sample(generator(0)).blocks(shape)
    assert all_sides.shape == all_starts.shape == (3, BLOCKS)
    for size, sides, starts in zip(shape, all_sides, all_starts, strict=True):
        values, counts = np.unique(sides, return_counts=True)
        assert values.tolist() == list(range(1, size // 10 + 1))
        assert np.abs(counts * len(values) / BLOCKS - 1).max() < 0.1
        for side in values:
            assert set(starts[sides == side]) == set(range(size - side + 1))
    relative = all_starts / (np.array(shape)[:, None] - all_sides)
    varying = [row for row in (*all_sides, *relative) if np.ptp(row) > 0]
    assert np.abs(np.corrcoef(varying) - np.eye(len(varying))).max() < 0.04


def test_shuffling_moves_as_many_voxels_as_far_as_the_literal_one() -> None:
    places = np.arange(64 * 64 * 32, dtype=np.float32).reshape(64, 64, 32)
    rng = generator(0)
    ours = LocalShuffling.sample(rng).apply(places)
    random.seed(0)  # which the literal one draws blocks by
    plain = literal.shuffle_locally(places, rng)

    def statistics(result: np.ndarray) -> list[float]:
        before = np.unravel_index(result.astype(int).ravel(), places.shape)
        after = np.unravel_index(places.astype(int).ravel(), places.shape)
        steps = [np.abs(b - a).mean() for b, a in zip(before, after, strict=True)]
        return [float((result != places).mean()), *steps]

    np.testing.assert_allclose(statistics(ours), statistics(plain), rtol=0.03)


@pytest.mark.parametrize("inside", [True, False])
def test_painting_equals_the_literal_loop(inside: bool) -> None:
    rng = generator(0)
    for _ in range(20):
        image = rng.random((20, 16, 14), dtype=np.float32)
        painting = Painting.sample(image.shape, inside, rng)
        expected, noise = image.copy(), painting.noise(image.shape)
        for place in np.ndindex(image.shape):
            in_a_box = any(
                all(side.start <= i < side.stop for i, side in zip(place, box, strict=True))
                for box in boxes(painting.sides, painting.starts)
            )
            if in_a_box == inside:
                expected[place] = noise[place]
        np.testing.assert_array_equal(painting.apply(image), expected)


@pytest.mark.parametrize("inside", [True, False])
def test_number_of_boxes(inside: bool) -> None:
    rng = generator(0)
    counts = Counter(Painting.sample((14, 14, 14), inside, rng).sides.shape[1] for _ in range(20_000))
    certain = 0 if inside else 1
    assert set(counts) == set(range(certain, 6))
    for number, count in counts.items():
        further = number - certain
        expected = 0.95**further * (0.05 if number < 5 else 1)
        assert abs(count / 20_000 - expected) < 4 * np.sqrt(expected * (1 - expected) / 20_000)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("inside", [True, False])
def test_boxes_are_uniform_with_both_ends(inside: bool, shape: tuple[int, ...]) -> None:
    rng = generator(0)
    paintings = [Painting.sample(shape, inside, rng) for _ in range(600)]
    all_sides = np.concatenate([painting.sides for painting in paintings], axis=1)
    all_starts = np.concatenate([painting.starts for painting in paintings], axis=1)
    for size, sides, starts in zip(shape, all_sides, all_starts, strict=True):
        possible = list(range(size // 6, size // 3 + 1))
        if not inside:
            possible = [size - part for part in range(3 * size // 7, 4 * size // 7 + 1)]
        values, counts = np.unique(sides, return_counts=True)
        assert values.tolist() == sorted(possible)
        assert np.abs(counts * len(values) / counts.sum() - 1).max() < 0.3
        assert starts.min() == 3
        assert (size - starts - sides).min() == 3
        middle = (starts - 3) / np.maximum(size - sides - 6, 1)
        assert abs(middle[size - sides > 6].mean() - 0.5) < 0.03


def test_noise_is_uniform_in_0_1() -> None:
    rng = generator(0)
    noise, other = (Painting.sample((64, 64, 32), False, rng).noise((64, 64, 32)) for _ in range(2))
    assert noise.dtype == np.float32
    assert 0 <= noise.min() < 1e-3
    assert 1 - 1e-3 < noise.max() < 1
    assert np.abs(np.quantile(noise, [0.25, 0.5, 0.75]) - [0.25, 0.5, 0.75]).max() < 0.01
    for shifted in (other, *(np.roll(noise, 1, axis) for axis in range(3))):
        assert abs(np.corrcoef(noise.ravel(), shifted.ravel())[0, 1]) < 0.015


def test_the_smallest_axis_leaves_room_for_every_box() -> None:
    rng = generator(0)
    for inside in (True, False):
        for _ in range(200):
            painting = Painting.sample((SMALLEST_AXIS,) * 3, inside, rng)
            assert (painting.starts >= 3).all()
            assert (painting.starts + painting.sides <= SMALLEST_AXIS - 3).all()
