"""The fast Gaussian blur against PIL's, which it must equal to the bit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFilter

from datasets.transforms.gaussian import gaussian_blur
from tests.examples import examples


def by_pil(image: np.ndarray, sigma: float) -> np.ndarray:
    return np.asarray(Image.fromarray(image).filter(ImageFilter.GaussianBlur(sigma)))


@settings(deadline=None, max_examples=examples(300), derandomize=True)
@given(
    shape=st.tuples(st.integers(1, 80), st.integers(1, 80)),
    sigma=st.floats(0.1, 2) | st.floats(0.01, 30),
    seed=st.integers(0, 1000),
)
def test_any_image_and_any_radius_equal_pil(shape: tuple[int, int], sigma: float, seed: int) -> None:
    image = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    before = image.copy()
    np.testing.assert_array_equal(gaussian_blur(image, sigma), by_pil(image, sigma))
    np.testing.assert_array_equal(image, before)


@pytest.mark.parametrize("sigma", [0.1, 0.8, 1.3, 2.0])
def test_a_view_equals_pil(sigma: float) -> None:
    image = np.random.default_rng(0).integers(0, 256, (224, 224), dtype=np.uint8)
    image.flags.writeable = False
    np.testing.assert_array_equal(gaussian_blur(image, sigma), by_pil(image, sigma))


@pytest.mark.parametrize("value", [0, 255])
def test_a_flat_image_stays(value: int) -> None:
    image = np.full((50, 40), value, np.uint8)
    np.testing.assert_array_equal(gaussian_blur(image, 1.7), image)


def test_it_is_close_to_a_gaussian() -> None:
    image = np.zeros((41, 41), np.uint8)
    image[20, 20] = 255
    place = np.arange(-20, 21)
    for sigma in (1.0, 2.0):
        bell = np.exp(-(place**2) / (2 * sigma**2))
        expected = 255 * np.outer(bell, bell) / bell.sum() ** 2
        np.testing.assert_allclose(gaussian_blur(image, sigma), expected, atol=0.08 * expected.max() + 1)
