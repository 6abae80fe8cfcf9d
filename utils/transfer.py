"""Small tensors on their way to a GPU, for which the host does not wait."""

from __future__ import annotations

import torch
from torch import Tensor


def to_device(value: Tensor, device: torch.device) -> Tensor:
    """``value`` on ``device``; to a GPU by way of pinned memory, which is copied from in the background."""
    if device.type == "cuda" and value.device.type == "cpu":
        return value.pin_memory().to(device, non_blocking=True)
    return value.to(device)
