"""The queue of negative keys (MoCo's dictionary): reading is pure, pushing gives a new state."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass
class QueueState:
    """``memory``: keys (K, D). ``pointer``: int64, where the next key goes. ``z``: the constant Z, 0 = not yet set."""

    memory: Tensor
    pointer: Tensor
    z: Tensor

    def push(self, keys: Tensor) -> QueueState:
        """The state after the keys (B, D) were written one after the other, wrapping modulo K.

        No key is lost in wrapping; of more than K keys the last K remain. This state is left as it is,
        so that what was computed from it can still be differentiated.
        """
        size = len(self.memory)
        steps = torch.arange(max(0, len(keys) - size), len(keys), device=keys.device)
        rows = (self.pointer + steps) % size
        memory = self.memory.index_copy(0, rows, keys[-size:].to(self.memory.dtype))
        return QueueState(memory, (self.pointer + len(keys)) % size, self.z)


class KeyQueue(nn.Module):
    """All state of the contrast, in buffers: the memory (K, D), the pointer, and the constant Z."""

    memory: Tensor
    pointer: Tensor
    z: Tensor

    def __init__(self, size: int, dim: int) -> None:
        super().__init__()
        bound = 1 / math.sqrt(dim / 3)  # uniform in +-bound; rows are not normalised at the start
        memory = torch.rand(size, dim) * 2 * bound - bound
        self.register_buffer("memory", memory)
        self.register_buffer("pointer", torch.zeros((), dtype=torch.int64))
        self.register_buffer("z", torch.zeros(()))

    def read(self) -> QueueState:
        """The present state; nothing of it is ever changed in place by a :meth:`QueueState.push`."""
        return QueueState(self.memory, self.pointer, self.z)

    @torch.no_grad()
    def write(self, state: QueueState) -> None:
        """Make ``state`` the present one."""
        self.memory.copy_(state.memory)
        self.pointer.copy_(state.pointer)
        self.z.copy_(state.z)
