"""The last steps of the views of X-rays for a whole batch at once, on the device that trains.

From a view's 8-bit pixels to its floats: normalisation, cutout, spatial transform. With the same results as
``xray.py`` to the bit, since every one of them is a look-up or a copy. Workers that leave these steps to the
device hand over a sixth of the bytes.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from datasets.transforms.spatial import SpatialTransform
from datasets.transforms.xray import XRayParams, hole_side, normalised_values, pixels


def parameters(image: np.ndarray, params: XRayParams, channels: int, size: int) -> dict[str, np.ndarray]:
    """What :func:`finish` needs of one view: arrays of fixed sizes, which stack to a batch.

    ``image``: uint8, (height, width) if grey, (height, width, 3) if RGB.
    """
    distorted, cropped = (planes(plane, channels) for plane in pixels(image, params, channels, size))
    return {
        "input": distorted,
        "gt": cropped,
        "holes": np.array(params.holes, np.int64),
        "aug": params.spatial.code,
    }


def planes(pixels: np.ndarray, channels: int) -> np.ndarray:
    """uint8 (channels, height, width), contiguous, of (height, width) or (height, width, channels)."""
    of_all = pixels if pixels.ndim == 3 else pixels[..., None]
    return np.array(np.broadcast_to(of_all, (*pixels.shape[:2], channels)).transpose(2, 0, 1), order="C")


@torch.no_grad()
def finish(views: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Stacked :func:`parameters` -> ``input``, ``mask``, ``gt``, float32 (N, channels, size, size), and ``aug``."""
    distorted = with_holes(normalise(views["input"]), views["holes"])
    mask = transform(distorted, views["aug"])
    return {"input": distorted, "mask": mask, "gt": normalise(views["gt"]), "aug": views["aug"]}


def normalise(images: Tensor) -> Tensor:
    """float32 of uint8 (N, channels, size, size)."""
    values = _values(images.shape[1], images.device)
    planes = [of_channel[plane.int()] for of_channel, plane in zip(values, images.unbind(1), strict=True)]
    return torch.stack(planes, 1)


def with_holes(images: Tensor, centres: Tensor) -> Tensor:
    """``images`` (N, channels, size, size), 0 in the squares around ``centres`` (N, holes, 2)."""
    return images.masked_fill(_holes(centres, images.shape[-1])[:, None], 0)


def _holes(centres: Tensor, size: int) -> Tensor:
    """bool (N, size, size): where the squares around ``centres`` (N, holes, 2) are."""
    place, side = torch.arange(size, device=centres.device), hole_side(size)
    first = centres[..., None] - side // 2
    rows, columns = ((place >= first) & (place < first + side)).unbind(2)
    return (rows[..., :, None] & columns[..., None, :]).any(1)


def transform(images: Tensor, codes: Tensor) -> Tensor:
    """Each image (channels, size, size) by the spatial transform that its code (N, 6) stands for.

    One gather for the whole batch, by a table of where each pixel of each of the 16 transforms comes from.
    """
    table, digits = _table(images.shape[-1], images.device), _digits(codes.dtype, codes.device)
    number = (codes @ digits).long()
    sources = table[number][:, None].expand(-1, images.shape[1], -1)
    return images.flatten(2).gather(2, sources).view_as(images)


# Tables are uploaded once: a GPU would be waited for each time.


@functools.cache
def _values(channels: int, device: torch.device) -> Tensor:
    return torch.from_numpy(normalised_values(channels)).to(device)


@functools.cache
def _table(size: int, device: torch.device) -> Tensor:
    return torch.from_numpy(_sources(size)).to(device)


@functools.cache
def _digits(dtype: torch.dtype, device: torch.device) -> Tensor:
    """What the entries of a code stand for in the number of its transform."""
    return torch.tensor([8, 4, 0, 1, 2, 3], dtype=dtype).to(device)


@functools.cache
def _sources(size: int) -> np.ndarray:
    """int64 (16, size * size): for each transform, the pixel that each pixel comes from."""
    places = np.arange(size * size).reshape(size, size)
    flips = [(vertical, horizontal) for vertical in (False, True) for horizontal in (False, True)]
    return np.stack([SpatialTransform(pair, turns).apply(places).ravel() for pair in flips for turns in range(4)])
