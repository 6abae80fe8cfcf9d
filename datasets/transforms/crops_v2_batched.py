"""The augmentation of 3D crops for PCRLv2 for a whole batch at once, on the device that trains.

A second implementation of what ``crops_v2.py`` does to one crop after the other on the CPU, from the same parameters
and with the same results to rounding. Call it outside of autocast.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from datasets.transforms.batched import blurred, resample, spatial_parameters, uniform
from datasets.transforms.crops_v2 import CropAugmentationV2


def parameters(augmentation: CropAugmentationV2, shape: tuple[int, ...]) -> dict[str, np.ndarray]:
    """An augmentation of a crop of this shape as arrays of fixed sizes, which stack to a batch."""
    swaps = {} if augmentation.swaps is None else {"swaps": augmentation.swaps.places(shape)}
    return {
        **spatial_parameters(augmentation.affine, augmentation.blur, shape),
        "noise_std": np.array(augmentation.noise.std, np.float32),
        "noise_seed": np.array(augmentation.noise.seed),
        "gamma": np.array(augmentation.gamma.gamma, np.float32),
        **swaps,
    }


@torch.no_grad()
def augment(crops: Tensor, parameters: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """``crops``, float32 (N, X, Y, Z) -> (the network's inputs, what they are to be restored to).

    ``parameters``: those of :func:`parameters`, stacked, on the same device.
    """
    targets = resample(crops, parameters["places"])
    images = blurred(targets, parameters)
    images = images + _each(parameters["noise_std"]) * _normal(parameters["noise_seed"], crops.shape)
    images = images.sign() * images.abs() ** _each(parameters["gamma"])
    if "swaps" in parameters:
        images = _swap(images, parameters["swaps"])
    return _z_normalise(images), targets


def _each(values: Tensor) -> Tensor:
    """(N,) -> (N, 1, 1, 1)."""
    return values[:, None, None, None]


def _normal(seeds: Tensor, shape: torch.Size) -> Tensor:
    """Standard normal values (N, X, Y, Z), by Box and Muller's formula."""
    index = torch.arange(2 * shape[1:].numel(), device=seeds.device)
    radius, angle = uniform(seeds[:, None], index).chunk(2, dim=1)
    return (torch.sqrt(-2 * torch.log1p(-radius)) * torch.cos(2 * math.pi * angle)).view(shape)


def _swap(images: Tensor, places: Tensor) -> Tensor:
    """Boxes change places, pair after pair; ``places`` (N, pairs, 2, voxels of a box), in C order."""
    voxels = images.flatten(1)
    for pair in places.unbind(1):
        first, second = pair.long().unbind(1)
        of_first, of_second = voxels.gather(1, first), voxels.gather(1, second)
        voxels = voxels.scatter(1, second, of_first).scatter(1, first, of_second)
    return voxels.view(images.shape)


def _z_normalise(images: Tensor) -> Tensor:
    """Each image less its mean, divided by its standard deviation (unbiased)."""
    std, mean = torch.std_mean(images, dim=(1, 2, 3), keepdim=True)
    return (images - mean) / std
