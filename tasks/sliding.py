"""Segmenting volumes of any size in windows, a few planes at a time.

The numbers are those of MONAI's ``sliding_window_inference`` with Gaussian weights (tests/tasks/test_sliding.py), but
nothing is kept of the probabilities than the planes that a row of windows touches: of a CT of 512 x 512 x 1000 voxels
130 MB a class, in place of 1 GB, twice.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from training.precision import Precision
from utils.errors import Diverged

OVERLAP = 0.5  # of neighbouring windows
SIGMA = 0.125  # of the Gaussian weights, in parts of a window
SMALLEST_WEIGHT = 1e-3
Network = Callable[[Tensor], Tensor]
Probabilities = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Windows:
    """``patch``: voxels of a window. ``batch``: windows at a time, on ``device``. ``overlap``: of their length."""

    patch: tuple[int, int, int]
    batch: int
    device: torch.device
    overlap: float = OVERLAP


def mirror_images(axes: Sequence[int]) -> list[tuple[int, ...]]:
    """All sets of these axes, the empty one first: along each of them an image is mirrored once."""
    return [some for count in range(len(axes) + 1) for some in itertools.combinations(axes, count)]


def softmax_of(
    network: Callable[[Tensor], Tensor], precision: Precision, mirrored: Sequence[int] = ()
) -> Probabilities:
    """The probabilities of windows (B, C, X, Y, Z) -> (B, classes, X, Y, Z), float32, without a gradient.

    ``mirrored``: axes (0 is x); then the mean over all mirror images along them, turned back.
    """
    turns = mirror_images(mirrored)

    @torch.no_grad()
    def probabilities(windows: Tensor) -> Tensor:
        total = None
        for axes in turns:
            dims = [axis + 2 for axis in axes]
            with precision.autocast():
                logits = network(windows.flip(dims) if dims else windows)
            one = logits.float().softmax(dim=1)
            one = one.flip(dims) if dims else one
            total = one if total is None else total + one
        assert total is not None
        return total / len(turns) if len(turns) > 1 else total

    return probabilities


def probability_planes(
    probabilities: Probabilities, image: np.ndarray, windows: Windows, shape: Sequence[int]
) -> Iterator[Tensor]:
    """The probabilities of a volume, plane by plane along x: (classes, Y, Z) on the device, each of ``shape``'s.

    ``image``: (C, X, Y, Z), as large as it is. Windows overlap and are averaged with Gaussian weights; where a volume
    is smaller, zeros are around it. The result is then resized, linearly, to ``shape``: the grid of the file, if
    ``image`` was resampled.
    """
    size = tuple(image.shape[1:])
    return _resized(_planes(probabilities, image, windows), size, tuple(shape))


def label_map(planes: Iterable[Tensor], shape: Sequence[int], kept: np.ndarray | None = None) -> np.ndarray:
    """The class of each voxel, uint8 of ``shape``, from its planes of probabilities; the first of equal ones.

    ``kept``: float16 (classes - 1, *shape), to be filled with the probabilities of all classes but background.
    Diverged if probabilities are not finite.
    """
    labels = np.empty(shape, np.uint8)
    finite: Tensor | bool = True  # on the device: looked at once, at the end
    for x, plane in enumerate(planes):
        largest = plane.max(dim=0)  # argmax takes ten times as long on a CPU
        labels[x] = largest.indices.to(torch.uint8).cpu().numpy()
        finite = largest.values.isfinite().all() & finite
        if kept is not None:
            kept[:, x] = plane[1:].half().cpu().numpy()
    if not finite:
        raise Diverged(
            "the network's outputs are not finite: its weights have grown without bounds (train with a lower --lr), or "
            "its maps exceed 16 bits (give --amp off)"
        )
    return labels


def segment(probabilities: Probabilities, image: np.ndarray, windows: Windows, shape: Sequence[int]) -> np.ndarray:
    """The class of each voxel: uint8 of ``shape``; the rest as of :func:`probability_planes`."""
    return label_map(probability_planes(probabilities, image, windows, shape), shape)


def _starts(size: int, patch: int, overlap: float) -> list[int]:
    """Where windows begin on an axis that is at least as long as they are."""
    if size == patch:
        return [0]
    step = max(1, int(patch * (1 - overlap)))
    return [min(number * step, size - patch) for number in range(math.ceil((size - patch) / step) + 1)]


def _weights(patch: Sequence[int], device: torch.device) -> Tensor:
    """Gaussian weights of a window's voxels, (X, Y, Z)."""
    weights = torch.ones((), device=device)
    for length in patch:
        x = torch.arange(-(length - 1) / 2, (length - 1) / 2 + 1, device=device)
        weights = weights[..., None] * torch.exp(x**2 / (-2 * (SIGMA * length) ** 2))
    return weights.clamp(min=max(weights.min().item(), SMALLEST_WEIGHT))


