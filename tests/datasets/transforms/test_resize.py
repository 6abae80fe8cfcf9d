"""The fast resize against PIL's, which it must equal to the bit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from datasets.transforms.resize import resize_box
from tests.examples import examples


def by_pil(image: np.ndarray, box: tuple[int, int, int, int], size: int) -> np.ndarray:
    top, left, height, width = box
    part = Image.fromarray(image).crop((left, top, left + width, top + height))
    return np.asarray(part.resize((size, size), Image.Resampling.BILINEAR))


@settings(deadline=None, max_examples=examples(200), derandomize=True)
@given(data=st.data(), size=st.sampled_from([1, 16, 64, 224]), seed=st.integers(0, 1000))
def test_any_box_of_any_image_equals_pil(data: st.DataObject, size: int, seed: int) -> None:
    height, width = data.draw(st.integers(1, 700)), data.draw(st.integers(1, 700))
    box_height, box_width = data.draw(st.integers(1, height)), data.draw(st.integers(1, width))
    box = (
        data.draw(st.integers(0, height - box_height)),
        data.draw(st.integers(0, width - box_width)),
        box_height,
        box_width,
    )
    image = np.random.default_rng(seed).integers(0, 256, (height, width), dtype=np.uint8)
    np.testing.assert_array_equal(resize_box(image, box, size), by_pil(image, box, size))


@pytest.mark.parametrize("box", [(0, 0, 1024, 1024), (3, 5, 1000, 900), (0, 0, 224, 224), (100, 7, 528, 396)], ids=str)
@pytest.mark.parametrize("values", [(0, 256), (0, 2), (255, 256)], ids=["noise", "dark", "white"])
def test_boxes_of_a_full_x_ray_equal_pil(box: tuple[int, int, int, int], values: tuple[int, int]) -> None:
    image = np.random.default_rng(0).integers(*values, (1024, 1024), dtype=np.uint8)
    np.testing.assert_array_equal(resize_box(image, box, 224), by_pil(image, box, 224))


def test_memory_of_every_kind_will_do() -> None:
    image = np.random.default_rng(0).integers(0, 256, (400, 300), dtype=np.uint8)
    expected = by_pil(image, (10, 20, 300, 250), 224)
    locked = image.copy()
    locked.flags.writeable = False
    for other in (image, locked, np.asfortranarray(image), image.repeat(2, axis=1)[:, ::2]):
        np.testing.assert_array_equal(resize_box(other, (10, 20, 300, 250), 224), expected)
    assert image.flags.writeable
