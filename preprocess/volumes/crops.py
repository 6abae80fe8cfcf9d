"""Draw pairs of overlapping boxes from a scan and make crops of one shape out of them.

Arrays are (x, y, z) at 1 mm, so that a voxel is a millimetre. A box is its start (its first
voxel) and its size, three integers each; a pair of boxes is an array of starts and one of sizes, both (2, 3).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from itertools import islice
from typing import NamedTuple

import numpy as np
from skimage.transform import resize as skimage_resize

from utils.jit import compiled

PUBLISHED_CROP = (64, 64, 32)
PUBLISHED_BOXES = ((64, 64, 32), (96, 96, 48), (96, 96, 96), (32, 32, 16), (112, 112, 64))
REDUCTION = 32  # taken off x and y of a published box where a scan is too narrow for it
CONTEXT = 3  # further slices above a box that are cut and resized with it
LOWER_BORDER = np.array((70, 70, 15))  # voxels that no box enters, where a scan is large enough
UPPER_BORDER = np.array((71, 71, 16))  # the same at the far end, beyond the context slices
MIN_IOU = 0.25
MAX_TISSUE = 0.15  # of the voxels of a box

DRAWS_AT_ONCE = 4096
MAX_DRAWS = 2**24  # pairs of boxes drawn for one scan before it is given up: two seconds
ROWS_AT_ONCE = 8  # of a crop, while a box is resized
MAX_TRIES = 250  # overlapping pairs cut for one scan before it is given up, times the pairs wanted


class Boxes(NamedTuple):
    """The boxes that may be drawn in one scan: sizes, first and last start, each of shape (boxes, 3)."""

    sizes: np.ndarray
    first: np.ndarray
    last: np.ndarray

    def region(self) -> tuple[np.ndarray, np.ndarray]:
        """First voxel and end of the part of the scan that the boxes and their context can reach."""
        ends = self.last + self.sizes + (0, 0, CONTEXT)
        return self.first.min(axis=0), ends.max(axis=0)


class Window(NamedTuple):
    """Voxels are clipped to ``low``..``high``; those from ``tissue`` on count as tissue (None: no such rule)."""

    low: float
    high: float
    tissue: float | None

    def scale(self, crop: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """From ``low``..``high`` to [0, 1]: a float32 crop (x, y, z) in place, or into ``out`` of the same shape."""
        out = crop if out is None else out
        _scale(crop, np.float32(self.low), np.float32(self.high - self.low), out)
        return out


class Pair(NamedTuple):
    """Two crops, float32 (2, rows, cols, deps) in [0, 1], and their boxes, each (2, 3), in voxels of the scan."""

    crops: np.ndarray
    starts: np.ndarray
    sizes: np.ndarray


def feasible_boxes(
    shape: tuple[int, ...],
    nominal: tuple[int, ...] = PUBLISHED_CROP,
    published_boxes: Sequence[tuple[int, ...]] = PUBLISHED_BOXES,
) -> Boxes:
    """The ``published_boxes`` that fit into a scan of this ``shape``, perhaps none.

    ``nominal`` is the size that takes the place of the published (64, 64, 32); all sizes scale with it.
    A box keeps the published borders where they leave it a start. Where x or y does not, 32 voxels (in
    proportion to ``nominal``) are first taken off its x and y. An axis that still leaves no start gets
    narrower borders: half of its free voxels, a quarter at either end, so that the two boxes of a pair
    can still differ. A box that is larger than the scan is left out.
    """
    scale = np.array(nominal) / PUBLISHED_CROP
    reduction = np.rint(scale * (REDUCTION, REDUCTION, 0)).astype(int)
    borders = LOWER_BORDER + UPPER_BORDER
    sizes, first, last = [], [], []
    for published in published_boxes:
        size = np.rint(scale * published).astype(int)
        free = np.array(shape) - size - (0, 0, CONTEXT)
        if (free < borders)[:2].any() and (size > reduction).all():
            size, free = size - reduction, free + reduction
        if free.min() < 0:
            continue
        sizes.append(size)
        first.append(np.where(free >= borders, LOWER_BORDER, free // 4))
        last.append(free - np.where(free >= borders, UPPER_BORDER, free // 4))
    return Boxes(*(np.array(rows, int).reshape(-1, 3) for rows in (sizes, first, last)))


def iou(starts: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Intersection over union of pairs of boxes; both arguments (..., 2, 3), the result (...)."""
    ends = starts + sizes
    sides = np.minimum(ends[..., 0, :], ends[..., 1, :]) - np.maximum(starts[..., 0, :], starts[..., 1, :])
    overlap = np.maximum(sides, 0).prod(axis=-1)
    volumes = sizes.prod(axis=-1)
    return overlap / (volumes[..., 0] + volumes[..., 1] - overlap)


