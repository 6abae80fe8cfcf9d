"""The learning rate and the optimizer."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import nn


def _leave_compiler_out() -> None:
    """Keep torch's optimizers from importing its compiler, torch._dynamo, at their first call.

    That takes more than a second, for a mark that only code under torch.compile heeds; nothing here is. Where a torch
    has no such marks, nothing is changed.
    """
    for method in (torch.optim.Optimizer.add_param_group, torch.optim.Optimizer.zero_grad):
        inner = getattr(method, "__wrapped__", None)
        if inner is not None and not hasattr(inner, "__dynamo_disable"):
            inner.__dynamo_disable = inner


def cosine_lr(base: float, epoch: int, epochs: int, warmup_epochs: int = 0) -> float:
    """base * (1 + cos(pi * epoch / epochs)) / 2, for epoch = 0 .. epochs - 1.

    With a warm-up the rate first rises in equal steps, from base / (warmup_epochs + 1); the cosine starts after it and
    takes the rest of the epochs.
    """
    if epoch < warmup_epochs:
        return base * (epoch + 1) / (warmup_epochs + 1)
    return base * (1 + math.cos(math.pi * (epoch - warmup_epochs) / (epochs - warmup_epochs))) / 2


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Give every parameter group this learning rate."""
    for group in optimizer.param_groups:
        group["lr"] = lr


def build_optimizer(
    name: str, parameters: Iterable[nn.Parameter], lr: float, momentum: float, weight_decay: float
) -> torch.optim.Optimizer:
    """``sgd``, ``adam`` or ``adamw``; weight decay covers all parameters. ValueError for another name."""
    _leave_compiler_out()
    if name == "sgd":
        return torch.optim.SGD(parameters, lr, momentum=momentum, weight_decay=weight_decay)
    betas = (momentum, 0.999)
    if name == "adam":
        return torch.optim.Adam(parameters, lr, betas=betas, weight_decay=weight_decay)
    if name == "adamw":
        return torch.optim.AdamW(parameters, lr, betas=betas, weight_decay=weight_decay)
    raise ValueError(f"unknown optimizer {name!r}; known: sgd, adam, adamw")
