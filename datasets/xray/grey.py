"""Grey values: more than 8 bits become 8, colour of equal channels becomes grey."""

from __future__ import annotations

import numpy as np


def grey_if_equal(pixels: np.ndarray) -> np.ndarray:
    """(height, width) of an RGB image whose three channels are equal; any other as it is."""
    red, green, blue = (pixels[..., channel] for channel in range(3))
    equal = np.array_equal(red, green) and np.array_equal(red, blue)
    return np.ascontiguousarray(red) if equal else pixels


def eight_bits(pixels: np.ndarray, low: float | None = None, high: float | None = None) -> np.ndarray:
    """uint8 of the same shape: linear, ``low`` and below to 0, ``high`` and above to 255.

    They are the smallest and the largest value unless given; where they are equal, that value and below are 0 and
    what is above is 255. ValueError if the values are not finite.
    """
    low = float(pixels.min()) if low is None else float(low)
    high = float(pixels.max()) if high is None else float(high)
    if not np.isfinite([low, high]).all():
        raise ValueError("it has values that are not finite numbers")
    if high <= low:
        return np.where(pixels > low, 255, 0).astype(np.uint8)
    return np.rint(np.clip((pixels.astype(np.float64) - low) / (high - low), 0, 1) * 255).astype(np.uint8)