def _planes(probabilities: Probabilities, image: np.ndarray, windows: Windows) -> Iterator[Tensor]:
    """The averaged probabilities (classes, Y, Z) of each x, on the grid of the image (C, X, Y, Z).

    The image may be mapped from a file, and be read-only.
    """
    patch, size = windows.patch, image.shape[1:]
    lacking = [max(length - there, 0) for length, there in zip(patch, size, strict=True)]
    before = [lack // 2 for lack in lacking]
    if any(lacking):
        image = np.pad(image, [(0, 0), *((half, lack - half) for half, lack in zip(before, lacking, strict=True))])
    x_inside, y_inside, z_inside = (slice(half, half + there) for half, there in zip(before, size, strict=True))
    padded = image.shape[1:]
    rows, *others = (_starts(there, length, windows.overlap) for there, length in zip(padded, patch, strict=True))
    places = list(itertools.product(*others))
    weights = _weights(patch, windows.device)
    sums = None  # of the planes that the row of windows covers: probabilities, and behind them the weights
    for x, end in zip(rows, [*rows[1:], padded[0]], strict=True):
        for first in range(0, len(places), windows.batch):
            some = places[first : first + windows.batch]
            parts = [image[:, x : x + patch[0], y : y + patch[1], z : z + patch[2]] for y, z in some]
            found = probabilities(torch.from_numpy(np.stack(parts)).to(windows.device).float()) * weights
            if sums is None:
                sums = found.new_zeros((1 + found.shape[1], patch[0], *padded[1:]))
            for (y, z), one in zip(some, found, strict=True):
                there = sums[:, :, y : y + patch[1], z : z + patch[2]]
                there[:-1] += one
                there[-1] += weights
        assert sums is not None
        done = end - x  # no later window reaches these planes
        for number in range(done):
            if x_inside.start <= x + number < x_inside.stop:
                yield (sums[:-1, number] / sums[-1, number])[:, y_inside, z_inside]
        for part in sums:  # each by itself, in its place: copies of all would take as much memory again, twice
            part[:-done] = part[done:].clone()
            part[-done:] = 0


def _resized(planes: Iterator[Tensor], size: Sequence[int], shape: Sequence[int]) -> Iterator[Tensor]:
    """Planes of a volume of ``size`` -> those of ``shape``: trilinear, the outer faces stay where they are."""
    if size == shape:
        yield from planes
        return

    def in_plane(plane: Tensor) -> Tensor:
        if tuple(plane.shape[1:]) == tuple(shape[1:]):
            return plane
        return F.interpolate(plane[None], size=tuple(shape[1:]), mode="bilinear", align_corners=False)[0]

    scale, held = size[0] / shape[0], {-1: torch.zeros(0)}
    for x in range(shape[0]):
        place = max((x + 0.5) * scale - 0.5, 0.0)
        low = min(int(place), size[0] - 1)
        high = min(low + 1, size[0] - 1)
        while max(held) < high:
            held = {number: plane for number, plane in held.items() if number >= low} | {
                max(held) + 1: in_plane(next(planes))
            }
        share = place - low
        yield (1 - share) * held[low] + share * held[high] if share else held[low]
