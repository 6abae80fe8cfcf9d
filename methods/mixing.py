"""Mixtures of two images, maps or keys, by a share of the first one."""

from __future__ import annotations

import torch
from torch import Tensor


def larger(share: float | Tensor) -> float | Tensor:
    """A share of two, as max(v, 1 - v): of the first, which has the larger one. A tensor has been made so already."""
    return share if isinstance(share, Tensor) else max(share, 1 - share)


def blend(share: float | Tensor, first: Tensor, second: Tensor) -> Tensor:
    """share * first + (1 - share) * second."""
    return torch.lerp(second, first, share.to(first.dtype) if isinstance(share, Tensor) else share)
