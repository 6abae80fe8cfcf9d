"""Layers by number of spatial dimensions: the only place in the project that knows 2D from 3D layers."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.shared import count_batch, is_shared, shared

GROUPS = 8  # of group normalisation


Convolution = nn.Conv2d | nn.Conv3d
TransposedConvolution = nn.ConvTranspose2d | nn.ConvTranspose3d


class Conv2d(nn.Conv2d):
    """Torch's, with weights that may be shared (models/shared.py)."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W), convolved."""
        return self._conv_forward(x, shared(self.weight), shared(self.bias))


class Conv3d(nn.Conv3d):
    """Torch's, with weights that may be shared (models/shared.py)."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, X, Y, Z), convolved."""
        return self._conv_forward(x, shared(self.weight), shared(self.bias))


def batch_normalise(norm: nn.BatchNorm2d | nn.BatchNorm3d, x: Tensor) -> Tensor:
    """As torch's layer, with weights that may be shared, and batches that are counted together with other layers'."""
    if norm.training:
        count_batch(norm)
    mean, variance = norm.running_mean, norm.running_var
    weight, bias = shared(norm.weight), shared(norm.bias)
    return F.batch_norm(x, mean, variance, weight, bias, norm.training, norm.momentum or 0.0, norm.eps)


class BatchNorm2d(nn.BatchNorm2d):
    """Torch's, computed by :func:`batch_normalise`."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W), normalised."""
        return batch_normalise(self, x)


class BatchNorm3d(nn.BatchNorm3d):
    """Batch normalisation that takes a channels-last map on a GPU as the map of two axes that lies in memory alike.

    For these there are kernels of their own, while torch sums maps of three axes with a general one.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, X, Y, Z), normalised."""
        if x.is_cuda and x.is_contiguous(memory_format=torch.channels_last_3d):
            return normalise_as_2d(lambda x: batch_normalise(self, x), x)
        return batch_normalise(self, x)


def normalise_as_2d(norm: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """A norm that treats all positions of a channel alike, of (B, C, X, Y, Z) seen as (B, C, X * Y, Z)."""
    return norm(x.flatten(2, 3)).unflatten(2, x.shape[2:4])


def before_norm(bias: Tensor | None, norm: nn.Module) -> Tensor | None:
    """The bias of a convolution that a norm follows; detached if its exact gradient is 0 and costs time to compute.

    Batch normalisation removes a constant that was added to a channel, so this gradient is 0. The caller must then give
    the bias a gradient of zeros (:func:`with_zero_gradients`), because weight decay and momentum still act on it.
    """
    return bias.detach() if bias is not None and _is_idle(bias, norm) else bias


def _is_idle(bias: Tensor, norm: nn.Module) -> bool:
    return bias.is_cuda and bias.requires_grad and norm.training and isinstance(norm, BATCH_NORMS)


def with_zero_gradients(x: Tensor, pairs: Iterable[tuple[Convolution, nn.Module]]) -> Tensor:
    """``x``; biases that :func:`before_norm` has detached get a gradient of zeros through it."""
    biases = [conv.bias for conv, norm in pairs if conv.bias is not None and _is_idle(conv.bias, norm)]
    biases = [bias for bias in biases if not is_shared(bias)]
    return x + (0 * torch.cat(biases).sum()).to(x.dtype) if biases and torch.is_grad_enabled() else x


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
        Conv2d,
        nn.ConvTranspose2d,
        nn.MaxPool2d,
        BatchNorm2d,
        nn.InstanceNorm2d,
        torch.channels_last,
    ),
    3: Operators(
        3,
        Conv3d,
        nn.ConvTranspose3d,
        nn.MaxPool3d,
        BatchNorm3d,
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
