"""What each rank has of its own, in a checkpoint: the running statistics of its batch normalisations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from utils.process_group import ProcessGroup


def gather_buffers(own: Mapping[str, Tensor], ranks: ProcessGroup) -> dict[str, Any]:
    """``rank_buffers``, a dict a rank, in rank order; nothing where there is one rank. All ranks must call."""
    if ranks.size == 1:
        return {}
    return {"rank_buffers": ranks.gather_objects({name: buffer.cpu() for name, buffer in own.items()})}


def restore_buffers(own: Mapping[str, Tensor], ranks: ProcessGroup, checkpoint: Mapping[str, Any]) -> None:
    """Give this rank's buffers the values that :func:`gather_buffers` saved.

    A rank that the run did not have keeps what the checkpoint's networks gave it: those of the first rank.
    """
    saved = checkpoint.get("rank_buffers", [])
    if ranks.size > 1 and ranks.rank < len(saved):
        for name, buffer in own.items():
            buffer.copy_(saved[ranks.rank][name])
