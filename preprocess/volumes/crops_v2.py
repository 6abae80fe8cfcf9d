"""The crops of PCRLv2: pairs of overlapping boxes of other sizes than in ``crops.py``, and small local boxes.

Arrays are (x, y, z) at 1 mm. A pair's union is the smallest box around its two boxes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
from skimage.transform import resize

from preprocess.volumes.crops import PUBLISHED_CROP, Boxes, Pair, Window, feasible_boxes

BOXES = ((96, 96, 64), (96, 96, 96), (112, 112, 64), (64, 64, 32))
MIN_IOU = 0.3
LOCALS = 6  # of a pair
LOCAL_BOXES = np.array(((32, 32, 16), (16, 16, 16), (32, 32, 32), (8, 8, 8)))
LOCAL_CROP = (16, 16, 16)
MARGIN = 3  # voxels beyond the union where a local box may start


class CropsV2(NamedTuple):
    """A ``pair``, and its local crops, float32 (6, 16, 16, 16) in [0, 1], with their boxes, (6, 3) each."""

    pair: Pair
    crops: np.ndarray
    starts: np.ndarray
    sizes: np.ndarray


def feasible_boxes_v2(shape: tuple[int, ...], nominal: tuple[int, ...] = PUBLISHED_CROP) -> Boxes:
    """The boxes of a pair that fit into a scan of this ``shape``, perhaps none; ``nominal``: as in ``crops.py``."""
    return feasible_boxes(shape, nominal, BOXES)


def region(boxes: Boxes, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """First voxel and end of the part of a scan of this ``shape`` that pairs and their local boxes can reach."""
    first, end = boxes.region()
    return np.maximum(first - MARGIN, 0), np.minimum(end + MARGIN + LOCAL_BOXES.max(axis=0), shape)


def draw_locals(
    starts: np.ndarray, sizes: np.ndarray, shape: tuple[int, ...], rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Starts and sizes, (6, 3) each, of the local boxes of a pair's ``starts`` and ``sizes`` in a scan of ``shape``.

    A start is uniform within the union and 3 voxels around it, and within the scan; a box may reach out of both. No
    box depends on what it would hold. The extra slices of a pair's boxes do not count.
    """
    first = np.maximum(starts.min(axis=0) - MARGIN, 0)
    end = np.minimum((starts + sizes).max(axis=0) + MARGIN, shape)
    return rng.integers(first, end, (LOCALS, 3)), LOCAL_BOXES[rng.integers(len(LOCAL_BOXES), size=LOCALS)]


def cut_local(volume: np.ndarray, start: np.ndarray, size: np.ndarray, window: Window) -> np.ndarray:
    """A local box of ``volume``, shorter at its end, clipped to the window: float32 (16, 16, 16) in [0, 1].

    Always resized as scikit-image does (linear, anti-aliased), without context slices.
    """
    box = volume[tuple(slice(s, s + n) for s, n in zip(start, size, strict=True))]
    clipped = np.clip(box.astype(np.float32), window.low, window.high)
    return window.scale(resize(clipped, LOCAL_CROP, order=1, anti_aliasing=True, preserve_range=True))


def with_locals(
    pairs: Iterable[Pair],
    volume: np.ndarray,
    origin: np.ndarray,
    scan_shape: tuple[int, ...],
    window: Window,
    rng: np.random.Generator,
) -> Iterator[CropsV2]:
    """Yield each pair of a scan of ``scan_shape`` with its local crops.

    ``volume`` is the part of the scan from voxel ``origin`` on that :func:`region` says.
    """
    for pair in pairs:
        starts, sizes = draw_locals(pair.starts, pair.sizes, scan_shape, rng)
        crops = [cut_local(volume, start - origin, size, window) for start, size in zip(starts, sizes, strict=True)]
        yield CropsV2(pair, np.stack(crops), starts, sizes)
