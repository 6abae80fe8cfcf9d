"""One view of an X-ray to learn from with labels, or to judge: gentler than the views of pre-training."""

from __future__ import annotations

import numpy as np
from PIL import Image

from datasets.transforms.xray import DEGREES, FLIP_P, crop, normalise, sample_box

AREA = (0.5, 1.0)  # of the crop, as part of the image: findings may be at the border


def augmented_view(
    image: np.ndarray, channels: int, size: int, rng: np.random.Generator, mirror: bool = True
) -> np.ndarray:
    """A random crop, turned by up to 10 degrees and, with ``mirror``, flipped with p 0.5: (channels, size, size)."""
    height, width = image.shape[:2]
    view = crop(image, sample_box(height, width, rng, AREA), size, channels)
    view = view.rotate(rng.uniform(-DEGREES, DEGREES), Image.Resampling.BILINEAR)
    if rng.random() < FLIP_P and mirror:
        view = view.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return normalise(np.asarray(view), channels)


def plain_view(image: np.ndarray, channels: int, size: int) -> np.ndarray:
    """The whole image, resized: float32 (channels, size, size).

    One that is not square keeps its shape, as the crops to learn from do on average: its long side becomes ``size``,
    and black is beside it, as beside what was turned.
    """
    height, width = image.shape[:2]
    if height == width:
        return normalise(np.asarray(crop(image, (0, 0, height, width), size, channels)), channels)
    whole = Image.fromarray(image)
    if channels == 1:
        whole = whole.convert("L")
    sides = tuple(max(1, round(side * size / max(height, width))) for side in (width, height))
    view = Image.new(whole.mode, (size, size))
    view.paste(whole.resize(sides, Image.Resampling.BILINEAR), tuple((size - side) // 2 for side in sides))
    return normalise(np.asarray(view), channels)
