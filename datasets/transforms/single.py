"""One view of an X-ray to learn from with labels, or to judge: gentler than the views of pre-training."""

from __future__ import annotations

import numpy as np
from PIL import Image

from datasets.transforms.xray import DEGREES, FLIP_P, crop, normalise, sample_box

AREA = (0.5, 1.0)  # of the crop, as part of the image: findings may be at the border


def augmented_view(image: np.ndarray, channels: int, size: int, rng: np.random.Generator) -> np.ndarray:
    """A random crop, turned by up to 10 degrees and flipped with p 0.5: float32 (channels, size, size)."""
    height, width = image.shape[:2]
    view = crop(image, sample_box(height, width, rng, AREA), size, channels)
    view = view.rotate(rng.uniform(-DEGREES, DEGREES), Image.Resampling.BILINEAR)
    if rng.random() < FLIP_P:
        view = view.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return normalise(np.asarray(view), channels)


def plain_view(image: np.ndarray, channels: int, size: int) -> np.ndarray:
    """The whole image, resized: float32 (channels, size, size)."""
    return normalise(np.asarray(crop(image, (0, 0, *image.shape[:2]), size, channels)), channels)
