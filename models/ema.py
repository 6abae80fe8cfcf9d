"""The teacher: an exponential moving average (EMA) of the student (mean teacher, MoCo)."""

from __future__ import annotations

import copy
from typing import TypeVar

import torch
from torch import nn

from models.layers import BATCH_NORMS

Network = TypeVar("Network", bound=nn.Module)


def make_teacher(student: Network) -> Network:
    """A copy of the student without gradients, in the teacher's mode."""
    teacher = copy.deepcopy(student).requires_grad_(False)
    return teacher_mode(teacher)


def teacher_mode(teacher: Network) -> Network:
    """Evaluation mode, but batch normalisation uses (and tracks) the statistics of its own batches."""
    teacher.eval()
    for module in teacher.modules():
        if isinstance(module, BATCH_NORMS):
            module.train()
    return teacher


@torch.no_grad()
def update_teacher(teacher: nn.Module, student: nn.Module, momentum: float) -> None:
    """teacher <- momentum * teacher + (1 - momentum) * student, in place.

    Parameters only, paired by name; ValueError if the names differ. Buffers stay the teacher's own.
    """
    sources = dict(student.named_parameters())
    targets = dict(teacher.named_parameters())
    if sources.keys() != targets.keys():
        raise ValueError(f"teacher and student differ in {sorted(sources.keys() ^ targets.keys())}")
    torch._foreach_lerp_(list(targets.values()), [sources[name] for name in targets], 1 - momentum)
