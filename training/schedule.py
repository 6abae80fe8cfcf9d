"""The learning rate and the optimizer."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

OPTIMIZERS = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
HOW = ("fused", "foreach", "capturable", "differentiable")  # it computes: entries of a group


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
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(lr)
        else:
            group["lr"] = lr


def build_optimizer(
    name: str, parameters: Iterable[nn.Parameter], lr: float, momentum: float, weight_decay: float
) -> torch.optim.Optimizer:
    """``sgd``, ``adam`` or ``adamw``; weight decay covers all parameters. ValueError for another name.

    On a GPU it is a fused one, and its learning rate a tensor there (:func:`set_lr`).
    """
    _leave_compiler_out()
    if name not in OPTIMIZERS:
        raise ValueError(f"unknown optimizer {name!r}; known: {', '.join(OPTIMIZERS)}")
    parameters = list(parameters)
    own: dict[str, Any] = {"momentum": momentum} if name == "sgd" else {"betas": (momentum, 0.999)}
    on_gpu = bool(parameters) and all(parameter.is_cuda for parameter in parameters)
    if on_gpu and name != "sgd":
        own["capturable"] = True  # else torch refuses a CUDA graph of it
    optimizer = OPTIMIZERS[name](parameters, lr=lr, weight_decay=weight_decay, fused=on_gpu or None, **own)
    if on_gpu:
        for group in optimizer.param_groups:
            group["lr"] = torch.tensor(lr, device=parameters[0].device)
    return optimizer


def optimizer_state(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """The state dict, with learning rates as numbers."""
    state = optimizer.state_dict()
    return state | {"param_groups": [{**group, "lr": float(group["lr"])} for group in state["param_groups"]]}


def restore_optimizer(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Load a state dict; how the optimizer computes stays, since the state may be from another device."""
    groups = []
    for own, saved in zip(optimizer.param_groups, state["param_groups"], strict=False):
        groups.append(saved | {name: own[name] for name in HOW if name in own})
    rates = [group["lr"] for group in optimizer.param_groups]
    optimizer.load_state_dict({**state, "param_groups": groups or state["param_groups"]})
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        if isinstance(rate, Tensor):
            group["lr"] = rate.fill_(float(group["lr"]))