def overlapping_pairs(
    boxes: Boxes, rng: np.random.Generator, min_iou: float = MIN_IOU
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Draw sizes and starts uniformly; yield the pairs (starts, sizes) whose IoU exceeds ``min_iou``.

    Ends after ``MAX_DRAWS`` draws. Many are drawn at once, since in a chest only one in a hundred overlaps
    so much.
    """
    room = boxes.last - boxes.first + 1
    for _ in range(MAX_DRAWS // DRAWS_AT_ONCE):
        which = rng.integers(len(boxes.sizes), size=(DRAWS_AT_ONCE, 2))
        starts = boxes.first[which] + (rng.random((DRAWS_AT_ONCE, 2, 3)) * room[which]).astype(int)
        sizes = boxes.sizes[which]
        for hit in np.flatnonzero(iou(starts, sizes) > min_iou):
            yield starts[hit], sizes[hit]


@lru_cache(maxsize=256)
def _taps(size: int, target: int) -> tuple[np.ndarray, np.ndarray]:
    """What scikit-image's resize does to an axis: of each voxel the first one it is made of, and float32 weights.

    Resizing (linear, anti-aliased) is linear and treats one axis after the other, so what it does to the columns of the
    identity is all there is to know: a matrix (target, size), of which the band that is not 0 is kept, (target, taps).
    """
    matrix = skimage_resize(np.eye(size), (target, size), order=1, anti_aliasing=True).astype(np.float32)
    used = matrix != 0
    first = used.argmax(axis=1)
    taps = int((size - used[:, ::-1].argmax(axis=1) - first).max())
    first = np.minimum(first, size - taps)
    return first, np.take_along_axis(matrix, first[:, None] + np.arange(taps), axis=1)


@compiled
def _weigh(rows: np.ndarray, first: int, weights: np.ndarray, out: np.ndarray) -> None:
    """``out`` = the sum of ``weights[t] * rows[first + t]``, up to four at a time, which spares memory traffic."""
    head = weights.shape[0] % 4
    if head == 0:
        out[:] = 0
    elif head == 1:
        w0, r0 = weights[0], rows[first]
        for i in range(out.shape[0]):
            out[i] = w0 * r0[i]
    elif head == 2:
        w0, w1, r0, r1 = weights[0], weights[1], rows[first], rows[first + 1]
        for i in range(out.shape[0]):
            out[i] = w0 * r0[i] + w1 * r1[i]
    else:
        w0, w1, w2, r0, r1, r2 = weights[0], weights[1], weights[2], rows[first], rows[first + 1], rows[first + 2]
        for i in range(out.shape[0]):
            out[i] = w0 * r0[i] + (w1 * r1[i] + w2 * r2[i])
    for t in range(head, weights.shape[0], 4):
        w0, w1, w2, w3 = weights[t], weights[t + 1], weights[t + 2], weights[t + 3]
        r0, r1, r2, r3 = rows[first + t], rows[first + t + 1], rows[first + t + 2], rows[first + t + 3]
        for i in range(out.shape[0]):
            out[i] = (out[i] + (w0 * r0[i] + w1 * r1[i])) + (w2 * r2[i] + w3 * r3[i])


@compiled
def _resize(
    volume: np.ndarray,
    corner: tuple[int, int, int],
    low: float,
    high: float,
    first: tuple[np.ndarray, np.ndarray, np.ndarray],
    weights: tuple[np.ndarray, np.ndarray, np.ndarray],
    out: np.ndarray,
) -> None:
    """Clip the box of ``volume`` (y, z, x) from ``corner`` on and resize it into ``out`` (x, y * z).

    ``corner``, ``first`` and ``weights`` are in the order of the volume's axes. A few rows of ``out`` at a time: as
    many rows of the box as they need are resized in z, added up in y, turned and resized in x, so that all stays in
    the cache. Three passes over the whole box take a third longer.
    """
    y, z, x = corner
    y_first, z_first, x_first = first
    y_weights, z_weights, x_weights = weights
    rows, slices, taps = len(y_first), len(z_first), y_weights.shape[1]
    depth, width = z_first[-1] + z_weights.shape[1], x_first[-1] + x_weights.shape[1]
    clipped = np.empty((depth, width), np.float32)
    in_z = np.empty((y_first[-1] + taps, slices * width), np.float32)
    in_y = np.empty(slices * width, np.float32)
    turned = np.empty((width, ROWS_AT_ONCE * slices), np.float32)
    ready = 0  # rows of in_z
    for begin in range(0, rows, ROWS_AT_ONCE):
        end = min(begin + ROWS_AT_ONCE, rows)
        for j in range(begin, end):
            while ready < y_first[j] + taps:
                for k in range(depth):
                    source = volume[y + ready, z + k, x : x + width]
                    for i in range(width):
                        value = np.float32(source[i])
                        value = value if value > low else low  # min and max take longer here
                        clipped[k, i] = value if value < high else high
                for k in range(slices):
                    _weigh(clipped, z_first[k], z_weights[k], in_z[ready, k * width : (k + 1) * width])
                ready += 1
            _weigh(in_z, y_first[j], y_weights[j], in_y)
            for k in range(slices):
                for i in range(width):
                    turned[i, (j - begin) * slices + k] = in_y[k * width + i]
        for i in range(out.shape[0]):
            _weigh(turned, x_first[i], x_weights[i], out[i, begin * slices : end * slices])


def cut(volume: np.ndarray, start: np.ndarray, size: np.ndarray, shape: tuple[int, ...], window: Window) -> np.ndarray:
    """One box of ``volume``, clipped to the window and resized to ``shape``: float32 (rows, cols, deps + 1).

    The box is cut with its context slices and resized with them, as scikit-image does (linear,
    anti-aliased), to ``shape`` and as many slices more; the one that the tissue rule needs beyond ``shape``
    is kept. Not scaled: the unit stays the volume's. Fastest where ``volume`` lies in memory as ``resample`` gives it.
    """
    (x, y, z), (width, height, depth), (columns, rows, slices) = start, size, shape
    if (width, height, depth) == (columns, rows, slices):
        box = volume[x : x + width, y : y + height, z : z + depth + 1]
        return np.clip(box, window.low, window.high).astype(np.float32, order="C")
    in_z = (part[: slices + 1] for part in _taps(depth + CONTEXT, slices + CONTEXT))
    first, weights = zip(_taps(height, rows), in_z, _taps(width, columns), strict=True)
    low, high = np.float32(window.low), np.float32(window.high)
    crop = np.empty((columns, rows * (slices + 1)), np.float32)
    _resize(volume.transpose(1, 2, 0), (y, z, x), low, high, first, weights, crop)
    return crop.reshape(columns, rows, slices + 1)


@compiled
def tissue_sum(crop: np.ndarray, threshold: float) -> float:
    """Tissue in all slices of ``crop`` (x, y, z) but the last, which only stands above the one before it.

    A voxel counts 1 if it is at or above ``threshold``, else 0.5 if its neighbour in the next slice is.
    """
    halves = 0
    for x in range(crop.shape[0]):
        for y in range(crop.shape[1]):
            line = crop[x, y]
            for z in range(line.shape[0] - 1):
                here, above = line[z] >= threshold, line[z + 1] >= threshold
                halves += 2 * here + (above and not here)
    return halves / 2


@compiled
def _scale(crop: np.ndarray, low: float, span: float, out: np.ndarray) -> None:
    """All in one pass."""
    for x in range(out.shape[0]):
        for y in range(out.shape[1]):
            source, target = crop[x, y], out[x, y]
            for z in range(target.shape[0]):
                # What the resizing leaves above 1 is rounding.
                target[z] = min(max((source[z] - low) / span, np.float32(0)), np.float32(1))


def cut_pair(
    volume: np.ndarray, starts: np.ndarray, sizes: np.ndarray, shape: tuple[int, ...], window: Window
) -> np.ndarray | None:
    """Both crops of a pair, float32 (2, *shape) in [0, 1]; None if one of them holds too much tissue.

    Too much is more than 0.15 times the voxels of its box, counted before the resizing. The smaller box
    comes first: it is cheaper to cut and refused more often.
    """
    pair = np.empty((2, *shape), np.float32)
    volumes = sizes.prod(axis=-1)
    for view in np.argsort(volumes):
        crop = cut(volume, starts[view], sizes[view], shape, window)
        if window.tissue is not None and tissue_sum(crop, window.tissue) > MAX_TISSUE * volumes[view]:
            return None
        window.scale(crop[:, :, : shape[2]], pair[view])
    return pair


def draw_pairs(
    volume: np.ndarray,
    origin: np.ndarray,
    boxes: Boxes,
    shape: tuple[int, ...],
    window: Window,
    wanted: int,
    rng: np.random.Generator,
    refused: Callable[[np.ndarray], bool] = lambda crops: False,
    min_iou: float = MIN_IOU,
) -> Iterator[Pair]:
    """Yield up to ``wanted`` pairs of crops of this ``shape``.

    ``volume`` is the part of the scan from voxel ``origin`` on. Overlapping pairs of boxes are drawn until
    enough of them are accepted, or ``MAX_TRIES * wanted`` have been cut: the scan is given up then. ``refused`` is
    asked of the crops of a pair whether others shall take its place.
    """
    made = 0
    for starts, sizes in islice(overlapping_pairs(boxes, rng, min_iou), MAX_TRIES * wanted):
        crops = cut_pair(volume, starts - origin, sizes, shape, window)
        if crops is not None and not refused(crops):
            yield Pair(crops, starts, sizes)
            made += 1
            if made == wanted:
                return
