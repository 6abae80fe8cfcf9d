"""Layers by number of spatial dimensions: the only place in the project that knows 2D from 3D layers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

GROUPS = 8  # of group normalisation


Convolution = nn.Conv2d | nn.Conv3d
TransposedConvolution = nn.ConvTranspose2d | nn.ConvTranspose3d


@dataclass(frozen=True)
class Operators:
    """The layer classes and functions of one dimensionality, and the memory format it is fastest in.

    Functions are looked up when they are called: apex replaces those of torch.nn.functional.
    """

    dims: int
    conv: type[nn.Conv2d] | type[nn.Conv3d]
    transposed_conv: type[nn.ConvTranspose2d] | type[nn.ConvTranspose3d]
    max_pool: type[nn.MaxPool2d] | type[nn.MaxPool3d]
    batch_norm: type[nn.BatchNorm2d] | type[nn.BatchNorm3d]
    instance_norm: type[nn.InstanceNorm2d] | type[nn.InstanceNorm3d]
    channels_last: torch.memory_format

    @property
    def convolve(self) -> Callable[..., Tensor]:
        """``F.conv2d`` or ``F.conv3d``."""
        return getattr(F, f"conv{self.dims}d")

    @property
    def convolve_transposed(self) -> Callable[..., Tensor]:
        """``F.conv_transpose2d`` or ``F.conv_transpose3d``."""
        return getattr(F, f"conv_transpose{self.dims}d")


OPERATORS = {
    2: Operators(
        2,
        nn.Conv2d,
        nn.ConvTranspose2d,
        nn.MaxPool2d,
        nn.BatchNorm2d,
        nn.InstanceNorm2d,
        torch.channels_last,
    ),
    3: Operators(
        3,
        nn.Conv3d,
        nn.ConvTranspose3d,
        nn.MaxPool3d,
        nn.BatchNorm3d,
        nn.InstanceNorm3d,
        torch.channels_last_3d,
    ),
}
BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
NORMS = ("bn", "gn", "in")


def norm_layer(name: str, channels: int, dims: int) -> nn.Module:
    """``bn``: batch; ``gn``: group (8 groups); ``in``: instance, affine and without running statistics."""
    if name == "bn":
        return OPERATORS[dims].batch_norm(channels)
    if name == "gn":
        return nn.GroupNorm(min(GROUPS, channels), channels)  # fewer channels: in a narrow network alone
    if name == "in":
        return OPERATORS[dims].instance_norm(channels, affine=True)
    raise ValueError(f"unknown normalisation {name!r}; known: {', '.join(NORMS)}")
