"""PIL's bilinear resize of a grey image, to the bit, in half of its time.

Why a second implementation stands beside PIL's: two such resizes are more than half of the work on an X-ray
once it is decoded, since PIL's loop over a row's pixels does not vectorise. This one works on 64 rows at a
time. Colour images are PIL's, and so are the few narrow boxes for which the order of PIL's two passes, over
the width and over the height, depends on its version.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

from utils.jit import compiled

PRECISION_BITS = 22  # of PIL's fixed-point weights: 32 bits less 8 of the pixel and 2 to spare
HALF = 1 << (PRECISION_BITS - 1)
ROWS = 64  # that are resized together: as many bytes as lie in a line of the cache


def resize_box(image: np.ndarray, box: tuple[int, int, int, int], size: int) -> np.ndarray:
    """uint8 (size, size): the box (top, left, height, width) of a uint8 (height, width) image, resized.

    Equal to PIL's ``crop`` and then ``resize(..., BILINEAR)``, which averages where it shrinks.
    """
    top, left, height, width = box
    if height - size > max(0, 2 * (width - size)):  # here Pillow 13 shrinks the height first, older ones the width
        part = Image.fromarray(image[top : top + height, left : left + width])
        return np.asarray(part.resize((size, size), Image.Resampling.BILINEAR))
    pixels = np.ascontiguousarray(image)
    if pixels.flags.writeable:  # one kind of argument: numba compiles anew for each
        pixels = pixels.view()
        pixels.flags.writeable = False
    return _resize(pixels, top, left, height, width, size)


@compiled
def _resize(image: np.ndarray, top: int, left: int, height: int, width: int, size: int) -> np.ndarray:
    narrowed = _resize_columns(image, top, left, height, width, size)
    starts, counts, weights = _weights(height, size)
    result = np.empty((size, size), np.uint8)
    _average(narrowed, starts, counts, weights, result)
    return result


@compiled
def _resize_columns(image: np.ndarray, top: int, left: int, height: int, width: int, size: int) -> np.ndarray:
    """uint8 (height, size): the box with its width resized, rounded to 8 bits as PIL does in between."""
    starts, counts, weights = _weights(width, size)
    result = np.empty((height, size), np.uint8)
    words = np.empty((width, ROWS // 8), np.uint64)
    narrowed = np.empty((size, ROWS), np.uint8)
    for first in range(0, height, ROWS):
        rows = min(ROWS, height - first)
        _transpose(image, top + first, left, rows, words)
        _average(words.view(np.uint8), starts, counts, weights, narrowed)
        for r in range(rows):
            row = result[first + r]
            for x in range(size):
                row[x] = narrowed[x, r]
    return result


@compiled
def _transpose(image: np.ndarray, top: int, left: int, rows: int, words: np.ndarray) -> None:
    """Lay rows of the image side by side: ``words``, uint64 (width, 8), seen as bytes is (width, 64).

    Eight bytes are put together and written at once. Where there are fewer rows the last one is repeated.
    """
    width, groups = words.shape
    for group in range(groups):
        for x in range(width):
            word = np.uint64(0)
            for byte in range(8):
                y = top + min(8 * group + byte, rows - 1)
                word |= np.uint64(image[y, left + x]) << np.uint64(8 * byte)
            words[x, group] = word


@compiled
def _average(
    columns: np.ndarray, starts: np.ndarray, counts: np.ndarray, weights: np.ndarray, result: np.ndarray
) -> None:
    """Row by row of ``result``: the weighted sum of ``counts`` rows of ``columns`` from ``starts`` on."""
    size, width = result.shape
    sums = np.empty(width, np.int32)
    for output in range(size):
        sums[:] = HALF
        for i in range(counts[output]):
            row, weight = columns[starts[output] + i], weights[output, i]
            for x in range(width):
                sums[x] += np.int32(row[x]) * weight
        averaged = result[output]
        for x in range(width):
            averaged[x] = sums[x] >> PRECISION_BITS


@compiled
def _weights(length: int, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each of ``size`` outputs: its first input, how many inputs count, and their fixed-point weights.

    A triangle around the output's centre, as wide as an output pixel to either side, at least as an input
    pixel; cut at the image's edges and scaled to the sum 1, in double precision like PIL.
    """
    scale = length / size
    support = max(scale, 1.0)
    starts = np.empty(size, np.int32)
    counts = np.empty(size, np.int32)
    weights = np.zeros((size, 2 * int(np.ceil(support)) + 1), np.int32)
    for output in range(size):
        center = (output + 0.5) * scale
        start = max(int(center - support + 0.5), 0)
        count = min(int(center + support + 0.5), length) - start
        triangle = np.empty(count)
        total = 0.0
        for i in range(count):
            triangle[i] = max(1.0 - abs((i + start - center + 0.5) * (1.0 / support)), 0.0)
            total += triangle[i]
        for i in range(count):
            weights[output, i] = int(0.5 + triangle[i] / total * (1 << PRECISION_BITS))
        starts[output] = start
        counts[output] = count
    return starts, counts, weights
