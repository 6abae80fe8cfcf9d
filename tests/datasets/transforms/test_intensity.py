"""Noise, gamma, swaps and normalisation, against TorchIO with the same draws, and how draws are distributed."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torchio

from datasets.transforms.intensity import SWAPS, Gamma, Noise, Swaps, z_normalise


def crop(seed: int = 0, low: float = 0.0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(low, 1, (20, 18, 12)).astype(np.float32)


def test_noise_is_normal_and_depends_on_its_seed_alone() -> None:
    rng = np.random.default_rng(0)
    drawn = [Noise.sample(rng) for _ in range(2000)]
    stds = np.array([noise.std for noise in drawn])
    assert 0 <= stds.min() < 0.01
    assert 0.24 < stds.max() < 0.25
    assert stds.mean() == pytest.approx(0.125, abs=0.005)
    values = drawn[0].values((64, 64, 32))
    assert values.dtype == np.float32
    assert values.mean() == pytest.approx(0, abs=0.01)
    assert values.std() == pytest.approx(1, abs=0.01)
    assert np.mean(np.abs(values) < 1) == pytest.approx(math.erf(1 / math.sqrt(2)), abs=0.005)
    assert (values**4).mean() == pytest.approx(3, abs=0.1)
    assert abs(np.corrcoef(values[:-1].ravel(), values[1:].ravel())[0, 1]) < 0.01
    assert np.array_equal(values, Noise(1.0, drawn[0].seed).values((64, 64, 32)))
    assert not np.array_equal(values, drawn[1].values((64, 64, 32)))
    np.testing.assert_allclose(
        Noise(0.5, 3).apply(crop()), crop() + 0.5 * Noise(1.0, 3).values((20, 18, 12)), atol=1e-6
    )


@pytest.mark.parametrize("low", [0.0, -0.5])
def test_gamma_equals_torchio(low: float) -> None:
    rng = np.random.default_rng(0)
    for _ in range(5):
        gamma, image = Gamma.sample(rng), crop(low=low)
        expected = torchio.Gamma(gamma=gamma.gamma)(torch.from_numpy(image.copy())[None])[0].numpy()
        np.testing.assert_allclose(gamma.apply(image), expected, rtol=1e-5, atol=1e-6)
    logs = np.log([Gamma.sample(rng).gamma for _ in range(2000)])
    assert -0.3 <= logs.min() < -0.29
    assert 0.29 < logs.max() <= 0.3
    assert logs.mean() == pytest.approx(0, abs=0.02)


def test_swaps_equal_torchio_and_overlaps_are_well_defined() -> None:
    """TorchIO copies overlapping boxes within one memory, whose result is up to the machine: they are done by hand."""
    drawn, image = Swaps.sample((20, 18, 12), np.random.default_rng(0)), crop()
    apart = (np.abs(drawn.starts[:, 0] - drawn.starts[:, 1]) >= drawn.size).any(axis=1)
    assert 0 < apart.sum() < SWAPS
    swaps = Swaps(drawn.size, drawn.starts[apart])
    pairs = [tuple(map(tuple, pair.tolist())) for pair in swaps.starts]
    expected = torchio.Swap(patch_size=swaps.size, locations=pairs)(torch.from_numpy(image.copy())[None])[0].numpy()
    assert np.array_equal(swaps.apply(image), expected)
    overlap = Swaps((8, 4, 4), np.array([[[0, 0, 0], [2, 1, 0]]]))
    by_hand = image.copy()
    by_hand[2:10, 1:5, :4] = image[:8, :4, :4]
    by_hand[:8, :4, :4] = image[2:10, 1:5, :4]
    assert np.array_equal(overlap.apply(image), by_hand)


def test_swapped_boxes_differ_and_never_start_last() -> None:
    rng = np.random.default_rng(0)
    starts = np.concatenate([Swaps.sample((10, 6, 6), rng).starts for _ in range(50)])
    assert len(starts) == 50 * SWAPS
    assert not (starts[:, 0] == starts[:, 1]).all(axis=1).any()
    for axis, room in enumerate((2, 2, 2)):
        assert set(np.unique(starts[:, :, axis])) == set(range(room))
        assert np.mean(starts[:, 0, axis]) == pytest.approx(0.5, abs=0.03)
    alone = Swaps.sample((9, 5, 5), rng)  # one place each: the boxes must be the same
    assert not alone.starts.any()


def test_normalisation_equals_torchio() -> None:
    image = crop()
    expected = torchio.ZNormalization()(torch.from_numpy(image.copy())[None])[0].numpy()
    np.testing.assert_allclose(z_normalise(image), expected, rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match="constant"):
        z_normalise(np.ones((4, 4, 4), np.float32))
